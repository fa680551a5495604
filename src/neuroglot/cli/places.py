"""Check where a command will write, before it loads a task or a model.

Whatever is refused here would be refused at the end of the command. Nothing is created or changed,
so a command that fails later for another reason leaves nothing behind.
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
    """Let a check accept ``None``, and turn its OSError into an error of one line."""

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
    """Refuse a folder in which the result cannot be saved.

    Args:
        out: the folder.
        kind: the kind of the result.
        overwrite: whether another result may be replaced.

    Raises:
        NeuroglotError: the folder cannot be written to, or holds something else.
    """
    path = real_path(out)
    if path.exists() and not path.is_dir():
        raise NeuroglotError(f"{str(path)!r} is a file; a result needs a folder of its own.")
    if not is_result(path):
        require_free(path, overwrite=True)
    elif not overwrite:
        attrs = read_attributes(path)
        if attrs["kind"] != kind:
            raise NeuroglotError(
                f"{str(path)!r} holds another kind of result, {shown(attrs['kind'])}, where "
                f"{kind!r} is expected; name another folder, or pass --overwrite to replace it."
            )
        grows = (path / DONE).is_dir()
        if ITEMS_ADDED not in attrs and (not grows or attrs.get(FINISHED)):
            return  # it is finished, so nothing will be written
    check_writable(path)
    check_writable(path, inside=True)


@_in_one_line
def check_folder(out: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that holds other things than results, or another page than a report.

    With ``overwrite``, any page may be replaced.

    Raises:
        NeuroglotError: the folder cannot be written to, or holds something else.
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
    """Refuse a folder that holds anything but an alignment.

    Raises:
        NeuroglotError: the folder cannot be written to, or holds something else.
    """
    check_folder(out, overwrite=overwrite)
    require_free_for_alignment(real_path(out))
    check_writable(out)  # for the lock beside it


@_in_one_line
def check_figures(folder: Path) -> None:
    """Refuse a path at which there is no folder and none can be created.

    Raises:
        NeuroglotError: the path is a file, or nothing can be written there.
    """
    if real_path(folder).exists() and not real_path(folder).is_dir():
        raise NeuroglotError(f"{str(folder)!r} is a file; name a folder with --figures.")
    check_writable(folder, inside=True)


@_in_one_line
def check_table(path: Path) -> None:
    """Refuse a path at which no file can be written.

    Raises:
        NeuroglotError: the path is a folder, its folder is missing, or it cannot be written to.
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
    """Refuse to replace a file, unless it is the table of the answers that are saved in ``out``.

    The same command leaves such a file if it is stopped at its end.

    Args:
        path: the file.
        task: the task whose answers will be written to the file.
        out: the folder in which the answers are saved, if there is one.
        overwrite: whether any file may be replaced.

    Raises:
        NeuroglotError: there is another file.
    """
    if overwrite or not real_path(path).exists():
        return
    advice = "pass --overwrite to replace it"
    if out is not None:
        if _is_table_of(path, task, out):
            return
        advice = (
            f"remove it: it is not the table of the answers in {str(out)!r}, which --overwrite "
            "would replace as well"
        )
    raise NeuroglotError(f"{str(path)!r} exists; name another file, or {advice}.")


def _is_table_of(path: Path, task: ng.ParallelTask, out: Path) -> bool:
    """Whether a file is the table of the answers in a folder."""
    try:
        return path.read_bytes() == as_csv(predictions(task, open_evaluation(out)))
    except (NeuroglotError, OSError):  # the answers are missing, unfinished or of another task
        return False


@_in_one_line
def check_new_page(page: Path, *, overwrite: bool = False) -> None:
    """Refuse to replace a file that is no report, unless ``overwrite`` is set.

    Raises:
        NeuroglotError: there is another file, or the page cannot be written.
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
    """Refuse to replace a complete report by a different one, unless ``overwrite`` is set.

    Raises:
        NeuroglotError: there is a report of other results or by another version.
    """
    real = real_path(page)
    if overwrite or not real.exists() or is_unfinished_report(real):
        return
    with tempfile.TemporaryDirectory() as folder:
        same = ng.report(results, out=Path(folder) / real.name).read_bytes() == real.read_bytes()
    if not same:
        raise NeuroglotError(f"{str(page)!r} exists; pass --overwrite to replace it.")
