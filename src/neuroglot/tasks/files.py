"""Read text files strictly: in UTF-8 only, and split into lines at line feeds only."""

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
        language: the language of the file, which errors name beside the path.

    Raises:
        NeuroglotError: the file cannot be read, or is in another encoding.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # a null character in a path is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise NeuroglotError(f"cannot read {str(path)!r}{_suffix(language)}: {reason}.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, language, data, error.start, error.reason) from error
    if "\0" in text:
        # UTF-16 of Latin letters is valid UTF-8 with null characters in between.
        raise _not_utf8(path, language, data, data.index(b"\0"), "it holds null characters")
    return text.replace("\r\n", "\n")


def _suffix(language: str) -> str:
    return f" ({language})" if language else ""


def _not_utf8(path: Path, language: str, data: bytes, place: int, reason: str) -> NeuroglotError:
    """The error for a file in another encoding, with the beginning of the line in question."""
    before = data[:place]
    number = before.count(b"\n") + 1
    line = data[before.rfind(b"\n") + 1 :][:30].decode("utf-8", errors="replace")
    return NeuroglotError(
        f"{path}, line {number}{_suffix(language)}: not UTF-8 ({reason}; the line "
        f"begins with {line!r}); convert the file to UTF-8."
    )


def lines_of(path: Path, language: str = "") -> Iterator[tuple[str, str]]:
    """Each line that is not empty, after its place as error messages name it.

    Only line feeds (with or without a carriage return) end lines. Published texts hold other
    characters at which :meth:`str.splitlines` would split.
    """
    for number, line in enumerate(read_text(path, language).split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}{_suffix(language)}", line


def json_objects(path: Path, language: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The object in each line of a JSONL file, after its place as error messages name it.

    Raises:
        NeuroglotError: a line holds no JSON object; the message names the file and the line.
    """
    for where, line in lines_of(path, language):
        yield where, parse_object(line, where)


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON document.

    Raises:
        NeuroglotError: the text is no JSON, or nested too deeply; the message names ``where``.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits are ValueErrors
        raise NeuroglotError(f"{where}: not valid JSON ({error}).") from error


def parse_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object in a text.

    Raises:
        NeuroglotError: the text is no JSON object; the message names ``where``.
    """
    value = parse_json(text, where)
    if not isinstance(value, dict):
        raise NeuroglotError(f"{where}: expected a JSON object, found {type(value).__name__}.")
    return value


def flaw_of(text: str) -> str | None:
    """Why a text cannot be stored, or ``None`` if it can.

    Half a surrogate pair, which JSON can escape, cannot be encoded. A null character ends a stored
    text, so that two different texts could become equal.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return (
            f"holds half a surrogate pair ({shown(text[error.start])} at character {error.start})"
        )
    place = text.find("\0")
    return f"holds a null character (at character {place})" if place >= 0 else None
