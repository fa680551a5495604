"""Results of :func:`neuroglot.align`: accuracy and sharing during training."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd
import xarray as xr

from neuroglot.alignment.align import KIND
from neuroglot.alignment.changes import summary_rows
from neuroglot.alignment.schedule import PARTS
from neuroglot.answering.observations import OVER_RELATIONS
from neuroglot.reporting.cells import percent, percent_with
from neuroglot.reporting.kind import Group, Kind
from neuroglot.reporting.style import (
    HEIGHT,
    LINE_COLOURS,
    WHOLE,
    WIDTH,
    dimmed,
    legend_filter,
    stacked,
    titled,
)
from neuroglot.reporting.table import Column, Table

PART_LABELS = {name: name.replace("_", " ") for name in PARTS}
FEW = alt.Axis(tickCount=4, format="~g")
SMOOTHED = 20  # number of steps in the running mean of the loss
MEASURED, SHUFFLED = "measured", "items shuffled"
ENDS = ("", "_low", "_high", *OVER_RELATIONS)


def _two_digits(share: float) -> str:
    return percent(share, 2)


COLUMNS = (
    Column("step", ("step",)),
    *(
        Column(label, tuple(f"{part}{end}" for end in ENDS), percent_with, is_optional=True)
        for part, label in PART_LABELS.items()
    ),
    Column("all-shared", ("all_shared",), _two_digits),
    Column("shuffled", ("all_shared_if_items_shuffled",), _two_digits),
)
EXPLAINED = (
    "Accuracy on prompts whose item and language were trained, or of which either or both were "
    "held out, with 95 % intervals over subjects. All-shared: the share of all neurons on held-out "
    "items. Shuffled: the same with each language's items permuted.",
)


def alignment_figure(runs: Group) -> alt.TopLevelMixin:
    """Loss, all-shared neurons with their baseline, and accuracy by part, along the steps."""
    picked = legend_filter("run")
    rows: list[Any] = [
        alt.hconcat(_loss(runs, picked).add_params(picked), _all_shared(runs, picked))
    ]
    if all("accuracy" in run for run in runs.values()):
        rows.append(_accuracy(runs, picked))
    note = "dashed: with each language's items shuffled; bars: 95 % over subjects"
    return titled(alt.vconcat(*rows), "Alignment", note)


def _colour(runs: Group) -> alt.Color:
    scale = alt.Scale(domain=list(runs), range=LINE_COLOURS[: len(runs)])
    return alt.Color("run:N", title=None, scale=scale)


def _smoothed(result: xr.Dataset) -> pd.DataFrame:
    """The running mean of the loss, at about two hundred steps."""
    frame = result["loss"].to_dataframe().reset_index()
    frame["loss"] = frame["loss"].rolling(SMOOTHED, min_periods=1).mean()
    return frame[:: max(1, len(frame) // 200)]


def _loss(runs: Group, picked: alt.Parameter) -> Any:
    return (
        alt.Chart(stacked(runs, _smoothed))
        .mark_line()
        .encode(
            x=alt.X("step:Q", title="step", axis=WHOLE),
            y=alt.Y("loss:Q", title="loss", scale=alt.Scale(type="log"), axis=FEW),
            color=_colour(runs),
            opacity=dimmed(picked),
            tooltip=["run:N", "step:Q", alt.Tooltip("loss:Q", format=".3f")],
        )
        .properties(width=2 * WIDTH, height=HEIGHT)
    )


def held_out_sharing(result: xr.Dataset, name: str) -> xr.DataArray:
    """The all-shared share of all neurons on held-out items (check).

    Args:
        result: the result.
        name: ``fraction``, or the name of its baseline.
    """
    return result[name].sel(items="held_out", category="all_shared", drop=True).mean("layer")


def _shares(result: xr.Dataset) -> pd.DataFrame:
    """The all-shared share as it was measured, and then the baseline."""
    kinds = {MEASURED: "fraction", SHUFFLED: "fraction_if_items_shuffled"}
    frames = [
        held_out_sharing(result, name).to_dataframe(name="share").reset_index().assign(kind=kind)
        for kind, name in kinds.items()
    ]
    return pd.concat(frames)


def _all_shared(runs: Group, picked: alt.Parameter) -> Any:
    frame = stacked(runs, _shares).dropna(subset=["share"])
    dash = alt.Scale(domain=[MEASURED, SHUFFLED], range=[[1, 0], [4, 3]])
    return (
        alt.Chart(frame)
        .mark_line(point=alt.OverlayMarkDef(size=22))
        .encode(
            x=alt.X("check:Q", title="step", axis=WHOLE),
            y=alt.Y("share:Q", title="all-shared (held-out items)", axis=alt.Axis(format=".1%")),
            color=_colour(runs),
            strokeDash=alt.StrokeDash("kind:N", scale=dash, legend=None),
            detail="kind:N",
            opacity=dimmed(picked),
            tooltip=["run:N", "kind:N", "check:Q", alt.Tooltip("share:Q", format=".2%")],
        )
        .properties(width=2 * WIDTH, height=HEIGHT)
    )


def _accuracy(runs: Group, picked: alt.Parameter) -> Any:
    names = ["accuracy", "accuracy_low", "accuracy_high"]
    frame = stacked(runs, lambda data: data[names].to_dataframe().reset_index())
    frame = frame.dropna(subset=["accuracy"])
    frame["part"] = frame["part"].map(PART_LABELS)
    base = alt.Chart(frame).encode(
        x=alt.X("check:Q", title="step", axis=WHOLE), color=_colour(runs)
    )
    bars = base.mark_rule(strokeWidth=1).encode(
        y=alt.Y("accuracy_low:Q", title="accuracy"),
        y2="accuracy_high:Q",
        opacity=alt.condition(picked, alt.value(0.5), alt.value(0.05)),
    )
    lines = base.mark_line(point=alt.OverlayMarkDef(size=22)).encode(
        y=alt.Y("accuracy:Q", title="accuracy", axis=alt.Axis(format="%")),
        opacity=dimmed(picked),
        tooltip=["run:N", "part:N", "check:Q", alt.Tooltip("accuracy:Q", format=".1%")],
    )
    shown = [label for label in PART_LABELS.values() if label in set(frame["part"])]
    return (
        (bars + lines)
        .properties(width=WIDTH - 15, height=HEIGHT)
        .facet(column=alt.Column("part:N", title=None, sort=shown))
    )


def alignment_rows(result: xr.Dataset) -> list[dict[str, Any]]:
    """One row for each measured step: accuracy by part, the all-shared share and its baseline."""
    shared = {
        label: held_out_sharing(result, name).to_numpy()
        for label, name in (
            ("all_shared", "fraction"),
            ("all_shared_if_items_shuffled", "fraction_if_items_shuffled"),
        )
    }
    rows = []
    for i, step in enumerate(result["check"].to_numpy()):
        row: dict[str, Any] = {"step": int(step)}
        ends = [end for end in ENDS if f"accuracy{end}" in result]
        for part in PART_LABELS if ends else ():
            of_part = result.isel(check=i).sel(part=part)
            row |= {f"{part}{end}": float(of_part[f"accuracy{end}"]) for end in ends}
        rows.append(row | {name: float(values[i]) for name, values in shared.items()})
    return rows


def what_changed(result: xr.Dataset) -> str:
    """A sentence on how many weights training has changed, and of which kinds."""
    rows = summary_rows(result[["weights", "changed"]])
    changed, total = (sum(row[key] for row in rows) for key in ("changed", "weights"))
    most = sorted((row for row in rows if row["changed"]), key=lambda row: -row["changed"])[:4]
    kinds = ", ".join(f"{row['kind']} {row['changed']:,}" for row in most)
    return f"{changed:,} of {total:,} weights have changed (most: {kinds})."


def tables(runs: Group) -> list[Table]:
    """A table of accuracy and sharing along the steps of every alignment."""
    return [
        Table(
            f"{run}: alignment, accuracy by part and sharing",
            COLUMNS,
            alignment_rows(result),
            said=[
                f"Trained by {result.attrs['training_method']}, {result.attrs['training_steps']} "
                f"steps. {what_changed(result)}"
            ],
            explained=EXPLAINED,
        )
        for run, result in runs.items()
    ]


ALIGNMENT = Kind(
    KIND,
    tables=tables,
    figures=lambda _, runs: {"alignment": alignment_figure(runs)},
    records=lambda result: {"checks": alignment_rows(result)},
    has_notes=True,
)
