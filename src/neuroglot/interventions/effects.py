"""What conditions do to answers, beside no edit and beside their controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.answering.differences import Difference, corrected, difference
from neuroglot.answering.observations import Samples, column, samples_of
from neuroglot.answering.statistics import (
    LEAST_CLUSTERS,
    accuracy_interval,
    clustered_interval,
    holm,
)
from neuroglot.defaults import EQUIVALENT_WITHIN
from neuroglot.errors import NeuroglotError, listed
from neuroglot.interventions.conditions import NO_EDIT

PROMPT = ("item", "language")
Numbers = np.ndarray[Any, np.dtype[np.float64]]


MEASURES = {
    "correct": "accuracy",
    "margin": "mean_margin",
    "masked_margin": "mean_masked_margin",
    "log_prob": "mean_log_prob",
}
"""What effects may be of, and what its mean is called."""


def effects(
    outcome: xr.Dataset,
    *,
    of: str = "correct",
    equivalent_within: float = EQUIVALENT_WITHIN,
    seed: int = 0,
) -> xr.Dataset:
    """Differences of conditions to no edit and to each control, with intervals and verdicts.

    Equal prompts are averaged and enter once, and everything is clustered by subject.

    Args:
        outcome: from :func:`neuroglot.intervene`.
        of: ``"correct"``, for accuracy; ``"margin"``, ``"masked_margin"`` or ``"log_prob"``, in
            nats.
        equivalent_within: the bounds of equivalence, which are to be chosen beforehand: what
            differs by less than this, either way, counts as the same.
        seed: of the resampling and the exchanges.

    Returns:
        A dataset over ``condition``, with ``against`` being ``no_edit`` and the controls:

        - ``difference`` (condition, against): the mean less that of what it is held against, over
          the prompts that have both; with ``difference_low`` and ``difference_high`` (95 %) and
          ``p``, both by exchanges of whole subjects; ``p_equivalent``, of a difference beyond
          ``equivalent_within``; ``n_prompts`` and ``n_subjects``. NaN with fewer than ten subjects,
          and no interval where fewer than five differ or all differ by the same;
        - ``p_holm`` and ``p_equivalent_holm``: corrected for all of them (Holm 1979);
        - ``verdict``: ``"difference"`` if ``p_holm`` is below .05, else ``"equivalent"`` if
          ``p_equivalent_holm`` is, else ``"too few items to tell"``; and ``sufficient_subjects``,
          about how many would tell a difference of ``equivalent_within`` from none, after
          correction, if they vary as these do;
        - ``difference_low_over_relations``, ``difference_high_over_relations``,
          ``p_over_relations``, ``n_relations``: the wider claim, for other relations, if all items
          have a relation and there are at least ten;
        - the same as ``…_by_language`` (condition, against, language). Against no edit, and where
          each subject has one prompt of the language, ``p`` is that of the mid-p McNemar test;
        - ``placebo_difference`` (condition, kind) with ``…_low``, ``…_high``, ``placebo_p`` and
          ``placebo_p_holm``: the first draw of a control, in the place of the condition, less the
          other draws. As it is drawn like them, it should differ by nothing. NaN with one draw;
        - ``reason`` (condition, against): why a difference is not known, or not of all prompts;
        - the means (condition, language), of no edit (language), and of the controls (condition,
          kind, language), with their ends: ``accuracy``, ``accuracy_no_edit`` and
          ``accuracy_control``, or ``mean_margin``, ….

    Raises:
        NeuroglotError: the outcome does not say what is asked.
    """
    if of not in MEASURES or of not in outcome:
        known = [name for name in MEASURES if name in outcome]
        raise NeuroglotError(f"of={of!r}: the outcome holds {listed(known)}.")
    here = _Values.of(outcome, of)
    beside = _Beside(
        outcome["counted"].transpose(*PROMPT).to_numpy(), samples_of(outcome), equivalent_within,
        seed,
    )  # fmt: skip
    parts = [_means(here, beside, of), _differences(here, beside), _placebos(here, beside)]
    found = xr.merge(parts, join="exact")
    counted = beside.counted & here.own.isnull().all("draw").to_numpy()
    without = counted.sum(axis=(1, 2))
    return found.assign(reason=_reasons(found, int(outcome["counted"].sum()), without))


def of_conditions(values: xr.DataArray) -> xr.DataArray:
    """What conditions themselves have (…, without ``arm``): the mean of their draws."""
    return values.isel(arm=_are_of(values, "")).mean("arm")


def _are_of(values: xr.DataArray, control: str) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Places of the arms of a control; of a condition itself, the control is empty."""
    return np.flatnonzero(values["control"].to_numpy() == control)


def by_control(values: xr.DataArray) -> xr.DataArray:
    """What arms say of controls (condition, kind, draw, item, language).

    Args:
        values: (condition, arm, item, language), with the coordinates of an outcome.

    Raises:
        NeuroglotError: some of the arms of an outcome are missing.
    """
    kinds = [kind for kind in dict.fromkeys(values["control"].to_numpy().tolist()) if kind]
    arms = [_are_of(values, kind) for kind in kinds]
    if len(set(map(len, arms))) > 1:
        raise NeuroglotError("expected as many draws of each control; some arms are missing.")
    found = values.transpose("condition", "arm", *PROMPT).to_numpy()
    n_draws = len(arms[0]) if arms else 0
    order = np.array(arms, np.intp).reshape(len(kinds), n_draws)
    return xr.DataArray(
        found[:, order],
        dims=("condition", "kind", "draw", *PROMPT),
        coords={
            "condition": values["condition"].to_numpy(),
            "kind": np.array(kinds, dtype=str),
            **{dim: values[dim].to_numpy() for dim in PROMPT},
        },
    )


@dataclass(frozen=True)
class _Values:
    """What is compared: under conditions, without an edit, and under controls.

    Attributes:
        own: (condition, draw, item, language); NaN for the draws that only others have.
        plain: (item, language).
        controls: (condition, kind, draw, item, language).
    """

    own: xr.DataArray
    plain: xr.DataArray
    controls: xr.DataArray

    @classmethod
    def of(cls, outcome: xr.Dataset, name: str) -> _Values:
        """What an outcome says of a measure."""
        values = outcome[name].astype(float)
        own = values.isel(arm=_are_of(values, "")).drop_vars(["control", "draw"])
        own = own.drop_vars("arm", errors="ignore").rename(arm="draw")
        own = own.transpose("condition", "draw", *PROMPT)
        unknown = xr.full_like(own.isel(condition=0, draw=0, drop=True), np.nan)
        plain = outcome.get(f"{name}_no_edit", unknown).astype(float).transpose(*PROMPT)
        return cls(own, plain, by_control(values))


def _means(values: _Values, beside: _Beside, of: str) -> xr.Dataset:
    """Mean of every arm by language, with its intervals over subjects and relations."""
    arms = {
        f"{MEASURES[of]}_no_edit": values.plain,
        MEASURES[of]: values.own.mean("draw"),
        f"{MEASURES[of]}_control": values.controls.mean("draw", skipna=False),
    }
    how = accuracy_interval if of == "correct" else clustered_interval
    found = {}
    for name, one in arms.items():
        numbers = one.to_numpy()
        ends = np.full((*numbers.shape[:-2], numbers.shape[-1], 5), np.nan)
        for place in np.ndindex(ends.shape[:-1]):
            here = numbers[place[:-1]]
            kept = column(beside.counted & ~np.isnan(here), place[-1])
            ends[place] = beside.samples.observed(here, kept).estimate(beside.seed, how)
        dims = (*one.dims[:-2], "language")
        for end, suffix in enumerate(beside.samples.ends):
            found[f"{name}{suffix}"] = (dims, ends[..., end])
    coords = {dim: values.controls[dim] for dim in ("condition", "kind", "language")}
    return xr.Dataset(found, coords=coords)


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

    def compared(self, own: Numbers, against: Numbers, language: int | None = None) -> Numbers:
        """The columns, over the prompts that count and have both.

        Args:
            own: under the condition, in each of its draws (draw, item, language).
            against: without an edit, or under each draw of a control (draw, item, language); NaN
                where there is none.
            language: index of the only one that is meant; by default all are.
        """
        own = own[~np.isnan(own).all(axis=(1, 2))]
        if not len(own):
            own = np.full((1, *self.counted.shape), np.nan)
        kept = self.counted & ~np.isnan([*own, *against]).any(axis=0)
        if language is not None:
            kept = column(kept, language)
        observed = [self.samples.observed(values, kept) for values in (*own, *against)]
        arms = np.stack([one.numbers for one in observed])
        subjects, relations = observed[0].subjects, observed[0].relations
        found = difference(arms, subjects, self.bound, self.seed, len(own))
        wider = Difference()
        if relations is not None:
            wider = difference(arms, relations, self.bound, self.seed, len(own))
        known = (found.mean, found.low, found.high, found.p, found.p_equivalent, found.variance)
        n_relations = 0 if relations is None else len(np.unique(relations))
        numbers = (int(kept.sum()), len(np.unique(subjects)), n_relations)
        return np.array([*known, wider.low, wider.high, wider.p, *numbers])


def _differences(values: _Values, beside: _Beside) -> xr.Dataset:
    """Means less that of no edit and of each control, over all languages and by language."""
    conditions, languages = (values.own[dim].to_numpy() for dim in ("condition", "language"))
    against = [NO_EDIT, *values.controls["kind"].to_numpy().tolist()]
    pooled = np.full((len(conditions), len(against), len(COLUMNS)), np.nan)
    by_language = np.full((*pooled.shape[:2], len(languages), len(COLUMNS)), np.nan)
    own, plain, controls = (x.to_numpy() for x in (values.own, values.plain, values.controls))
    for i, j in np.ndindex(pooled.shape[:2]):
        other = controls[i, j - 1] if j else plain[None]
        pooled[i, j] = beside.compared(own[i], other)
        for k in range(len(languages)):
            by_language[i, j, k] = beside.compared(own[i], other, k)
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


def _placebos(values: _Values, beside: _Beside) -> xr.Dataset:
    """The first draw of each control in the place of the condition, against the other draws.

    It is drawn as they are, so that it differs from them by chance alone.
    """
    dims, draws = ("condition", "kind"), values.controls.to_numpy()
    rows = np.full((*draws.shape[:2], len(PLACEBO)), np.nan)
    if draws.shape[2] > 1:
        for place in np.ndindex(rows.shape[:-1]):
            found = beside.compared(draws[place][:1], draws[place][1:])
            rows[place] = [found[COLUMNS.index(name)] for name in PLACEBO]
    known = {f"placebo_{name}": (dims, rows[..., k]) for k, name in enumerate(PLACEBO)}
    known["placebo_p_holm"] = (dims, holm(rows[..., PLACEBO.index("p")]))
    return xr.Dataset(known, coords={dim: values.controls[dim] for dim in dims})


def _reasons(found: xr.Dataset, n_all: int, without: Numbers) -> xr.DataArray:
    """Why a difference is not known, or only for some prompts (condition, against); else ``""``.

    Args:
        found: the differences.
        n_all: prompts that count.
        without: of them, those in which the condition itself could not be (condition,).
    """
    n_prompts, n_subjects = found["n_prompts"].to_numpy(), found["n_subjects"].to_numpy()
    reasons = np.empty(n_prompts.shape, dtype=object)
    for place in np.ndindex(reasons.shape):
        alone = int(without[place[0]])
        missing = n_all - int(n_prompts[place]) - alone
        said = []
        if alone:
            said.append(f"there was nothing to patch {alone:,} of {n_all:,} prompts with")
        if missing:
            said.append(f"the pool was too small for {missing:,} of {n_all:,} prompts")
        if n_subjects[place] < LEAST_CLUSTERS:
            said.append("fewer than ten subjects are left" if said else "fewer than ten subjects")
        reasons[place] = "; ".join(said)
    return found["n_prompts"].copy(data=reasons.astype(str)).rename("reason")
