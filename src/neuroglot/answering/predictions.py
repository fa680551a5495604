"""Tables in which every answer is a row, for people and spreadsheets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.answering.spreadsheet import in_order, save_table
from neuroglot.errors import NeuroglotError
from neuroglot.tasks.parallel import ParallelTask


def predictions(task: ParallelTask, answers: xr.Dataset) -> pd.DataFrame:
    """A table with one row for each prompt: the question, the right answer and the model's answer.

    Args:
        task: the task that was answered.
        answers: what :func:`neuroglot.evaluate` returned.

    Returns:
        The columns ``item``, ``language``, ``relation``, ``prompt``, ``answer``, ``predicted``,
        ``correct``, ``counted``, ``held_out``, ``chance`` and ``majority``. With choices also
        ``margin``, and ``choice_1``, ``log_prob_1`` (summed over tokens) and ``n_tokens_1`` and so
        on for each choice; without choices ``f1`` and ``thoughts`` (what the model wrote before its
        answer). If the subject was masked, also ``masked_prompt``, ``masked_correct``,
        ``masked_margin`` and ``margin_beyond_masked``. If the task has several right answers, the
        others are in ``aliases``, separated by bars. Results of earlier versions lack some of these
        columns.

    Raises:
        NeuroglotError: the answers are to another task.

    Examples:
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=2)
        >>> table = ng.predictions(task, ng.evaluate(model, task))
        >>> len(table) == len(task) * len(task.languages)
        True
        >>> table.columns[:6].tolist()
        ['item', 'language', 'relation', 'prompt', 'answer', 'predicted']
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
    most_choices = max(sum(name.startswith("choice_") for name in row) for row in rows)
    of_choices = [f"{name}_{i + 1}" for i in range(most_choices) for name in OF_A_CHOICE]
    return in_order(pd.DataFrame(rows), [*COLUMNS, *of_choices])


COLUMNS = (
    *("item", "language", "relation", "prompt", "answer", "predicted"),
    *("correct", "counted", "held_out", "chance", "majority", "margin"),
    *("masked_prompt", "masked_correct", "masked_margin", "margin_beyond_masked"),
    *("aliases", "f1", "thoughts"),
)
NUMBERS = (
    *("chance", "majority", "margin"),
    *("masked_correct", "masked_margin", "margin_beyond_masked"),
)


OF_A_CHOICE = ("choice", "log_prob", "n_tokens")


def save_predictions(task: ParallelTask, answers: xr.Dataset, path: Path) -> None:
    """Write the table of :func:`predictions` as a CSV file; see ``spreadsheet``.

    Raises:
        NeuroglotError: the file cannot be written.
    """
    try:
        save_table(predictions(task, answers), path)
    except OSError as error:
        raise NeuroglotError(f"cannot write {str(path)!r}: {error}.") from error


def _row(item: dict[str, Any], language: str, answer: xr.Dataset) -> dict[str, Any]:
    row = {
        "item": item["id"],
        "language": language,
        "relation": item["relation"],
        "prompt": item["prompts"][language],
        "answer": item["answers"][language],
        "predicted": "",
        **{name: bool(answer[name]) for name in ("correct", "counted", "held_out")},
        **{name: np.round(float(answer[name]), 6) for name in NUMBERS if name in answer},
    }
    if "masked_correct" in answer:
        row["masked_prompt"] = item.get("masked", {}).get(language, "")
    if "aliases" in item:
        row["aliases"] = " | ".join(item["aliases"][language])
    if "choice" not in answer:
        row |= {"predicted": str(answer["text"].item()), "f1": float(answer["f1"])}
        if "thoughts" in answer:  # results of earlier versions do not have them
            row["thoughts"] = str(answer["thoughts"].item())
        return row
    choices = item["choices"][language]
    row["predicted"] = choices[int(answer["choice"])]
    for i, choice in enumerate(choices):
        row[f"choice_{i + 1}"] = choice
        row[f"log_prob_{i + 1}"] = np.round(float(answer["log_prob"][i]), 6)
        row[f"n_tokens_{i + 1}"] = int(answer["n_tokens"][i])
    return row
