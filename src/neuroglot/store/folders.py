"""The folder of a result, which has one writer at a time and is replaced as a whole."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from neuroglot.errors import NeuroglotError
from neuroglot.outputs import real_path
from neuroglot.store.damage import LAYOUT, METADATA, DamagedError, read_attributes, writing

VERSION = "neuroglot_version"  # attribute of every result that was made from a model

# Folders beside a result while it is replaced. Their names say that they are neuroglot's, so that
# what a killed writer left can be removed without the risk of removing another folder.
NEW, OLD, GONE = "neuroglot-new", "neuroglot-old", "neuroglot-gone"
PART = re.compile(r".+\.[0-9a-f]{32}\.partial")  # the name of a file while Zarr writes it


def is_result(path: Path) -> bool:
    """Whether a folder holds a result of neuroglot rather than other Zarr data.

    Raises:
        NeuroglotError: the folder may not be read.
    """
    try:
        attrs = read_attributes(path)
    except DamagedError:
        return False
    # Data of other programs may have a kind too, and early results have no layout.
    return "kind" in attrs and (isinstance(attrs.get(LAYOUT), dict) or VERSION in attrs)


def as_path(out: str | Path) -> Path:
    """The folder to write to, with links followed; its parent is created if it is missing.

    Raises:
        NeuroglotError: the folder cannot be written to, or is a file.
    """
    path = real_path(out)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_dir():
            raise NeuroglotError(f"{str(path)!r} is a file; a result needs a folder of its own.")
    return path


def require_free(path: Path, *, overwrite: bool) -> None:
    """Check that a new result may be written to this folder.

    Raises:
        NeuroglotError: it holds a result and ``overwrite`` is not set, or holds other files.
    """
    if not path.exists() or not any(path.iterdir()):
        return
    if not is_result(path):
        raise NeuroglotError(
            f"{str(path)!r} is not empty and holds no result of neuroglot; name another "
            f"folder.{_advice_on_metadata(path)}"
        )
    if not overwrite:
        raise NeuroglotError(
            f"{str(path)!r} already holds a result; pass overwrite=True (--overwrite) to "
            "replace it."
        )


def _advice_on_metadata(path: Path) -> str:
    """What a user can do if the folder was a result whose own metadata are damaged."""
    if not any((folder / METADATA).exists() for folder in (path, *path.iterdir())):
        return ""
    return (
        f" If it was one, its {METADATA} is damaged, so that its settings are not known: remove "
        "the folder, and the same command makes it again."
    )


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing to the folder, and clear up after a killed writer.

    The lock is released when the process ends, however it ends.

    Raises:
        NeuroglotError: another process holds the lock, or the folder cannot be written to.
    """
    lock = FileLock(_beside(path, "lock"), timeout=0)
    with writing(path):
        try:
            lock.acquire()
        except Timeout as error:
            raise NeuroglotError(
                f"another process is writing to {str(path)!r}; wait for it, or name another folder."
            ) from error
    try:
        _clear_up(path)
        yield
    finally:
        lock.release()


def clear_up_after_kill(path: Path) -> None:
    """Clear up after a killed writer, before a result is only read; without leftovers do nothing.

    Raises:
        NeuroglotError: there are leftovers, and another process holds the lock or the folder cannot
            be written to.
    """
    if any(_beside(path, kind).exists() for kind in (NEW, OLD, GONE)):
        with locked(path):
            pass


def _clear_up(path: Path) -> None:
    """Remove what a killed writer left: half a new folder, half a chunk, a replaced result."""
    with writing(path):
        _settle(path)
        if is_result(path):
            for part in path.rglob("*.partial"):
                if PART.fullmatch(part.name):
                    part.unlink()


def _settle(path: Path) -> None:
    """Put the replaced result back if no new one took its place, and remove what else is left."""
    old = _beside(path, OLD)
    if old.exists() and not path.exists():
        old.rename(path)
    _remove(old, _beside(path, GONE))
    for kind in (NEW, GONE):
        if _beside(path, kind).exists():
            shutil.rmtree(_beside(path, kind))


def discard(path: Path) -> None:
    """Remove a result that is to be made again; nothing else is touched.

    Raises:
        NeuroglotError: another process is writing to it, or it may not be removed.
    """
    if is_result(path):
        with locked(path), writing(path):
            _remove(path, _beside(path, GONE))


def _remove(result: Path, gone: Path) -> None:
    """Remove a result, renamed to ``gone`` first so that a half of it is never taken for one."""
    if not result.exists():
        return
    if gone.exists():
        shutil.rmtree(gone)
    result.rename(gone)
    shutil.rmtree(gone)


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """A new folder that replaces ``path`` if the block ends without an error.

    The caller holds the lock of the folder or of one around it.

    Raises:
        NeuroglotError: the folder cannot be written to; the old one is unchanged.
    """
    fresh, old = _beside(path, NEW), _beside(path, OLD)
    try:
        _settle(path)
        try:
            fresh.mkdir()
            yield fresh
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        if path.exists():
            path.rename(old)
        try:
            fresh.rename(path)
        except OSError:
            _settle(path)
            raise
        _remove(old, _beside(path, GONE))
    except OSError as error:
        raise NeuroglotError(f"cannot write to {str(path)!r}: {error}.") from error
