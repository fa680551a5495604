"""Standard streams that print any text, and that let the work go on if they fail."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

CANNOT_PRINT = 1
CLOSED_PIPE = 128 + 13  # the exit code of a program that SIGPIPE has ended
# The replacements of characters that an encoding lacks; other characters become escapes.
PLAIN_SIGNS = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "×": "x", "·": ".", "’": "'"}
)
ESCAPED = "neuroglot-escaped"  # the name of the error handler that makes these replacements


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN_SIGNS)
    return text.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error(ESCAPED, _escaped)


class Enduring(io.TextIOBase):
    """A text stream that accepts every character, and drops all text after a failure.

    It has no ``buffer``, so that nothing can be written past it.

    Attributes:
        stream: the stream that is written to.
        failure: the error with which writing failed, if it did.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.failure: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return self.stream.encoding or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """The error handler for characters that the encoding lacks."""
        return ESCAPED

    def write(self, text: str) -> int:
        """Write a text, unless writing has failed."""
        if not isinstance(text, str):
            raise TypeError(f"expected a text, found {type(text).__name__}")
        encodable = text.encode(self.encoding, ESCAPED).decode(self.encoding)
        self._attempt(lambda: self.stream.write(encodable))
        return len(text)

    def flush(self) -> None:
        """Write the buffered text, unless writing has failed."""
        self._attempt(self.stream.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        """Do something with the stream, unless that has failed before.

        After a failure, the buffered text goes nowhere. Otherwise Python would write it again when
        the process ends, and fail again.
        """
        if self.failure is not None:
            return
        try:
            action()
        except OSError as error:
            self.failure = error
            with suppress(OSError, ValueError):  # the stream may have no file descriptor
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)

    def writable(self) -> bool:
        """Whether the stream can be written to: always."""
        return True

    def isatty(self) -> bool:
        """Whether the stream is a terminal; a closed one is not."""
        return not self.stream.closed and self.stream.isatty()

    def fileno(self) -> int:
        """The file descriptor of the stream."""
        return self.stream.fileno()


@contextmanager
def enduring_streams() -> Iterator[None]:
    """Keep failures to print from ending the work in the block, and report them after it.

    Raises:
        SystemExit: the work was done, but standard output could not be written to.
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
    """Report that standard output could not be written to, and exit."""
    if isinstance(failure, BrokenPipeError):
        raise SystemExit(CLOSED_PIPE)  # the reader has stopped reading, and needs no message
    if err is not None:
        reason = failure.strerror or failure
        err.write(f"neuroglot: cannot write to standard output: {reason}; all else is done.\n")
        err.flush()
    raise SystemExit(CANNOT_PRINT)
