"""Tables of runs that are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from neuroglot.answering.differences import OPEN
from neuroglot.answering.observations import OVER_RELATIONS
from neuroglot.reporting.effects import in_brackets, p_text, points
from neuroglot.reporting.findings import verdict_text
from neuroglot.reporting.results import Sorted
from neuroglot.reporting.style import CATEGORY_LABELS
from neuroglot.sharing.bits import CATEGORIES

ENDS = ("", "_low", "_high")
TESTED = ("p", "p_holm", "p_equivalent", "p_equivalent_holm", "subjects", "sufficient_subjects")


def run_names(compared: xr.Dataset) -> list[str]:
    """The runs of a comparison, in order."""
    return [str(run) for run in compared["run"].to_numpy()]


def change(data: xr.Dataset, name: str, digits: int = 1) -> str:
    """A change in percentage points, with its interval, and that over relations if any."""
    middle, low, high = (float(data[f"{name}{end}"]) for end in ENDS)
    ends = [] if np.isnan(low) else [f"{points(low, digits)} to {points(high, digits)}"]
    wider = [float(data[f"{name}{end}"]) for end in OVER_RELATIONS if f"{name}{end}" in data]
    if wider and not np.isnan(wider[0]):
        ends.append(f"over relations {' to '.join(points(end, digits) for end in wider)}")
    return points(middle, digits) + in_brackets(ends)


def comparison_rows(compared: xr.Dataset) -> list[dict[str, Any]]:
    """One row a run: levels, changes from the first, and what goes with what; for JSON."""
    rows = []
    for run in run_names(compared):
        here = compared.sel(run=run)
        shared = here.sel(category="all_shared")
        row: dict[str, Any] = {"run": run, "model": str(here["model"].to_numpy())}
        row["all_shared"] = float(shared["fraction"])
        row["all_shared_if_items_shuffled"] = float(shared["fraction_if_items_shuffled"])
        row |= {f"all_shared_change{e}": float(shared[f"fraction_change{e}"]) for e in ENDS}
        names = ["accuracy_overall", *(f"accuracy_overall_change{end}" for end in ENDS)]
        names += ["odds_ratio", "odds_ratio_low", "odds_ratio_high", "odds_ratio_p"]
        names += [f"{n}{end}" for n in ("spearman", "spearman_of_changes") for end in ENDS]
        names += [f"accuracy_overall_change{end}" for end in OVER_RELATIONS]
        names += [f"accuracy_overall_{name}" for name in TESTED]
        row |= {name: float(here[name]) for name in names if name in here}
        if "accuracy_overall_verdict" in here:
            row["accuracy_overall_verdict"] = str(here["accuracy_overall_verdict"].to_numpy())
        row["odds_ratio_reason"] = str(here["odds_ratio_reason"].to_numpy())
        rows.append(row)
    return rows


LEVELS = ("all-shared", "items shuffled", "accuracy", "odds of a right answer", "Spearman")
CHANGING = ("all-shared", "accuracy")


def _levels(compared: xr.Dataset, run: str) -> list[tuple[str, str]]:
    """What ``LEVELS`` lists of one run, each with its change from the first."""
    here = compared.sel(run=run)
    shared = here.sel(category="all_shared")
    is_first = run == run_names(compared)[0]
    return [
        (
            percent(float(shared["fraction"]), 2),
            "" if is_first else change(shared, "fraction_change", 2),
        ),
        (percent(float(shared["fraction_if_items_shuffled"]), 2), ""),
        (
            percent(float(here["accuracy_overall"])),
            "" if is_first else change(here, "accuracy_overall_change"),
        ),
        (_ratio(here), ""),
        (_rank(here), ""),
    ]


def comparison_lines(compared: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Headings and cells for a terminal: below each run what is known of it."""
    cells = []
    for run in run_names(compared):
        cells.append([run, "", ""])
        found = zip(LEVELS, _levels(compared, run), strict=True)
        cells += [[f"  {name}", *shown] for name, shown in found]
    return ["run", "level", "change (points)"], cells


def comparison_cells(compared: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of one row a run."""
    heads, cells = ["run"], []
    for name in LEVELS:
        heads += [name, "change (points)"] if name in CHANGING else [name]
    for run in run_names(compared):
        row = [run]
        for name, (level, moved) in zip(LEVELS, _levels(compared, run), strict=True):
            row += [level, moved] if name in CHANGING else [level]
        cells.append(row)
    return heads, cells


def _ratio(here: xr.Dataset) -> str:
    if np.isnan(float(here["odds_ratio"])):
        return "–"
    return "×{:.2f} ({:.2f} to {:.2f})".format(*(float(here[f"odds_ratio{end}"]) for end in ENDS))


def _rank(here: xr.Dataset) -> str:
    found = [float(here[f"spearman{end}"]) for end in ENDS]
    if np.isnan(found[0]):
        return "–"
    ends = "" if np.isnan(found[1:]).any() else f" ({found[1]:+.2f} to {found[2]:+.2f})"
    return f"{found[0]:+.2f}{ends}".replace("-", "−")


def language_cells(compared: xr.Dataset, run: str) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of one row a language, for one run against the first."""
    heads = ["language", "shared of active", "change (points)", "accuracy", "change (points)"]
    heads += ["p", "corrected"]
    cells = []
    for language in compared["language"].to_numpy():
        here = compared.sel(run=run, language=language)
        cells.append(
            [
                str(language),
                percent(float(here["shared_of_active"])),
                change(here, "shared_of_active_change"),
                percent(float(here["accuracy"])),
                change(here, "accuracy_change"),
                *(p_text(float(here[name])) for name in ("accuracy_p", "accuracy_p_holm")),
            ]
        )
    return heads, cells


def change_findings(compared: xr.Dataset) -> list[str]:
    """One sentence a run: how accuracy over all languages has changed from the first run."""
    found = []
    for run in run_names(compared)[1:]:
        here = compared.sel(run=run)
        tested = _tested(here)
        found.append(
            f"{run}: accuracy over all languages changes by "
            f"{change(here, 'accuracy_overall_change')} points (p {p_text(tested['p'])}, corrected "
            f"{p_text(tested['p_holm'])}): {verdict_text(tested)}."
        )
    return found


def _tested(here: xr.Dataset) -> dict[str, Any]:
    """What :func:`verdict_text` is about; NaN, and open, of results of before, which lack it."""
    names = {name: f"accuracy_overall_{name}" for name in (*TESTED, "verdict")}
    known = {name: here[full].item() if full in here else np.nan for name, full in names.items()}
    known["verdict"] = known["verdict"] if names["verdict"] in here else OPEN
    return known | {"equivalent_within": here.attrs.get("equivalent_within", np.nan)}


def flow_rows(compared: xr.Dataset, run: str) -> list[dict[str, Any]]:
    """One row for each category and what it became: share of it, and of all neurons."""
    flow = compared["flow"].sel(run=run).mean("layer")
    share = flow / flow.sum("category_after")
    return [
        {
            "category": before,
            "category_after": after,
            "of_category": float(share.sel(category=before, category_after=after)),
            "of_all": float(flow.sel(category=before, category_after=after)),
        }
        for before in CATEGORIES[::-1]
        for after in CATEGORIES[::-1]
    ]


def flow_cells(compared: xr.Dataset, run: str) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: what share of each category has become which."""
    rows = flow_rows(compared, run)
    heads = [CATEGORY_LABELS[name] for name in CATEGORIES[::-1]]
    shown = {(row["category"], row["category_after"]): row["of_category"] for row in rows}
    cells = [
        [CATEGORY_LABELS[before], *(percent(shown[before, after]) for after in CATEGORIES[::-1])]
        for before in CATEGORIES[::-1]
    ]
    return ["from, to", *heads], cells


def percent(share: float, digits: int = 1) -> str:
    """A share for people."""
    return "–" if np.isnan(share) else f"{100 * share:.{digits}f}%"


HOW = (
    "All-shared: share of all neurons, and with each language's items shuffled. Changes are from "
    "the first run, with 95 % intervals over subjects. Odds: of a right answer, for ten points "
    "more of a prompt's active neurons being all-shared, with the language as covariate. Spearman: "
    "over languages, of shared-of-active and accuracy."
)


FLOW = "Share of each category's neurons in the first run, mean over items, all layers together."


def comparison_tables(found: Sorted) -> list[dict[str, Any]]:
    """What the page says of every comparison: title, sentence, headings and cells."""
    tables = []
    for name, compared in found.run_comparisons.items():
        heads, cells = comparison_cells(compared)
        tables.append(
            {
                "title": f"{name}: against the first run",
                "how": f"{HOW} {' '.join(change_findings(compared))}",
                "columns": heads,
                "rows": cells,
            }
        )
        for run in run_names(compared)[1:]:
            heads, cells = language_cells(compared, run)
            said = {"title": f"{name}: {run} by language", "how": ""}
            tables.append({**said, "columns": heads, "rows": cells})
            if "flow" in compared:
                heads, cells = flow_cells(compared, run)
                said = {"title": f"{name}: {run}, what neurons became", "how": FLOW}
                tables.append({**said, "columns": heads, "rows": cells})
    return tables
