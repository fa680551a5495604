"""The choices after masked prompts: what the model answers where a neutral subject is asked about.

All items of a relation have one masked prompt in a language, so that each different prompt, join
and choice has to run only once.
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
"""Whose edit, tokens of a prompt, and tokens of a choice."""


def any_masked(task: ParallelTask) -> bool:
    """Whether any item of a task has masked prompts."""
    return any("masked" in item for item in task.items)


class MaskedScores:
    """Log-probabilities of the choices after masked prompts, found when a block asks for them.

    A masked prompt runs together with those that first occur in the same block, with the choices
    of all items of the task. So the numbers of a block are the same, bit for bit, whichever other
    blocks were made before, as when a result goes on.
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
        """Look which prompts are the same; nothing runs yet.

        Args:
            model: which answers.
            task: the whole task.
            size: items of a block.
            alike: whether the model does the same for every item that has the same masked prompt.
                Not under edits with a set for each prompt, where each item's masked prompt runs
                by itself, with the item's set.
            kept: prompts (item, language) whose masked prompts are not asked for; by default none.
        """
        self.model, self.task, self.alike = model, task, alike
        shape = (len(task), len(task.languages))
        self.log_prob = np.full((*shape, task.most_choices), np.nan)
        self.n_tokens = np.zeros((*shape, task.most_choices), np.int64)
        self.first_in = np.full(shape, -1)  # block in which each masked prompt first occurs
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

    def of(self, some: Prompts) -> Scores:
        """Log-probabilities and numbers of tokens of the choices of some prompts.

        Returns:
            Both (item, language, option); NaN and 0 where there is no choice or no masked prompt.

        Raises:
            NeuroglotError: a masked prompt does not fit, or logits are NaN or infinite; it names
                the item.
        """
        here = np.ix_(some.items, some.languages)
        first_in = self.first_in[here]
        for first in np.unique(first_in[(first_in >= 0) & ~self.is_known[here]]):
            self._run(np.argwhere(self.first_in == first).tolist())
        return self.log_prob[here], self.n_tokens[here]

    def _run(self, places: Sequence[Sequence[int]]) -> None:
        """ChoiceScore the choices after the masked prompts at these places (item, language)."""
        task, width = self.task, len(self.task.languages)
        keys, names = prompt_keys(task), prompt_names(task)
        rows = [i * width + j for i, j in places]
        items = [(task.items[i], task.languages[j]) for i, j in places]
        asked = questions(
            self.model,
            Asked(
                [item["masked"][language] for item, language in items],
                [item["choices"][language] for item, language in items],
                [item["joins"][language] for item, language in items],
                [f"masked {names[row]}" for row in rows],
                [None if self.alike else keys[row] for row in rows],
            ),
        )
        found = self._of_pairs(asked, [f"masked {names[row]}" for row in rows])
        for (i, j), question in zip(places, asked, strict=True):
            for option, pair in enumerate(_pairs(question)):
                self.log_prob[i, j, option] = found[pair]
                self.n_tokens[i, j, option] = len(question.choices[option])
            self.is_known[i, j] = True

    def _of_pairs(self, asked: Sequence[Question], names: Sequence[str]) -> dict[Pair, float]:
        """Log-probability of each different choice after each different prompt."""
        widest = self.task.most_choices
        once, called = _each_once(asked, names, widest)
        log_prob, _ = scores_of_choices(self.model, once, called, widest)
        return {
            pair: float(value)
            for question, values in zip(once, log_prob, strict=True)
            for pair, value in zip(_pairs(question), values, strict=False)
        }


def _pairs(question: Question) -> list[Pair]:
    """Each choice of a question with its prompt."""
    prefix = tuple(question.prefix)
    return [(question.prompt, prefix, tuple(choice)) for choice in question.choices]


def _each_once(
    asked: Sequence[Question], names: Sequence[str], widest: int
) -> tuple[list[Question], list[str]]:
    """Questions that hold each different choice of each different prompt once.

    They have at most ``widest`` choices, like those of the task, and so need no more memory, even
    where a relation has hundreds of objects.

    Returns:
        The questions, and what errors call them: as the first that asks the same.
    """
    choices: dict[tuple[Hashable, tuple[int, ...]], dict[tuple[int, ...], None]] = {}
    first: dict[tuple[Hashable, tuple[int, ...]], int] = {}
    for row, question in enumerate(asked):
        key = (question.prompt, tuple(question.prefix))
        first.setdefault(key, row)
        choices.setdefault(key, {}).update(dict.fromkeys(map(tuple, question.choices)))
    once, called = [], []
    for key, different in choices.items():
        tokens = [list(choice) for choice in different]
        for start in range(0, len(tokens), widest):
            once.append(replace(asked[first[key]], choices=tokens[start : start + widest]))
            called.append(names[first[key]])
    return once, called


def without_subject(
    task: ParallelTask,
    margin: np.ndarray[Any, Any],
    masked: Scores,
    choice_score: ChoiceScore,
) -> Variables:
    """What the model answered to some items with the subject masked.

    Args:
        task: the items.
        margin: of their prompts (item, language).
        masked: log-probabilities and numbers of tokens of the choices after masked prompts (item,
            language, option).
        choice_score: by which choices are compared.

    Returns:
        ``masked_correct``, ``masked_margin``, ``margin_beyond_masked`` (item, language) and
        ``masked_log_prob`` (item, language, option); NaN for items without masked prompts.
    """
    log_prob, n_tokens = (values.reshape(-1, values.shape[-1]) for values in masked)
    right, there = right_options(task), np.asarray(n_tokens.any(axis=-1))
    correct, margin_masked = np.full((2, len(there)), np.nan)
    correct[there] = likeliest(log_prob[there], n_tokens[there], choice_score) == right[there]
    margin_masked[there] = margins(log_prob, n_tokens, right, choice_score)[there]
    return {
        "masked_correct": correct.reshape(margin.shape),
        "masked_margin": margin_masked.reshape(margin.shape),
        "margin_beyond_masked": margin - margin_masked.reshape(margin.shape),
        "masked_log_prob": masked[0],
    }
