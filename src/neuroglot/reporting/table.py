"""One table: a page, a terminal, a notebook and a file show the same rows of it."""

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
"""Plain numbers and texts by their names; NaN is a number that is not known."""


@dataclass(frozen=True)
class Column:
    """What stands below one heading.

    Attributes:
        heading: for people.
        keys: the values of a row that one cell shows together, as a number and the ends of its
            interval. A value that a row lacks is NaN.
        write: makes the text of a cell from these values.
        is_optional: whether the column is left out where no row knows its first value.
        explained: a sentence on what the numbers are, for whoever does not know.
        is_for_page: whether it is left out in a terminal, which has less room.
    """

    heading: str
    keys: tuple[str, ...]
    write: Callable[..., str] = str
    is_optional: bool = False
    explained: str = ""
    is_for_page: bool = False

    def cell(self, row: Row) -> str:
        """The text for a row."""
        return self.write(*(row.get(key, np.nan) for key in self.keys))

    def says_something(self, rows: Sequence[Row]) -> bool:
        """Whether the column is shown for these rows."""
        return not self.is_optional or any(not pd.isna(row.get(self.keys[0])) for row in rows)


@dataclass(frozen=True)
class Table:
    """Rows, how they are shown, and what is said of them.

    Attributes:
        title: what the numbers are of.
        columns: what is shown of each row; the first column is text.
        rows: plain numbers and texts; they may know more than is shown.
        said: sentences on this result, such as what was found.
        explained: sentences on all of it, which are the same for every table of its kind.
        group: rows with the same cell here stand together, below a line with that cell.
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
        """The columns that say something."""
        return [
            column
            for column in self.columns
            if column.says_something(self.rows) and not (in_terminal and column.is_for_page)
        ]

    def headings(self, *, in_terminal: bool = False) -> list[str]:
        """Those of the columns that are shown."""
        return [column.heading for column in self.shown(in_terminal=in_terminal)]

    def cells(self, *, in_terminal: bool = False) -> list[list[str]]:
        """The texts of each line, as :func:`neuroglot.errors.plain` shows them."""
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
        """What explains the table and the columns that are shown, each sentence once."""
        of_columns = (column.explained for column in self.shown(in_terminal=in_terminal))
        return [text for text in dict.fromkeys([*self.explained, *of_columns]) if text]

    def frame(self) -> pd.DataFrame:
        """Everything that the rows know."""
        return pd.DataFrame(self.records())

    def records(self) -> list[dict[str, Any]]:
        """Everything that the rows know, as a list of dicts."""
        return [dict(row) for row in self.rows]

    def html(self) -> str:
        """The table as an HTML element, whatever its texts say."""
        head = _line("th", self.headings())
        body = "\n".join(_line("td", cells) for cells in self.cells())
        return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the table with its title and sentences."""
        sentences = [*self.said, " ".join(self.explanations())]
        below = "".join(f"<p>{html.escape(plain(text))}</p>" for text in sentences)
        return f"<h4>{html.escape(plain(self.title))}</h4>{self.html()}{below}"


def _line(tag: str, cells: Sequence[str]) -> str:
    # HTML takes spaces before a text for nothing.
    indents = ["&emsp;" if cell.startswith("  ") else "" for cell in cells]
    texts = [html.escape(cell.strip()) for cell in cells]
    inner = "".join(f"<{tag}>{x}{y}</{tag}>" for x, y in zip(indents, texts, strict=True))
    return f"<tr>{inner}</tr>"
