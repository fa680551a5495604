"""The rows of interventions, one for each condition and control, and the names in them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.answering.observations import OVER_RELATIONS
from neuroglot.interventions.controls import NO_EDIT
from neuroglot.interventions.effects import by_control, of_conditions
from neuroglot.reporting.accuracy import mean_of
from neuroglot.reporting.table import Row

DEACTIVATION, BANDS, VARIANTS = "deactivation", "layer-bands", "variants"
DOSES, DOSES_BY_ANSWER = "dose-response", "dose-response-by-answer"
AMPLIFICATION, KEEP_ONLY, FIXED, SCALED = "amplification", "keep-only", "fixed-sets", "scaled"
CONDITIONS = "conditions"  # the name of outcomes of a user's own conditions
USUAL = {"top": 1.0, "layers": "all", "membership": np.nan, "keep_only": 0, "factor": 0.0}
"""Coordinates of the conditions of :mod:`neuroglot.interventions.presets`, with default values."""
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


def coordinate_of(outcome: xr.Dataset) -> str | None:
    """The name of the user's coordinate that varies between conditions, if it is the only one.

    A coordinate ``category`` does not count.
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
    """The name of an outcome's group, which depends on how its conditions differ."""
    if "development_accuracy" in outcome:
        return AMPLIFICATION
    if not is_of_preset(outcome):
        own = coordinate_of(outcome)
        return CONDITIONS if own is None else f"by-{own.replace('_', '-')}"
    unusual = tuple(
        name
        for name, usual in USUAL.items()
        if not pd.Series(outcome[name].to_numpy()).isin([usual]).all()
    )
    kind = KINDS.get(unusual, VARIANTS)
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
    """The label of a control, or of no edit."""
    return AGAINST_LABELS.get(against, against.replace("_", " "))


def condition_label(condition: str) -> str:
    """The label of a condition."""
    for name in ("all_shared", "partial_shared", "non_activated"):
        condition = condition.replace(name, name.replace("_", "-"))
    return re.sub(r"layers (\d+)(?![-\d,])", r"layer \1", condition.replace("_", " "))


def effect_rows(outcome: xr.Dataset) -> list[dict[str, Any]]:
    """One row for each condition and each control, over all languages.

    Returns:
        Dictionaries with the names ``condition`` and ``against``; the mean number of ``neurons`` in
        a prompt; their share of all contributions, ``share``, and that of the control's neurons,
        ``share_against``; ``accuracy`` and ``accuracy_against``, over the prompts that have both;
        ``difference`` with its intervals and p-values, ``verdict`` and ``sufficient_subjects``; the
        difference, interval and p-values of the control's placebo; the number of ``prompts`` among
        ``all_prompts``, and of ``subjects``; ``equivalent_within`` and ``reason``.
    """
    rows, counted = [], outcome["counted"]
    for condition in outcome["condition"].to_numpy():
        edited = outcome.sel(condition=condition)
        for against in map(str, outcome["against"].to_numpy()):
            tested = edited.sel(against=against)
            placebo = {} if against == NO_EDIT else edited.sel(kind=against)[list(PLACEBO)]
            rows.append(
                {
                    "condition": str(condition),
                    "against": against,
                    "neurons": float(edited["n_neurons"].where(counted).mean()),
                    **_shares(edited, against),
                    **_accuracies(outcome, edited, against),
                    **{n: float(tested[n]) if n in tested else np.nan for n in NUMBERS},
                    **{str(name): float(value) for name, value in placebo.items()},
                    "verdict": str(tested["verdict"].to_numpy()),
                    "equivalent_within": outcome.attrs["equivalent_within"],
                    "prompts": int(tested["n_prompts"]),
                    "all_prompts": int(counted.sum()),
                    "subjects": int(tested["n_subjects"]),
                    "reason": str(tested["reason"].to_numpy()),
                }
            )
    return rows


def _of_control(values: xr.DataArray, kind: str) -> xr.DataArray:
    """The mean over a control's draws of the values of a condition's arms (item, language)."""
    drawn = by_control(values.expand_dims("condition")).sel(kind=kind)[0]
    return drawn.mean("draw", skipna=False)


def _shares(edited: xr.Dataset, against: str) -> dict[str, float]:
    """The share of all contributions of the condition's and of the control's neurons."""
    counted = edited["counted"]
    own = of_conditions(edited["share"])
    if against == NO_EDIT:
        return {"share": float(own.where(counted).mean()), "share_against": np.nan}
    other = _of_control(edited["share"], against)
    both = counted & ~np.isnan(other) & ~np.isnan(own)
    return {
        "share": float(own.where(both).mean()),
        "share_against": float(other.where(both).mean()),
    }


def _accuracies(outcome: xr.Dataset, edited: xr.Dataset, against: str) -> dict[str, float]:
    """The accuracy of the condition and of the control, over the prompts that have both."""
    other = outcome["correct_no_edit"].astype(float)
    if against != NO_EDIT:
        other = _of_control(edited["correct"], against)
    own = of_conditions(edited["correct"])
    both = outcome["counted"] & ~np.isnan(other) & ~np.isnan(own)
    return {
        "accuracy": mean_of(own, outcome, both),
        "accuracy_against": mean_of(other, outcome, both),
    }


def by_condition(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each condition."""
    groups = itertools.groupby(rows, key=lambda row: str(row["condition"]))
    return {condition: list(group) for condition, group in groups}
