"""Figures over all layers: thresholds, overlap of languages, accuracy."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd
import xarray as xr

from neuroglot.reporting.accuracy import KINDS, accuracy_frame
from neuroglot.reporting.style import (
    HEIGHT,
    LINE_COLOURS,
    WIDTH,
    Runs,
    category_colour,
    columns,
    dimmed,
    frame_of,
    heading,
    legend_filter,
    styled,
)

MOST_WIDTH = 1400  # of a figure that grows with the number of languages and runs


def threshold_sweep(sweeps: Mapping[str, xr.DataArray]) -> alt.TopLevelMixin:
    """Category fractions, mean over layers, as the threshold rises."""
    frame = frame_of({k: v.mean("layer") for k, v in sweeps.items()}, "share")
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
        .facet(
            facet=alt.Facet("run:N", title=None, sort=list(sweeps)), columns=columns(len(sweeps))
        )
    )
    note = "mean over items and layers; active means: site value above τ"
    return styled(chart.properties(title=heading("Sharing by threshold", note)))


def language_overlap(runs: Runs) -> alt.TopLevelMixin:
    """Jaccard index of the active sets of two languages, mean over layers and items."""
    frame = frame_of({k: v["overlap"].mean("layer") for k, v in runs.items()}, "jaccard")
    frame = frame[
        frame["language"] != frame["language_other"]
    ]  # a language with itself says nothing
    languages = [str(x) for x in next(iter(runs.values()))["language"].to_numpy()]
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
    note = "Jaccard index of the neurons active in two languages, mean over items and layers"
    return styled(
        (heat + text)
        .properties(width=size, height=size)
        .facet(facet=alt.Facet("run:N", title=None, sort=list(runs)), columns=2)
        .resolve_scale(x="independent", y="independent")  # runs may have different languages
        .properties(title=heading("Language overlap", note))
    )


def accuracy_by_language(runs: Runs) -> alt.TopLevelMixin:
    """Accuracy with its 95 % interval, and what a guesser knows; one panel a kind of prompts."""
    frames = [accuracy_frame(data).assign(run=run) for run, data in runs.items()]
    frame = pd.concat(frames, ignore_index=True)
    frame = frame[frame["prompts"] > 0]
    frame["kind"] = frame["kind"].map(KINDS)
    picked, runs_in_order = legend_filter("run"), list(runs)
    languages = list(dict.fromkeys(frame["language"]))
    base = alt.Chart(frame).encode(
        x=alt.X("language:N", title=None, sort=languages, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("run:N", sort=runs_in_order),
        opacity=dimmed(picked),
    )
    width = min(MOST_WIDTH, max(3 * WIDTH, 22 * len(languages) * len(runs_in_order)))
    note = [
        "bars: 95 % interval over subjects; grey tick: chance, where there are choices;",
        "cross: right by knowing the relation but no subject; hollow: the model itself with the",
        "subject masked, where the task can",
    ]
    title = alt.TitleParams("Accuracy by language", subtitle=note, offset=14)
    return styled(
        alt.layer(*_accuracy_marks(base, runs_in_order, _ends_over_relations(frame)))
        .add_params(picked)
        .properties(width=width, height=HEIGHT * 1.1)
        .facet(row=alt.Row("kind:N", title=None, sort=list(KINDS.values())))
        .properties(title=title)
    )


def _ends_over_relations(frame: pd.DataFrame) -> list[alt.Tooltip]:
    """What a tooltip says of the intervals over relations, where there are any."""
    titles = {"low_over_relations": "over relations from", "high_over_relations": "to "}
    known = {name: title for name, title in titles.items() if name in frame}
    return [alt.Tooltip(f"{name}:Q", format=".1%", title=title) for name, title in known.items()]


def _accuracy_marks(base: alt.Chart, runs: list[str], more: list[alt.Tooltip]) -> list[alt.Chart]:
    """Intervals, accuracy, chance, majority and accuracy with the subject masked of each run."""
    colour = alt.Color("run:N", title="run", sort=runs, scale=alt.Scale(range=LINE_COLOURS))
    tooltip = [
        *("run:N", "language:N", alt.Tooltip("kind:N", title="prompts"), "prompts:Q"),
        alt.Tooltip("accuracy:Q", format=".1%"),
        alt.Tooltip("low:Q", format=".1%", title="95 % from"),
        alt.Tooltip("high:Q", format=".1%", title="to"),
        *more,
        *(alt.Tooltip(f"{name}:Q", format=".1%") for name in ("chance", "majority")),
        alt.Tooltip("subject_masked:Q", format=".1%", title="subject masked"),
        alt.Tooltip("margin:Q", format="+.2f", title="margin (nats)"),
        alt.Tooltip("margin_beyond_masked:Q", format="+.2f", title="beyond masked"),
    ]
    return [
        base.mark_rule(strokeWidth=2).encode(y=_share_axis("low"), y2="high:Q", color=colour),
        base.mark_point(filled=True, size=55).encode(
            y=_share_axis("accuracy"), color=colour, tooltip=tooltip
        ),
        base.mark_tick(color="#555555", thickness=1.5, size=10).encode(y=_share_axis("chance")),
        base.mark_point(shape="cross", filled=True, color="#555555", size=22).encode(
            y=_share_axis("majority")
        ),
        base.mark_point(shape="circle", filled=False, size=40).encode(
            y=_share_axis("subject_masked"), color=colour
        ),
    ]


def _share_axis(column: str) -> alt.Y:
    scale = alt.Scale(domain=[0, 1])
    return alt.Y(f"{column}:Q", title="accuracy", axis=alt.Axis(format="%"), scale=scale)
