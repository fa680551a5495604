"""Intervals over clusters of observations, such as all observations of one subject.

Here and in the tests of :mod:`neuroglot.answering.differences`, each observation counts once (see
:mod:`neuroglot.answering.observations`), clusters are resampled as a whole, and with fewer than ten
clusters there is neither an interval nor a p-value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
N_RESAMPLES = 2000
LEAST_CLUSTERS = 10  # fewer clusters say little about how clusters vary
ROUNDING = 1e-9  # smaller differences of means are rounding

Interval = tuple[float, float]


def _percentile_interval(
    samples: tuple[np.ndarray[Any, Any], ...], statistic: Callable[..., Any], seed: int
) -> Interval:
    """An interval at 95 % by the expanded percentile bootstrap (Hesterberg 2015).

    Plain percentiles give too narrow an interval for fewer than about a hundred clusters. So they
    are taken further out, by Student's distribution and the bias of the variance of few clusters.

    Args:
        samples: values of the clusters (cluster,); several arrays are resampled together.
        statistic: the function of the samples whose interval is wanted.
        seed: the seed of the resampling.
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
    """The interval of a mean by the expanded percentile bootstrap over clusters.

    Args:
        values: the values that are averaged (observation,).
        clusters: the cluster of each (observation,), such as the subject of its item.
        seed: the seed of the resampling.

    Returns:
        The lower and the upper end at 95 %; NaN with fewer than ten clusters, and if all values are
        equal, since resampling then cannot show how they vary.
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
    """The interval of an accuracy over clusters.

    If all answers are right or all are wrong, it is Wilson's interval for as many observations as
    there are clusters; the bootstrap would give none.

    Args:
        correct: zeros and ones, or shares of draws (observation,).
        clusters: the cluster of each (observation,).
        seed: the seed of the resampling.

    Returns:
        The lower and the upper end at 95 %; NaN with fewer than ten clusters.
    """
    n = len(np.unique(clusters))
    if n >= LEAST_CLUSTERS and (correct == correct[0]).all() and correct[0] in {0, 1}:
        test = stats.binomtest(n if correct[0] else 0, n)
        interval = test.proportion_ci(CONFIDENCE, method="wilson")
        return float(interval.low), float(interval.high)
    return clustered_interval(correct, clusters, seed)


def sums_by_cluster(
    values: np.ndarray[Any, Any], clusters: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The sum and the number of the values of each cluster (cluster,)."""
    _, place = np.unique(clusters, return_inverse=True)
    return np.bincount(place, values), np.bincount(place)


def holm(p_values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """P-values corrected for their number (Holm 1979), in the same shape; NaN stays NaN."""
    corrected = np.full(p_values.shape, np.nan)
    is_known = ~np.isnan(p_values)
    ascending = np.sort(p_values[is_known])
    # The function of statsmodels runs the garbage collector each time, which can take a second.
    factors = np.arange(len(ascending), 0, -1)
    at_least = np.maximum.accumulate(np.minimum(factors * ascending, 1))
    corrected[is_known] = at_least[np.searchsorted(ascending, p_values[is_known])]
    return corrected
