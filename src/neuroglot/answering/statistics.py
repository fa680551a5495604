"""Intervals over clusters of observations, such as those of one subject.

One rule holds for all of them, and for the tests of :mod:`neuroglot.answering.differences`: what
:mod:`neuroglot.answering.observations` takes for one observation enters once, clusters are
resampled whole, and with fewer than ten clusters there is neither an interval nor a p-value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
N_RESAMPLES = 2000
LEAST_CLUSTERS = 10  # fewer say little of how clusters differ
ROUNDING = 1e-9  # of means of shares; what is less is no difference

Interval = tuple[float, float]


def _percentile_interval(
    samples: tuple[np.ndarray[Any, Any], ...], statistic: Callable[..., Any], seed: int
) -> Interval:
    """Expanded percentile bootstrap at 95 % (Hesterberg 2015).

    Percentiles are taken further out, as far as Student's distribution and the bias of the variance
    of few clusters would have them: plain ones are too narrow for fewer than some hundred.

    Args:
        samples: paired where there are several (cluster,).
        statistic: of them.
        seed: of the resampling.
    """
    n = len(samples[0])
    reach = np.sqrt(n / (n - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    result = stats.bootstrap(
        samples,
        statistic,
        paired=len(samples) > 1,
        vectorized=True,
        n_resamples=N_RESAMPLES,
        batch=200,
        confidence_level=1 - 2 * stats.norm.sf(reach),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return float(low), float(high)


def clustered_interval(
    values: np.ndarray[Any, Any], clusters: np.ndarray[Any, Any], seed: int
) -> Interval:
    """Expanded percentile bootstrap of a mean, whose clusters are resampled whole.

    Args:
        values: to be averaged (observation,).
        clusters: which cluster each is of (observation,), such as the subject of its item.
        seed: of the resampling.

    Returns:
        Lower and upper end at 95 %; NaN with fewer than ten clusters, and where all values are
        equal, so that resampling cannot show how they vary.
    """
    sums, sizes = sums_by_cluster(values, clusters)
    if len(sums) < LEAST_CLUSTERS or np.ptp(values) < ROUNDING:
        return (np.nan, np.nan)

    def mean(sums: Any, sizes: Any, axis: int = -1) -> Any:
        return sums.sum(axis=axis) / sizes.sum(axis=axis)

    return _percentile_interval((sums, sizes), mean, seed)


def accuracy_interval(
    correct: np.ndarray[Any, Any], clusters: np.ndarray[Any, Any], seed: int
) -> Interval:
    """Interval of an accuracy over clusters; Wilson's for as many draws where all are alike.

    Args:
        correct: zeros and ones, or shares of draws (observation,).
        clusters: which cluster each is of (observation,).
        seed: of the resampling.

    Returns:
        Lower and upper end at 95 %; NaN with fewer than ten clusters.
    """
    n_clusters = len(np.unique(clusters))
    if n_clusters >= LEAST_CLUSTERS and (correct == correct[0]).all() and correct[0] in {0, 1}:
        return _wilson(n_clusters if correct[0] else 0, n_clusters)
    return clustered_interval(correct, clusters, seed)


def _wilson(n_right: int, n: int) -> Interval:
    interval = stats.binomtest(n_right, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def sums_by_cluster(
    values: np.ndarray[Any, Any], clusters: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Sum of the values of each cluster, and how many there are."""
    _, place = np.unique(clusters, return_inverse=True)
    return np.bincount(place, values), np.bincount(place)


def holm(p_values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """P-values corrected for how many there are (Holm 1979), in their shape; NaN stays NaN."""
    corrected = np.full(p_values.shape, np.nan)
    known = ~np.isnan(p_values)
    ascending = np.sort(p_values[known])
    # That of statsmodels collects all garbage of the process each time, which can take a second.
    factors = np.arange(len(ascending), 0, -1)
    at_least = np.maximum.accumulate(np.minimum(factors * ascending, 1))
    corrected[known] = at_least[np.searchsorted(ascending, p_values[known])]
    return corrected
