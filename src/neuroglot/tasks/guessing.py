"""The accuracy of guessing by how often each answer is right, without knowing the subject."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuroglot.errors import NeuroglotError
from neuroglot.tasks.records import Item

if TYPE_CHECKING:
    from neuroglot.tasks.parallel import ParallelTask

Guesses = Mapping[str, Mapping[str, float]]
"""The probability that a guess is right, by item and language."""


def majority(task: ParallelTask) -> np.ndarray:
    """The probability that a guess by the relation alone is right (item, language).

    The guess is made from the choices of an item and its relation, without its subject. It is the
    choice that is the right answer of the most items of that relation in that language. Where
    answers are written, it is the text that is right in the most items of the relation; aliases
    count as right, and texts are compared without surrounding white space and case. Ties are broken
    at random. Items without a relation count as one relation.

    Counts are over all items of the task, including the item itself. For a part of a task, such as
    its first items, they are over the whole task (:attr:`ParallelTask.guesses`).

    Raises:
        NeuroglotError: an item has no right answer, or some items have choices and others none.
    """
    if not task.has_answers:
        raise NeuroglotError(
            f"task {task.name!r} has items without an answer, so that no guess is right or wrong; "
            "give every item its answers."
        )
    if any(item["choices"] for item in task.items) and not task.has_choices:
        raise NeuroglotError(
            f"task {task.name!r}: some items have choices and others have none; make two tasks."
        )
    guesses = task.guesses or guesses_of(task.items, task.languages)
    rows = [[guesses[item["id"]][language] for language in task.languages] for item in task.items]
    return np.array(rows, dtype=float)


def guesses_of(items: Sequence[Item], languages: Sequence[str]) -> Guesses:
    """The probabilities of :func:`majority`, or none if it would refuse the items.

    Args:
        items: the items over which answers are counted, and for which guesses are made.
        languages: the languages of these items.
    """
    choosing = {bool(item["choices"]) for item in items}
    if len(choosing) > 1 or not all(item["answers"] for item in items):
        return {}
    times_right: dict[tuple[str | None, str], Counter[str]] = defaultdict(Counter)
    for item in items:
        for language in languages:
            times_right[item["relation"], language].update(_right(item, language))
    return {
        item["id"]: {
            language: _guess(item, language, times_right[item["relation"], language])
            for language in languages
        }
        for item in items
    }


def _right(item: Item, language: str) -> set[str]:
    """The right answers of a prompt; written ones without surrounding white space and case."""
    answer = item["answers"][language]
    if item["choices"]:
        return {answer}
    aliases = item.get("aliases", {}).get(language, [])
    return {text.strip().casefold() for text in (answer, *aliases)}


def _guess(item: Item, language: str, times_right: Counter[str]) -> float:
    """The probability that the guess for a prompt is right."""
    options = item["choices"][language] if item["choices"] else list(times_right)
    most = max(times_right[option] for option in options)
    guesses = {option for option in options if times_right[option] == most}
    return len(guesses & _right(item, language)) / len(guesses)
