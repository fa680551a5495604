"""The choices after masked prompts, which ask about a neutral subject instead of the item's own.

All items of a relation have the same masked prompt in a language, so each different combination of
prompt, join and choice has to run only once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from neuroglot.answering.answering import ChoiceScore
from neuroglot.answering.answers import (
    Variables,
    likeliest,
    margins,
    right_options,
    scores_of_choices,
)
from neuroglot.models.model import Model
from neuroglot.recording.blocks import prompt_keys, prompt_names
from neuroglot.running.choices import Asked, Question, questions
from neuroglot.store.growing import Prompts
from neuroglot.tasks.parallel import ParallelTask

Scores = tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.int64]]]
Pair = tuple[Hashable, tuple[int, ...], tuple[int, ...]]
"""The prompt whose edit applies (or ``None``), the tokens of a prompt, those of a choice."""


def any_masked(task: ParallelTask) -> bool:
    """Whether any item of a task has masked prompts."""
    return any("masked" in item for item in task.items)


def masked_prompts(task: ParallelTask, rows: Sequence[int], keys: Sequence[Hashable]) -> Asked:
    """Masked prompts of a task with their choices.

    Args:
        task: the task.
        rows: the places of the prompts, item by item and language by language.
        keys: the prompt whose edit applies to each of them, or ``None``.
    """
    prompts = [(item, language) for item in task.items for language in task.languages]
    chosen, names = [prompts[row] for row in rows], prompt_names(task)
    return Asked(
        [item["masked"][language] for item, language in chosen],
        [item["choices"][language] for item, language in chosen],
        [item["joins"][language] for item, language in chosen],
        [f"masked {names[row]}" for row in rows],
        keys,
    )


class MaskedScores:
    """Log-probabilities of the choices after masked prompts, computed when a block needs them.

    A masked prompt runs together with those that first occur in the same block, with the choices
    of all items of the task. So the numbers of a block are the same, bit for bit, whichever blocks
    were computed before, as when an interrupted result goes on.
    """

    def __init__(
        self,
        model: Model,
        task: ParallelTask,
        size: int,
        *,
        alike: bool,
        kept: np.ndarray[Any, np.dtype[np.bool_]] | None = None,
    ) -> None:
        """Find the prompts that are the same; the model does not run yet.

        Args:
            model: the model that answers.
            task: the whole task.
            size: the number of items in a block.
            alike: whether items with the same masked prompt get the same answer. They may not under
                edits, whose neurons may differ between items; each item's masked prompt then runs
                on its own, under the edit of the item.
            kept: whether the masked prompt is not needed (item, language); by default all are.
        """
        self.model, self.task, self.alike = model, task, alike
        shape = (len(task), len(task.languages))
        self.log_prob = np.full((*shape, task.most_choices), np.nan)
        self.n_tokens = np.zeros((*shape, task.most_choices), np.int64)
        self.first_in = np.full(shape, -1)  # the block in which each masked prompt first occurs
        self.is_known = np.zeros(shape, bool)
        keys = prompt_keys(task)
        seen: dict[Hashable, int] = {}
        for i, item in enumerate(task.items):
            for j, language in enumerate(task.languages if "masked" in item else ()):
                if kept is not None and kept[i, j]:
                    continue
                asked = (item["masked"][language], item["joins"][language])
                key = asked if alike else (*asked, keys[i * shape[1] + j])
                self.first_in[i, j] = seen.setdefault(key, i // size)

    def of(self, prompts: Prompts) -> Scores:
        """The log-probabilities and the numbers of tokens of the choices of prompts.

        Args:
            prompts: the items and languages of the prompts.

        Returns:
            Both (item, language, option); NaN and 0 where there is no choice or no masked prompt.

        Raises:
            NeuroglotError: a masked prompt does not fit into the context, or logits are NaN or
                infinite; it names the item.
        """
        block = np.ix_(prompts.items, prompts.languages)
        first_in = self.first_in[block]
        for first in np.unique(first_in[(first_in >= 0) & ~self.is_known[block]]):
            self._run(np.argwhere(self.first_in == first).tolist())
        return self.log_prob[block], self.n_tokens[block]

    def _run(self, places: Sequence[Sequence[int]]) -> None:
        """Score the choices after the masked prompts at these places (item, language)."""
        rows = [i * len(self.task.languages) + j for i, j in places]
        keys = prompt_keys(self.task)
        masked = masked_prompts(self.task, rows, [None if self.alike else keys[x] for x in rows])
        asked = questions(self.model, masked)
        once, names = _each_once(asked, masked.names, self.task.most_choices)
        log_prob, _ = scores_of_choices(self.model, once, names, self.task.most_choices)
        of_pairs = {
            pair: float(value)
            for question, values in zip(once, log_prob, strict=True)
            for pair, value in zip(_pairs(question), values, strict=False)
        }
        for (i, j), question in zip(places, asked, strict=True):
            for option, pair in enumerate(_pairs(question)):
                self.log_prob[i, j, option] = of_pairs[pair]
                self.n_tokens[i, j, option] = len(question.choices[option])
            self.is_known[i, j] = True


def _pairs(question: Question) -> list[Pair]:
    """The choices of a question, each with its prompt."""
    prefix = tuple(question.prefix)
    return [(question.prompt, prefix, tuple(choice)) for choice in question.choices]


def _each_once(
    asked: Sequence[Question], names: Sequence[str], widest: int
) -> tuple[list[Question], list[str]]:
    """Questions that hold each different choice of each different prompt once.

    They have at most ``widest`` choices, like those of the task, and so need no more memory, even
    where a relation has hundreds of objects.

    Returns:
        The questions, and their names in errors: those of the first that asks the same.
    """
    choices: dict[tuple[Hashable, tuple[int, ...]], dict[tuple[int, ...], None]] = {}
    first: dict[tuple[Hashable, tuple[int, ...]], int] = {}
    for row, question in enumerate(asked):
        key = (question.prompt, tuple(question.prefix))
        first.setdefault(key, row)
        choices.setdefault(key, {}).update(dict.fromkeys(map(tuple, question.choices)))
    parts = [
        (first[key], [list(choice) for choice in list(different)[start : start + widest]])
        for key, different in choices.items()
        for start in range(0, len(different), widest)
    ]
    once = [replace(asked[row], choices=tokens) for row, tokens in parts]
    return once, [names[row] for row, _ in parts]


def without_subject(
    task: ParallelTask,
    margin: np.ndarray[Any, Any],
    masked: Scores,
    choice_score: ChoiceScore,
) -> Variables:
    """The answers to items with the subject masked.

    Args:
        task: the items.
        margin: the margins of their own prompts (item, language).
        masked: the log-probabilities and the numbers of tokens of the choices after masked prompts
            (item, language, option).
        choice_score: the score by which choices are compared.

    Returns:
        ``masked_correct``, ``masked_margin``, ``margin_beyond_masked`` (item, language) and
        ``masked_log_prob`` (item, language, option); NaN for items without masked prompts.
    """
    log_prob, n_tokens = (values.reshape(-1, values.shape[-1]) for values in masked)
    right, is_masked = right_options(task), np.asarray(n_tokens.any(axis=-1))
    correct, margin_masked = np.full((2, len(is_masked)), np.nan)
    chosen = likeliest(log_prob[is_masked], n_tokens[is_masked], choice_score)
    correct[is_masked] = chosen == right[is_masked]
    margin_masked[is_masked] = margins(log_prob, n_tokens, right, choice_score)[is_masked]
    return {
        "masked_correct": correct.reshape(margin.shape),
        "masked_margin": margin_masked.reshape(margin.shape),
        "margin_beyond_masked": margin - margin_masked.reshape(margin.shape),
        "masked_log_prob": masked[0],
    }
