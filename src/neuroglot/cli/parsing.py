"""Turn the user's texts into arguments of the library, and its errors into exit codes."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

import neuroglot as ng
from neuroglot.cli import terminal
from neuroglot.errors import NeuroglotError, plain

if TYPE_CHECKING:
    import xarray as xr

    from neuroglot.models.model import BatchSize


BAD_INPUT, INTERRUPTED = 2, 130
# Typer has a public name only for this subclass of the errors of wrong usage.
UsageError: Any = typer.BadParameter.__base__
CUT = "its beginning was cut."  # the end of the warning about a prompt that was cut


class Commands(TyperGroup):
    """A group of commands that turns errors of the user, and Ctrl-C, into one line and a code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command."""
        try:
            return super().invoke(ctx)
        except NeuroglotError as error:
            terminal.say(f"neuroglot: {error}", err=True)
            raise typer.Exit(BAD_INPUT) from error
        except UsageError as error:
            terminal.say(f"neuroglot: {error.format_message()} See --help.", err=True)
            raise typer.Exit(BAD_INPUT) from error
        except KeyboardInterrupt as stop:
            hint = "with --out, the same command goes on where it stopped (leave out --overwrite)"
            terminal.say(f"neuroglot: stopped; {hint}.", err=True)
            raise typer.Exit(INTERRUPTED) from stop


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each different warning as one line on standard error.

    The warnings of prompts that were cut are one line at the end.
    """
    printed: set[str] = set()
    cut: dict[str, None] = {}  # prompts in their order, each once

    def as_line(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message).endswith(CUT):
            cut.setdefault(str(message).rpartition(" has ")[0])
        elif str(message) not in printed:
            printed.add(str(message))
            terminal.say(f"neuroglot: warning: {plain(str(message))}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = as_line
        try:
            yield
        finally:
            if cut:
                terminal.say(
                    f"neuroglot: warning: {len(cut)} prompts do not fit into the model's context; "
                    f"their beginning was cut. The first is the {next(iter(cut))}.",
                    err=True,
                )


def language_codes(languages: str | None) -> tuple[str, ...] | None:
    """``"en,de"`` as codes; ``None`` stands for all languages."""
    return None if languages is None else tuple(code.strip() for code in languages.split(","))


def template_arguments(given: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` texts as names and values.

    Raises:
        NeuroglotError: a text does not have this form, a value is no JSON, or a name comes twice.
    """
    arguments: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name or name in arguments:
            raise NeuroglotError(
                f"--template-argument {text!r}: expected NAME=VALUE, each name once."
            )
        try:
            arguments[name] = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise NeuroglotError(
                f"--template-argument {text!r}: the value is no JSON; write true or false for a "
                f"switch, and a text in double quotes, '{name}=\"…\"'."
            ) from error
    return arguments


def score_names(scores: str) -> tuple[str, ...]:
    """``"contribution,effective"`` as checked names; ``"none"`` gives no names."""
    from neuroglot.attribution.neuron_scores import check_scores

    if scores.strip() == "none":
        return ()
    names = tuple(name.strip() for name in scores.split(","))
    check_scores(names)
    return names


def numbers(text: str) -> tuple[float, ...]:
    """``"0,0.1"`` as numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise NeuroglotError(f"{text!r}: expected numbers with commas between.") from error


def layer_groups(text: str) -> list[tuple[int, ...]]:
    """``"0-2;3,5"`` as groups of layers: ``(0, 1, 2)`` and ``(3, 5)``."""
    groups = []
    for group in text.split(";"):
        layers: list[int] = []
        for part in group.split(","):
            first, _, last = part.strip().partition("-")
            if not first.isdecimal() or not (last or first).isdecimal():
                raise NeuroglotError(
                    f"--layers {text!r}: expected numbers and ranges, as '0-2;3,5'."
                )
            layers += range(int(first), int(last or first) + 1)
        groups.append(tuple(layers))
    return groups


def batch_size_of(text: str) -> BatchSize:
    """The batch size as a number, or ``"auto"``."""
    if text == "auto":
        return "auto"
    if not (text.isascii() and text.isdecimal()):
        raise NeuroglotError(f"--batch-size {text!r}: expected 'auto' or a number from 1.")
    return int(text)


def open_recording(path: Path) -> ng.Recording:
    """The recording at ``path``.

    Raises:
        NeuroglotError: there is none, or another result.
    """
    stored = ng.load(path)
    if not isinstance(stored, ng.Recording):
        raise NeuroglotError(f"{str(path)!r} holds no recording, but another result.")
    return stored


def open_evaluation(path: Path) -> xr.Dataset:
    """The answers at ``path``.

    Raises:
        NeuroglotError: there are none, or another result.
    """
    import xarray as xr

    stored = ng.load(path)
    if not isinstance(stored, xr.Dataset) or stored.attrs.get("kind") != "evaluation":
        raise NeuroglotError(f"{str(path)!r} holds no answers, but another result.")
    return stored


def named_path(given: str) -> tuple[str, Path]:
    """The name and the path in ``NAME=PATH``.

    The name is empty if there is no ``=``, or if a file or folder has the whole text as its path.

    Raises:
        NeuroglotError: the name is blank or has a slash.
    """
    if "=" not in given or os.path.exists(given):  # noqa: PTH110 (False for an impossible path)
        return "", Path(given)
    name, _, path = given.partition("=")
    if not name.strip() or "/" in name:
        raise NeuroglotError(f"{given!r}: expected RUN=PATH, with a name that has no slash.")
    return name, Path(path)


def results_at(given: str) -> dict[str, xr.Dataset | xr.DataArray]:
    """The results in a folder, or a single result, by ``run/folder``.

    Args:
        given: ``PATH`` or ``RUN=PATH``. Without a name, the run has the name of the folder that
            holds its results.

    Raises:
        NeuroglotError: there is no result at the path, or the path or the name is impossible.
    """
    from neuroglot.recording.saved import load_saved
    from neuroglot.store.folders import is_result

    run, path = named_path(given)
    try:
        path.exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NeuroglotError(f"cannot use the path {str(path)!r}: {reason}.") from error
    folders = [path] if is_result(path) else [f for f in sorted(path.glob("*/")) if is_result(f)]
    if not folders:
        raise NeuroglotError(f"{str(path)!r} holds no saved result, and no folder in it does.")
    run = run or (path.resolve().parent if folders == [path] else path.resolve()).name
    results = {}
    for folder in folders:
        if folder.name == "recording" and len(folders) > 1:
            continue  # the results from it are in the folders beside it
        stored = load_saved(folder)
        results[f"{run}/{folder.resolve().name}"] = (
            ng.classify(stored) if isinstance(stored, ng.Recording) else stored
        )
    return results
