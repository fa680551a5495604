"""The same task on two models, or on a series of checkpoints: what has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.analysis.flow import are_related, category_flow
from neuroglot.analysis.sharing import OF_A_TASK, shared_of_active
from neuroglot.errors import NeuroglotError, is_whole_number
from neuroglot.experiments.association import Slope, correctness_on_sharing, rank_correlation
from neuroglot.experiments.runs import ComparedRun, Source, opened_runs, places_along
from neuroglot.experiments.statistics import clustered_interval, holm, mcnemar_p
from neuroglot.provenance import versions
from neuroglot.recording.matching import said_of

UNIT = "comparison"
ENDS = ("", "_low", "_high")
OF_SLOPE = ("odds_ratio", "odds_ratio_low", "odds_ratio_high", "odds_ratio_p",
            "odds_ratio_prompts", "odds_ratio_reason")  # fmt: skip
Values = np.ndarray[Any, Any]


def compare(
    runs: Mapping[str, Source] | Sequence[str | Path],
    x: str | None = None,
    *,
    threshold: float = 0.0,
    lineage: bool = False,
    unrelated: bool = False,
    seed: int = 0,
) -> xr.Dataset:
    """Compare runs of one task: a model before and after training, or a series of checkpoints.

    The models may differ in their weights, and in nothing else.

    Changes are those against the first run, with 95 % bootstrap intervals over subjects. There is
    nothing of it with fewer than ten subjects.

    Args:
        runs: folders that ``neuroglot run`` wrote, or those in ``runs`` of an alignment; or
            ``{name: folder}``, or ``{name: (recording, answers)}``.
        x: what the runs are a series of, such as ``"step"``; they are then ordered by the number
            in their names, which becomes a coordinate.
        threshold: a neuron is active where its site value was greater.
        lineage: vouch for all models continuing one checkpoint; see
            :func:`neuroglot.category_flow`.
        unrelated: compare models that differ in more than their weights: in configuration,
            tokenizer, number type, chat template, or tokens of the prompts. What the difference
            between two levels is due to is then open.
        seed: of the bootstrap.

    Returns:
        A dataset with

        - ``fraction`` and ``fraction_if_items_shuffled`` (run, category) over all layers, and,
          where all models have the same layers, ``layer_fraction`` (run, layer, category);
        - ``shared_of_active`` and ``accuracy`` (run, language), ``accuracy_overall`` (run);
        - of each of these but the baseline, ``…_change`` with ``…_change_low`` and
          ``…_change_high``;
        - ``accuracy_p``, ``accuracy_p_holm`` (run, language): exact McNemar against the first run,
          which takes items for independent, and corrected over all (Holm 1979);
        - ``odds_ratio`` (run) with ends, ``_p``, ``_prompts`` and ``_reason``: of a right answer,
          for ten percentage points more of a prompt's active neurons being all-shared; logistic
          regression with the language as covariate, clustered by subject;
        - ``spearman`` and ``spearman_of_changes`` (run) with ends: of ``shared_of_active`` and
          ``accuracy`` over languages;
        - ``flow`` (run, layer, category, category_after) from the first run, where all models
          continue one checkpoint.

    Raises:
        NeuroglotError: runs of different tasks, items, languages, templates, thresholds, sites or
            positions, or answered in different ways, or of models that differ in more than their
            weights; it says which differs.
    """
    if not is_whole_number(seed, 0):
        raise NeuroglotError(f"seed={seed!r}: expected a whole number from 0.")
    found = opened_runs(runs, threshold, unrelated=unrelated)
    if x is not None:
        places = places_along(x, [run.name for run in found])
        order = np.argsort(places, kind="stable")
        found = [found[i] for i in order]
    names = [run.name for run in found]
    models = [str(run.recording.attrs["model"]) for run in found]
    parts = [_sharing(found, seed), _answers(found, seed), _association(found)]
    first = found[0].recording
    if lineage or all(are_related(first, run.recording) for run in found):
        parts.append(_flow(found, threshold))
    data = xr.merge(parts).assign_coords(run=names, model=("run", models))
    if x is not None:
        if not x.strip() or x in data.variables or x in data.dims:
            raise NeuroglotError(f"x={x!r}: the result needs that name; choose another, as 'step'.")
        data = data.assign_coords({x: ("run", places[order])})
    return data.assign_attrs(_provenance(found, x, threshold, seed, unrelated=unrelated))


def _provenance(
    runs: list[ComparedRun], x: str | None, threshold: float, seed: int, *, unrelated: bool
) -> dict[str, Any]:
    first = runs[0].recording.attrs
    kept = ("task", *OF_A_TASK, "site", "position")
    return {
        "unit": UNIT,
        **{key: first.get(key, "") for key in kept},
        "added_tokens": said_of(first, "added_tokens"),
        "model": ", ".join(str(run.recording.attrs["model"]) for run in runs),
        "model_weights": ", ".join(str(run.recording.attrs["model_weights"]) for run in runs),
        "x": x or "",
        "threshold": threshold,
        "seed": seed,
        "unrelated": int(unrelated),
        **versions(),
    }


def _subjects(run: ComparedRun) -> Values:
    """What the items are about; results of before there were subjects have items only."""
    name = "subject" if "subject" in run.answers.coords else "item"
    return run.answers[name].to_numpy().astype(str)


def _changes(name: str, values: xr.DataArray, subjects: Values, seed: int) -> dict[str, Any]:
    """Means over items of ``values`` (run, item, …), and their changes from the first run."""
    differences = (values - values.isel(run=0)).transpose("run", ..., "item").to_numpy()
    ends = np.full((2, *differences.shape[:-1]), np.nan)
    for place in np.ndindex(*differences.shape[:-1]):
        known = ~np.isnan(differences[place])
        if place[0] and known.any():
            ends[(slice(None), *place)] = clustered_interval(
                differences[place][known], subjects[known], seed
            )
    dims = tuple(dim for dim in values.dims if dim != "item")
    change = (values - values.isel(run=0)).mean("item")
    return {
        name: values.mean("item"),
        f"{name}_change": change,
        f"{name}_change_low": (dims, ends[0]),
        f"{name}_change_high": (dims, ends[1]),
    }


def _sharing(runs: list[ComparedRun], seed: int) -> xr.Dataset:
    subjects = _subjects(runs[0])
    shuffled = [run.sharing["fraction_if_items_shuffled"].mean("layer") for run in runs]
    overall = xr.concat([run.sharing["fraction"].mean("layer") for run in runs], dim="run")
    shared = xr.concat([shared_of_active(run.sharing) for run in runs], dim="run")
    found = _changes("fraction", overall.transpose("run", "item", "category"), subjects, seed)
    shared = shared.transpose("run", "item", "language")
    found |= _changes("shared_of_active", shared, subjects, seed)
    if len({run.recording.layers for run in runs}) == 1:
        layers = xr.concat([run.sharing["fraction"] for run in runs], dim="run")
        layers = layers.transpose("run", "item", "layer", "category")
        found |= _changes("layer_fraction", layers, subjects, seed)
    data = xr.Dataset(found).assign(fraction_if_items_shuffled=xr.concat(shuffled, dim="run"))
    return data.drop_attrs()


def _answers(runs: list[ComparedRun], seed: int) -> xr.Dataset:
    subjects = _subjects(runs[0])
    right = xr.concat([run.answers["correct"].astype(float) for run in runs], dim="run")
    counted = runs[0].answers["counted"].astype(bool)
    known = right.where(counted).drop_vars(["relation", "subject"], errors="ignore")
    found = _changes("accuracy", known.transpose("run", "item", "language"), subjects, seed)
    p = np.full((len(runs), counted.sizes["language"]), np.nan)
    for i, j in np.ndindex(*p.shape):
        if i:
            kept = counted.to_numpy()[:, j]
            p[i, j] = mcnemar_p(right.to_numpy()[0, kept, j], right.to_numpy()[i, kept, j])
    overall = _overall(known.to_numpy(), subjects, seed)
    dims = ("run", "language")
    data = xr.Dataset(found | {"accuracy_p": (dims, p), "accuracy_p_holm": (dims, holm(p))})
    return data.assign(overall).drop_attrs()


def _overall(right: Values, subjects: Values, seed: int) -> dict[str, Any]:
    """Accuracy over all languages (run,), and its changes."""
    of_prompt = np.broadcast_to(subjects[:, None], right.shape[1:])
    rows = []
    for values in right:
        known = ~np.isnan(values)
        difference = (values - right[0])[known]
        interval = clustered_interval(difference, of_prompt[known], seed)
        rows.append((values[known].mean(), difference.mean(), *interval))
    names = ("accuracy_overall", *(f"accuracy_overall_change{end}" for end in ENDS))
    return {name: ("run", [row[k] for row in rows]) for k, name in enumerate(names)}


def _association(runs: list[ComparedRun]) -> xr.Dataset:
    """Of right answers and sharing, in each run, and of their changes."""
    subjects = _subjects(runs[0])
    counted = runs[0].answers["counted"].to_numpy().astype(bool)
    slopes, ranks = [], []
    before: tuple[Values, Values] | None = None
    for run in runs:
        shared = shared_of_active(run.sharing).transpose("item", "language").to_numpy()
        right = run.answers["correct"].to_numpy().astype(float)
        slopes.append(astuple(correctness_on_sharing(right, shared, counted, subjects)))
        here = _mean(shared, np.ones_like(counted)), _mean(right, counted)
        before = here if before is None else before
        level = rank_correlation(*here)
        change = rank_correlation(here[0] - before[0], here[1] - before[1])
        ranks.append((level[0], *level[1], change[0], *change[1]))
    assert len(fields(Slope)) == len(OF_SLOPE)
    found = {name: ("run", [row[k] for row in slopes]) for k, name in enumerate(OF_SLOPE)}
    names = [f"{name}{end}" for name in ("spearman", "spearman_of_changes") for end in ENDS]
    return xr.Dataset(
        found | {name: ("run", [row[k] for row in ranks]) for k, name in enumerate(names)}
    )


def _mean(values: Values, counted: Values) -> Values:
    """By language, of what counts; NaN is left out."""
    known = counted & ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        means: Values = np.where(known, values, 0).sum(axis=0) / known.sum(axis=0)
    return means


def _flow(runs: list[ComparedRun], threshold: float) -> xr.Dataset:
    """From the first run to each; that neurons are the same was settled before."""
    first = runs[0].recording
    flows = [category_flow(first, run.recording, threshold=threshold, lineage=True) for run in runs]
    flow = xr.concat(flows, dim="run")
    dims = ("run", "layer", "category", "category_after")
    return xr.Dataset({"flow": flow.transpose(*dims)}).drop_attrs()
