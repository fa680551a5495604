"""Intervals for what is measured over items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
N_RESAMPLES = 2000

Interval = tuple[float, float]


def bootstrap_interval(
    correct: np.ndarray[Any, Any], counted: np.ndarray[Any, Any], seed: int
) -> Interval:
    """Percentile bootstrap of the share of correct answers, over items.

    Where all answers that count agree, every resample does too and the bootstrap's interval would
    be a point. The interval is then Wilson's, for as many draws as there are items.

    Args:
        correct: zeros and ones (item, prompt).
        counted: which of them count (item, prompt); an item is resampled whole.
        seed: of the resampling.

    Returns:
        Lower and upper end at 95 %; NaN with fewer than two items that count.
    """
    rights = (correct * counted).sum(axis=1)
    totals = counted.sum(axis=1)
    kept = totals > 0
    n_items = int(kept.sum())
    if n_items < 2:
        return (np.nan, np.nan)
    if rights.sum() in {0, totals.sum()}:
        all_or_none = n_items if rights.sum() else 0
        wilson = stats.binomtest(all_or_none, n_items).proportion_ci(CONFIDENCE, method="wilson")
        return float(wilson.low), float(wilson.high)

    def share(rights: Any, totals: Any, axis: int = -1) -> Any:
        return rights.sum(axis=axis) / totals.sum(axis=axis)

    return _percentile_interval((rights[kept], totals[kept]), share, seed)


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


def bootstrap_mean(values: np.ndarray[Any, Any], seed: int) -> Interval:
    """Percentile bootstrap of a mean over items.

    Args:
        values: one of each item (item,); NaN is left out.
        seed: of the resampling.

    Returns:
        Lower and upper end at 95 %; NaN with fewer than two items.
    """
    kept = values[~np.isnan(values)]
    if len(kept) < 2:
        return (np.nan, np.nan)
    return _percentile_interval((kept,), np.mean, seed)
