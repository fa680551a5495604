"""Categories from packed bits: eight neurons to a byte, the first in the highest bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroglot.errors import NeuroglotError
from neuroglot.recording.recording import Bits
from neuroglot.sharing.kernels import Counts, as_words, category_sizes

# The code of a category is its place in this list.
CATEGORIES = ("non_activated", "specific", "partial_shared", "all_shared")


def require_languages(n_languages: int) -> None:
    """Check that there are at least two languages, without which nothing can be shared.

    Raises:
        NeuroglotError: there are fewer; the message says how many.
    """
    if n_languages < 2:
        raise NeuroglotError(f"sharing needs at least two languages, found {n_languages}.")


def count(bits: Bits) -> Counts:
    """The number of set bits along the last axis."""
    counts: Counts = np.bitwise_count(bits).sum(-1, dtype=np.int64)
    return counts


def inverted(bits: Bits, n_neurons: int) -> Bits:
    """The complement (…, byte); bits beyond the last neuron are padding and stay zero."""
    others: Bits = ~bits & np.packbits(np.ones(n_neurons, np.uint8))
    return others


def category_bits(active: Bits) -> dict[str, Bits]:
    """The neurons of each active category, packed.

    Args:
        active: packed activity (…, language, layer, byte).

    Returns:
        Packed masks (…, layer, byte) of ``specific``, ``partial_shared`` and ``all_shared``. All
        other neurons are ``non_activated``.

    Raises:
        NeuroglotError: there are fewer than two languages.
    """
    n_languages = active.shape[-3]
    require_languages(n_languages)
    first = active[..., 0, :, :]
    once, every = first.copy(), first.copy()
    twice = np.zeros_like(first)
    for language in range(1, n_languages):
        bits = active[..., language, :, :]
        twice |= once & bits
        once |= bits
        every &= bits
    return {
        "specific": once & ~twice,
        "partial_shared": twice & ~every,
        "all_shared": every,
    }


def category_counts(active: Bits, n_neurons: int) -> Counts:
    """The number of neurons in each category (item, layer, category).

    Args:
        active: packed activity (item, language, layer, byte).
        n_neurons: the number of neurons in a layer; further bits are padding.

    Raises:
        NeuroglotError: there are fewer than two languages.
    """
    require_languages(active.shape[1])
    sizes = category_sizes(as_words(active))
    return np.concatenate([n_neurons - sizes.sum(axis=-1, keepdims=True), sizes], axis=-1)


def unpack(bits: Bits, n_neurons: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Zeros and ones (…, neuron) of packed bits (…, byte)."""
    return np.unpackbits(bits, axis=-1, count=n_neurons)
