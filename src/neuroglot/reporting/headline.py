"""What is known of a run from its sharing and its answers together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from neuroglot.reporting.accuracy import (
    GUESS_COLUMNS,
    KINDS,
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
    *(*KINDS, "chance", "majority", "subject_masked", "all_shared"),
    *("if_items_shuffled", "if_layer_rate", "margin", "margin_beyond_masked"),
)
# Some are left out where they say nothing: a task either has held-out prompts or not.
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
    "language's items permuted, so same languages and template but other content; what "
    "translations share is the difference to it. By rate: languages independent, as active as they "
    "are in the layer."
)


def headline_table(found: Gathered, title: str = "All runs") -> Table:
    """One row a run: accuracy and the all-shared fraction beside its baselines."""
    return Table(title, COLUMNS, headline(found), explained=[FRACTIONS])


def _of(found: Gathered) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of sharing and of answers, by run."""
    return found.get(SHARING.name, {}), found.get(ANSWERS.name, {})


def headline(found: Gathered) -> list[dict[str, Any]]:
    """One row a run: accuracy and the all-shared fraction beside its baselines.

    Fractions are means over items and layers. Where a task knows in which languages a fact was
    taught, accuracy is given for those (``taught``) and the others (``held_out``), and what a
    guesser knows is that of the held-out prompts. Missing numbers are NaN.
    """
    sharing, evaluations = _of(found)
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


def item_table(found: Gathered) -> pd.DataFrame:
    """One row for each run, item and language: activity, sharing and the answer."""
    sharing, evaluations = _of(found)
    frames = []
    for run in dict.fromkeys([*sharing, *evaluations]):
        parts = []
        if run in sharing:
            activity = sharing[run][["active", "shared_of_active"]].mean("layer")
            parts.append(activity.to_dataframe())
        if run in evaluations:
            answers = evaluations[run]
            kept = [x for x in OF_ANSWERS if x in answers]
            kept += ["f1"] if has_f1(answers) else []
            parts.append(answers[kept].to_dataframe())
        frames.append(pd.concat(parts, axis=1).reset_index().assign(run=run))
    return joined(frames, (*OF_A_PROMPT, "active", "shared_of_active", *OF_ANSWERS, "f1"))
