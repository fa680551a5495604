"""The contribution of every neuron to the answer, prompt by prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neuroglot.answering.answers import by_prompt
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
)
from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.model import Model
from neuroglot.models.operations import operation
from neuroglot.models.tokenization import token_names
from neuroglot.recording.blocks import prompt_keys, prompt_names
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
    """The score of every neuron in every prompt, at the token from which the target is predicted.

    All scores are held in memory; :func:`neuroglot.attribute` sums them by category instead.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        prompts: texts, or a task. The prompts of a task are taken item by item and language by
            language.
        score: one of

            - ``"contribution"``: ``|m_i| · ‖v_i‖``, which needs no target;
            - ``"effective"``: ``e_w · m_i v_i``;
            - ``"direct_logit"``: the effective score through the norms on the way to the logits,
              with their scale frozen, and through the factor by which the model multiplies logits;
            - ``"gradient_x_activation"``: the coefficient times the gradient of the target's
              log-probability;
            - ``"integrated_gradients"`` of the target's log-probability, while the coefficients of
              one FFN at a time go from zero to their value.
        target: the token that neurons are scored for: a token id for each prompt, or

            - ``"prediction"``: the most likely token;
            - ``"answer"`` (of a task): the first token of the answer, as in the paper;
            - ``"correct_minus_best_wrong"`` (of a task): the first token at which the answer
              differs from the most likely wrong choice, minus the token of that choice. The tokens
              before it, which both share, are fed after the prompt.

            The default is ``"correct_minus_best_wrong"`` for a task with choices, ``"answer"`` for
            a task with answers only, and otherwise ``"prediction"``.

    Returns:
        Scores (prompt, layer, neuron), float32, in logits or nats except for the contribution.
        Coordinates of the prompts are ``token`` and ``against`` (the texts of the target and of the
        token that is subtracted), ``fed`` (how many tokens of the answer were fed) and, for a task,
        ``item`` and ``language``.

    Raises:
        NeuroglotError: an unknown score or target, a target that the prompts do not have, or a
            model for which the score is not defined.

    Examples:
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=2)
        >>> scores = ng.neuron_scores(model, task, score="effective")
        >>> scores.dims, scores.shape
        (('prompt', 'layer', 'neuron'), (4, 6, 768))
        >>> scores.attrs["target"]
        'correct_minus_best_wrong'
    """
    check_scores([score])
    name, targets = find_targets(model, prompts, score, target)
    values = torch.empty((len(targets), model.n_layers, model.n_neurons), dtype=torch.float32)
    weights = weights_for(model, (score,))
    for rows, batch in score_batches(model, weights, targets, (score,)):
        values[rows] = batch[:, 0].cpu()
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
    """Refuse anything but a list of different scores.

    Raises:
        NeuroglotError: an unknown score, no score, or a score that is named twice.
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
        model: the model to run.
        weights: from :func:`neuroglot.attribution.direct.weights_for` for these scores.
        targets: prompts with their targets.
        scores: names of the scores.
    """

    def run(rows: list[int]) -> Tensor:
        return _scored(model, weights, [targets[row] for row in rows], scores)

    runs_per_prompt = STEPS if "integrated_gradients" in scores else 1
    costs = [cost_of_last(model, len(target.ids), runs_per_prompt) for target in targets]
    for rows in batches(model, by_length(costs), costs):
        yield from in_halves(run, rows)


def _scored(
    model: Model, weights: Weights, targets: Sequence[Target], scores: Sequence[str]
) -> Tensor:
    """Scores (prompt, score, layer, neuron) of one batch; all direct scores share one pass."""
    forward = cache(lambda: run_forward(model, targets))
    by_score = [
        DIRECT[score](model, weights, forward(), targets)
        if score in DIRECT
        else GRADIENT[score](model, targets)
        for score in scores
    ]
    return torch.stack([values.detach() for values in by_score], dim=1)


def find_targets(
    model: Model,
    prompts: Sequence[str] | ParallelTask,
    score: str,
    target: Sequence[int] | str | None,
) -> tuple[str, list[Target]]:
    """The name of the target after defaults are filled in, and the target of each prompt.

    Args:
        model: the model that answers.
        prompts: texts or a task.
        score: name of the score; a contribution needs no target.
        target: the target as the user gave it.

    Raises:
        NeuroglotError: there are no prompts, or they do not have this target.
    """
    if isinstance(prompts, str):
        raise NeuroglotError("prompts is one text; expected a list of them, or a task.")
    if not len(prompts):
        raise NeuroglotError("there are no prompts.")
    if isinstance(prompts, ParallelTask):
        texts, names = by_prompt(prompts, "prompts"), prompt_names(prompts)
    else:
        texts, names = list(prompts), [f"prompt {i}" for i in range(len(prompts))]
    if target is None and score == "contribution":
        named = zip(tokenize(model, texts, names), names, strict=True)
        return NO_TARGET, [Target(ids, 0, name=name) for ids, name in named]
    if not (target is None or isinstance(target, str)):
        if not isinstance(target, Sequence | np.ndarray):
            raise NeuroglotError(f"target={target!r}: expected one token id for each prompt.")
        if isinstance(prompts, ParallelTask):
            raise NeuroglotError("a task takes the name of a target, not token ids.")
        return GIVEN, given(model, texts, names, [*target])
    if isinstance(prompts, ParallelTask):
        target_name = check_target(prompts, target)
        return target_name, require_targets(prompts, targets_of(model, prompts, target_name))
    if target not in (None, "prediction"):
        unknown = f"unknown target {target!r}; there are {listed(TARGETS)}."
        needs = f"target {target!r} needs a task, whose items have answers; texts take token ids."
        raise NeuroglotError(needs if target in TARGETS else unknown)
    return "prediction", predicted(model, texts, names)


def target_coordinates(
    model: Model,
    prompts: Sequence[str] | ParallelTask,
    targets: Sequence[Target],
    *,
    named: bool = True,
) -> dict[str, Any]:
    """Coordinates of a result that describe each prompt and its target.

    Args:
        model: the model that was scored.
        prompts: texts or a task.
        targets: the target of each prompt.
        named: whether the targets have a meaning; a contribution has none.
    """

    def text(token: int | None) -> str:
        return "" if token is None else token_names(model.tokenizer, [token])[0]

    coordinates: dict[str, Any] = {
        "token": ("prompt", [text(t.token if named else None) for t in targets]),
        "against": ("prompt", [text(t.against) for t in targets]),
        "fed": ("prompt", [t.n_fed for t in targets]),
    }
    if isinstance(prompts, ParallelTask):
        items, languages = zip(*prompt_keys(prompts), strict=True)
        coordinates |= {"item": ("prompt", list(items)), "language": ("prompt", list(languages))}
    return coordinates
