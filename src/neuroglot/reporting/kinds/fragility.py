"""Results of :func:`neuroglot.fragility`: neurons whose category depends on rounding."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.reporting.cells import UNKNOWN, small_percent
from neuroglot.reporting.kind import Group, Kind
from neuroglot.reporting.style import (
    HEIGHT,
    LINE_COLOURS,
    WIDTH,
    dashes,
    dimmed,
    layer_axis,
    legend_filter,
    titled,
)
from neuroglot.reporting.table import Column, Table

MARGINS = {
    "margin_largest": "largest where flipped",
    "margin_median": "median where flipped",
    "value_median": "median of all",
}

COLUMNS = (
    Column("changed", ("changed",)),
    Column("flipped categories", ("flipped_categories",), small_percent),
    Column("number", ("number",)),
    Column("margin at most", ("margin_at_most",)),
    Column("median distance", ("median_distance",)),
)
EXPLAINED = (
    "Flipped categories: the share of neurons whose category changes, over all neurons and items. "
    "Margin at most: the largest distance from the threshold of a value whose activity flipped. "
    "Median distance: that of all values from the threshold.",
)


def fragility_rows(flips: xr.Dataset) -> list[dict[str, Any]]:
    """One row for each comparison, over all layers: flipped categories and distances from τ."""
    rows = []
    for name in flips["comparison"].to_numpy():
        compared = flips.sel(comparison=name)
        largest = float(compared["margin_largest"].max())
        rows.append(
            {
                "changed": str(name),
                "flipped_categories": float(compared["category_flips"].mean()),
                "number": int(compared["n_category_flips"].sum()),
                "margin_at_most": UNKNOWN if np.isnan(largest) else f"{largest:.2g}",
                "median_distance": f"{float(compared['value_median'].median()):.2g}",
            }
        )
    return rows


def tables(runs: Group) -> list[Table]:
    """A table of flipped categories for every run."""
    title = "what depends on rounding"
    return [
        Table(f"{run}: {title}", COLUMNS, fragility_rows(flips), explained=EXPLAINED)
        for run, flips in runs.items()
    ]


def fragility_by_layer(flips: xr.Dataset) -> alt.TopLevelMixin:
    """The share of flipped categories, and the distances of flipped values from the threshold."""
    frame = flips[["category_flips", "n_category_flips", *MARGINS]].to_dataframe().reset_index()
    picked = legend_filter("comparison")
    panels = [
        panel(frame, picked).encode(
            x=layer_axis(frame),
            color=alt.Color(
                "comparison:N", title="changed", scale=alt.Scale(range=LINE_COLOURS), sort=None
            ),
            opacity=dimmed(picked),
        )
        for panel in (_flips, _margins)
    ]
    note = [
        "left: share of an item's neurons whose category changes; right: distance from τ,",
        "solid: the largest where activity flipped; dashed: median there; dotted: of all values",
    ]
    return titled(alt.hconcat(*panels), "Neurons that depend on rounding", note)


def _flips(frame: pd.DataFrame, picked: alt.Parameter) -> alt.Chart:
    tooltip = [
        "comparison:N",
        "layer:Q",
        alt.Tooltip("category_flips:Q", format=".3%"),
        "n_category_flips:Q",
    ]
    y = alt.Y("category_flips:Q", title="flipped categories", axis=alt.Axis(format="%"))
    chart: alt.Chart = (
        alt.Chart(frame)
        .mark_line(point=True)
        .encode(y=y, tooltip=tooltip)
        .properties(width=1.5 * WIDTH, height=HEIGHT)
        .add_params(picked)
    )
    return chart


def _margins(frame: pd.DataFrame, _picked: alt.Parameter) -> alt.Chart:
    margins = pd.melt(frame, ["comparison", "layer"], list(MARGINS), "kind", "margin").dropna()
    margins["kind"] = margins["kind"].map(MARGINS)
    y = alt.Y(
        "margin:Q",
        title="|site value − τ|",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(format="~e", tickCount=4),
    )
    tooltip = ["comparison:N", "kind:N", "layer:Q", alt.Tooltip("margin:Q", format=".1e")]
    chart: alt.Chart = (
        alt.Chart(margins)
        .mark_line(point=alt.OverlayMarkDef(size=18))
        .encode(y=y, strokeDash=dashes(list(MARGINS.values())), tooltip=tooltip)
        .properties(width=1.5 * WIDTH, height=HEIGHT)
    )
    return chart


FRAGILITY = Kind(
    "fragility",
    tables=tables,
    figures=lambda _, runs: {
        f"fragility-{run}": fragility_by_layer(flips) for run, flips in runs.items()
    },
    records=lambda flips: {"fragility": fragility_rows(flips)},
)
