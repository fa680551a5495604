"""Read text files so that nothing shifts silently: one encoding, one kind of line end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuroglot.errors import NeuroglotError


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with plain line ends and no byte-order mark.

    Raises:
        NeuroglotError: the file cannot be read, or is in another encoding.
    """
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise NeuroglotError(f"cannot read {str(path)!r}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise NeuroglotError(
            f"{path}, line {line}: no UTF-8 ({error.reason}); convert the file to UTF-8."
        ) from error


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """What errors call each line that is not empty, and the line.

    Only line feeds (with or without a carriage return) end lines: published texts hold other
    characters that Python would split at.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", line


def json_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What errors call each line of a JSONL file, and the object in it.

    Raises:
        NeuroglotError: a line holds no JSON object; it names the file and the line.
    """
    for where, line in lines_of(path):
        yield where, parse_object(line, where)


def parse_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        NeuroglotError: naming ``where``, if the text is no JSON object.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise NeuroglotError(f"{where}: no valid JSON ({error}).") from error
    if not isinstance(found, dict):
        raise NeuroglotError(f"{where}: expected a JSON object, found {type(found).__name__}.")
    return found
