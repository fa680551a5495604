"""What is printed: in any encoding, and without an end to the work where nobody can read it."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

CANNOT_PRINT = 1
CLOSED_PIPE = 128 + 13  # as shells say of tools that SIGPIPE ends
# What stands in the place of signs that an encoding does not have; others become escapes.
PLAIN_SIGNS = {"–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "×": "x", "·": ".", "’": "'"}
ESCAPED = "neuroglot-escaped"  # the name of the rule for such signs


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    found = [PLAIN_SIGNS.get(x) or x.encode("ascii", "backslashreplace").decode() for x in signs]
    return "".join(found), error.end


codecs.register_error(ESCAPED, _escaped)


class Enduring(io.TextIOBase):
    """A stream that bears every text, and drops all of it once it cannot be written.

    It has no ``buffer``, past which nothing can be written.

    Attributes:
        stream: where the text goes.
        failure: what happened when it could not be written.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.failure: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream."""
        return self.stream.encoding or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What becomes of signs that the encoding does not have."""
        return ESCAPED

    def write(self, text: str) -> int:
        """Write a text, as far as possible."""
        if not isinstance(text, str):
            raise TypeError(f"expected a text, found {type(text).__name__}")
        known = text.encode(self.encoding, ESCAPED).decode(self.encoding)
        if self.failure is None:
            try:
                self.stream.write(known)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Write what the stream has kept back, as far as possible."""
        if self.failure is None:
            try:
                self.stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Let what the stream still holds go nowhere; Python writes it when the process ends."""
        self.failure = error
        with suppress(OSError, ValueError):  # there may be no file below
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal; what was closed, as when Python ends, is none."""
        return not self.stream.closed and self.stream.isatty()

    def fileno(self) -> int:
        """The number of the file below."""
        return self.stream.fileno()


@contextmanager
def enduring_streams() -> Iterator[None]:
    """Within the block, nothing that is printed ends the work; after it, it is said what was lost.

    Raises:
        SystemExit: the work was done, but standard output could not be written.
    """
    before = sys.stdout, sys.stderr
    out, err = (None if stream is None else Enduring(stream) for stream in before)
    sys.stdout, sys.stderr = out, err
    try:
        try:
            yield
        finally:
            for stream in (out, err):
                if stream is not None:
                    stream.flush()
    except SystemExit as stop:
        if stop.code or out is None or out.failure is None:
            raise
    finally:
        sys.stdout, sys.stderr = before
    if out is not None and out.failure is not None:
        _say_lost(out.failure, err)


def _say_lost(failure: OSError, err: Enduring | None) -> None:
    """End with what other tools end with."""
    if isinstance(failure, BrokenPipeError):
        raise SystemExit(CLOSED_PIPE)  # whoever read has read enough
    if err is not None:
        reason = failure.strerror or failure
        err.write(f"neuroglot: cannot write to standard output: {reason}; all else is done.\n")
        err.flush()
    raise SystemExit(CANNOT_PRINT)
