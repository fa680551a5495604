"""Count active neurons and categories of a recording, some items at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroglot.recording.recording import Recording
from neuroglot.sharing.bits import CATEGORIES, require_languages
from neuroglot.sharing.kernels import (
    Counts,
    add_active,
    add_members,
    as_words,
    intersections,
)

ITEMS_AT_ONCE = 128  # limits the use of memory


@dataclass(frozen=True)
class Tally:
    """Counts of active neurons and of categories.

    Attributes:
        sizes: how many neurons are in each active category (item, layer, category).
        pairs: how many neurons are active in both of two languages (item, layer, language,
            language).
        active: for how many items each neuron is active (language, layer, neuron).
        members: for how many items each neuron is in each active category (category, layer,
            neuron).
    """

    sizes: Counts
    pairs: Counts
    active: Counts
    members: Counts

    @property
    def membership(self) -> Counts:
        """The fraction of items for which a neuron is in a category (layer, neuron, category)."""
        n_items = len(self.sizes)
        return with_the_rest(np.moveaxis(self.members, 0, -1), n_items) / n_items


def tally_of(recording: Recording, threshold: float) -> Tally:
    """Count active neurons and categories at a threshold.

    Raises:
        NeuroglotError: the threshold was not recorded, or there are fewer than two languages.
    """
    require_languages(len(recording.languages))
    n_languages, n_layers = len(recording.languages), len(recording.layers)
    neurons = -(-recording.n_neurons // 64) * 64  # up to the end of a word
    # 32 bits, since these are the largest arrays here.
    active = np.zeros((n_languages, n_layers, neurons), np.int32)
    members = np.zeros((len(CATEGORIES) - 1, n_layers, neurons), np.int32)
    sizes, pairs = [], []
    for start in range(0, len(recording), ITEMS_AT_ONCE):
        words = as_words(recording.bits(threshold, slice(start, start + ITEMS_AT_ONCE)))
        pairs.append(intersections(words))
        add_active(words, active)
        sizes.append(add_members(words, members))
    kept = slice(recording.n_neurons)
    return Tally(
        np.concatenate(sizes), np.concatenate(pairs), active[..., kept], members[..., kept]
    )


def with_the_rest(counts: Counts, total: int) -> Counts:
    """The counts of all categories (…, category), from those of the active ones."""
    rest = total - counts.sum(axis=-1, keepdims=True, dtype=counts.dtype)
    return np.concatenate([rest, counts], axis=-1)
