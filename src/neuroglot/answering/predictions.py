"""Every answer as a row of a table, for people and spreadsheets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.answering.spreadsheet import in_order, save_table
from neuroglot.errors import NeuroglotError
from neuroglot.tasks.parallel import ParallelTask


def predictions(task: ParallelTask, answers: xr.Dataset) -> pd.DataFrame:
    """One row a prompt: what was asked, what the answer is, and what the model said.

    Args:
        task: that was answered.
        answers: from :func:`neuroglot.evaluate`.

    Returns:
        Columns ``item``, ``language``, ``relation``, ``prompt``, ``answer``, ``predicted``,
        ``correct``, ``counted``, ``held_out``, ``chance`` and ``majority``; with choices also
        ``margin`` and each choice with its summed log-probability and number of tokens, else
        ``f1`` and ``thoughts`` (what the model wrote before its answer). Where the subject was
        masked, ``masked_prompt``, ``masked_correct``, ``masked_margin`` and
        ``margin_beyond_masked``. Where the task has several right answers, the others are in
        ``aliases``, between bars. Answers of before lack some of these.

    Raises:
        NeuroglotError: the answers are those of another task.
    """
    if answers.attrs.get("task_checksum") != task.checksum:
        raise NeuroglotError(
            f"these answers are to task {answers.attrs.get('task')!r} with other items than those "
            f"of {task.name!r}."
        )
    rows = [
        _row(item, language, answers.isel(item=i, language=j))
        for i, item in enumerate(task.items)
        for j, language in enumerate(task.languages)
    ]
    return in_order(pd.DataFrame(rows), [*COLUMNS, *_of_choices(rows)])


COLUMNS = (
    *("item", "language", "relation", "prompt", "answer", "predicted"),
    *("correct", "counted", "held_out", "chance", "majority", "margin"),
    *("masked_prompt", "masked_correct", "masked_margin", "margin_beyond_masked"),
    *("aliases", "f1", "thoughts"),
)


def _of_choices(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Columns of as many choices as any prompt has."""
    known = {name for row in rows for name in row}
    most = sum(name.startswith("choice_") for name in known)
    return [f"{what}_{i + 1}" for i in range(most) for what in OF_A_CHOICE]


OF_A_CHOICE = ("choice", "log_prob", "n_tokens")


def save_predictions(task: ParallelTask, answers: xr.Dataset, path: Path) -> None:
    """Write :func:`predictions` as CSV in which no text is a formula; see ``spreadsheet``.

    Raises:
        NeuroglotError: the file cannot be written.
    """
    try:
        save_table(predictions(task, answers), path)
    except OSError as error:
        raise NeuroglotError(f"cannot write {str(path)!r}: {error}.") from error


def _row(item: dict[str, Any], language: str, found: xr.Dataset) -> dict[str, Any]:
    row = {
        "item": item["id"],
        "language": language,
        "relation": item["relation"],
        "prompt": item["prompts"][language],
        "answer": item["answers"][language],
        "predicted": "",
        **{name: bool(found[name]) for name in ("correct", "counted", "held_out")},
    }
    beside = [name for name in ("chance", "majority", "margin") if name in found]
    if "masked_correct" in found:
        row["masked_prompt"] = item.get("masked", {}).get(language, "")
        beside += ["masked_correct", "masked_margin", "margin_beyond_masked"]
    row |= {name: np.round(float(found[name]), 6) for name in beside}
    if "aliases" in item:
        row["aliases"] = " | ".join(item["aliases"][language])
    if "choice" not in found:
        row |= {"predicted": str(found["text"].item()), "f1": float(found["f1"])}
        # Results of before have none.
        return row | ({"thoughts": str(found["thoughts"].item())} if "thoughts" in found else {})
    choices = item["choices"][language]
    row["predicted"] = choices[int(found["choice"])]
    for i, choice in enumerate(choices):
        row[f"choice_{i + 1}"] = choice
        row[f"log_prob_{i + 1}"] = np.round(float(found["log_prob"][i]), 6)
        row[f"n_tokens_{i + 1}"] = int(found["n_tokens"][i])
    return row
