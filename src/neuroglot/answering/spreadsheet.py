"""Tables as CSV files in which spreadsheets never run a text as a formula.

A spreadsheet would read a text as a formula if it begins with one of ``= + - @``, their wide forms,
a tab or a line end, and is not a number. Such a text gets an apostrophe before it, which tells
spreadsheets that it is text. So does a text of apostrophes followed by such a text; therefore
:func:`read_table` gets back what was written by removing one apostrophe.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neuroglot.outputs import write_file

FORMULA = re.compile(r"'*(?![+-]?[0-9]+([.,][0-9]+)*$)[=+\-@\t\r\n＝＋－＠]")

# Numbers as pandas writes them.
NUMBER = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]+)?(e[+-][0-9]+)?|inf)")
# Columns of tables and of tasks that hold texts, even if these are written in digits.
TEXTS = re.compile(
    "id|item|run|language|relation|subject|prompt|masked|masked_prompt|answer|aliases|predicted"
    "|thoughts|choices|choice_?[0-9]+|join|condition|against|category|score|kind|answered|reason"
)


def neutral(cell: Any) -> Any:
    """The cell, with an apostrophe before it if it would be read as a formula."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def original(cell: Any) -> Any:
    """The cell from which :func:`neutral` made this one."""
    quoted = isinstance(cell, str) and cell.startswith("'") and FORMULA.match(cell)
    return cell[1:] if quoted else cell


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV in UTF-8, with the byte order mark that spreadsheets look for.

    Raises:
        NeuroglotError: the path cannot be written to.
        OSError: writing fails; see :func:`neuroglot.outputs.write_file`.
    """
    write_file(path, as_csv(table))


def as_csv(table: pd.DataFrame) -> bytes:
    """The bytes that :func:`save_table` writes."""
    # With the line ends of RFC 4180, a cell that holds only a part of one is quoted too.
    text = _mapped(table, neutral).to_csv(index=False, lineterminator="\r\n")
    return text.encode("utf-8-sig")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that :func:`save_table` wrote; only empty cells are missing values.

    Columns of names, prompts and answers hold texts, even if these look like numbers; so does every
    column with a cell that :func:`save_table` would not write for a number, such as ``007``.
    """
    table = pd.read_csv(
        path, encoding="utf-8-sig", keep_default_na=False, na_values=[""], dtype=str
    )
    return _mapped(table.apply(_typed), original)


def _typed(column: pd.Series[Any]) -> pd.Series[Any]:
    """The cells of a column as texts, truth values or numbers."""
    cells = column.dropna()
    if cells.empty or TEXTS.fullmatch(str(column.name)):
        return column.astype(object)
    if cells.isin(["True", "False"]).all():
        truths = column.map({"True": True, "False": False})
        return truths.astype(bool) if len(cells) == len(column) else truths
    is_number = cells.map(lambda cell: NUMBER.fullmatch(cell) is not None).all()
    return pd.to_numeric(column) if is_number else column.astype(object)


def in_order(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The table with its columns in a fixed order.

    Args:
        table: the table; it may lack some of the columns, and its other columns come last, in the
            order of their names.
        columns: the names of columns, in order.
    """
    rest = sorted(set(map(str, table.columns)) - set(columns))
    return table[[name for name in (*columns, *rest) if name in table.columns]]


def _mapped(table: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    """The table with a function applied to all cells that are not in columns of numbers."""
    texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    return table.assign(**{str(name): table[name].map(change) for name in texts})
