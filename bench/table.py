"""The table of measurements."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import torch
from rich.console import Console

from bench.measure import Row

HEADS = ("what", "median", "compared with", "ratio", "must", "", "note")


def _cells(row: Row) -> tuple[str, ...]:
    met = {True: "met", False: "MISSED", None: ""}[row.met]
    unit = "" if "MB" in row.must else " s"
    return (
        row.what,
        f"{row.seconds:.3g}{unit}",
        f"{row.floor:.3g}{unit}",
        f"{row.ratio:.2f}",
        row.must,
        met,
        row.note,
    )


def as_markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown, with what it was measured on."""
    lines = [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    machine = f"{torch.get_num_threads()} threads, Python {platform.python_version()}"
    return "\n".join([*lines, "", f"({machine}, torch {torch.__version__}.)"])


def print_table(rows: Sequence[Row]) -> None:
    """The table on standard output."""
    Console(soft_wrap=True).print(as_markdown(rows), markup=False, highlight=False)
