"""Numbers behind the figures, as tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.report.results import Sorted


def item_table(found: Sorted) -> pd.DataFrame:
    """One row for each run, item and language: activity, sharing and the answer."""
    frames = []
    for run in dict.fromkeys([*found.sharing, *found.evaluations]):
        parts = []
        if run in found.sharing:
            sharing = found.sharing[run][["active", "shared_of_active"]].mean("layer")
            parts.append(sharing.to_dataframe())
        if run in found.evaluations:
            answers = found.evaluations[run]
            kept = [name for name in ("correct", "choice", "f1", "counted") if name in answers]
            parts.append(answers[kept].to_dataframe())
        frame = pd.concat(parts, axis=1).reset_index()
        frame.insert(0, "run", run)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def layer_table(found: Sorted) -> pd.DataFrame:
    """One row for each run, layer and category: fraction, baselines and repetition."""
    frames = []
    for run, data in found.sharing.items():
        table = xr.Dataset(
            {
                "mean": data["fraction"].mean("item"),
                "min": data["fraction"].min("item"),
                "max": data["fraction"].max("item"),
                "if_items_shuffled": data["fraction_if_items_shuffled"],
                "if_layer_rate": data["fraction_if_layer_rate"],
                "repetition": data["repetition"],
            }
        )
        frame = table.to_dataframe().reset_index()
        frame.insert(0, "run", run)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


HEADLINE_COLUMNS = {
    "run": "run",
    "accuracy": "accuracy",
    "held_out": "held out",
    "chance": "chance",
    "all_shared": "all-shared",
    "if_items_shuffled": "shuffled",
    "if_layer_rate": "by rate",
}


def headline(found: Sorted) -> list[dict[str, Any]]:
    """One row a run: accuracy and the all-shared fraction beside its baselines.

    Fractions are means over items and layers. Accuracy is over the prompts that count: apart for
    those in languages that the fact was held out of. Missing numbers are NaN.
    """
    rows = []
    for run in dict.fromkeys([*found.sharing, *found.evaluations]):
        row: dict[str, Any] = dict.fromkeys(HEADLINE_COLUMNS, np.nan) | {"run": run}
        if run in found.evaluations:
            answers = found.evaluations[run]
            counted, held_out = answers["counted"], answers["held_out"]
            row["accuracy"] = float(answers["correct"].where(counted & ~held_out).mean())
            row["held_out"] = float(answers["correct"].where(counted & held_out).mean())
            row["chance"] = float(answers["chance"].where(counted).mean())
        if run in found.sharing:
            shared = found.sharing[run].sel(category="all_shared")
            row["all_shared"] = float(shared["fraction"].mean())
            for baseline in ("if_items_shuffled", "if_layer_rate"):
                row[baseline] = float(shared[f"fraction_{baseline}"].mean())
        rows.append(row)
    return rows


def headline_cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The headline rows as text, in the order of ``HEADLINE_COLUMNS``."""
    return [
        [
            row[key] if key == "run" else "–" if np.isnan(row[key]) else f"{row[key]:.1%}"
            for key in HEADLINE_COLUMNS
        ]
        for row in rows
    ]
