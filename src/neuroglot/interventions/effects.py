"""What conditions do to accuracy, beside no edit and beside their controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.experiments.observations import Samples, column, samples_of
from neuroglot.experiments.statistics import (
    LEAST_CLUSTERS,
    accuracy_interval,
    holm,
    sign_flip_p,
)

NO_EDIT = "no_edit"
PROMPT = ("item", "language")
Numbers = np.ndarray[Any, np.dtype[np.float64]]


def effects(outcome: xr.Dataset, seed: int) -> xr.Dataset:
    """Accuracies, differences to no edit and to each control, intervals and p-values.

    Equal prompts are averaged and enter once, and everything is clustered by subject.

    Args:
        outcome: ``correct_no_edit`` (item, language), ``correct`` (condition, item, language),
            ``correct_control`` (condition, control, draw, item, language; NaN where a pool was too
            small), ``counted`` (item, language), ``subject`` and ``relation`` (item), and
            ``same_tokens_as`` (item, language), if it is known.
        seed: of resampling and permutations.

    Returns:
        What :func:`neuroglot.deactivate` says of accuracy.
    """
    outcome = outcome.transpose(..., *PROMPT)
    accuracies = _accuracies(outcome, seed)
    differences = _differences(outcome, seed)
    return xr.merge([accuracies, differences], join="exact")


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


def _differences(outcome: xr.Dataset, seed: int) -> xr.Dataset:
    """Accuracy less that of no edit and of each control, over all languages and by language."""
    counted, samples = outcome["counted"].to_numpy(), samples_of(outcome)
    correct = outcome["correct"].astype(float)
    no_edit = outcome["correct_no_edit"].astype(float).expand_dims(against=[NO_EDIT])
    controls = outcome["correct_control"].mean("draw", skipna=False).rename(control="against")
    against = xr.concat([no_edit, controls], dim="against")
    against = against.assign_coords(against=against["against"].astype(str))
    against = against.broadcast_like(correct).transpose("condition", "against", *PROMPT)
    languages = outcome["language"].to_numpy()
    values, others = correct.to_numpy(), against.to_numpy()
    shape = against.shape[:2]
    pooled = np.full((*shape, len(COLUMNS)), np.nan)
    by_language = np.full((*shape, len(languages), len(COLUMNS)), np.nan)
    for place in np.ndindex(shape):
        one, other = values[place[0]], others[place]
        pooled[place] = compared(one, other, counted, samples, seed)
        for i in range(len(languages)):
            by_language[(*place, i)] = compared(one, other, column(counted, i), samples, seed)
    names = [x for x in COLUMNS if samples.relations is not None or "relations" not in x]
    found = _labelled(pooled, names, "", ("condition", "against"))
    found |= _labelled(by_language, names, "_by_language", ("condition", "against", "language"))
    coords = {"condition": outcome["condition"], "against": against["against"]}
    return xr.Dataset(found, coords=coords | {"language": languages})


COLUMNS = (
    *("difference", "difference_low", "difference_high"),
    *("difference_low_over_relations", "difference_high_over_relations"),
    *("p", "n_prompts", "n_subjects", "n_relations"),
)


def compared(
    correct: Numbers, against: Numbers, counted: Numbers, samples: Samples, seed: int
) -> Sequence[float]:
    """The columns, over the prompts (item, language) that count and have both.

    Args:
        correct: under the condition.
        against: without an edit, or the mean of a control's draws; NaN where there is none.
        counted: which prompts count.
        samples: which prompts are one observation, and which items no independent samples.
        seed: of resampling and permutations.
    """
    kept = counted & ~np.isnan(correct) & ~np.isnan(against)
    found = samples.observed(correct - against, kept)
    n_clusters = len(np.unique(found.subjects))
    n_relations = 0 if found.relations is None else len(np.unique(found.relations))
    numbers = (int(kept.sum()), n_clusters, n_relations)
    if n_clusters < LEAST_CLUSTERS:
        return (*[np.nan] * 6, *numbers)
    p = sign_flip_p(found.numbers, found.subjects, seed)
    return (*found.estimate(seed), p, *numbers)


def _labelled(
    values: Numbers, names: Sequence[str], suffix: str, dims: tuple[str, ...]
) -> dict[str, Any]:
    """Some columns as variables, and the p-values corrected for how many there are."""
    found: dict[str, Any] = {}
    for name in names:
        one = values[..., COLUMNS.index(name)]
        found[f"{name}{suffix}"] = (dims, one.astype(int) if name[0] == "n" else one)
    found[f"p_holm{suffix}"] = (dims, holm(values[..., COLUMNS.index("p")]))
    return found


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
