"""How much sharing there would be without shared content."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from neuroglot.analysis.bits import CATEGORIES, category_counts
from neuroglot.recording import Recording

N_DRAWS = 100
FEWEST_ITEMS = 20  # below this a permutation of the items leaves too many of them in place

Fractions = np.ndarray[Any, np.dtype[np.float64]]


def shuffled_fraction(recording: Recording, threshold: float, seed: int) -> Fractions:
    """Mean fraction (layer, category) when each language's items are permuted, over 100 draws.

    Same languages, same template, other content: what translations share is the difference to it.
    NaN, with a warning, below 20 items.
    """
    n_items, n_neurons = len(recording), recording.n_neurons
    shape = (len(recording.layers), len(CATEGORIES))
    if n_items < FEWEST_ITEMS:
        warnings.warn(
            f"the shuffled-items baseline needs {FEWEST_ITEMS} items, found {n_items}: it is NaN.",
            stacklevel=3,
        )
        return np.full(shape, np.nan)
    bits = recording.bits(threshold)
    rng = np.random.default_rng(seed)
    languages = np.arange(bits.shape[1])
    total = np.zeros(shape)
    for _ in range(N_DRAWS):
        order = np.stack([rng.permutation(n_items) for _ in languages], axis=1)
        # A few items at a time: a shuffled copy of everything would double the memory.
        for rows in np.array_split(order, -(-n_items // FEWEST_ITEMS)):
            total += category_counts(bits[rows, languages], n_neurons).sum(axis=0)
    return total / (N_DRAWS * n_items * n_neurons)


def layer_rate_fraction(active: Fractions) -> Fractions:
    """Expected fraction (layer, category) of independent languages at the layer's rates.

    Args:
        active: share of active neurons (item, layer, language).

    Within an item and layer, every language switches each neuron on by itself with the
    probability at which its neurons are active there; the number of languages that are on is then
    Poisson-binomial. Mean over items.
    """
    off, on = 1 - active, active
    none, every = off.prod(axis=-1), on.prod(axis=-1)
    one = np.zeros_like(none)
    for language in range(active.shape[-1]):
        others = np.delete(off, language, axis=-1).prod(axis=-1)
        one += on[..., language] * others
    partial = np.maximum(0, 1 - none - one - every)  # rounding may leave a little less than 0
    expected: Fractions = np.stack([none, one, partial, every], axis=-1).mean(axis=0)
    return expected
