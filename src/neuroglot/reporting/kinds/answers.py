"""Results of :func:`neuroglot.evaluate`: accuracy by language, beside that of guessers."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.answering.evaluation import accuracy
from neuroglot.answering.observations import OVER_RELATIONS
from neuroglot.reporting.accuracy import (
    GUESS_COLUMNS,
    GUESSES,
    KINDS_OF_PROMPTS,
    OF_HELD_OUT,
    beside_accuracy,
    counted_by_kind,
    has_f1,
    means_of,
    to_be_compared,
)
from neuroglot.reporting.cells import nats, percent, percent_range, percent_with
from neuroglot.reporting.kind import Group, Kind, Sheet
from neuroglot.reporting.style import (
    HEIGHT,
    LINE_COLOURS,
    WIDTH,
    dimmed,
    legend_filter,
    stacked,
    titled,
)
from neuroglot.reporting.table import Column, Table

MOST_WIDTH = 1400  # pixels; the figure grows with the number of languages and runs
ENDS = {"": "accuracy"} | {
    f"_{name}": name
    for name in ("low", "high", *(end.removeprefix("_") for end in OVER_RELATIONS), "prompts")
}
"""The ends of a row's keys for one kind of prompts, and the columns of the frame."""
OVER = "Over relations: 95 % intervals that also hold for other relations."


def _of_kind(kind: str) -> Column:
    keys = (kind, f"{kind}_low", f"{kind}_high")
    explained = OF_HELD_OUT if kind == "held_out" else ""
    label = kind.replace("_", " ")
    return Column(label, keys, percent_with, is_optional=True, explained=explained)


def _over_relations(kind: str) -> Column:
    label, keys = kind.replace("_", " "), tuple(f"{kind}{end}" for end in OVER_RELATIONS)
    heading = f"{label} over relations"
    return Column(heading, keys, percent_range, is_optional=True, explained=OVER)


def _sum(*numbers: float) -> str:
    """``12 + 34``: the numbers that are not NaN."""
    return " + ".join(str(number) for number in numbers if not np.isnan(number))


COLUMNS = (
    Column("language", ("language",)),
    *map(_of_kind, KINDS_OF_PROMPTS),
    *map(_over_relations, KINDS_OF_PROMPTS),
    *GUESS_COLUMNS,
    Column(
        "margin",
        ("margin",),
        nats,
        is_optional=True,
        explained="Margin: the log-probability of the right choice less that of the best wrong "
        "choice, in nats.",
    ),
    Column(
        "beyond masked",
        ("margin_beyond_masked",),
        nats,
        is_optional=True,
        explained="Beyond masked: the margin less the margin with the subject masked.",
    ),
    Column("token f1", ("token_f1",), percent, is_optional=True),
    Column("prompts", tuple(f"{kind}_prompts" for kind in KINDS_OF_PROMPTS), _sum),
)
INTERVALS = "In brackets: 95 % intervals over subjects."


def accuracy_frame(answers: xr.Dataset) -> pd.DataFrame:
    """One row for each kind of prompts and language: accuracy, interval, guesses and number."""
    parts = []
    for kind, counted in counted_by_kind(answers).items():
        right = accuracy(answers["correct"], counted, seed=answers.attrs["seed"])
        beside = beside_accuracy(answers, counted)
        table = xr.Dataset(
            {
                "accuracy": right["accuracy"],
                # The ends of the intervals over subjects and, if there are any, over relations.
                **{name.removeprefix("accuracy_"): right[name] for name in list(right)[1:]},
                **{name: means_of(values, answers, counted) for name, values in beside.items()},
                "prompts": counted.sum("item"),
            }
        )
        parts.append(table.to_dataframe().reset_index().assign(kind=kind))
    return pd.concat(parts, ignore_index=True)


def accuracy_rows(answers: xr.Dataset) -> list[dict[str, Any]]:
    """One row for each language: accuracy with its interval by kind, guesses and token F1.

    The guesses and margins are those of the held-out prompts, if a language has any.
    """
    frame = accuracy_frame(answers)
    asked = frame.groupby("kind")["prompts"].transform("sum") > 0
    rows = []
    for language in answers["language"].to_numpy():
        row: dict[str, Any] = {"language": str(language), **dict.fromkeys(GUESSES, np.nan)}
        for of_kind in frame[asked & (frame["language"] == language)].to_dict("records"):
            kind = str(of_kind["kind"])
            row |= {f"{kind}{end}": of_kind[name] for end, name in ENDS.items() if name in of_kind}
            if of_kind["prompts"]:
                row |= {key: of_kind[key] for key in GUESSES}
        rows.append(row)
    if has_f1(answers):
        f1 = means_of(answers["f1"], answers, answers["counted"])
        for row in rows:
            row["token_f1"] = float(f1.sel(language=row["language"]))
    return rows


def tables(runs: Group) -> list[Table]:
    """A table of accuracy by language for every run."""
    return [
        Table(
            f"{run}: accuracy by language",
            COLUMNS,
            accuracy_rows(answers),
            what_is_missing(answers),
            [INTERVALS],
        )
        for run, answers in runs.items()
    ]


def what_is_missing(answers: xr.Dataset) -> list[str]:
    """Sentences that say which numbers the result lacks, and why."""
    old = [] if "majority" in answers else ["An earlier version kept no majority and no margins."]
    return [sentence for sentence in (*old, why_not_masked(answers)) if sentence]


def why_not_masked(answers: xr.Dataset) -> str:
    """A sentence on why the model was not asked with the subject masked; empty if it was.

    If only some items have masked prompts, the sentence says how many.
    """
    if "masked_correct" in answers:
        counted = to_be_compared(answers)
        n_masked = int(answers["masked_correct"].where(counted).count())
        n_all = int(counted.sum())
        return "" if n_masked == n_all else f"{n_masked:,} of {n_all:,} prompts have a masked form."
    if answers.attrs.get("masked") == "left out":
        return "The subject was not masked in this run, although the task has masked prompts."
    if "text" in answers:
        return "The subject was not masked: only choices are asked for without it."
    return "The subject was not masked: the task has no masked prompts."


def accuracy_by_language(runs: Group) -> alt.TopLevelMixin:
    """Accuracy with its 95 % interval beside that of guessers, with a panel for each kind."""
    frame = stacked(runs, accuracy_frame)
    frame = frame[frame["prompts"] > 0]
    frame["kind"] = frame["kind"].map(KINDS_OF_PROMPTS)
    picked, runs_in_order = legend_filter("run"), list(runs)
    languages = list(dict.fromkeys(frame["language"]))
    base = alt.Chart(frame).encode(
        x=alt.X("language:N", title=None, sort=languages, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("run:N", sort=runs_in_order),
        opacity=dimmed(picked),
    )
    width = min(MOST_WIDTH, max(3 * WIDTH, 22 * len(languages) * len(runs_in_order)))
    note = [
        "bars: 95 % interval over subjects; grey tick: chance, if there are choices;",
        "cross: majority, which knows the relation but not the subject; hollow: the model itself",
        "with the subject masked, if the task has masked prompts",
    ]
    return titled(
        alt.layer(*_accuracy_marks(base, runs_in_order, _ends_over_relations(frame)))
        .add_params(picked)
        .properties(width=width, height=HEIGHT * 1.1)
        .facet(row=alt.Row("kind:N", title=None, sort=list(KINDS_OF_PROMPTS.values()))),
        "Accuracy by language",
        note,
    )


def _ends_over_relations(frame: pd.DataFrame) -> list[alt.Tooltip]:
    """The entries of a tooltip for the intervals over relations, if there are any."""
    titles = {"low_over_relations": "over relations from", "high_over_relations": "to "}
    return [
        alt.Tooltip(f"{name}:Q", format=".1%", title=title)
        for name, title in titles.items()
        if name in frame
    ]


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


ANSWERS = Kind(
    "evaluation",
    tables=tables,
    figures=lambda _, runs: {"accuracy": accuracy_by_language(runs)},
    records=lambda answers: {"accuracy": accuracy_rows(answers)},
    has_notes=True,
    sheet=Sheet(
        "accuracy",
        lambda answers: accuracy_frame(answers).dropna(axis="columns", how="all"),
        (
            *("run", "language", "accuracy", "low", "high"),
            *(end.removeprefix("_") for end in OVER_RELATIONS),
            *(*GUESSES, "prompts", "kind"),
        ),
    ),
)
