"""What a model answers to the items of a task: by choosing, or by writing."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from neuroglot.answering.answer_texts import exact_match, token_f1
from neuroglot.answering.answering import ChoiceScore
from neuroglot.errors import NeuroglotError
from neuroglot.models.finite import why_not_finite
from neuroglot.models.model import Model
from neuroglot.recording.blocks import prompt_keys, prompt_names
from neuroglot.running.choices import Asked, Question, log_probs, questions
from neuroglot.running.thoughts import Written
from neuroglot.running.writing import generate
from neuroglot.tasks.parallel import ParallelTask

Variables = dict[str, np.ndarray[Any, Any]]
"""Arrays by name, (item, language) or (item, language, option)."""


def by_prompt(task: ParallelTask, field: str) -> list[Any]:
    """A field of the items for each prompt, item by item and language by language."""
    return [item[field][language] for item in task.items for language in task.languages]


def asked_of(task: ParallelTask, choices: Sequence[Sequence[str]]) -> Asked:
    """Every prompt of a task with choices of its own."""
    prompts, joins = by_prompt(task, "prompts"), by_prompt(task, "joins")
    return Asked(prompts, choices, joins, prompt_names(task), prompt_keys(task))


def choose(
    model: Model,
    task: ParallelTask,
    choice_score: ChoiceScore,
    widest: int,
    asked: Sequence[Question] | None = None,
) -> Variables:
    """The likeliest choice of every prompt.

    Args:
        model: which answers.
        task: its items have choices.
        choice_score: by the sum of the log-probabilities of a choice's tokens, or their mean.
        widest: the most choices that a prompt has: the size of ``option``.
        asked: the prompts and choices as tokens, where they are known.

    Returns:
        ``correct``, ``answer`` (the right one), ``choice``, ``chance`` and ``margin`` (item,
        language), ``log_prob`` and ``n_tokens`` (item, language, option).

    Raises:
        NeuroglotError: a log-probability is NaN or infinite; it names the prompt.
    """
    choices = by_prompt(task, "choices")
    asked = asked or questions(model, asked_of(task, choices))
    log_prob, n_tokens = scores_of_choices(model, asked, prompt_names(task), widest)
    choice = likeliest(log_prob, n_tokens, choice_score)
    answers, right = by_prompt(task, "answers"), right_options(task)
    shape = (len(task), len(task.languages))
    return {
        "correct": (choice == right).reshape(shape),
        "answer": np.array(answers).reshape(shape),
        "choice": choice.reshape(shape),
        "chance": np.array([1 / len(given) for given in choices]).reshape(shape),
        "margin": margins(log_prob, n_tokens, right, choice_score).reshape(shape),
        "log_prob": log_prob.reshape(*shape, widest),
        "n_tokens": n_tokens.reshape(*shape, widest),
    }


def right_options(task: ParallelTask) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Which choice of every prompt is the answer (prompt,)."""
    pairs = zip(by_prompt(task, "choices"), by_prompt(task, "answers"), strict=True)
    return np.array([choices.index(answer) for choices, answer in pairs])


def scores_of_choices(
    model: Model,
    asked: Sequence[Question],
    names: Sequence[str],
    widest: int,
    *,
    times: int = 1,
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Log-probability and number of tokens of every choice.

    Args:
        model: which answers.
        asked: tokens of the prompts and their choices.
        names: what errors call the prompts.
        widest: the most choices that a prompt has: the size of ``option``.
        times: see :func:`log_probs`.

    Returns:
        Both (prompt, option); NaN and 0 beyond a prompt's choices.

    Raises:
        NeuroglotError: a log-probability is NaN or infinite; it names the prompt.
    """
    log_prob = np.full((len(asked), widest), np.nan)
    for rows, values in log_probs(model, asked, widest, times=times):
        log_prob[rows] = values.numpy()
    n_tokens = tokens_of_choices(asked, widest)
    check_finite(model, log_prob, n_tokens, asked, names)
    return log_prob, n_tokens


def tokens_of_choices(
    asked: Sequence[Question], widest: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Number of tokens of every choice (prompt, option); 0 beyond a prompt's choices."""
    n_tokens = np.zeros((len(asked), widest), np.int64)
    for row, question in enumerate(asked):
        n_tokens[row, : len(question.choices)] = [len(choice) for choice in question.choices]
    return n_tokens


def likeliest(
    log_prob: np.ndarray[Any, Any], n_tokens: np.ndarray[Any, Any], choice_score: ChoiceScore
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Which choice of every prompt has the largest score (prompt,)."""
    return np.asarray(np.nanargmax(scores_of(log_prob, n_tokens, choice_score), axis=-1))


def scores_of(
    log_prob: np.ndarray[Any, Any], n_tokens: np.ndarray[Any, Any], choice_score: ChoiceScore
) -> np.ndarray[Any, Any]:
    """Scores (prompt, option) by which choices are compared; NaN where there is no choice."""
    return log_prob / np.maximum(n_tokens, 1) if choice_score == "mean" else log_prob


def margins(
    log_prob: np.ndarray[Any, Any],
    n_tokens: np.ndarray[Any, Any],
    right: np.ndarray[Any, Any],
    choice_score: ChoiceScore,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """ChoiceScore of the right choice less that of the best wrong one, in nats (prompt,).

    Args:
        log_prob: of the choices (prompt, option); NaN where there is none.
        n_tokens: of the choices (prompt, option).
        right: which choice is right (prompt,).
        choice_score: by which choices are compared.

    Returns:
        NaN where there is no wrong choice.
    """
    scores = scores_of(log_prob, n_tokens, choice_score)
    rows = np.arange(len(scores))
    wrong = np.where(np.isnan(scores), -np.inf, scores)
    wrong[rows, right] = -np.inf
    best = wrong.max(axis=-1)
    return np.where(np.isneginf(best), np.nan, scores[rows, right] - best)


def check_finite(
    model: Model,
    log_prob: np.ndarray,
    n_tokens: np.ndarray,
    asked: Sequence[Question],
    names: Sequence[str],
) -> None:
    """Refuse log-probabilities (prompt, option) that are NaN or infinite where one was scored.

    Args:
        model: which answered.
        log_prob: of the choices (prompt, option).
        n_tokens: of the choices (prompt, option); 0 where there is none.
        asked: tokens of the prompts and their choices.
        names: what errors call the prompts.

    Raises:
        NeuroglotError: it names the first such prompt.
    """
    broken = (n_tokens > 0) & ~np.isfinite(log_prob)
    if broken.any():
        row, option = np.argwhere(broken)[0]
        question = asked[row]
        tokens = [*question.prefix, *question.choices[option]]
        why = why_not_finite(model.hf, tokens, model.running.edits)
        raise NeuroglotError(
            f"{names[row]}: the log-probability of a choice is NaN or infinite: {why}"
        )


def write(model: Model, task: ParallelTask, max_new_tokens: int) -> Variables:
    """What the model writes after every prompt, and whether it is the answer.

    Returns:
        ``correct``, ``answer`` (the right one; the first of several), ``f1``, ``text``,
        ``thoughts`` and ``chance`` (item, language); the last is NaN.
    """
    found = written(model, task, list(enumerate(prompt_keys(task))), max_new_tokens)
    n_cut = sum(one.was_cut for one in found)
    if n_cut:
        warnings.warn(
            f"{n_cut} of {len(found)} texts that the model wrote end within its thoughts, so that "
            f"there is no answer; max_new_tokens={max_new_tokens} (--max-new-tokens) may be too "
            "few.",
            stacklevel=2,
        )
    texts = [one.text for one in found]
    asked = list(zip(texts, right_answers(task), languages_asked_in(task), strict=True))
    correct = [exact_match(text, right, task.match, code) for text, right, code in asked]
    shape = (len(task), len(task.languages))
    return {
        "correct": np.array(correct).reshape(shape),
        "answer": np.array(by_prompt(task, "answers")).reshape(shape),
        "f1": np.array([token_f1(*one) for one in asked]).reshape(shape),
        "text": np.array(texts).reshape(shape),
        "thoughts": np.array([one.thoughts for one in found]).reshape(shape),
        "chance": np.full(shape, np.nan),
    }


def right_answers(task: ParallelTask) -> list[list[str]]:
    """The answers to every prompt of a task, each of which is right."""
    return [
        [item["answers"][language], *item.get("aliases", {}).get(language, [])]
        for item in task.items
        for language in task.languages
    ]


def languages_asked_in(task: ParallelTask) -> list[str]:
    """The language that every prompt of a task asks in, and is answered in."""
    return [task.asked_in or language for _ in task.items for language in task.languages]


def written(
    model: Model,
    task: ParallelTask,
    asked: Sequence[tuple[int, Hashable]],
    max_new_tokens: int,
) -> list[Written]:
    """What the model writes after prompts of a task.

    Args:
        model: which writes.
        task: of the prompts.
        asked: which prompt of the task, item by item and language by language, and what tells it
            apart where an edit has a set for each.
        max_new_tokens: at most, for each.

    Raises:
        NeuroglotError: see :func:`generate`.
    """
    prompts, names = by_prompt(task, "prompts"), prompt_names(task)
    rows, keys = [row for row, _ in asked], [key for _, key in asked]
    texts = [Written("")] * len(asked)
    batches = generate(
        model,
        [prompts[row] for row in rows],
        [names[row] for row in rows],
        keys,
        max_new_tokens,
    )
    for places, found in batches:
        for place, text in zip(places, found, strict=True):
            texts[place] = text
    return texts
