"""Results of :func:`neuroglot.compare` for recordings: sharing in several tasks."""

from __future__ import annotations

import altair as alt
import xarray as xr

from neuroglot.reporting.kind import Kind
from neuroglot.reporting.style import (
    CATEGORY_LABELS,
    HEIGHT,
    LINE_COLOURS,
    WIDTH,
    dimmed,
    layer_axis,
    legend_filter,
    titled,
)
from neuroglot.sharing.bits import CATEGORIES


def task_comparison(compared: xr.Dataset) -> alt.TopLevelMixin:
    """The category fractions of several tasks by layer, with a panel for each category."""
    frame = compared[["mean", "min", "max"]].to_dataframe().reset_index()
    frame["category"] = frame["category"].map(CATEGORY_LABELS)
    picked = legend_filter("task")
    colour = alt.Color("task:N", title="task", scale=alt.Scale(range=LINE_COLOURS), sort=None)
    base = alt.Chart(frame).encode(x=layer_axis(frame), color=colour)
    band = base.mark_area().encode(
        y=alt.Y("min:Q", title="share of the layer's neurons", axis=alt.Axis(format="%")),
        y2="max:Q",
        opacity=alt.condition(picked, alt.value(0.12), alt.value(0.02)),
    )
    line = base.mark_line(point=alt.OverlayMarkDef(size=18)).encode(
        y="mean:Q",
        opacity=dimmed(picked),
        tooltip=[
            "task:N",
            "layer:Q",
            *(alt.Tooltip(f"{c}:Q", format=".1%") for c in ("mean", "min", "max")),
        ],
    )
    order = [CATEGORY_LABELS[name] for name in reversed(CATEGORIES)]
    return titled(
        (band + line)
        .properties(width=WIDTH, height=HEIGHT)
        .add_params(picked)
        .facet(facet=alt.Facet("category:N", title=None, sort=order), columns=2)
        .resolve_scale(y="independent"),
        "Sharing by task",
        "mean over items, band from least to most; same languages, equally many items",
    )


TASK_COMPARISON = Kind(
    "task comparison",
    figures=lambda _, runs: {
        f"tasks-{name}": task_comparison(compared) for name, compared in runs.items()
    },
)
