"""Errors that a user can mend, and how messages show what others wrote."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable
from numbers import Integral, Real

LONGEST_NAME = 200  # of what a message names
LONGEST_BEGINNING, LONGEST_END = 1400, 500  # of a message; how to mend it stands at the end
# Characters that break a line, move the cursor, turn the order of what follows, or cannot be
# encoded. Marks that letters need (joiners, right-to-left marks) are none of them.
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class NeuroglotError(ValueError):
    """Bad input: the message says what was found, what was expected and how to mend it.

    The command line prints it as one line and exits with code 2. A message is of one line and of
    bounded length, whatever the data that it quotes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_bounded(plain(message)))


class UnsupportedError(NeuroglotError):
    """The model does not have what is asked for, whatever the settings; others do."""


def _bounded(message: str) -> str:
    left_out = len(message) - LONGEST_BEGINNING - LONGEST_END
    if left_out <= 0:
        return message
    beginning, end = message[:LONGEST_BEGINNING], message[-LONGEST_END:]
    return f"{beginning} … ({left_out:,} characters left out) … {end}"


def plain(text: str) -> str:
    """The text, with characters that disturb a line written as escapes (``x1b`` after a slash)."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def shown(value: object) -> str:
    """``repr`` of what stands where something else was expected: cut, and at no great depth."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = LONGEST_NAME
    return short.repr(value)


def in_one_line(error: Exception) -> str:
    """Kind and text of an exception of somebody else, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def listed(names: Iterable[object], limit: int = 12) -> str:
    """``a, b, c`` for a message; long lists are cut with a count, and long names."""
    all_names = [str(name) for name in names]
    cut = [x if len(x) <= LONGEST_NAME else f"{x[:LONGEST_NAME]}…" for x in all_names[:limit]]
    more = len(all_names) - limit
    return f"{', '.join(cut)} and {more} more" if more > 0 else ", ".join(cut)


def require_finite(what: str, number: object) -> None:
    """Refuse what is no finite number.

    Raises:
        NeuroglotError: it says what was found.
    """
    if isinstance(number, bool) or not isinstance(number, Real) or not math.isfinite(number):
        raise NeuroglotError(f"{what}={number!r}: expected a finite number.")


def is_whole_number(value: object, least: int, most: float = float("inf")) -> bool:
    """Whether a value is a whole number, NumPy's included, between two ends that count."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        return False
    return least <= int(value) <= most
