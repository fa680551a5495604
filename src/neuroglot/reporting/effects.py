"""What interventions found, in numbers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.answering.differences import OPEN
from neuroglot.answering.observations import OVER_RELATIONS
from neuroglot.answering.spreadsheet import in_order
from neuroglot.interventions.conditions import NO_EDIT
from neuroglot.interventions.effects import by_control, of_conditions
from neuroglot.reporting.accuracy import mean_of
from neuroglot.reporting.conditions import AMPLIFICATION, is_of_preset, kind_of
from neuroglot.reporting.results import Sorted

AGAINST_LABELS = {
    NO_EDIT: "no edit",
    "size": "random, as many",
    "active": "random active",
    "contribution": "random, same contribution",
}
STRICT = ("active", "contribution")  # the controls on which claims rest
WIDER = tuple(f"difference{end}" for end in OVER_RELATIONS)
NUMBERS = (
    *("difference", "difference_low", "difference_high", *WIDER, "p", "p_holm"),
    *("p_over_relations", "p_over_relations_holm", "p_equivalent", "p_equivalent_holm"),
    "sufficient_subjects",
)
PLACEBO = tuple(f"placebo_{name}" for name in (*NUMBERS[:3], "p", "p_holm"))


def against_label(against: str) -> str:
    """What a condition is held against, for people."""
    return AGAINST_LABELS.get(against, against.replace("_", " "))


def condition_label(condition: str) -> str:
    """A condition's name for people."""
    for name in ("all_shared", "partial_shared", "non_activated"):
        condition = condition.replace(name, name.replace("_", "-"))
    return re.sub(r"layers (\d+)(?![-\d,])", r"layer \1", condition.replace("_", " "))


def effect_rows(outcome: xr.Dataset) -> list[dict[str, Any]]:
    """One row a condition and what it is held against, over all languages.

    Returns:
        Dicts with ``condition``, ``against``, ``neurons`` (of a prompt, mean), ``share`` and
        ``share_against`` (of all contributions, theirs and the control's), ``accuracy`` and
        ``accuracy_against`` (all of the prompts that have both), ``difference`` with its intervals
        (that over relations if there is one), its p-values, ``verdict`` and
        ``sufficient_subjects``, that of the control's placebo, ``prompts`` of ``all_prompts``,
        ``subjects``, ``equivalent_within`` and ``reason``.
    """
    rows, counted = [], outcome["counted"]
    for condition in outcome["condition"].to_numpy():
        one = outcome.sel(condition=condition)
        for against in outcome["against"].to_numpy():
            here = one.sel(against=against)
            rows.append(
                {
                    "condition": str(condition),
                    "against": str(against),
                    "neurons": float(one["n_neurons"].where(counted).mean()),
                    **_shares(one, str(against)),
                    **_accuracies(outcome, one, str(against)),
                    **_numbers(one, here),
                    "equivalent_within": outcome.attrs["equivalent_within"],
                    "prompts": int(here["n_prompts"]),
                    "all_prompts": int(counted.sum()),
                    "subjects": int(here["n_subjects"]),
                    "reason": str(here["reason"].to_numpy()),
                }
            )
    return rows


def _numbers(one: xr.Dataset, here: xr.Dataset) -> dict[str, Any]:
    """Difference, p-values and verdict, and the placebo of a control."""
    found: dict[str, Any] = {
        name: float(here[name]) if name in here else np.nan for name in NUMBERS
    }
    against = str(here["against"].to_numpy())
    if against != NO_EDIT:
        control = one.sel(kind=against)
        found |= {name: float(control[name]) for name in PLACEBO}
    return found | {"verdict": str(here["verdict"].to_numpy())}


def _of_control(values: xr.DataArray, kind: str) -> xr.DataArray:
    """Mean over a control's draws (item, language) of what a condition's arms say; NaN without."""
    drawn = by_control(values.expand_dims("condition")).sel(kind=kind)[0]
    return drawn.mean("draw", skipna=False)


def _shares(one: xr.Dataset, against: str) -> dict[str, float]:
    """Shares of all contributions: the condition's neurons and the control's, of equal prompts."""
    counted = one["counted"]
    own = of_conditions(one["share"])
    if against == NO_EDIT:
        return {"share": float(own.where(counted).mean()), "share_against": np.nan}
    other = _of_control(one["share"], against)
    both = counted & ~np.isnan(other) & ~np.isnan(own)
    return {
        "share": float(own.where(both).mean()),
        "share_against": float(other.where(both).mean()),
    }


def _accuracies(outcome: xr.Dataset, one: xr.Dataset, against: str) -> dict[str, float]:
    """Accuracy of the condition and of what it is held against, over the prompts of both."""
    other = outcome["correct_no_edit"].astype(float)
    if against != NO_EDIT:
        other = _of_control(one["correct"], against)
    own = of_conditions(one["correct"])
    both = outcome["counted"] & ~np.isnan(other) & ~np.isnan(own)
    return {
        "accuracy": mean_of(own, outcome, both),
        "accuracy_against": mean_of(other, outcome, both),
    }


def points(share: float, digits: int = 1) -> str:
    """A difference in percentage points, with its sign; a dash for what is not known."""
    return "–" if np.isnan(share) else f"{100 * share + 0.0:+.{digits}f}".replace("-", "−")


Row = Mapping[str, Any]
"""What :func:`effect_rows` says of a condition and what it is held against."""


def by_condition(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each condition."""
    groups = itertools.groupby(rows, key=lambda row: str(row["condition"]))
    return {condition: list(group) for condition, group in groups}


def effect_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the page: one row for each condition and what it is held against."""
    wider = any(interval(row, WIDER) for row in rows)
    columns = ["condition", "neurons", "contribution", "accuracy", "held against"]
    columns += ["difference (95 %)", "p", "corrected", "finding", "prompts"]
    columns += ["over relations"] if wider else []
    cells = []
    for condition, some in by_condition(rows).items():
        of_condition = [
            condition_label(condition),
            f"{some[0]['neurons']:,.0f}",
            share_cell(some),
            f"{100 * some[0]['accuracy']:.1f}%",
        ]
        for row in some:
            over = ["".join(interval(row, WIDER)) or "–"] * wider
            prompts = f"{row['prompts']:,}"
            against = against_label(row["against"])
            found = [*_tested(row, ""), short_verdict(row), prompts, *over]
            cells.append([*of_condition, against, *found])
            of_condition = [""] * len(of_condition)
            if not np.isnan(row.get(PLACEBO[0], np.nan)):
                found = [*_tested(row, "placebo_"), "", prompts, *[""] * wider]
                cells.append([*of_condition, f"placebo of {against}", *found])
    return columns, cells


def share_cell(rows: Sequence[Row]) -> str:
    """Share of all contributions, and beside it that of the control that should have the same."""
    said = f"{100 * rows[0]['share']:.0f}%"
    matched = [row for row in rows if row["against"] == STRICT[-1]]
    if not matched or np.isnan(matched[0]["share_against"]):
        return said
    own, other = (100 * matched[0][name] for name in ("share", "share_against"))
    return f"{said} ({own:.0f}%, {other:.0f}%)"


def short_verdict(row: Row) -> str:
    """The finding, in a word or two."""
    if np.isnan(row["difference"]):
        return "–"
    return "too few" if row["verdict"] == OPEN else str(row["verdict"])


def p_text(p: float) -> str:
    """A p-value for people; a dash for what is not known."""
    if np.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(row: Row, ends: Sequence[str] = ("difference_low", "difference_high")) -> list[str]:
    """The ends of a difference's interval, if it has one."""
    low, high = (row.get(end, np.nan) for end in ends)
    return [] if np.isnan(low) else [f"{points(low)} to {points(high)}"]


def in_brackets(parts: Sequence[str]) -> str:
    """``" (a, b)"``, or nothing of nothing."""
    return f" ({', '.join(parts)})" if parts else ""


def effect_lines(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells for a terminal: below each condition what it is held against."""
    cells = []
    wider = any(interval(row, WIDER) for row in rows)
    columns = ["condition, and held against", "difference (95 %)", "p", "corrected", "prompts"]
    columns += ["over relations"] if wider else []
    for row in rows:
        if row["against"] == NO_EDIT:
            name = condition_label(row["condition"])
            cells.append([f"{name}: {row['neurons']:,.0f} neurons", *[""] * (len(columns) - 1)])
        name = row["against"].replace("_", " ")
        over = ["".join(interval(row, WIDER)) or "–"] * wider
        cells.append([f"  {name}", *_tested(row, ""), f"{row['prompts']:,}", *over])
        if not np.isnan(row.get(PLACEBO[0], np.nan)):
            cells.append([f"    placebo of {name}", *_tested(row, "placebo_"), "", *[""] * wider])
    return columns, cells


def _tested(row: Row, prefix: str) -> list[str]:
    """A difference with its interval, its p-value, and that after correction."""
    ends = interval(row, [f"{prefix}{end}" for end in NUMBERS[1:3]])
    difference = f"{points(row[f'{prefix}difference'])}{in_brackets(ends)}"
    return [difference, p_text(row[f"{prefix}p"]), p_text(row[f"{prefix}p_holm"])]


PLACES = {
    "answer": "at the last prompt token and the answer's tokens",
    "last": "at the last prompt token",
    "all": "at all tokens of prompt and answer",
}


def how_edited(outcome: xr.Dataset) -> str:
    """A sentence on what was done to neurons, and where."""
    where, others = PLACES[outcome.attrs["positions"]], outcome.attrs["chosen_on"]
    if not is_of_preset(outcome):
        done = f"edited as the conditions say, {where} where an edit says nothing else"
    elif bool(outcome["keep_only"].any()):
        done = f"kept, and all others switched off, {where}"
    else:
        off = not outcome["factor"].any()
        done = f"{'switched off' if off else 'multiplied as said'} {where}"
    if kind_of(outcome) == AMPLIFICATION:
        done += "; the factor was chosen on the other half of the items"
    chosen = f"; they were chosen on {others:,} other items" if others else ""
    return f"Neurons are {done}{chosen}."


def effect_table(found: Sorted) -> pd.DataFrame:
    """One row for each run, condition and what it is held against."""
    rows = [
        {"run": run, "kind": kind, **row}
        for kind, runs in found.interventions.items()
        for run, outcome in runs.items()
        for row in effect_rows(outcome)
    ]
    return in_order(pd.DataFrame(rows), EFFECT_COLUMNS)


EFFECT_COLUMNS = (
    *("run", "kind", "condition", "against", "neurons", "share", "share_against"),
    *("accuracy", "accuracy_against", *NUMBERS, "verdict", "equivalent_within", *PLACEBO),
    *("prompts", "all_prompts", "subjects", "reason"),
)
