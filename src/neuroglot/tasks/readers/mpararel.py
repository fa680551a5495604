"""mParaRel (Fierro and Søgaard 2022): facts about subjects, as sentences to complete.

A decoder can answer only where the object comes last, so each language needs such a pattern for the
relation; few relations have one in every language, and the notes of the task say which.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.tasks.files import json_objects
from neuroglot.tasks.readers.distractors import Distractors, draw_choices
from neuroglot.tasks.readers.source import Row, Rows, Source, Table, need, no_such_file, table_of
from neuroglot.tasks.records import Item
from neuroglot.tasks.wording import Wording, Words, asked

FOLDERS = {"zh": "zh-hans"}  # where the published folder has another name than the language
# All relations of the published data (Elazar et al. 2021), so that the Hub can be asked for each.
RELATIONS = tuple(
    f"P{number}"
    for number in (
        *(17, 19, 20, 27, 30, 31, 36, 37, 39, 47, 101, 103, 106, 108, 127, 131, 136, 138, 140, 159),
        *(176, 178, 190, 264, 276, 279, 361, 364, 407, 413, 449, 463, 495, 527, 530, 740, 937),
        *(1001, 1303, 1376, 1412),
    )
)
Kept = Literal["single", "all"]
KEPT: tuple[Kept, ...] = ("single", "all")
# Relations in which other objects are often true of a subject too, so that a right answer counts as
# wrong: by what the property means in Wikidata, which gives most of them several values an entity.
SEVERAL = {
    "P39": "people hold several positions, and an archbishop is a bishop",
    "P47": "most places border several others",
    "P101": "fields of work contain one another",
    "P106": "people have several occupations",
    "P136": "artists work in several genres",
    "P140": "religions contain one another, and their followers are objects too",
    "P190": "cities have several twins",
    "P264": "artists record for several labels, and labels belong to one another",
    "P463": "members of one organisation are members of others",
    "P527": "things have several parts",
    "P530": "countries have diplomatic relations with most others",
    "P937": "people work in several places",
    "P1303": "musicians play several instruments",
    "P1412": "people speak several languages",
}
OBJECT_LAST = re.compile(r"(?P<cloze>[^\[\]]*\[X\][^\[\]]*?)(?P<join>\s*)\[Y\]\s*[.。]?\s*")
LONGEST_PATTERN = 1000  # characters; looking through one takes the square of its length
FACT = ("subject", "object", "subject_uri", "object_uri")  # fields of a fact that are texts


@dataclass(frozen=True)
class Pattern:
    """A sentence up to its object: the part before, with ``[X]`` in it, and what joins the two."""

    cloze: str
    join: str


def languages_in(source: Source) -> list[str]:
    """Languages with a folder of facts."""
    return [
        language
        for language in source.dataset.languages
        if source.place(f"tuples/{FOLDERS.get(language, language)}").is_dir()
    ]


def _rows(source: Source, part: str, relation: str, language: str) -> Rows:
    fields = {
        "part": part,
        "folder": FOLDERS.get(language, language),
        "relation": relation,
    }
    if source.folder is None:
        yield from source.hub_rows(language=language, **fields)
        return
    yield from json_objects(source.file(**fields), language)


def _facts(source: Source, relation: str, language: str) -> Rows:
    for where, row in _rows(source, "tuples", relation, language):
        need(where, row, "lineid", "sub_uri", "obj_uri", "sub_label", "obj_label")
        if not isinstance(row["lineid"], int | str):
            raise NeuroglotError(f"{where}: lineid {shown(row['lineid'])} is no number.")
        yield (
            where,
            {
                "id": f"{relation}:{row['lineid']}",
                "relation": relation,
                "subject": row["sub_label"],
                "object": row["obj_label"],
                "subject_uri": row["sub_uri"],
                "object_uri": row["obj_uri"],
            },
        )


def read(source: Source, language: str) -> Table:
    """Facts of all relations in a language by relation and line."""
    if source.folder is not None and language not in languages_in(source):
        raise no_such_file(source)
    table: Table = {}
    for relation in relations_in(source):
        what = f"tuples of {relation} ({language})"
        table |= table_of(_facts(source, relation, language), FACT, what)
    return table


def relations_in(source: Source) -> list[str]:
    """Relations that any language of the folder has; each language must then have them all."""
    if source.folder is None:
        return list(RELATIONS)
    folders = [FOLDERS.get(x, x) for x in source.dataset.languages]
    return [
        relation
        for relation in RELATIONS
        if any(source.has(part="tuples", folder=x, relation=relation) for x in folders)
    ]


def find_pattern(source: Source, relation: str, language: str) -> Pattern | None:
    """The first pattern whose object comes last, one that a person has checked if there is any."""
    found: dict[bool, Pattern] = {}
    for where, row in _rows(source, "patterns", relation, language):
        need(where, row, "pattern")
        if not isinstance(row["pattern"], str) or len(row["pattern"]) > LONGEST_PATTERN:
            raise NeuroglotError(
                f"{where}: the pattern is no text of at most {LONGEST_PATTERN:,} characters."
            )
        match = OBJECT_LAST.fullmatch(row["pattern"])
        if match:
            pattern = Pattern(match["cloze"].strip(), match["join"])
            found.setdefault(bool(row.get("checked-by-human")), pattern)
    return found.get(True) or found.get(False)


def _relation(row_id: str) -> str:
    return row_id.partition(":")[0]


def shared_facts(tables: Mapping[str, Table]) -> dict[str, Table]:
    """Facts that every language has: rows by id, and in them rows by language.

    Raises:
        NeuroglotError: a line is about different things in two languages.
    """
    first = next(iter(tables))
    shared: dict[str, Table] = {}
    for row_id, row in tables[first].items():
        rows = {language: table.get(row_id) for language, table in tables.items()}
        kept = {language: found for language, found in rows.items() if found}
        if len(kept) < len(tables):
            continue
        for language, found in kept.items():
            if _uris(found) != _uris(row):
                raise NeuroglotError(
                    f"mpararel: fact {row_id!r} is about {_uris(row)} in {first!r}, but about "
                    f"{_uris(found)} in {language!r}; the languages do not align."
                )
        shared[row_id] = kept
    return shared


def _uris(row: Row) -> tuple[str, str]:
    """What a fact is about: its subject and its object."""
    return row["subject_uri"], row["object_uri"]


def items(
    source: Source,
    languages: Sequence[str],
    wording: Wording,
    *,
    distractors: Distractors = "proportional",
    relations: Kept = "single",
) -> tuple[list[Item], list[str]]:
    """One item a fact whose relation has a pattern in every language.

    Args:
        source: where the facts and patterns are.
        languages: of the items.
        wording: what the template says.
        distractors: how the wrong choices are drawn (:func:`draw_choices`).
        relations: ``"single"`` leaves out the relations of :data:`SEVERAL`; ``"all"`` keeps them.
    """
    tables = {language: read(source, language) for language in languages}
    return items_of(source, tables, wording, distractors=distractors, relations=relations)


def items_of(
    source: Source,
    tables: Mapping[str, Table],
    wording: Wording,
    *,
    distractors: Distractors = "proportional",
    relations: Kept = "single",
) -> tuple[list[Item], list[str]]:
    """The items of facts that have been read, by language, and the notes."""
    languages = tuple(tables)
    facts = shared_facts(tables)
    patterns = find_patterns(source, facts, languages)
    complete = [rel for rel, by_language in patterns.items() if len(by_language) == len(languages)]
    if not complete:
        raise NeuroglotError(
            f"mpararel: no relation has a pattern that ends in its object in each of "
            f"{listed(languages)}; choose fewer languages (tr has the fewest patterns)."
        )
    words = {language: wording.of(language) for language in languages}
    usable = {row_id: rows for row_id, rows in facts.items() if _relation(row_id) in complete}
    chosen = {
        row_id: ids
        for row_id, ids in draw_choices(usable, tables, distractors).items()
        if len(ids) > 1
    }
    left_out = SEVERAL if relations == "single" else {}
    found = [
        _item(row_id, usable, patterns[_relation(row_id)], ids, words)
        for row_id, ids in chosen.items()
        if _relation(row_id) not in left_out
    ]
    lost = [_relation(row_id) for row_id in chosen if _relation(row_id) in left_out]
    if lost and not found:
        raise NeuroglotError(
            f"mpararel: no item is left in {listed(languages)}; the patterns that end in the "
            f"object are of relations in which several objects are often true "
            f"({listed(dict.fromkeys(lost), 20)}). Choose fewer languages, or relations='all' "
            "(--relations all)."
        )
    used = dict.fromkeys(item["relation"] for item in found)
    note = (
        f"{len(found):,} of the {len(facts):,} facts that {listed(languages)} share, in "
        f"{len(used)} of {len(patterns)} relations ({listed(used, len(used))}); the others have no "
        "pattern that ends in the object in each of these languages, or no second object"
        f"{', or are left out' if lost else ''}"
    )
    return found, [note, *_left_out(lost), DRAWN[distractors]]


DRAWN: dict[Distractors, str] = {
    "proportional": (
        "wrong choices are drawn in proportion to how often an object is right in its relation "
        "(distractors='proportional')"
    ),
    "uniform": (
        "wrong choices are drawn uniformly from the objects of the relation, so that the commonest "
        "object is right more often than its chance (distractors='uniform')"
    ),
}


def _left_out(lost: Sequence[str]) -> list[str]:
    """What the notes say of items that are left out, given the relation of each."""
    if not lost:
        return []
    relations = dict.fromkeys(lost)
    return [
        f"{len(lost):,} items of {listed(relations, len(relations))} are left out, since other "
        "objects of these relations are often true too; relations='all' keeps them"
    ]


def _item(
    row_id: str,
    facts: Mapping[str, Table],
    patterns: Mapping[str, Pattern],
    chosen: Sequence[str],
    words: Mapping[str, Words],
) -> Item:
    """The item of a fact, from the patterns of its relation and the facts it is told apart from."""
    rows = facts[row_id]
    joined = {x: {**words[x], "join": patterns[x].join} for x in words}
    subjects = {x: rows[x]["subject"] for x in words}
    neutral = {x: words[x]["neutral_subject"] for x in words}
    return {
        "id": f"mpararel:{row_id}",
        **asked(joined, _clozes(patterns, subjects)),
        "masked": asked(joined, _clozes(patterns, neutral))["prompts"],
        "answers": {x: rows[x]["object"] for x in words},
        "choices": {x: [facts[other][x]["object"] for other in chosen] for x in words},
        "relation": _relation(row_id),
        "subject": rows[next(iter(words))]["subject_uri"],
    }


def _clozes(
    patterns: Mapping[str, Pattern], subjects: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """The field of the prompt in each language: its pattern about a subject."""
    return {x: {"cloze": patterns[x].cloze.replace("[X]", y)} for x, y in subjects.items()}


def find_patterns(
    source: Source, facts: Mapping[str, Table], languages: Sequence[str]
) -> dict[str, dict[str, Pattern]]:
    """Patterns by relation and language; a language without one is left out."""
    found: dict[str, dict[str, Pattern]] = {}
    for relation in dict.fromkeys(map(_relation, facts)):
        by_language = {x: find_pattern(source, relation, x) for x in languages}
        found[relation] = {x: pattern for x, pattern in by_language.items() if pattern}
    return found
