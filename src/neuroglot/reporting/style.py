"""Colours, labels and other elements that all figures share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import altair as alt
import pandas as pd
import xarray as xr

from neuroglot.sharing.bits import CATEGORIES

# Okabe and Ito's colour-blind safe palette.
CATEGORY_COLOURS = {
    "all_shared": "#0072B2",
    "partial_shared": "#56B4E9",
    "specific": "#E69F00",
    "non_activated": "#999999",
}
LINE_COLOURS = [
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
    "#332288", "#999933", "#882255", "#999999", "#DDCC77",
]  # fmt: skip
CATEGORY_LABELS = {name: name.replace("_", "-") for name in CATEGORIES}

# Paul Tol's "muted" palette, black in place of its pale grey, then five of his "vibrant" one.
LANGUAGE_COLOURS = [
    "#332288", "#CC6677", "#DDCC77", "#117733", "#88CCEE",
    "#882255", "#44AA99", "#999933", "#AA4499", "#000000",
    "#EE7733", "#0077BB", "#CC3311", "#33BBEE", "#BBBBBB",
]  # fmt: skip

PATTERNS = [[1, 0], [6, 3], [2, 3]]  # solid, dashed and dotted lines
WIDTH, HEIGHT = 200, 170
MOST_LAYER_LABELS = 9
WHOLE = alt.Axis(format="d", tickMinStep=1)  # an axis of whole numbers
FONT = "DejaVu Sans, Verdana, sans-serif"

SCORE_LABELS = {
    "contribution": "contribution",
    "effective": "effective score",
    "direct_logit": "direct logit",
    "gradient_x_activation": "gradient × activation",
    "integrated_gradients": "integrated gradients",
}


def main_score(attribution: xr.Dataset) -> str:
    """The score of figures that show one score: the effective score if there is one."""
    scores = [str(name) for name in attribution["score"].to_numpy()]
    return "effective" if "effective" in scores else scores[0]


def columns(n_panels: int) -> int:
    """The number of panels in a row: all panels if there are up to four, otherwise three."""
    return n_panels if n_panels <= 4 else 3


def panels(runs: Iterable[str]) -> dict[str, Any]:
    """The arguments of a chart's ``facet`` for one panel for each run."""
    names = list(runs)
    return {
        "facet": alt.Facet("run:N", title=None, sort=names),
        "columns": columns(len(names)),
    }


def titled(chart: Any, title: str, subtitle: str | list[str]) -> alt.TopLevelMixin:
    """The chart with a title and a subtitle, in the project's fonts and colours."""
    chart = chart.properties(title=alt.TitleParams(title, subtitle=subtitle, offset=14))
    legend = {
        "labelFontSize": 11,
        "titleFontSize": 12,
        "labelLimit": 300,
        # Without these three, symbols would be as faint as the bands.
        "symbolType": "stroke",
        "symbolOpacity": 1,
        "symbolStrokeWidth": 2.5,
    }
    axis = {"labelFontSize": 11, "titleFontSize": 12, "gridColor": "#eeeeee", "titlePadding": 8}
    fonts = {"fontSize": 14, "anchor": "start", "subtitleFontSize": 12, "subtitleColor": "#555555"}
    configured: alt.TopLevelMixin = (
        chart.configure(font=FONT, background="white")
        .configure_axis(**axis)
        .configure_legend(**legend)
        .configure_title(**fonts)
        .configure_header(labelFontSize=12, titleFontSize=12, labelFontWeight="bold")
        .configure_view(stroke="#dddddd")
    )
    return configured


def frame_of(runs: Mapping[str, xr.DataArray], value: str) -> pd.DataFrame:
    """One row for each number, with the columns ``run`` and those of the dimensions."""
    parts = [array.to_dataframe(name=value).reset_index() for array in runs.values()]
    frame = pd.concat(parts, keys=list(runs), names=["run", "row"]).reset_index("run")
    if "category" in frame:
        frame["category"] = frame["category"].map(CATEGORY_LABELS)
    return frame.reset_index(drop=True)


def stacked(runs: Mapping[str, Any], make: Callable[[Any], pd.DataFrame]) -> pd.DataFrame:
    """The rows that ``make`` makes from each run, with a last column ``run``."""
    frames = [make(data).assign(run=run) for run, data in runs.items()]
    return pd.concat(frames, ignore_index=True)


def layer_axis(frame: pd.DataFrame) -> alt.X:
    """The axis of the column ``layer``; of many layers, only some have a label."""
    layers = sorted({int(layer) for layer in frame["layer"]})
    shown = layers[:: -(-len(layers) // MOST_LAYER_LABELS)]
    return alt.X("layer:Q", title="layer", axis=alt.Axis(values=shown, format="d"))


def category_colour(legend: alt.Legend | None = None) -> alt.Color:
    """The colour by category; without a legend if panels name the category."""
    labels = [CATEGORY_LABELS[name] for name in CATEGORY_COLOURS]
    scale = alt.Scale(domain=labels, range=list(CATEGORY_COLOURS.values()))
    return alt.Color("category:N", title="category", scale=scale, legend=legend)


def language_lines(languages: list[str]) -> dict[str, Any]:
    """The colour by language, and a line pattern if there are more languages than colours."""
    n_colours = len(LANGUAGE_COLOURS)
    order = range(len(languages))
    colours = alt.Scale(domain=languages, range=[LANGUAGE_COLOURS[i % n_colours] for i in order])
    legend = alt.Legend(columns=-(-len(languages) // n_colours), symbolLimit=0)
    colour = alt.Color("language:N", title="language", scale=colours, legend=legend)
    channels: dict[str, Any] = {"color": colour}
    if len(languages) > n_colours:
        patterns = [PATTERNS[i // n_colours % len(PATTERNS)] for i in order]
        # With the domain of the colours, so that Vega-Lite draws one legend for both.
        scale = alt.Scale(domain=languages, range=patterns)
        channels["strokeDash"] = alt.StrokeDash(
            "language:N", title="language", scale=scale, legend=legend
        )
    return channels


def dashes(kinds: list[str], legend: alt.Legend | None = None) -> alt.StrokeDash:
    """The line patterns by the column ``kind``: solid, dashed and dotted.

    Beside a legend of colours, Vega-Lite draws the legend of patterns without its lines. The
    subtitle must then explain the patterns.
    """
    scale = alt.Scale(domain=kinds, range=PATTERNS[: len(kinds)])
    return alt.StrokeDash("kind:N", title="share of neurons", scale=scale, legend=legend)


def legend_filter(field: str) -> alt.Parameter:
    """A selection of the series whose entry in the legend is clicked."""
    return alt.selection_point(fields=[field], bind="legend")


def dimmed(picked: alt.Parameter) -> Any:
    """The opacity of series, which are faint if another one is selected."""
    return alt.condition(picked, alt.value(1.0), alt.value(0.12))
