"""Does attribution agree with causation? Scores beside what zeroing a neuron does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
KEPT = (*PROMPT_DIMS, "score", "neuron")  # coordinates of a result that goes on
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
    """How well each score ranks neurons by what zeroing them does.

    In every layer the same random neurons are set to zero, one at a time, at the token from which
    the target is predicted. The effect of a neuron is what that takes off the log-probability of
    the target (less that of what it stands against). Scores and effects of one prompt and layer are
    compared by Spearman's rank correlation, which is then averaged over prompts; equal ones (the
    same tokens up to the target) count once.

    Every neuron runs by itself, so take some tens of items.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        task: all its prompts are taken.
        scores: see :func:`neuroglot.neuron_scores`.
        target: see :func:`neuroglot.neuron_scores`.
        n_neurons: how many of a layer; at most all.
        seed: of the sample, and of the bootstrap.
        out: folder to save the result in. An unfinished one of the same settings there goes on
            where it stopped; a finished one is opened.
        overwrite: replace what ``out`` holds.

    Returns:
        - ``agreement`` (score, layer): the mean over prompts of Spearman's correlation between
          scores and effects, with ``…_low`` and ``…_high`` (95 % bootstrap over subjects, for these
          neurons: what other seeds would give is not in it; NaN with fewer than ten subjects), and
          ``…_low_over_relations`` and ``…_high_over_relations``, if all items have a relation and
          there are at least ten;
        - ``size_agreement``, …: the same between their absolute values. A contribution has no
          sign, so only this says something of it;
        - ``effect`` (item, language, layer, sample) in nats, and ``value`` (score, item, language,
          layer, sample) of the sampled neurons, whose numbers are ``neuron`` (layer, sample);
        - the coordinates ``subject`` and ``relation`` (item) and ``same_tokens_as`` (item,
          language): the index of the first item whose prompt is the same tokens.

    Raises:
        NeuroglotError: bad settings, a model in half precision (where most effects are rounded to
            nothing), a score that is not defined for the model, or an ``out`` that holds something
            else.
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
    zeroing = _Zeroing(model, weights_for(model, scores), scores, sample)
    attrs = {
        "kind": KIND,
        **provenance(model, task),
        "target": name,
        "seed": seed,
    }
    head = _head(task, targets, scores, sample).assign_attrs(attrs)
    n = len(task.languages)

    def make(block: slice, done: Callable[[int], object]) -> xr.Dataset:
        return zeroing.of(targets[block.start * n : block.stop * n], n, done)

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


@dataclass(frozen=True)
class _Zeroing:
    """What is set to zero, and held against what."""

    model: Model
    weights: Weights
    scores: Sequence[str]
    sample: Tensor

    def of(
        self, targets: Sequence[Target], n_languages: int, done: Callable[[int], object]
    ) -> xr.Dataset:
        """Effects and scores of the sampled neurons, for the prompts of some items."""
        model, shape = self.model, self.sample.shape
        effect = torch.empty((len(targets), *shape), dtype=torch.float32)
        value = torch.empty((len(targets), len(self.scores), *shape), dtype=torch.float32)
        # Every prompt's last token runs once for each sampled neuron of a layer.
        costs = [cost_of_last(model, len(of.ids), shape[1]) for of in targets]
        for rows in batches(model, by_length(costs), costs):
            some = [targets[row] for row in rows]
            effect[rows] = _effects(model, some, self.sample).cpu()
            value[rows] = _sampled(model, self.weights, some, self.scores, self.sample)
            done(len(rows))
        require_finite(model, effect, value)
        by_item = (-1, n_languages, *shape)
        values = value.transpose(0, 1).reshape(len(self.scores), *by_item)
        return xr.Dataset(
            {
                "effect": ((*PROMPT_DIMS, "sample"), effect.reshape(by_item).numpy()),
                "value": (("score", *PROMPT_DIMS, "sample"), values.numpy()),
            }
        )


def _head(
    task: ParallelTask, targets: Sequence[Target], scores: Sequence[str], sample: Tensor
) -> xr.Dataset:
    """Which prompts, scores and neurons there are."""
    return xr.Dataset(
        coords={
            "item": [item["id"] for item in task.items],
            "language": list(task.languages),
            "layer": range(len(sample)),
            "score": list(scores),
            "neuron": (("layer", "sample"), sample.cpu().numpy()),
            **_observations(task, targets),
        },
    )


def _observations(task: ParallelTask, targets: Sequence[Target]) -> dict[str, Any]:
    """Coordinates that say what of the prompts is one observation, and what hangs together."""
    n = len(task.languages)
    ids = [tuple(of.ids) for of in targets]
    same = first_equal([ids[start : start + n] for start in range(0, len(ids), n)])
    return {
        "subject": ("item", [subject_of(item) for item in task.items]),
        "relation": ("item", [str(item["relation"] or "") for item in task.items]),
        SAME: (("item", "language"), same),
    }


def _sample(model: Model, n: int, seed: int) -> Tensor:
    """Random neurons (layer, sample), ascending, each once."""
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(model.n_neurons, n, replace=False) for _ in range(model.n_layers)]
    return torch.from_numpy(np.sort(np.stack(drawn), axis=1)).to(model.device)


@torch.inference_mode()
def _effects(model: Model, targets: Sequence[Target], sample: Tensor) -> Tensor:
    """What zeroing each sampled neuron takes off the target (prompt, layer, sample), in nats."""
    tokens = last_tokens(model, targets)
    every = torch.arange(len(targets), device=model.device)
    whole = target_value(tokens.logits(), targets, every)
    rows = every.repeat_interleave(sample.shape[1])
    found = []
    for layer, neurons in enumerate(sample):
        zeroed = neurons.repeat(len(targets))

        def without(
            this: int, values: Tensor, layer: int = layer, zeroed: Tensor = zeroed
        ) -> Tensor:
            if this != layer:
                return values
            values = values.clone()
            at = torch.arange(len(values), device=values.device)
            values[at, -1, zeroed.to(values.device)] = 0
            return values

        with model.units().editing(without):
            left = target_value(tokens.logits(rows), targets, rows)
        found.append(whole[:, None] - left.reshape(len(targets), -1))
    return torch.stack(found, dim=1)


def _sampled(
    model: Model,
    weights: Weights,
    targets: Sequence[Target],
    scores: Sequence[str],
    sample: Tensor,
) -> Tensor:
    """Scores of the sampled neurons (prompt, score, layer, sample)."""
    found = torch.empty((len(targets), len(scores), *sample.shape), dtype=torch.float32)
    for rows, values in score_batches(model, weights, targets, scores):
        index = sample.expand(*values.shape[:2], *sample.shape)
        found[rows] = values.gather(-1, index).cpu()
    return found


def _agreement(by_prompt: xr.Dataset, seed: int) -> dict[str, xr.DataArray]:
    """Mean rank correlation (score, layer) of scores and effects, and of their sizes."""
    samples, found = samples_of(by_prompt), {}
    coords = {name: by_prompt[name] for name in ("score", "layer")}
    for prefix in ("", "size_"):
        effect, value = by_prompt["effect"], by_prompt["value"]
        if prefix:
            effect, value = abs(effect), abs(value)
        correlation = _rank_correlation(value.values, effect.values)
        of_prompts = correlation.transpose("score", "layer", "item", "language").to_numpy()
        rows = np.full((*of_prompts.shape[:2], 5), np.nan)
        for place in np.ndindex(*of_prompts.shape[:2]):
            one = of_prompts[place]
            rows[place] = samples.observed(one, ~np.isnan(one)).estimate(seed)
        for k, end in enumerate(samples.ends):
            found[f"{prefix}agreement{end}"] = xr.DataArray(
                rows[..., k], dims=("score", "layer"), coords=coords
            )
    return found


def _rank_correlation(value: np.ndarray[Any, Any], effect: np.ndarray[Any, Any]) -> xr.DataArray:
    """Spearman's correlation over the last axis (score, item, language, layer).

    NaN where all scores or all effects are equal, as in a layer of neurons that never fire.
    """
    with np.errstate(invalid="ignore"):
        ranks = [stats.rankdata(x, axis=-1) for x in np.broadcast_arrays(value, effect)]
        one, two = (x - x.mean(axis=-1, keepdims=True) for x in ranks)
        size = np.sqrt((one**2).sum(axis=-1) * (two**2).sum(axis=-1))
        found = (one * two).sum(axis=-1) / size
    return xr.DataArray(found, dims=("score", *PROMPT_DIMS))
