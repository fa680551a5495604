"""Errors that a user can correct, and how their messages quote data."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable
from numbers import Integral, Real

LONGEST_NAME = 200  # characters of a name in a message
LONGEST_BEGINNING, LONGEST_END = 1400, 500  # characters of a message; its end says what to do
# Characters that break a line, move the cursor, change the direction of the text, or cannot be
# encoded. Marks that some scripts need (joiners, right-to-left marks) are not among them.
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class NeuroglotError(ValueError):
    """An error in the input: the message says what was found, what was expected and how to fix it.

    Messages have one line and a limited length, whatever data they quote. The command line prints
    the message and exits with code 2.

    Examples:
        >>> import neuroglot as ng
        >>> try:
        ...     ng.load_task("facts", languages=["en", "xx"])
        ... except ng.NeuroglotError as error:
        ...     print(error)
        task 'facts' has no language xx; there are en, de, es, fr, ru, th, tr, vi, zh, pt.
    """

    def __init__(self, message: str) -> None:
        text = plain(message)
        left_out = len(text) - LONGEST_BEGINNING - LONGEST_END
        if left_out > 0:
            beginning, end = text[:LONGEST_BEGINNING], text[-LONGEST_END:]
            text = f"{beginning} … ({left_out:,} characters left out) … {end}"
        super().__init__(text)


class UnsupportedError(NeuroglotError):
    """The model cannot do what is asked for with any settings, although other models can."""


def plain(text: str) -> str:
    """The text with :data:`UNSEEN` characters as escapes, such as ``x1b`` after a backslash."""
    return UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def shown(value: object) -> str:
    """The ``repr`` of an unexpected value, with limits on its length and depth."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = LONGEST_NAME
    return short.repr(value)


def in_one_line(error: Exception) -> str:
    """The type and text of an exception from another library, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def listed(names: Iterable[object], limit: int = 12) -> str:
    """``a, b, c`` for a message; long lists are cut with a count, and long names are cut."""
    texts = [str(name) for name in names]
    cut = [t if len(t) <= LONGEST_NAME else f"{t[:LONGEST_NAME]}…" for t in texts[:limit]]
    more = len(texts) - limit
    return f"{', '.join(cut)} and {more} more" if more > 0 else ", ".join(cut)


def require_finite(what: str, number: object) -> None:
    """Check that an option is a finite number.

    Args:
        what: the name of the option.
        number: its value.

    Raises:
        NeuroglotError: it is not; the message shows the value.
    """
    if isinstance(number, bool) or not isinstance(number, Real) or not math.isfinite(number):
        raise NeuroglotError(f"{what}={number!r}: expected a finite number.")


def is_whole_number(value: object, least: int, most: float = float("inf")) -> bool:
    """Whether a value is an integer (also one of NumPy) from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        return False
    return least <= int(value) <= most
