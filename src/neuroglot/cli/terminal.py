"""Print lines, tables and JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from neuroglot.errors import plain

if TYPE_CHECKING:
    import xarray as xr

    from neuroglot.reporting.table import Table as Shown


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str) -> None:
    """Print a table as wide as the terminal; the first column holds texts, the others numbers.

    If the terminal is too narrow, the columns that do not fit follow below, after the first column.

    Args:
        columns: the headings of the columns.
        rows: the cells of the rows.
        title: a line above the table.
    """
    # Without markup, since brackets in names would be taken for styles.
    console = Console(markup=False, emoji=False)
    unbounded = console.options.update(max_width=WIDER_THAN_ANY)
    cells = [[plain(cell) for cell in row] for row in rows]
    left = list(range(1, len(columns)))
    say(plain(title))
    while True:
        n_shown = len(left)
        fitting = _table(columns, cells, [0, *left])
        while n_shown > 1 and console.measure(fitting, options=unbounded).minimum > console.width:
            n_shown -= 1
            fitting = _table(columns, cells, [0, *left[:n_shown]])
        console.print(fitting)
        left = left[n_shown:]
        if not left:
            return


WIDER_THAN_ANY = 10_000  # more columns than any terminal has


def say(text: str, *, indent: int = 0, err: bool = False) -> None:
    """Print a line, which is wrapped between words in a terminal and nowhere else.

    Args:
        text: the line.
        indent: the number of spaces before each line but the first, if it is wrapped.
        err: whether to print to standard error.
    """
    console = Console(stderr=err)
    lines = wrapped(text, console.width, indent) if console.file.isatty() else [text]
    for line in lines:
        typer.echo(line, err=err)


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """A text as lines of at most ``width`` columns, unless a single word is longer."""
    first, *words = text.split(" ")
    lines = [first]
    for word in words:
        if cell_len(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(" " * indent + word)
    return lines


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]], chosen: list[int]) -> Table:
    """The chosen columns as a table."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i in chosen:
        # In a narrow terminal, only headings are wrapped, and only between words.
        widest = max(map(cell_len, [*columns[i].split(), *(row[i] for row in cells)]))
        shown.add_column(
            columns[i],
            justify="right" if i else "left",
            min_width=widest,
            no_wrap=widest >= cell_len(columns[i]),
        )
    for row in cells:
        shown.add_row(*(row[i] for i in chosen))
    return shown


def as_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    document = _plain(value)
    text = json.dumps(document, ensure_ascii=False, indent=2)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        # JSON can escape all characters, also half surrogate pairs, which file names may hold.
        text = json.dumps(document, indent=2)
    typer.echo(text)


def _plain(value: Any) -> Any:
    """The value in the types of JSON, with null for NaN and infinity."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "tolist"):  # a number or array of NumPy
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def show(tables: Iterable[Shown]) -> None:
    """Print tables with their sentences, and each explanation once."""
    given: set[str] = set()
    for shown in tables:
        if not shown.is_for_page:
            table(shown.headings(in_terminal=True), shown.cells(in_terminal=True), shown.title)
            explained = shown.explanations(in_terminal=True)
            new = " ".join(text for text in explained if text not in given)
            notes([*([new] if new else []), *shown.said])
            given.update(explained)


def result(
    found: xr.Dataset | xr.DataArray, name: str | None, *, json: bool, **written: Path
) -> None:
    """Print a result as one JSON document, or as its tables and notes.

    Args:
        found: a result of any kind that a report shows.
        name: the name in the titles of its tables, by default those of its model and task.
        json: whether to print JSON.
        written: the files that were written, by what they hold.
    """
    from neuroglot.reporting.gathering import notes_of, records_of, tables

    places = {what: str(path.resolve()) for what, path in written.items()}
    if json:
        as_json(records_of(found) | places)
        return
    show(tables(found, name=name))
    notes([*notes_of(found), *(f"The {what}: {place}" for what, place in places.items())])


def notes(lines: Iterable[str]) -> None:
    """Print sentences, each as a line."""
    for line in lines:
        say(line)
