"""Results of :func:`neuroglot.classify`: the share of neurons in each category."""

from __future__ import annotations

import altair as alt
import pandas as pd
import xarray as xr

from neuroglot.reporting.cells import small_percent
from neuroglot.reporting.kind import Figures, Group, Kind, Sheet
from neuroglot.reporting.style import (
    CATEGORY_LABELS,
    HEIGHT,
    WIDTH,
    category_colour,
    dashes,
    dimmed,
    frame_of,
    language_lines,
    layer_axis,
    legend_filter,
    panels,
    titled,
)
from neuroglot.reporting.table import Column, Table
from neuroglot.sharing.bits import CATEGORIES

BASELINES = {
    "fraction": "measured",
    "fraction_if_items_shuffled": "items shuffled",
    "fraction_if_layer_rate": "layer rate only",
}


COLUMNS = (
    Column("category", ("category",)),
    Column("fraction", ("fraction",), small_percent),
    Column("if items shuffled", ("if_items_shuffled",), small_percent),
    Column("if layer rate", ("if_layer_rate",), small_percent),
    Column("repetition", ("repetition",), small_percent),
)
EXPLAINED = (
    "If items shuffled: the fraction with each language's items permuted, so with the same "
    "languages and template but other content. If layer rate: the fraction for independent "
    "languages with the layer's rates of activity. Repetition: the share of neurons that are in "
    "the category for every item.",
    "Partial-shared can lie below its baselines: if languages agree on a neuron more often than by "
    "chance, it is more often active in all or in no language, and less often in only some.",
)


def sharing_rows(sharing: xr.Dataset) -> list[dict[str, object]]:
    """One row for each category: fraction, baselines and repetition, over items and layers."""
    names = {name.removeprefix("fraction_"): name for name in (*BASELINES, "repetition")}
    return [
        {"category": category}
        | {key: float(sharing[name].sel(category=category).mean()) for key, name in names.items()}
        for category in CATEGORIES
    ]


def tables(runs: Group) -> list[Table]:
    """A table of the share of neurons in each category for every run."""
    title = "share of neurons, mean over items and layers"
    return [
        Table(f"{run}: {title}", COLUMNS, sharing_rows(sharing), explained=EXPLAINED)
        for run, sharing in runs.items()
    ]


def layers(sharing: xr.Dataset) -> pd.DataFrame:
    """One row for each layer and category: fraction, baselines and repetition."""
    fraction = sharing["fraction"]
    data = xr.Dataset(
        {
            "mean": fraction.mean("item"),
            "min": fraction.min("item"),
            "max": fraction.max("item"),
            "if_items_shuffled": sharing["fraction_if_items_shuffled"],
            "if_layer_rate": sharing["fraction_if_layer_rate"],
            "repetition": sharing["repetition"],
        }
    )
    return data.to_dataframe().reset_index()


def fractions_by_layer(runs: Group) -> alt.TopLevelMixin:
    """Category fractions: mean over items with the min-max band, with a panel for each run."""
    fractions = {run: sharing["fraction"] for run, sharing in runs.items()}
    frame = frame_of({run: fraction.mean("item") for run, fraction in fractions.items()}, "mean")
    low = frame_of({run: fraction.min("item") for run, fraction in fractions.items()}, "min")
    high = frame_of({run: fraction.max("item") for run, fraction in fractions.items()}, "max")
    frame = frame.assign(min=low["min"], max=high["max"])
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
    return titled(
        (band + line)
        .properties(width=WIDTH, height=HEIGHT)
        .add_params(picked)
        .facet(**panels(runs)),
        "Sharing by layer",
        "mean over items, band from least to most",
    )


def baselines_by_layer(runs: Group) -> alt.TopLevelMixin:
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
    # Each category has a row, whose panels share one scale.
    rows = [
        _baseline_row(frame[frame["category"] == CATEGORY_LABELS[name]], list(runs), name)
        for name in ("all_shared", "partial_shared")
    ]
    note = "what translations share is the difference to 'items shuffled'"
    return titled(alt.vconcat(*rows), "Sharing beside its baselines", note)


def _lines_by_kind(
    frame: pd.DataFrame, picked: alt.Parameter, *, title: str, tooltip_format: str
) -> alt.Chart:
    """A panel of lines over layers, with several kinds of share for each category."""
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
        .facet(**panels(runs))
    )
    return row


def activity_by_language(runs: Group) -> alt.TopLevelMixin:
    """The share of neurons active in each language, and the all-shared share of these."""
    variables = {"active": "active neurons", "shared_of_active": "all-shared among active"}
    picked = legend_filter("language")
    rows: list[alt.FacetChart] = []
    for variable, label in variables.items():
        means = {run: sharing[variable].mean("item") for run, sharing in runs.items()}
        frame = frame_of(means, "share")
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
            lines = lines.add_params(picked)  # only once, because both rows share one legend
        rows.append(lines.facet(**panels(runs)))
    note = "mean over items; click a language in the legend to pick it out"
    return titled(alt.vconcat(*rows), "Activity by language", note)


def repetition_by_layer(runs: Group) -> alt.TopLevelMixin:
    """The share of neurons in a category for every item, beside the category's mean share."""
    arrays = {
        "in the category for every item": {
            run: sharing["repetition"] for run, sharing in runs.items()
        },
        "mean share": {run: sharing["fraction"].mean("item") for run, sharing in runs.items()},
    }
    frame = pd.concat(
        [frame_of(by_run, "share").assign(kind=kind) for kind, by_run in arrays.items()],
        ignore_index=True,
    )
    picked = legend_filter("category")
    chart = (
        _lines_by_kind(frame, picked, title="share of the layer's neurons", tooltip_format=".1%")
        .encode(color=category_colour(alt.Legend()), strokeDash=dashes(list(arrays)))
        .facet(**panels(runs))
    )
    note = "solid: in the category for every item; dashed: mean share over items"
    return titled(chart, "Repetition over items", note)


def language_overlap(runs: Group) -> alt.TopLevelMixin:
    """The Jaccard index of the active neurons of two languages, mean over layers and items."""
    overlaps = {run: sharing["overlap"].mean("layer") for run, sharing in runs.items()}
    frame = frame_of(overlaps, "jaccard")
    frame = frame[frame["language"] != frame["language_other"]]
    languages = list(map(str, next(iter(runs.values()))["language"].to_numpy()))
    size = max(WIDTH, 24 * len(languages))
    domain = [float(frame["jaccard"].min()), float(frame["jaccard"].max())]
    base = alt.Chart(frame).encode(
        x=alt.X("language:N", title=None, sort=languages, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("language_other:N", title=None, sort=languages),
    )
    heat = base.mark_rect().encode(
        color=alt.Color(
            "jaccard:Q",
            title="Jaccard",
            scale=alt.Scale(scheme="blues", domain=domain),
            legend=alt.Legend(format=".0%"),
        ),
        tooltip=[
            "run:N",
            "language:N",
            "language_other:N",
            alt.Tooltip("jaccard:Q", format=".1%"),
        ],
    )
    dark = domain[0] + 0.55 * (domain[1] - domain[0])
    text = base.mark_text(fontSize=9).encode(
        text=alt.Text("jaccard:Q", format=".0%"),
        color=alt.condition(f"datum.jaccard > {dark}", alt.value("#ffffff"), alt.value("#111111")),
    )
    return titled(
        (heat + text)
        .properties(width=size, height=size)
        .facet(facet=alt.Facet("run:N", title=None, sort=list(runs)), columns=2)
        .resolve_scale(x="independent", y="independent"),  # runs may have different languages
        "Language overlap",
        "Jaccard index of the neurons active in two languages, mean over items and layers",
    )


def figures(_: str, runs: Group) -> Figures:
    """Figures of sharing by layer, and of the overlap of languages."""
    return {
        "baselines": baselines_by_layer(runs),
        "fractions": fractions_by_layer(runs),
        "activity": activity_by_language(runs),
        "repetition": repetition_by_layer(runs),
        "overlap": language_overlap(runs),
    }


SHARING = Kind(
    "sharing",
    tables=tables,
    figures=figures,
    records=lambda sharing: {"categories": sharing_rows(sharing)},
    sheet=Sheet(
        "layers",
        layers,
        ("run", "layer", "category", "mean", "min", "max"),
        is_always_there=True,
    ),
)
