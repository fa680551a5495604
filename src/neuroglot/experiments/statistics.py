"""Intervals and tests over clusters of observations, such as those of one subject.

One rule holds for all of them: what :mod:`neuroglot.experiments.observations` takes for one
observation enters once, clusters are resampled or flipped whole, and with fewer than ten clusters
there is neither an interval nor a p-value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

CONFIDENCE = 0.95
N_RESAMPLES = 2000
N_PERMUTATIONS = 9999
LEAST_CLUSTERS = 10  # fewer say little of how clusters differ
ROUNDING = 1e-9  # of means of shares; what is less is no difference

Interval = tuple[float, float]


def _percentile_interval(
    samples: tuple[np.ndarray[Any, Any], ...], statistic: Callable[..., Any], seed: int
) -> Interval:
    """Percentile bootstrap at 95 %; where there are several samples, an item is one of each."""
    result = stats.bootstrap(
        samples,
        statistic,
        paired=len(samples) > 1,
        vectorized=True,
        n_resamples=N_RESAMPLES,
        batch=200,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return float(low), float(high)


def clustered_interval(
    values: np.ndarray[Any, Any], clusters: np.ndarray[Any, Any], seed: int
) -> Interval:
    """Percentile bootstrap of a mean, whose clusters are resampled whole.

    Args:
        values: to be averaged (observation,).
        clusters: which cluster each is of (observation,), such as the subject of its item.
        seed: of the resampling.

    Returns:
        Lower and upper end at 95 %; NaN with fewer than ten clusters, and where all values are
        equal, so that resampling cannot show how they vary.
    """
    sums, sizes = _by_cluster(values, clusters)
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


def sign_flip_p(
    differences: np.ndarray[Any, Any], clusters: np.ndarray[Any, Any], seed: int
) -> float:
    """Two-sided p-value of paired differences, under random signs of whole clusters.

    If condition and control do the same, either could have been the other in each cluster. That is
    exact for one draw of a control; the mean of several varies less than a single one, so that
    rises and falls may not be equally likely, and a two-sided *p* is only about right.

    Where no cluster differs by another amount than the others that differ, as where each is one
    right or wrong answer, the p-value is exact: that is McNemar's exact test.

    Args:
        differences: condition less control (observation,).
        clusters: which cluster each is of (observation,).
        seed: of the permutations, where there are too many for all of them.

    Returns:
        The p-value; NaN with fewer than ten clusters.
    """
    sums, _ = _by_cluster(differences, clusters)
    if len(sums) < LEAST_CLUSTERS:
        return np.nan
    moved = sums[abs(sums) > ROUNDING]
    if np.allclose(abs(moved), abs(moved[:1])):
        n_risen = int((moved > 0).sum())
        return float(stats.binomtest(n_risen, len(moved)).pvalue) if len(moved) else 1.0

    def size(sums: Any, axis: int = -1) -> Any:
        return abs(sums.sum(axis=axis))

    result = stats.permutation_test(
        (sums,),
        size,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=N_PERMUTATIONS,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def _by_cluster(
    values: np.ndarray[Any, Any], clusters: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Sum of the values of each cluster, and how many there are."""
    _, place = np.unique(clusters, return_inverse=True)
    return np.bincount(place, values), np.bincount(place)


def holm(p_values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """P-values corrected for how many there are (Holm 1979), in their shape; NaN stays NaN."""
    corrected = np.full(p_values.shape, np.nan)
    known = ~np.isnan(p_values)
    if known.any():
        corrected[known] = multipletests(p_values[known], method="holm")[1]
    return corrected
