"""Compare runs of one task: of two models, or of a series of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
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
from neuroglot.comparison.association import correctness_on_sharing, rank_correlation
from neuroglot.comparison.runs import ComparedRun, Source, opened_runs, places_along
from neuroglot.defaults import EQUIVALENT_WITHIN
from neuroglot.errors import NeuroglotError, is_whole_number
from neuroglot.recording.recording import Recording
from neuroglot.sharing.categories import OF_A_TASK, compare_tasks, shared_of_active
from neuroglot.sharing.flow import are_related, category_flow
from neuroglot.store.joining import how_read
from neuroglot.store.provenance import versions

KIND = "comparison"
ENDS = ("", "_low", "_high")
OF_ITEMS = ["relation", "subject", SAME]  # coordinates along items
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

    The models may differ in their weights only. Recordings of one model on several tasks are
    compared by :func:`neuroglot.sharing.categories.compare_tasks` instead, which uses only
    ``threshold``.

    Changes are differences to the first run. Their 95 % intervals come from exchanging whole
    subjects between the two runs, and are NaN with fewer than ten subjects. Prompts that are equal
    in all runs count once.

    Args:
        runs: folders that ``neuroglot run`` wrote, or those in the folder ``runs`` of an
            alignment; or ``{name: folder}``, or ``{name: (recording, answers)}``; or recordings of
            one model on several tasks.
        x: the name of a series, such as ``"step"``. The runs are then ordered by the number in
            their names, which becomes a coordinate of this name.
        threshold: a neuron is active if its site value is greater than the threshold.
        lineage: states that all models continue one checkpoint; see
            :func:`neuroglot.category_flow`.
        unrelated: allows models that differ in more than their weights: in configuration,
            tokenizer, number type, chat template, or tokens of the prompts. A difference between
            them can then have many causes.
        equivalent_within: the bound of equivalence, which must be chosen before looking at the
            data: accuracies that differ by less than this count as equal.
        seed: the seed for the exchanges.

    Returns:
        A dataset with

        - ``fraction`` and ``fraction_if_items_shuffled`` (run, category), means over all layers,
          and ``layer_fraction`` (run, layer, category), if all models have the same layers;
        - ``shared_of_active`` and ``accuracy`` (run, language), and ``accuracy_overall`` (run);
        - for each of these but the baseline, ``…_change`` with the interval from ``…_change_low``
          to ``…_change_high``; and, if all items have a relation and there are at least ten
          relations, the wider interval for other relations, from ``…_change_low_over_relations``
          to ``…_change_high_over_relations``;
        - ``accuracy_p`` (run, language), the p-value of the change by exchanges of whole subjects
          (the mid-p McNemar test if each subject has one prompt of the language);
          ``accuracy_p_equivalent``, the p-value of a change beyond ``equivalent_within``; both
          corrected over all runs and languages (Holm 1979) as ``accuracy_p_holm`` and
          ``accuracy_p_equivalent_holm``; ``accuracy_subjects``, the number of subjects;
          ``accuracy_sufficient_subjects`` and ``accuracy_verdict``, as in
          :func:`neuroglot.effects`; and the same for ``accuracy_overall`` (run);
        - ``odds_ratio`` (run), with ``_low``, ``_high``, ``_p``, ``_prompts`` and ``_reason``: the
          odds ratio of a right answer for ten percentage points more of a prompt's active neurons
          being all-shared, by logistic regression with the language as covariate, clustered by
          subject;
        - ``spearman`` and ``spearman_of_changes`` (run), with ``_low`` and ``_high``: the
          correlation of ``shared_of_active`` with ``accuracy`` over languages;
        - ``flow`` (run, layer, category, category_after) from the first run, if all models
          continue one checkpoint.

        The attribute ``observations`` says which prompts repeat others.

    Raises:
        NeuroglotError: the runs differ in task, items, languages, template, thresholds, site,
            position or the way of answering, or their models in more than weights; the message
            says in which.

    Examples:
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> facts = ng.load_task("facts", languages=["en", "de"], limit=4)
        >>> inference = ng.load_task("inference", languages=["en", "de"], limit=4)
        >>> comparison = ng.compare([ng.record(model, task) for task in (facts, inference)])
        >>> comparison["repetition"].dims
        ('task', 'layer', 'category')
    """
    if not is_whole_number(seed, 0):
        raise NeuroglotError(f"seed={seed!r}: expected a whole number from 0.")
    bound = check_bound(equivalent_within)
    if not isinstance(runs, Mapping) and any(isinstance(run, Recording) for run in runs):
        return compare_tasks(cast("Sequence[Recording]", runs), threshold=threshold)
    sources = cast("Mapping[str, Source] | Sequence[str | Path]", runs)
    opened = opened_runs(sources, threshold, unrelated=unrelated)
    if x is not None:
        places = places_along(x, [run.name for run in opened])
        order = np.argsort(places, kind="stable")
        opened = [opened[i] for i in order]
    names = [run.name for run in opened]
    models = [str(run.recording.attrs["model"]) for run in opened]
    samples = samples_of(*(run.answers for run in opened))
    parts = [_sharing(opened, samples, seed), _answers(opened, samples, bound, seed)]
    parts.append(_association(opened, samples))
    if lineage or all(are_related(opened[0].recording, run.recording) for run in opened):
        parts.append(_flow(opened, threshold))
    data = xr.merge(parts).assign_coords(run=names, model=("run", models))
    if x is not None:
        if not x.strip() or x in data.variables or x in data.dims:
            raise NeuroglotError(f"x={x!r}: the result needs that name; choose another, as 'step'.")
        data = data.assign_coords({x: ("run", places[order])})
    attrs = _provenance(opened, x, threshold, seed, unrelated=unrelated)
    return data.assign_attrs(attrs, equivalent_within=bound)


def _provenance(
    runs: list[ComparedRun], x: str | None, threshold: float, seed: int, *, unrelated: bool
) -> dict[str, Any]:
    first = runs[0].recording.attrs
    kept = ("task", *OF_A_TASK)
    return {
        "kind": KIND,
        **{key: first.get(key, "") for key in kept},
        **how_read(first),
        "model": ", ".join(str(run.recording.attrs["model"]) for run in runs),
        "model_weights": ", ".join(str(run.recording.attrs["model_weights"]) for run in runs),
        "x": x or "",
        "threshold": threshold,
        "seed": seed,
        "unrelated": int(unrelated),
        "observations": _observations(runs),
        **versions(),
    }


def _observations(runs: list[ComparedRun]) -> str:
    """Which prompts repeat others, according to the answers of a run that has not recorded it."""
    answers = [run.answers for run in runs]
    least_known = next((each for each in answers if SAME not in each.coords), answers[0])
    return " ".join(said_of_samples(least_known, least_known["counted"]))


def _changes(name: str, values: xr.DataArray, samples: Samples, seed: int) -> dict[str, Any]:
    """Means over observations of ``values`` (run, item, …), and their changes from the first run.

    Values without a dimension ``language`` are of whole items.
    """
    by_language = "language" in values.dims
    samples = samples if by_language else samples.of_items()
    ordered = values.transpose("run", ..., "item")
    levels = ordered.to_numpy()
    rows = np.full((*levels.shape[:-1], 6), np.nan)
    for place in np.ndindex(*levels.shape[:-1]):
        j = place[-1] if by_language else 0
        change = _observed(levels[place] - levels[(0, *place[1:])], samples, j)
        estimate = change.estimate(seed, difference_interval)
        of_change = estimate if place[0] else (change.mean, *[np.nan] * 4)
        rows[place] = (_observed(levels[place], samples, j).mean, *of_change)
    dims = ordered.dims[:-1]
    coords = {dim: ordered[dim] for dim in dims if dim in ordered.coords}
    names = (name, *(f"{name}_change{end}" for end in samples.ends))
    return {
        name: xr.DataArray(rows[..., k], dims=dims, coords=coords) for k, name in enumerate(names)
    }


def _observed(values: Values, samples: Samples, j: int) -> Observed:
    """The observations of values (item,) in column *j* of the samples; NaN is left out."""
    whole = np.full(samples.same.shape, np.nan)
    whole[:, j] = values
    return samples.observed(whole, ~np.isnan(whole))


def _sharing(runs: list[ComparedRun], samples: Samples, seed: int) -> xr.Dataset:
    shuffled = [run.sharing["fraction_if_items_shuffled"].mean("layer") for run in runs]
    overall = xr.concat([run.sharing["fraction"].mean("layer") for run in runs], dim="run")
    shared = xr.concat([shared_of_active(run.sharing) for run in runs], dim="run")
    variables = _changes("fraction", overall.transpose("run", "item", "category"), samples, seed)
    shared = shared.transpose("run", "item", "language")
    variables |= _changes("shared_of_active", shared, samples, seed)
    if len({run.recording.layers for run in runs}) == 1:
        layers = xr.concat([run.sharing["fraction"] for run in runs], dim="run")
        layers = layers.transpose("run", "item", "layer", "category")
        variables |= _changes("layer_fraction", layers, samples, seed)
    variables["fraction_if_items_shuffled"] = xr.concat(shuffled, dim="run")
    return xr.Dataset(variables).drop_attrs()


def _answers(runs: list[ComparedRun], samples: Samples, bound: float, seed: int) -> xr.Dataset:
    bare = [
        run.answers["correct"].astype(float).drop_vars(OF_ITEMS, errors="ignore") for run in runs
    ]
    right = xr.concat(bare, dim="run").transpose("run", "item", "language")
    counted = runs[0].answers["counted"].astype(bool).drop_vars(OF_ITEMS, errors="ignore")
    variables = _changes("accuracy", right.where(counted), samples, seed)
    values, kept = right.to_numpy(), counted.transpose("item", "language").to_numpy()
    by_language = [column(kept, j) for j in range(kept.shape[1])]
    tests = _tests(values, by_language, samples, bound, seed)
    variables |= {f"accuracy_{key}": (("run", "language"), test) for key, test in tests.items()}
    variables |= _overall(values, kept, samples, seed)
    tests = _tests(values, [kept], samples, bound, seed)
    variables |= {f"accuracy_overall_{key}": ("run", test[:, 0]) for key, test in tests.items()}
    return xr.Dataset(variables).drop_attrs()


def _tests(
    right: Values, parts: Sequence[Values], samples: Samples, bound: float, seed: int
) -> dict[str, Values]:
    """Tests (run, part) of the changes of accuracy from the first run, and their verdicts.

    Args:
        right: whether answers were right (run, item, language).
        parts: the prompts (item, language) of each part.
        samples: which prompts are one observation, and which items are no independent samples.
        bound: the bound of equivalence.
        seed: the seed for the exchanges.
    """
    rows = np.full((len(right), len(parts), 4), np.nan)
    for i, j in np.ndindex(*rows.shape[:2]):
        if i:
            run, first = (samples.observed(right[k], parts[j]) for k in (i, 0))
            arms = np.stack([run.numbers, first.numbers])
            test = difference(arms, run.subjects, bound, seed)
            n_subjects = len(np.unique(run.subjects))
            rows[i, j] = test.p, test.p_equivalent, test.variance, n_subjects
    p, p_equivalent, variance, subjects = (rows[..., k] for k in range(4))
    tests = corrected(p, p_equivalent, variance, bound)
    tests["verdict"][0] = ""
    return tests | {"p": p, "p_equivalent": p_equivalent, "subjects": subjects}


def _overall(right: Values, kept: Values, samples: Samples, seed: int) -> dict[str, Any]:
    """The accuracy over all languages (run,), and its changes."""
    rows = []
    for values in right:
        change = samples.observed(values - right[0], kept)
        estimate = change.estimate(seed, difference_interval)
        rows.append((samples.observed(values, kept).mean, *estimate))
    names = ("accuracy_overall", *(f"accuracy_overall_change{end}" for end in samples.ends))
    return {name: ("run", [row[k] for row in rows]) for k, name in enumerate(names)}


def _association(runs: list[ComparedRun], samples: Samples) -> xr.Dataset:
    """The association of right answers with sharing in each run, and of their changes."""
    counted = runs[0].answers["counted"].to_numpy().astype(bool)
    slopes, ranks = [], []
    first: tuple[Values, Values] | None = None
    for run in runs:
        shared = shared_of_active(run.sharing).transpose("item", "language").to_numpy()
        right = run.answers["correct"].to_numpy().astype(float)
        slopes.append(astuple(correctness_on_sharing(right, shared, counted, samples)))
        every = np.ones_like(counted)
        means = _means(shared, every, samples), _means(right, counted, samples)
        first = means if first is None else first
        level = rank_correlation(*means)
        change = rank_correlation(means[0] - first[0], means[1] - first[1])
        ranks.append((level[0], *level[1], change[0], *change[1]))
    names = [f"{name}{end}" for name in ("spearman", "spearman_of_changes") for end in ENDS]
    columns = (*zip(*slopes, strict=True), *zip(*ranks, strict=True))
    named = zip((*OF_SLOPE, *names), columns, strict=True)
    return xr.Dataset({name: ("run", list(values)) for name, values in named})


def _means(values: Values, counted: Values, samples: Samples) -> Values:
    """The mean of the values that count, by language; NaN is left out."""
    kept = counted & ~np.isnan(values)
    return np.array(
        [samples.observed(values, column(kept, j)).mean for j in range(values.shape[1])]
    )


def _flow(runs: list[ComparedRun], threshold: float) -> xr.Dataset:
    """The flow from the first run to each, whose neurons are known to be the same."""
    first = runs[0].recording
    flows = [category_flow(first, run.recording, threshold=threshold, lineage=True) for run in runs]
    flow = xr.concat(flows, dim="run")
    dims = ("run", "layer", "category", "category_after")
    return xr.Dataset({"flow": flow.transpose(*dims)}).drop_attrs()
