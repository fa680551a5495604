"""How much sharing there would be without shared content."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from neuroglot.sharing.bits import CATEGORIES
from neuroglot.sharing.kernels import Counts

FEWEST_ITEMS = 20  # below this a permutation of the items leaves too many of them in place
Fractions = np.ndarray[Any, np.dtype[np.float64]]


def independent_languages(rates: Fractions) -> Fractions:
    """Probability of each category (…, category) if languages are active independently.

    Args:
        rates: probability that a neuron is active in each language (…, language).

    The number of active languages is then Poisson-binomial.
    """
    none = np.ones(rates.shape[:-1])
    one, more, every = np.zeros_like(none), np.zeros_like(none), none
    for rate in np.moveaxis(rates, -1, 0):
        more = more + one * rate
        one = one * (1 - rate) + none * rate
        none = none * (1 - rate)
        every = every * rate
    # Rounding can leave a difference of nothing slightly below it.
    return np.stack([none, one, np.maximum(more - every, 0), every], axis=-1)


def shuffled_fraction(active: Counts, n_items: int) -> Fractions:
    """Mean fraction (layer, category) when each language's items are permuted.

    Args:
        active: for how many items each neuron is active (language, layer, neuron).
        n_items: number of items.

    Same languages, same template, other content: what translations share is the difference to it.
    It is the exact expectation over independent uniform permutations: each language then draws
    one of its items, any with equal chance, so that languages are independent, each at the
    neuron's rate.
    NaN, with a warning, below 20 items.
    """
    if n_items < FEWEST_ITEMS:
        warnings.warn(
            f"the shuffled-items baseline needs {FEWEST_ITEMS} items, found {n_items}: it is NaN.",
            stacklevel=3,
        )
        return np.full((active.shape[1], len(CATEGORIES)), np.nan)
    # A layer at a time, so that what is multiplied stays in the cache.
    layers = np.moveaxis(active, 1, 0)
    return np.stack([independent_languages(layer.T / n_items).mean(axis=0) for layer in layers])


def layer_rate_fraction(active: Fractions) -> Fractions:
    """Expected fraction (layer, category) of independent languages at the layer's rates.

    Args:
        active: share of active neurons (item, layer, language).

    Within an item and layer, every language switches each neuron on by itself with the
    probability at which its neurons are active there. Mean over items.
    """
    expected: Fractions = independent_languages(active).mean(axis=0)
    return expected
