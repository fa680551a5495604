"""What the commands print goes through here: lines, tables and JSON."""

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
    """A table as wide as the terminal; the first column is text, the others are numbers.

    Where the terminal is too narrow for all columns, those that are left follow below, beside the
    first column.
    """
    # Names are no markup: brackets in them would be taken for styles.
    console = Console(markup=False, emoji=False)
    unbounded = console.options.update(max_width=WIDER_THAN_ANY)
    cells = [[plain(cell) for cell in row] for row in rows]
    left = list(range(1, len(columns)))
    say(plain(title))
    while True:
        n_shown = len(left)
        made = _table(columns, cells, [0, *left])
        while n_shown > 1 and console.measure(made, options=unbounded).minimum > console.width:
            n_shown -= 1
            made = _table(columns, cells, [0, *left[:n_shown]])
        console.print(made)
        left = left[n_shown:]
        if not left:
            return


WIDER_THAN_ANY = 10_000  # columns of a terminal


def say(text: str, *, indent: int = 0, err: bool = False) -> None:
    """A line, on standard output or error; in a terminal, it is broken between words.

    Args:
        text: one line. What is no terminal gets it as one.
        indent: columns that are left empty before what follows the first break.
        err: whether it goes to standard error.
    """
    console = Console(stderr=err)
    lines = wrapped(text, console.width, indent) if console.file.isatty() else [text]
    for line in lines:
        typer.echo(line, err=err)


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """A text as lines of at most so many columns, unless a single word is longer."""
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
    shown = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for i in chosen:
        # In a narrow terminal headings break between words, and nothing else does.
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
    """One JSON document on standard output."""
    found = _plain(value)
    text = json.dumps(found, ensure_ascii=False, indent=2)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        # JSON has escapes of its own, also for half surrogate pairs, which names of files may hold.
        text = json.dumps(found, indent=2)
    typer.echo(text)


def _plain(value: Any) -> Any:
    """Only what JSON knows: NaN, which it does not, becomes null."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "tolist"):  # of NumPy
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def show(tables: Iterable[Shown]) -> None:
    """Tables with their sentences; what explains columns is said once."""
    said: set[str] = set()
    for one in tables:
        if not one.is_for_page:
            table(one.headings(in_terminal=True), one.cells(in_terminal=True), one.title)
            explained = one.explanations(in_terminal=True)
            new = " ".join(text for text in explained if text not in said)
            notes([*([new] if new else []), *one.said])
            said.update(explained)


def result(
    found: xr.Dataset | xr.DataArray, name: str | None, *, json: bool, **written: Path
) -> None:
    """A result as one JSON document, or its tables and notes.

    Args:
        found: of any kind that a report shows.
        name: what its tables are titled; by default, its model and task.
        json: whether it is to be JSON.
        written: files that were written, by what they are.
    """
    from neuroglot.reporting.gathering import notes_of, records_of, tables

    places = {what: str(path.resolve()) for what, path in written.items()}
    if json:
        as_json(records_of(found) | places)
        return
    show(tables(found, name=name))
    notes([*notes_of(found), *(f"The {what}: {place}" for what, place in places.items())])


def notes(lines: Iterable[str]) -> None:
    """Sentences below a table: which prompts count once, and why there is no interval."""
    for line in lines:
        say(line)
