"""Figures of what happens from layer to layer."""

from __future__ import annotations

import altair as alt
import pandas as pd
import xarray as xr

from neuroglot.reporting.style import (
    CATEGORY_LABELS,
    HEIGHT,
    LINE_COLOURS,
    WIDTH,
    Runs,
    category_colour,
    columns,
    dashes,
    dimmed,
    frame_of,
    heading,
    language_lines,
    layer_axis,
    legend_filter,
    styled,
)
from neuroglot.sharing.bits import CATEGORIES

BASELINES = {
    "fraction": "measured",
    "fraction_if_items_shuffled": "items shuffled",
    "fraction_if_layer_rate": "layer rate only",
}


def fractions_by_layer(runs: Runs) -> alt.TopLevelMixin:
    """Category fractions: mean over items with the min-max band, one panel a run."""
    mean = frame_of({k: v["fraction"].mean("item") for k, v in runs.items()}, "mean")
    low = frame_of({k: v["fraction"].min("item") for k, v in runs.items()}, "min")
    high = frame_of({k: v["fraction"].max("item") for k, v in runs.items()}, "max")
    frame = mean.assign(min=low["min"], max=high["max"])
    picked = legend_filter("category")
    y = alt.Y("mean:Q", title="share of the layer's neurons", axis=alt.Axis(format="%"))
    base = alt.Chart(frame).encode(x=layer_axis(frame), color=category_colour(alt.Legend()))
    band = base.mark_area(opacity=0.18).encode(
        y=alt.Y("min:Q", title="share of the layer's neurons"),
        y2="max:Q",
        opacity=alt.condition(picked, alt.value(0.18), alt.value(0.03)),
    )
    tooltip = [
        "run:N",
        "layer:Q",
        "category:N",
        *(alt.Tooltip(f"{c}:Q", format=".1%") for c in ("mean", "min", "max")),
    ]
    line = base.mark_line(point=True).encode(y=y, opacity=dimmed(picked), tooltip=tooltip)
    return styled(
        (band + line)
        .properties(width=WIDTH, height=HEIGHT)
        .add_params(picked)
        .facet(facet=alt.Facet("run:N", title=None, sort=list(runs)), columns=columns(len(runs)))
        .properties(title=heading("Sharing by layer", "mean over items, band from least to most"))
    )


def baselines_by_layer(runs: Runs) -> alt.TopLevelMixin:
    """All-shared and partial-shared fractions beside their two baselines."""
    frames = []
    for variable, label in BASELINES.items():
        arrays = {
            run: (data[variable].mean("item") if variable == "fraction" else data[variable]).sel(
                category=["all_shared", "partial_shared"]
            )
            for run, data in runs.items()
        }
        frames.append(frame_of(arrays, "share").assign(kind=label))
    frame = pd.concat(frames, ignore_index=True).dropna(subset=["share"])
    # One row a category, each with a scale of its own that its panels share.
    rows = [
        _baseline_row(frame[frame["category"] == CATEGORY_LABELS[name]], list(runs), name)
        for name in ("all_shared", "partial_shared")
    ]
    note = "what translations share is the difference to 'items shuffled'"
    title = heading("Sharing beside its baselines", note)
    return styled(alt.vconcat(*rows).properties(title=title))


def _lines_by_kind(
    frame: pd.DataFrame, picked: alt.Parameter, *, title: str, tooltip_format: str
) -> alt.Chart:
    """One panel of lines over layers, several kinds of share to a category."""
    tooltip = ["run:N", "layer:Q", "category:N", "kind:N"]
    chart: alt.Chart = (
        alt.Chart(frame)
        .mark_line(point=alt.OverlayMarkDef(size=18))
        .encode(
            x=layer_axis(frame),
            y=alt.Y("share:Q", title=title, axis=alt.Axis(format="%")),
            opacity=dimmed(picked),
            tooltip=[*tooltip, alt.Tooltip("share:Q", format=tooltip_format)],
        )
        .properties(width=WIDTH, height=HEIGHT)
        .add_params(picked)
    )
    return chart


def _baseline_row(frame: pd.DataFrame, runs: list[str], category: str) -> alt.FacetChart:
    picked = alt.selection_point(name=f"kind_{category}", fields=["kind"], bind="legend")
    kinds = dashes(list(BASELINES.values()), alt.Legend() if category == "all_shared" else None)
    row: alt.FacetChart = (
        _lines_by_kind(frame, picked, title=CATEGORY_LABELS[category], tooltip_format=".2%")
        .encode(color=category_colour(), strokeDash=kinds)
        .facet(facet=alt.Facet("run:N", title=None, sort=runs), columns=columns(len(runs)))
    )
    return row


def activity_by_language(runs: Runs) -> alt.TopLevelMixin:
    """Share of neurons active in each language, and of those the all-shared share."""
    variables = {"active": "active neurons", "shared_of_active": "all-shared among active"}
    picked = legend_filter("language")
    rows: list[alt.FacetChart] = []
    for variable, label in variables.items():
        frame = frame_of({k: v[variable].mean("item") for k, v in runs.items()}, "share")
        languages = list(dict.fromkeys(frame["language"]))
        lines = (
            alt.Chart(frame)
            .mark_line(point=alt.OverlayMarkDef(size=18))
            .encode(
                x=layer_axis(frame),
                y=alt.Y("share:Q", title=label, axis=alt.Axis(format="%")),
                opacity=dimmed(picked),
                tooltip=["run:N", "language:N", "layer:Q", alt.Tooltip("share:Q", format=".1%")],
                **language_lines(languages),
            )
            .properties(width=WIDTH, height=HEIGHT)
        )
        if not rows:
            lines = lines.add_params(picked)  # once: both rows follow the one legend
        panels = alt.Facet("run:N", title=None, sort=list(runs))
        rows.append(lines.facet(facet=panels, columns=columns(len(runs))))
    note = "mean over items; click a language in the legend to pick it out"
    title = heading("Activity by language", note)
    return styled(alt.vconcat(*rows).properties(title=title))


def repetition_by_layer(runs: Runs) -> alt.TopLevelMixin:
    """Neurons in one category for every item, beside the category's mean share."""
    arrays = {
        "in the category for every item": {k: v["repetition"] for k, v in runs.items()},
        "mean share": {k: v["fraction"].mean("item") for k, v in runs.items()},
    }
    frame = pd.concat(
        [frame_of(by_run, "share").assign(kind=kind) for kind, by_run in arrays.items()],
        ignore_index=True,
    )
    picked = legend_filter("category")
    chart = (
        _lines_by_kind(frame, picked, title="share of the layer's neurons", tooltip_format=".1%")
        .encode(color=category_colour(alt.Legend()), strokeDash=dashes(list(arrays)))
        .facet(facet=alt.Facet("run:N", title=None, sort=list(runs)), columns=columns(len(runs)))
    )
    note = "solid: in the category for every item; dashed: mean share over items"
    return styled(chart.properties(title=heading("Repetition over items", note)))


def task_comparison(compared: xr.Dataset) -> alt.TopLevelMixin:
    """The aggregated pattern of several tasks side by side: one panel a category."""
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
    note = "mean over items, band from least to most; same languages, equally many items"
    return styled(
        (band + line)
        .properties(width=WIDTH, height=HEIGHT)
        .add_params(picked)
        .facet(facet=alt.Facet("category:N", title=None, sort=order), columns=2)
        .resolve_scale(y="independent")
        .properties(title=heading("Sharing by task", note))
    )
