"""Numbers behind the figures, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.answering.observations import OVER_RELATIONS
from neuroglot.answering.spreadsheet import in_order
from neuroglot.attribution.by_category import share_of_correct
from neuroglot.reporting.accuracy import (
    GUESSES,
    KINDS,
    WIDER,
    accuracy_cells,
    accuracy_frame,
    accuracy_rows,
    beside_accuracy,
    counted_by_kind,
    has_f1,
    has_wider,
    mean_of,
    percent,
    to_be_compared,
    what_is_missing,
)
from neuroglot.reporting.results import SCORE_LABELS, Sorted, main_score

OF_ANSWERS = (
    *("correct", "choice", "counted", "held_out", "chance", "majority", "margin"),
    *("masked_correct", "masked_margin", "margin_beyond_masked"),
)


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
            kept = [x for x in OF_ANSWERS if x in answers]
            kept += ["f1"] if has_f1(answers) else []
            parts.append(answers[kept].to_dataframe())
        frame = pd.concat(parts, axis=1).reset_index()
        frame.insert(0, "run", run)
        frames.append(frame)
    return _joined(frames, (*OF_A_PROMPT, "active", "shared_of_active", *OF_ANSWERS, "f1"))


OF_A_PROMPT = ("run", "item", "language", "subject", "relation", "same_tokens_as")


def _joined(frames: list[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """The rows of all runs, with columns in an order that does not depend on that of the runs."""
    return in_order(pd.concat(frames, ignore_index=True), columns) if frames else pd.DataFrame()


def accuracy_table(found: Sorted) -> pd.DataFrame:
    """One row for each run, kind of prompts and language: accuracy and what a guesser knows."""
    frames = []
    for run, answers in found.evaluations.items():
        frame = accuracy_frame(answers)
        frame.insert(0, "run", run)
        frames.append(frame)
    ends = ("low", "high", *(name.removeprefix("_") for name in OVER_RELATIONS))
    columns = ("run", "language", "accuracy", *ends, *GUESSES, "prompts", "kind")
    return _joined(frames, columns).dropna(axis="columns", how="all")


def accuracy_tables(found: Sorted) -> list[dict[str, Any]]:
    """What the page says of every run's answers: title, sentences, headings and cells."""
    tables = []
    for run, answers in found.evaluations.items():
        rows = accuracy_rows(answers)
        columns, cells = accuracy_cells(rows)
        wider = [WIDER] if has_wider(rows) else []
        said = ["In brackets: 95 % intervals over subjects.", *wider, *what_is_missing(answers)]
        how = " ".join(said)
        tables.append({"title": f"{run}: accuracy", "how": how, "columns": columns, "rows": cells})
    return tables


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
    return _joined(frames, ("run", "layer", "category", "mean", "min", "max"))


def attribution_table(found: Sorted) -> pd.DataFrame:
    """One row for each run, score, kind of answer, language, layer and category."""
    frames = []
    for run, data in found.attributions.items():
        kept = [n for n in map(str, data) if n != "mean_score" and not n.startswith("model_")]
        frame = data[kept].to_dataframe().reset_index()
        frame.insert(0, "run", run)
        frames.append(frame)
    return _joined(frames, ("run", "score", "answered", "language", "layer", "category"))


ATTRIBUTION_COLUMNS = {
    "language": "language",
    "prompts": "prompts",
    "correct": "correct",
    "fraction": "neurons",
    "share": "share of the score",
    "interval": "95 %",
}


def attribution_rows(attribution: xr.Dataset, score: str) -> list[dict[str, Any]]:
    """One row a language: how many neurons are all-shared, and what they contribute.

    Over all layers, in prompts answered correctly; see :func:`neuroglot.share_of_correct`.
    """
    found, counts = share_of_correct(attribution, score), attribution["n_prompts"]
    return [
        {
            "language": str(language),
            "prompts": int(counts.sel(answered="all", language=language)),
            "correct": int(counts.sel(answered="correct", language=language)),
            "fraction": float(found["model_fraction"].sel(language=language)),
            "share": float(found["model_share"].sel(language=language)),
            "low": float(found["model_share_low"].sel(language=language)),
            "high": float(found["model_share_high"].sel(language=language)),
        }
        for language in found["language"].to_numpy()
    ]


SCORE_COLUMNS = ("run", "score", "neurons", "share", "lowest", "highest")


def score_rows(found: Sorted) -> list[dict[str, Any]]:
    """One row a run: how many neurons are all-shared, and their share of the score.

    Over all layers, in prompts answered correctly: the mean over languages, and the lowest and
    the highest of them.
    """
    rows = []
    for run, attribution in found.attributions.items():
        score = main_score(attribution)
        of_correct = share_of_correct(attribution, score)
        share = of_correct["model_share"]
        rows.append(
            {
                "run": run,
                "score": SCORE_LABELS[score],
                "neurons": float(of_correct["model_fraction"].mean()),
                "share": float(share.mean()),
                "lowest": float(share.min()),
                "highest": float(share.max()),
            }
        )
    return rows


def score_cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Cells of these rows, under :data:`SCORE_COLUMNS`."""
    return [
        [row[key] if isinstance(row[key], str) else percent(row[key]) for key in SCORE_COLUMNS]
        for row in rows
    ]


def attribution_cells(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of these rows."""
    cells = [
        [
            row["language"],
            str(row["prompts"]),
            str(row["correct"]),
            percent(row["fraction"]),
            percent(row["share"]),
            f"{percent(row['low'])} to {percent(row['high'])}",
        ]
        for row in rows
    ]
    return list(ATTRIBUTION_COLUMNS.values()), cells


HEADLINE_COLUMNS = {
    "run": "run",
    "accuracy": "accuracy",
    "taught": "taught",
    "held_out": "held out",
    "chance": "chance",
    "majority": "majority",
    "subject_masked": "masked",
    "all_shared": "all-shared",
    "if_items_shuffled": "shuffled",
    "if_layer_rate": "by rate",
}
# Left out where they say nothing of any run: a task either has held-out prompts or not.
OPTIONAL = ("accuracy", "taught", "held_out", "chance", "majority", "subject_masked")
NOT_MASKED = "none"  # in the place of a number that there is of other runs


def headline(found: Sorted) -> list[dict[str, Any]]:
    """One row a run: accuracy and the all-shared fraction beside its baselines.

    Fractions are means over items and layers. Where a task knows in which languages a fact was
    taught, accuracy is given for those (``taught``) and the others (``held_out``), and what a
    guesser knows is that of the held-out prompts. Missing numbers are NaN.
    """
    rows = []
    for run in dict.fromkeys([*found.sharing, *found.evaluations]):
        row: dict[str, Any] = dict.fromkeys((*HEADLINE_COLUMNS, *GUESSES), np.nan) | {"run": run}
        if run in found.evaluations:
            answers = found.evaluations[run]
            for kind, counted in counted_by_kind(answers).items():
                row[kind] = mean_of(answers["correct"], answers, counted)
            compared = to_be_compared(answers)
            beside = beside_accuracy(answers, compared)
            row |= {name: mean_of(values, answers, compared) for name, values in beside.items()}
        if run in found.sharing:
            shared = found.sharing[run].sel(category="all_shared")
            row["all_shared"] = float(shared["fraction"].mean())
            for baseline in ("if_items_shuffled", "if_layer_rate"):
                row[baseline] = float(shared[f"fraction_{baseline}"].mean())
        rows.append(row)
    return rows


def headline_table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the headline, without columns that say nothing."""
    shown = [
        key
        for key in HEADLINE_COLUMNS
        if key not in OPTIONAL or not all(np.isnan(row[key]) for row in rows)
    ]
    cells = [[_headline_cell(row, key) for key in shown] for row in rows]
    return [HEADLINE_COLUMNS[key] for key in shown], cells


def _headline_cell(row: dict[str, Any], key: str) -> str:
    if key == "run":
        return str(row[key])
    is_answered = not all(np.isnan(row[kind]) for kind in KINDS)
    if key == "subject_masked" and is_answered and np.isnan(row[key]):
        return NOT_MASKED
    return percent(row[key])
