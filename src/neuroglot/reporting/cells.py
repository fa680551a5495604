"""Write numbers as texts for cells and sentences; a dash stands for NaN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

UNKNOWN = "–"
INTERVALS = ("", "over relations ")
"""The texts before the intervals of a number: over subjects, and over relations."""


def percent(share: float, digits: int = 1) -> str:
    """``12.3%``, and never ``-0.0%``."""
    if np.isnan(share):
        return UNKNOWN
    return f"{round(100 * share, digits) + 0.0:.{digits}f}%"  # adding 0.0 takes the sign off -0.0


def small_percent(share: float) -> str:
    """A percentage like that of :func:`percent`, with more digits for very small shares."""
    return percent(share, 3 if 0 < share < 0.001 else 1)


def percent_with(share: float, *ends: float) -> str:
    """``12.3% (10.1–14.2)``: a share and those of its intervals that are not NaN."""
    return percent(share) + _intervals(ends, _per_hundred, "–")


def percent_range(low: float, high: float) -> str:
    """``10.1–14.2``: the ends of an interval in per cent."""
    return UNKNOWN if np.isnan(low) else f"{_per_hundred(low)}–{_per_hundred(high)}"


def points(share: float, digits: int = 1) -> str:
    """A difference in percentage points, with its sign."""
    return UNKNOWN if np.isnan(share) else f"{100 * share + 0.0:+.{digits}f}".replace("-", "−")


def points_with(difference: float, *ends: float, digits: int = 1) -> str:
    """``−1.0 (−3.0 to +1.0)``: a difference in points and its intervals that are not NaN."""
    return points(difference, digits) + _intervals(ends, partial(points, digits=digits), " to ")


def points_range(low: float, high: float) -> str:
    """``−3.0 to +1.0``: the ends of an interval in percentage points."""
    return UNKNOWN if np.isnan(low) else f"{points(low)} to {points(high)}"


def number_with(value: float, *ends: float, form: str = ".2f", sign: str = "") -> str:
    """``0.51 (0.12 to 0.80)``: a number with its interval, after a sign such as ``×``."""
    if np.isnan(value):
        return UNKNOWN
    return f"{sign}{value:{form}}" + _intervals(ends, lambda end: f"{end:{form}}", " to ")


def nats(margin: float) -> str:
    """``+1.23``, and never ``-0.00``."""
    return UNKNOWN if np.isnan(margin) else f"{round(margin, 2) + 0.0:+.2f}"


def p_text(p: float) -> str:
    """``0.012``, or ``< 0.001``."""
    if np.isnan(p):
        return UNKNOWN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _per_hundred(share: float) -> str:
    return f"{100 * share:.1f}"


def _intervals(ends: Sequence[float], write: Callable[[float], str], join: str) -> str:
    pairs = zip(INTERVALS, ends[::2], ends[1::2], strict=False)
    texts = [f"{name}{write(a)}{join}{write(b)}" for name, a, b in pairs if not np.isnan(a)]
    return f" ({', '.join(texts)})" if texts else ""
