"""The figure of how well scores of neurons agree with what zeroing them does."""

from __future__ import annotations

import altair as alt
import pandas as pd

from neuroglot.reporting.results import SCORE_LABELS
from neuroglot.reporting.style import (
    HEIGHT,
    LINE_COLOURS,
    WIDTH,
    Runs,
    dimmed,
    heading,
    layer_axis,
    legend_filter,
    styled,
)


def agreement_by_layer(runs: Runs) -> alt.TopLevelMixin:
    """Rank correlation of each score with what zeroing a neuron does, by layer."""
    frames = []
    for run, data in runs.items():
        for prefix, kind in (("", "with sign"), ("size_", "size only")):
            names = {f"{prefix}agreement{end}": f"agreement{end}" for end in ("", "_low", "_high")}
            found = data[list(names)].rename(names)
            frame = found.to_dataframe().reset_index().assign(run=run, kind=kind)
            frames.append(frame.replace({"score": SCORE_LABELS}))
    frame = pd.concat(frames, ignore_index=True).dropna(subset=["agreement"])
    picked = legend_filter("score")
    scores = [label for label in SCORE_LABELS.values() if label in set(frame["score"])]
    colour = alt.Color("score:N", title="score", scale=alt.Scale(domain=scores, range=LINE_COLOURS))
    # Direct logit and effective score nearly coincide in some models.
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
            *(alt.Tooltip(f"agreement{end}:Q", format=".2f") for end in ("", "_low", "_high")),
        ],
    )  # fmt: skip
    note = "of scores with what zeroing a neuron takes off the target; band: 95 % over subjects"
    return styled(
        (band + line)
        .properties(width=WIDTH, height=HEIGHT)
        .add_params(picked)
        .facet(
            row=alt.Row("kind:N", title=None, sort=["with sign", "size only"]),
            column=alt.Column("run:N", title=None, sort=list(runs)),
        )
        .properties(title=heading("Does attribution agree with causation?", note))
    )
