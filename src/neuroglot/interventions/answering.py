"""Answers to prompts in many arms, in each of which other neurons are edited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from neuroglot.answering.answer_texts import exact_match
from neuroglot.answering.answering import Answering
from neuroglot.answering.answers import (
    asked_of,
    by_prompt,
    check_finite,
    languages_asked_in,
    likeliest,
    margins,
    right_answers,
    right_options,
    scores_of_choices,
    tokens_of_choices,
    written,
)
from neuroglot.answering.masked import masked_prompts
from neuroglot.interventions.edits import Edit, applied
from neuroglot.models.model import Model
from neuroglot.models.running import EditPosition
from neuroglot.neurons.members import Mask, written_down
from neuroglot.neurons.neuron_set import NeuronSet
from neuroglot.recording.blocks import Prompt
from neuroglot.running.choices import Asked, Question, questions
from neuroglot.running.replayed import Arms, can_replay, log_probs_of_arms
from neuroglot.tasks.parallel import ParallelTask

Answers = dict[str, np.ndarray[Any, Any]]
"""Arrays by name, (prompt, arm)."""
Scores = np.ndarray[Any, Any]
WORTH = 0.9  # arms run together if this costs less than this share of running them alone
CLOSE = {torch.float32: 1e-3, torch.float64: 1e-6}  # nats, between the results of both ways
CLOSE_ELSE = 0.3  # the same for other number types, which round more


@dataclass(frozen=True)
class Edited:
    """The edits of prompts in every arm.

    Attributes:
        edits: the edits, each with its neurons (prompt, arm, layer, neuron).
        keys: the item and the language of each prompt.
        there: whether a prompt has an arm (prompt, arm).
        draws: which draw of the edit's contents each arm gets.
        position: the tokens at which edits are made, unless an edit has its own.
    """

    edits: Sequence[tuple[Edit, Mask]]
    keys: Sequence[Prompt]
    there: Mask
    draws: Sequence[int]
    position: EditPosition

    def of(self, rows: Any, arms: Any, keys: Sequence[Any]) -> list[Edit]:
        """The edits of the prompts in these rows and arms, which are looked up by the keys."""
        draws = np.broadcast_to(np.array(self.draws)[arms], len(keys))
        draw_of = dict(zip(keys, draws.tolist(), strict=True))
        return [
            one.on(
                NeuronSet(
                    written_down(np.packbits(masks[rows, arms], axis=-1), keys, one.neurons.widths),
                    one.neurons.name,
                    unit=one.neurons.unit,
                ),
                draw_of,
            )
            for one, masks in self.edits
        ]

    @property
    def begins(self) -> EditPosition:
        """``"all"`` if an edit is made before the last token of a prompt, else ``"answer"``."""
        positions = {one.position or self.position for one, _ in self.edits}
        return "all" if "all" in positions else "answer"

    @property
    def first_layer(self) -> int:
        """The first layer with neurons in any arm; the number of layers if there is none."""
        layers = [masks[self.there].any(axis=(0, 2)) for _, masks in self.edits]
        has_neurons = np.logical_or.reduce(layers)
        return int(has_neurons.argmax()) if has_neurons.any() else len(has_neurons)


def answers_under(model: Model, task: ParallelTask, edited: Edited, how: Answering) -> Answers:
    """The answers to each prompt in each arm.

    Args:
        model: the model that answers.
        task: the prompts, item by item and language by language.
        edited: the edits of the prompts.
        how: how prompts are answered.

    Returns:
        ``correct``, ``log_prob`` (of the right answer, or the likeliest of several) and, with
        choices, ``margin`` and perhaps ``masked_margin``, else ``text``; all (prompt, arm), NaN or
        empty where a prompt does not have the arm.
    """
    return (_chosen if task.has_choices else _written)(model, task, edited, how)


def _chosen(model: Model, task: ParallelTask, edited: Edited, how: Answering) -> Answers:
    asked = asked_of(task, by_prompt(task, "choices"))
    right, has_arm = right_options(task), edited.there
    log_prob, n_tokens = _scored(model, asked, range(len(asked.prompts)), edited)
    of_arms = np.broadcast_to(n_tokens[:, None], log_prob.shape)
    chosen = likeliest(log_prob[has_arm], of_arms[has_arm], how.choice_score)
    correct = np.full(has_arm.shape, np.nan)
    correct[has_arm] = chosen == np.broadcast_to(right[:, None], has_arm.shape)[has_arm]
    answers = {
        "correct": correct,
        "log_prob": np.take_along_axis(log_prob, right[:, None, None], axis=-1)[..., 0],
        "margin": _margins(log_prob, n_tokens, right, how),
    }
    if how.masked:
        answers["masked_margin"] = np.full(has_arm.shape, np.nan)
        items = [item for item in task.items for _ in task.languages]
        rows = [row for row, item in enumerate(items) if "masked" in item]
        if rows:
            masked = masked_prompts(task, rows, [edited.keys[row] for row in rows])
            scores = _scored(model, masked, rows, edited)
            answers["masked_margin"][rows] = _margins(*scores, right[rows], how)
    return {name: values.astype(np.float32) for name, values in answers.items()}


def _margins(log_prob: Scores, n_tokens: Scores, right: Scores, how: Answering) -> Scores:
    """The margins (prompt, arm) of log-probabilities (prompt, arm, option)."""
    of_arms = np.broadcast_to(n_tokens[:, None], log_prob.shape)
    flat, each = (values.reshape(-1, log_prob.shape[-1]) for values in (log_prob, of_arms))
    of_all = margins(flat, each, right.repeat(log_prob.shape[1]), how.choice_score)
    return of_all.reshape(log_prob.shape[:2])


def _scored(
    model: Model, asked: Asked, rows: Sequence[int], edited: Edited
) -> tuple[Scores, Scores]:
    """The log-probabilities of the choices of prompts in every arm, and their numbers of tokens.

    If all edits begin at the last token of a prompt, the tokens before it run once for all arms,
    where the model allows it; so do the first layers, in which no edit has neurons.

    Args:
        model: the model that answers.
        asked: the prompts.
        rows: the places of the prompts among the edited ones.
        edited: the edits.

    Returns:
        Both, (prompt, arm, option) and (prompt, option); NaN and 0 where there is no choice.
    """
    tokenized = questions(model, asked)
    has_arm = edited.there[list(rows)]
    widest = max(len(question.choices) for question in tokenized)
    n_tokens = tokens_of_choices(tokenized, widest)
    log_prob = np.full((*has_arm.shape, widest), np.nan)
    places, arms = (part.tolist() for part in np.nonzero(has_arm))

    def by_itself(places: Any, arms: Any) -> Scores:
        """The log-probabilities of prompts, where each arm runs alone (arm of prompt, option)."""
        keys = [(*asked.keys[row], arm) for row, arm in zip(places, arms, strict=True)]
        times = 1 if edited.begins == "all" else -(-len(keys) // len(set(places)))
        edits = edited.of(np.array(rows)[places], arms, keys)
        pairs = zip(places, keys, strict=True)
        in_arms = [replace(tokenized[row], prompt=key) for row, key in pairs]
        names = [asked.names[row] for row in places]
        with applied(model, edits, edited.position):
            return scores_of_choices(model, in_arms, names, widest, times=times)[0]

    together = _together(model, tokenized, edited) if places else None
    if together is not None:
        for batch, values in log_probs_of_arms(model, tokenized, widest, together):
            log_prob[batch] = values.numpy()
        log_prob[~has_arm] = np.nan
        scored, names = [tokenized[row] for row in places], [asked.names[row] for row in places]
        check_finite(model, log_prob[places, arms], n_tokens[places], scored, names)
        # If later layers of the model read earlier ones directly, the two ways differ in any arm.
        alone, replayed = by_itself(places[-1:], arms[-1:])[0], log_prob[places[-1], arms[-1]]
        close = CLOSE.get(model.hf.dtype, CLOSE_ELSE)
        if np.allclose(alone, replayed, rtol=0, atol=close, equal_nan=True):
            return log_prob, n_tokens
    if places:
        log_prob[places, arms] = by_itself(places, arms)
    return log_prob, n_tokens


def _together(model: Model, asked: Sequence[Question], edited: Edited) -> Arms | None:
    """All arms, so that the first layers run once; ``None`` if this is impossible or costs more.

    It costs more if many prompts lack some of the arms, since all arms run for all prompts.
    """
    first = edited.first_layer if edited.edits else 0
    if not 0 < first < model.n_layers or edited.begins == "all":
        return None
    runs = edited.there.size * (1 - first / model.n_layers)
    if runs >= WORTH * edited.there.sum() or not can_replay(model, asked):
        return None

    def arm(number: int) -> Callable[[], AbstractContextManager[None]]:
        edits = edited.of(slice(None), number, edited.keys)
        return lambda: applied(model, edits, edited.position, first)

    return Arms([arm(number) for number in range(edited.there.shape[1])], first)


def log_prob_of_right(model: Model, task: ParallelTask, edited: Edited) -> Scores:
    """The log-probability of the likeliest right answer in each arm (prompt, arm), in nats."""
    asked = asked_of(task, right_answers(task))
    log_prob, _ = _scored(model, asked, range(len(edited.keys)), edited)
    likely = np.where(np.isnan(log_prob), -np.inf, log_prob).max(axis=-1)
    return np.where(edited.there, likely, np.nan).astype(np.float32)


def _written(model: Model, task: ParallelTask, edited: Edited, how: Answering) -> Answers:
    places, arms = (part.tolist() for part in np.nonzero(edited.there))
    keys = [(*edited.keys[row], arm) for row, arm in zip(places, arms, strict=True)]
    texts = []
    if keys:
        asked = list(zip(places, keys, strict=True))
        with applied(model, edited.of(places, arms, keys), edited.position):
            texts = written(model, task, asked, how.max_new_tokens)
    answers, languages = right_answers(task), languages_asked_in(task)
    correct = np.full(edited.there.shape, np.nan, np.float32)
    words = np.full(edited.there.shape, "", dtype=object)
    for row, arm, text in zip(places, arms, (one.text for one in texts), strict=True):
        words[row, arm] = text
        correct[row, arm] = exact_match(text, answers[row], task.match, languages[row])
    log_prob = log_prob_of_right(model, task, edited)
    return {"correct": correct, "log_prob": log_prob, "text": words.astype(str)}
