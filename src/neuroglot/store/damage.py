"""Tell damaged folders from sound ones: nothing that is missing or changed is taken for data.

Damage is what is found in a file: one that is missing, whose checksum or size is wrong, that does
not decode, or metadata that are not as they were written. Everything else that may happen while a
result is read (no memory, no thread, no permission, a fault of a disk or of a program) is said as
what it is. It says nothing against the files, and is no reason to make them again.

Chunks hold checksums of their own. How they are read (shape, number type, chunks, codecs, names of
dimensions) stands in the ``zarr.json`` of each array, so the folder holds a checksum of each.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zarr
from zarr.core import sync

from neuroglot.errors import NeuroglotError, shown

METADATA = "zarr.json"
LAYOUT = "layout"  # attribute with the checksums of the arrays' metadata

# What results of answers called their attributes before they said their kind.
_CHOICES = {"score": "choice_score", "positions": "edit_position"}
OF_ANSWERS = dict.fromkeys(
    ("evaluation", "outcome", "answers under a condition", "log-probabilities"), _CHOICES
)


class WrongContentError(Exception):
    """What is wrong with the content of a file, for :class:`DamagedError` to say of which."""


class DamagedError(NeuroglotError):
    """Files of a result that are missing or not as they were written.

    Attributes:
        reason: which file, and what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.reason = " ".join(reason.split())
        super().__init__(
            f"cannot read a result from {str(path)!r}: it is damaged ({self.reason}). Make it "
            "again with the same settings in the same folder, which keeps what is whole of a "
            "recording or an evaluation; or pass overwrite=True (--overwrite)."
        )


def _said(error: Exception) -> str:
    """Kind and text of an exception, in one line; NumPy's own MemoryError is one too."""
    kind = next(x.__name__ for x in type(error).__mro__ if not x.__name__.startswith("_"))
    return " ".join(f"{kind}: {error}".split()).rstrip(":. ")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say in one line, as what it is, whatever happens while the result at ``path`` is read.

    Raises:
        NeuroglotError: from another exception, which says nothing of the files.
    """
    try:
        _require_zarr_runs()
        yield
    except NeuroglotError:
        raise
    except Exception as error:
        raise NeuroglotError(
            f"cannot read a result from {str(path)!r}: {_said(error)}. The files were left as they "
            "are, and nothing is known to be wrong with them; the same call works once the cause "
            "is gone."
        ) from error


@contextmanager
def writing(path: Path, then: str = "") -> Iterator[None]:
    """Say in one line, as what it is, whatever happens while a result is written to ``path``.

    Args:
        path: of the result.
        then: what became of what was there.

    Raises:
        NeuroglotError: from another exception.
    """
    try:
        _require_zarr_runs()
        yield
    except NeuroglotError:
        raise
    except Exception as error:
        what = str(error) if isinstance(error, OSError) else _said(error)
        raise NeuroglotError(f"cannot write to {str(path)!r}: {what}. {then}".rstrip()) from error


def _require_zarr_runs() -> None:
    """Let Zarr start its thread anew where that failed; it would wait for ever for the dead one.

    No public function does: ``cleanup_resources`` raises for a thread that was never started.
    """
    if sync.loop[0] is None or _zarr_is_alive():
        return
    with sync._get_lock():  # noqa: SLF001  (another thread may be starting it right now)
        loop = sync.loop[0]
        if loop is not None and not _zarr_is_alive():
            loop.close()
            sync.loop[0] = sync.iothread[0] = None


def _zarr_is_alive() -> bool:
    thread = sync.iothread[0]
    return thread is not None and thread.is_alive()


def read_file(path: Path, name: str) -> bytes:
    """The content of a file of the result at ``path``.

    Raises:
        DamagedError: there is no such file.
    """
    file = path / name
    if not file.is_file():  # also where something else than a file has its name
        raise DamagedError(path, f"no file {name}")
    return file.read_bytes()


def read_json(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of the result at ``path``.

    Raises:
        DamagedError: there is none.
    """
    content = read_file(path, name)
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"{name} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise DamagedError(path, f"{name} holds {shown(found)}, expected an object")
    return found


def read_attributes(path: Path) -> dict[str, Any]:
    """The attributes of a saved result.

    Raises:
        DamagedError: there are none.
    """
    with reading(path):
        found = read_json(path, METADATA)
        attributes = found.get("attributes")
        if not isinstance(attributes, dict):
            raise DamagedError(path, f"{METADATA} holds no attributes")
        if found.get("node_type") != "group":  # an array of a result says a kind and a version too
            raise DamagedError(path, f"{METADATA} is not that of a result")
        return todays_names(attributes)


def todays_names(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a result of an earlier version under the names that they have now."""
    old = attributes.get("unit")
    if old is None or attributes.get("kind", old) != old:
        return attributes
    names = {"unit": "kind", **OF_ANSWERS.get(str(old), {})}
    return {names.get(key, key): value for key, value in attributes.items()}


def array_names(path: Path) -> list[str]:
    """Folders with metadata, in order. Unlike ``glob``, a folder that may not be read is said."""
    with os.scandir(path) as entries:
        folders = [entry.name for entry in entries if entry.is_dir()]
    return sorted(name for name in folders if (path / name / METADATA).is_file())


def layout_of(path: Path) -> dict[str, str]:
    """A checksum of how each array is kept, by name."""
    return {
        name: hashlib.sha256(read_file(path, f"{name}/{METADATA}")).hexdigest()[:16]
        for name in array_names(path)
    }


def mark_layout(path: Path) -> None:
    """Write down how the arrays are kept, now that all are there."""
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    group.attrs[LAYOUT] = layout_of(path)


def check_layout(path: Path) -> None:
    """Arrays must be kept as they were when they were made; earlier results do not say how.

    An array that is not marked was being made when its writer was killed, and is made again.

    Raises:
        DamagedError: naming an array.
    """
    root = read_json(path, METADATA)
    if (root.get("zarr_format"), root.get("node_type")) != (3, "group"):
        raise DamagedError(path, f"{METADATA} is not that of a group of Zarr's format 3")
    marked = read_attributes(path).get(LAYOUT)
    if marked is None:
        return
    if not isinstance(marked, dict):
        raise DamagedError(path, f"{METADATA}: {LAYOUT!r} is {shown(marked)}, expected checksums")
    found = layout_of(path)
    for name, checksum in marked.items():
        if found.get(name) != checksum:
            raise DamagedError(path, f"{name}/{METADATA} is not as it was written")
