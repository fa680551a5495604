"""Differences between a condition and its control: tests, intervals and verdicts.

The values of a condition and of its control are compared in clusters, such as subjects. If the
condition has the same effect as its control, the two could be exchanged in any cluster. A p-value
says how often exchanges in random clusters give a difference at least as large as the observed one.
There are two kinds of exchanges, and the larger p-value counts:

- with the mean of all draws of the control, which is the same as flipping the signs of whole
  clusters. This finds differences too often if draws are nearly always right or nearly always
  wrong, since the mean of several draws then varies in smaller steps than the condition;
- with one of the draws. This finds differences too often if the draws of a control resemble each
  other, as they do if they come from a small pool.

Each is correct where the other is not. With a single draw, or without a control, both are the same.
If the condition has several draws of its own, all draws form a ring, those of the condition first,
and an exchange rotates the ring of a cluster. With one draw of its own, this exchanges the
condition with one of the other draws.

All p-values except those of equivalence are mid-p-values, which count half of the exchanges that
give exactly the observed difference (Lancaster 1961). With one answer for each cluster this is the
mid-p McNemar test (Fagerland, Lydersen and Laake 2013). An interval holds the differences that the
same test does not reject (Tritchler 1984), so zero is inside an interval if and only if the p-value
is not below .05; if it is just below, an end of the interval may be zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
LEAST_MOVED = 5  # clusters that have to differ, since an interval from fewer would be too narrow
DIGITS = 9  # to which the ends of intervals are rounded
LEVEL = 0.05
POWER = 0.8
MORE = 1.5  # size of the two clusters added in tests of equivalence, relative to the mean size

DIFFERENT, EQUIVALENT, OPEN = "difference", "equivalent", "too few items to tell"
"""The verdicts of a comparison."""

Values = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Difference:
    """The difference between a condition and its control.

    Attributes:
        mean: the mean difference over all observations.
        low: the lower end of its interval at 95 %; NaN if fewer than five clusters differ, or all
            differ by the same.
        high: the upper end.
        p: the two-sided p-value of no difference.
        p_equivalent: the p-value of a difference beyond the bounds of equivalence: the larger one
            of two one-sided tests (Schuirmann 1987). In these tests two clusters are added, one
            that only rises and one that only falls (as in Agresti and Min 2005), one and a half
            times as large as the others. So a few clusters without a change do not prove that there
            is none: about sixty such clusters are needed for bounds of .05.
        variance: the variance of the difference of a cluster, relative to the mean cluster size.
    """

    mean: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    p_equivalent: float = np.nan
    variance: float = np.nan


def check_bound(equivalent_within: float) -> float:
    """The bounds of equivalence of accuracies, as a number.

    Raises:
        NeuroglotError: it is not a number between 0 and 1.
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
        values: the values in each draw of the condition, then in each draw of the control (arm,
            observation).
        clusters: the cluster of each observation (observation,).
        bound: the bounds of equivalence: smaller differences, in either direction, count as none.
        seed: the seed of the exchanges, which are drawn if there are too many to use all.
        n_own: the number of arms that are draws of the condition itself.

    Returns:
        The difference; all its numbers are NaN with fewer than ten clusters.
    """
    sums = np.stack([sums_by_cluster(arm, clusters)[0] for arm in values])
    sizes = sums_by_cluster(values[0], clusters)[1]
    if len(sizes) < LEAST_CLUSTERS:
        return Difference()
    moved = values[:n_own].mean(axis=0) - values[n_own:].mean(axis=0)
    kinds = [(np.stack([sums[:n_own].mean(axis=0), sums[n_own:].mean(axis=0)]), 1)]
    if len(sums) > 2:
        kinds.append((sums, n_own))
    tests = [_Exchanges.of(arms, sizes, seed, n) for arms, n in kinds]
    careful = [_Exchanges.of(*_with_two_more(arms, sizes, n), seed, n) for arms, n in kinds]
    low, high = _interval(tests, moved, clusters)
    left, _ = sums_by_cluster(moved - moved.mean(), clusters)
    return Difference(
        mean=float(moved.mean()),
        low=low,
        high=high,
        p=max(test.p() for test in tests),
        p_equivalent=max(test.p_beyond(bound) for test in careful),
        variance=float(((left / sizes.mean()) ** 2).mean()),
    )


def difference_interval(values: Values, clusters: Values, seed: int) -> Interval:
    """The interval of a mean change.

    Args:
        values: the changes (observation,).
        clusters: the cluster of each observation (observation,).
        seed: the seed of the exchanges, see :func:`difference`.

    Returns:
        The lower and the upper end at 95 %; NaN with fewer than ten clusters.
    """
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


def _with_two_more(sums: Values, sizes: Values, n_own: int) -> tuple[Values, Values]:
    """The sums and sizes with two more clusters: one that only rises and one that only falls."""
    size = MORE * sizes.mean()
    rises = np.zeros(len(sums))
    rises[:n_own] = size
    return np.column_stack([sums, rises, -rises]), np.append(sizes, [size, size])


@dataclass(frozen=True)
class _Exchanges:
    """The difference between arms under exchanges in some of the clusters.

    Attributes:
        observed: the sum of the differences of all clusters, without any exchange.
        size: the size of all clusters together.
        sums: the sum of the differences under each exchange (exchange,).
        sizes: how much each sum would grow if the condition's mean were larger by one (exchange,).
        every: whether these are all possible exchanges.
    """

    observed: float
    size: float
    sums: Values
    sizes: Values
    every: bool

    @classmethod
    def of(cls, arms: Values, sizes: Values, seed: int, n_own: int = 1) -> _Exchanges:
        """All possible exchanges, or random ones if there are too many.

        Args:
            arms: the sums of the condition and of the arms with which it is exchanged (arm,
                cluster).
            sizes: the sizes of the clusters (cluster,).
            seed: the seed of random exchanges.
            n_own: the number of arms that are draws of the condition itself.
        """
        n_arms, n = arms.shape
        beside, more = _turned(arms, n_own)
        places, every = _places(n_arms, n, seed)
        sums, added = np.empty(len(places)), np.empty(len(places))
        _exchange(places, beside, more, sizes.astype(float), sums, added)
        return cls(float(beside[:, 0].sum()), float(sizes.sum()), sums, added, every)

    def p(self) -> float:
        """The two-sided mid-p-value of no difference; 1 if no exchange makes a difference."""
        left = abs(self.sums) - abs(self.observed)
        if max(abs(self.sums).max(), abs(self.observed)) <= ROUNDING:
            return 1.0
        return self._share((left > ROUNDING) + 0.5 * (abs(left) <= ROUNDING), 0.5)

    def p_beyond(self, bound: float) -> float:
        """The larger p-value of two: of a difference above the bound, and of one below it."""
        return max(
            self._share(
                sign * (self.sums - self.observed) + bound * (self.sizes - self.size) >= -ROUNDING,
                1.0,
            )
            for sign in (1.0, -1.0)
        )

    def interval(self) -> Interval:
        """The differences that :meth:`p` would not reject if they were subtracted first.

        For each exchange, the differences that leave no more than the exchange makes lie between
        two points, at which two lines cross. The ends of the interval are quantiles of these.
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
        """The mean of counts (exchange,) over the exchanges and the one that changes nothing."""
        if self.every:
            return float(counts.mean())  # it includes the one that changes nothing
        return float((counts.sum() + own) / (len(counts) + 1))


def _turned(arms: Values, n_own: int) -> tuple[Values, Values]:
    """The difference of the condition for each rotation of the ring of all arms.

    Args:
        arms: the sums of the condition's own draws, then of the others (arm, cluster).
        n_own: the number of its own draws.

    Returns:
        The difference (cluster, turn), and how much it would grow if the condition's mean were
        larger by one (turn,).
    """
    n_arms = len(arms)

    def by_turn(values: Values) -> Values:
        turns = (np.roll(values, -turn, axis=0) for turn in range(n_arms))
        return np.stack([x[:n_own].mean(axis=0) - x[n_own:].mean(axis=0) for x in turns], axis=-1)

    # With one draw of its own, this is each arm less the mean of the others. The result differs
    # from by_turn only in rounding, which decides between exchanges that tie.
    beside = n_arms / (n_arms - 1) * (arms - arms.mean(axis=0)).T if n_own == 1 else by_turn(arms)
    return np.ascontiguousarray(beside), by_turn(np.arange(n_arms) < n_own)


PLACES = types.Array(types.uint16, 2, "C", readonly=True)
BESIDE = types.Array(types.float64, 2, "C", readonly=True)
SIZES, SUMS = types.Array(types.float64, 1, "C", readonly=True), types.Array(types.float64, 1, "C")


@compiled(types.void(PLACES, BESIDE, SIZES, SIZES, SUMS, SUMS), nogil=True)
def _exchange(
    places: Values, beside: Values, more: Values, sizes: Values, sums: Values, added: Values
) -> None:
    """Add up the differences of the clusters under each exchange.

    Args:
        places: the rotation of the ring of each cluster (exchange, cluster).
        beside: the difference of the condition for each rotation (cluster, turn).
        more: how much it grows if the condition's mean is larger by one (turn,).
        sizes: the sizes of the clusters (cluster,).
        sums: receives the sums of the differences (exchange,).
        added: receives how much they grow if the condition's mean is larger by one (exchange,).
    """
    for exchange in range(len(places)):
        total = gained = 0.0
        for cluster in range(len(sizes)):
            turn = places[exchange, cluster]
            total += beside[cluster, turn]
            gained += more[turn] * sizes[cluster]
        sums[exchange] = total
        added[exchange] = gained


# One comparison needs eight: two kinds, without and with two added clusters, for subjects and for
# relations.
@lru_cache(maxsize=8)
def _places(n_arms: int, n_clusters: int, seed: int) -> tuple[Values, bool]:
    """The rotation of each cluster's ring (exchange, cluster), and whether these are all."""
    n_all = n_arms**n_clusters if n_clusters < 64 else math.inf
    if n_all <= N_EXCHANGES:
        every = np.unravel_index(np.arange(n_all), (n_arms,) * n_clusters)
        return np.stack(every, axis=1).astype(np.uint16), True
    rng = np.random.default_rng([seed, n_arms, n_clusters])
    return rng.integers(0, n_arms, (N_EXCHANGES, n_clusters), dtype=np.uint16), False


def sufficient_clusters(variance: Values, bound: float, n_tests: int) -> Values:
    """The number of clusters that would be needed to tell a difference of the bound from none.

    With this number, two conditions of equal effect would be found equivalent in at least four of
    five cases, after correction for the number of tests, if clusters vary as these do; a difference
    as large as the bound would be found as often. The formula is the usual one for two one-sided
    tests of a mean (Chow, Shao and Wang 2008, chapter 3), with the two added clusters.

    Args:
        variance: see :class:`Difference` (any shape).
        bound: the bounds of equivalence.
        n_tests: the number of p-values that are corrected together.

    Returns:
        The numbers of clusters, in the shape of ``variance``.
    """
    level = LEVEL / max(n_tests, 1)
    of_tests = (stats.norm.ppf(1 - level) + stats.norm.ppf((1 + POWER) / 2)) / bound
    plain = variance * of_tests**2
    # The two added clusters add twice the square of their size, over n, to the variance.
    return np.asarray(np.ceil((plain + np.sqrt(plain**2 + 8 * (MORE * of_tests) ** 2)) / 2))


def verdict(p: float, p_equivalent: float) -> str:
    """The verdict that follows from p-values, corrected if there are several.

    Returns:
        ``"difference"`` if there is one; else ``"equivalent"`` if it is within the bounds; else
        ``"too few items to tell"``.
    """
    if p < LEVEL:
        return DIFFERENT
    return EQUIVALENT if p_equivalent < LEVEL else OPEN


def verdicts(p: Values, p_equivalent: Values) -> Values:
    """The verdicts that follow from p-values (any shape)."""
    pairs: Sequence[tuple[float, float]] = list(zip(p.flat, p_equivalent.flat, strict=True))
    return np.array([verdict(*pair) for pair in pairs], dtype=str).reshape(p.shape)


def corrected(p: Values, p_equivalent: Values, variance: Values, bound: float) -> dict[str, Values]:
    """P-values that are corrected together, and the verdicts that follow (all in one shape).

    Args:
        p: see :class:`Difference`; NaN where it is not known.
        p_equivalent: see :class:`Difference`.
        variance: see :class:`Difference`.
        bound: the bounds of equivalence.

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
