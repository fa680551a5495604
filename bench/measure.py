"""Time things beside each other: medians of several runs, taken in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: what is measured.
        seconds: the median of it.
        floor: the median of what it is compared with.
        ratio: the figure.
        must: what it must reach.
        met: whether it does.
        note: what it is compared with, or whatever must be known.
    """

    what: str
    seconds: float
    floor: float
    ratio: float
    must: str
    met: bool | None
    note: str


def medians(tasks: Mapping[str, Callable[[], object]], rounds: int = 3) -> dict[str, float]:
    """Seconds of each task: the median over rounds, in each of which all take their turn.

    One round before these warms caches and compiles what is compiled.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, run in tasks.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def at_least(what: str, seconds: float, floor: float, least: float, note: str) -> Row:
    """A line on throughput: how many times as fast as the floor."""
    ratio = floor / seconds
    return Row(what, seconds, floor, ratio, f"≥ {least:g} ×", ratio >= least, note)


def at_most(what: str, seconds: float, floor: float, most: float, note: str) -> Row:
    """A line on cost: how many times as long as the floor."""
    ratio = seconds / floor
    return Row(what, seconds, floor, ratio, f"≤ {most:g} ×", ratio <= most, note)


def reported(what: str, seconds: float, floor: float, note: str) -> Row:
    """A line on cost without a bound."""
    return Row(what, seconds, floor, seconds / floor, "", None, note)
