"""Check that a folder for several results holds nothing but results of neuroglot."""

from __future__ import annotations

import os
import re
from pathlib import Path

from neuroglot.errors import NeuroglotError
from neuroglot.outputs import OURS, real_path
from neuroglot.store.damage import writing
from neuroglot.store.folders import GONE, NEW, OLD, is_result

# The file that a report leaves if it is stopped before its page is written.
FIRST_OF_A_REPORT = "report.items.csv"
WORKING = re.compile(rf"(\..+\.(lock|{NEW}|{OLD}|{GONE}|recordings)|{re.escape(OURS)}.+)")
DEPTH = 3  # levels of folders down to the results for a half of the items


def folder_for_results(out: str | Path) -> Path:
    """The folder, with links followed, if it is missing or empty or holds results.

    Raises:
        NeuroglotError: it holds other things, is a single result or no folder, or cannot be read.
    """
    path = real_path(out)
    with writing(Path(out)):
        if path.exists() and not path.is_dir():
            raise NeuroglotError(f"{str(path)!r} is a file; name a folder with --out.")
        if path.is_dir() and is_result(path):
            raise NeuroglotError(
                f"{str(path)!r} is a single result, and no folder for several; name another folder."
            )
        if path.is_dir() and not _is_free(path) and not _holds_results(path):
            raise NeuroglotError(
                f"{str(path)!r} is not empty and holds no results of neuroglot; name another "
                "folder."
            )
    return path


def _is_free(folder: Path) -> bool:
    """Whether a folder holds only hidden files, working folders of neuroglot and empty folders."""
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
    return any(is_result(below) for level in levels for below in folder.glob(f"{level}/"))
