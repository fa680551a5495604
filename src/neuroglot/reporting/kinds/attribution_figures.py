"""Figures of the contributions of sharing categories to the answers."""

from __future__ import annotations

import altair as alt
import pandas as pd
import xarray as xr

from neuroglot.reporting.kind import Figures, Group
from neuroglot.reporting.style import (
    CATEGORY_COLOURS,
    CATEGORY_LABELS,
    HEIGHT,
    LINE_COLOURS,
    SCORE_LABELS,
    WIDTH,
    category_colour,
    columns,
    dimmed,
    layer_axis,
    legend_filter,
    main_score,
    panels,
    stacked,
    titled,
)

EVERY = "all neurons"
SMALL_WIDTH, SMALL_HEIGHT, SMALL_COLUMNS = 130, 120, 5
ANSWER_COLOURS = {"correct": LINE_COLOURS[0], "incorrect": LINE_COLOURS[1]}


def _frame(data: xr.Dataset) -> pd.DataFrame:
    """One row for each value, with the labels of categories and scores."""
    frame = data.to_dataframe().reset_index()
    if "category" in frame:
        frame["category"] = frame["category"].map(CATEGORY_LABELS)
        # Areas are stacked in the order of the colours, all-shared at the bottom.
        order = [CATEGORY_LABELS[name] for name in CATEGORY_COLOURS]
        frame["order"] = frame["category"].map(order.index)
    if "score" in frame:
        frame["score"] = frame["score"].map(SCORE_LABELS)
    return frame


def _answered(attribution: xr.Dataset) -> str:
    """Correct answers, as in the paper, if there are any; otherwise all answers."""
    correct = attribution["n_prompts"].sel(answered="correct")
    return "correct" if (correct > 0).any() else "all"


def shares_by_layer(attribution: xr.Dataset, run: str) -> alt.TopLevelMixin:
    """Each category's share of the score by layer, stacked, with a panel for each language."""
    answered, score = _answered(attribution), main_score(attribution)
    data = attribution[["positive_share", "fraction"]].sel(
        answered=answered, score=score, drop=True
    )
    frame = _frame(data).dropna(subset=["positive_share"])
    chart = (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y(
                "positive_share:Q", title="share of the score", scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1]),
            ),
            color=category_colour(alt.Legend(symbolType="square")),
            order="order:Q",
            tooltip=[
                "language:N", "layer:O", "category:N",
                alt.Tooltip("positive_share:Q", format=".1%", title="share of the score"),
                alt.Tooltip("fraction:Q", format=".1%", title="share of the neurons"),
            ],
        )
        .properties(width=SMALL_WIDTH, height=SMALL_HEIGHT)
        .facet(
            facet=alt.Facet("language:N", title=None, sort=list(attribution["language"].values)),
            columns=SMALL_COLUMNS,
        )
    )  # fmt: skip
    note = f"positive {SCORE_LABELS[score]}s of prompts answered correctly"
    if answered == "all":
        note = f"positive {SCORE_LABELS[score]}s of all prompts; none was answered correctly"
    return titled(chart, f"{run}: who has the score, layer by layer", note)


def curves_by_layer(attribution: xr.Dataset, run: str) -> alt.TopLevelMixin:
    """The mean and the sum of scores by category and layer, with a column for each score."""
    answered = _answered(attribution)
    data = attribution[["mean", "layer_mean", "positive_sum"]].sel(answered=answered, drop=True)
    means = data.mean("language")
    # One more line stands for all neurons of a layer.
    whole = means["layer_mean"].to_dataframe(name="mean").reset_index().assign(category=EVERY)
    whole["score"] = whole["score"].map(SCORE_LABELS)
    frames = {
        "mean": pd.concat([_frame(means[["mean"]]), whole], ignore_index=True),
        "positive_sum": _frame(means[["positive_sum"]]),
    }
    scores = [SCORE_LABELS[str(name)] for name in attribution["score"].to_numpy()]
    colours = alt.Scale(
        domain=[*(CATEGORY_LABELS[name] for name in CATEGORY_COLOURS), EVERY],
        range=[*CATEGORY_COLOURS.values(), "#000000"],
    )
    rows: list[alt.FacetChart] = []
    for variable, title in (("mean", "mean score"), ("positive_sum", "sum of positive scores")):
        picked = alt.selection_point(name=f"of_{variable}", fields=["category"], bind="legend")
        lines = (
            alt.Chart(frames[variable].dropna(subset=[variable]))
            .mark_line(point=alt.OverlayMarkDef(size=18))
            .encode(
                x=layer_axis(frames[variable]),
                y=alt.Y(f"{variable}:Q", title=title),
                color=alt.Color("category:N", title="category", scale=colours),
                opacity=dimmed(picked),
                tooltip=["score:N", "layer:Q", "category:N", f"{variable}:Q"],
            )
            .properties(width=WIDTH, height=HEIGHT)
            .add_params(picked)
        )
        facet = alt.Facet("score:N", title=None, sort=scores)
        rows.append(
            lines.facet(facet=facet, columns=columns(len(scores))).resolve_scale(y="independent")
        )
    prompts = "all prompts" if answered == "all" else "prompts answered correctly"
    note = f"{prompts}, mean over languages"
    return titled(alt.vconcat(*rows), f"{run}: scores by category", note)


def maxima(attribution: xr.Dataset, run: str) -> alt.TopLevelMixin:
    """The highest score in each category beside that of as many random neurons."""
    score, answered = main_score(attribution), _answered(attribution)
    data = attribution[["maximum", "random_maximum"]].sel(score=score, answered=answered, drop=True)
    frame = _frame(data).dropna()
    maxima_of_both = frame[["maximum", "random_maximum"]]
    ends = [float(maxima_of_both.min().min()), float(maxima_of_both.max().max())]
    scale = alt.Scale(domain=ends, nice=True, zero=False)
    picked = legend_filter("category")
    points = (
        alt.Chart(frame)
        .mark_circle(size=45)
        .encode(
            x=alt.X(
                "random_maximum:Q", scale=scale, title="expected of as many random neurons"
            ),
            y=alt.Y("maximum:Q", scale=scale, title="greatest score of the category"),
            color=category_colour(alt.Legend(symbolType="circle")),
            opacity=alt.condition(picked, alt.value(0.8), alt.value(0.05)),
            tooltip=[
                "language:N", "layer:Q", "category:N",
                alt.Tooltip("maximum:Q", format=".3g"),
                alt.Tooltip("random_maximum:Q", format=".3g", title="random neurons"),
            ],
        )
        .add_params(picked)
    )  # fmt: skip
    equal = (
        alt.Chart(pd.DataFrame({"x": ends, "y": ends}))
        .mark_line(color="#888888", strokeDash=[4, 3])
        .encode(x=alt.X("x:Q", scale=scale), y=alt.Y("y:Q", scale=scale))
    )
    return titled(
        (equal + points).properties(width=2 * WIDTH, height=2 * HEIGHT),
        f"{run}: the greatest scores",
        f"{SCORE_LABELS[score]}; one point per language and layer; on the line: as random neurons",
    )


def correct_beside_incorrect(attribution: xr.Dataset, run: str) -> alt.TopLevelMixin:
    """The share of the score that all-shared neurons have in right and in wrong answers."""
    score = main_score(attribution)
    names = ["positive_share", "positive_share_low", "positive_share_high"]
    data = attribution[names].sel(
        score=score, category="all_shared", answered=list(ANSWER_COLOURS), drop=True
    )
    # Without an interval, there are too few prompts to compare.
    frame = _frame(data).dropna(subset=["positive_share", "positive_share_low"])
    picked = legend_filter("answered")
    colour = alt.Color(
        "answered:N",
        title="answers",
        scale=alt.Scale(domain=list(ANSWER_COLOURS), range=list(ANSWER_COLOURS.values())),
    )
    base = alt.Chart(frame).encode(x=layer_axis(frame), color=colour)
    band = base.mark_area(opacity=0.18).encode(
        y=alt.Y("positive_share_low:Q", title="share of the score"), y2="positive_share_high:Q"
    )
    line = base.mark_line(point=alt.OverlayMarkDef(size=18)).encode(
        y=alt.Y("positive_share:Q", title="share of the score", axis=alt.Axis(format="%")),
        opacity=dimmed(picked),
        tooltip=[
            "language:N",
            "layer:Q",
            "answered:N",
            *(alt.Tooltip(f"{name}:Q", format=".1%") for name in names),
        ],
    )
    return titled(
        (band + line)
        .properties(width=SMALL_WIDTH, height=SMALL_HEIGHT)
        .add_params(picked)
        .facet(
            facet=alt.Facet("language:N", title=None, sort=list(attribution["language"].values)),
            columns=SMALL_COLUMNS,
        ),
        f"{run}: all-shared neurons in right and wrong answers",
        f"share of positive {SCORE_LABELS[score]}s that all-shared neurons have; band: 95 %",
    )


def size_and_share(runs: Group) -> alt.TopLevelMixin:
    """The share of neurons in each category, and its share of the score in correct answers."""
    names = [f"model_positive_share{end}" for end in ("", "_low", "_high")]

    def chosen(data: xr.Dataset) -> pd.DataFrame:
        place = {"score": main_score(data), "answered": _answered(data)}
        return _frame(data[["model_fraction", *names]].sel(place, drop=True))

    frame = stacked(runs, chosen).dropna(subset=["model_positive_share"])
    scores = {SCORE_LABELS[main_score(data)] for data in runs.values()}
    picked = legend_filter("category")
    x = alt.X("model_fraction:Q", title="share of all neurons", axis=alt.Axis(format="%"))
    base = alt.Chart(frame).encode(x=x, color=category_colour(alt.Legend(symbolType="circle")))
    bars = base.mark_rule(strokeWidth=1.5).encode(
        y=alt.Y("model_positive_share_low:Q", title="share of the score"),
        y2="model_positive_share_high:Q",
        opacity=dimmed(picked),
    )
    points = base.mark_circle(size=45).encode(
        y=alt.Y("model_positive_share:Q", title="share of the score", axis=alt.Axis(format="%")),
        opacity=dimmed(picked),
        tooltip=[
            "run:N",
            "language:N",
            "category:N",
            *(alt.Tooltip(f"{n}:Q", format=".1%") for n in ("model_fraction", *names)),
        ],
    )
    equal = (
        alt.Chart()
        .mark_line(color="#888888", strokeDash=[4, 3])
        .transform_calculate(one="datum.model_fraction")
        .encode(x=x, y="one:Q")
    )
    note = f"{', '.join(sorted(scores))}, correct answers, all layers; one point per language, 95 %"
    return titled(
        alt.layer(equal, bars, points, data=frame)
        .properties(width=WIDTH, height=HEIGHT)
        .add_params(picked)
        .facet(**panels(runs)),
        "How many neurons, and how much of the score",
        note,
    )


def figures(attribution: xr.Dataset, run: str) -> Figures:
    """The figures of one run, by the beginning of the name of their file."""
    charts = {
        "shares": shares_by_layer(attribution, run),
        "curves": curves_by_layer(attribution, run),
        "maxima": maxima(attribution, run),
    }
    compared = attribution["positive_share_low"].sel(answered=list(ANSWER_COLOURS))
    if int(compared.count()):  # otherwise there are too few prompts
        charts["correct"] = correct_beside_incorrect(attribution, run)
    return charts
