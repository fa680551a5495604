"""The answers of a model to the items of a task, which it chooses or writes."""

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
    """A field of the items, prompt by prompt: item by item and language by language."""
    return [item[field][language] for item in task.items for language in task.languages]


def asked_of(task: ParallelTask, choices: Sequence[Sequence[str]]) -> Asked:
    """The prompts of a task, each with the given choices."""
    prompts, joins = by_prompt(task, "prompts"), by_prompt(task, "joins")
    return Asked(prompts, choices, joins, prompt_names(task), prompt_keys(task))


def choose(
    model: Model,
    task: ParallelTask,
    choice_score: ChoiceScore,
    widest: int,
    asked: Sequence[Question] | None = None,
) -> Variables:
    """Let a model choose an answer to every prompt.

    Args:
        model: the model that answers.
        task: the task; its items have choices.
        choice_score: whether choices are compared by the sum of the log-probabilities of their
            tokens, or by their mean.
        widest: the largest number of choices of a prompt, which is the size of ``option``.
        asked: the prompts and choices as tokens, if they are known.

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
    """The place of the right answer among the choices of each prompt (prompt,)."""
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
    """The log-probability and the number of tokens of every choice.

    Args:
        model: the model that answers.
        asked: the tokens of the prompts and their choices.
        names: the names of the prompts in errors.
        widest: the largest number of choices of a prompt, which is the size of ``option``.
        times: see :func:`log_probs`.

    Returns:
        Both (prompt, option); NaN and 0 beyond the choices of a prompt.

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
    """The number of tokens of every choice (prompt, option); 0 beyond the choices of a prompt."""
    n_tokens = np.zeros((len(asked), widest), np.int64)
    for row, question in enumerate(asked):
        n_tokens[row, : len(question.choices)] = [len(choice) for choice in question.choices]
    return n_tokens


def likeliest(
    log_prob: np.ndarray[Any, Any], n_tokens: np.ndarray[Any, Any], choice_score: ChoiceScore
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The place of the choice with the highest score in each prompt (prompt,)."""
    return np.asarray(np.nanargmax(scores_of(log_prob, n_tokens, choice_score), axis=-1))


def scores_of(
    log_prob: np.ndarray[Any, Any], n_tokens: np.ndarray[Any, Any], choice_score: ChoiceScore
) -> np.ndarray[Any, Any]:
    """The scores by which choices are compared (prompt, option); NaN where there is no choice."""
    return log_prob / np.maximum(n_tokens, 1) if choice_score == "mean" else log_prob


def margins(
    log_prob: np.ndarray[Any, Any],
    n_tokens: np.ndarray[Any, Any],
    right: np.ndarray[Any, Any],
    choice_score: ChoiceScore,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The score of the right choice less that of the best wrong one, in nats (prompt,).

    Args:
        log_prob: the log-probabilities of the choices (prompt, option); NaN where there is none.
        n_tokens: their numbers of tokens (prompt, option).
        right: the place of the right choice (prompt,).
        choice_score: the score by which choices are compared.

    Returns:
        The margins; NaN where there is no wrong choice.
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
    """Refuse log-probabilities of choices that are NaN or infinite.

    Args:
        model: the model that answered.
        log_prob: the log-probabilities of the choices (prompt, option).
        n_tokens: their numbers of tokens (prompt, option); 0 where there is no choice.
        asked: the tokens of the prompts and their choices.
        names: the names of the prompts in errors.

    Raises:
        NeuroglotError: one is; it names the first such prompt, and the cause.
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
    """Let a model write an answer to every prompt, and compare it with the right one.

    Returns:
        ``correct``, ``answer`` (the right one, or the first of several), ``f1``, ``text``,
        ``thoughts`` and ``chance`` (item, language); ``chance`` is NaN.
    """
    answers = written(model, task, list(enumerate(prompt_keys(task))), max_new_tokens)
    n_cut = sum(answer.was_cut for answer in answers)
    if n_cut:
        warnings.warn(
            f"{n_cut} of {len(answers)} texts that the model wrote end within its thoughts, so "
            f"that there is no answer; max_new_tokens={max_new_tokens} (--max-new-tokens) may be "
            "too few.",
            stacklevel=2,
        )
    texts = [answer.text for answer in answers]
    compared = list(zip(texts, right_answers(task), languages_asked_in(task), strict=True))
    correct = [exact_match(text, right, task.match, code) for text, right, code in compared]
    shape = (len(task), len(task.languages))
    return {
        "correct": np.array(correct).reshape(shape),
        "answer": np.array(by_prompt(task, "answers")).reshape(shape),
        "f1": np.array([token_f1(*each) for each in compared]).reshape(shape),
        "text": np.array(texts).reshape(shape),
        "thoughts": np.array([answer.thoughts for answer in answers]).reshape(shape),
        "chance": np.full(shape, np.nan),
    }


def right_answers(task: ParallelTask) -> list[list[str]]:
    """All right answers to each prompt of a task."""
    return [
        [item["answers"][language], *item.get("aliases", {}).get(language, [])]
        for item in task.items
        for language in task.languages
    ]


def languages_asked_in(task: ParallelTask) -> list[str]:
    """The language in which each prompt of a task asks, and is answered."""
    return [task.asked_in or language for _ in task.items for language in task.languages]


def written(
    model: Model,
    task: ParallelTask,
    asked: Sequence[tuple[int, Hashable]],
    max_new_tokens: int,
) -> list[Written]:
    """Let a model write after prompts of a task.

    Args:
        model: the model that writes.
        task: the task.
        asked: the place of each prompt, item by item and language by language, and the key under
            which an edit with a set for each prompt looks it up.
        max_new_tokens: the largest number of tokens for each prompt.

    Raises:
        NeuroglotError: see :func:`generate`.
    """
    prompts, names = by_prompt(task, "prompts"), prompt_names(task)
    answers = [Written("")] * len(asked)
    batches = generate(
        model,
        [prompts[row] for row, _ in asked],
        [names[row] for row, _ in asked],
        [key for _, key in asked],
        max_new_tokens,
    )
    for places, texts in batches:
        for place, text in zip(places, texts, strict=True):
            answers[place] = text
    return answers
