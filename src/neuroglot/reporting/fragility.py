"""Figure of the neurons whose category depends on rounding."""

from __future__ import annotations

import altair as alt
import pandas as pd
import xarray as xr

from neuroglot.reporting.style import (
    HEIGHT,
    LINE_COLOURS,
    WIDTH,
    dashes,
    dimmed,
    layer_axis,
    legend_filter,
    styled,
)

MARGINS = {
    "margin_largest": "largest where flipped",
    "margin_median": "median where flipped",
    "value_median": "median of all",
}


def fragility_by_layer(found: xr.Dataset) -> alt.TopLevelMixin:
    """Share of flipped categories, and how near to the threshold the flipped values were."""
    frame = found[["category_flips", "n_category_flips", *MARGINS]].to_dataframe().reset_index()
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
    title = alt.TitleParams("Neurons that depend on rounding", subtitle=note, offset=14)
    return styled(alt.hconcat(*panels).properties(title=title))


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
