"""Colours and labels that mean the same in every figure."""

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

PATTERNS = [[1, 0], [6, 3], [2, 3]]  # of lines: solid, dashed, dotted
WIDTH, HEIGHT = 200, 170
MOST_LAYER_LABELS = 9
WHOLE = alt.Axis(format="d", tickMinStep=1)  # of what is counted
FONT = "DejaVu Sans, Verdana, sans-serif"

SCORE_LABELS = {
    "contribution": "contribution",
    "effective": "effective score",
    "direct_logit": "direct logit",
    "gradient_x_activation": "gradient × activation",
    "integrated_gradients": "integrated gradients",
}


def main_score(attribution: xr.Dataset) -> str:
    """The score that a figure of one score shows: the effective score where there is one."""
    known = [str(name) for name in attribution["score"].to_numpy()]
    return "effective" if "effective" in known else known[0]


def category_scale() -> alt.Scale:
    """One colour for a category, everywhere."""
    return alt.Scale(
        domain=[CATEGORY_LABELS[name] for name in CATEGORY_COLOURS],
        range=list(CATEGORY_COLOURS.values()),
    )


def columns(n_panels: int) -> int:
    """Panels in a row: all of up to four, else three."""
    return n_panels if n_panels <= 4 else 3


def panels(runs: Iterable[str]) -> dict[str, Any]:
    """One panel a run: what the ``facet`` of a chart takes."""
    names = list(runs)
    return {
        "facet": alt.Facet("run:N", title=None, sort=names),
        "columns": columns(len(names)),
    }


def styled(chart: Any) -> alt.TopLevelMixin:
    """The chart in the project's type and with quiet grid lines."""
    legend = {
        "labelFontSize": 11,
        "titleFontSize": 12,
        "labelLimit": 300,
        # Else the symbols would be as faint as the bands.
        "symbolType": "stroke",
        "symbolOpacity": 1,
        "symbolStrokeWidth": 2.5,
    }
    axis = {"labelFontSize": 11, "titleFontSize": 12, "gridColor": "#eeeeee", "titlePadding": 8}
    title = {"fontSize": 14, "anchor": "start", "subtitleFontSize": 12, "subtitleColor": "#555555"}
    configured: alt.TopLevelMixin = (
        chart.configure(font=FONT, background="white")
        .configure_axis(**axis)
        .configure_legend(**legend)
        .configure_title(**title)
        .configure_header(labelFontSize=12, titleFontSize=12, labelFontWeight="bold")
        .configure_view(stroke="#dddddd")
    )
    return configured


def frame_of(runs: Mapping[str, xr.DataArray], value: str) -> pd.DataFrame:
    """One row a number, with columns ``run`` and those of the dimensions."""
    parts = [array.to_dataframe(name=value).reset_index() for array in runs.values()]
    frame = pd.concat(parts, keys=list(runs), names=["run", "row"]).reset_index("run")
    if "category" in frame:
        frame["category"] = frame["category"].map(CATEGORY_LABELS)
    return frame.reset_index(drop=True)


def stacked(runs: Mapping[str, Any], make: Callable[[Any], pd.DataFrame]) -> pd.DataFrame:
    """What ``make`` makes of each run, below each other; the last column is ``run``."""
    frames = [make(data).assign(run=run) for run, data in runs.items()]
    return pd.concat(frames, ignore_index=True)


def layer_axis(frame: pd.DataFrame) -> alt.X:
    """Layers of the column ``layer`` along the bottom; every second or third if there are many."""
    layers = sorted({int(layer) for layer in frame["layer"]})
    shown = layers[:: -(-len(layers) // MOST_LAYER_LABELS)]
    return alt.X("layer:Q", title="layer", axis=alt.Axis(values=shown, format="d"))


def category_colour(legend: alt.Legend | None = None) -> alt.Color:
    """Colour by category; without a legend where panels name it."""
    return alt.Color("category:N", title="category", scale=category_scale(), legend=legend)


def language_lines(languages: list[str]) -> dict[str, Any]:
    """Colour by language, and a line pattern beside it where there are more than colours."""
    n_colours = len(LANGUAGE_COLOURS)
    order = range(len(languages))
    colours = alt.Scale(domain=languages, range=[LANGUAGE_COLOURS[i % n_colours] for i in order])
    legend = alt.Legend(columns=-(-len(languages) // n_colours), symbolLimit=0)
    colour = alt.Color("language:N", title="language", scale=colours, legend=legend)
    channels: dict[str, Any] = {"color": colour}
    if len(languages) > n_colours:
        patterns = [PATTERNS[i // n_colours % len(PATTERNS)] for i in order]
        # Of the same domain as the colours, so that Vega-Lite draws one legend of both.
        scale = alt.Scale(domain=languages, range=patterns)
        channels["strokeDash"] = alt.StrokeDash(
            "language:N", title="language", scale=scale, legend=legend
        )
    return channels


def dashes(kinds: list[str], legend: alt.Legend | None = None) -> alt.StrokeDash:
    """Line patterns of the column ``kind``: solid, dashed, dotted.

    Beside a legend of colours, Vega-Lite draws that of patterns without its lines: then the
    subtitle must say what they are.
    """
    scale = alt.Scale(domain=kinds, range=PATTERNS[: len(kinds)])
    return alt.StrokeDash("kind:N", title="share of neurons", scale=scale, legend=legend)


def legend_filter(field: str) -> alt.Parameter:
    """Clicking a legend entry brings its series to the front."""
    return alt.selection_point(fields=[field], bind="legend")


def dimmed(picked: alt.Parameter) -> Any:
    """Faint unless picked in the legend."""
    return alt.condition(picked, alt.value(1.0), alt.value(0.12))


def heading(text: str, subtitle: str) -> alt.TitleParams:
    """Title and subtitle of a figure."""
    return alt.TitleParams(text, subtitle=subtitle, offset=14)
