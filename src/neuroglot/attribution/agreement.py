"""How well attribution agrees with causation: scores beside the effects of zeroing neurons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy import stats
from torch import Tensor

from neuroglot.answering.observations import SAME, samples_of
from neuroglot.attribution.direct import Weights, require_finite, weights_for
from neuroglot.attribution.gradients import target_value
from neuroglot.attribution.last_token import cost_of_last
from neuroglot.attribution.neuron_scores import check_scores, score_batches
from neuroglot.attribution.targets import (
    Target,
    check_target,
    last_tokens,
    require_targets,
    targets_of,
)
from neuroglot.defaults import TESTED_NEURONS
from neuroglot.errors import NeuroglotError, is_whole_number
from neuroglot.models.model import Model
from neuroglot.models.operations import operation
from neuroglot.running.batching import batches, by_length
from neuroglot.store.folders import as_path
from neuroglot.store.growing import InMemory, grow, in_folder, is_whole
from neuroglot.store.joining import require_steady_prompts
from neuroglot.store.provenance import provenance
from neuroglot.store.results import open_dataset, opened_dataset
from neuroglot.tasks.equal_prompts import first_equal
from neuroglot.tasks.halves import subject_of
from neuroglot.tasks.parallel import ParallelTask

KIND = "causal agreement"
EXACT_ENOUGH = (torch.float32, torch.float64)
PROMPT_DIMS = ("item", "language", "layer")
KEPT = (*PROMPT_DIMS, "score", "neuron")  # coordinates that must agree to continue a result
ITEMS_AT_ONCE = 4  # items that are written together, and lost together when a run is killed


@operation
def causal_agreement(
    model: Model,
    task: ParallelTask,
    *,
    scores: Sequence[str] = ("contribution", "effective", "direct_logit", "gradient_x_activation"),
    target: str | None = None,
    n_neurons: int = TESTED_NEURONS,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """How well each score ranks neurons by the effect of zeroing them.

    In every layer, a random sample of neurons is set to zero, one neuron at a time, at the token
    from which the target is predicted. The effect of a neuron is the resulting decrease of the
    target's log-probability (minus that of the token it is compared with). Scores and effects of
    one prompt and layer are compared by Spearman's rank correlation, which is then averaged over
    prompts; prompts with the same tokens up to the target count once.

    Each neuron needs a run of its own, so a few dozen items are a reasonable number.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        task: the task whose prompts are run.
        scores: see :func:`neuroglot.neuron_scores`.
        target: see :func:`neuroglot.neuron_scores`.
        n_neurons: how many neurons of each layer are sampled; at most all of them.
        seed: seed of the sample and of the bootstrap.
        out: folder to save the result in. An unfinished result with the same settings is continued
            there; a finished one is opened.
        overwrite: whether to replace what ``out`` holds.

    Returns:
        - ``agreement`` (score, layer): Spearman's correlation between scores and effects, averaged
          over prompts, with ``…_low`` and ``…_high``: the 95 % bootstrap interval over subjects,
          for the sampled neurons (it does not cover other seeds; NaN with fewer than ten subjects).
          If all items have a relation, and there are at least ten relations, also
          ``…_low_over_relations`` and ``…_high_over_relations``;
        - ``size_agreement``, …: the same for absolute values. Contributions have no sign, so only
          this variable is informative for them;
        - ``effect`` (item, language, layer, sample) in nats, and ``value`` (score, item, language,
          layer, sample): the scores of the sampled neurons, whose numbers are ``neuron`` (layer,
          sample);
        - the coordinates ``subject`` and ``relation`` (item) and ``same_tokens_as`` (item,
          language): the index of the first item whose prompt has the same tokens.

    Raises:
        NeuroglotError: bad settings, a model in half precision (where most effects are lost in
            rounding), a score that is not defined for the model, or an ``out`` that holds something
            else.

    Examples:
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=2)
        >>> result = ng.causal_agreement(model, task, scores=["direct_logit"], n_neurons=4)
        >>> result["agreement"].dims, result["effect"].shape
        (('score', 'layer'), (2, 2, 6, 4))
        >>> round(result["agreement"].isel(layer=-1).item(), 3)
        0.9
    """
    check_scores(scores)
    if model.hf.dtype not in EXACT_ENOUGH:
        raise NeuroglotError(
            f"in {model.dtype} most effects of single neurons are lost in rounding; load the model "
            "with dtype='float32'."
        )
    if not is_whole_number(n_neurons, 3):
        raise NeuroglotError(f"n_neurons={n_neurons}: a rank correlation needs at least 3.")
    if not is_whole_number(seed, 0):
        raise NeuroglotError(f"seed={seed}: expected a whole number from 0.")
    name = check_target(task, target)
    targets = require_targets(task, targets_of(model, task, name))
    sample = _sample(model, min(n_neurons, model.n_neurons), seed)
    weights = weights_for(model, scores)
    attrs = {"kind": KIND, **provenance(model, task), "target": name, "seed": seed}
    head = _head(task, targets, scores, sample).assign_attrs(attrs)
    n = len(task.languages)

    def make(block: slice, done: Callable[[int], object]) -> xr.Dataset:
        part = targets[block.start * n : block.stop * n]
        return _effects_and_scores(
            model, part, sample, weights=weights, scores=scores, n_languages=n, done=done
        )

    prompts = {"item": n, "total": len(targets)}
    if out is None:
        memory = InMemory(head, ITEMS_AT_ONCE)
        grow(memory, make, "zero neurons", prompts)
        require_steady_prompts(model, task, attrs)
        return memory.data.assign(_agreement(memory.data, seed))
    path = as_path(out)
    if overwrite or not is_whole(path, head, KEPT):
        with in_folder(path, head, ITEMS_AT_ONCE, KEPT, overwrite=overwrite) as folder:
            grow(folder, make, "zero neurons", prompts)
            require_steady_prompts(model, task, attrs)
            folder.finish(xr.Dataset(_agreement(open_dataset(path), seed)))
    return opened_dataset(path)


def _effects_and_scores(
    model: Model,
    targets: Sequence[Target],
    sample: Tensor,
    *,
    weights: Weights,
    scores: Sequence[str],
    n_languages: int,
    done: Callable[[int], object],
) -> xr.Dataset:
    """Effects and scores of the sampled neurons (layer, sample), for the prompts of some items."""
    effect = torch.empty((len(targets), *sample.shape), dtype=torch.float32)
    value = torch.empty((len(targets), len(scores), *sample.shape), dtype=torch.float32)
    # The last token of every prompt runs once for each sampled neuron of a layer.
    costs = [cost_of_last(model, len(target.ids), sample.shape[1]) for target in targets]
    for rows in batches(model, by_length(costs), costs):
        batch = [targets[row] for row in rows]
        effect[rows] = _effects(model, batch, sample).cpu()
        value[rows] = _sampled(model, weights, batch, scores, sample)
        done(len(rows))
    require_finite(model, effect, value)
    by_item = (-1, n_languages, *sample.shape)
    values = value.transpose(0, 1).reshape(len(scores), *by_item)
    return xr.Dataset(
        {
            "effect": ((*PROMPT_DIMS, "sample"), effect.reshape(by_item).numpy()),
            "value": (("score", *PROMPT_DIMS, "sample"), values.numpy()),
        }
    )


def _head(
    task: ParallelTask, targets: Sequence[Target], scores: Sequence[str], sample: Tensor
) -> xr.Dataset:
    """Coordinates of the result: prompts, scores and neurons, without data."""
    n = len(task.languages)
    ids = [tuple(target.ids) for target in targets]
    return xr.Dataset(
        coords={
            "item": [item["id"] for item in task.items],
            "language": list(task.languages),
            "layer": range(len(sample)),
            "score": list(scores),
            "neuron": (("layer", "sample"), sample.cpu().numpy()),
            # These say which prompts are one observation, and which observations are clustered.
            "subject": ("item", [subject_of(item) for item in task.items]),
            "relation": ("item", [str(item["relation"] or "") for item in task.items]),
            SAME: (
                ("item", "language"),
                first_equal([ids[start : start + n] for start in range(0, len(ids), n)]),
            ),
        },
    )


def _sample(model: Model, n: int, seed: int) -> Tensor:
    """Random neurons (layer, sample), drawn without replacement and sorted."""
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(model.n_neurons, n, replace=False) for _ in range(model.n_layers)]
    return torch.from_numpy(np.sort(np.stack(drawn), axis=1)).to(model.device)


@torch.inference_mode()
def _effects(model: Model, targets: Sequence[Target], sample: Tensor) -> Tensor:
    """How much zeroing each sampled neuron lowers the target (prompt, layer, sample), in nats."""
    tokens = last_tokens(model, targets)
    prompts = torch.arange(len(targets), device=model.device)
    unedited = target_value(tokens.logits(), targets, prompts)
    rows = prompts.repeat_interleave(sample.shape[1])
    effects = []
    for layer, neurons in enumerate(sample):
        zeroed = neurons.repeat(len(targets))

        def without(
            this: int, values: Tensor, layer: int = layer, zeroed: Tensor = zeroed
        ) -> Tensor:
            if this != layer:
                return values
            values = values.clone()
            every_row = torch.arange(len(values), device=values.device)
            values[every_row, -1, zeroed.to(values.device)] = 0
            return values

        with model.units().editing(without):
            edited = target_value(tokens.logits(rows), targets, rows)
        effects.append(unedited[:, None] - edited.reshape(len(targets), -1))
    return torch.stack(effects, dim=1)


def _sampled(
    model: Model,
    weights: Weights,
    targets: Sequence[Target],
    scores: Sequence[str],
    sample: Tensor,
) -> Tensor:
    """Scores of the sampled neurons (prompt, score, layer, sample)."""
    sampled = torch.empty((len(targets), len(scores), *sample.shape), dtype=torch.float32)
    for rows, values in score_batches(model, weights, targets, scores):
        index = sample.expand(*values.shape[:2], *sample.shape)
        sampled[rows] = values.gather(-1, index).cpu()
    return sampled


def _agreement(by_prompt: xr.Dataset, seed: int) -> dict[str, xr.DataArray]:
    """Mean rank correlation (score, layer) of scores and effects, and of their absolute values."""
    samples, variables = samples_of(by_prompt), {}
    coords = {name: by_prompt[name] for name in ("score", "layer")}
    value, effect = by_prompt["value"].to_numpy(), by_prompt["effect"].to_numpy()
    for prefix, correlation in (
        ("", _rank_correlation(value, effect)),
        ("size_", _rank_correlation(abs(value), abs(effect))),
    ):
        by_layer = np.moveaxis(correlation, -1, 1)  # (score, layer, item, language)
        estimates = np.full((*by_layer.shape[:2], 5), np.nan)
        for place in np.ndindex(*by_layer.shape[:2]):
            observed = samples.observed(by_layer[place], ~np.isnan(by_layer[place]))
            estimates[place] = observed.estimate(seed)
        for k, end in enumerate(samples.ends):
            variables[f"{prefix}agreement{end}"] = xr.DataArray(
                estimates[..., k], dims=("score", "layer"), coords=coords
            )
    return variables


def _rank_correlation(
    value: np.ndarray[Any, Any], effect: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Spearman's correlation over the last axis (score, item, language, layer).

    It is NaN if all scores or all effects are equal, as in a layer whose neurons never fire.
    """
    ranks = [stats.rankdata(values, axis=-1) for values in np.broadcast_arrays(value, effect)]
    a, b = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):
        correlation: np.ndarray[Any, Any] = (a * b).sum(axis=-1) / np.sqrt(
            (a**2).sum(axis=-1) * (b**2).sum(axis=-1)
        )
    return correlation
