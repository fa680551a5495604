"""Baselines: how much sharing there would be without shared content."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from neuroglot.sharing.bits import CATEGORIES
from neuroglot.sharing.kernels import Counts

FEWEST_ITEMS = 20  # a permutation of fewer items leaves too many of them in place
Fractions = np.ndarray[Any, np.dtype[np.float64]]


def independent_languages(rates: Fractions) -> Fractions:
    """The probability of each category (…, category) if a neuron's languages are independent.

    The number of languages in which the neuron is active then has a Poisson-binomial distribution.

    Args:
        rates: the probability that a neuron is active in each language (…, language).
    """
    none = np.ones(rates.shape[:-1])
    one, more, every = np.zeros_like(none), np.zeros_like(none), none
    for rate in np.moveaxis(rates, -1, 0):
        more = more + one * rate
        one = one * (1 - rate) + none * rate
        none = none * (1 - rate)
        every = every * rate
    # By rounding, a difference that should be zero can be slightly negative.
    return np.stack([none, one, np.maximum(more - every, 0), every], axis=-1)


def shuffled_fraction(active: Counts, n_items: int) -> Fractions:
    """The mean fraction (layer, category) after permuting each language's items.

    Languages and template stay the same, but the content differs between languages, so that the
    difference to this baseline is due to translations. It is the exact expectation over
    independent uniform permutations: the languages of a neuron are then independent, and each is
    active at the neuron's rate in it. With fewer than 20 items it is NaN, with a warning.

    Args:
        active: the number of items for which each neuron is active (language, layer, neuron).
        n_items: the number of items.
    """
    if n_items < FEWEST_ITEMS:
        warnings.warn(
            f"the shuffled-items baseline needs {FEWEST_ITEMS} items, found {n_items}: it is NaN.",
            stacklevel=3,
        )
        return np.full((active.shape[1], len(CATEGORIES)), np.nan)
    # One layer at a time, so that the factors stay in the cache.
    layers = np.moveaxis(active, 1, 0)
    return np.stack([independent_languages(layer.T / n_items).mean(axis=0) for layer in layers])


def layer_rate_fraction(active: Fractions) -> Fractions:
    """The fraction (layer, category) expected of independent languages at the layer's rates.

    For each item and layer, each language is assumed to switch on every neuron independently, with
    the same probability: the share of neurons that are active there. The result is the mean over
    items.

    Args:
        active: the share of active neurons (item, layer, language).
    """
    expected: Fractions = independent_languages(active).mean(axis=0)
    return expected
