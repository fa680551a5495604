"""What is counted of a recording, some items at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroglot.recording.recording import Recording
from neuroglot.sharing.bits import CATEGORIES
from neuroglot.sharing.kernels import (
    Counts,
    add_active,
    add_members,
    as_words,
    intersections,
)

ITEMS_AT_ONCE = 128  # bounds what is in memory at one time


@dataclass(frozen=True)
class Tally:
    """What is counted of a recording, some items at a time.

    Attributes:
        sizes: neurons of each active category (item, layer, category), by block.
        pairs: neurons active in both of two languages (item, layer, language, language), by block.
        active: for how many items each neuron is active (language, layer, neuron).
        members: the same of the active categories (category, layer, neuron).
    """

    sizes: list[Counts]
    pairs: list[Counts]
    active: Counts
    members: Counts

    @property
    def membership(self) -> Counts:
        """For which fraction of the items each neuron is in each category (layer, neuron, …)."""
        n_items = sum(map(len, self.sizes))
        return with_the_rest(np.moveaxis(self.members, 0, -1), n_items) / n_items


def tally_of(recording: Recording, threshold: float) -> Tally:
    """Count a recording at a threshold."""
    n_languages, n_layers = len(recording.languages), len(recording.layers)
    neurons = -(-recording.n_neurons // 64) * 64  # up to the end of a word
    # Small numbers, since these are the largest arrays here.
    active = np.zeros((n_languages, n_layers, neurons), np.int32)
    members = np.zeros((len(CATEGORIES) - 1, n_layers, neurons), np.int32)
    sizes, pairs = [], []
    for start in range(0, len(recording), ITEMS_AT_ONCE):
        words = as_words(recording.bits(threshold, slice(start, start + ITEMS_AT_ONCE)))
        pairs.append(intersections(words))
        add_active(words, active)
        sizes.append(add_members(words, members))
    kept = slice(recording.n_neurons)
    return Tally(sizes, pairs, active[..., kept], members[..., kept])


def with_the_rest(counts: Counts, total: int) -> Counts:
    """Counts (…, category) of all categories, from those of the active ones."""
    rest = total - counts.sum(axis=-1, keepdims=True, dtype=counts.dtype)
    return np.concatenate([rest, counts], axis=-1)
