"""Choose which texts are trained, in which order, and which are held out."""

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
    """One item in two languages; with mismatched sources, the source is of the item ``other``."""

    item: int
    other: int
    source: str
    target: str


@dataclass(frozen=True)
class Split:
    """The parts of a task that are trained and held out.

    Attributes:
        trained: the task with the items that are trained.
        held_out: the task with the items that are held out.
        languages: the languages that are trained.
    """

    trained: ParallelTask
    held_out: ParallelTask
    languages: tuple[str, ...]

    def trains(self, item: Item, language: str) -> bool:
        """Whether an item of ``trained`` is trained in a language."""
        return language in self.languages and language not in item["held_out"]

    def part(self, task: ParallelTask) -> np.ndarray[Any, np.dtype[np.str_]]:
        """Which of ``PARTS`` each prompt of a task belongs to (item, language)."""
        ids = {item["id"] for item in self.trained.items}
        return np.array(
            [
                [
                    PARTS[(item["id"] not in ids) + 2 * (not self.trains(item, language))]
                    for language in task.languages
                ]
                for item in task.items
            ]
        )


def split(task: ParallelTask, training: Training) -> Split:
    """Hold out the items of some subjects, and the languages that are not to be trained.

    Raises:
        NeuroglotError: a language is unknown, or there are too few items or languages to train on.
    """
    languages = training.languages or task.languages
    unknown = [language for language in languages if language not in task.languages]
    if unknown or len(set(languages)) < max(2, len(languages)):
        raise NeuroglotError(
            f"languages={listed(languages)}: expected at least two different ones of "
            f"{listed(task.languages)}."
        )
    held_out, trained = map(set, parts_of(task, training.held_out, training.seed))
    return Split(
        task.select(lambda item: item["id"] in trained),
        task.select(lambda item: item["id"] in held_out),
        tuple(languages),
    )


def schedule(chosen: Split, training: Training) -> list[Pair]:
    """The pairs of texts of all steps, in order; they are the same for every method.

    All pairs of a step are in the same two languages, with items that are trained in both.

    Raises:
        NeuroglotError: no two languages have two items in common.
    """
    rng = random.Random(f"pairs:{training.seed}")
    items = chosen.trained.items
    in_both = {
        pair: [i for i, item in enumerate(items) if all(chosen.trains(item, n) for n in pair)]
        for pair in itertools.permutations(chosen.languages, 2)
    }
    shared = {pair: common for pair, common in in_both.items() if len(common) > 1}
    if not shared:
        raise NeuroglotError(
            f"task {chosen.trained.name!r}: no two of {listed(chosen.languages)} have two items "
            "in common that may be trained in both."
        )
    languages = list(shared)
    pairs: list[Pair] = []
    for _ in range(training.steps):
        source, target = rng.choice(languages)
        common = shared[source, target]
        drawn = rng.sample(common, min(training.pairs, len(common)))
        # Mismatched sources are the same texts, each with the translation of its neighbour.
        together = zip(drawn, [*drawn[1:], drawn[0]], strict=True)
        repeated = itertools.cycle([Pair(i, other, source, target) for i, other in together])
        pairs += itertools.islice(repeated, training.pairs)
    return pairs


def checked_part(chosen: Split, training: Training) -> ParallelTask:
    """The items that are measured: some that are trained and some that are held out."""
    items: list[Item] = []
    for side in (chosen.trained, chosen.held_out):
        n = min(training.checked_items, len(side))
        drawn = random.Random(f"checked:{training.seed}").sample(range(len(side)), n)
        items += [side.items[i] for i in sorted(drawn)]
    return replace(chosen.trained, items=items)
