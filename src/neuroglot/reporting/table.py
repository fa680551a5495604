"""Tables that a page, a terminal, a notebook and a file show."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from neuroglot.errors import plain

Row = Mapping[str, Any]
"""Plain numbers and texts by name; NaN stands for an unknown number."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: the heading of the column.
        keys: the names of the values that one cell shows, such as a number and the ends of its
            interval. A value that a row lacks is NaN.
        write: makes the text of a cell from these values.
        is_optional: whether the column is left out if no row has its first value.
        explained: a sentence that explains the numbers.
        is_for_page: whether the column is left out in a terminal.
    """

    heading: str
    keys: tuple[str, ...]
    write: Callable[..., str] = str
    is_optional: bool = False
    explained: str = ""
    is_for_page: bool = False

    def cell(self, row: Row) -> str:
        """The text of the cell in a row."""
        return self.write(*(row.get(key, np.nan) for key in self.keys))


@dataclass(frozen=True)
class Table:
    """Rows, their columns, and sentences about them.

    Attributes:
        title: the title.
        columns: the columns; the first one holds texts.
        rows: the rows, which may hold more values than the columns show.
        said: sentences about this result, such as its findings.
        explained: sentences that explain every table of this kind.
        group: a column for headings within the table; the rows with the same cell in this column
            stand below a line with that cell.
        is_for_page: whether the table is left out in a terminal.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    said: Sequence[str] = ()
    explained: Sequence[str] = ()
    group: Column | None = None
    is_for_page: bool = False

    def shown(self, *, in_terminal: bool = False) -> list[Column]:
        """The columns that are shown."""
        return [
            column
            for column in self.columns
            if not (in_terminal and column.is_for_page)
            and not (column.is_optional and all(pd.isna(r.get(column.keys[0])) for r in self.rows))
        ]

    def headings(self, *, in_terminal: bool = False) -> list[str]:
        """The headings of the columns that are shown."""
        return [column.heading for column in self.shown(in_terminal=in_terminal)]

    def cells(self, *, in_terminal: bool = False) -> list[list[str]]:
        """The texts of each line, changed by :func:`neuroglot.errors.plain`."""
        columns = self.shown(in_terminal=in_terminal)
        lines = [[plain(column.cell(row)) for column in columns] for row in self.rows]
        if self.group is None:
            return lines
        cells = []
        both = zip(map(self.group.cell, self.rows), lines, strict=True)
        for name, group in itertools.groupby(both, key=lambda pair: pair[0]):
            cells.append([plain(name), *[""] * (len(columns) - 1)])
            cells += [[f"  {first}", *others] for _, (first, *others) in group]
        return cells

    def explanations(self, *, in_terminal: bool = False) -> list[str]:
        """The sentences that explain the table and the columns that are shown, each once."""
        of_columns = (column.explained for column in self.shown(in_terminal=in_terminal))
        return [text for text in dict.fromkeys([*self.explained, *of_columns]) if text]

    def frame(self) -> pd.DataFrame:
        """All values of the rows, as a data frame."""
        return pd.DataFrame(self.records())

    def records(self) -> list[dict[str, Any]]:
        """All values of the rows, as a list of dictionaries."""
        return [dict(row) for row in self.rows]

    def html(self) -> str:
        """The table as an HTML element, with its texts escaped."""
        head = _line("th", self.headings())
        body = "\n".join(_line("td", cells) for cells in self.cells())
        return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"

    def _repr_html_(self) -> str:
        """The table with its title and sentences, as a notebook displays it."""
        sentences = [*self.said, " ".join(self.explanations())]
        below = "".join(f"<p>{html.escape(plain(text))}</p>" for text in sentences)
        return f"<h4>{html.escape(plain(self.title))}</h4>{self.html()}{below}"


def _line(tag: str, cells: Sequence[str]) -> str:
    # HTML ignores spaces at the beginning of a text.
    inner = "".join(
        f"<{tag}>{'&emsp;' if cell.startswith('  ') else ''}{html.escape(cell.strip())}</{tag}>"
        for cell in cells
    )
    return f"<tr>{inner}</tr>"
