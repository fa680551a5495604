"""Results of :func:`neuroglot.intervene`: accuracy under edits, beside that under controls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.answering.differences import OPEN
from neuroglot.interventions.intervene import KIND
from neuroglot.reporting.accuracy import mean_of
from neuroglot.reporting.cells import UNKNOWN, p_text, percent, points_range, points_with
from neuroglot.reporting.kind import Group, Kind, Sheet
from neuroglot.reporting.kinds.outcome_figures import figures
from neuroglot.reporting.kinds.outcome_findings import findings
from neuroglot.reporting.kinds.outcome_rows import (
    AMPLIFICATION,
    NUMBERS,
    PLACEBO,
    WIDER,
    against_label,
    condition_label,
    effect_rows,
    group_of,
    is_of_preset,
)
from neuroglot.reporting.table import Column, Table


def _condition(name: str, neurons: float) -> str:
    return f"{condition_label(name)}: {neurons:,.0f} neurons"


def _contribution(share: float, against: float) -> str:
    """The share of all contributions and, in brackets, that of the control."""
    other = "" if np.isnan(against) else f" ({100 * against:.0f}%)"
    return percent(share, 0) + other


def _verdict(verdict: str, difference: float) -> str:
    """The finding in one or two words."""
    if np.isnan(difference):
        return UNKNOWN
    return "too few" if verdict == OPEN else verdict


CONDITION = Column("condition", ("condition", "neurons"), _condition)
COLUMNS = (
    Column("condition, and held against", ("against",), against_label),
    Column("difference (95 %)", NUMBERS[:3], points_with),
    Column("p", ("p",), p_text),
    Column("corrected", ("p_holm",), p_text),
    Column("prompts", ("prompts",), "{:,}".format),
    Column("over relations", WIDER, points_range, is_optional=True),
    Column(
        "placebo (95 %)",
        PLACEBO[:3],
        points_with,
        is_optional=True,
        explained="Placebo: the first draw of a control less its other draws, which should differ "
        "by chance only.",
    ),
    Column("placebo p", (PLACEBO[3],), p_text, is_optional=True),
    Column("placebo corrected", (PLACEBO[4],), p_text, is_optional=True),
    Column(
        "contribution",
        ("share", "share_against"),
        _contribution,
        is_for_page=True,
        explained="Contribution: the neurons' share of all |m|·‖v‖ and, in brackets, the share of "
        "the control's neurons, over the same prompts.",
    ),
    Column("accuracy", ("accuracy",), percent, is_for_page=True),
    Column(
        "finding",
        ("verdict", "difference"),
        _verdict,
        is_for_page=True,
        explained="Finding: a difference (corrected p < .05), equivalent within the bounds that "
        "were given beforehand, or too few items to tell. A dash stands for comparisons with fewer "
        "than ten subjects.",
    ),
)
EXPLAINED = (
    "Neurons: the mean number of neurons that a condition edits in a prompt, or keeps if it edits "
    "all others. Difference: accuracy less accuracy without an edit, or less accuracy with equally "
    "many random neurons in each layer edited in the same way. It is in percentage points, over "
    "the prompts for which there are such neurons, with 95 % intervals over subjects, and with p "
    "before and after Holm's correction.",
    "Random neurons are mostly inactive, so claims rest on active random neurons, and on those "
    "that contribute as much.",
)
PLACES = {
    "answer": "at the last prompt token and the answer's tokens",
    "last": "at the last prompt token",
    "all": "at all tokens of prompt and answer",
}


def how_edited(outcome: xr.Dataset) -> str:
    """A sentence on what was done to neurons, and at which tokens."""
    place, others = PLACES[outcome.attrs["edit_position"]], outcome.attrs["chosen_on"]
    if not is_of_preset(outcome):
        done = f"edited as the conditions say, {place} unless an edit says otherwise"
    elif bool(outcome["keep_only"].any()):
        done = f"kept, and all others switched off, {place}"
    else:
        is_off = not outcome["factor"].any()
        done = f"{'switched off' if is_off else 'multiplied by the given factor'} {place}"
    if group_of(outcome) == AMPLIFICATION:
        done += "; the factor was chosen on the other half of the items"
    chosen = f"; they were chosen on {others:,} other items" if others else ""
    return f"Neurons are {done}{chosen}."


def tables(runs: Group) -> list[Table]:
    """A table of the conditions and, if a factor was chosen, a table of that choice."""
    shown = []
    for run, outcome in runs.items():
        rows = effect_rows(outcome)
        before = percent(mean_of(outcome["correct_no_edit"], outcome, outcome["counted"]))
        title = f"{run}: {group_of(outcome).replace('-', ' ')}, accuracy {before} without any edit"
        said = [how_edited(outcome), *findings(rows)]
        if "development_accuracy" in outcome:
            shown.append(factor_table(outcome, run))
        shown.append(Table(title, COLUMNS, rows, said, EXPLAINED, group=CONDITION))
    return shown


def factor_table(outcome: xr.Dataset, run: str) -> Table:
    """Accuracy by factor, on the half of the items on which the factor was chosen."""
    rows = [
        {"factor": float(str(factor)), "accuracy": float(value)}
        for factor, value in outcome["development_accuracy"].to_series().items()
    ]
    columns = (
        Column("factor", ("factor",), "{:g}".format),
        Column("accuracy", ("accuracy",), percent),
    )
    title = f"{run}: accuracy on the half of the items for choosing (factor 1: no edit)"
    return Table(title, columns, rows)


def frame(outcome: xr.Dataset) -> pd.DataFrame:
    """The rows, with the name of the outcome's group."""
    return pd.DataFrame([{"kind": group_of(outcome), **row} for row in effect_rows(outcome)])


def records(outcome: xr.Dataset) -> dict[str, Any]:
    """The rows, and the finding of each condition."""
    rows = effect_rows(outcome)
    return {"effects": rows, "findings": findings(rows)}


EFFECT_COLUMNS = (
    *("run", "kind", "condition", "against", "neurons", "share", "share_against"),
    *("accuracy", "accuracy_against", *NUMBERS, "verdict", "equivalent_within", *PLACEBO),
    *("prompts", "all_prompts", "subjects", "reason"),
)

OUTCOME = Kind(
    KIND,
    tables=tables,
    figures=figures,
    records=records,
    has_notes=True,
    sheet=Sheet("effects", frame, EFFECT_COLUMNS),
    group_of=group_of,
    older_names=dict.fromkeys(
        (
            *("deactivation", "dose-response", "dose-response-by-answer", "layer-bands"),
            *("keep-only", "fixed-sets", "amplification", "scaled", "variants"),
        ),
        "neuroglot.intervene, or `neuroglot deactivate` or `neuroglot amplify`",
    ),
)
