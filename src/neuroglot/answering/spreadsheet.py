"""Tables as CSV that a spreadsheet takes for what they are: text is never run as a formula.

A text that a spreadsheet would read as a formula (it begins with one of ``= + - @``, their wide
forms, a tab or a line end, and is no number) gets an apostrophe before it, which spreadsheets take
for "this is text". So does one that begins with apostrophes and then such a text; therefore taking
one apostrophe off again, as :func:`read_table` does, gives back what was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neuroglot.outputs import write_file

FORMULA = re.compile(r"'*(?![+-]?[0-9]+([.,][0-9]+)*$)[=+\-@\t\r\n＝＋－＠]")


# What pandas writes of a number, and of no text but one of the very same signs.
NUMBER = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]+)?(e[+-][0-9]+)?|inf)")
# Columns of tables and of tasks that hold texts, be they written in digits.
TEXTS = re.compile(
    "id|item|run|language|relation|subject|prompt|masked|masked_prompt|answer|aliases|predicted"
    "|thoughts|choices|choice_?[0-9]+|join|condition|against|category|score|kind|answered|reason"
)


def neutral(cell: Any) -> Any:
    """The cell, with an apostrophe before what would be read as a formula."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def original(cell: Any) -> Any:
    """What :func:`neutral` was given."""
    quoted = isinstance(cell, str) and cell.startswith("'") and FORMULA.match(cell)
    return cell[1:] if quoted else cell


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table in UTF-8 with a mark that spreadsheets look for.

    Raises:
        NeuroglotError: nothing can be written there.
        OSError: the file cannot be written; see :func:`neuroglot.outputs.write_file`.
    """
    write_file(path, as_csv(table))


def as_csv(table: pd.DataFrame) -> bytes:
    """What :func:`save_table` writes."""
    # With the line ends of RFC 4180, a cell is quoted where it holds half of one, too.
    text = _mapped(table, neutral).to_csv(index=False, lineterminator="\r\n")
    return text.encode("utf-8-sig")


def read_table(path: Path) -> pd.DataFrame:
    """Read what :func:`save_table` wrote; only empty cells are missing values.

    Names, prompts and answers are texts whatever they look like; so is every column with a cell
    that is no number as :func:`save_table` writes them, such as ``007`` or ``1e5``.
    """
    table = pd.read_csv(
        path, encoding="utf-8-sig", keep_default_na=False, na_values=[""], dtype=str
    )
    return _mapped(table.apply(_typed), original)


def _typed(column: pd.Series[Any]) -> pd.Series[Any]:
    """The texts of a column as what they stand for."""
    there = column.dropna()
    if there.empty or TEXTS.fullmatch(str(column.name)):
        return column.astype(object)
    if there.isin(["True", "False"]).all():
        found = column.map({"True": True, "False": False})
        return found.astype(bool) if len(there) == len(column) else found
    is_number = there.map(lambda cell: NUMBER.fullmatch(cell) is not None).all()
    return pd.to_numeric(column) if is_number else column.astype(object)


def in_order(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The table with its columns in one order, whichever of them came first.

    Args:
        table: may lack some columns, and have others, which follow in the order of their names.
        columns: in their order.
    """
    rest = sorted(set(map(str, table.columns)) - set(columns))
    return table[[name for name in (*columns, *rest) if name in table.columns]]


def _mapped(table: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    """The table with its texts changed; numbers stay numbers."""
    texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    return table.assign(**{str(name): table[name].map(change) for name in texts})
