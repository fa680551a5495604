"""What the conditions of an outcome differ in, by the coordinates that they were given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

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


def along(outcome: xr.Dataset) -> str | None:
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
        own = along(outcome)
        return CONDITIONS if own is None else f"by-{own.replace('_', '-')}"
    kind = KINDS.get(unusual(outcome), VARIANTS)
    if kind == DOSES and (outcome["rank_by"] != "contribution").any():
        return DOSES_BY_ANSWER
    return kind
