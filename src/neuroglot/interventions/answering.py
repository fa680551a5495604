"""Answers of one prompt under many edits, each of a set of neurons of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neuroglot.experiments.answers import (
    Score,
    asked_of,
    by_prompt,
    languages_asked_in,
    likeliest,
    right_answers,
    right_options,
    scores_of_choices,
    written,
)
from neuroglot.experiments.generation import exact_match
from neuroglot.experiments.scoring import questions
from neuroglot.interventions.edits import Edit, Scale, Zero, applied
from neuroglot.models import Model
from neuroglot.models.running import Positions
from neuroglot.neurons import PromptSets
from neuroglot.recording.batching import BatchSize
from neuroglot.recording.blocks import prompt_names
from neuroglot.recording.recording import Bits
from neuroglot.tasks import ParallelTask

Correct = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Answering:
    """How prompts are answered under edits.

    Attributes:
        positions: see :func:`neuroglot.edit`.
        score: see :func:`neuroglot.evaluate`.
        max_new_tokens: see :func:`neuroglot.evaluate`.
        batch_size: prompts in a batch, once for each edit.
        factor: what the coefficients of the sets are multiplied with; 0 switches them off.
    """

    positions: Positions
    score: Score
    max_new_tokens: int
    batch_size: BatchSize
    factor: float = 0.0


def correct_under(
    model: Model, task: ParallelTask, sets: Bits, there: np.ndarray[Any, Any], how: Answering
) -> Correct:
    """Whether each prompt is answered rightly under each edit (prompt, arm); NaN where none is.

    What stands before a prompt's last token is the same under all edits that begin there, and runs
    once for all of them, where the model can.

    Args:
        model: which answers.
        task: its prompts, item by item and language by language.
        sets: packed neurons of each edit (prompt, arm, layer, byte).
        there: which edits there are (prompt, arm).
        how: prompts are answered.
    """
    pairs = [(int(row), int(arm)) for row, arm in np.argwhere(there)]
    found: Correct = np.full(there.shape, np.nan, np.float32)
    if pairs:
        rows, arms = (list(part) for part in zip(*pairs, strict=True))
        masks = PromptSets(sets[rows, arms], pairs, model.n_neurons, "arms")
        what: Edit = Zero(masks) if how.factor == 0 else Scale(masks, how.factor)
        what.check(model)
        with applied(model, [what], how.positions):
            answer = _chosen if task.has_choices else _written
            found[rows, arms] = answer(model, task, pairs, how)
    return found


def _chosen(
    model: Model, task: ParallelTask, pairs: Sequence[tuple[int, int]], how: Answering
) -> np.ndarray[Any, Any]:
    """Whether the likeliest choice is right (pair,)."""
    asked, names = questions(model, asked_of(task, by_prompt(task, "choices"))), prompt_names(task)
    log_prob, n_tokens = scores_of_choices(
        model,
        [replace(asked[row], prompt=(row, arm)) for row, arm in pairs],
        [names[row] for row, _ in pairs],
        how.batch_size,
        task.most_choices,
        times=1 if how.positions == "all" else -(-len(pairs) // len(asked)),
    )
    right = right_options(task)[[row for row, _ in pairs]]
    return np.asarray(likeliest(log_prob, n_tokens, how.score) == right)


def _written(
    model: Model, task: ParallelTask, pairs: Sequence[tuple[int, int]], how: Answering
) -> np.ndarray[Any, Any]:
    """Whether what the model writes is the answer (pair,)."""
    asked = [(row, (row, arm)) for row, arm in pairs]
    found = written(model, task, asked, how.max_new_tokens, how.batch_size)
    answers, languages = right_answers(task), languages_asked_in(task)
    right = [
        exact_match(one.text, answers[row], task.match, languages[row])
        for one, (row, _) in zip(found, pairs, strict=True)
    ]
    return np.array(right)
