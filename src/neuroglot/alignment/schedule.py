"""Which texts are trained in which order, and which are never."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from neuroglot.alignment.training_settings import Training
from neuroglot.errors import NeuroglotError, listed
from neuroglot.tasks.halves import parts_of
from neuroglot.tasks.parallel import ParallelTask
from neuroglot.tasks.records import Item

PARTS = ("trained", "item_held_out", "language_held_out", "both_held_out")


class Pair(NamedTuple):
    """One item in two languages; ``other`` is the item that a mismatched source is of."""

    item: int
    other: int
    source: str
    target: str


@dataclass(frozen=True)
class Split:
    """What of a task is trained.

    Attributes:
        trained: the task with the items that are trained.
        held_out: the task with those that never are.
        languages: those that are trained.
    """

    trained: ParallelTask
    held_out: ParallelTask
    languages: tuple[str, ...]

    def trains(self, item: Item, language: str) -> bool:
        """Whether an item of ``trained`` is trained in a language; never where it is held out."""
        return language in self.languages and language not in item["held_out"]

    def part(self, task: ParallelTask) -> np.ndarray[Any, np.dtype[np.str_]]:
        """Which of ``PARTS`` each prompt of some items belongs to (item, language)."""
        kept = {item["id"] for item in self.trained.items}
        found = [
            [
                PARTS[(item["id"] not in kept) + 2 * (not self.trains(item, language))]
                for language in task.languages
            ]
            for item in task.items
        ]
        return np.array(found)


def split(task: ParallelTask, training: Training) -> Split:
    """Hold out some items, of subjects of their own, and the languages that are not asked for.

    Raises:
        NeuroglotError: an unknown language, or too few items or languages to train on.
    """
    languages = training.languages or task.languages
    unknown = [language for language in languages if language not in task.languages]
    if unknown or len(set(languages)) < max(2, len(languages)):
        raise NeuroglotError(
            f"languages={listed(languages)}: expected at least two different ones of "
            f"{listed(task.languages)}."
        )
    held_out, trained = parts_of(task, training.held_out, training.seed)
    kept, left = set(trained), set(held_out)
    return Split(
        task.select(lambda item: item["id"] in kept),
        task.select(lambda item: item["id"] in left),
        tuple(languages),
    )


def schedule(chosen: Split, training: Training) -> list[Pair]:
    """The pairs of all steps, one step after another; the same for every method.

    A step has two languages, and items that are trained in both of them.

    Raises:
        NeuroglotError: no two languages have two items in common.
    """
    rng = random.Random(f"pairs:{training.seed}")
    items = chosen.trained.items
    in_both = {
        pair: [i for i, item in enumerate(items) if all(chosen.trains(item, x) for x in pair)]
        for pair in itertools.permutations(chosen.languages, 2)
    }
    shared = {pair: found for pair, found in in_both.items() if len(found) > 1}
    if not shared:
        raise NeuroglotError(
            f"task {chosen.trained.name!r}: no two of {listed(chosen.languages)} have two items "
            "in common that may be trained in both."
        )
    languages = list(shared)
    pairs: list[Pair] = []
    for _ in range(training.steps):
        source, target = rng.choice(languages)
        there = shared[source, target]
        drawn = rng.sample(there, min(training.pairs, len(there)))
        # Mismatched sources are the same texts, each beside its neighbour's translation.
        together = zip(drawn, [*drawn[1:], drawn[0]], strict=True)
        repeated = itertools.cycle([Pair(i, other, source, target) for i, other in together])
        pairs += itertools.islice(repeated, training.pairs)
    return pairs


def checked_part(chosen: Split, training: Training) -> ParallelTask:
    """The items that are measured: some that are trained, and some that are not."""
    items: list[Item] = []
    for side in (chosen.trained, chosen.held_out):
        n = min(training.checked_items, len(side))
        drawn = random.Random(f"checked:{training.seed}").sample(range(len(side)), n)
        items += [side.items[i] for i in sorted(drawn)]
    return replace(chosen.trained, items=items)
