"""What every neuron contributes to the answer, prompt by prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neuroglot.attribution.direct import DIRECT, Weights, run_forward, weights_for
from neuroglot.attribution.gradients import STEPS, gradient_x_activation, integrated_gradients
from neuroglot.attribution.last_token import cost_of_last
from neuroglot.attribution.targets import (
    TARGETS,
    Target,
    check_target,
    given,
    predicted,
    require_targets,
    targets_of,
    text_names,
)
from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.model import Model
from neuroglot.models.operations import operation
from neuroglot.models.tokenization import token_names
from neuroglot.recording.blocks import prompt_keys, prompt_names, tokenize_block
from neuroglot.running.batching import (
    RowsAndValues,
    batches,
    by_length,
    in_halves,
    tokenize,
)
from neuroglot.store.provenance import provenance
from neuroglot.tasks.parallel import ParallelTask

GRADIENT: dict[str, Callable[[Model, Sequence[Target]], Tensor]] = {
    "gradient_x_activation": gradient_x_activation,
    "integrated_gradients": integrated_gradients,
}
SCORES = (*DIRECT, *GRADIENT)
NO_TARGET, GIVEN = "none", "given tokens"


@operation
def neuron_scores(
    model: Model,
    prompts: Sequence[str] | ParallelTask,
    *,
    score: str,
    target: Sequence[int] | str | None = None,
) -> xr.DataArray:
    """The score of every neuron for every prompt, at the token from which the target is predicted.

    All scores are kept in memory; :func:`neuroglot.attribute` adds them up by category instead.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        prompts: texts, or a task: all its prompts, item by item and language by language.
        score: ``"contribution"`` (``|m_i| · ‖v_i‖``; needs no target), ``"effective"``
            (``e_w · m_i v_i``), ``"direct_logit"`` (the same through the norms on the way to the
            logits, their scale frozen, and through what logits are multiplied with),
            ``"gradient_x_activation"`` or ``"integrated_gradients"`` (of the target's
            log-probability; the coefficients of one FFN at a time go from zero to their value).
        target: one token id for each prompt, or ``"prediction"`` (the likeliest token); for a task
            also ``"answer"`` (the first token of the answer, as in the paper) or
            ``"correct_minus_best_wrong"`` (the first token at which the answer differs from the
            likeliest wrong choice, what they share being fed, less the token of that choice). By
            default the last of these that there is what for: choices, answers, or neither.

    Returns:
        Scores (prompt, layer, neuron), float32, in logits or nats but for the contribution. Of the
        prompts it says ``token`` and ``against`` (their texts), ``fed`` (how many tokens of the
        answer were fed) and, for a task, ``item`` and ``language``.

    Raises:
        NeuroglotError: an unknown score or target, a target that the prompts do not have, or a
            model that the score is not defined for.
    """
    check_scores([score])
    name = name_target(prompts, score, target)
    targets = targets_for(model, prompts, name, target)
    shape = (len(targets), model.n_layers, model.n_neurons)
    values = torch.empty(shape, dtype=torch.float32)
    weights = weights_for(model, (score,))
    for rows, found in score_batches(model, weights, targets, (score,)):
        values[rows] = found[:, 0].cpu()
    return xr.DataArray(
        values.numpy(),
        dims=("prompt", "layer", "neuron"),
        coords=target_coordinates(model, prompts, targets, named=name != NO_TARGET)
        | {"layer": range(model.n_layers)},
        name=score,
        attrs={
            "kind": "neuron scores",
            **provenance(model, prompts),
            "score": score,
            "target": name,
        },
    )


def check_scores(scores: Sequence[str]) -> None:
    """Refuse what is no score.

    Raises:
        NeuroglotError: an unknown score, none, or one that is named twice.
    """
    if isinstance(scores, str):
        raise NeuroglotError(f"scores={scores!r} is one text; expected a list of names.")
    unknown = [score for score in scores if score not in SCORES]
    if unknown:
        raise NeuroglotError(f"unknown score {unknown[0]!r}; there are {listed(SCORES)}.")
    if not scores or len(set(scores)) < len(scores):
        raise NeuroglotError(f"scores={listed(scores) or 'none'}: expected different ones.")


def score_batches(
    model: Model,
    weights: Weights,
    targets: Sequence[Target],
    scores: Sequence[str],
) -> Iterator[RowsAndValues]:
    """Rows of ``targets`` and their scores (prompt, score, layer, neuron), batch by batch.

    Args:
        model: which runs.
        weights: from :func:`neuroglot.attribution.direct.weights_for` for these scores.
        targets: prompts with their targets.
        scores: which.
    """

    def run(rows: list[int]) -> Tensor:
        return _scored(model, weights, [targets[row] for row in rows], scores)

    again = STEPS if "integrated_gradients" in scores else 1
    costs = [cost_of_last(model, len(target.ids), again) for target in targets]
    for wanted in batches(model, by_length(costs), costs):
        yield from in_halves(run, wanted)


def _scored(
    model: Model, weights: Weights, targets: Sequence[Target], scores: Sequence[str]
) -> Tensor:
    found: dict[str, Tensor] = {}
    if any(score in DIRECT for score in scores):
        forward = run_forward(model, targets)
        for score in DIRECT:
            if score in scores:
                found[score] = DIRECT[score](model, weights, forward, targets)
    for score, of in GRADIENT.items():
        if score in scores:
            found[score] = of(model, targets)
    return torch.stack([found[score].detach() for score in scores], dim=1)


def name_target(
    prompts: Sequence[str] | ParallelTask, score: str, target: Sequence[int] | str | None
) -> str:
    """Which target is meant, once defaults are filled in.

    Raises:
        NeuroglotError: the prompts do not have it.
    """
    if isinstance(prompts, str):
        raise NeuroglotError("prompts is one text; expected a list of them, or a task.")
    if not len(prompts):
        raise NeuroglotError("there are no prompts.")
    if target is None and score == "contribution":
        return NO_TARGET
    of_task = isinstance(prompts, ParallelTask)
    if not (target is None or isinstance(target, str)):
        if not isinstance(target, Sequence | np.ndarray):
            raise NeuroglotError(f"target={target!r}: expected one token id for each prompt.")
        if of_task:
            raise NeuroglotError("a task takes the name of a target, not token ids.")
        return GIVEN
    if isinstance(prompts, ParallelTask):
        return check_target(prompts, target)
    if target not in (None, "prediction"):
        unknown = f"unknown target {target!r}; there are {listed(TARGETS)}."
        needs = f"target {target!r} needs a task, whose items have answers; texts take token ids."
        raise NeuroglotError(needs if target in TARGETS else unknown)
    return "prediction"


def targets_for(
    model: Model,
    prompts: Sequence[str] | ParallelTask,
    name: str,
    target: Sequence[int] | str | None,
) -> list[Target]:
    """Targets of the prompts, one each.

    Args:
        model: which answers.
        prompts: texts or a task.
        name: from :func:`name_target`.
        target: as the user gave it.
    """
    if isinstance(prompts, ParallelTask):
        if name == NO_TARGET:
            named = zip(tokenize_block(model, prompts), prompt_names(prompts), strict=True)
            return [Target(ids, 0, name=prompt) for ids, prompt in named]
        return require_targets(prompts, targets_of(model, prompts, check_target(prompts, name)))
    if name == GIVEN:
        assert target is not None
        return given(model, prompts, [*target])
    names = text_names(prompts)
    sequences = tokenize(model, prompts, names)
    if name == NO_TARGET:
        return [Target(ids, 0, name=of) for ids, of in zip(sequences, names, strict=True)]
    return predicted(model, sequences, names)


def target_coordinates(
    model: Model,
    prompts: Sequence[str] | ParallelTask,
    targets: Sequence[Target],
    *,
    named: bool = True,
) -> dict[str, Any]:
    """What results say of each prompt; ``named`` is whether its target means anything."""

    def text(token: int | None) -> str:
        return "" if token is None else token_names(model.tokenizer, [token])[0]

    found: dict[str, Any] = {
        "token": ("prompt", [text(t.token if named else None) for t in targets]),
        "against": ("prompt", [text(t.against) for t in targets]),
        "fed": ("prompt", [t.n_fed for t in targets]),
    }
    if isinstance(prompts, ParallelTask):
        pairs = prompt_keys(prompts)
        found["item"] = ("prompt", [item for item, _ in pairs])
        found["language"] = ("prompt", [language for _, language in pairs])
    return found
