"""Results as the commands print them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.answering.observations import OVER_RELATIONS
from neuroglot.cli.terminal import say, table
from neuroglot.reporting.accuracy import (
    WIDER,
    accuracy_cells,
    accuracy_rows,
    guesses_explained,
    has_wider,
    percent,
    what_is_missing,
)
from neuroglot.reporting.results import SCORE_LABELS, main_score
from neuroglot.reporting.tables import (
    SCORE_COLUMNS,
    attribution_cells,
    attribution_rows,
    score_cells,
)
from neuroglot.sharing.bits import CATEGORIES
from neuroglot.tasks.catalogue import catalogue

YES_OR_NO = ("norm_after_ffn", "special_tokens", "truncate")  # some are numbers, as Zarr has them


def found_text(key: str, value: Any) -> str:
    """What :meth:`neuroglot.Model.describe` says under a key, for people."""
    if key in YES_OR_NO:
        return "yes" if value else "no"
    return "–" if value is None or value == "" else str(value)


def sharing_rows(sharing: xr.Dataset) -> list[dict[str, Any]]:
    """One row a category: mean over items and layers of fraction, baselines and repetition."""
    rows = []
    for category in CATEGORIES:
        one = sharing.sel(category=category)
        rows.append(
            {
                "category": category,
                "fraction": float(one["fraction"].mean()),
                "if_items_shuffled": float(one["fraction_if_items_shuffled"].mean()),
                "if_layer_rate": float(one["fraction_if_layer_rate"].mean()),
                "repetition": float(one["repetition"].mean()),
            }
        )
    return rows


def fragility_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """One row a comparison, over all layers: flipped categories and the margin at which."""
    rows = []
    for name in found["comparison"].values:
        one = found.sel(comparison=name)
        largest = one["margin_largest"]
        rows.append(
            {
                "changed": str(name),
                "flipped_categories": float(one["category_flips"].mean()),
                "number": int(one["n_category_flips"].sum()),
                "margin_at_most": f"{float(largest.max()):.2g}" if largest.notnull().any() else "–",
                "median_distance": f"{float(one['value_median'].median()):.2g}",
            }
        )
    return rows


def accuracy_table(answers: xr.Dataset, title: str) -> None:
    """Accuracy by language with its interval, beside what a guesser knows."""
    rows = accuracy_rows(answers)
    table(*accuracy_cells(rows), title)
    said = [*guesses_explained([answers]), *what_is_missing(answers)]
    say(" ".join(["In brackets: 95 % intervals over subjects.", *said]))
    if has_wider(rows):
        say(WIDER)


def task_rows() -> list[dict[str, Any]]:
    """One dict a task of the catalogue."""
    rows = []
    for entry in catalogue().values():
        row: dict[str, Any] = {"task": entry.name, "summary": entry.summary}
        if entry.dataset is not None:
            kept = ("languages", "revision", "licence", "citation")
            row |= {field: getattr(entry.dataset, field) for field in kept}
            row["hub"] = entry.dataset.hub.get("address", entry.dataset.hub["path"])
        rows.append(row)
    return rows


def tasks(rows: Sequence[dict[str, Any]]) -> None:
    """The tasks as lines: what they ask, and for published data languages, licence and source."""
    for row in rows:
        say(f"{row['task']:15} {row['summary']}", indent=16)
        if "licence" in row:
            languages = f"{' '.join(row['languages'])}; licence: {row['licence']}"
            say(f"{'':15} {languages}", indent=16)
            say(f"{'':15} {row['citation']}", indent=16)


def rows_as_table(rows: Sequence[dict[str, Any]], title: str | None = None) -> None:
    """Dicts of one shape as a table; fractions in per cent."""

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return percent(value, 3 if 0 < value < 0.001 else 1)
        return str(value)

    columns = [column.replace("_", " ") for column in rows[0]]
    table(columns, [[cell(value) for value in row.values()] for row in rows], title)


def score_table(rows: list[dict[str, Any]]) -> None:
    """What all-shared neurons contribute to correct answers, by run."""
    if rows:
        table(SCORE_COLUMNS, score_cells(rows), "All-shared neurons in correct answers")


def attribution_table(attribution: xr.Dataset) -> None:
    """What all-shared neurons contribute to correct answers, by language."""
    score = main_score(attribution)
    rows = attribution_rows(attribution, score)
    title = (
        f"All-shared neurons in correct answers: how many, and their share ({SCORE_LABELS[score]})"
    )
    table(*attribution_cells(rows), title)


def agreement_rows(agreement: xr.Dataset) -> list[dict[str, Any]]:
    """One row a score and layer: rank correlations with their intervals."""
    ends = ("", "_low", "_high", *OVER_RELATIONS)
    names = [f"{size}agreement{end}" for size in ("", "size_") for end in ends]
    names = [name for name in names if name in agreement]
    return [
        {"score": str(score), "layer": int(layer)}
        | {name: float(agreement[name].sel(score=score, layer=layer)) for name in names}
        for score in agreement["score"].to_numpy()
        for layer in agreement["layer"].to_numpy()
    ]


def agreement_table(rows: list[dict[str, Any]], title: str) -> None:
    """The same for people."""

    def cell(row: dict[str, Any], name: str) -> str:
        value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
        ends = "" if np.isnan(low) else f" ({low:.2f} to {high:.2f})"
        return "–" if np.isnan(value) else f"{value:.2f}{ends}"

    cells = [
        [
            SCORE_LABELS[row["score"]],
            str(row["layer"]),
            cell(row, "agreement"),
            cell(row, "size_agreement"),
        ]
        for row in rows
    ]
    table(("score", "layer", "with sign (95 %)", "size only (95 %)"), cells, title)
