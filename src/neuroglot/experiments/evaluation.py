"""How well a model answers a task in each language."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.errors import NeuroglotError, listed
from neuroglot.experiments.answers import SCORES, Score, choose, write
from neuroglot.experiments.halves import subject_of
from neuroglot.experiments.statistics import bootstrap_interval
from neuroglot.models import Model, operation
from neuroglot.models.hooks import Editor
from neuroglot.provenance import provenance
from neuroglot.recording.batching import BatchSize
from neuroglot.recording.folders import as_path, require_free
from neuroglot.recording.growing import Growing, InMemory, grow, in_folder, is_whole
from neuroglot.recording.matching import require_steady_prompts
from neuroglot.recording.store import open_dataset, opened_dataset
from neuroglot.tasks import ParallelTask

ITEMS_AT_ONCE = 32  # items that are written together, and lost together when a run is killed
DIMS = ("item", "language")
MAX_NEW_TOKENS = 32
GRADING = 2  # how written answers are compared; results of another way do not go on


def held_out_prompts(task: ParallelTask) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which prompts (item, language) ask in a language that the fact was held out of."""
    return np.array([[lang in item["held_out"] for lang in task.languages] for item in task.items])


def counted_prompts(task: ParallelTask) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which prompts (item, language) count for accuracy in the task's split."""
    held_out = held_out_prompts(task)
    return held_out if task.split == "held_out" else np.ones_like(held_out)


def accuracy(
    correct: xr.DataArray, counted: xr.DataArray, *, seed: int = 0
) -> dict[str, xr.DataArray]:
    """Accuracy by language with a bootstrap interval over items.

    Where a language's answers are all right or all wrong, Wilson's interval stands in for the
    bootstrap's, which would be a point.

    Args:
        correct: whether the answer was right (item, language).
        counted: which prompts count (item, language).
        seed: of the bootstrap.

    Returns:
        ``accuracy``, ``accuracy_low`` and ``accuracy_high`` (language).
    """
    rows = []
    for language in range(correct.sizes["language"]):
        right = correct.values[:, [language]].astype(float)
        kept = counted.values[:, [language]].astype(float)
        share = (right * kept).sum() / kept.sum() if kept.sum() else np.nan
        rows.append((share, *bootstrap_interval(right, kept, seed)))
    names = ("accuracy", "accuracy_low", "accuracy_high")
    coords = {"language": correct["language"]}
    return {
        name: xr.DataArray([row[i] for row in rows], dims="language", coords=coords)
        for i, name in enumerate(names)
    }


@dataclass(frozen=True)
class _Settings:
    """How answers are found."""

    score: Score
    max_new_tokens: int
    batch_size: BatchSize
    seed: int


@operation
def evaluate(
    model: Model,
    task: ParallelTask,
    edit: Editor | None = None,
    out: str | Path | None = None,
    *,
    score: str = "sum",
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: BatchSize = "auto",
    seed: int = 0,
    overwrite: bool = False,
) -> xr.Dataset:
    """Answer every prompt, by choosing where the task has choices, else by writing.

    A choice is scored by the log-probability of its tokens after the prompt; spaces at the end of
    a prompt belong to its choices, and change nothing. What the model writes (greedily) is
    compared with the answer, after its thoughts, by its first line: exact match of the words, or
    of the first number where the task says so, and token F1. Of several right answers the best
    counts.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        task: every item must have answers.
        edit: changes coefficients while the model answers: ``edit(layer, coefficients)`` returns
            new ones of the same shape (row, position, neuron). A row is a prompt, or a choice that
            goes on from a prompt that ran before.
        out: folder to save the result in. An unfinished one of the same settings there goes on
            where it stopped; a finished one is opened. Under an ``edit`` neither.
        score: the likeliest choice has the largest ``"sum"`` of log-probabilities, or the largest
            ``"mean"`` per token.
        max_new_tokens: the most tokens that the model writes, thoughts included.
        batch_size: prompts in a batch; ``"auto"`` fills a budget of tokens.
        seed: of the bootstrap.
        overwrite: replace what ``out`` holds.

    Returns:
        A dataset with ``correct`` (item, language), ``answer`` (item, language; the right one),
        ``chance`` (item, language; NaN without choices), ``held_out`` (item, language; never taught
        there), ``counted`` (item, language; which prompts the split counts) and ``accuracy``,
        ``accuracy_low``, ``accuracy_high`` (language; 95 % bootstrap over items). With choices
        also ``choice`` (item, language; index of the chosen), ``log_prob`` (item, language,
        option; summed over tokens, NaN beyond an item's choices) and ``n_tokens`` (item, language,
        option); without also ``text`` (item, language; what the model wrote), ``thoughts`` (item,
        language; what it wrote before that as its thoughts, such as between ``<think>`` and
        ``</think>``; one that was cut leaves no text) and ``f1`` (item, language).

    Raises:
        NeuroglotError: the task has no answers, a prompt does not fit, logits are NaN or infinite
            (it names the prompt), or ``out`` holds something else.
    """
    settings = _Settings(check_answering(score, max_new_tokens), max_new_tokens, batch_size, seed)
    require_answerable(task)
    head = _head(task, _provenance(model, task, edit, settings))

    def make(block: slice, done: Callable[[int], object]) -> xr.Dataset:
        some = replace(task, items=task.items[block])
        answers = _answers(model, some, settings, widest)
        done(len(some) * len(task.languages))
        return answers

    def answer_into(result: Growing) -> None:
        prompts = {"item": len(task.languages), "total": len(task) * len(task.languages)}
        with model.editing(edit) if edit is not None else nullcontext():
            grow(result, make, "evaluate", prompts)
        require_steady_prompts(model, task, head.attrs)

    widest = task.most_choices
    if out is None:
        memory = InMemory(head, ITEMS_AT_ONCE)
        answer_into(memory)
        return memory.data.assign(_accuracy_of(memory.data))
    path = as_path(out)
    if edit is not None:
        # A function has no name to compare by, so a result under an edit never goes on.
        require_free(path, overwrite=overwrite)
    elif not overwrite and is_whole(path, head, DIMS):
        return opened_dataset(path)
    anew = overwrite or edit is not None
    with in_folder(path, head, ITEMS_AT_ONCE, DIMS, overwrite=anew) as folder:
        answer_into(folder)
        folder.finish(_accuracy_of(open_dataset(path)))
    return opened_dataset(path)


def _accuracy_of(answers: xr.Dataset) -> xr.Dataset:
    found = accuracy(answers["correct"], answers["counted"], seed=int(answers.attrs["seed"]))
    return xr.Dataset(found)


def require_answerable(task: ParallelTask) -> None:
    """Refuse a task whose items cannot all be answered, or not all in the same way.

    Raises:
        NeuroglotError: items without answers, or some with choices and some without.
    """
    if any(item["choices"] for item in task.items) and not task.has_choices:
        raise NeuroglotError(
            f"task {task.name!r} has items with choices and items without; make two tasks of them."
        )
    if not task.has_answers:
        raise NeuroglotError(f"task {task.name!r} has items without choices or answers.")


def check_answering(score: str, max_new_tokens: int) -> Score:
    """The score, if both are what :func:`evaluate` takes.

    Raises:
        NeuroglotError: an unknown score, or no whole number of tokens from 1.
    """
    if score not in SCORES:
        raise NeuroglotError(f"unknown score {score!r}; there are {listed(SCORES)}.")
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise NeuroglotError(
            f"max_new_tokens={max_new_tokens}: expected at least 1, a whole number."
        )
    return score


def _provenance(
    model: Model, task: ParallelTask, edit: Editor | None, settings: _Settings
) -> dict[str, Any]:
    how: dict[str, Any] = {
        "answered_by": "writing",
        "max_new_tokens": settings.max_new_tokens,
        "grading": GRADING,
        "asked_in": task.asked_in or "",
    }
    if task.has_choices:
        how = {"answered_by": "choosing", "score": settings.score}
    return {
        "unit": "evaluation",
        **provenance(model, task),
        **how,
        "edited": int(edit is not None),
        "batch_size": settings.batch_size,
        "seed": settings.seed,
    }


def _head(task: ParallelTask, provenance: dict[str, Any]) -> xr.Dataset:
    """Coordinates and provenance of a result, without the answers."""
    return xr.Dataset(
        coords={
            "item": [item["id"] for item in task.items],
            "language": list(task.languages),
            "relation": ("item", [str(item["relation"] or "") for item in task.items]),
            "subject": ("item", [subject_of(item) for item in task.items]),
        },
        attrs=provenance,
    )


def _answers(model: Model, task: ParallelTask, settings: _Settings, widest: int) -> xr.Dataset:
    """What the model answered to some items, and which of them count."""
    if widest:
        found = choose(model, task, settings.score, settings.batch_size, widest)
    else:
        found = write(model, task, settings.max_new_tokens, settings.batch_size)
    found |= {"held_out": held_out_prompts(task), "counted": counted_prompts(task)}
    dims = (*DIMS, "option")
    return xr.Dataset({name: (dims[: values.ndim], values) for name, values in found.items()})
