"""Figure of the neurons whose category depends on rounding."""

from __future__ import annotations

import altair as alt
import pandas as pd
import xarray as xr

from neuroglot.report.style import (
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
    colour = alt.Color(
        "comparison:N", title="changed", scale=alt.Scale(range=LINE_COLOURS), sort=None
    )
    flips = (
        alt.Chart(frame)
        .mark_line(point=True)
        .encode(
            x=layer_axis(),
            y=alt.Y("category_flips:Q", title="flipped categories", axis=alt.Axis(format="%")),
            color=colour,
            opacity=dimmed(picked),
            tooltip=[
                "comparison:N",
                "layer:Q",
                alt.Tooltip("category_flips:Q", format=".3%"),
                "n_category_flips:Q",
            ],
        )
        .properties(width=1.5 * WIDTH, height=HEIGHT)
        .add_params(picked)
    )
    margins = pd.melt(frame, ["comparison", "layer"], list(MARGINS), "kind", "margin").dropna()
    margins["kind"] = margins["kind"].map(MARGINS)
    distance = (
        alt.Chart(margins)
        .mark_line(point=alt.OverlayMarkDef(size=18))
        .encode(
            x=layer_axis(),
            y=alt.Y(
                "margin:Q",
                title="|site value − τ|",
                scale=alt.Scale(type="log"),
                axis=alt.Axis(format="~e", tickCount=4),
            ),
            color=colour,
            strokeDash=dashes(list(MARGINS.values())),
            opacity=dimmed(picked),
            tooltip=["comparison:N", "kind:N", "layer:Q", alt.Tooltip("margin:Q", format=".1e")],
        )
        .properties(width=1.5 * WIDTH, height=HEIGHT)
    )
    note = [
        "left: share of an item's neurons whose category changes; right: distance from τ,",
        "solid: the largest where activity flipped; dashed: median there; dotted: of all values",
    ]
    title = alt.TitleParams("Neurons that depend on rounding", subtitle=note, offset=14)
    return styled(alt.hconcat(flips, distance).properties(title=title))
