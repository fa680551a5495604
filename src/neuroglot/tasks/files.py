"""Read text files so that nothing shifts silently: one encoding, one kind of line end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuroglot.errors import NeuroglotError, shown


def read_text(path: Path, language: str = "") -> str:
    """The text of a UTF-8 file, with plain line ends and no byte-order mark.

    Args:
        path: of the file.
        language: that errors name beside it, where the file is of one.

    Raises:
        NeuroglotError: the file cannot be read, or is in another encoding.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # a null character in a path is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise NeuroglotError(f"cannot read {str(path)!r}{_of(language)}: {reason}.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_utf8(path, language, data, error.start, error.reason) from error
    if "\0" in text:
        # UTF-16 of Latin letters is valid UTF-8 with null characters in between.
        raise _no_utf8(path, language, data, data.index(b"\0"), "it holds null characters")
    return text.replace("\r\n", "\n")


def _of(language: str) -> str:
    return f" ({language})" if language else ""


def _no_utf8(path: Path, language: str, data: bytes, place: int, reason: str) -> NeuroglotError:
    """The error for a file in another encoding; the beginning of the line helps to find it."""
    before = data[:place]
    number = before.count(b"\n") + 1
    line = data[before.rfind(b"\n") + 1 :][:30].decode("utf-8", errors="replace")
    return NeuroglotError(
        f"{path}, line {number}{_of(language)}: no UTF-8 ({reason}; the line "
        f"begins with {line!r}); convert the file to UTF-8."
    )


def lines_of(path: Path, language: str = "") -> Iterator[tuple[str, str]]:
    """What errors call each line that is not empty, and the line.

    Only line feeds (with or without a carriage return) end lines: published texts hold other
    characters that Python would split at.
    """
    for number, line in enumerate(read_text(path, language).split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}{_of(language)}", line


def json_objects(path: Path, language: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """What errors call each line of a JSONL file, and the object in it.

    Raises:
        NeuroglotError: a line holds no JSON object; it names the file and the line.
    """
    for where, line in lines_of(path, language):
        yield where, parse_object(line, where)


def parse_json(text: str, where: str) -> Any:
    """What a JSON document holds.

    Raises:
        NeuroglotError: naming ``where``, if the text is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits are ValueErrors
        raise NeuroglotError(f"{where}: no valid JSON ({error}).") from error


def parse_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        NeuroglotError: naming ``where``, if the text is no JSON object.
    """
    found = parse_json(text, where)
    if not isinstance(found, dict):
        raise NeuroglotError(f"{where}: expected a JSON object, found {type(found).__name__}.")
    return found


def flaw_of(text: str) -> str | None:
    """What makes a text unfit to be kept, if anything does.

    Half a surrogate pair, which JSON can escape, is in no encoding; a null character ends texts
    where they are stored, so that two different ones would become one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = shown(text[error.start])
        return f"holds half a surrogate pair ({half} at character {error.start}), which is no text"
    place = text.find("\0")
    return f"holds a null character (at character {place})" if place >= 0 else None
