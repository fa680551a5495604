"""Whether a folder for several results is one of neuroglot's, or one that holds a user's things."""

from __future__ import annotations

import os
import re
from pathlib import Path

from neuroglot.errors import NeuroglotError
from neuroglot.outputs import OURS, real_path
from neuroglot.store.folders import GONE, NEW, OLD, is_result

# A report that was stopped before its page was written has left this.
FIRST_OF_A_REPORT = "report.items.csv"
WORKING = re.compile(rf"(\..+\.(lock|{NEW}|{OLD}|{GONE}|recordings)|{re.escape(OURS)}.+)")
DEPTH = 3  # folders down to the results of a half of the items


def folder_for_results(out: str | Path) -> Path:
    """The folder that is meant, every link followed, if it is free or holds results already.

    Raises:
        NeuroglotError: it holds other things, which are left as they are, or is no folder.
    """
    path = real_path(out)
    try:
        if path.exists() and not path.is_dir():
            raise NeuroglotError(f"{str(path)!r} is a file; name a folder with --out.")
        if path.is_dir() and is_result(path):
            raise NeuroglotError(
                f"{str(path)!r} is a single result, and no folder for several; name another folder."
            )
        foreign = path.is_dir() and not _is_free(path) and not _holds_results(path)
    except OSError as error:
        raise NeuroglotError(f"cannot write to {str(out)!r}: {error}.") from error
    if foreign:
        raise NeuroglotError(
            f"{str(path)!r} is not empty and holds no results of neuroglot; name another folder."
        )
    return path


def _is_free(folder: Path) -> bool:
    """Whether there are no files but hidden ones, and no hidden folders but those of a writer."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if WORKING.fullmatch(entry.name):
                continue
            hidden = entry.name.startswith(".")
            if not entry.is_dir(follow_symlinks=False):
                if not hidden:
                    return False
            elif hidden or not _is_free(Path(entry)):
                return False
    return True


def _holds_results(folder: Path) -> bool:
    if (folder / FIRST_OF_A_REPORT).is_file():
        return True
    levels = ("/".join("*" * depth) for depth in range(1, DEPTH + 1))
    return any(is_result(found) for level in levels for found in folder.glob(f"{level}/"))
