"""Accuracy apart for taught and held-out prompts, beside what can be had without knowing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.experiments.evaluation import accuracy

KINDS = {"accuracy": "all prompts", "taught": "taught", "held_out": "held out"}
"""Kinds of prompts: all where a task makes no difference, else in languages in which the fact was
taught, and in languages that it was held out of."""


def counted_by_kind(answers: xr.Dataset) -> dict[str, xr.DataArray]:
    """Which prompts count (item, language), by kind."""
    counted, held_out = answers["counted"], answers["held_out"]
    if not held_out.any() and answers.attrs["split"] == "all":
        return {"accuracy": counted}
    return {"taught": counted & ~held_out, "held_out": counted & held_out}


def to_be_compared(answers: xr.Dataset) -> xr.DataArray:
    """The prompts (item, language) of chance and majority: held-out ones where there are any."""
    held_out = answers["counted"] & answers["held_out"]
    return held_out if held_out.any() else answers["counted"]


def commonest(answers: xr.Dataset, counted: xr.DataArray) -> xr.DataArray:
    """How many prompts (language) are right if the answer is always the commonest right one.

    It is looked up in the same prompts, so no guess that is always the same does better. NaN for
    results saved before they held the right answers.
    """
    languages = answers["language"]
    if "answer" not in answers:
        return xr.full_like(languages, np.nan, dtype=float)
    most = []
    for language in languages.to_numpy():
        one = answers["answer"].sel(language=language)
        texts = Counter(one[counted.sel(language=language)].to_numpy().tolist())
        most.append(max(texts.values(), default=0))
    return xr.DataArray(most, dims="language", coords={"language": languages})


def majority(answers: xr.Dataset, counted: xr.DataArray) -> float:
    """The share of prompts that is right by always answering a language's commonest answer."""
    return float(commonest(answers, counted).sum(skipna=False) / counted.sum())


def accuracy_frame(answers: xr.Dataset) -> pd.DataFrame:
    """One row a kind of prompts and language: accuracy, its interval, chance, majority, number."""
    parts = []
    for kind, counted in counted_by_kind(answers).items():
        found = accuracy(answers["correct"], counted, seed=answers.attrs["seed"])
        n_prompts = counted.sum("item")
        table = xr.Dataset(
            {
                "accuracy": found["accuracy"],
                "low": found["accuracy_low"],
                "high": found["accuracy_high"],
                "chance": answers["chance"].where(counted).mean("item"),
                "majority": commonest(answers, counted) / n_prompts.where(n_prompts > 0),
                "prompts": n_prompts,
            }
        )
        parts.append(table.to_dataframe().reset_index().assign(kind=kind))
    return pd.concat(parts, ignore_index=True)


def accuracy_rows(answers: xr.Dataset) -> list[dict[str, Any]]:
    """One row a language: accuracy with its interval by kind, chance, majority and token F1.

    Chance and majority are those of the held-out prompts, where a language has any.
    """
    frame = accuracy_frame(answers)
    asked = frame.groupby("kind")["prompts"].transform("sum") > 0
    rows = []
    for language in answers["language"].to_numpy():
        row: dict[str, Any] = {"language": str(language), "chance": np.nan, "majority": np.nan}
        for one in frame[asked & (frame["language"] == language)].to_dict("records"):
            kind = str(one["kind"])
            row |= {kind: one["accuracy"], f"{kind}_low": one["low"], f"{kind}_high": one["high"]}
            row |= {f"{kind}_prompts": one["prompts"]}
            if one["prompts"]:
                row |= {key: one[key] for key in ("chance", "majority")}
        rows.append(row)
    if has_f1(answers):
        f1 = answers["f1"].where(answers["counted"]).mean("item")
        for row in rows:
            row["token_f1"] = float(f1.sel(language=row["language"]))
    return rows


def has_f1(answers: xr.Dataset) -> bool:
    """Whether token F1 says anything: not of choices, nor of numbers."""
    return "f1" in answers and answers.attrs.get("match") != "number"
