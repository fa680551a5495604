"""The folder of a result: one writer at a time, and replaced as a whole or not at all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from neuroglot.errors import NeuroglotError
from neuroglot.outputs import real_path
from neuroglot.store.damage import LAYOUT, METADATA, DamagedError, read_attributes

VERSION = "neuroglot_version"  # of what every result says that was made from a model

# Folders beside a result while it is replaced. The name says whose they are, as nothing in them
# could at every moment: what a killed writer left is removed, and no other folder is.
NEW, OLD, GONE = "neuroglot-new", "neuroglot-old", "neuroglot-gone"
PART = re.compile(r".+\.[0-9a-f]{32}\.partial")  # what Zarr calls a file that it is writing


def is_result(path: Path) -> bool:
    """Whether a folder holds something that neuroglot saved, and not just any Zarr data.

    Raises:
        NeuroglotError: that cannot be known, as the folder may not be read.
    """
    try:
        found = read_attributes(path)
    except DamagedError:
        return False
    # Other people's data may say a kind too. Results of before do not say their layout.
    return "kind" in found and (isinstance(found.get(LAYOUT), dict) or VERSION in found)


def as_path(out: str | Path) -> Path:
    """The folder to write to, every link followed; its parent is made if missing.

    Raises:
        NeuroglotError: the place cannot be written to.
    """
    path = real_path(out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        taken = path.exists() and not path.is_dir()
    except OSError as error:
        raise NeuroglotError(f"cannot write to {str(path)!r}: {error}.") from error
    if taken:
        raise NeuroglotError(f"{str(path)!r} is a file; a result needs a folder of its own.")
    return path


def require_free(path: Path, *, overwrite: bool) -> None:
    """Check that a new result may take this place.

    Raises:
        NeuroglotError: something is there and ``overwrite`` is not set, or it is no result.
    """
    if not path.exists() or not any(path.iterdir()):
        return
    if not is_result(path):
        raise NeuroglotError(
            f"{str(path)!r} is not empty and holds no result of neuroglot; name another "
            f"folder.{_if_damaged(path)}"
        )
    if not overwrite:
        raise NeuroglotError(
            f"{str(path)!r} already holds a result; pass overwrite=True (--overwrite) to "
            "replace it."
        )


def _if_damaged(path: Path) -> str:
    """What to do if it was a result, whose own metadata are damaged."""
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
    """Hold the folder against other processes, and clear up after one that was killed in it.

    The lock goes with the process, however that ends.

    Raises:
        NeuroglotError: another process holds it, or the place cannot be written to.
    """
    lock = FileLock(_beside(path, "lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise NeuroglotError(
            f"another process is writing to {str(path)!r}; wait for it, or name another folder."
        ) from error
    except OSError as error:
        raise NeuroglotError(f"cannot write to {str(path)!r}: {error}.") from error
    try:
        _clear_up(path)
        yield
    finally:
        lock.release()


def clear_up_after_kill(path: Path) -> None:
    """The same for a result that is only to be opened: nothing is done where nothing was left.

    Raises:
        NeuroglotError: something was left, and another process holds the folder, or the place
            cannot be written to.
    """
    if any(_beside(path, kind).exists() for kind in (NEW, OLD, GONE)):
        with locked(path):
            pass


def _clear_up(path: Path) -> None:
    """Remove what a killed writer left: half a new folder, half a chunk, a replaced result."""
    try:
        _settle(path)
        if is_result(path):
            for part in path.rglob("*.partial"):
                if PART.fullmatch(part.name):
                    part.unlink()
    except OSError as error:
        raise NeuroglotError(f"cannot write to {str(path)!r}: {error}.") from error


def _settle(path: Path) -> None:
    """Let what was replaced take its place again, if nothing did, and remove the rest."""
    old = _beside(path, OLD)
    if old.exists() and not path.exists():
        old.rename(path)
    _remove(old)
    for kind in (NEW, GONE):
        if _beside(path, kind).exists():
            shutil.rmtree(_beside(path, kind))


def _remove(old: Path) -> None:
    """Remove what was replaced, under another name: a half of it must not come back."""
    if not old.exists():
        return
    gone = old.with_name(old.name.removesuffix(OLD) + GONE)
    if gone.exists():
        shutil.rmtree(gone)
    old.rename(gone)
    shutil.rmtree(gone)


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``path`` when the block ends without an error.

    To be used under the lock, of the folder or of one around it.

    Raises:
        NeuroglotError: the place cannot be written to; what was there is there still.
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
        _remove(old)
    except OSError as error:
        raise NeuroglotError(f"cannot write to {str(path)!r}: {error}.") from error
