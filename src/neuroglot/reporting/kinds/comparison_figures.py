"""Figures of compared runs."""

from __future__ import annotations

import itertools
from typing import Any

import altair as alt
import pandas as pd
import xarray as xr

from neuroglot.reporting.cells import percent
from neuroglot.reporting.kind import Figures
from neuroglot.reporting.style import (
    CATEGORY_LABELS,
    HEIGHT,
    LINE_COLOURS,
    WHOLE,
    WIDTH,
    category_colour,
    dashes,
    dimmed,
    layer_axis,
    legend_filter,
    panels,
    titled,
)
from neuroglot.sharing.bits import CATEGORIES

DOTS = alt.Legend(symbolType="circle", symbolStrokeWidth=0, symbolSize=70)
# The text of a mark for screen readers. Vega-Lite's default text takes a backslash in the title of
# an axis for the beginning of an escape.
SAID = alt.Description("said:N")
ENDS = ("", "_low", "_high")
CELL = 62  # width of a cell of the flow, in pixels
POINTS = alt.Axis(labelExpr="datum.value == 0 ? '0' : format(100 * datum.value, '+~g')")


def run_names(compared: xr.Dataset) -> list[str]:
    """The runs of a comparison, in order."""
    return [str(run) for run in compared["run"].to_numpy()]


def flow_rows(compared: xr.Dataset, run: str) -> list[dict[str, Any]]:
    """One row for each pair of categories before and after, with the share of neurons.

    ``of_category`` is the share of the category before, and ``of_all`` that of all neurons.
    """
    flow = compared["flow"].sel(run=run).mean("layer")
    share = flow / flow.sum("category_after")
    return [
        {
            "category": before,
            "category_after": after,
            "of_category": float(share.sel(category=before, category_after=after)),
            "of_all": float(flow.sel(category=before, category_after=after)),
        }
        for before in CATEGORIES[::-1]
        for after in CATEGORIES[::-1]
    ]


def change_by_layer(compared: xr.Dataset, name: str) -> alt.TopLevelMixin:
    """The change of the share of each category from the first run, by layer."""
    names = {f"layer_fraction_change{end}": f"change{end}" for end in ENDS}
    changes = compared[list(names)].rename(names).isel(run=slice(1, None))
    frame = changes.drop_vars("model", errors="ignore").to_dataframe().reset_index()
    frame["category"] = frame["category"].map(CATEGORY_LABELS)
    picked = legend_filter("category")
    title = "change (points)"
    base = alt.Chart(frame).encode(x=layer_axis(frame), color=category_colour(alt.Legend()))
    band = base.mark_area(opacity=0.18).encode(
        y=alt.Y("change_low:Q", title=title), y2="change_high:Q"
    )
    line = base.mark_line(point=True).encode(
        y=alt.Y("change:Q", title=title, axis=POINTS),
        opacity=dimmed(picked),
        tooltip=["run:N", "layer:Q", "category:N",
                 *(alt.Tooltip(f"change{end}:Q", format="+.2%") for end in ENDS)],
    )  # fmt: skip
    zero = alt.Chart(frame).mark_rule(color="#888888", strokeDash=[3, 3]).encode(y=alt.datum(0))
    runs = run_names(compared)
    return titled(
        (zero + band + line)
        .properties(width=WIDTH, height=HEIGHT)
        .add_params(picked)
        .facet(**panels(runs[1:])),
        f"{name}: what has changed by layer",
        f"share of the layer's neurons, less that of {runs[0]}; band: 95 % over subjects",
    )


def sharing_and_accuracy(compared: xr.Dataset, name: str) -> alt.TopLevelMixin:
    """Sharing and accuracy of each language in each run."""
    frame = compared[["shared_of_active", "accuracy"]].to_dataframe().reset_index()
    runs = run_names(compared)
    frame["place"] = frame["run"].map(runs.index)
    x = alt.X("shared_of_active:Q", title="all-shared, of active neurons",
              axis=alt.Axis(format="%"), scale=alt.Scale(zero=False))  # fmt: skip
    y = alt.Y("accuracy:Q", title="accuracy", axis=alt.Axis(format="%"),
              scale=alt.Scale(zero=False))  # fmt: skip
    picked = legend_filter("run")
    colours = itertools.islice(itertools.cycle(LINE_COLOURS), len(runs))
    scale = alt.Scale(domain=runs, range=list(colours))
    base = alt.Chart(frame).encode(x=x, y=y)
    paths = base.mark_line(color="#bbbbbb", strokeWidth=1).encode(
        detail="language:N", order="place:Q"
    )
    dots = base.mark_point(filled=True, size=45).encode(
        color=alt.Color("run:N", title=None, scale=scale, legend=DOTS),
        opacity=dimmed(picked),
        tooltip=["run:N", "language:N", alt.Tooltip("shared_of_active:Q", format=".1%"),
                 alt.Tooltip("accuracy:Q", format=".1%")],
    )  # fmt: skip
    labels = base.mark_text(dy=-9, fontSize=10, color="#444444").encode(
        text="language:N"
    ).transform_filter(alt.datum.place == len(runs) - 1)  # fmt: skip
    return titled(
        (paths + dots + labels)
        .properties(width=2.8 * WIDTH, height=2.5 * HEIGHT)
        .add_params(picked),
        f"{name}: sharing and accuracy",
        "one dot per language and run; lines join the runs of a language",
    )


def flow_figure(compared: xr.Dataset, name: str) -> alt.TopLevelMixin:
    """The categories after, for the neurons of each category before, over all layers."""
    runs = run_names(compared)[1:]
    frame = pd.DataFrame([{"run": run, **row} for run in runs for row in flow_rows(compared, run)])
    labels = [CATEGORY_LABELS[category] for category in reversed(CATEGORIES)]
    for side in ("category", "category_after"):
        frame[side] = frame[side].map(CATEGORY_LABELS)
    frame["shown"] = frame["of_category"].map(percent)
    frame["said"] = [
        f"{row.run}: {row.shown} of {row.category} became {row.category_after}"
        for row in frame.itertuples()
    ]
    base = alt.Chart(frame).encode(
        x=alt.X("category_after:N", title="after", sort=labels, axis=alt.Axis(labelAngle=-30)),
        y=alt.Y("category:N", title=f"in {run_names(compared)[0]}", sort=labels),
        description=SAID,
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "of_category:Q", title="of the category",
            scale=alt.Scale(scheme="blues", domain=[0, 1]),
            legend=alt.Legend(format="%", symbolType="square"),
        ),
        tooltip=["run:N", "category:N", "category_after:N",
                 alt.Tooltip("of_category:Q", title="of the category", format=".2%"),
                 alt.Tooltip("of_all:Q", title="of all neurons", format=".3%")],
    )  # fmt: skip
    texts = base.mark_text(fontSize=11).encode(
        text="shown:N",
        color=alt.condition(alt.datum.of_category > 0.55, alt.value("white"), alt.value("#222222")),
    )
    return titled(
        (cells + texts)
        .properties(width=CELL * len(labels), height=CELL * len(labels) * 0.6)
        .facet(**panels(runs)),
        f"{name}: what the neurons of each category became",
        "share of each row's neurons, mean over items, all layers together",
    )


def series(compared: xr.Dataset, name: str) -> alt.TopLevelMixin:
    """All-shared neurons with their baseline, and accuracy, along a series of checkpoints."""
    x, place = str(compared.attrs["x"]), "place"  # Vega might misread the user's name for x
    kinds = {"measured": "fraction", "items shuffled": "fraction_if_items_shuffled"}
    parts = [
        compared[variable].sel(category="all_shared", drop=True).to_dataframe(name="value")
        .reset_index().assign(kind=kind)
        for kind, variable in kinds.items()
    ]  # fmt: skip
    shared = pd.concat(parts, ignore_index=True).dropna(subset=["value"])
    right = compared["accuracy_overall"].to_dataframe(name="value").reset_index()
    panels = []
    for frame, title, form in (
        (shared, "all-shared, of all neurons", ".1%"), (right, "accuracy, all languages", "%")
    ):  # fmt: skip
        frame["said"] = [
            f"{run}: {value:{form}}"
            for run, value in zip(frame["run"], frame["value"], strict=True)
        ]
        frame[place] = frame["run"].map(
            dict(zip(run_names(compared), compared[x].to_numpy(), strict=True))
        )
        encoded: dict[str, Any] = {"strokeDash": dashes(list(kinds))} if "kind" in frame else {}
        panels.append(
            alt.Chart(frame)
            .mark_line(point=alt.OverlayMarkDef(color=LINE_COLOURS[0]), color=LINE_COLOURS[0])
            .encode(
                x=alt.X(f"{place}:Q", title=x, axis=WHOLE),
                y=alt.Y("value:Q", title=title, axis=alt.Axis(format=form)),
                tooltip=["run:N", alt.Tooltip("value:Q", format=".2%")],
                description=SAID,
                **encoded,
            )
            .properties(width=1.5 * WIDTH, height=HEIGHT)
        )
    note = "dashed: with each language's items shuffled"
    return titled(alt.hconcat(*panels), f"{name}: along the {x}s", note)


def figures(compared: xr.Dataset, name: str) -> Figures:
    """The figures of a comparison, by what they show."""
    charts = {"sharing-and-accuracy": sharing_and_accuracy(compared, name)}
    if compared.attrs["x"]:
        charts["series"] = series(compared, name)
    if "layer_fraction" in compared:
        charts["change-by-layer"] = change_by_layer(compared, name)
    if "flow" in compared:
        charts["flow"] = flow_figure(compared, name)
    return charts
