"""Describe the findings of interventions in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuroglot.answering.differences import DIFFERENT, EQUIVALENT, LEVEL
from neuroglot.answering.statistics import LEAST_CLUSTERS
from neuroglot.interventions.controls import NO_EDIT
from neuroglot.reporting.cells import p_text, points, points_range
from neuroglot.reporting.kinds.outcome_rows import (
    STRICT,
    against_label,
    by_condition,
    condition_label,
)
from neuroglot.reporting.table import Row

BEYOND = "active and equally contributing random neurons"


def findings(rows: Sequence[Row]) -> list[str]:
    """A text for each condition: whether accuracy changes, also beyond controls, and the tests."""
    return [_finding(condition, of_it) for condition, of_it in by_condition(rows).items()]


def _finding(condition: str, rows: Sequence[Row]) -> str:
    by_control = {row["against"]: row for row in rows}
    plain = by_control[NO_EDIT]
    strict_rows = [by_control[control] for control in STRICT if control in by_control]
    strict = [row for row in strict_rows if not np.isnan(row["difference"])]
    asked = len(strict_rows) == len(STRICT)
    summary = f"{condition_label(condition)}: {_whether(plain, strict, asked=asked)}."
    if np.isnan(plain["difference"]):
        return summary
    parts = "; ".join(map(_against, [plain, *strict]))
    return " ".join([summary, f"In percentage points, {parts}.", *_placebos(rows)])


def _whether(plain: Row, strict: Sequence[Row], *, asked: bool) -> str:
    """The finding in short; ``asked`` says whether both strict controls were run."""
    if np.isnan(plain["difference"]):
        return f"too few subjects to compare; at least {LEAST_CLUSTERS} are needed"
    if plain["verdict"] == EQUIVALENT:
        return f"accuracy stays the same within {bounds(plain)}"
    if plain["verdict"] != DIFFERENT:
        return "too few items to tell whether accuracy changes"
    moves = "falls" if plain["difference"] < 0 else "rises"
    return f"accuracy {moves}{_beyond(plain, strict, asked=asked)}"


def _beyond(plain: Row, strict: Sequence[Row], *, asked: bool) -> str:
    """Whether a difference goes beyond those of both strict controls."""
    if not asked:
        return f"; it was not compared with both {BEYOND}"
    if len(strict) < len(STRICT):
        return f", but too few prompts can be compared with both {BEYOND}"
    signs = {np.sign(row["difference"]) * (row["verdict"] == DIFFERENT) for row in strict}
    if signs == {np.sign(plain["difference"])}:
        return f" beyond {BEYOND}"
    return f", but that is not shown beyond both {BEYOND}"


def bounds(row: Row) -> str:
    """The bounds of equivalence, as a text."""
    return f"±{100 * row['equivalent_within']:g} points"


def _against(row: Row) -> str:
    """One comparison: its difference, interval, p-values and verdict."""
    control = f"against {against_label(row['against'])}"
    if row["prompts"] < row["all_prompts"]:
        control += f" on {row['prompts']:,} of {row['all_prompts']:,} prompts"
    test = f"p {p_text(row['p'])}, corrected {p_text(row['p_holm'])}"
    if not np.isnan(row["difference_low"]):
        test = f"{points_range(row['difference_low'], row['difference_high'])}; {test}"
    return f"{points(row['difference'])} {control} ({test}): {verdict_text(row)}"


def verdict_text(row: Row) -> str:
    """The verdict of a comparison in words and, if it is open, how many subjects would suffice."""
    if row["verdict"] == DIFFERENT:
        wider = row.get("p_over_relations_holm", np.nan)
        if np.isnan(wider):
            return "a difference"
        return f"a difference, {'also' if wider < LEVEL else 'not shown'} for other relations"
    if row["verdict"] == EQUIVALENT:
        return f"equivalent within {bounds(row)}"
    return f"too few items to tell{_sufficient(row)}"


def _sufficient(row: Row) -> str:
    """How many subjects would suffice, if that is known."""
    needed, present = row["sufficient_subjects"], row["subjects"]
    if np.isnan(needed):
        return ""
    if needed > present:
        return (
            f" (about {needed:,.0f} subjects would tell {100 * row['equivalent_within']:g} points "
            f"from none; there are {present:,.0f})"
        )
    return f" (the difference is near the bounds of {bounds(row)})"


def _placebos(rows: Sequence[Row]) -> list[str]:
    """A warning for each control whose draws differ from each other by more than chance."""
    failed = [row for row in rows if row.get("placebo_p_holm", np.nan) < LEVEL]
    return [
        f"The placebo of {against_label(row['against'])} differs from it by "
        f"{points(row['placebo_difference'])}: do not rest claims on this control."
        for row in failed
    ]
