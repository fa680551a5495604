"""What conditions do to accuracy, beside no edit and beside their controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.experiments.differences import Difference, corrected, difference
from neuroglot.experiments.observations import Samples, column, samples_of
from neuroglot.experiments.statistics import LEAST_CLUSTERS, accuracy_interval, holm

NO_EDIT = "no_edit"
PROMPT = ("item", "language")
Numbers = np.ndarray[Any, np.dtype[np.float64]]


def effects(outcome: xr.Dataset, bound: float, seed: int) -> xr.Dataset:
    """Accuracies, differences to no edit and to each control, intervals, p-values and verdicts.

    Equal prompts are averaged and enter once, and everything is clustered by subject.

    Args:
        outcome: ``correct_no_edit`` (item, language), ``correct`` (condition, item, language),
            ``correct_control`` (condition, control, draw, item, language; NaN where a pool was too
            small), ``counted`` (item, language), ``subject`` and ``relation`` (item), and
            ``same_tokens_as`` (item, language), if it is known.
        bound: differences of less than this, either way, count as equivalence.
        seed: of resampling and exchanges.

    Returns:
        What :func:`neuroglot.deactivate` says of accuracy.
    """
    outcome = outcome.transpose(..., *PROMPT)
    beside = _Beside(outcome["counted"].to_numpy(), samples_of(outcome), bound, seed)
    parts = [_accuracies(outcome, seed), _differences(outcome, beside), _placebos(outcome, beside)]
    return xr.merge(parts, join="exact")


def _accuracies(outcome: xr.Dataset, seed: int) -> xr.Dataset:
    """Accuracy of every arm by language, with its intervals over subjects and relations."""
    counted, samples = outcome["counted"].to_numpy(), samples_of(outcome)
    controls = outcome["correct_control"].mean("draw", skipna=False)
    arms = {
        "accuracy_no_edit": outcome["correct_no_edit"],
        "accuracy": outcome["correct"],
        "accuracy_control": controls,
    }

    found = {}
    for name, correct in arms.items():
        values = correct.to_numpy().astype(float)
        ends = np.full((*values.shape[:-2], values.shape[-1], 5), np.nan)
        for place in np.ndindex(ends.shape[:-1]):
            right = values[place[:-1]]
            kept = column(counted & ~np.isnan(right), place[-1])
            ends[place] = samples.observed(right, kept).estimate(seed, accuracy_interval)
        dims = (*correct.dims[:-2], "language")
        for end, suffix in enumerate(samples.ends):
            found[f"{name}{suffix}"] = (dims, ends[..., end])
    return xr.Dataset(found)


COLUMNS = (
    *("difference", "difference_low", "difference_high", "p", "p_equivalent"),
    *("variance", "difference_low_over_relations", "difference_high_over_relations"),
    *("p_over_relations", "n_prompts", "n_subjects", "n_relations"),
)


@dataclass(frozen=True)
class _Beside:
    """How a condition is held against what stands beside it.

    Attributes:
        counted: which prompts count (item, language).
        samples: which prompts are one observation, and which items no independent samples.
        bound: of equivalence.
        seed: of the exchanges.
    """

    counted: np.ndarray[Any, np.dtype[np.bool_]]
    samples: Samples
    bound: float
    seed: int

    def compared(self, correct: Numbers, against: Numbers, language: int | None = None) -> Numbers:
        """The columns, over the prompts that count and have both.

        Args:
            correct: under the condition (item, language).
            against: without an edit, or under each draw of a control (draw, item, language); NaN
                where there is none.
            language: index of the only one that is meant; by default all are.
        """
        kept = self.counted & ~np.isnan(correct) & ~np.isnan(against).any(axis=0)
        if language is not None:
            kept = column(kept, language)
        observed = [self.samples.observed(values, kept) for values in (correct, *against)]
        arms = np.stack([one.numbers for one in observed])
        subjects, relations = observed[0].subjects, observed[0].relations
        found = difference(arms, subjects, self.bound, self.seed)
        wider = Difference()
        if relations is not None:
            wider = difference(arms, relations, self.bound, self.seed)
        known = (found.mean, found.low, found.high, found.p, found.p_equivalent, found.variance)
        n_relations = 0 if relations is None else len(np.unique(relations))
        numbers = (int(kept.sum()), len(np.unique(subjects)), n_relations)
        return np.array([*known, wider.low, wider.high, wider.p, *numbers])


def _differences(outcome: xr.Dataset, beside: _Beside) -> xr.Dataset:
    """Accuracy less that of no edit and of each control, over all languages and by language."""
    conditions, languages = outcome["condition"].to_numpy(), outcome["language"].to_numpy()
    against = [NO_EDIT, *outcome["control"].to_numpy().tolist()]
    pooled = np.full((len(conditions), len(against), len(COLUMNS)), np.nan)
    by_language = np.full((*pooled.shape[:2], len(languages), len(COLUMNS)), np.nan)
    for i, j in np.ndindex(pooled.shape[:2]):
        one = outcome.isel(condition=i)
        correct = one["correct"].to_numpy().astype(float)
        other = one["correct_no_edit"].astype(float).to_numpy()[None]
        if j:
            control = one["correct_control"].isel(control=j - 1)
            other = control.transpose("draw", *PROMPT).to_numpy()
        pooled[i, j] = beside.compared(correct, other)
        for k in range(len(languages)):
            by_language[i, j, k] = beside.compared(correct, other, k)
    names = [x for x in COLUMNS if beside.samples.relations is not None or "relations" not in x]
    found = _labelled(pooled, names, "", ("condition", "against"), beside.bound)
    of_language = ("condition", "against", "language")
    found |= _labelled(by_language, names, "_by_language", of_language, beside.bound)
    coords = {"condition": conditions, "against": against, "language": languages}
    return xr.Dataset(found, coords=coords)


def _labelled(
    values: Numbers, names: Sequence[str], suffix: str, dims: tuple[str, ...], bound: float
) -> dict[str, Any]:
    """Some columns as variables, p-values also corrected for how many there are, and verdicts."""
    by_name = {name: values[..., COLUMNS.index(name)] for name in names}
    p, p_equivalent, variance = map(by_name.pop, ("p", "p_equivalent", "variance"))
    found = by_name | corrected(p, p_equivalent, variance, bound)
    found |= {"p": p, "p_equivalent": p_equivalent}
    if "p_over_relations" in found:
        found["p_over_relations_holm"] = holm(found["p_over_relations"])
    return {
        f"{name}{suffix}": (dims, one.astype(int) if name.startswith("n_") else one)
        for name, one in found.items()
    }


PLACEBO = ("difference", "difference_low", "difference_high", "p")


def _placebos(outcome: xr.Dataset, beside: _Beside) -> xr.Dataset:
    """The first draw of each control in the place of the condition, against the other draws.

    It is drawn as they are, so that it differs from them by chance alone.
    """
    dims = ("condition", "control")
    rows = np.full((*(outcome.sizes[dim] for dim in dims), len(PLACEBO)), np.nan)
    if outcome.sizes["draw"] > 1:
        draws = outcome["correct_control"].transpose(*dims, "draw", *PROMPT).to_numpy()
        for place in np.ndindex(rows.shape[:-1]):
            found = beside.compared(draws[place][0], draws[place][1:])
            rows[place] = [found[COLUMNS.index(name)] for name in PLACEBO]
    known = {f"placebo_{name}": (dims, rows[..., k]) for k, name in enumerate(PLACEBO)}
    known["placebo_p_holm"] = (dims, holm(rows[..., PLACEBO.index("p")]))
    return xr.Dataset(known, coords={dim: outcome[dim] for dim in dims})


def reasons(outcome: xr.Dataset) -> xr.DataArray:
    """Why a difference is not known, or only for some prompts (condition, against); else ``""``.

    Args:
        outcome: what :func:`effects` takes, with what it returns.
    """
    n_all = int(outcome["counted"].sum())
    n_prompts, n_subjects = outcome["n_prompts"].to_numpy(), outcome["n_subjects"].to_numpy()
    found = np.empty(n_prompts.shape, dtype=object)
    for place in np.ndindex(found.shape):
        missing = n_all - int(n_prompts[place])
        said = [f"the pool was too small for {missing:,} of {n_all:,} prompts"] if missing else []
        if n_subjects[place] < LEAST_CLUSTERS:
            said.append(
                "fewer than ten subjects are left" if missing else "fewer than ten subjects"
            )
        found[place] = "; ".join(said)
    return outcome["n_prompts"].copy(data=found.astype(str)).rename("reason")
