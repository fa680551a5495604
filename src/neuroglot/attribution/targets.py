"""The token that neurons are scored for in each prompt, and the token that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from neuroglot.answering.answers import asked_of, by_prompt, choose
from neuroglot.attribution.last_token import LastTokens
from neuroglot.errors import NeuroglotError, is_whole_number, listed
from neuroglot.models.model import Model
from neuroglot.recording.blocks import prompt_names
from neuroglot.running.batching import batches, by_length, tokenize
from neuroglot.running.choices import Question, questions
from neuroglot.tasks.parallel import ParallelTask

TargetName = Literal["answer", "prediction", "correct_minus_best_wrong"]
TARGETS: tuple[TargetName, ...] = ("answer", "prediction", "correct_minus_best_wrong")


@dataclass(frozen=True)
class Target:
    """A prompt, and the token after it that neurons are scored for.

    Attributes:
        ids: tokens of the prompt and of the part of the answer that is fed after it; the target is
            predicted from the last of them.
        token: the token whose logit or log-probability is explained.
        against: a token whose logit or log-probability is subtracted from it, if any.
        n_fed: how many tokens of the answer are fed: those that it shares with the best wrong
            choice.
        name: name of the prompt, for error messages.
    """

    ids: list[int]
    token: int
    against: int | None = None
    n_fed: int = 0
    name: str = field(default="", compare=False)


def token_tensors(targets: Sequence[Target], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The targets' tokens, the tokens to subtract, and whether there is none to subtract (prompt,).

    The token to subtract is given as 0 if there is none.
    """
    against = [target.against for target in targets]
    return (
        torch.tensor([target.token for target in targets], device=device),
        torch.tensor([token or 0 for token in against], device=device),
        torch.tensor([token is None for token in against], device=device),
    )


def last_tokens(model: Model, targets: Sequence[Target]) -> LastTokens:
    """The tokens from which the targets are predicted, to be run repeatedly."""
    ids, names = [target.ids for target in targets], [target.name for target in targets]
    return LastTokens(model, ids, [target.n_fed for target in targets], names)


def check_target(task: ParallelTask, target: str | None) -> TargetName:
    """The target, if the task has what it needs.

    By default it is correct minus best wrong if the items have choices, the answer if they have
    answers, and otherwise the prediction.

    Raises:
        NeuroglotError: an unknown target, or items without answers or choices.
    """
    if target is None:
        if task.has_choices:
            return "correct_minus_best_wrong"
        return "answer" if task.has_answers else "prediction"
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


def predicted(model: Model, texts: Sequence[str], names: Sequence[str]) -> list[Target]:
    """Each prompt with the token that the model finds most likely.

    Args:
        model: the model that predicts.
        texts: the prompts.
        names: names of the prompts, for error messages.

    Raises:
        NeuroglotError: logits are NaN or infinite; the message names the prompt.
    """
    sequences = tokenize(model, texts, names)
    targets = [Target(ids, 0, name=name) for ids, name in zip(sequences, names, strict=True)]
    lengths = [len(ids) for ids in sequences]
    for rows in batches(model, by_length(lengths), lengths):
        with torch.no_grad():
            best = last_tokens(model, [targets[row] for row in rows]).logits().argmax(dim=-1)
        for row, token in zip(rows, best.tolist(), strict=True):
            targets[row] = replace(targets[row], token=token)
    return targets


def given(
    model: Model, texts: Sequence[str], names: Sequence[str], tokens: Sequence[int]
) -> list[Target]:
    """Each prompt with a token id that the user has chosen for it.

    Raises:
        NeuroglotError: the number of tokens is not that of the texts, or the model does not have a
            token.
    """
    if len(tokens) != len(texts):
        raise NeuroglotError(f"{len(tokens)} target tokens for {len(texts)} prompts.")
    largest = model.n_embeddings - 1
    for name, token in zip(names, tokens, strict=True):
        if not is_whole_number(token, 0, largest):
            raise NeuroglotError(
                f"target {token!r} of {name}: expected a token id from 0 to {largest}."
            )
    sequences = tokenize(model, texts, names)
    return [
        Target(ids, int(token), name=name)
        for ids, token, name in zip(sequences, tokens, names, strict=True)
    ]


def _asked(model: Model, task: ParallelTask) -> list[tuple[Question, int, str]]:
    """Every prompt with its choices as tokens, the index of the right choice, and its name.

    If an item has no choices, its answer is the only choice.
    """
    answers = by_prompt(task, "answers")
    choices = by_prompt(task, "choices") if task.has_choices else [[a] for a in answers]
    right = [options.index(a) for options, a in zip(choices, answers, strict=True)]
    return list(
        zip(questions(model, asked_of(task, choices)), right, prompt_names(task), strict=True)
    )


def against_best_wrong(
    model: Model, task: ParallelTask, log_prob: np.ndarray | None = None
) -> list[Target | None]:
    """Each prompt with the first tokens at which the answer and the best wrong choice differ.

    The tokens that both share are fed after the prompt. A wrong choice that is the beginning of the
    answer, or of which the answer is the beginning, has no such pair, and the next best choice
    takes its place. The target is ``None`` if this holds for all wrong choices.

    Args:
        model: the model that answers.
        task: a task with choices.
        log_prob: log-probabilities of the choices (item, language, option), if already known.

    Raises:
        NeuroglotError: a log-probability is NaN or infinite; the message names the prompt.
    """
    if log_prob is None:
        log_prob = choose(model, task, "sum", task.most_choices)["log_prob"]
    by_row = log_prob.reshape(-1, log_prob.shape[-1])
    targets = []
    for (question, right, name), padded in zip(_asked(model, task), by_row, strict=True):
        scores = padded[: len(question.choices)]
        if not np.isfinite(scores).all():
            raise NeuroglotError(
                f"{name}: the log-probability of a choice is NaN or infinite in these answers; "
                "evaluate the task anew."
            )
        wrong = [i for i in np.argsort(-scores, kind="stable").tolist() if i != right]
        targets.append(_first_difference(question, right, wrong, name))
    return targets


def _first_difference(question: Question, right: int, wrong: list[int], name: str) -> Target | None:
    """The target for the first of the wrong choices that differs from the right one at a token."""
    answer = question.choices[right]
    for other in wrong:
        for n, (token, against) in enumerate(zip(answer, question.choices[other], strict=False)):
            if token != against:
                return Target(question.prefix + answer[:n], token, against, n_fed=n, name=name)
    return None


def require_targets(task: ParallelTask, targets: Sequence[Target | None]) -> list[Target]:
    """The targets of all prompts of a task.

    Raises:
        NeuroglotError: a prompt has no target; the message names it.
    """
    for name, target in zip(prompt_names(task), targets, strict=True):
        if target is None:
            raise NeuroglotError(
                f"{name}: every wrong choice begins as the answer does and goes on, or ends before "
                "it, so no token distinguishes them; use target='answer', or leave out this item."
            )
    return [target for target in targets if target is not None]


def targets_of(
    model: Model, task: ParallelTask, target: TargetName, log_prob: np.ndarray | None = None
) -> list[Target | None]:
    """Targets of all prompts of a task, item by item and language by language.

    A target is ``None`` if no token distinguishes the answer from a wrong choice.

    Args:
        model: the model that answers.
        task: the task whose prompts are taken.
        target: see :func:`neuroglot.neuron_scores`.
        log_prob: log-probabilities of the choices (item, language, option), if already known.
    """
    if target == "prediction":
        return [*predicted(model, by_prompt(task, "prompts"), prompt_names(task))]
    if target == "answer":  # its first token, as in the paper
        return [
            Target(question.prefix, question.choices[right][0], name=name)
            for question, right, name in _asked(model, task)
        ]
    return against_best_wrong(model, task, log_prob)
