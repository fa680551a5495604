"""Wrong choices for facts: objects of the same relation that are not right for the subject too."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from random import Random
from typing import Literal

from neuroglot.tasks.readers.source import Row, Table

Distractors = Literal["proportional", "uniform"]
DISTRACTORS: tuple[Distractors, ...] = ("proportional", "uniform")
N_CHOICES = 10
# Relations of Wikidata, and the relation that holds in the opposite direction.
CONVERSE = {
    **{"P36": "P1376", "P1376": "P36", "P361": "P527", "P527": "P361"},
    **{symmetric: symmetric for symmetric in ("P47", "P190", "P530")},
}
TRANSITIVE = ("P131", "P279", "P361", "P527")

Facts = Mapping[str, Table]
"""By the id of a fact, its rows by language."""

Right = Mapping[tuple[str, str], set[str]]
"""Names of the right objects, by relation and by a name of the subject (:func:`_names`)."""


def draw_choices(
    facts: Facts, tables: Mapping[str, Table], distractors: Distractors
) -> dict[str, list[str]]:
    """For each fact, the ids of the facts whose objects are its choices, its own id among them.

    The wrong choices are objects of the same relation that are not right for the subject too, and
    whose names differ in every language. They are drawn with the fact's id as the seed.

    Args:
        facts: the facts that become items.
        tables: all facts that were read, by language, which say what else is right.
        distractors: ``"proportional"`` draws objects one after the other, without replacement,
            with probabilities proportional to the number of facts of the relation in which they
            are right. ``"uniform"`` draws all objects with the same probability, and takes as
            right only what ``facts`` say of the subject.
    """
    proportional = distractors == "proportional"
    right_for = right_objects(tables) if proportional else _right_in(facts)
    draw = _in_proportion if proportional else _uniformly
    names = {row_id: frozenset(_names(rows, "object")) for row_id, rows in facts.items()}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    fact_of: dict[tuple[str, str], str] = {}
    for row_id, rows in facts.items():
        row = _any(rows)
        first = fact_of.setdefault((row["relation"], row["object_uri"]), row_id)
        counts[row["relation"]][first] += 1
    choices = {}
    for row_id, rows in facts.items():
        relation = _any(rows)["relation"]
        right = set[str]().union(
            *(right_for.get((relation, name), ()) for name in _names(rows, "subject"))
        )
        others = {
            other: count
            for other, count in counts[relation].items()
            if right.isdisjoint(names[other])
        }
        rng = Random(row_id)
        choices[row_id] = _different(row_id, draw(others, rng), names)
        rng.shuffle(choices[row_id])
    return choices


def _any(rows: Table) -> Row:
    """The row of any language, for what all languages have in common: relation and URIs."""
    return next(iter(rows.values()))


def _names(rows: Table, role: str) -> Iterator[str]:
    """The names of a fact's ``"subject"`` or ``"object"``: its URI, and its name by language."""
    yield _any(rows)[f"{role}_uri"]
    for language, row in rows.items():
        yield f"{language} {row[role].casefold()}"


def _in_proportion(counts: Mapping[str, int], rng: Random) -> Iterator[str]:
    """The keys in random order, each drawn with a probability proportional to its count."""
    left = dict(counts)
    while left:
        drawn = rng.choices(list(left), list(left.values()))[0]
        del left[drawn]
        yield drawn


def _uniformly(counts: Mapping[str, int], rng: Random) -> Iterator[str]:
    """The keys in random order, whatever their counts."""
    shuffled = list(counts)
    rng.shuffle(shuffled)
    return iter(shuffled)


def _different(row_id: str, order: Iterator[str], names: Mapping[str, frozenset[str]]) -> list[str]:
    """The fact and the first others whose objects have no name in common, ten at most."""
    chosen, taken = [row_id], set(names[row_id])
    for other in order:
        if taken.isdisjoint(names[other]):
            chosen.append(other)
            taken |= names[other]
        if len(chosen) == N_CHOICES:
            break
    return chosen


def _right_in(facts: Facts) -> Right:
    """The right objects of each subject by URI, as these facts state them."""
    right = defaultdict(set)
    for rows in facts.values():
        row = _any(rows)
        right[row["relation"], row["subject_uri"]].add(row["object_uri"])
    return right


def right_objects(tables: Mapping[str, Table]) -> Right:
    """The right objects of each subject, as the facts of any language state or imply them.

    Several subjects may have one name in a language; an object that is right for one of them is
    then right for all. A fact implies its converse where the relation has one (:data:`CONVERSE`),
    and chains of facts imply others where the relation is transitive (:data:`TRANSITIVE`).
    """
    right = defaultdict(set)
    for language, table in tables.items():
        for row in table.values():
            relation, rows = row["relation"], {language: row}
            named = zip(_names(rows, "subject"), _names(rows, "object"), strict=True)
            for subject, target in named:
                right[relation, subject].add(target)
                if relation in CONVERSE:
                    right[CONVERSE[relation], target].add(subject)
    for relation, name in [key for key in right if key[0] in TRANSITIVE]:
        right[relation, name] = _reached(right, relation, name)
    return right


def _reached(right: Right, relation: str, name: str) -> set[str]:
    """The names of all objects to which chains of facts of one relation lead."""
    reached: set[str] = set()
    ahead = set(right[relation, name])
    while ahead:
        reached |= ahead
        ahead = set[str]().union(*(right.get((relation, by), ()) for by in ahead)) - reached
    return reached
