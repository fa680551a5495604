"""The main table of a report: accuracy and sharing of each run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from neuroglot.reporting.accuracy import (
    GUESS_COLUMNS,
    KINDS_OF_PROMPTS,
    OF_HELD_OUT,
    beside_accuracy,
    counted_by_kind,
    has_f1,
    mean_of,
    to_be_compared,
)
from neuroglot.reporting.cells import percent
from neuroglot.reporting.gathering import Gathered, joined
from neuroglot.reporting.kinds.answers import ANSWERS
from neuroglot.reporting.kinds.sharing import SHARING
from neuroglot.reporting.table import Column, Table

OF_A_PROMPT = ("run", "item", "language", "subject", "relation", "same_tokens_as")
OF_ANSWERS = (
    *("correct", "choice", "counted", "held_out", "chance", "majority", "margin"),
    *("masked_correct", "masked_margin", "margin_beyond_masked"),
)
NUMBERS = (
    *(*KINDS_OF_PROMPTS, "chance", "majority", "subject_masked", "all_shared"),
    *("if_items_shuffled", "if_layer_rate", "margin", "margin_beyond_masked"),
)
# Optional columns without numbers are left out: a task either has held-out prompts or not.
COLUMNS = (
    Column("run", ("run",)),
    Column("accuracy", ("accuracy",), percent, is_optional=True),
    Column("taught", ("taught",), percent, is_optional=True),
    Column("held out", ("held_out",), percent, is_optional=True, explained=OF_HELD_OUT),
    *GUESS_COLUMNS,
    Column("all-shared", ("all_shared",), percent),
    Column("shuffled", ("if_items_shuffled",), percent),
    Column("by rate", ("if_layer_rate",), percent),
)
FRACTIONS = (
    "Fractions are means over items and layers. Shuffled: the all-shared fraction with each "
    "language's items permuted, so with the same languages and template but other content; what "
    "translations share is the difference to it. By rate: the fraction for independent languages "
    "with the layer's rates of activity."
)


def headline_table(gathered: Gathered, title: str = "All runs") -> Table:
    """The table with one row for each run: accuracy, and the all-shared fraction and baselines."""
    return Table(title, COLUMNS, headline(gathered), explained=[FRACTIONS])


def headline(gathered: Gathered) -> list[dict[str, Any]]:
    """One row for each run: accuracy, and the all-shared fraction and its baselines.

    Fractions are means over items and layers. If a task says in which languages facts were taught,
    accuracy is given separately for these prompts (``taught``) and the others (``held_out``), and
    chance and the like are of the held-out prompts. Missing numbers are NaN.
    """
    sharing, evaluations = gathered.get(SHARING.name, {}), gathered.get(ANSWERS.name, {})
    rows = []
    for run in dict.fromkeys([*sharing, *evaluations]):
        row: dict[str, Any] = {"run": run, **dict.fromkeys(NUMBERS, np.nan)}
        if run in evaluations:
            answers = evaluations[run]
            for kind, counted in counted_by_kind(answers).items():
                row[kind] = mean_of(answers["correct"], answers, counted)
            compared = to_be_compared(answers)
            beside = beside_accuracy(answers, compared)
            row |= {name: mean_of(values, answers, compared) for name, values in beside.items()}
        if run in sharing:
            shared = sharing[run].sel(category="all_shared")
            row["all_shared"] = float(shared["fraction"].mean())
            for baseline in ("if_items_shuffled", "if_layer_rate"):
                row[baseline] = float(shared[f"fraction_{baseline}"].mean())
        rows.append(row)
    return rows


def item_table(gathered: Gathered) -> pd.DataFrame:
    """One row for each run, item and language: activity, sharing and the answer."""
    sharing, evaluations = gathered.get(SHARING.name, {}), gathered.get(ANSWERS.name, {})
    frames = []
    for run in dict.fromkeys([*sharing, *evaluations]):
        parts = []
        if run in sharing:
            activity = sharing[run][["active", "shared_of_active"]].mean("layer")
            parts.append(activity.to_dataframe())
        if run in evaluations:
            answers = evaluations[run]
            names = [name for name in OF_ANSWERS if name in answers]
            names += ["f1"] if has_f1(answers) else []
            parts.append(answers[names].to_dataframe())
        frames.append(pd.concat(parts, axis=1).reset_index().assign(run=run))
    return joined(frames, (*OF_A_PROMPT, "active", "shared_of_active", *OF_ANSWERS, "f1"))
