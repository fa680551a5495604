"""Figures of accuracy under edits of neurons."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd
import xarray as xr

from neuroglot.interventions.controls import NO_EDIT
from neuroglot.reporting.kind import Figures, Group
from neuroglot.reporting.kinds.outcome_rows import (
    AGAINST_LABELS,
    AMPLIFICATION,
    BANDS,
    CONDITIONS,
    DEACTIVATION,
    DOSES,
    DOSES_BY_ANSWER,
    FIXED,
    KEEP_ONLY,
    SCALED,
    VARIANTS,
    against_label,
    condition_label,
    coordinate_of,
    effect_rows,
)
from neuroglot.reporting.style import (
    HEIGHT,
    LINE_COLOURS,
    WIDTH,
    dimmed,
    legend_filter,
    panels,
    stacked,
    titled,
)

OFF, EDITED = "switched off", "edited"
# A control has the same colour in every figure; black stands for the condition itself.
ARM_COLOURS = {
    OFF: "#000000",
    EDITED: "#000000",
    AGAINST_LABELS[NO_EDIT]: "#999999",
    AGAINST_LABELS["size"]: LINE_COLOURS[5],
    AGAINST_LABELS["active"]: LINE_COLOURS[4],
    AGAINST_LABELS["contribution"]: LINE_COLOURS[1],
}
ROW, ARM_ROW = 26, 11  # in pixels
POINTS = alt.Axis(labelExpr="datum.value == 0 ? '0' : format(datum.value, '+~g')")
ENDS = ("", "_low", "_high")
SHOWN = dict(zip(("accuracy", "low", "high"), ENDS, strict=True))
DIFFERENCE = [f"difference{end}" for end in ENDS]
ENOUGH = 0.95  # share of the prompts that a control needs to be comparable by eye


def accuracy_by_condition(outcome: xr.Dataset, run: str, what: str = OFF) -> alt.TopLevelMixin:
    """Accuracy by language for no edit, a condition and its controls; a panel per condition."""
    frame = _accuracy_frame(outcome, what)
    languages = [str(language) for language in outcome["language"].to_numpy()]
    arms = _arms_of(frame)
    picked = legend_filter("arm")
    base = alt.Chart(frame).encode(
        y=alt.Y("language:N", title="language", sort=languages),
        yOffset=alt.YOffset("arm:N", sort=arms),
        color=_arm_colour(arms),
    )
    bars = base.mark_rule(strokeWidth=1.2).encode(
        x=alt.X("low:Q", title="accuracy", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False)),
        x2="high:Q",
        opacity=dimmed(picked),
    )
    dots = base.mark_point(filled=True, size=26, opacity=1).encode(
        x=alt.X("accuracy:Q", title="accuracy"),
        opacity=dimmed(picked),
        tooltip=["condition:N", "language:N", "arm:N",
                 *(alt.Tooltip(f"{name}:Q", format=".1%") for name in SHOWN)],
    )  # fmt: skip
    order = [condition_label(str(name)) for name in outcome["condition"].to_numpy()]
    return titled(
        (bars + dots)
        .properties(width=150, height=len(languages) * ARM_ROW * (len(arms) + 1))
        .add_params(picked)
        .facet(column=alt.Column("condition:N", title=None, sort=order)),
        f"{run}: accuracy with neurons {what}",
        "bars: 95 % over subjects; without controls that cannot be drawn for most prompts",
    )


def _accuracy_frame(outcome: xr.Dataset, what: str) -> pd.DataFrame:
    """One row for each condition, language and arm: the condition itself, no edit or a control."""
    arms: dict[str, tuple[str, str, dict[str, str]]] = {
        what: ("accuracy", NO_EDIT, {}),
        AGAINST_LABELS[NO_EDIT]: ("accuracy_no_edit", NO_EDIT, {}),
    }
    for kind in map(str, outcome["kind"].to_numpy()):
        arms[against_label(kind)] = ("accuracy_control", kind, {"kind": kind})
    # A control over other prompts than the rest would mislead the eye.
    enough = outcome["n_prompts"] >= ENOUGH * outcome["counted"].sum()
    parts = []
    for arm, (name, against, place) in arms.items():
        values = xr.Dataset(
            {column: outcome[f"{name}{end}"].sel(place, drop=True) for column, end in SHOWN.items()}
        ).where(enough.sel(against=against, drop=True))
        parts.append(values.to_dataframe(["condition", "language"]).reset_index().assign(arm=arm))
    frame = pd.concat(parts, ignore_index=True).dropna(subset=["accuracy"])
    frame["condition"] = frame["condition"].map(condition_label)
    return frame[["condition", "language", "arm", *SHOWN]]


def _arms_of(frame: pd.DataFrame) -> list[str]:
    """The arms in the frame: first those with a colour of their own, then a user's controls."""
    arms = list(dict.fromkeys(frame["arm"]))
    return [*(arm for arm in ARM_COLOURS if arm in arms),
            *(arm for arm in arms if arm not in ARM_COLOURS)]  # fmt: skip


def _arm_colour(arms: list[str]) -> alt.Color:
    spare = itertools.cycle((LINE_COLOURS[3], LINE_COLOURS[2], LINE_COLOURS[7]))
    colours = [ARM_COLOURS.get(arm) or next(spare) for arm in arms]
    scale = alt.Scale(domain=arms, range=colours)
    return alt.Color("arm:N", title=None, scale=scale)


def _effects(runs: Group, coordinate: str = "condition") -> pd.DataFrame:
    """One row for each run, condition and control, in percentage points.

    The column ``value`` holds a coordinate of the condition.
    """

    def rows(outcome: xr.Dataset) -> pd.DataFrame:
        frame = pd.DataFrame(effect_rows(outcome))
        places = outcome["condition"].to_index().get_indexer(pd.Index(frame["condition"]))
        for column, name in (("value", coordinate), ("category", "category")):
            values = outcome[name if name in outcome.coords else "condition"].to_numpy()
            frame[column] = values[places].tolist()
        return frame

    frame = stacked(runs, rows)
    frame[DIFFERENCE] *= 100
    frame["arm"] = frame["against"].map(against_label)
    for name in ("condition", "category"):
        frame[name] = frame[name].astype(str).map(condition_label)
    return frame


def differences(runs: Group, title: str) -> alt.TopLevelMixin:
    """Accuracy less that of no edit and of each control, with a panel for each run."""
    frame = _effects(runs)
    conditions = list(dict.fromkeys(frame["condition"]))
    frame = frame.dropna(subset=["difference"])
    arms = _arms_of(frame)
    base = alt.Chart(frame).encode(
        y=alt.Y("condition:N", title=None, sort=conditions, axis=alt.Axis(labelLimit=240),
                scale=alt.Scale(domain=conditions)),
        yOffset=alt.YOffset("arm:N", sort=arms, scale=alt.Scale(domain=arms)),
        color=_arm_colour(arms),
    )  # fmt: skip
    picked = legend_filter("arm")
    chart = (
        _zero_line(frame, "x") + _whiskers(base, "x", picked) + _dots(base, "x", picked)
    ).properties(width=190, height=alt.Step(ARM_ROW))
    return titled(chart.add_params(picked).facet(**panels(runs)), title, NOTE)


X_TITLE = "difference (points)"
NOTE = "accuracy less that of each control, all languages; bars: 95 % over subjects"


def _whiskers(base: alt.Chart, axis: str, picked: Any) -> Any:
    low, high = (f"difference_{end}:Q" for end in ("low", "high"))
    channel = alt.X if axis == "x" else alt.Y
    place = {axis: channel(low, title=X_TITLE), f"{axis}2": high}
    return base.mark_rule(strokeWidth=1.3).encode(**place, opacity=dimmed(picked))


def _dots(base: alt.Chart, axis: str, picked: Any) -> Any:
    channel = alt.X if axis == "x" else alt.Y
    place = {axis: channel("difference:Q", title=X_TITLE, axis=POINTS)}
    return base.mark_point(filled=True, size=34).encode(
        **place,
        opacity=dimmed(picked),
        tooltip=[
            "run:N", "condition:N", alt.Tooltip("arm:N", title="held against"),
            *(alt.Tooltip(f"difference{end}:Q", format="+.1f") for end in ENDS),
            alt.Tooltip("p_holm:Q", format=".3f"), "prompts:Q", "subjects:Q", "reason:N",
        ],
    )  # fmt: skip


def _zero_line(frame: pd.DataFrame, axis: str) -> Any:
    line = alt.Chart(frame).mark_rule(color="#888888", strokeDash=[3, 3])
    return line.encode(**{axis: alt.datum(0)})


@dataclass(frozen=True)
class Along:
    """A coordinate of conditions along which a figure shows their differences.

    Attributes:
        coordinate: the name of the coordinate in an outcome.
        what: the title of the axis.
        title: the title of the figure.
        column: the name of the column in the data of the figure.
        write: makes the text of a value.
    """

    coordinate: str
    what: str
    title: str
    column: str = "value"
    write: Callable[[Any], str] = str


def differences_along(runs: Group, along: Along) -> alt.TopLevelMixin:
    """Differences along a coordinate; numbers are sorted, other values keep their order."""
    frame = _effects(runs, along.coordinate).dropna(subset=["difference"])
    is_numeric = pd.api.types.is_numeric_dtype(frame["value"])
    in_order = frame.sort_values("value") if is_numeric else frame
    order = list(dict.fromkeys(map(along.write, in_order["value"])))
    column = along.column
    frame[column] = frame["value"].map(along.write)
    arms = _arms_of(frame)
    picked = legend_filter("arm")
    base = alt.Chart(frame).encode(
        x=alt.X(f"{column}:N", title=along.what, sort=order, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("arm:N", sort=arms, scale=alt.Scale(domain=arms)),
        color=_arm_colour(arms),
    )
    marks = _whiskers(base, "y", picked) + _dots(base, "y", picked)
    chart = (_zero_line(frame, "y") + marks).properties(
        width=max(WIDTH, len(order) * ROW * 2), height=HEIGHT
    )
    facets: dict[str, Any] = {"column": alt.Column("run:N", title=None, sort=list(runs))}
    if len(set(zip(frame["run"], frame[column], frame["arm"], strict=True))) == len(frame):
        frame["category"] = ""  # without rows of panels, as no two marks share a place
    categories = list(dict.fromkeys(frame["category"]))
    if len(categories) > 1:
        facets["row"] = alt.Row("category:N", title=None, sort=categories)
    return titled(chart.add_params(picked).facet(**facets), along.title, NOTE)


def per_neuron(runs: Group) -> alt.TopLevelMixin:
    """The difference in accuracy from no edit, per hundred neurons that are switched off."""
    frame = _effects(runs)
    frame = frame[frame["against"] == NO_EDIT].dropna(subset=["difference"])
    frame = frame[frame["neurons"] > 0].copy()
    frame[DIFFERENCE] = frame[DIFFERENCE].mul(100 / frame["neurons"], axis="index")
    conditions = list(dict.fromkeys(frame["condition"]))
    title = "points per 100 neurons"
    base = alt.Chart(frame).encode(
        y=alt.Y("condition:N", title=None, sort=conditions, axis=alt.Axis(labelLimit=240))
    )
    whiskers = base.mark_rule(strokeWidth=1.3).encode(
        x=alt.X("difference_low:Q", title=title), x2="difference_high:Q"
    )
    dots = base.mark_point(filled=True, size=40, color="#000000").encode(
        x=alt.X("difference:Q", title=title),
        tooltip=["run:N", "condition:N", alt.Tooltip("neurons:Q", format=",.0f"),
                 *(alt.Tooltip(f"difference{end}:Q", format="+.2f") for end in ENDS)],
    )  # fmt: skip
    chart = (_zero_line(frame, "x") + whiskers + dots).properties(width=190, height=alt.Step(ROW))
    note = "accuracy less that of no edit, for every 100 neurons switched off; bars: 95 %"
    return titled(chart.facet(**panels(runs)), "Effect per neuron", note)


TITLES = {
    DEACTIVATION: "Switched off: accuracy beside no edit and controls",
    KEEP_ONLY: "Kept alone, all others switched off: accuracy beside no edit and controls",
    FIXED: "One set for all items: accuracy beside no edit and controls",
    AMPLIFICATION: "Amplified: accuracy beside no edit and controls",
    SCALED: "Scaled: accuracy beside no edit and controls",
    VARIANTS: "Variants: accuracy beside no edit and controls",
    CONDITIONS: "Conditions: accuracy beside no edit and controls",
}
STRONGEST = Along(
    "top",
    "share of the category's neurons",
    "Dose and response: the strongest neurons switched off",
    "dose",
    lambda top: f"{100 * top:g}%",
)
ALONG = {
    DOSES: STRONGEST,
    DOSES_BY_ANSWER: STRONGEST,
    BANDS: Along(
        "layers", "layers switched off", "Where it matters: accuracy by layers switched off"
    ),
}


def figures(group: str, runs: Group) -> Figures:
    """The figures of the outcomes of a group."""
    tested = {run: outcome for run, outcome in runs.items() if outcome["difference"].count() > 0}
    charts = {group: main_figure(group, tested)} if tested else {}
    if tested and group == DEACTIVATION:
        charts["effect-per-neuron"] = per_neuron(tested)
    if group in (DEACTIVATION, CONDITIONS):
        what = OFF if group == DEACTIVATION else EDITED
        for run, outcome in runs.items():
            charts[f"{group}-accuracy-{run}"] = accuracy_by_condition(outcome, run, what)
    return charts


def main_figure(group: str, runs: Group) -> alt.TopLevelMixin:
    """The differences of all conditions, listed or along one of their coordinates."""
    if group in TITLES:
        return differences(runs, TITLES[group])
    name = coordinate_of(next(iter(runs.values()))) or ""
    what = name.replace("_", " ")
    return differences_along(runs, ALONG.get(group, Along(name, what, f"Accuracy by {what}")))
