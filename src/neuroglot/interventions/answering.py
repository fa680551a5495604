"""Answers of one prompt under many edits, each of neurons of its own."""

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
WORTH = 0.9  # of what prompts cost that run by themselves, for running them together
CLOSE = {torch.float32: 1e-3, torch.float64: 1e-6}  # nats, between what is found in both ways
CLOSE_ELSE = 0.3  # of other number types, whose rounding shows


@dataclass(frozen=True)
class Edited:
    """Edits of some prompts, in every arm.

    Attributes:
        edits: each with the neurons that it is of (prompt, arm, layer, neuron).
        keys: item and language of the prompts.
        there: which arms there are (prompt, arm).
        draws: which draw of what prompts are given each arm gets.
        position: where neurons are edited, unless an edit says so itself.
    """

    edits: Sequence[tuple[Edit, Mask]]
    keys: Sequence[Prompt]
    there: Mask
    draws: Sequence[int]
    position: EditPosition

    def of(self, rows: Any, arms: Any, keys: Sequence[Any]) -> list[Edit]:
        """The edits with the neurons of some prompts and arms, which go by these keys."""
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
        """Where edits begin: what stands before a prompt's last token is the same, or is not."""
        at = {one.position or self.position for one, _ in self.edits}
        return "all" if "all" in at else "answer"

    @property
    def first_layer(self) -> int:
        """The first layer with neurons in any arm; the number of layers where there is none."""
        layers = [masks[self.there].any(axis=(0, 2)) for _, masks in self.edits]
        has = np.logical_or.reduce(layers)
        return int(has.argmax()) if has.any() else len(has)


def answers_under(model: Model, task: ParallelTask, edited: Edited, how: Answering) -> Answers:
    """What each prompt is answered in each arm.

    Args:
        model: which answers.
        task: its prompts, item by item and language by language.
        edited: the edits of the prompts.
        how: prompts are answered.

    Returns:
        ``correct``, ``log_prob`` (of the right answer, the best of several), ``margin`` and
        ``masked_margin`` with choices, else ``text``; (prompt, arm), NaN or empty where there is
        no arm.
    """
    return (_chosen if task.has_choices else _written)(model, task, edited, how)


def _chosen(model: Model, task: ParallelTask, edited: Edited, how: Answering) -> Answers:
    asked = asked_of(task, by_prompt(task, "choices"))
    rows = list(range(len(asked.prompts)))
    right = right_options(task)
    log_prob, n_tokens = _scored(model, asked, rows, edited)
    found = {"correct": np.full(edited.there.shape, np.nan)}
    found["log_prob"] = np.take_along_axis(log_prob, right[:, None, None], axis=-1)[..., 0]
    found["margin"] = _margins(log_prob, n_tokens, right, how)
    here = edited.there
    each = np.broadcast_to(n_tokens[:, None], log_prob.shape)
    chosen = likeliest(log_prob[here], each[here], how.choice_score)
    found["correct"][here] = chosen == np.broadcast_to(right[:, None], here.shape)[here]
    items = [(item, code) for item in task.items for code in task.languages]
    rows = [row for row in rows if "masked" in items[row][0]]
    if how.masked:
        found["masked_margin"] = np.full(here.shape, np.nan)
    if how.masked and rows:
        masked = Asked(
            [items[row][0]["masked"][items[row][1]] for row in rows],
            [asked.choices[row] for row in rows],
            [asked.joins[row] for row in rows],
            [f"masked {asked.names[row]}" for row in rows],
            [edited.keys[row] for row in rows],
        )
        values, tokens = _scored(model, masked, rows, edited)
        found["masked_margin"][rows] = _margins(values, tokens, right[rows], how)
    return {name: values.astype(np.float32) for name, values in found.items()}


def _margins(log_prob: Scores, n_tokens: Scores, right: Scores, how: Answering) -> Scores:
    """Margins (prompt, arm) of log-probabilities (prompt, arm, option)."""
    each = np.broadcast_to(n_tokens[:, None], log_prob.shape).reshape(-1, log_prob.shape[-1])
    flat = log_prob.reshape(each.shape)
    found = margins(flat, each, right.repeat(log_prob.shape[1]), how.choice_score)
    return found.reshape(log_prob.shape[:2])


def _scored(
    model: Model, asked: Asked, rows: Sequence[int], edited: Edited
) -> tuple[Scores, Scores]:
    """Log-probabilities of the choices of some prompts in every arm, and their numbers of tokens.

    What stands before a prompt's last token is the same under all edits that begin there, and runs
    once for all of them, where the model can; so do the first layers, where no edit has neurons.

    Args:
        model: which answers.
        asked: the prompts.
        rows: which of the edited ones they are.
        edited: the edits.

    Returns:
        Both, (prompt, arm, option) and (prompt, option); NaN and 0 where there is none.
    """
    known = questions(model, asked)
    there = edited.there[list(rows)]
    widest = max(len(one.choices) for one in known)
    n_tokens = tokens_of_choices(known, widest)
    log_prob = np.full((*there.shape, widest), np.nan)

    def by_itself(places: Any, arms: Any) -> Scores:
        """Arms of prompts, each of them a row (arm of a prompt, option)."""
        keys = [(*asked.keys[row], arm) for row, arm in zip(places, arms, strict=True)]
        begins = edited.begins
        times = 1 if begins == "all" else -(-len(keys) // len(set(places)))
        done = edited.of(np.array(rows)[places], arms, keys)
        with applied(model, done, edited.position):
            found, _ = scores_of_choices(
                model,
                [replace(known[row], prompt=key) for row, key in zip(places, keys, strict=True)],
                [asked.names[row] for row in places],
                widest,
                times=times,
            )
        return found

    places, arms = (part.tolist() for part in np.nonzero(there))
    together = _together(model, known, edited)
    if together is not None and places:
        for batch, values in log_probs_of_arms(model, known, widest, together):
            log_prob[batch] = values.numpy()
        log_prob[~there] = np.nan
        flat = n_tokens[places]
        check_finite(model, log_prob[places, arms], flat, [known[row] for row in places],
                     [asked.names[row] for row in places])  # fmt: skip
        # A model whose later layers look back in a way of its own would show in any arm.
        checked = by_itself(places[-1:], arms[-1:])[0]
        close = CLOSE.get(model.hf.dtype, CLOSE_ELSE)
        found = log_prob[places[-1], arms[-1]]
        if np.allclose(checked, found, rtol=0, atol=close, equal_nan=True):
            return log_prob, n_tokens
    if places:
        log_prob[places, arms] = by_itself(places, arms)
    return log_prob, n_tokens


def _together(model: Model, asked: Sequence[Question], edited: Edited) -> Arms | None:
    """All arms, for the first layers to run once; ``None`` where that cannot be, or costs more.

    Arms that some prompts do not have are then run for them too.
    """
    first = edited.first_layer if edited.edits else 0
    if not 0 < first < model.n_layers or edited.begins == "all":
        return None
    runs = edited.there.size * (1 - first / model.n_layers)
    if runs >= WORTH * edited.there.sum() or not can_replay(model, asked):
        return None

    def arm(number: int) -> Callable[[], AbstractContextManager[None]]:
        done = edited.of(slice(None), number, edited.keys)
        return lambda: applied(model, done, edited.position, first)

    return Arms([arm(number) for number in range(edited.there.shape[1])], first)


def log_prob_of_right(model: Model, task: ParallelTask, edited: Edited) -> Scores:
    """Log-probability of the right answer, of several the likeliest (prompt, arm), in nats."""
    rows = list(range(len(edited.keys)))
    log_prob, _ = _scored(model, asked_of(task, right_answers(task)), rows, edited)
    likely = np.where(np.isnan(log_prob), -np.inf, log_prob).max(axis=-1)
    return np.where(edited.there, likely, np.nan).astype(np.float32)


def _written(model: Model, task: ParallelTask, edited: Edited, how: Answering) -> Answers:
    places, arms = (part.tolist() for part in np.nonzero(edited.there))
    keys = [(*edited.keys[row], arm) for row, arm in zip(places, arms, strict=True)]
    asked = list(zip(places, keys, strict=True))
    texts = []
    if asked:
        with applied(model, edited.of(places, arms, keys), edited.position):
            texts = written(model, task, asked, how.max_new_tokens)
    answers, languages = right_answers(task), languages_asked_in(task)
    found: Answers = {
        "correct": np.full(edited.there.shape, np.nan, np.float32),
        "log_prob": log_prob_of_right(model, task, edited),
    }
    words = np.full(edited.there.shape, "", dtype=object)
    for row, arm, one in zip(places, arms, texts, strict=True):
        words[row, arm] = one.text
        found["correct"][row, arm] = exact_match(one.text, answers[row], task.match, languages[row])
    return found | {"text": words.astype(str)}
