"""Results of :func:`neuroglot.classify` with ``thresholds``: sharing at several thresholds."""

from __future__ import annotations

import altair as alt
import xarray as xr

from neuroglot.reporting.kind import Group, Kind
from neuroglot.reporting.style import (
    HEIGHT,
    WIDTH,
    category_colour,
    dimmed,
    frame_of,
    legend_filter,
    panels,
    titled,
)


def threshold_sweep(sweeps: Group) -> alt.TopLevelMixin:
    """Category fractions, mean over layers, as the threshold rises."""
    frame = frame_of({run: sweep.mean("layer") for run, sweep in sweeps.items()}, "share")
    picked = legend_filter("category")
    chart = (
        alt.Chart(frame)
        .mark_line(point=True)
        .encode(
            x=alt.X("threshold:Q", title="threshold τ"),
            y=alt.Y("share:Q", title="share of all neurons", axis=alt.Axis(format="%")),
            color=category_colour(alt.Legend()),
            opacity=dimmed(picked),
            tooltip=["run:N", "threshold:Q", "category:N", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(width=WIDTH, height=HEIGHT)
        .add_params(picked)
        .facet(**panels(sweeps))
    )
    note = "mean over items and layers; active means: site value above τ"
    return titled(chart, "Sharing by threshold", note)


THRESHOLDS = Kind(
    "thresholds",
    figures=lambda _, sweeps: {"thresholds": threshold_sweep(sweeps)},
    container=xr.DataArray,
)
