"""What neurons are scored for: which token, where, and instead of which other one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from neuroglot.answering.answers import asked_of, by_prompt, choose
from neuroglot.attribution.last_token import LastTokens
from neuroglot.errors import NeuroglotError, is_whole_number, listed
from neuroglot.models.model import Model
from neuroglot.recording.blocks import prompt_names, tokenize_block
from neuroglot.running.batching import batches, by_length, tokenize
from neuroglot.running.choices import Question, questions
from neuroglot.tasks.parallel import ParallelTask

TargetName = Literal["answer", "prediction", "correct_minus_best_wrong"]
TARGETS: tuple[TargetName, ...] = ("answer", "prediction", "correct_minus_best_wrong")


@dataclass(frozen=True)
class Target:
    """A prompt, and the token after it that neurons are scored for.

    Attributes:
        ids: tokens of the prompt and of what is fed after it; the last predicts the target.
        token: the token whose logit or log-probability counts.
        against: the token whose logit or log-probability is taken off, if any.
        n_fed: how many tokens were fed: those that the answer and the best wrong choice share.
        name: what errors call the prompt.
    """

    ids: list[int]
    token: int
    against: int | None = None
    n_fed: int = 0
    name: str = field(default="", compare=False)


def last_tokens(model: Model, targets: Sequence[Target]) -> LastTokens:
    """The tokens from which the targets are predicted, to be run again and again."""
    ids, names = [of.ids for of in targets], [of.name for of in targets]
    return LastTokens(model, ids, [of.n_fed for of in targets], names)


def default_target(task: ParallelTask) -> TargetName:
    """Correct minus best wrong where there are choices, else the answer, else the prediction."""
    if task.has_choices:
        return "correct_minus_best_wrong"
    return "answer" if task.has_answers else "prediction"


def check_target(task: ParallelTask, target: str | None) -> TargetName:
    """The target, if the task has what it needs; the default one for ``None``.

    Raises:
        NeuroglotError: an unknown target, or items without answers or choices.
    """
    if target is None:
        return default_target(task)
    if target not in TARGETS:
        raise NeuroglotError(f"unknown target {target!r}; there are {listed(TARGETS)}.")
    if target == "answer" and not task.has_answers:
        raise NeuroglotError(
            f"target 'answer' needs answers, which items of task {task.name!r} lack; use "
            "target='prediction'."
        )
    if target == "correct_minus_best_wrong" and not task.has_choices:
        raise NeuroglotError(
            f"target 'correct_minus_best_wrong' needs choices, which items of task {task.name!r} "
            "lack; use target='answer' or 'prediction'."
        )
    return target


def predicted(
    model: Model,
    sequences: Sequence[list[int]],
    names: Sequence[str],
) -> list[Target]:
    """Each prompt with the token that the model holds likeliest.

    Args:
        model: which predicts.
        sequences: tokens of the prompts.
        names: what errors call them.

    Raises:
        NeuroglotError: logits are NaN or infinite; it names the prompt.
    """
    targets = [Target(ids, 0, name=name) for ids, name in zip(sequences, names, strict=True)]
    tokens = [0] * len(sequences)
    lengths = [len(ids) for ids in sequences]
    for rows in batches(model, by_length(lengths), lengths):
        with torch.no_grad():
            best = last_tokens(model, [targets[row] for row in rows]).logits().argmax(dim=-1)
        for row, token in zip(rows, best.tolist(), strict=True):
            tokens[row] = token
    return [replace(of, token=token) for of, token in zip(targets, tokens, strict=True)]


def given(model: Model, texts: Sequence[str], tokens: Sequence[int]) -> list[Target]:
    """Texts with a token id for each.

    Raises:
        NeuroglotError: not as many tokens as texts, or a token that the model does not have.
    """
    names = text_names(texts)
    if len(tokens) != len(texts):
        raise NeuroglotError(f"{len(tokens)} target tokens for {len(texts)} prompts.")
    known = model.n_embeddings
    for name, token in zip(names, tokens, strict=True):
        if not is_whole_number(token, 0, known - 1):
            raise NeuroglotError(
                f"target {token!r} of {name}: expected a token id from 0 to {known - 1}."
            )
    sequences = tokenize(model, texts, names)
    return [
        Target(ids, int(token), name=name)
        for ids, token, name in zip(sequences, tokens, names, strict=True)
    ]


def text_names(texts: Sequence[str]) -> list[str]:
    """What errors call texts that have no other name."""
    return [f"prompt {i}" for i in range(len(texts))]


def answered_first(model: Model, task: ParallelTask) -> list[Target]:
    """Each prompt with the first token of its answer: the paper's definition."""
    return [
        Target(question.prefix, question.choices[right][0], name=name)
        for (question, right), name in zip(_asked(model, task), prompt_names(task), strict=True)
    ]


def _asked(model: Model, task: ParallelTask) -> list[tuple[Question, int]]:
    """Every prompt with its choices as tokens, and which of them is right.

    Where an item has no choices, its answer is the only one.
    """
    answers = by_prompt(task, "answers")
    choices = by_prompt(task, "choices") if task.has_choices else [[a] for a in answers]
    found = questions(model, asked_of(task, choices))
    right = [options.index(a) for options, a in zip(choices, answers, strict=True)]
    return list(zip(found, right, strict=True))


def against_best_wrong(
    model: Model, task: ParallelTask, log_prob: np.ndarray | None = None
) -> list[Target | None]:
    """Each prompt with the first tokens at which the answer and the best wrong choice differ.

    What the two share is fed after the prompt. A wrong choice that only goes on where the answer
    ends, or ends where it goes on, has no such token and is passed over; ``None`` where all do.

    Args:
        model: which answers.
        task: its items have choices.
        log_prob: of the choices (item, language, option), where they are known already.

    Raises:
        NeuroglotError: a log-probability is NaN or infinite; it names the prompt.
    """
    if log_prob is None:
        log_prob = choose(model, task, "sum", task.most_choices)["log_prob"]
    by_row = log_prob.reshape(-1, log_prob.shape[-1])
    found = []
    for (question, right), scores, name in zip(
        _asked(model, task), by_row, prompt_names(task), strict=True
    ):
        if not np.isfinite(scores[: len(question.choices)]).all():
            raise NeuroglotError(
                f"{name}: the log-probability of a choice is NaN or infinite in these answers; "
                "evaluate the task anew."
            )
        order = [int(i) for i in np.argsort(-scores, kind="stable") if i < len(question.choices)]
        target = _first_difference(question, right, [i for i in order if i != right])
        found.append(None if target is None else replace(target, name=name))
    return found


def _first_difference(question: Question, right: int, wrong: list[int]) -> Target | None:
    """The target for the first of the wrong choices that differs from the right one at a token."""
    answer = question.choices[right]
    for other in wrong:
        pairs = list(zip(answer, question.choices[other], strict=False))
        n = next((i for i, (one, two) in enumerate(pairs) if one != two), None)
        if n is not None:
            return Target(question.prefix + answer[:n], *pairs[n], n_fed=n)
    return None


def require_targets(task: ParallelTask, targets: Sequence[Target | None]) -> list[Target]:
    """The targets of all prompts of a task.

    Raises:
        NeuroglotError: a prompt has none; it names the prompt.
    """
    for name, target in zip(prompt_names(task), targets, strict=True):
        if target is None:
            raise NeuroglotError(
                f"{name}: every wrong choice begins as the answer does and goes on, or ends before "
                "it, so that no token tells them apart; use target='answer', or leave out this "
                "item."
            )
    return [target for target in targets if target is not None]


def targets_of(
    model: Model, task: ParallelTask, target: TargetName, log_prob: np.ndarray | None = None
) -> list[Target | None]:
    """Targets of all prompts of a task, item by item and language by language.

    ``None`` for a prompt where no token tells the answer from a wrong choice.

    Args:
        model: which answers.
        task: whose prompts.
        target: see :func:`neuroglot.neuron_scores`.
        log_prob: of the choices (item, language, option), where they are known already.
    """
    if target == "prediction":
        return [*predicted(model, tokenize_block(model, task), prompt_names(task))]
    if target == "answer":
        return [*answered_first(model, task)]
    return against_best_wrong(model, task, log_prob)
