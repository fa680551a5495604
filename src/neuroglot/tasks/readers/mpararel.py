"""mParaRel (Fierro and Søgaard 2022): facts about subjects, as sentences to complete.

A decoder can answer only where the object comes last, so each language needs such a pattern for the
relation; few relations have one in every language, and the notes of the task say which.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.tasks.files import json_objects
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
OBJECT_LAST = re.compile(r"(?P<cloze>[^\[\]]*\[X\][^\[\]]*?)(?P<join>\s*)\[Y\]\s*[.。]?\s*")
N_CHOICES = 10
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


def _choices(facts: Mapping[str, Table]) -> dict[str, list[str]]:
    """Ids of facts whose objects are the choices of each fact; itself is among them.

    The others are objects of the relation that are not also right for the subject, drawn with the
    fact's id as the seed, with names that differ in every language.
    """
    objects: dict[str, dict[str, str]] = defaultdict(dict)
    right: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row_id, rows in facts.items():
        row = next(iter(rows.values()))
        objects[row["relation"]].setdefault(row["object_uri"], row_id)
        right[row["relation"], row["subject_uri"]].add(row["object_uri"])
    found = {}
    for row_id, rows in facts.items():
        row = next(iter(rows.values()))
        others = [
            other
            for uri, other in objects[row["relation"]].items()
            if uri not in right[row["relation"], row["subject_uri"]]
        ]
        rng = Random(row_id)
        rng.shuffle(others)
        chosen = [row_id]
        for other in others:
            if len(chosen) < N_CHOICES and all(
                _differ(facts[other], facts[taken]) for taken in chosen
            ):
                chosen.append(other)
        rng.shuffle(chosen)
        found[row_id] = chosen
    return found


def _differ(one: Table, other: Table) -> bool:
    """Whether two objects have different names in every language."""
    return all(one[x]["object"].casefold() != other[x]["object"].casefold() for x in one)


def items(
    source: Source, languages: Sequence[str], wording: Wording
) -> tuple[list[Item], list[str]]:
    """One item a fact whose relation has a pattern in every language."""
    return items_of(source, {language: read(source, language) for language in languages}, wording)


def items_of(
    source: Source, tables: Mapping[str, Table], wording: Wording
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
    found = [
        _item(row_id, usable, patterns[_relation(row_id)], chosen, words)
        for row_id, chosen in _choices(usable).items()
        if len(chosen) > 1
    ]
    used = dict.fromkeys(item["relation"] for item in found)
    note = (
        f"{len(found):,} of the {len(facts):,} facts that {listed(languages)} share, in "
        f"{len(used)} of {len(patterns)} relations ({listed(used, len(used))}); the others have no "
        "pattern that ends in the object in each of these languages, or no second object"
    )
    return found, [note]


def _item(
    row_id: str,
    facts: Mapping[str, Table],
    patterns: Mapping[str, Pattern],
    chosen: Sequence[str],
    words: Mapping[str, Words],
) -> Item:
    """The item of a fact, from the patterns of its relation and the facts it is told apart from."""
    rows = facts[row_id]
    clozes = {x: patterns[x].cloze.replace("[X]", rows[x]["subject"]) for x in words}
    joined = {x: {**words[x], "join": patterns[x].join} for x in words}
    return {
        "id": f"mpararel:{row_id}",
        **asked(joined, {x: {"cloze": cloze} for x, cloze in clozes.items()}),
        "answers": {x: rows[x]["object"] for x in words},
        "choices": {x: [facts[other][x]["object"] for other in chosen] for x in words},
        "relation": _relation(row_id),
        "subject": rows[next(iter(words))]["subject_uri"],
    }


def find_patterns(
    source: Source, facts: Mapping[str, Table], languages: Sequence[str]
) -> dict[str, dict[str, Pattern]]:
    """Patterns by relation and language; a language without one is left out."""
    found: dict[str, dict[str, Pattern]] = {}
    for relation in dict.fromkeys(map(_relation, facts)):
        by_language = {x: find_pattern(source, relation, x) for x in languages}
        found[relation] = {x: pattern for x, pattern in by_language.items() if pattern}
    return found
