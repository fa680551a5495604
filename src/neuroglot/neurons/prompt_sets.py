"""A set of neurons for every prompt, since categories are those of an item."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from neuroglot.analysis.bits import CATEGORIES, category_bits, inverted
from neuroglot.analysis.kernels import Counts
from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.models import Model
from neuroglot.recording import Recording
from neuroglot.recording.recording import Bits


@dataclass(frozen=True, eq=False)
class PromptSets:
    """One set of neurons for each of some prompts.

    Attributes:
        bits: packed masks (prompt, layer, byte), eight neurons to a byte, the first in the highest
            bit.
        prompts: what tells the prompts apart: item and language.
        n_neurons: neurons of one layer.
        name: what results call the sets.
    """

    bits: Bits
    prompts: Sequence[Hashable]
    n_neurons: int
    name: str = "neurons"

    def __post_init__(self) -> None:
        shape = (len(self.prompts), self.bits.shape[1], -(-self.n_neurons // 8))
        if self.bits.ndim != 3 or self.bits.dtype != np.uint8 or self.bits.shape != shape:
            raise NeuroglotError(
                f"sets of {len(self.prompts)} prompts need bytes (prompt, layer, byte) for "
                f"{self.n_neurons} neurons, found {self.bits.dtype} of shape {self.bits.shape}."
            )

    @classmethod
    def from_category(
        cls, recording: Recording, category: str, *, threshold: float = 0.0
    ) -> PromptSets:
        """The neurons that are in a category for the item of each prompt.

        Args:
            recording: from :func:`neuroglot.record`, of all layers.
            category: such as ``"all_shared"``.
            threshold: a neuron is active where its site value was greater.

        Raises:
            NeuroglotError: an unknown category, or a threshold that was not recorded.
        """
        if category not in CATEGORIES:
            raise NeuroglotError(f"unknown category {category!r}; there are {listed(CATEGORIES)}.")
        by_item = bits_of_category(recording.bits(threshold), category, recording.n_neurons)
        keys = [(item, lang) for item in recording.items for lang in recording.languages]
        bits = by_item.repeat(len(recording.languages), axis=0)
        return cls(bits, keys, recording.n_neurons, category)

    @cached_property
    def row_of(self) -> dict[Hashable, int]:
        """Place of each prompt."""
        return {prompt: row for row, prompt in enumerate(self.prompts)}

    @property
    def sizes(self) -> Counts:
        """Neurons of each set in each layer (prompt, layer)."""
        found: Counts = np.bitwise_count(self.bits).sum(axis=-1, dtype=np.int64)
        return found

    @cached_property
    def checksum(self) -> str:
        """Tells these sets from others."""
        whose = repr(list(self.prompts)).encode("utf-8", "surrogatepass")
        return hashlib.sha256(self.bits.tobytes() + whose).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        mean = self.sizes.sum(axis=1).mean()
        return f"PromptSets({self.name!r}, {len(self)} prompts, {mean:,.1f} neurons a prompt)"

    def masks(self, layer: int, prompts: Sequence[Hashable] | None) -> Tensor:
        """Which neurons of a layer are meant (row, neuron), for the prompt of each row.

        Raises:
            NeuroglotError: it is not known whose prompts run, or one has no set.
        """
        if prompts is None:
            raise NeuroglotError(
                f"{self.name!r} has a set for each prompt, but what runs are no prompts of a task; "
                "use neuroglot.evaluate or neuroglot.record."
            )
        unknown = [prompt for prompt in prompts if prompt not in self.row_of]
        if unknown:
            raise NeuroglotError(f"{self.name!r} has no set for the prompt {shown(unknown[0])}.")
        rows = [self.row_of[prompt] for prompt in prompts]
        found = np.unpackbits(self.bits[rows, layer], axis=-1, count=self.n_neurons)
        return torch.from_numpy(found).bool()

    def check_fits(self, model: Model) -> None:
        """Refuse a model of another shape.

        Raises:
            NeuroglotError: it gives both shapes.
        """
        found, shape = (self.bits.shape[1], self.n_neurons), (model.n_layers, model.n_neurons)
        if found != shape:
            raise NeuroglotError(
                f"the sets {self.name!r} are for {found[0]} layers of {found[1]} neurons, but "
                f"{model.name!r} has {shape[0]} of {shape[1]}."
            )


def bits_of_category(active: Bits, category: str, n_neurons: int) -> Bits:
    """Packed neurons (item, layer, byte) of one category.

    Args:
        active: packed activity (item, language, layer, byte).
        category: its name.
        n_neurons: neurons of one layer; the bits beyond are padding and stay zero.
    """
    found = category_bits(active)
    if category in found:
        return found[category]
    return inverted(np.bitwise_or.reduce(active, axis=1), n_neurons)
