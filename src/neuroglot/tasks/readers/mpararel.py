"""mParaRel (Fierro and Søgaard 2022): facts about subjects, as sentences to complete.

A decoder can only complete sentences whose object comes last, so a relation is used if every
language has such a pattern for it. Few relations do; the notes of the task say which.
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

FOLDERS = {"zh": "zh-hans"}  # languages whose published folder has another name
# All relations of the published data (Elazar et al. 2021), by which the Hub is asked for each.
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
# Relations in which several objects are often true of one subject, so that a right answer would
# count as wrong. They follow from what the property means in Wikidata, where most of these
# properties have several values for one entity.
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
LONGEST_PATTERN = 1000  # characters; the time to match a pattern grows as its length squared
FACT = ("subject", "object", "subject_uri", "object_uri")  # the fields of a fact with texts


@dataclass(frozen=True)
class Pattern:
    """A sentence that ends in its object.

    Attributes:
        cloze: the sentence up to its object, with ``[X]`` in place of the subject.
        join: the white space between the two.
    """

    cloze: str
    join: str


def _folder(language: str) -> str:
    return FOLDERS.get(language, language)


def languages_in(source: Source) -> list[str]:
    """The languages with a folder of facts."""
    languages = source.dataset.languages
    return [code for code in languages if source.place(f"tuples/{_folder(code)}").is_dir()]


def _rows(source: Source, part: str, relation: str, language: str) -> Rows:
    folder = _folder(language)
    return source.rows(json_objects, language=language, part=part, folder=folder, relation=relation)


def _facts(source: Source, relation: str, language: str) -> Rows:
    for where, row in _rows(source, "tuples", relation, language):
        need(where, row, "lineid", "sub_uri", "obj_uri", "sub_label", "obj_label")
        if not isinstance(row["lineid"], int | str):
            raise NeuroglotError(f"{where}: lineid {shown(row['lineid'])} is not a number.")
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
    """The facts of all relations in a language, by relation and line."""
    if source.folder is not None and language not in languages_in(source):
        raise no_such_file(source)
    table: Table = {}
    for relation in relations_in(source):
        what = f"tuples of {relation} ({language})"
        table |= table_of(_facts(source, relation, language), FACT, what)
    return table


def relations_in(source: Source) -> list[str]:
    """The relations that some language has, and that each language must therefore have."""
    if source.folder is None:
        return list(RELATIONS)
    folders = [_folder(language) for language in source.dataset.languages]
    return [
        relation
        for relation in RELATIONS
        if any(source.has(part="tuples", folder=name, relation=relation) for name in folders)
    ]


def find_pattern(source: Source, relation: str, language: str) -> Pattern | None:
    """The first pattern whose object comes last; patterns that a person has checked go first."""
    first: dict[bool, Pattern] = {}
    for where, row in _rows(source, "patterns", relation, language):
        need(where, row, "pattern")
        if not isinstance(row["pattern"], str) or len(row["pattern"]) > LONGEST_PATTERN:
            raise NeuroglotError(
                f"{where}: expected a pattern of at most {LONGEST_PATTERN:,} characters."
            )
        if match := OBJECT_LAST.fullmatch(row["pattern"]):
            pattern = Pattern(match["cloze"].strip(), match["join"])
            first.setdefault(bool(row.get("checked-by-human")), pattern)
    return first.get(True) or first.get(False)


def _relation(row_id: str) -> str:
    return row_id.partition(":")[0]


def shared_facts(tables: Mapping[str, Table]) -> dict[str, Table]:
    """The facts that every language has: by id, the rows of the fact by language.

    Raises:
        NeuroglotError: one id stands for different facts in two languages.
    """
    first = next(iter(tables))
    shared: dict[str, Table] = {}
    for row_id, row in tables[first].items():
        if not all(row_id in table for table in tables.values()):
            continue
        shared[row_id] = {language: table[row_id] for language, table in tables.items()}
        for language, other in shared[row_id].items():
            if _uris(other) != _uris(row):
                raise NeuroglotError(
                    f"mpararel: fact {row_id!r} is about {_uris(row)} in {first!r}, but about "
                    f"{_uris(other)} in {language!r}; the languages do not align."
                )
    return shared


def _uris(row: Row) -> tuple[str, str]:
    return row["subject_uri"], row["object_uri"]


def items(
    source: Source,
    languages: Sequence[str],
    wording: Wording,
    *,
    distractors: Distractors = "proportional",
    relations: Kept = "single",
) -> tuple[list[Item], list[str]]:
    """One item for each fact whose relation has a pattern in every language, and the notes.

    Args:
        source: the place from which facts and patterns are read.
        languages: the languages of the items.
        wording: the words of the template.
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
    """As :func:`items`, of facts that have been read, by language."""
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
    records = [
        _item(row_id, usable, patterns[_relation(row_id)], ids, words)
        for row_id, ids in chosen.items()
        if _relation(row_id) not in left_out
    ]
    lost = [_relation(row_id) for row_id in chosen if _relation(row_id) in left_out]
    if lost and not records:
        raise NeuroglotError(
            f"mpararel: no item is left in {listed(languages)}; the patterns that end in the "
            f"object are of relations in which several objects are often true "
            f"({listed(dict.fromkeys(lost), 20)}). Choose fewer languages, or relations='all' "
            "(--relations all)."
        )
    used = dict.fromkeys(item["relation"] for item in records)
    note = (
        f"{len(records):,} of the {len(facts):,} facts that {listed(languages)} share, in "
        f"{len(used)} of {len(patterns)} relations ({listed(used, len(used))}); the others have no "
        "pattern that ends in the object in each of these languages, or no second object"
        f"{', or are left out' if lost else ''}"
    )
    notes = [note]
    if lost:
        names = dict.fromkeys(lost)
        notes.append(
            f"{len(lost):,} items of {listed(names, len(names))} are left out, since other objects "
            "of these relations are often true too; relations='all' keeps them"
        )
    return records, [*notes, DRAWN[distractors]]


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


def _item(
    row_id: str,
    facts: Mapping[str, Table],
    patterns: Mapping[str, Pattern],
    chosen: Sequence[str],
    words: Mapping[str, Words],
) -> Item:
    """The item of a fact, from its relation's patterns and the facts whose objects are choices."""
    rows = facts[row_id]
    joined = {code: {**words[code], "join": patterns[code].join} for code in words}
    subjects = {code: rows[code]["subject"] for code in words}
    neutral = {code: words[code]["neutral_subject"] for code in words}
    return {
        "id": f"mpararel:{row_id}",
        **asked(joined, _clozes(patterns, subjects)),
        "masked": asked(joined, _clozes(patterns, neutral))["prompts"],
        "answers": {code: rows[code]["object"] for code in words},
        "choices": {code: [facts[other][code]["object"] for other in chosen] for code in words},
        "relation": _relation(row_id),
        "subject": rows[next(iter(words))]["subject_uri"],
    }


def _clozes(
    patterns: Mapping[str, Pattern], subjects: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """The field of the prompt in each language: its pattern, with the subject in place."""
    return {
        language: {"cloze": patterns[language].cloze.replace("[X]", subject)}
        for language, subject in subjects.items()
    }


def find_patterns(
    source: Source, facts: Mapping[str, Table], languages: Sequence[str]
) -> dict[str, dict[str, Pattern]]:
    """The patterns by relation and, of those languages that have one, by language."""
    return {
        relation: {
            language: pattern
            for language in languages
            if (pattern := find_pattern(source, relation, language))
        }
        for relation in dict.fromkeys(map(_relation, facts))
    }
