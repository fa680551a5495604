"""Compiled loops over words, against zeros and ones counted by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroglot.sharing import kernels


def random_bits(seed: int, shape: tuple[int, ...], rate: float) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < rate


def words_of(active: np.ndarray) -> np.ndarray:
    return kernels.as_words(np.packbits(active, axis=-1))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_items=st.integers(1, 16),
    n_languages=st.integers(2, 11),
    n_neurons=st.integers(1, 200),
    rate=st.floats(0, 1),
)
def test_all_counts(seed: int, n_items: int, n_languages: int, n_neurons: int, rate: float) -> None:
    active = random_bits(seed, (n_items, n_languages, 2, n_neurons), rate)
    words, k = words_of(active), active.sum(axis=1)
    members = np.stack([k == 1, (k > 1) & (k < n_languages), k == n_languages])
    if n_languages == 2:
        assert not members[1].any()
    np.testing.assert_array_equal(
        kernels.category_sizes(words), np.moveaxis(members.sum(axis=-1), 0, -1)
    )
    both = np.einsum("ialn,ibln->ilab", active.astype(int), active.astype(int))
    np.testing.assert_array_equal(kernels.intersections(words), both)
    padded = words.shape[-1] * 64
    counts = np.zeros((n_languages, 2, padded), np.int64)
    kernels.add_active(words, counts)
    np.testing.assert_array_equal(counts[..., :n_neurons], active.sum(axis=0))
    assert not counts[..., n_neurons:].any()
    counts = np.zeros((3, 2, padded), np.int64)
    kernels.add_members(words, counts)
    np.testing.assert_array_equal(counts[..., :n_neurons], members.sum(axis=1))


@pytest.mark.parametrize("n_items", [125, 126, 127, 260])
def test_counters_never_overflow(n_items: int) -> None:
    """More items than a counter of seven bits holds, and neurons that are always on."""
    words = words_of(np.ones((n_items, 2, 1, 70), bool))
    counts = np.full((2, 1, 128), 5, np.int64)
    kernels.add_active(words, counts)
    assert (counts[..., :70] == n_items + 5).all()
    members = np.zeros((3, 1, 128), np.int64)
    kernels.add_members(words, members)
    assert (members[2, 0, :70] == n_items).all()
    assert not members[:2].any()


def test_words_are_a_view_where_bytes_fill_them() -> None:
    bits = np.zeros((2, 3, 1, 16), np.uint8)
    assert kernels.as_words(bits).base is not None
    assert kernels.as_words(bits[..., :9]).shape == (2, 3, 1, 2)
