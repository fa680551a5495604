"""Results of :func:`neuroglot.causal_agreement`: scores beside the effects of zeroing neurons."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd
import xarray as xr

from neuroglot.answering.observations import OVER_RELATIONS
from neuroglot.attribution.agreement import KIND
from neuroglot.reporting.cells import number_with
from neuroglot.reporting.kind import Group, Kind
from neuroglot.reporting.style import (
    HEIGHT,
    LINE_COLOURS,
    SCORE_LABELS,
    WIDTH,
    dimmed,
    layer_axis,
    legend_filter,
    stacked,
    titled,
)
from neuroglot.reporting.table import Column, Table

ENDS = ("", "_low", "_high")
COLUMNS = (
    Column("score", ("score",), lambda score: SCORE_LABELS[score]),
    Column("layer", ("layer",)),
    Column("with sign (95 %)", tuple(f"agreement{end}" for end in ENDS), number_with),
    Column("size only (95 %)", tuple(f"size_agreement{end}" for end in ENDS), number_with),
)
EXPLAINED = (
    "Agreement: the rank correlation, over the neurons of a layer, of a score and the effect of "
    "zeroing the neuron, with their signs and by size only. A contribution has no sign.",
)


def agreement_rows(agreement: xr.Dataset) -> list[dict[str, Any]]:
    """One row for each score and layer: rank correlations with their intervals."""
    ends = (*ENDS, *OVER_RELATIONS)
    names = [f"{prefix}agreement{end}" for prefix in ("", "size_") for end in ends]
    return [
        {"score": str(score), "layer": int(layer)}
        | {
            name: float(agreement[name].sel(score=score, layer=layer))
            for name in names
            if name in agreement
        }
        for score in agreement["score"].to_numpy()
        for layer in agreement["layer"].to_numpy()
    ]


def tables(runs: Group) -> list[Table]:
    """A table of rank correlations for every run."""
    title = "Spearman's correlation of scores with the effects of zeroing"
    return [
        Table(f"{run}: {title}", COLUMNS, agreement_rows(agreement), explained=EXPLAINED)
        for run, agreement in runs.items()
    ]


def _both(data: xr.Dataset) -> pd.DataFrame:
    """The rank correlations with sign, and then those by size only."""
    frames = []
    for prefix, kind in (("", "with sign"), ("size_", "size only")):
        names = {f"{prefix}agreement{end}": f"agreement{end}" for end in ENDS}
        frame = data[list(names)].rename(names).to_dataframe().reset_index()
        frames.append(frame.assign(kind=kind).replace({"score": SCORE_LABELS}))
    return pd.concat(frames)


def agreement_by_layer(runs: Group) -> alt.TopLevelMixin:
    """The rank correlation of each score with the effect of zeroing a neuron, by layer."""
    frame = stacked(runs, _both).dropna(subset=["agreement"])
    picked = legend_filter("score")
    scores = [label for label in SCORE_LABELS.values() if label in set(frame["score"])]
    colour = alt.Color("score:N", title="score", scale=alt.Scale(domain=scores, range=LINE_COLOURS))
    # A pattern of its own, because in some models it nearly coincides with the effective score.
    patterns = [[6, 3] if label == SCORE_LABELS["direct_logit"] else [1, 0] for label in scores]
    dash = alt.StrokeDash("score:N", title="score", scale=alt.Scale(domain=scores, range=patterns))
    base = alt.Chart(frame).encode(x=layer_axis(frame), color=colour)
    y_title = "Spearman's correlation"
    band = base.mark_area(opacity=0.15).encode(
        y=alt.Y("agreement_low:Q", title=y_title), y2="agreement_high:Q"
    )
    line = base.mark_line(point=alt.OverlayMarkDef(size=18)).encode(
        y=alt.Y("agreement:Q", title=y_title),
        strokeDash=dash,
        opacity=dimmed(picked),
        tooltip=[
            "run:N", "score:N", "kind:N", "layer:Q",
            *(alt.Tooltip(f"agreement{end}:Q", format=".2f") for end in ENDS),
        ],
    )  # fmt: skip
    return titled(
        (band + line)
        .properties(width=WIDTH, height=HEIGHT)
        .add_params(picked)
        .facet(
            row=alt.Row("kind:N", title=None, sort=["with sign", "size only"]),
            column=alt.Column("run:N", title=None, sort=list(runs)),
        ),
        "Does attribution agree with causation?",
        "of scores with the effect of zeroing a neuron on the target; band: 95 % over subjects",
    )


AGREEMENT = Kind(
    KIND,
    tables=tables,
    figures=lambda _, runs: {"causal-agreement": agreement_by_layer(runs)},
    records=lambda agreement: {"agreement": agreement_rows(agreement)},
    has_notes=True,
)
