"""What interventions found, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuroglot.answering.differences import DIFFERENT, EQUIVALENT, LEVEL
from neuroglot.answering.statistics import LEAST_CLUSTERS
from neuroglot.interventions.conditions import NO_EDIT
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
    """One text for each condition: whether accuracy changes, beyond what, and how that is known."""
    return [_finding(condition, some) for condition, some in by_condition(rows).items()]


def _finding(condition: str, rows: Sequence[Row]) -> str:
    held = {row["against"]: row for row in rows}
    plain = held[NO_EDIT]
    strict = [held[x] for x in STRICT if x in held and not np.isnan(held[x]["difference"])]
    asked = all(x in held for x in STRICT)
    said = f"{condition_label(condition)}: {_whether(plain, strict, asked=asked)}."
    if np.isnan(plain["difference"]):
        return said
    parts = "; ".join(map(_against, [plain, *strict]))
    return " ".join([said, f"In percentage points, {parts}.", *_placebos(rows)])


def _whether(plain: Row, strict: Sequence[Row], *, asked: bool) -> str:
    """The finding, in short; ``asked`` says whether there are both strict controls."""
    if np.isnan(plain["difference"]):
        return f"too few subjects to compare; at least {LEAST_CLUSTERS} are needed"
    if plain["verdict"] == EQUIVALENT:
        return f"accuracy stays the same within {bounds(plain)}"
    if plain["verdict"] != DIFFERENT:
        return "too few items to tell whether accuracy changes"
    moves = "falls" if plain["difference"] < 0 else "rises"
    return f"accuracy {moves}{_beyond(plain, strict, asked=asked)}"


def _beyond(plain: Row, strict: Sequence[Row], *, asked: bool) -> str:
    """Whether a difference is more than that of both strict controls."""
    if not asked:
        return f"; it was not held against both {BEYOND}"
    if len(strict) < len(STRICT):
        return f", but too few prompts can be compared with both {BEYOND}"
    signs = {np.sign(row["difference"]) * (row["verdict"] == DIFFERENT) for row in strict}
    if signs == {np.sign(plain["difference"])}:
        return f" beyond {BEYOND}"
    return f", but that is not shown beyond both {BEYOND}"


def bounds(row: Row) -> str:
    """The bounds of equivalence."""
    return f"±{100 * row['equivalent_within']:g} points"


def _against(row: Row) -> str:
    """One comparison: its difference, and what can be said of it."""
    where = f"against {against_label(row['against'])}"
    if row["prompts"] < row["all_prompts"]:
        where += f" on {row['prompts']:,} of {row['all_prompts']:,} prompts"
    known = f"p {p_text(row['p'])}, corrected {p_text(row['p_holm'])}"
    if not np.isnan(row["difference_low"]):
        known = f"{points_range(row['difference_low'], row['difference_high'])}; {known}"
    return f"{points(row['difference'])} {where} ({known}): {verdict_text(row)}"


def verdict_text(row: Row) -> str:
    """What a comparison finds, in words, and where it is open what would be enough."""
    if row["verdict"] == DIFFERENT:
        wider = row.get("p_over_relations_holm", np.nan)
        if np.isnan(wider):
            return "a difference"
        return f"a difference, {'also' if wider < LEVEL else 'not shown'} for other relations"
    if row["verdict"] == EQUIVALENT:
        return f"equivalent within {bounds(row)}"
    return f"too few items to tell{_sufficient(row)}"


def _sufficient(row: Row) -> str:
    """How many would be enough, where that is known."""
    needed, there = row["sufficient_subjects"], row["subjects"]
    if np.isnan(needed):
        return ""
    if needed > there:
        return (
            f" (about {needed:,.0f} subjects would tell {100 * row['equivalent_within']:g} points "
            f"from none; there are {there:,.0f})"
        )
    return f" (the difference is near the bounds of {bounds(row)})"


def _placebos(rows: Sequence[Row]) -> list[str]:
    """Of controls whose draws differ from each other, which chance alone should not let them."""
    failed = [row for row in rows if row.get("placebo_p_holm", np.nan) < LEVEL]
    return [
        f"The placebo of {against_label(row['against'])} differs from it by "
        f"{points(row['placebo_difference'])}: do not rest claims on this control."
        for row in failed
    ]
