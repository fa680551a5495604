"""The folder of a result: one writer at a time, and replaced as a whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from neuroglot.errors import NeuroglotError
from neuroglot.outputs import real_path
from neuroglot.recording.damage import LAYOUT, METADATA, DamagedError, read_attributes

VERSION = "neuroglot_version"  # of what every result says that was made from a model


def is_result(path: Path) -> bool:
    """Whether a folder holds something that neuroglot saved, and not just any Zarr data.

    Raises:
        NeuroglotError: that cannot be known, as the folder may not be read.
    """
    try:
        found = read_attributes(path)
    except DamagedError:
        return False
    # Other people's data may say a unit too. Results of before do not say their layout.
    return "unit" in found and (isinstance(found.get(LAYOUT), dict) or VERSION in found)


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
            f"{str(path)!r} is not empty and holds no result of neuroglot; name another folder."
        )
    if not overwrite:
        raise NeuroglotError(
            f"{str(path)!r} already holds a result; pass overwrite=True (--overwrite) to "
            "replace it."
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


def _clear_up(path: Path) -> None:
    """Remove what a killed writer left: half a new folder, half a chunk, a replaced result."""
    old = _beside(path, "old")
    try:
        for leftover in (old, _beside(path, "new")):
            _require_ours(leftover)
        if old.exists() and not path.exists():
            old.rename(path)
        for leftover in (old, _beside(path, "new")):
            if leftover.exists():
                shutil.rmtree(leftover)
        if is_result(path):
            for part in path.rglob("*.partial"):
                part.unlink()
    except OSError as error:
        raise NeuroglotError(f"cannot write to {str(path)!r}: {error}.") from error


def _require_ours(leftover: Path) -> None:
    """Refuse to remove a folder with other files than those of a result, or of half a one.

    Raises:
        NeuroglotError: there are such.
    """
    for file in leftover.rglob("*"):
        is_chunk = "c" in file.relative_to(leftover).parts
        if not (file.is_dir() or is_chunk or file.name == METADATA or file.suffix == ".partial"):
            raise NeuroglotError(
                f"{str(leftover)!r} is in the way and holds more than a result ({file.name!r}); "
                "move it away, or name another folder."
            )


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``path`` when the block ends without an error.

    To be used under the lock.

    Raises:
        NeuroglotError: the place cannot be written to.
    """
    fresh, old = _beside(path, "new"), _beside(path, "old")
    try:
        try:
            fresh.mkdir()
            yield fresh
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        if path.exists():
            path.rename(old)
        fresh.rename(path)
        if old.exists():
            shutil.rmtree(old)
    except OSError as error:
        raise NeuroglotError(f"cannot write to {str(path)!r}: {error}.") from error
