"""Find damage in the folder of a result, so that nothing missing or changed is taken for data.

A result is damaged if a file is missing, has a wrong checksum or size, cannot be decoded, or if
metadata are not as they were written. Any other failure while a result is read (no memory, no
thread, no permission, a fault of the disk or of a program) is reported as what it is, because it
does not show that the files are damaged, and they need not be made again.

Each chunk holds its own checksum. The ``zarr.json`` of each array says how its chunks are read
(shape, number type, chunks, codecs, names of dimensions), and the attributes of the result hold a
checksum of each ``zarr.json``.
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
LAYOUT = "layout"  # attribute with a checksum of the metadata of each array

# Earlier names of attributes of results with answers, and their present names.
_CHOICES = {"score": "choice_score", "positions": "edit_position"}
OF_ANSWERS = dict.fromkeys(
    ("evaluation", "outcome", "answers under a condition", "log-probabilities"), _CHOICES
)


class WrongContentError(Exception):
    """The content of a file is wrong; :class:`DamagedError` then says in which file."""


class DamagedError(NeuroglotError):
    """Files of a result are missing or not as they were written.

    Attributes:
        reason: the file and what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.reason = " ".join(reason.split())
        super().__init__(
            f"cannot read a result from {str(path)!r}: it is damaged ({self.reason}). Make it "
            "again with the same settings in the same folder, which keeps the undamaged part of a "
            "recording or an evaluation; or pass overwrite=True (--overwrite)."
        )


def _described(error: Exception) -> str:
    """The first public class of an exception and its text, in one line."""
    kind = next(c.__name__ for c in type(error).__mro__ if not c.__name__.startswith("_"))
    return " ".join(f"{kind}: {error}".split()).rstrip(":. ")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any exception while the result at ``path`` is read into an error of one line.

    Raises:
        NeuroglotError: another exception was raised, which does not mean that files are damaged.
    """
    try:
        _require_zarr_runs()
        yield
    except NeuroglotError:
        raise
    except Exception as error:
        raise NeuroglotError(
            f"cannot read a result from {str(path)!r}: {_described(error)}. The files were left as "
            "they are, and nothing is known to be wrong with them; the same call works once the "
            "cause is gone."
        ) from error


@contextmanager
def writing(path: Path, then: str = "") -> Iterator[None]:
    """Turn any exception while a result is written to ``path`` into an error of one line.

    Args:
        path: the folder of the result.
        then: a sentence for the message, about what is kept and how to go on.

    Raises:
        NeuroglotError: another exception was raised.
    """
    try:
        _require_zarr_runs()
        yield
    except NeuroglotError:
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, OSError) else _described(error)
        raise NeuroglotError(f"cannot write to {str(path)!r}: {reason}. {then}".rstrip()) from error


def _require_zarr_runs() -> None:
    """Let Zarr start its thread anew if that failed before; otherwise it would wait for ever.

    No public function does this: ``cleanup_resources`` raises an error for a thread that was never
    started.
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
        DamagedError: there is no such file, or something else has its name.
    """
    file = path / name
    if not file.is_file():
        raise DamagedError(path, f"no file {name}")
    return file.read_bytes()


def read_json(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of the result at ``path``.

    Raises:
        DamagedError: the file is missing or holds no JSON object.
    """
    content = read_file(path, name)
    try:
        data = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"{name} is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise DamagedError(path, f"{name} holds {shown(data)}, expected an object")
    return data


def read_attributes(path: Path) -> dict[str, Any]:
    """The attributes of a saved result, under their present names.

    Raises:
        DamagedError: they cannot be read, or are those of an array.
    """
    with reading(path):
        metadata = read_json(path, METADATA)
        attributes = metadata.get("attributes")
        if not isinstance(attributes, dict):
            raise DamagedError(path, f"{METADATA} holds no attributes")
        if metadata.get("node_type") != "group":  # arrays have a kind and a version too
            raise DamagedError(path, f"{METADATA} is not that of a result")
        return todays_names(attributes)


def todays_names(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a result under their present names, also if an earlier version wrote it."""
    old = attributes.get("unit")
    if old is None or attributes.get("kind", old) != old:
        return attributes
    names = {"unit": "kind", **OF_ANSWERS.get(str(old), {})}
    return {names.get(key, key): value for key, value in attributes.items()}


def array_names(path: Path) -> list[str]:
    """The names of the folders with metadata, sorted.

    Unlike ``Path.glob``, it raises an error for a folder that may not be read.
    """
    with os.scandir(path) as entries:
        folders = [entry.name for entry in entries if entry.is_dir()]
    return sorted(name for name in folders if (path / name / METADATA).is_file())


def layout_of(path: Path) -> dict[str, str]:
    """A checksum of the metadata of each array, by its name."""
    return {
        name: hashlib.sha256(read_file(path, f"{name}/{METADATA}")).hexdigest()[:16]
        for name in array_names(path)
    }


def mark_layout(path: Path) -> None:
    """Save the checksums of the metadata of all arrays among the attributes of the result."""
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    group.attrs[LAYOUT] = layout_of(path)


def check_layout(path: Path) -> None:
    """Check that the metadata of all listed arrays are as they were written.

    Results of early versions list none. An array that is not listed was being created when its
    writer was killed, and is made again.

    Raises:
        DamagedError: metadata are not as they were written; the message names the array.
    """
    root = read_json(path, METADATA)
    if (root.get("zarr_format"), root.get("node_type")) != (3, "group"):
        raise DamagedError(path, f"{METADATA} is not that of a group of Zarr's format 3")
    listed = read_attributes(path).get(LAYOUT)
    if listed is None:
        return
    if not isinstance(listed, dict):
        raise DamagedError(path, f"{METADATA}: {LAYOUT!r} is {shown(listed)}, expected checksums")
    layout = layout_of(path)
    for name, checksum in listed.items():
        if layout.get(name) != checksum:
            raise DamagedError(path, f"{name}/{METADATA} is not as it was written")
