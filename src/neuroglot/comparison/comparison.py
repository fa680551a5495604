"""The same task on two models, or on a series of checkpoints: what has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr

from neuroglot.answering.differences import check_bound, corrected, difference, difference_interval
from neuroglot.answering.observations import (
    SAME,
    Observed,
    Samples,
    column,
    said_of_samples,
    samples_of,
)
from neuroglot.comparison.association import Slope, correctness_on_sharing, rank_correlation
from neuroglot.comparison.runs import ComparedRun, Source, opened_runs, places_along
from neuroglot.defaults import EQUIVALENT_WITHIN
from neuroglot.errors import NeuroglotError, is_whole_number
from neuroglot.recording.recording import Recording
from neuroglot.sharing.categories import OF_A_TASK, compare_tasks, shared_of_active
from neuroglot.sharing.flow import are_related, category_flow
from neuroglot.store.joining import said_of
from neuroglot.store.provenance import versions

KIND = "comparison"
ENDS = ("", "_low", "_high")
OF_ITEMS = ["relation", "subject", SAME]  # coordinates
OF_SLOPE = ("odds_ratio", "odds_ratio_low", "odds_ratio_high", "odds_ratio_p",
            "odds_ratio_prompts", "odds_ratio_reason")  # fmt: skip
Values = np.ndarray[Any, Any]


def compare(
    runs: Mapping[str, Source] | Sequence[str | Path] | Sequence[Recording],
    *,
    x: str | None = None,
    threshold: float = 0.0,
    lineage: bool = False,
    unrelated: bool = False,
    equivalent_within: float = EQUIVALENT_WITHIN,
    seed: int = 0,
) -> xr.Dataset:
    """Compare runs of one task: a model before and after training, or a series of checkpoints.

    The models may differ in their weights, and in nothing else. Recordings of one model on several
    tasks are compared as :func:`neuroglot.sharing.categories.compare_tasks` says; only
    ``threshold`` then matters.

    Changes are those against the first run, with 95 % intervals by exchanges of whole subjects
    between the two runs. There are none of these with fewer than ten subjects. Prompts that are
    equal in all runs count once.

    Args:
        runs: folders that ``neuroglot run`` wrote, or those in ``runs`` of an alignment; or
            ``{name: folder}``, or ``{name: (recording, answers)}``. Or recordings of one model, one
            for each of several tasks.
        x: what the runs are a series of, such as ``"step"``; they are then ordered by the number
            in their names, which becomes a coordinate.
        threshold: a neuron is active where its site value was greater.
        lineage: vouch for all models continuing one checkpoint; see
            :func:`neuroglot.category_flow`.
        unrelated: compare models that differ in more than their weights: in configuration,
            tokenizer, number type, chat template, or tokens of the prompts. What the difference
            between two levels is due to is then open.
        equivalent_within: the bounds of equivalence, which are to be chosen beforehand: an accuracy
            that changes by less than this, either way, counts as the same.
        seed: of the exchanges.

    Returns:
        A dataset with

        - ``fraction`` and ``fraction_if_items_shuffled`` (run, category) over all layers, and,
          where all models have the same layers, ``layer_fraction`` (run, layer, category);
        - ``shared_of_active`` and ``accuracy`` (run, language), ``accuracy_overall`` (run);
        - of each of these but the baseline, ``…_change`` with ``…_change_low`` and
          ``…_change_high``, and ``…_change_low_over_relations`` and
          ``…_change_high_over_relations``, the wider claim, if all items have a relation and there
          are at least ten;
        - ``accuracy_p``, ``accuracy_p_holm`` (run, language): of the change, by exchanges of whole
          subjects (the mid-p McNemar test where each has one prompt of the language), and
          corrected over all (Holm 1979); ``accuracy_p_equivalent`` and
          ``accuracy_p_equivalent_holm``, of a change beyond ``equivalent_within``;
          ``accuracy_subjects``, how many there are, and ``accuracy_sufficient_subjects``; and
          ``accuracy_verdict``: see :func:`neuroglot.effects`; the same of ``accuracy_overall``
          (run);
        - ``odds_ratio`` (run) with ends, ``_p``, ``_prompts`` and ``_reason``: of a right answer,
          for ten percentage points more of a prompt's active neurons being all-shared; logistic
          regression with the language as covariate, clustered by subject;
          ``_prompts`` counts equal ones once;
        - ``spearman`` and ``spearman_of_changes`` (run) with ends: of ``shared_of_active`` and
          ``accuracy`` over languages;
        - ``flow`` (run, layer, category, category_after) from the first run, where all models
          continue one checkpoint.

        The attribute ``observations`` says which prompts repeat others.

    Raises:
        NeuroglotError: runs of different tasks, items, languages, templates, thresholds, sites or
            positions, or answered in different ways, or of models that differ in more than their
            weights; it says which differs.
    """
    if not is_whole_number(seed, 0):
        raise NeuroglotError(f"seed={seed!r}: expected a whole number from 0.")
    bound = check_bound(equivalent_within)
    if not isinstance(runs, Mapping) and any(isinstance(run, Recording) for run in runs):
        return compare_tasks(cast("Sequence[Recording]", runs), threshold=threshold)
    named = cast("Mapping[str, Source] | Sequence[str | Path]", runs)
    found = opened_runs(named, threshold, unrelated=unrelated)
    if x is not None:
        places = places_along(x, [run.name for run in found])
        order = np.argsort(places, kind="stable")
        found = [found[i] for i in order]
    names = [run.name for run in found]
    models = [str(run.recording.attrs["model"]) for run in found]
    samples = samples_of(*(run.answers for run in found))
    parts = [_sharing(found, samples, seed), _answers(found, samples, bound, seed)]
    parts.append(_association(found, samples))
    first = found[0].recording
    if lineage or all(are_related(first, run.recording) for run in found):
        parts.append(_flow(found, threshold))
    data = xr.merge(parts).assign_coords(run=names, model=("run", models))
    if x is not None:
        if not x.strip() or x in data.variables or x in data.dims:
            raise NeuroglotError(f"x={x!r}: the result needs that name; choose another, as 'step'.")
        data = data.assign_coords({x: ("run", places[order])})
    attrs = _provenance(found, x, threshold, seed, unrelated=unrelated)
    return data.assign_attrs(attrs, equivalent_within=bound)


def _provenance(
    runs: list[ComparedRun], x: str | None, threshold: float, seed: int, *, unrelated: bool
) -> dict[str, Any]:
    first = runs[0].recording.attrs
    kept = ("task", *OF_A_TASK, "site", "position")
    return {
        "kind": KIND,
        **{key: first.get(key, "") for key in kept},
        "added_tokens": said_of(first, "added_tokens"),
        "model": ", ".join(str(run.recording.attrs["model"]) for run in runs),
        "model_weights": ", ".join(str(run.recording.attrs["model_weights"]) for run in runs),
        "x": x or "",
        "threshold": threshold,
        "seed": seed,
        "unrelated": int(unrelated),
        "observations": _said(runs),
        **versions(),
    }


def _said(runs: list[ComparedRun]) -> str:
    """Which prompts repeat others; of a run that does not say it, if there is one."""
    answers = [run.answers for run in runs]
    one = next((x for x in answers if SAME not in x.coords), answers[0])
    return " ".join(said_of_samples(one, one["counted"]))


def _changes(name: str, values: xr.DataArray, samples: Samples, seed: int) -> dict[str, Any]:
    """Means over observations of ``values`` (run, item, …), and their changes from the first run.

    Values with a language are of prompts, others of items, whose prompts are then looked at whole.
    """
    by_language = "language" in values.dims
    samples = samples if by_language else samples.of_items()
    ordered = values.transpose("run", ..., "item")
    levels = ordered.to_numpy()
    rows = np.full((*levels.shape[:-1], 6), np.nan)
    for place in np.ndindex(*levels.shape[:-1]):
        j = place[-1] if by_language else 0
        change = _observed(levels[place] - levels[(0, *place[1:])], samples, j)
        change_of = change.estimate(seed, difference_interval)
        found = change_of if place[0] else (change.mean, *[np.nan] * 4)
        rows[place] = (_observed(levels[place], samples, j).mean, *found)
    dims = ordered.dims[:-1]
    coords = {dim: ordered[dim] for dim in dims if dim in ordered.coords}
    names = (name, *(f"{name}_change{end}" for end in samples.ends))
    return {
        name: xr.DataArray(rows[..., k], dims=dims, coords=coords) for k, name in enumerate(names)
    }


def _observed(values: Values, samples: Samples, j: int) -> Observed:
    """Observations of the values of items (item,) in one column of theirs; NaN is left out."""
    whole = np.full(samples.same.shape, np.nan)
    whole[:, j] = values
    return samples.observed(whole, ~np.isnan(whole))


def _sharing(runs: list[ComparedRun], samples: Samples, seed: int) -> xr.Dataset:
    shuffled = [run.sharing["fraction_if_items_shuffled"].mean("layer") for run in runs]
    overall = xr.concat([run.sharing["fraction"].mean("layer") for run in runs], dim="run")
    shared = xr.concat([shared_of_active(run.sharing) for run in runs], dim="run")
    found = _changes("fraction", overall.transpose("run", "item", "category"), samples, seed)
    shared = shared.transpose("run", "item", "language")
    found |= _changes("shared_of_active", shared, samples, seed)
    if len({run.recording.layers for run in runs}) == 1:
        layers = xr.concat([run.sharing["fraction"] for run in runs], dim="run")
        layers = layers.transpose("run", "item", "layer", "category")
        found |= _changes("layer_fraction", layers, samples, seed)
    data = xr.Dataset(found).assign(fraction_if_items_shuffled=xr.concat(shuffled, dim="run"))
    return data.drop_attrs()


def _answers(runs: list[ComparedRun], samples: Samples, bound: float, seed: int) -> xr.Dataset:
    bare = [
        run.answers["correct"].astype(float).drop_vars(OF_ITEMS, errors="ignore") for run in runs
    ]
    right = xr.concat(bare, dim="run").transpose("run", "item", "language")
    counted = runs[0].answers["counted"].astype(bool).drop_vars(OF_ITEMS, errors="ignore")
    found = _changes("accuracy", right.where(counted), samples, seed)
    values, kept = right.to_numpy(), counted.transpose("item", "language").to_numpy()
    tests = _Tests(values, samples, bound, seed)
    by_language = [column(kept, j) for j in range(kept.shape[1])]
    found |= tests.of("accuracy", ("run", "language"), by_language)
    found |= _overall(values, kept, samples, seed)
    found |= tests.of("accuracy_overall", ("run",), [kept])
    return xr.Dataset(found).drop_attrs()


@dataclass(frozen=True)
class _Tests:
    """Tests of the changes of accuracy from the first run, and what they let one say.

    Attributes:
        right: whether answers were right (run, item, language).
        samples: which prompts are one observation, and which items no independent samples.
        bound: of equivalence.
        seed: of the exchanges.
    """

    right: Values
    samples: Samples
    bound: float
    seed: int

    def of(self, name: str, dims: tuple[str, ...], parts: Sequence[Values]) -> dict[str, Any]:
        """What is said of an accuracy.

        Args:
            name: of the accuracy.
            dims: the runs, and the parts unless there is one.
            parts: the prompts (item, language) of each part.
        """
        rows = np.full((len(self.right), len(parts), 4), np.nan)
        for i, j in np.ndindex(*rows.shape[:2]):
            if i:
                one, first = (self.samples.observed(self.right[k], parts[j]) for k in (i, 0))
                arms = np.stack([one.numbers, first.numbers])
                found = difference(arms, one.subjects, self.bound, self.seed)
                n_subjects = len(np.unique(one.subjects))
                rows[i, j] = found.p, found.p_equivalent, found.variance, n_subjects
        shape = rows.shape[: len(dims)]
        p, p_equivalent, variance, there = (rows[..., k].reshape(shape) for k in range(4))
        told = corrected(p, p_equivalent, variance, self.bound)
        told["verdict"][0] = ""
        told |= {"p": p, "p_equivalent": p_equivalent, "subjects": there}
        return {f"{name}_{key}": (dims, values) for key, values in told.items()}


def _overall(right: Values, kept: Values, samples: Samples, seed: int) -> dict[str, Any]:
    """Accuracy over all languages (run,), and its changes."""
    rows = []
    for values in right:
        change = samples.observed(values - right[0], kept)
        found = change.estimate(seed, difference_interval)
        rows.append((samples.observed(values, kept).mean, *found))
    names = ("accuracy_overall", *(f"accuracy_overall_change{end}" for end in samples.ends))
    return {name: ("run", [row[k] for row in rows]) for k, name in enumerate(names)}


def _association(runs: list[ComparedRun], samples: Samples) -> xr.Dataset:
    """Of right answers and sharing, in each run, and of their changes."""
    counted = runs[0].answers["counted"].to_numpy().astype(bool)
    slopes, ranks = [], []
    before: tuple[Values, Values] | None = None
    for run in runs:
        shared = shared_of_active(run.sharing).transpose("item", "language").to_numpy()
        right = run.answers["correct"].to_numpy().astype(float)
        slopes.append(astuple(correctness_on_sharing(right, shared, counted, samples)))
        every = np.ones_like(counted)
        here = _means(shared, every, samples), _means(right, counted, samples)
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


def _means(values: Values, counted: Values, samples: Samples) -> Values:
    """By language, of what counts; NaN is left out."""
    known = counted & ~np.isnan(values)
    return np.array(
        [samples.observed(values, column(known, j)).mean for j in range(values.shape[1])]
    )


def _flow(runs: list[ComparedRun], threshold: float) -> xr.Dataset:
    """From the first run to each; that neurons are the same was settled before."""
    first = runs[0].recording
    flows = [category_flow(first, run.recording, threshold=threshold, lineage=True) for run in runs]
    flow = xr.concat(flows, dim="run")
    dims = ("run", "layer", "category", "category_after")
    return xr.Dataset({"flow": flow.transpose(*dims)}).drop_attrs()
