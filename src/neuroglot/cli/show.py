"""What the commands print."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import typer
import xarray as xr
from rich import box
from rich.console import Console
from rich.table import Table

from neuroglot.analysis.bits import CATEGORIES
from neuroglot.tasks.catalogue import catalogue


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """A table as wide as the terminal; the first column is text, the others are numbers."""
    shown = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for i, column in enumerate(columns):
        shown.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)


def as_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(_plain(value), ensure_ascii=False, indent=2))


def _plain(value: Any) -> Any:
    """Only what JSON knows: NaN, which it does not, becomes null."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


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


def accuracy_rows(answers: xr.Dataset) -> list[dict[str, Any]]:
    """One row a language: accuracy with its interval, chance, F1 and number of prompts."""
    chance = answers["chance"].where(answers["counted"]).mean("item")
    rows = []
    for language in answers["language"].values:
        one = answers.sel(language=language)
        row = {
            "language": str(language),
            "accuracy": float(one["accuracy"]),
            "low": float(one["accuracy_low"]),
            "high": float(one["accuracy_high"]),
            "chance": float(chance.sel(language=language)),
        }
        if "f1" in answers:
            row["token_f1"] = float(one["f1"].where(one["counted"]).mean())
        rows.append(row | {"prompts": int(one["counted"].sum())})
    return rows


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
        typer.echo(f"{row['task']:15} {row['summary']}")
        if "licence" in row:
            typer.echo(f"{'':15} {' '.join(row['languages'])}; licence: {row['licence']}")
            typer.echo(f"{'':15} {row['citation']}")


def rows_as_table(rows: Sequence[dict[str, Any]], title: str | None = None) -> None:
    """Dicts of one shape as a table; fractions in per cent."""

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return (
                "–" if np.isnan(value) else f"{value:.3%}" if 0 < value < 0.001 else f"{value:.1%}"
            )
        return str(value)

    columns = [column.replace("_", " ") for column in rows[0]]
    table(columns, [[cell(value) for value in row.values()] for row in rows], title)
