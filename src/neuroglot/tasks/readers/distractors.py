"""Wrong choices of facts: objects of the same relation that are not also right for the subject."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from random import Random
from typing import Literal

from neuroglot.tasks.readers.source import Row, Table

Distractors = Literal["proportional", "uniform"]
DISTRACTORS: tuple[Distractors, ...] = ("proportional", "uniform")
N_CHOICES = 10
# Relations of Wikidata whose facts are those of the other, read the other way round.
CONVERSE = {
    **{"P36": "P1376", "P1376": "P36", "P361": "P527", "P527": "P361"},
    **{symmetric: symmetric for symmetric in ("P47", "P190", "P530")},
}
TRANSITIVE = ("P131", "P279", "P361", "P527")  # what holds of an object, holds of its subject

Facts = Mapping[str, Table]
"""Rows by language, by the id of the fact."""

Right = Mapping[tuple[str, str], set[str]]
"""Names of the objects that are right, by relation and a name of the subject (:func:`_names`)."""


def draw_choices(
    facts: Facts, tables: Mapping[str, Table], distractors: Distractors
) -> dict[str, list[str]]:
    """Ids of facts whose objects are the choices of each fact; itself is among them.

    The others are objects of the relation that are not also right for the subject, drawn with the
    fact's id as the seed, with names that differ in every language.

    Args:
        facts: those that become items.
        tables: all facts that were read, by language: they tell what else is right.
        distractors: ``"proportional"`` draws one after the other, each object with a probability
            that is proportional to the number of facts of its relation in which it is right, as
            right answers are distributed. ``"uniform"`` draws each object with the same
            probability, and knows as right only what ``facts`` say of the subject.
    """
    proportional = distractors == "proportional"
    known = right_objects(tables) if proportional else _right_in(facts)
    draw = _in_proportion if proportional else _uniformly
    names = {row_id: _object_names(rows) for row_id, rows in facts.items()}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    fact_of: dict[tuple[str, str], str] = {}
    for row_id, rows in facts.items():
        row = _any(rows)
        first = fact_of.setdefault((row["relation"], row["object_uri"]), row_id)
        counts[row["relation"]][first] += 1
    found = {}
    for row_id, rows in facts.items():
        relation = _any(rows)["relation"]
        right = set[str]().union(
            *(known.get((relation, name), ()) for name in _names(rows, "subject"))
        )
        others = {
            other: count
            for other, count in counts[relation].items()
            if right.isdisjoint(names[other])
        }
        rng = Random(row_id)
        found[row_id] = _different(row_id, draw(others, rng), names)
        rng.shuffle(found[row_id])
    return found


def _any(rows: Table) -> Row:
    """The row of a language; all have the same relation and are about the same things."""
    return next(iter(rows.values()))


def _names(rows: Table, what: str) -> Iterator[str]:
    """What a subject or an object is called: its URI, and in each language its name."""
    yield _any(rows)[f"{what}_uri"]
    for language, row in rows.items():
        yield f"{language} {row[what].casefold()}"


def _object_names(rows: Table) -> frozenset[str]:
    return frozenset(_names(rows, "object"))


def _in_proportion(counts: Mapping[str, int], rng: Random) -> Iterator[str]:
    """Keys in an order in which each next one is drawn in proportion to its count."""
    left = dict(counts)
    while left:
        drawn = rng.choices(list(left), list(left.values()))[0]
        del left[drawn]
        yield drawn


def _uniformly(counts: Mapping[str, int], rng: Random) -> Iterator[str]:
    """Keys in an order in which each next one is drawn whatever its count."""
    shuffled = list(counts)
    rng.shuffle(shuffled)
    return iter(shuffled)


def _different(row_id: str, order: Iterator[str], names: Mapping[str, frozenset[str]]) -> list[str]:
    """The fact and the first others, until there are enough, whose objects share no name."""
    chosen, taken = [row_id], set(names[row_id])
    for other in order:
        if taken.isdisjoint(names[other]):
            chosen.append(other)
            taken |= names[other]
        if len(chosen) == N_CHOICES:
            break
    return chosen


def _right_in(facts: Facts) -> Right:
    """What the facts themselves say of each subject, by URI."""
    right = defaultdict(set)
    for rows in facts.values():
        row = _any(rows)
        right[row["relation"], row["subject_uri"]].add(row["object_uri"])
    return right


def right_objects(tables: Mapping[str, Table]) -> Right:
    """What the facts of any language say of each subject, and what follows from them.

    A name in a language may be that of several subjects; an object that is right for one of them
    is right for the prompt. Facts count in the other direction too where a relation has a converse,
    and over several steps where it is transitive.
    """
    right = defaultdict(set)
    for language, table in tables.items():
        for row in table.values():
            relation, rows = row["relation"], {language: row}
            named = zip(_names(rows, "subject"), _names(rows, "object"), strict=True)
            for subject, found in named:
                right[relation, subject].add(found)
                if relation in CONVERSE:
                    right[CONVERSE[relation], found].add(subject)
    for relation, name in [key for key in right if key[0] in TRANSITIVE]:
        right[relation, name] = _reached(right, relation, name)
    return right


def _reached(right: Right, relation: str, name: str) -> set[str]:
    """Everything that a chain of facts of one relation leads to."""
    reached: set[str] = set()
    ahead = set(right[relation, name])
    while ahead:
        reached |= ahead
        ahead = set[str]().union(*(right.get((relation, x), ()) for x in ahead)) - reached
    return reached
