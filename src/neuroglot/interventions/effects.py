"""What conditions do to accuracy, beside no edit and beside their controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.experiments.statistics import (
    LEAST_CLUSTERS,
    accuracy_interval,
    clustered_interval,
    holm,
    mcnemar_p,
    sign_flip_p,
)

NO_EDIT = "no_edit"
PROMPT = ("item", "language")
Numbers = np.ndarray[Any, np.dtype[np.float64]]


def effects(outcome: xr.Dataset, seed: int) -> xr.Dataset:
    """Accuracies, differences to no edit and to each control, intervals and p-values.

    Args:
        outcome: ``correct_no_edit`` (item, language), ``correct`` (condition, item, language),
            ``correct_control`` (condition, control, draw, item, language; NaN where a pool was too
            small), ``counted`` (item, language) and ``subject`` (item).
        seed: of resampling and permutations.

    Returns:
        What :func:`neuroglot.deactivate` says of accuracy.
    """
    outcome = outcome.transpose(..., *PROMPT)
    accuracies = _accuracies(outcome, seed)
    differences = _differences(outcome, seed)
    return xr.merge([accuracies, differences], join="exact")


def _accuracies(outcome: xr.Dataset, seed: int) -> xr.Dataset:
    """Accuracy of every arm by language, with its interval over subjects."""
    counted, subject = outcome["counted"].to_numpy(), outcome["subject"].to_numpy()
    controls = outcome["correct_control"].mean("draw", skipna=False)
    arms = {
        "accuracy_no_edit": outcome["correct_no_edit"],
        "accuracy": outcome["correct"],
        "accuracy_control": controls,
    }

    found = {}
    for name, correct in arms.items():
        values = correct.to_numpy().astype(float)
        ends = np.full((*values.shape[:-2], values.shape[-1], 3), np.nan)
        for place in np.ndindex(ends.shape[:-1]):
            column = values[(*place[:-1], slice(None), place[-1])]
            kept = counted[:, place[-1]] & ~np.isnan(column)
            if kept.any():
                interval = accuracy_interval(column[kept], subject[kept], seed)
                ends[place] = (column[kept].mean(), *interval)
        dims = (*correct.dims[:-2], "language")
        for end, suffix in enumerate(("", "_low", "_high")):
            found[f"{name}{suffix}"] = (dims, ends[..., end])
    return xr.Dataset(found)


def _differences(outcome: xr.Dataset, seed: int) -> xr.Dataset:
    """Accuracy less that of no edit and of each control, over all languages and by language."""
    counted, subject = outcome["counted"].to_numpy(), outcome["subject"].to_numpy()
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
        is_no_edit = place[1] == 0
        pooled[place] = compared(one, other, counted, subject, seed)
        for i in range(len(languages)):
            by_language[(*place, i)] = compared(
                one[:, [i]], other[:, [i]], counted[:, [i]], subject, seed
            )
            known = not np.isnan(by_language[(*place, i, COLUMNS.index("p"))])
            if is_no_edit and known:
                kept = counted[:, i]
                p = mcnemar_p(other[kept, i], one[kept, i])
                by_language[(*place, i, COLUMNS.index("p"))] = p
    found = _labelled(pooled, "", ("condition", "against"))
    found |= _labelled(by_language, "_by_language", ("condition", "against", "language"))
    coords = {"condition": outcome["condition"], "against": against["against"]}
    return xr.Dataset(found, coords=coords | {"language": languages})


COLUMNS = ("difference", "low", "high", "p", "n_prompts", "n_subjects")


def compared(
    correct: Numbers, against: Numbers, counted: Numbers, subject: Numbers, seed: int
) -> Sequence[float]:
    """The columns, over the prompts (item, language) that count and have both.

    Args:
        correct: under the condition.
        against: without an edit, or the mean of a control's draws; NaN where there is none.
        counted: which prompts count.
        subject: of each item (item,).
        seed: of resampling and permutations.
    """
    kept = counted & ~np.isnan(correct) & ~np.isnan(against)
    differences = (correct - against)[kept]
    clusters = np.broadcast_to(subject[:, None], kept.shape)[kept]
    n_clusters = len(np.unique(clusters))
    if n_clusters < LEAST_CLUSTERS:
        return (np.nan, np.nan, np.nan, np.nan, len(differences), n_clusters)
    return (
        differences.mean(),
        *clustered_interval(differences, clusters, seed),
        sign_flip_p(differences, clusters, seed),
        len(differences),
        n_clusters,
    )


def _labelled(values: Numbers, suffix: str, dims: tuple[str, ...]) -> dict[str, Any]:
    """The columns as variables, and the p-values corrected for how many there are."""
    found: dict[str, Any] = {}
    for i, name in enumerate(COLUMNS):
        full = name if name in ("difference", "p") or name[0] == "n" else f"difference_{name}"
        column = values[..., i]
        found[f"{full}{suffix}"] = (dims, column.astype(int) if name[0] == "n" else column)
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
