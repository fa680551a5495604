"""Hostile input: bytes and JSON that are damaged in the ways that files are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

Damage = Callable[[st.DrawFn, bytes], bytes | None]

BITS_OF_BYTES = (
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n", b"\t", b'"', b"\\ud800"),
    *(b"\x1b[31m", b"\xe2\x80\xae", b"\xe2\x80\xa8", b"{", b"}", b"[", b",", b"'"),
    *(b"9" * 5000, b"[" * 100_000, b'{"a":' * 50_000, b"x" * 1_000_000),
)
TEXTS = (
    *("", " ", "\x00", "\ud800", "\u202e", "\u2028", "\x1b[31m", "=1+1", "../../x", "</script>"),
    *("{", "{}", "{x!r}", "{question:>999999999999}", "[X]" + " " * 1_000_000, "x" * 1_000_000),
)
NUMBERS = (0, 1, -1, 2, 0.0, 1.0, 1e308, float("inf"), float("nan"), 10**15, 10**400, True, False)


def _nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.sampled_from(TEXTS),
    st.sampled_from(NUMBERS),
    st.just(_nested(300)),
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=4,
    ),
)
"""Values of wrong types and shapes, and texts that are hard to bear."""


def _place(draw: st.DrawFn, data: bytes) -> int:
    return draw(st.integers(0, max(0, len(data) - 1)))


def flipped(draw: st.DrawFn, data: bytes) -> bytes:
    """One bit is another."""
    if not data:
        return b"\x01"
    changed = bytearray(data)
    changed[_place(draw, data)] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed)


def cut(draw: st.DrawFn, data: bytes) -> bytes:
    """The end is gone; sometimes everything."""
    return data[: _place(draw, data)]


def inserted(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes that do not belong there."""
    place = _place(draw, data)
    return data[:place] + draw(st.sampled_from(BITS_OF_BYTES)) + data[place:]


def replaced(draw: st.DrawFn, data: bytes) -> bytes:
    """Random bytes, of the same length or another."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=64))
    return draw(st.randoms(use_true_random=False)).randbytes(len(data))


def recoded(draw: st.DrawFn, data: bytes) -> bytes:
    """The same text in another encoding, or with other line ends."""
    text = data.decode("utf-8", errors="replace")
    kind = draw(st.sampled_from(["utf-16", "utf-16-le", "latin-1", "utf-8-sig", "crlf", "cr"]))
    if kind in {"crlf", "cr"}:
        return text.replace("\n", "\r\n" if kind == "crlf" else "\r").encode()
    return ("é" + text).encode(kind, errors="replace")


def repeated(draw: st.DrawFn, data: bytes) -> bytes:
    """Everything twice, so that ids are too."""
    return data + data


def missing(draw: st.DrawFn, data: bytes) -> None:
    """No such file."""


def in_json(draw: st.DrawFn, data: bytes) -> bytes:
    """Another value somewhere in a JSON document, or in one line of them; or a key less or more."""
    lines = data.decode().split("\n")
    whole = len(lines) == 1 or not _is_json(lines[0])
    row = 0 if whole else draw(st.integers(0, max(0, len(lines) - 2)))
    document = json.loads(data if whole else lines[row])
    changed = _changed(draw, document)
    if whole:
        return json.dumps(changed).encode()
    lines[row] = json.dumps(changed)
    return "\n".join(lines).encode()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _changed(draw: st.DrawFn, value: Any) -> Any:
    """``value`` with a change in it, at any depth."""
    deeper = isinstance(value, dict | list) and bool(value) and draw(st.integers(0, 5))
    if not deeper:
        return draw(VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    copy = value.copy()
    what = draw(st.sampled_from(["change", "change", "change", "remove", "add", "rename"]))
    if what == "change":
        copy[key] = _changed(draw, value[key])
    elif what == "remove":
        del copy[key]
    elif isinstance(copy, list):
        copy.insert(key, draw(VALUES))
    else:
        copy[draw(st.sampled_from(["x", "\ud800", "", "../x"]))] = draw(VALUES)
        if what == "rename":
            del copy[key]
    return copy


def in_table(draw: st.DrawFn, data: bytes) -> bytes:
    """Another cell, or a column less or more, in one row of a tab or comma separated table."""
    mark = b"\t" if b"\t" in data else b","
    rows = [line.split(mark) for line in data.split(b"\n")]
    row = rows[draw(st.integers(0, len(rows) - 1))]
    place = draw(st.integers(0, len(row) - 1))
    what = draw(st.sampled_from(["change", "change", "remove", "add"]))
    if what == "remove":
        del row[place]
    else:
        texts = [text.encode("utf-8", "surrogatepass") for text in TEXTS]
        cell = draw(st.sampled_from([*texts, b"-1", b"1e5", b"nan", b'"', b"a\tb", b"en"]))
        row[place : place + (what == "change")] = [cell]
    return b"\n".join(mark.join(row) for row in rows)


BYTES: tuple[Damage, ...] = (flipped, cut, inserted, replaced, recoded, repeated)
