"""Time things beside each other: medians over several rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: what is measured.
        seconds: the median of it.
        floor: the median of what it is compared with.
        ratio: the figure, the median of the ratios of each round.
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


def in_turns(tasks: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, list[float]]:
    """Seconds of each task by round, in each of which all take their turn.

    One round before these warms caches and compiles what is compiled.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, run in tasks.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _ratio(these: Sequence[float], of: Sequence[float]) -> float:
    """The median over rounds of their ratios, which a machine that slows down does not change."""
    return median(one / other for one, other in zip(these, of, strict=True))


def at_least(
    what: str, seconds: Sequence[float], floor: Sequence[float], least: float, note: str
) -> Row:
    """A line on throughput: how many times as fast as the floor."""
    ratio = _ratio(floor, seconds)
    return Row(what, median(seconds), median(floor), ratio, f"≥ {least:g} ×", ratio >= least, note)


def at_most(
    what: str, seconds: Sequence[float], floor: Sequence[float], most: float, note: str
) -> Row:
    """A line on cost: how many times as long as the floor."""
    ratio = _ratio(seconds, floor)
    return Row(what, median(seconds), median(floor), ratio, f"≤ {most:g} ×", ratio <= most, note)


def reported(what: str, seconds: Sequence[float], floor: Sequence[float], note: str) -> Row:
    """A line on cost without a bound."""
    return Row(what, median(seconds), median(floor), _ratio(seconds, floor), "", None, note)
