"""Tables as CSV that a spreadsheet takes for what they are: text is never run as a formula.

A text that a spreadsheet would read as a formula (it begins with one of ``= + - @``, their wide
forms, a tab or a line end, and is no number) gets an apostrophe before it, which spreadsheets take
for "this is text". So does one that begins with apostrophes and then such a text; therefore taking
one apostrophe off again, as :func:`read_table` does, gives back what was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from neuroglot.outputs import write_file

FORMULA = re.compile(r"'*(?![+-]?[0-9]+([.,][0-9]+)*$)[=+\-@\t\r\n＝＋－＠]")


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
    """Read what :func:`save_table` wrote; only empty cells are missing values."""
    table = pd.read_csv(path, encoding="utf-8-sig", keep_default_na=False, na_values=[""])
    return _mapped(table, original)


def _mapped(table: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    """The table with its texts changed; numbers stay numbers."""
    texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    return table.assign(**{str(name): table[name].map(change) for name in texts})
