"""What interventions are called and found: one row a condition and what it is held against."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.answering.observations import OVER_RELATIONS
from neuroglot.interventions.conditions import NO_EDIT
from neuroglot.interventions.effects import by_control, of_conditions
from neuroglot.reporting.accuracy import mean_of
from neuroglot.reporting.table import Row

DEACTIVATION, BANDS, VARIANTS = "deactivation", "layer-bands", "variants"
DOSES, DOSES_BY_ANSWER = "dose-response", "dose-response-by-answer"
AMPLIFICATION, KEEP_ONLY, FIXED, SCALED = "amplification", "keep-only", "fixed-sets", "scaled"
CONDITIONS = "conditions"  # of a user's own
USUAL = {"top": 1.0, "layers": "all", "membership": np.nan, "keep_only": 0, "factor": 0.0}
"""Coordinates of the conditions of :mod:`neuroglot.interventions.presets`, as they mostly are."""
KINDS = {
    ("top",): DOSES,
    ("layers",): BANDS,
    ("membership",): FIXED,
    ("keep_only",): KEEP_ONLY,
    ("factor",): SCALED,
    (): DEACTIVATION,
}


def is_of_preset(outcome: xr.Dataset) -> bool:
    """Whether the conditions are those of :mod:`neuroglot.interventions.presets`."""
    return set(USUAL) <= set(outcome.coords)


def unusual(outcome: xr.Dataset) -> tuple[str, ...]:
    """Coordinates of a preset that are not as usual in some condition."""
    return tuple(
        name
        for name, usual in USUAL.items()
        if not all(_is(value, usual) for value in outcome[name].to_numpy())
    )


def _is(value: object, usual: object) -> bool:
    return value == usual or (value != value and usual != usual)  # noqa: PLR0124 (NaN)


def coordinate_of(outcome: xr.Dataset) -> str | None:
    """The only coordinate of a user's that varies between conditions, if there is one.

    A ``category`` stands beside it.
    """
    own = [
        str(name)
        for name, values in outcome.coords.items()
        if values.dims == ("condition",)
        and name not in ("condition", "category")
        and len(pd.unique(values.to_numpy())) > 1
    ]
    return own[0] if len(own) == 1 else None


def group_of(outcome: xr.Dataset) -> str:
    """What an outcome is called, by what its conditions differ in."""
    if "development_accuracy" in outcome:
        return AMPLIFICATION
    if not is_of_preset(outcome):
        own = coordinate_of(outcome)
        return CONDITIONS if own is None else f"by-{own.replace('_', '-')}"
    kind = KINDS.get(unusual(outcome), VARIANTS)
    if kind == DOSES and (outcome["rank_by"] != "contribution").any():
        return DOSES_BY_ANSWER
    return kind


AGAINST_LABELS = {
    NO_EDIT: "no edit",
    "size": "random, as many",
    "active": "random active",
    "contribution": "random, same contribution",
}
STRICT = ("active", "contribution")  # the controls on which claims rest
WIDER = tuple(f"difference{end}" for end in OVER_RELATIONS)
NUMBERS = (
    *("difference", "difference_low", "difference_high", *WIDER, "p", "p_holm"),
    *("p_over_relations", "p_over_relations_holm", "p_equivalent", "p_equivalent_holm"),
    "sufficient_subjects",
)
PLACEBO = tuple(f"placebo_{name}" for name in (*NUMBERS[:3], "p", "p_holm"))


def against_label(against: str) -> str:
    """What a condition is held against, for people."""
    return AGAINST_LABELS.get(against, against.replace("_", " "))


def condition_label(condition: str) -> str:
    """A condition's name for people."""
    for name in ("all_shared", "partial_shared", "non_activated"):
        condition = condition.replace(name, name.replace("_", "-"))
    return re.sub(r"layers (\d+)(?![-\d,])", r"layer \1", condition.replace("_", " "))


def effect_rows(outcome: xr.Dataset) -> list[dict[str, Any]]:
    """One row a condition and what it is held against, over all languages.

    Returns:
        Dicts with ``condition``, ``against``, ``neurons`` (of a prompt, mean), ``share`` and
        ``share_against`` (of all contributions, theirs and the control's), ``accuracy`` and
        ``accuracy_against`` (all of the prompts that have both), ``difference`` with its intervals
        (that over relations if there is one), its p-values, ``verdict`` and
        ``sufficient_subjects``, that of the control's placebo, ``prompts`` of ``all_prompts``,
        ``subjects``, ``equivalent_within`` and ``reason``.
    """
    rows, counted = [], outcome["counted"]
    for condition in outcome["condition"].to_numpy():
        one = outcome.sel(condition=condition)
        for against in outcome["against"].to_numpy():
            here = one.sel(against=against)
            rows.append(
                {
                    "condition": str(condition),
                    "against": str(against),
                    "neurons": float(one["n_neurons"].where(counted).mean()),
                    **_shares(one, str(against)),
                    **_accuracies(outcome, one, str(against)),
                    **_numbers(one, here),
                    "equivalent_within": outcome.attrs["equivalent_within"],
                    "prompts": int(here["n_prompts"]),
                    "all_prompts": int(counted.sum()),
                    "subjects": int(here["n_subjects"]),
                    "reason": str(here["reason"].to_numpy()),
                }
            )
    return rows


def _numbers(one: xr.Dataset, here: xr.Dataset) -> dict[str, Any]:
    """Difference, p-values and verdict, and the placebo of a control."""
    found: dict[str, Any] = {
        name: float(here[name]) if name in here else np.nan for name in NUMBERS
    }
    against = str(here["against"].to_numpy())
    if against != NO_EDIT:
        control = one.sel(kind=against)
        found |= {name: float(control[name]) for name in PLACEBO}
    return found | {"verdict": str(here["verdict"].to_numpy())}


def _of_control(values: xr.DataArray, kind: str) -> xr.DataArray:
    """Mean over a control's draws (item, language) of what a condition's arms say; NaN without."""
    drawn = by_control(values.expand_dims("condition")).sel(kind=kind)[0]
    return drawn.mean("draw", skipna=False)


def _shares(one: xr.Dataset, against: str) -> dict[str, float]:
    """Shares of all contributions: the condition's neurons and the control's, of equal prompts."""
    counted = one["counted"]
    own = of_conditions(one["share"])
    if against == NO_EDIT:
        return {"share": float(own.where(counted).mean()), "share_against": np.nan}
    other = _of_control(one["share"], against)
    both = counted & ~np.isnan(other) & ~np.isnan(own)
    return {
        "share": float(own.where(both).mean()),
        "share_against": float(other.where(both).mean()),
    }


def _accuracies(outcome: xr.Dataset, one: xr.Dataset, against: str) -> dict[str, float]:
    """Accuracy of the condition and of what it is held against, over the prompts of both."""
    other = outcome["correct_no_edit"].astype(float)
    if against != NO_EDIT:
        other = _of_control(one["correct"], against)
    own = of_conditions(one["correct"])
    both = outcome["counted"] & ~np.isnan(other) & ~np.isnan(own)
    return {
        "accuracy": mean_of(own, outcome, both),
        "accuracy_against": mean_of(other, outcome, both),
    }


def by_condition(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each condition."""
    groups = itertools.groupby(rows, key=lambda row: str(row["condition"]))
    return {condition: list(group) for condition, group in groups}
