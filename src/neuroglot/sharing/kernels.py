"""Loops over packed bits, 64 neurons to a word, compiled by Numba.

Arrays are (item, language, layer, word). The innermost loop runs along words, which are contiguous
in memory, so that it becomes vector instructions and its data stay in the cache. The arguments
``first`` and ``last`` of each loop bound its outermost range, so that threads can divide it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from neuroglot.recording.recording import Bits
from neuroglot.sharing.compiling import Compiled, compiled, in_threads

Words = np.ndarray[Any, np.dtype[np.uint64]]
Counts = np.ndarray[Any, np.dtype[Any]]  # whole numbers

N_MASKS = 3  # specific, partial-shared, all-shared
N_PLANES = 8
MOST_ITEMS = 252  # the largest multiple of seven that vertical counters of eight bits hold
AT_ONCE = 7
PIECES = 4  # parts of a language's layers, so that the work divides evenly among threads
# For each byte, a word whose eight bytes are its bits, the highest bit first. As vertical counters
# hold at most 255, eight of them can be added up in one word.
LANES = np.array(
    [sum((byte >> (7 - lane) & 1) << (8 * lane) for lane in range(8)) for byte in range(256)],
    dtype=np.uint64,
)
BYTES_OF_A_THREAD = 1 << 20  # for fewer bytes it is not worth starting a thread

WORDS = types.Array(types.uint64, 4, "C", readonly=True)
SIZES = types.Array(types.int64, 3, "C")
PAIRS = types.Array(types.int64, 4, "C")
COUNTS = types.Array(types.int32, 3, "C")


def as_words(bits: Bits) -> Words:
    """Eight bytes of the last axis as one word, without a copy if the layout allows it."""
    rest = -bits.shape[-1] % 8
    if rest:
        bits = np.pad(bits, [(0, 0)] * (bits.ndim - 1) + [(0, rest)])
    return np.ascontiguousarray(bits).view(np.uint64)


@njit(inline="always")
def _popcount(word: np.uint64) -> np.uint64:
    """The number of set bits; LLVM recognises this idiom and replaces it by one instruction."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + (
        (word >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit(inline="always")
def _meet(words: Words, item: int, layer: int, once: Words, twice: Words, every: Words) -> None:
    """Set the words of neurons that are active in at least one, at least two, and all languages."""
    for w in range(words.shape[3]):
        once[w] = every[w] = words[item, 0, layer, w]
        twice[w] = 0
    for language in range(1, words.shape[1]):
        for w in range(words.shape[3]):
            word = words[item, language, layer, w]
            twice[w] |= once[w] & word
            once[w] |= word
            every[w] &= word


@compiled(types.void(WORDS, SIZES, types.int64, types.int64), nogil=True)
def _category_sizes(words: Words, sizes: Counts, first: int, last: int) -> None:
    n_words = words.shape[3]
    for item in range(first, last):
        once = np.empty(n_words, np.uint64)
        twice = np.empty(n_words, np.uint64)
        every = np.empty(n_words, np.uint64)
        for layer in range(words.shape[2]):
            _meet(words, item, layer, once, twice, every)
            n_once = n_twice = n_every = np.uint64(0)
            for w in range(n_words):
                n_once += _popcount(once[w])
                n_twice += _popcount(twice[w])
                n_every += _popcount(every[w])
            sizes[item, layer, 0] = n_once - n_twice
            sizes[item, layer, 1] = n_twice - n_every
            sizes[item, layer, 2] = n_every


def category_sizes(words: Words) -> Counts:
    """How many neurons are specific, partial-shared and all-shared (item, layer, category)."""
    sizes = np.empty((words.shape[0], words.shape[2], N_MASKS), np.int64)
    _count(_category_sizes, len(words), words, sizes)
    return sizes


@compiled(types.void(WORDS, PAIRS, types.int64, types.int64), nogil=True)
def _intersections(words: Words, sizes: Counts, first: int, last: int) -> None:
    for item in range(first, last):
        for layer in range(words.shape[2]):
            for one in range(words.shape[1]):
                for other in range(one, words.shape[1]):
                    n = np.uint64(0)
                    for w in range(words.shape[3]):
                        n += _popcount(words[item, one, layer, w] & words[item, other, layer, w])
                    sizes[item, layer, one, other] = sizes[item, layer, other, one] = n


def intersections(words: Words) -> Counts:
    """How many neurons are active in both of two languages (item, layer, language, language).

    The diagonal holds the numbers of neurons active in one language.
    """
    n_items, n_languages, n_layers, _ = words.shape
    sizes = np.empty((n_items, n_layers, n_languages, n_languages), np.int64)
    _count(_intersections, n_items, words, sizes)
    return sizes


@njit(inline="always")
def _carry_save(a: np.uint64, b: np.uint64, c: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Full adder of bits: their sum, and what is carried to the next weight."""
    either = a ^ b
    return either ^ c, (a & b) | (either & c)


@njit(inline="always")
def _count_up(planes: Words, rows: Words) -> None:
    """Add the bits of seven rows (row, word) to vertical counters; plane *k* has the weight 2ᵏ.

    The sum of seven bits is the largest that fits into three bits.
    """
    for w in range(rows.shape[1]):
        ones, carry0 = _carry_save(rows[0, w], rows[1, w], rows[2, w])
        ones, carry1 = _carry_save(ones, rows[3, w], rows[4, w])
        ones, carry2 = _carry_save(ones, rows[5, w], rows[6, w])
        twos, fours = _carry_save(carry0, carry1, carry2)
        carry = planes[0, w] & ones
        planes[0, w] ^= ones
        planes[1, w], carry = _carry_save(planes[1, w], twos, carry)
        planes[2, w], carry = _carry_save(planes[2, w], fours, carry)
        for k in range(3, N_PLANES):
            overflow = planes[k, w] & carry
            planes[k, w] ^= carry
            carry = overflow


@njit(inline="always")
def _read_out(planes: Words, counts: Counts) -> None:
    """Add vertical counters to ``counts`` (neuron,); a byte's first neuron is its highest bit."""
    for w in range(planes.shape[1]):
        for byte in range(8):
            lanes = np.uint64(0)
            for k in range(N_PLANES):
                bits = (planes[k, w] >> np.uint64(8 * byte)) & np.uint64(255)
                lanes += LANES[bits] << np.uint64(k)
            for lane in range(8):
                n = (lanes >> np.uint64(8 * lane)) & np.uint64(255)
                counts[64 * w + 8 * byte + lane] += n


@compiled(types.void(WORDS, COUNTS, types.int64, types.int64), nogil=True)
def _add_active(words: Words, counts: Counts, first: int, last: int) -> None:
    n_items, _, n_layers, n_words = words.shape
    for piece in range(first, last):
        language, part = piece // PIECES, piece % PIECES
        from_layer, to_layer = part * n_layers // PIECES, (part + 1) * n_layers // PIECES
        planes = np.zeros((to_layer - from_layer, N_PLANES, n_words), np.uint64)
        rows = np.empty((AT_ONCE, n_words), np.uint64)
        for start in range(0, n_items, AT_ONCE):
            n = min(AT_ONCE, n_items - start)
            # Layers are contiguous in memory, items are not.
            for layer in range(from_layer, to_layer):
                for i in range(n):
                    for w in range(n_words):
                        rows[i, w] = words[start + i, language, layer, w]
                rows[n:] = 0
                _count_up(planes[layer - from_layer], rows)
        for layer in range(from_layer, to_layer):
            _read_out(planes[layer - from_layer], counts[language, layer])


@compiled(types.void(WORDS, COUNTS, SIZES, types.int64, types.int64), nogil=True)
def _add_members(words: Words, counts: Counts, sizes: Counts, first: int, last: int) -> None:
    n_words = words.shape[3]
    for layer in range(first, last):
        once = np.empty(n_words, np.uint64)
        twice = np.empty(n_words, np.uint64)
        every = np.empty(n_words, np.uint64)
        planes = np.zeros((N_MASKS, N_PLANES, n_words), np.uint64)
        rows = np.empty((N_MASKS, AT_ONCE, n_words), np.uint64)
        for start in range(0, words.shape[0], AT_ONCE):
            n = min(AT_ONCE, words.shape[0] - start)
            for i in range(n):
                _meet(words, start + i, layer, once, twice, every)
                for w in range(n_words):
                    rows[0, i, w] = once[w] & ~twice[w]
                    rows[1, i, w] = twice[w] & ~every[w]
                    rows[2, i, w] = every[w]
                for mask in range(N_MASKS):
                    n_set = np.uint64(0)
                    for w in range(n_words):
                        n_set += _popcount(rows[mask, i, w])
                    sizes[start + i, layer, mask] = n_set
            rows[:, n:] = 0
            for mask in range(N_MASKS):
                _count_up(planes[mask], rows[mask])
        for mask in range(N_MASKS):
            _read_out(planes[mask], counts[mask, layer])


def _count(kernel: Compiled, size: int, words: Words, *results: Counts) -> None:
    """Run a kernel over ``range(size)``, in as many threads as are worth it."""
    in_order: Words = np.require(words, requirements=["C", "A"])
    in_threads(kernel, size, words.nbytes // BYTES_OF_A_THREAD, in_order, *results)


def _taking(counts: Counts) -> Counts:
    """An array to which kernels can add: the counts, or zeros that are added to them later."""
    fits = counts.dtype == np.int32 and counts.flags.carray
    return counts if fits else np.zeros(counts.shape, np.int32)


def add_active(words: Words, counts: Counts) -> None:
    """Add the number of items for which each neuron is active to ``counts``.

    ``counts`` is (language, layer, neuron), and has neurons up to the end of the last word.
    """
    added = _taking(counts)
    for start in range(0, len(words), MOST_ITEMS):
        block = words[start : start + MOST_ITEMS]
        _count(_add_active, words.shape[1] * PIECES, block, added)
    if added is not counts:
        counts += added


def add_members(words: Words, counts: Counts) -> Counts:
    """Add the number of items for which each neuron is in each category to ``counts``.

    ``counts`` is (category, layer, neuron); the categories are specific, partial-shared and
    all-shared, and the neurons as in :func:`add_active`. Returns the same as
    :func:`category_sizes`, which costs little here.
    """
    sizes = np.empty((words.shape[0], words.shape[2], N_MASKS), np.int64)
    added = _taking(counts)
    for start in range(0, len(words), MOST_ITEMS):
        block = slice(start, start + MOST_ITEMS)
        _count(_add_members, words.shape[2], words[block], added, sizes[block])
    if added is not counts:
        counts += added
    return sizes
