"""What a model answers to the items of a task: by choosing, or by writing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from neuroglot.errors import NeuroglotError
from neuroglot.experiments.generation import exact_match, generate, token_f1
from neuroglot.experiments.scoring import Asked, Question, log_probs, questions
from neuroglot.models import Model
from neuroglot.recording.batching import BatchSize
from neuroglot.recording.blocks import prompt_keys, prompt_names
from neuroglot.tasks import ParallelTask

Score = Literal["sum", "mean"]
SCORES: tuple[Score, ...] = ("sum", "mean")
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
    model: Model, task: ParallelTask, score: Score, batch_size: BatchSize, widest: int
) -> Variables:
    """The likeliest choice of every prompt.

    Args:
        model: which answers.
        task: its items have choices.
        score: by the sum of the log-probabilities of a choice's tokens, or their mean.
        batch_size: prompts in a batch.
        widest: the most choices that a prompt has: the size of ``option``.

    Returns:
        ``correct``, ``answer`` (the right one), ``choice`` and ``chance`` (item, language),
        ``log_prob`` and ``n_tokens`` (item, language, option).

    Raises:
        NeuroglotError: a log-probability is NaN or infinite; it names the prompt.
    """
    choices, names = by_prompt(task, "choices"), prompt_names(task)
    found = questions(model, asked_of(task, choices))
    log_prob = np.full((len(names), widest), np.nan)
    for rows, values in log_probs(model, found, batch_size, widest):
        log_prob[rows] = values.numpy()
    n_tokens = tokens_of_choices(found, widest)
    check_finite(log_prob, n_tokens > 0, names)
    choice = likeliest(log_prob, n_tokens, score)
    answers, right = by_prompt(task, "answers"), right_options(task)
    shape = (len(task), len(task.languages))
    return {
        "correct": (choice == right).reshape(shape),
        "answer": np.array(answers).reshape(shape),
        "choice": choice.reshape(shape),
        "chance": np.array([1 / len(given) for given in choices]).reshape(shape),
        "log_prob": log_prob.reshape(*shape, widest),
        "n_tokens": n_tokens.reshape(*shape, widest),
    }


def right_options(task: ParallelTask) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Which choice of every prompt is the answer (prompt,)."""
    pairs = zip(by_prompt(task, "choices"), by_prompt(task, "answers"), strict=True)
    return np.array([choices.index(answer) for choices, answer in pairs])


def tokens_of_choices(
    asked: Sequence[Question], widest: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """How many tokens every choice has (prompt, option); 0 beyond a prompt's choices."""
    n_tokens = np.zeros((len(asked), widest), np.int64)
    for row, question in enumerate(asked):
        n_tokens[row, : len(question.choices)] = [len(choice) for choice in question.choices]
    return n_tokens


def likeliest(
    log_prob: np.ndarray[Any, Any], n_tokens: np.ndarray[Any, Any], score: Score
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Which choice of every prompt has the largest score (prompt,)."""
    scores = log_prob / np.maximum(n_tokens, 1) if score == "mean" else log_prob
    return np.asarray(np.nanargmax(scores, axis=-1))


def check_finite(log_prob: np.ndarray, scored: np.ndarray, names: Sequence[str]) -> None:
    """Refuse log-probabilities (prompt, option) that are NaN or infinite where one was scored.

    Raises:
        NeuroglotError: it names the first such prompt.
    """
    broken = (scored & ~np.isfinite(log_prob)).any(axis=1)
    if broken.any():
        raise NeuroglotError(
            f"{names[int(broken.argmax())]}: the log-probability of a choice is NaN or infinite. "
            "Load the model with dtype='float32'."
        )


def write(
    model: Model, task: ParallelTask, max_new_tokens: int, batch_size: BatchSize
) -> Variables:
    """What the model writes after every prompt, and whether it is the answer.

    Returns:
        ``correct``, ``answer`` (the right one), ``f1``, ``text`` and ``chance`` (item, language);
        the last is NaN.
    """
    prompts, answers = by_prompt(task, "prompts"), by_prompt(task, "answers")
    texts = [""] * len(prompts)
    names, keys = prompt_names(task), prompt_keys(task)
    for rows, found in generate(model, prompts, names, keys, max_new_tokens, batch_size):
        for row, text in zip(rows, found, strict=True):
            texts[row] = text
    pairs = list(zip(texts, answers, strict=True))
    shape = (len(task), len(task.languages))
    return {
        "correct": np.array([exact_match(*pair, task.match) for pair in pairs]).reshape(shape),
        "answer": np.array(answers).reshape(shape),
        "f1": np.array([token_f1(*pair) for pair in pairs]).reshape(shape),
        "text": np.array(texts).reshape(shape),
        "chance": np.full(shape, np.nan),
    }
