"""How a condition differs from what it is held against, and what can be said of that.

The values of a condition and of its control are compared cluster by cluster, such as subject by
subject. If the condition does what its control does, it could change places with it in any cluster;
how large a difference such exchanges make by themselves is what a p-value says. Two kinds of
exchange are looked at, and the larger p-value counts:

- with the mean of all draws of the control, which is the same as flipping the signs of whole
  clusters. That is too ready to see a difference where a draw is nearly always right or nearly
  always wrong, as the mean of several draws then varies in smaller steps than the condition;
- with one of the draws. That is too ready where the draws of a control resemble each other, as
  they do when the pool that they are drawn from is small.

Each is right where the other is not. With a single draw, or none, the two are the same. Where the
condition has several draws itself, all draws stand in a ring, the condition's first, and an
exchange turns the ring of a cluster: with one draw of its own, it changes places with one of the
others.

All p-values but those of equivalence are mid-p-values, which count half of the exchanges that make
just the difference that was found (Lancaster 1961); with one answer for each cluster that is the
mid-p McNemar test (Fagerland, Lydersen and Laake 2013). Intervals hold the differences that the
same test does not reject (Tritchler 1984), so that zero is inside an interval if and only if its
p-value is not below .05; where it is just below, an end may be zero itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import types
from scipy import stats

from neuroglot.answering.statistics import (
    LEAST_CLUSTERS,
    ROUNDING,
    Interval,
    holm,
    sums_by_cluster,
)
from neuroglot.errors import NeuroglotError, require_finite
from neuroglot.sharing.compiling import compiled

N_EXCHANGES = 9999
LEAST_MOVED = 5  # clusters that differ; an interval from fewer would be too narrow
DIGITS = 9  # of the ends of intervals
LEVEL = 0.05
POWER = 0.8
MORE = 1.5  # size of each of the two clusters that enter tests of equivalence, over the mean size

DIFFERENT, EQUIVALENT, OPEN = "difference", "equivalent", "too few items to tell"
"""What a comparison can find."""

Values = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Difference:
    """A condition less what it is held against.

    Attributes:
        mean: over all observations.
        low: lower end of its interval at 95 %; NaN where fewer than five clusters differ, or all
            differ by the same.
        high: upper end.
        p: two-sided, of no difference.
        p_equivalent: of a difference beyond the bounds of equivalence: the larger p-value of two
            one-sided tests (Schuirmann 1987). Two clusters more enter these tests, one that wholly
            rises and one that wholly falls (as in Agresti and Min 2005), one and a half times as
            large as the others, so that few clusters in which nothing moved do not show that
            nothing would: with none that moved, some sixty are needed for bounds of .05.
        variance: of the difference of a cluster, over the mean size of clusters.
    """

    mean: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    p_equivalent: float = np.nan
    variance: float = np.nan


def check_bound(equivalent_within: float) -> float:
    """The bounds of equivalence, of accuracies.

    Raises:
        NeuroglotError: no number between 0 and 1.
    """
    require_finite("equivalent_within", equivalent_within)
    if not 0 < equivalent_within < 1:
        raise NeuroglotError(
            f"equivalent_within={equivalent_within!r}: expected a difference of accuracies between "
            "0 and 1, such as 0.05 for five percentage points."
        )
    return float(equivalent_within)


def difference(
    values: Values, clusters: Values, bound: float, seed: int, n_own: int = 1
) -> Difference:
    """Compare a condition with the draws of its control.

    Args:
        values: of the condition, in each of its draws, and of each draw that it is held against
            (arm, observation).
        clusters: which cluster each observation is of (observation,).
        bound: differences of less than this, either way, count as equivalence.
        seed: of the exchanges, where there are too many for all of them.
        n_own: how many arms are the condition's own draws.

    Returns:
        All NaN with fewer than ten clusters.
    """
    sums = np.stack([sums_by_cluster(one, clusters)[0] for one in values])
    sizes = sums_by_cluster(values[0], clusters)[1]
    if len(sizes) < LEAST_CLUSTERS:
        return Difference()
    moved = values[:n_own].mean(axis=0) - values[n_own:].mean(axis=0)
    tests = [_Exchanges.of(arms, sizes, seed, n) for arms, n in _kinds(sums, n_own)]
    careful = [
        _Exchanges.of(*_with_two_more(arms, sizes, n), seed, n) for arms, n in _kinds(sums, n_own)
    ]
    low, high = _interval(tests, moved, clusters)
    return Difference(
        mean=float(moved.mean()),
        low=low,
        high=high,
        p=max(test.p() for test in tests),
        p_equivalent=max(test.p_beyond(bound) for test in careful),
        variance=_variance(moved, clusters),
    )


def difference_interval(values: Values, clusters: Values, seed: int) -> Interval:
    """The interval of a mean change (observation,) alone; see :func:`difference`."""
    sums, sizes = sums_by_cluster(values, clusters)
    if len(sizes) < LEAST_CLUSTERS:
        return (np.nan, np.nan)
    signs = _Exchanges.of(np.stack([sums, np.zeros_like(sums)]), sizes, seed)
    return _interval([signs], values, clusters)


def _interval(tests: Sequence[_Exchanges], moved: Values, clusters: Values) -> Interval:
    sums, _ = sums_by_cluster(moved, clusters)
    if (abs(sums) > ROUNDING).sum() < LEAST_MOVED or np.ptp(moved) < ROUNDING:
        return (np.nan, np.nan)
    lows, highs = zip(*(test.interval() for test in tests), strict=True)
    return min(lows), max(highs)


def _kinds(sums: Values, n_own: int) -> Iterator[tuple[Values, int]]:
    """What can change places, and how many of it are the condition's own: means, and draws."""
    yield np.stack([sums[:n_own].mean(axis=0), sums[n_own:].mean(axis=0)]), 1
    if len(sums) > 2:
        yield sums, n_own


def _with_two_more(sums: Values, sizes: Values, n_own: int) -> tuple[Values, Values]:
    """Two more clusters: one in which the condition alone is right, one in which it is wrong."""
    size = MORE * sizes.mean()
    rises = np.zeros(len(sums))
    rises[:n_own] = size
    return np.column_stack([sums, rises, -rises]), np.append(sizes, [size, size])


@dataclass(frozen=True)
class _Exchanges:
    """What exchanges in some of the clusters make of a difference.

    Attributes:
        observed: sum of the differences of all clusters, without any exchange.
        size: of all clusters together.
        sums: the same under each exchange (exchange,).
        sizes: what a difference of one would add to each (exchange,).
        every: whether these are all the exchanges that there are.
    """

    observed: float
    size: float
    sums: Values
    sizes: Values
    every: bool

    @classmethod
    def of(cls, arms: Values, sizes: Values, seed: int, n_own: int = 1) -> _Exchanges:
        """All exchanges, or as many as are drawn.

        Args:
            arms: sums of the condition and of what it can change places with (arm, cluster).
            sizes: of the clusters (cluster,).
            seed: of the draw.
            n_own: how many arms are the condition's own draws.
        """
        n_arms, n = arms.shape
        beside, more = _turned(arms, n_own)
        places, every = _places(n_arms, n, seed)
        sums, added = np.empty(len(places)), np.empty(len(places))
        _exchange(places, beside, more, sizes.astype(float), sums, added)
        return cls(float(beside[:, 0].sum()), float(sizes.sum()), sums, added, every)

    def p(self) -> float:
        """Two-sided mid-p-value of no difference; 1 where no exchange makes any."""
        left = abs(self.sums) - abs(self.observed)
        if max(abs(self.sums).max(), abs(self.observed)) <= ROUNDING:
            return 1.0
        return self._share((left > ROUNDING) + 0.5 * (abs(left) <= ROUNDING), 0.5)

    def p_beyond(self, bound: float) -> float:
        """The larger p-value of two: of a difference above the bound, and of one below."""
        shares = []
        for sign in (1.0, -1.0):
            moved = sign * (self.sums - self.observed) + bound * (self.sizes - self.size)
            shares.append(self._share(moved >= -ROUNDING, 1.0))
        return max(shares)

    def interval(self) -> Interval:
        """The differences that :meth:`p` would not reject, were they taken from the condition.

        An exchange makes at least the difference that is left between two ends, which are where
        two lines cross: that is how the ends of the interval are quantiles of theirs.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            crossed = np.stack(
                [
                    (self.observed - self.sums) / (self.size - self.sizes),
                    (self.observed + self.sums) / (self.size + self.sizes),
                ]
            )
        same = np.isnan(crossed).any(axis=0) | np.isinf(crossed).any(axis=0)
        lows = np.where(same, -np.inf, crossed.min(axis=0))
        highs = np.where(same, np.inf, crossed.max(axis=0))
        low = np.quantile(lows, LEVEL, method="inverted_cdf")
        high = -np.quantile(-highs, LEVEL, method="inverted_cdf")
        return round(float(low), DIGITS) + 0.0, round(float(high), DIGITS) + 0.0

    def _share(self, counts: Values, own: float) -> float:
        """Mean over the exchanges (exchange,), and over the one that changes nothing."""
        if self.every:
            return float(counts.mean())  # it is one of them
        return float((counts.sum() + own) / (len(counts) + 1))


def _turned(arms: Values, n_own: int) -> tuple[Values, Values]:
    """What the condition differs by under each turn of the ring of all arms.

    Args:
        arms: sums of its own draws, then of the others (arm, cluster).
        n_own: how many are its own.

    Returns:
        The difference (cluster, turn), and what a difference of one would add (turn,).
    """
    n_arms = len(arms)

    def by_turn(values: Values) -> Values:
        turns = (np.roll(values, -turn, axis=0) for turn in range(n_arms))
        return np.stack([x[:n_own].mean(axis=0) - x[n_own:].mean(axis=0) for x in turns], axis=-1)

    # With one draw of its own, each arm from the mean of the others: the same, but for rounding,
    # which decides between exchanges that tie.
    beside = n_arms / (n_arms - 1) * (arms - arms.mean(axis=0)).T if n_own == 1 else by_turn(arms)
    return np.ascontiguousarray(beside), by_turn(np.arange(n_arms) < n_own)


PLACES = types.Array(types.uint16, 2, "C", readonly=True)
BESIDE = types.Array(types.float64, 2, "C", readonly=True)
SIZES, SUMS = types.Array(types.float64, 1, "C", readonly=True), types.Array(types.float64, 1, "C")


@compiled(types.void(PLACES, BESIDE, SIZES, SIZES, SUMS, SUMS), nogil=True)
def _exchange(
    places: Values, beside: Values, more: Values, sizes: Values, sums: Values, added: Values
) -> None:
    """Add up the clusters under each exchange.

    Args:
        places: by how much the ring of a cluster is turned (exchange, cluster).
        beside: what the condition then differs by (cluster, turn).
        more: what a difference of one, of the condition alone, then adds (turn,).
        sizes: of the clusters (cluster,).
        sums: takes the differences (exchange,).
        added: takes what a difference of one, of the condition alone, would add (exchange,).
    """
    for exchange in range(len(places)):
        total = gained = 0.0
        for cluster in range(len(sizes)):
            turn = places[exchange, cluster]
            total += beside[cluster, turn]
            gained += more[turn] * sizes[cluster]
        sums[exchange] = total
        added[exchange] = gained


# Two kinds, each also with two clusters more, of subjects and of relations: one comparison's.
@lru_cache(maxsize=8)
def _places(n_arms: int, n_clusters: int, seed: int) -> tuple[Values, bool]:
    """How far each cluster's ring is turned (exchange, cluster), and whether these are all."""
    n_all = n_arms**n_clusters if n_clusters < 64 else math.inf
    if n_all <= N_EXCHANGES:
        every = np.unravel_index(np.arange(n_all), (n_arms,) * n_clusters)
        return np.stack(every, axis=1).astype(np.uint16), True
    rng = np.random.default_rng([seed, n_arms, n_clusters])
    return rng.integers(0, n_arms, (N_EXCHANGES, n_clusters), dtype=np.uint16), False


def _variance(moved: Values, clusters: Values) -> float:
    """Of the difference of a cluster, over the mean size of clusters."""
    left, sizes = sums_by_cluster(moved - moved.mean(), clusters)
    return float(((left / sizes.mean()) ** 2).mean())


def sufficient_clusters(variance: Values, bound: float, n_tests: int) -> Values:
    """How many clusters would be enough to tell a difference of the bound from none.

    With so many, two conditions that do the same would be found equivalent in at least four of
    five cases after correction for so many tests, if clusters vary as these do; a difference of the
    bound itself would be found as often. By the usual formula for two one-sided tests of a mean
    (Chow, Shao and Wang 2008, chapter 3), with the two clusters more that enter the tests.

    Args:
        variance: see :class:`Difference` (any shape).
        bound: of equivalence.
        n_tests: how many p-values are corrected together.
    """
    level = LEVEL / max(n_tests, 1)
    of_tests = (stats.norm.ppf(1 - level) + stats.norm.ppf((1 + POWER) / 2)) / bound
    known = variance * of_tests**2
    # The two clusters more add twice the square of their size, over n, to the variance.
    found: Values = np.ceil((known + np.sqrt(known**2 + 8 * (MORE * of_tests) ** 2)) / 2)
    return found


def verdict(p: float, p_equivalent: float) -> str:
    """What p-values, corrected where there are several, let one say.

    Returns:
        ``"difference"``; or ``"equivalent"``, if it is within the bounds and none is shown; or
        ``"too few items to tell"``.
    """
    if p < LEVEL:
        return DIFFERENT
    return EQUIVALENT if p_equivalent < LEVEL else OPEN


def verdicts(p: Values, p_equivalent: Values) -> Values:
    """The same for many (any shape)."""
    pairs: Sequence[tuple[float, float]] = list(zip(p.flat, p_equivalent.flat, strict=True))
    return np.array([verdict(*pair) for pair in pairs], dtype=str).reshape(p.shape)


def corrected(p: Values, p_equivalent: Values, variance: Values, bound: float) -> dict[str, Values]:
    """What p-values that are corrected together let one say (all in one shape).

    Args:
        p: see :class:`Difference`; NaN where nothing is known.
        p_equivalent: the same.
        variance: the same.
        bound: of equivalence.

    Returns:
        ``p_holm``, ``p_equivalent_holm``, ``verdict`` and ``sufficient_subjects``.
    """
    p_holm, p_equivalent_holm = holm(p), holm(p_equivalent)
    return {
        "p_holm": p_holm,
        "p_equivalent_holm": p_equivalent_holm,
        "verdict": verdicts(p_holm, p_equivalent_holm),
        "sufficient_subjects": sufficient_clusters(variance, bound, int((~np.isnan(p)).sum())),
    }
