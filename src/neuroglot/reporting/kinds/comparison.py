"""Results of :func:`neuroglot.compare`: runs compared with the first of them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.answering.differences import OPEN
from neuroglot.answering.observations import OVER_RELATIONS
from neuroglot.comparison.comparison import KIND
from neuroglot.reporting.cells import number_with, p_text, percent, points_with
from neuroglot.reporting.kind import Figures, Group, Kind
from neuroglot.reporting.kinds import comparison_figures
from neuroglot.reporting.kinds.comparison_figures import ENDS, flow_rows, run_names
from neuroglot.reporting.kinds.outcome_findings import verdict_text
from neuroglot.reporting.style import CATEGORY_LABELS
from neuroglot.reporting.table import Column, Table
from neuroglot.sharing.bits import CATEGORIES

TESTED = ("p", "p_holm", "p_equivalent", "p_equivalent_holm", "subjects", "sufficient_subjects")


def _with_ends(name: str) -> tuple[str, ...]:
    """The names of a number and of the ends of its intervals, over relations too."""
    return tuple(f"{name}{end}" for end in (*ENDS, *OVER_RELATIONS))


def _rank(value: float, *ends: float) -> str:
    return number_with(value, *ends, form="+.2f").replace("-", "−")


BY_RUN = (
    Column("run", ("run",)),
    Column("all-shared", ("all_shared",), partial(percent, digits=2)),
    Column("change (points)", _with_ends("all_shared_change"), partial(points_with, digits=2)),
    Column("items shuffled", ("all_shared_if_items_shuffled",), partial(percent, digits=2)),
    Column("accuracy", ("accuracy_overall",), percent),
    Column("change (points)", _with_ends("accuracy_overall_change"), points_with),
    Column(
        "odds of a right answer",
        tuple(f"odds_ratio{end}" for end in ENDS),
        partial(number_with, sign="×"),
    ),
    Column("Spearman", tuple(f"spearman{end}" for end in ENDS), _rank),
)
BY_LANGUAGE = (
    Column("language", ("language",)),
    Column("shared of active", ("shared_of_active",), percent),
    Column("change (points)", _with_ends("shared_of_active_change"), points_with),
    Column("accuracy", ("accuracy",), percent),
    Column("change (points)", _with_ends("accuracy_change"), points_with),
    Column("p", ("accuracy_p",), p_text),
    Column("corrected", ("accuracy_p_holm",), p_text),
)
OF_FLOW = (
    Column("from, to", ("category",)),
    *(Column(CATEGORY_LABELS[name], (name,), percent) for name in CATEGORIES[::-1]),
)
OF_SHARED = {
    name: name.replace("fraction", "all_shared")
    for name in ("fraction", "fraction_if_items_shuffled", *_with_ends("fraction_change"))
}
OF_RUN = (
    *("accuracy_overall", *_with_ends("accuracy_overall_change")),
    *("odds_ratio", "odds_ratio_low", "odds_ratio_high", "odds_ratio_p"),
    *(f"{name}{end}" for name in ("spearman", "spearman_of_changes") for end in ENDS),
    *(f"accuracy_overall_{name}" for name in TESTED),
)
TEXTS = ("model", "accuracy_overall_verdict", "odds_ratio_reason")
HOW = (
    "All-shared: share of all neurons. Items shuffled: the same with each language's items "
    "permuted. Changes are from the first run, with 95 % intervals over subjects. Odds: the factor "
    "by which the odds of a right answer change if ten points more of a prompt's active neurons "
    "are all-shared, with the language as covariate. Spearman: the rank correlation of "
    "shared-of-active and accuracy over languages."
)
FLOW = "Share of each category's neurons in the first run, mean over items, all layers together."
NO_FLOW = (
    "The flow between categories is not shown, because it is not known that all models continue "
    "one checkpoint; lineage=True (--lineage) says that they do."
)


def comparison_rows(compared: xr.Dataset) -> list[dict[str, Any]]:
    """One row for each run: values, changes from the first run, odds and correlations."""
    rows = []
    for run in run_names(compared):
        of_run = compared.sel(run=run)
        shared = values_of(of_run.sel(category="all_shared"), OF_SHARED)
        texts = {name: str(of_run[name].to_numpy()) for name in TEXTS if name in of_run}
        row = {"run": run, **{OF_SHARED[name]: value for name, value in shared.items()}}
        rows.append(row | values_of(of_run, OF_RUN) | texts)
    return rows


def language_rows(compared: xr.Dataset, run: str) -> list[dict[str, Any]]:
    """One row for each language: sharing and accuracy of a run, and their changes."""
    keys = [key for column in BY_LANGUAGE[1:] for key in column.keys]
    return [
        {"language": str(language)} | values_of(compared.sel(run=run, language=language), keys)
        for language in compared["language"].to_numpy()
    ]


def values_of(data: xr.Dataset, names: Iterable[str]) -> dict[str, float]:
    """The values of those variables without dimensions that the dataset has."""
    return {name: float(data[name]) for name in names if name in data}


def change_findings(compared: xr.Dataset) -> list[str]:
    """A sentence for each run on how accuracy over all languages differs from the first run."""
    sentences = []
    for run in run_names(compared)[1:]:
        of_run = compared.sel(run=run)
        test, change = _test(of_run), values_of(of_run, _with_ends("accuracy_overall_change"))
        sentences.append(
            f"{run}: accuracy over all languages changes by "
            f"{points_with(*change.values())} points (p {p_text(test['p'])}, corrected "
            f"{p_text(test['p_holm'])}): {verdict_text(test)}."
        )
    return sentences


def _test(of_run: xr.Dataset) -> dict[str, Any]:
    """The values that :func:`verdict_text` needs; results of early versions may lack them."""
    test: dict[str, Any] = dict.fromkeys(TESTED, np.nan) | {"verdict": OPEN}
    names = {name: f"accuracy_overall_{name}" for name in test}
    test |= {name: of_run[full].item() for name, full in names.items() if full in of_run}
    return test | {"equivalent_within": of_run.attrs.get("equivalent_within", np.nan)}


def flow_table(compared: xr.Dataset, run: str, title: str, *, is_for_page: bool) -> Table:
    """The share of each category's neurons that is now in each category."""
    rows: dict[str, dict[str, Any]] = {}
    for row in flow_rows(compared, run):
        before = rows.setdefault(row["category"], {"category": CATEGORY_LABELS[row["category"]]})
        before[row["category_after"]] = row["of_category"]
    return Table(title, OF_FLOW, list(rows.values()), explained=[FLOW], is_for_page=is_for_page)


def tables(runs: Group) -> list[Table]:
    """Tables of changes from the first run, by run and by language, and of the flow.

    A terminal shows only the flow to the last run, and nothing by language.
    """
    shown = []
    for name, compared in runs.items():
        said = [*change_findings(compared), *([] if "flow" in compared else [NO_FLOW])]
        title, rows = f"{name}: against the first run", comparison_rows(compared)
        shown.append(Table(title, BY_RUN, rows, said=said, explained=[HOW]))
        _, *later = run_names(compared)
        for run in later:
            title, by_language = f"{name}: {run} by language", language_rows(compared, run)
            shown.append(Table(title, BY_LANGUAGE, by_language, is_for_page=True))
            if "flow" in compared:
                title = f"{name}: {run}, what neurons became"
                shown.append(flow_table(compared, run, title, is_for_page=run != later[-1]))
    return shown


def figures(_: str, runs: Group) -> Figures:
    """All figures of the comparisons."""
    return {
        f"{shown}-{name}": chart
        for name, compared in runs.items()
        for shown, chart in comparison_figures.figures(compared, name).items()
    }


def records(compared: xr.Dataset) -> dict[str, Any]:
    """The rows by run, and the flow to each later run."""
    later = run_names(compared)[1:] if "flow" in compared else []
    return {
        "runs": comparison_rows(compared),
        "flow": {run: flow_rows(compared, run) for run in later},
    }


COMPARISON = Kind(KIND, tables=tables, figures=figures, records=records, has_notes=True)
