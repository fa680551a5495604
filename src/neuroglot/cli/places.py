"""Where a command is to write, looked at before anything that takes time: task, model, results.

What is refused here would be refused in the end. Nothing is made or changed, so a command that
fails later, for another reason, leaves nothing.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Concatenate, ParamSpec

import xarray as xr

import neuroglot as ng
from neuroglot.alignment.align import require_free_for_alignment
from neuroglot.answering.predictions import predictions
from neuroglot.answering.spreadsheet import as_csv
from neuroglot.cli.parsing import open_evaluation
from neuroglot.errors import NeuroglotError, shown
from neuroglot.outputs import check_writable, real_path
from neuroglot.reporting.page import is_report, is_unfinished_report
from neuroglot.store.damage import read_attributes
from neuroglot.store.folders import is_result, require_free
from neuroglot.store.results import DONE, FINISHED, ITEMS_ADDED
from neuroglot.store.whose import folder_for_results

Rest = ParamSpec("Rest")


def _in_one_line(
    check: Callable[Concatenate[Path, Rest], None],
) -> Callable[Concatenate[Path | None, Rest], None]:
    """Let a check say in one line what it may not look at, and pass a place that is not named."""

    @functools.wraps(check)
    def checked(path: Path | None, /, *rest: Rest.args, **how: Rest.kwargs) -> None:
        if path is None:
            return
        try:
            check(path, *rest, **how)
        except OSError as error:
            raise NeuroglotError(f"cannot write to {str(path)!r}: {error}.") from error

    return checked


@_in_one_line
def check_result(out: Path, kind: str, *, overwrite: bool = False) -> None:
    """Refuse a folder that no result can be saved in.

    Args:
        out: the folder.
        kind: of the result.
        overwrite: whether another result may be replaced.

    Raises:
        NeuroglotError: nothing can be written there, or something else is there.
    """
    path = real_path(out)
    if path.exists() and not path.is_dir():
        raise NeuroglotError(f"{str(path)!r} is a file; a result needs a folder of its own.")
    if not is_result(path):
        require_free(path, overwrite=True)
    elif not overwrite:
        found = read_attributes(path)
        if found["kind"] != kind:
            raise NeuroglotError(
                f"{str(path)!r} holds another kind of result, {shown(found['kind'])}, where "
                f"{kind!r} is expected; name another folder, or pass --overwrite to replace it."
            )
        if _is_finished(path):
            return  # nothing needs to be written
    check_writable(path)
    check_writable(path, inside=True)


def _is_finished(path: Path) -> bool:
    """Whether the result at a path says that it is whole."""
    found = read_attributes(path)
    grows = (path / DONE).is_dir()
    return ITEMS_ADDED not in found and (not grows or bool(found.get(FINISHED)))


@_in_one_line
def check_folder(out: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder with things of the user, and to replace a page of the user unless asked to.

    A page that was stopped while it was written is none of the user's.

    Raises:
        NeuroglotError: nothing can be written there, or something else is there.
    """
    folder = folder_for_results(out)
    page = folder / "report.html"
    if page.is_dir():
        raise NeuroglotError(f"{str(page)!r} is a folder; name another --out.")
    if page.exists() and not overwrite and not (is_report(page) or is_unfinished_report(page)):
        raise NeuroglotError(f"{str(page)!r} is no report of neuroglot; name another --out.")
    check_writable(folder, inside=True)
    check_writable(page)


@_in_one_line
def check_alignment(out: Path, *, overwrite: bool = False) -> None:
    """The same for the folder of an alignment, in which no other results may be.

    Raises:
        NeuroglotError: nothing can be written there, or something else is there.
    """
    check_folder(out, overwrite=overwrite)
    require_free_for_alignment(real_path(out))
    check_writable(out)  # for its lock


@_in_one_line
def check_figures(folder: Path) -> None:
    """Refuse a place that is no folder, or cannot be one.

    Raises:
        NeuroglotError: nothing can be written there.
    """
    if real_path(folder).exists() and not real_path(folder).is_dir():
        raise NeuroglotError(f"{str(folder)!r} is a file; name a folder with --figures.")
    check_writable(folder, inside=True)


@_in_one_line
def check_table(path: Path) -> None:
    """Refuse a place that is no file, or cannot be one.

    Raises:
        NeuroglotError: it is a folder, its folder is not there, or nothing can be written there.
    """
    real = real_path(path)
    if real.is_dir():
        raise NeuroglotError(f"{str(path)!r} is a folder; name a file.")
    if not real.parent.is_dir():
        raise NeuroglotError(f"there is no folder {str(path.parent)!r} to write to.")
    check_writable(path)


@_in_one_line
def check_predictions(
    path: Path, task: ng.ParallelTask, out: Path | None, *, overwrite: bool
) -> None:
    """Refuse to replace a file, unless it is the table of the very answers that are saved.

    That is what the same command has left when it was stopped at its end.

    Args:
        path: of the file.
        task: whose answers are to be written to it.
        out: where answers are saved, if anywhere.
        overwrite: whether any file may be replaced.

    Raises:
        NeuroglotError: another file is there.
    """
    if overwrite or not real_path(path).exists():
        return
    if out is None or not _is_table_of(path, task, out):
        if out is None:
            said = "pass --overwrite to replace it"
        else:
            said = (
                f"remove it: it is not the table of the answers in {str(out)!r}, which --overwrite "
                "would replace as well"
            )
        raise NeuroglotError(f"{str(path)!r} exists; name another file, or {said}.")


def _is_table_of(path: Path, task: ng.ParallelTask, out: Path) -> bool:
    try:
        return path.read_bytes() == as_csv(predictions(task, open_evaluation(out)))
    except (NeuroglotError, OSError):  # no answers, or not all, or other ones; or no file
        return False


@_in_one_line
def check_new_page(page: Path, *, overwrite: bool = False) -> None:
    """Refuse to replace what is no report, unless asked to.

    Raises:
        NeuroglotError: nothing can be written there, or something else is there.
    """
    real = real_path(page)
    if real.exists() and not real.is_file():
        raise NeuroglotError(f"{str(page)!r} is no file; name another --out.")
    if real.exists() and not overwrite and not (is_report(real) or is_unfinished_report(real)):
        raise NeuroglotError(f"{str(page)!r} exists; pass --overwrite to replace it.")
    check_writable(page)


@_in_one_line
def check_same_page(
    page: Path, results: Mapping[str, xr.Dataset | xr.DataArray], *, overwrite: bool
) -> None:
    """Refuse to replace a whole report, unless by the very same.

    Raises:
        NeuroglotError: a report of other results, or by another version, is there.
    """
    real = real_path(page)
    if overwrite or not real.exists() or is_unfinished_report(real):
        return
    with tempfile.TemporaryDirectory() as folder:
        same = ng.report(results, out=Path(folder) / real.name).read_bytes() == real.read_bytes()
    if not same:
        raise NeuroglotError(f"{str(page)!r} exists; pass --overwrite to replace it.")
