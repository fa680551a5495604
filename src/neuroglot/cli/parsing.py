"""From what a user typed to what the library takes, and from its errors to exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

import neuroglot as ng
from neuroglot.errors import NeuroglotError

BAD_INPUT, INTERRUPTED = 2, 130
# Typer has no public name for wrong usage as such, only for this kind of it.
UsageError: Any = typer.BadParameter.__base__
PAGE_MARK = "<title>neuroglot report</title>"


class Commands(TyperGroup):
    """Turns what a user can mend, and a stop, into one line and an exit code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except NeuroglotError as error:
            typer.echo(f"neuroglot: {error}", err=True)
            raise typer.Exit(BAD_INPUT) from error
        except UsageError as error:
            typer.echo(f"neuroglot: {error.format_message()} See --help.", err=True)
            raise typer.Exit(BAD_INPUT) from error
        except KeyboardInterrupt as stop:
            hint = (
                "with the same --out, a recording goes on where it stopped (leave out --overwrite)"
            )
            typer.echo(f"neuroglot: stopped; {hint}.", err=True)
            raise typer.Exit(INTERRUPTED) from stop


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """One line on standard error; in place of ``warnings.showwarning``."""
    typer.echo(f"neuroglot: warning: {message}", err=True)


def language_codes(languages: str | None) -> list[str] | None:
    """``"en,de"`` as a list; ``None`` stands for all."""
    return None if languages is None else [code.strip() for code in languages.split(",")]


def numbers(text: str) -> tuple[float, ...]:
    """``"0,0.1"`` as numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise NeuroglotError(f"{text!r}: expected numbers with commas between.") from error


def batch_size_of(text: str) -> ng.BatchSize:
    """A number, or ``"auto"``."""
    if text == "auto":
        return "auto"
    if not (text.isascii() and text.isdecimal()):
        raise NeuroglotError(f"--batch-size {text!r}: expected 'auto' or a number from 1.")
    return int(text)


def open_recording(path: Path) -> ng.Recording:
    """The recording at ``path``, and no other result."""
    stored = ng.open(path)
    if not isinstance(stored, ng.Recording):
        raise NeuroglotError(f"{str(path)!r} holds no recording, but another result.")
    return stored


def check_table(path: Path, *, overwrite: bool = False) -> None:
    """Refuse to replace a file, or to write into a folder that is not there."""
    if path.exists() and not overwrite:
        raise NeuroglotError(f"{str(path)!r} exists; pass --overwrite to replace it.")
    if not path.parent.is_dir():
        raise NeuroglotError(f"there is no folder {str(path.parent)!r} to write to.")


def check_page(page: Path, *, overwrite: bool = False) -> None:
    """Refuse to replace a page that is no report of ours, unless asked to."""
    ours = not page.exists() or PAGE_MARK in page.read_text(encoding="utf-8", errors="replace")
    if not ours and not overwrite:
        raise NeuroglotError(f"{str(page)!r} is no report of neuroglot; name another --out.")
