"""Differences between the answers under conditions, without an edit, and under controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.answering.differences import corrected, difference
from neuroglot.answering.observations import Samples, column, samples_of
from neuroglot.answering.statistics import (
    LEAST_CLUSTERS,
    accuracy_interval,
    clustered_interval,
    holm,
)
from neuroglot.defaults import EQUIVALENT_WITHIN
from neuroglot.errors import NeuroglotError, listed
from neuroglot.interventions.controls import NO_EDIT

PROMPT = ("item", "language")
PLACEBO = ("difference", "difference_low", "difference_high", "p")
Numbers = np.ndarray[Any, np.dtype[np.float64]]

MEASURES = {
    "correct": "accuracy",
    "margin": "mean_margin",
    "masked_margin": "mean_masked_margin",
    "log_prob": "mean_log_prob",
}
"""Variables of an outcome that can be compared, and the names of their means."""


def effects(
    outcome: xr.Dataset,
    *,
    of: str = "correct",
    equivalent_within: float = EQUIVALENT_WITHIN,
    seed: int = 0,
) -> xr.Dataset:
    """Compare each condition with no edit and with each of its controls.

    Prompts that are equal are averaged and count once. All intervals and tests treat the items of
    one subject as one cluster.

    Args:
        outcome: what :func:`neuroglot.intervene` returns.
        of: the variable that is compared: ``"correct"``, for accuracy; or, in nats, ``"margin"``,
            ``"masked_margin"`` or ``"log_prob"``.
        equivalent_within: the bounds of equivalence, which have to be chosen before the outcome is
            seen: a smaller difference, in either direction, counts as none.
        seed: the seed of the resampling and of the tests.

    Returns:
        A dataset over ``condition``, and ``against``, which is ``no_edit`` or a control:

        - ``difference`` (condition, against): the mean under the condition less the mean of what it
          is compared with, over the prompts that have both; with ``difference_low`` and
          ``difference_high`` (95 %) and ``p``, all from exchanges of whole subjects;
          ``p_equivalent``, the p-value of a difference beyond ``equivalent_within``; and the
          numbers ``n_prompts`` and ``n_subjects``. All are NaN with fewer than ten subjects, and
          there is no interval if fewer than five differ or all differ by the same;
        - ``p_holm`` and ``p_equivalent_holm``: these p-values, corrected for their number
          (Holm 1979);
        - ``verdict``: ``"difference"`` if ``p_holm`` is below .05, else ``"equivalent"`` if
          ``p_equivalent_holm`` is, else ``"too few items to tell"``; and ``sufficient_subjects``,
          about how many subjects would be needed to tell a difference of ``equivalent_within`` from
          none, after correction, if they vary as these do;
        - ``difference_low_over_relations``, ``difference_high_over_relations``,
          ``p_over_relations`` and ``n_relations``: the same for other relations, which is a wider
          claim; only if all items have a relation and there are at least ten relations;
        - all of these as ``…_by_language`` (condition, against, language). Against no edit, and
          where each subject has one prompt in the language, ``p`` is that of the mid-p McNemar
          test;
        - ``placebo_difference`` (condition, kind) with ``…_low``, ``…_high``, ``placebo_p`` and
          ``placebo_p_holm``: the first draw of a control, in the place of the condition, compared
          with the other draws. It is drawn in the same way, so there should be no difference. NaN
          with one draw;
        - ``reason`` (condition, against): why a difference is not known, or not for all prompts;
        - the means with their intervals, of the conditions (condition, language), without an edit
          (language) and of the controls (condition, kind, language): ``accuracy``,
          ``accuracy_no_edit`` and ``accuracy_control``, or ``mean_margin``, ….

    Raises:
        NeuroglotError: the outcome does not hold the variable.

    Examples:
        >>> import numpy as np
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=2)
        >>> neurons = ng.NeuronSet(np.ones((model.n_layers, model.n_neurons), bool), "all")
        >>> conditions = {"all off": ng.Zero(neurons)}
        >>> outcome = ng.intervene(model, task, conditions, controls=ng.Controls(()))
        >>> of_margins = ng.effects(outcome, of="margin")
        >>> of_margins["n_prompts"].values.tolist()  # (condition, against)
        [[4]]
        >>> of_margins["reason"].values.tolist()
        [['fewer than ten subjects']]
    """
    if of not in MEASURES or of not in outcome:
        held = [name for name in MEASURES if name in outcome]
        raise NeuroglotError(f"of={of!r}: the outcome holds {listed(held)}.")
    compared = _Compared.of(outcome, of, equivalent_within, seed)
    parts = [_means(compared, of), _differences(compared), _placebos(compared)]
    result = xr.merge(parts, join="exact")
    unedited = compared.counted & compared.own.isnull().all("draw").to_numpy()
    return result.assign(reason=_reasons(result, int(compared.counted.sum()), unedited))


def of_conditions(values: xr.DataArray) -> xr.DataArray:
    """The values of the conditions themselves (…, without ``arm``): the means of their draws."""
    return values.isel(arm=_arms_of(values, "")).mean("arm")


def _arms_of(values: xr.DataArray, control: str) -> np.ndarray[Any, np.dtype[np.intp]]:
    """The places of the arms of a control, or of the condition itself if its name is empty."""
    return np.flatnonzero(values["control"].to_numpy() == control)


def by_control(values: xr.DataArray) -> xr.DataArray:
    """The values of the controls (condition, kind, draw, item, language).

    Args:
        values: a variable of an outcome (condition, arm, item, language).

    Raises:
        NeuroglotError: some of the arms of an outcome are missing.
    """
    kinds = [kind for kind in dict.fromkeys(values["control"].to_numpy().tolist()) if kind]
    arms = [_arms_of(values, kind) for kind in kinds]
    if len(set(map(len, arms))) > 1:
        raise NeuroglotError("expected as many draws of each control; some arms are missing.")
    n_draws = len(arms[0]) if arms else 0
    order = np.array(arms, np.intp).reshape(len(kinds), n_draws)
    return xr.DataArray(
        values.transpose("condition", "arm", *PROMPT).to_numpy()[:, order],
        dims=("condition", "kind", "draw", *PROMPT),
        coords={
            "condition": values["condition"].to_numpy(),
            "kind": np.array(kinds, dtype=str),
            **{dim: values[dim].to_numpy() for dim in PROMPT},
        },
    )


@dataclass(frozen=True)
class _Compared:
    """One variable of an outcome, and how its arms are compared.

    Attributes:
        own: under the conditions (condition, draw, item, language); NaN for draws that only other
            conditions have.
        plain: without an edit (item, language).
        controls: under the controls (condition, kind, draw, item, language).
        counted: whether each prompt counts (item, language).
        samples: which prompts are one observation, and which items are one cluster.
        bound: the bounds of equivalence.
        seed: the seed of the tests.
    """

    own: xr.DataArray
    plain: xr.DataArray
    controls: xr.DataArray
    counted: np.ndarray[Any, np.dtype[np.bool_]]
    samples: Samples
    bound: float
    seed: int

    @classmethod
    def of(cls, outcome: xr.Dataset, name: str, bound: float, seed: int) -> _Compared:
        """A variable of an outcome."""
        values = outcome[name].astype(float)
        own = values.isel(arm=_arms_of(values, ""))
        own = own.drop_vars(["control", "draw", "arm"], errors="ignore").rename(arm="draw")
        unknown = xr.full_like(own.isel(condition=0, draw=0, drop=True), np.nan)
        return cls(
            own.transpose("condition", "draw", *PROMPT),
            outcome.get(f"{name}_no_edit", unknown).astype(float).transpose(*PROMPT),
            by_control(values),
            outcome["counted"].transpose(*PROMPT).to_numpy(),
            samples_of(outcome),
            bound,
            seed,
        )

    def with_other(
        self, own: Numbers, other: Numbers, language: int | None = None
    ) -> dict[str, float]:
        """Compare arms over the prompts that count and have values in all of them.

        Args:
            own: the values under a condition, in each of its draws (draw, item, language).
            other: the values without an edit, or under each draw of a control (draw, item,
                language); NaN where there is none.
            language: the place of the only language that is looked at; by default all are.

        Returns:
            The numbers by name.
        """
        own = own[~np.isnan(own).all(axis=(1, 2))]
        if not len(own):
            own = np.full((1, *self.counted.shape), np.nan)
        kept = self.counted & ~np.isnan([*own, *other]).any(axis=0)
        if language is not None:
            kept = column(kept, language)
        observed = [self.samples.observed(values, kept) for values in (*own, *other)]
        arms = np.stack([one.numbers for one in observed])
        subjects, relations = observed[0].subjects, observed[0].relations
        over_subjects = difference(arms, subjects, self.bound, self.seed, len(own))
        numbers = {
            "difference": over_subjects.mean,
            "difference_low": over_subjects.low,
            "difference_high": over_subjects.high,
            "p": over_subjects.p,
            "p_equivalent": over_subjects.p_equivalent,
            "variance": over_subjects.variance,
            "n_prompts": int(kept.sum()),
            "n_subjects": len(np.unique(subjects)),
        }
        if relations is not None:
            wider = difference(arms, relations, self.bound, self.seed, len(own))
            numbers |= {
                "difference_low_over_relations": wider.low,
                "difference_high_over_relations": wider.high,
                "p_over_relations": wider.p,
                "n_relations": len(np.unique(relations)),
            }
        return numbers


def _means(compared: _Compared, of: str) -> xr.Dataset:
    """The mean of every arm by language, with intervals over subjects and relations."""
    arms = {
        f"{MEASURES[of]}_no_edit": compared.plain,
        MEASURES[of]: compared.own.mean("draw"),
        f"{MEASURES[of]}_control": compared.controls.mean("draw", skipna=False),
    }
    interval = accuracy_interval if of == "correct" else clustered_interval
    variables = {}
    for name, values in arms.items():
        numbers = values.to_numpy()
        estimates = np.full((*numbers.shape[:-2], numbers.shape[-1], 5), np.nan)
        for place in np.ndindex(estimates.shape[:-1]):
            of_arm = numbers[place[:-1]]
            kept = column(compared.counted & ~np.isnan(of_arm), place[-1])
            observed = compared.samples.observed(of_arm, kept)
            estimates[place] = observed.estimate(compared.seed, interval)
        dims = (*values.dims[:-2], "language")
        for end, suffix in enumerate(compared.samples.ends):
            variables[f"{name}{suffix}"] = (dims, estimates[..., end])
    coords = {dim: compared.controls[dim] for dim in ("condition", "kind", "language")}
    return xr.Dataset(variables, coords=coords)


def _differences(compared: _Compared) -> xr.Dataset:
    """Each condition compared with no edit and each control, over all languages and by language."""
    conditions, languages = (compared.own[dim].to_numpy() for dim in ("condition", "language"))
    against = [NO_EDIT, *compared.controls["kind"].to_numpy().tolist()]
    own, controls = compared.own.to_numpy(), compared.controls.to_numpy()
    pairs = [
        (own[i], controls[i, j - 1] if j else compared.plain.to_numpy()[None])
        for i, j in np.ndindex(len(conditions), len(against))
    ]
    pooled = [compared.with_other(*pair) for pair in pairs]
    by_language = [compared.with_other(*pair, k) for pair in pairs for k in range(len(languages))]
    sizes = {"condition": len(conditions), "against": len(against)}
    variables = _variables(pooled, "", sizes, compared.bound)
    sizes |= {"language": len(languages)}
    variables |= _variables(by_language, "_by_language", sizes, compared.bound)
    coords = {"condition": conditions, "against": against, "language": languages}
    return xr.Dataset(variables, coords=coords)


def _variables(
    rows: Sequence[dict[str, float]], suffix: str, sizes: dict[str, int], bound: float
) -> dict[str, Any]:
    """Comparisons as variables, with corrected p-values and verdicts.

    Args:
        rows: the numbers of each comparison, by name.
        suffix: the end of the names of the variables.
        sizes: the dimensions over which the comparisons were made, in order, with their sizes.
        bound: the bounds of equivalence.
    """
    columns = {
        name: np.array([row[name] for row in rows]).reshape(tuple(sizes.values()))
        for name in rows[0]
    }
    p, p_equivalent, variance = columns["p"], columns["p_equivalent"], columns.pop("variance")
    columns |= corrected(p, p_equivalent, variance, bound)
    if "p_over_relations" in columns:
        columns["p_over_relations_holm"] = holm(columns["p_over_relations"])
    return {f"{name}{suffix}": (tuple(sizes), values) for name, values in columns.items()}


def _placebos(compared: _Compared) -> xr.Dataset:
    """The first draw of each control, in the place of the condition, compared with the others."""
    dims, draws = ("condition", "kind"), compared.controls.to_numpy()
    rows = np.full((*draws.shape[:2], len(PLACEBO)), np.nan)
    if draws.shape[2] > 1:
        for place in np.ndindex(rows.shape[:-1]):
            numbers = compared.with_other(draws[place][:1], draws[place][1:])
            rows[place] = [numbers[name] for name in PLACEBO]
    variables = {f"placebo_{name}": (dims, rows[..., k]) for k, name in enumerate(PLACEBO)}
    variables["placebo_p_holm"] = (dims, holm(variables["placebo_p"][1]))
    return xr.Dataset(variables, coords={dim: compared.controls[dim] for dim in dims})


def _reasons(result: xr.Dataset, n_counted: int, unedited: Numbers) -> xr.DataArray:
    """Why a difference is not known, or only for some prompts (condition, against); else ``""``.

    Args:
        result: the differences.
        n_counted: the number of prompts that count.
        unedited: whether a prompt counts, but has no answer under the condition itself (condition,
            item, language).
    """
    n_prompts, n_subjects = result["n_prompts"].to_numpy(), result["n_subjects"].to_numpy()
    n_unedited = unedited.sum(axis=(1, 2))
    reasons = np.empty(n_prompts.shape, dtype=object)
    for place in np.ndindex(reasons.shape):
        alone = int(n_unedited[place[0]])
        missing = n_counted - int(n_prompts[place]) - alone
        parts = []
        if alone:
            parts.append(f"there was nothing to patch {alone:,} of {n_counted:,} prompts with")
        if missing:
            parts.append(f"the pool was too small for {missing:,} of {n_counted:,} prompts")
        if n_subjects[place] < LEAST_CLUSTERS:
            parts.append("fewer than ten subjects are left" if parts else "fewer than ten subjects")
        reasons[place] = "; ".join(parts)
    return result["n_prompts"].copy(data=reasons.astype(str)).rename("reason")
