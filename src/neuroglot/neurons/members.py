"""Which neurons a set has in each prompt: found block by block, never for all prompts at once."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from neuroglot.analysis.bits import CATEGORIES, category_bits, unpack
from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.recording import Recording
from neuroglot.recording.blocks import Prompt
from neuroglot.recording.recording import Bits

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Scores = np.ndarray[Any, Any]
Sign = Literal["|", "&", "-"]
ITEMS_AT_ONCE = 64  # of a recording, read together


@dataclass(frozen=True)
class Prompts:
    """Some prompts, and what sets may ask about them.

    Attributes:
        keys: item and language of each.
        contribution: ``|m|·‖v‖`` (prompt, layer, neuron) in each, where it is known.
    """

    keys: Sequence[Prompt]
    contribution: Scores | None = None


class Members(ABC):
    """Which neurons are meant.

    Attributes:
        widths: neurons of each layer.
    """

    widths: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and neurons of the widest one."""
        return len(self.widths), max(self.widths)

    @property
    def n_bytes(self) -> int:
        """Bytes of a layer's packed neurons."""
        return -(-self.shape[1] // 8)

    @property
    def per_prompt(self) -> bool:
        """Whether the neurons differ from prompt to prompt."""
        return True

    @property
    def whole(self) -> Members:
        """Of what these are a part."""
        return self

    @property
    @abstractmethod
    def said(self) -> str:
        """What tells these members from others."""

    @cached_property
    def checksum(self) -> str:
        """Sixteen hexadecimal digits of what tells these members from others."""
        return hashlib.sha256(self.said.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @abstractmethod
    def bits(self, prompts: Prompts) -> Bits:
        """Packed neurons (prompt, layer, byte), the first of a byte in its highest bit.

        Where they are the same in every prompt, the first size may be 1.

        Raises:
            NeuroglotError: it is not known for one of the prompts.
        """

    def masks(self, prompts: Prompts) -> Mask:
        """The same unpacked (prompt, layer, neuron)."""
        found = unpack(self.bits(prompts), self.shape[1]).astype(np.bool_)
        return np.broadcast_to(found, (len(prompts.keys), *self.shape))


@dataclass(frozen=True, eq=False)
class Fixed(Members):
    """The same neurons in every prompt: a mask (layer, neuron)."""

    mask: Mask
    widths: tuple[int, ...]

    @property
    def per_prompt(self) -> bool:
        """Never."""
        return False

    @property
    def said(self) -> str:
        """A checksum of the mask."""
        return hashlib.sha256(np.packbits(self.mask).tobytes()).hexdigest()

    @cached_property
    def checksum(self) -> str:
        """That of the mask itself."""
        return self.said[:16]

    def bits(self, _prompts: Prompts) -> Bits:
        """Those of the mask (1, layer, byte)."""
        return np.packbits(self.mask, axis=-1)[None]


@dataclass(frozen=True, eq=False)
class Listed(Members):
    """Neurons that were written down for some prompts.

    Attributes:
        packed: neurons (prompt, layer, byte).
        keys: what tells the prompts apart.
        widths: neurons of each layer.
    """

    packed: Bits
    keys: Sequence[Any]
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        shape = (len(self.keys), len(self.widths), self.n_bytes)
        if self.packed.dtype != np.uint8 or self.packed.shape != shape:
            raise NeuroglotError(
                f"sets of {len(self.keys)} prompts need bytes (prompt, layer, byte) for "
                f"{self.shape[1]} neurons, found {self.packed.dtype} of shape {self.packed.shape}."
            )

    @cached_property
    def row_of(self) -> dict[Any, int]:
        """Place of each prompt."""
        return {key: row for row, key in enumerate(self.keys)}

    @property
    def said(self) -> str:
        """A checksum of all of them."""
        whose = repr(list(self.keys)).encode("utf-8", "surrogatepass")
        return hashlib.sha256(self.packed.tobytes() + whose).hexdigest()

    def bits(self, prompts: Prompts) -> Bits:
        """Those that were written down."""
        unknown = [key for key in prompts.keys if key not in self.row_of]
        if unknown:
            raise NeuroglotError(f"there is no set for the prompt {shown(unknown[0])}.")
        found: Bits = self.packed[[self.row_of[key] for key in prompts.keys]]
        return found


@dataclass(frozen=True, eq=False)
class Active(Members):
    """The neurons that were active in each prompt of a recording, or those of a category.

    Attributes:
        recording: of all layers.
        threshold: a neuron is active where its site value was greater.
        category: of which the neurons are for the item of each prompt; ``None`` for the neurons
            that are active in the prompt itself.
    """

    recording: Recording
    threshold: float
    category: str | None = None

    def __post_init__(self) -> None:
        if self.category is not None and self.category not in CATEGORIES:
            raise NeuroglotError(
                f"unknown category {self.category!r}; there are {listed(CATEGORIES)}."
            )
        self.recording.check_threshold(self.threshold)

    @cached_property
    def widths(self) -> tuple[int, ...]:  # type: ignore[override]
        """Those of the recorded layers."""
        return (self.recording.n_neurons,) * len(self.recording.layers)

    @cached_property
    def said(self) -> str:
        """What is looked at, and a checksum of the recorded activity."""
        digest = hashlib.sha256(repr((self.recording.items, self.recording.languages)).encode())
        for start in range(0, len(self.recording), ITEMS_AT_ONCE):
            some = slice(start, start + ITEMS_AT_ONCE)
            digest.update(self.recording.bits(self.threshold, some).tobytes())
        return f"{self.category} {digest.hexdigest()}"

    @cached_property
    def _place_of(self) -> tuple[dict[str, int], dict[str, int]]:
        """Places of items and of languages."""
        recording = self.recording
        items, languages = (
            {name: i for i, name in enumerate(names)}
            for names in (recording.items, recording.languages)
        )
        return items, languages

    def bits(self, prompts: Prompts) -> Bits:
        """Those of the items, or of the prompts, that were recorded."""
        of_item, of_language = self._place_of
        unknown = [k for k in prompts.keys if k[0] not in of_item or k[1] not in of_language]
        if unknown:
            raise NeuroglotError(f"the recording holds no prompt {shown(unknown[0])}.")
        places = [of_item[item] for item, _ in prompts.keys]
        items = sorted(set(places))
        some = slice(items[0], items[-1] + 1) if items else slice(0)
        chosen = some if len(items) == some.stop - (some.start or 0) else items
        active = self.recording.bits(self.threshold, chosen)
        rows = np.searchsorted(items, places)
        if self.category is None:
            found: Bits = active[rows, [of_language[language] for _, language in prompts.keys]]
            return found
        of_categories = category_bits(active)
        if self.category in of_categories:
            by_item = of_categories[self.category]
        else:
            by_item = all_others(np.bitwise_or.reduce(active, axis=1), self.widths)
        return by_item[rows]


class Derived(Members):
    """Neurons that follow from those of other sets, by default of the first of them.

    Attributes:
        parents: the other sets.
    """

    @property
    @abstractmethod
    def parents(self) -> tuple[Members, ...]:
        """The other sets."""

    @property
    def widths(self) -> tuple[int, ...]:  # type: ignore[override]
        """Those of the others."""
        return self.parents[0].widths

    @property
    def per_prompt(self) -> bool:
        """Whether one of the others is."""
        return any(one.per_prompt for one in self.parents)


@dataclass(frozen=True, eq=False)
class Joined(Derived):
    """Neurons of two sets: of either, of both, or of the first only."""

    sign: Sign
    one: Members
    other: Members

    @property
    def parents(self) -> tuple[Members, ...]:
        """Both."""
        return self.one, self.other

    @property
    def said(self) -> str:
        """What is said of both."""
        return f"({self.one.said} {self.sign} {self.other.said})"

    def bits(self, prompts: Prompts) -> Bits:
        """Union, intersection or difference."""
        one, other = self.one.bits(prompts), self.other.bits(prompts)
        if self.sign == "|":
            return one | other
        return one & (other if self.sign == "&" else ~other)


@dataclass(frozen=True, eq=False)
class _OfOne(Derived):
    """Neurons that follow from those of one set."""

    of: Members

    @property
    def parents(self) -> tuple[Members, ...]:
        """The one."""
        return (self.of,)


@dataclass(frozen=True, eq=False)
class Others(_OfOne):
    """All neurons that are not in a set."""

    @property
    def said(self) -> str:
        """What is said of the set."""
        return f"~{self.of.said}"

    def bits(self, prompts: Prompts) -> Bits:
        """All others; the bits beyond the last neuron of a layer are padding and stay zero."""
        return all_others(self.of.bits(prompts), self.widths)


@dataclass(frozen=True, eq=False)
class _Part(_OfOne):
    """Some of the neurons of a set."""

    @property
    def whole(self) -> Members:
        """What the set is a part of."""
        return self.of.whole


@dataclass(frozen=True, eq=False)
class InLayers(_Part):
    """The neurons of a set that are in some layers."""

    layers: tuple[int, ...]

    @property
    def said(self) -> str:
        """What is said of the set, and which layers."""
        return f"{self.of.said} in {self.layers}"

    def bits(self, prompts: Prompts) -> Bits:
        """Those of the set, none in other layers."""
        found = self.of.bits(prompts)
        kept = np.zeros_like(found)
        kept[:, self.layers] = found[:, self.layers]
        return kept


@dataclass(frozen=True, eq=False)
class Strongest(_Part):
    """The share of a set's neurons in each layer that ranks highest, rounded up.

    Attributes:
        of: the set.
        share: of its neurons.
        scores: the higher, the sooner (layer, neuron); by default the contribution in each prompt.
    """

    share: float
    scores: Scores | None = None

    @property
    def per_prompt(self) -> bool:
        """Whether the set is, or the ranking."""
        return self.scores is None or self.of.per_prompt

    @property
    def said(self) -> str:
        """What is said of the set, the share and the scores."""
        scores = b"" if self.scores is None else self.scores.tobytes()
        return f"{self.share!r} of {self.of.said} by {hashlib.sha256(scores).hexdigest()}"

    def bits(self, prompts: Prompts) -> Bits:
        """Those that rank highest; of equal ones the first."""
        ranking = prompts.contribution if self.scores is None else self.scores[None]
        if ranking is None:
            raise NeuroglotError(
                "what is strongest in each prompt is known only within neuroglot.intervene; here, "
                "give strongest() scores to rank by."
            )
        masks = self.of.masks(prompts)
        wanted = np.ceil(self.share * masks.sum(axis=-1, keepdims=True) - 1e-9).astype(int)
        order = np.argsort(-np.where(masks, ranking, -np.inf), axis=-1, kind="stable")
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.arange(masks.shape[-1])[None, None], axis=-1)
        return np.packbits(masks & (place < wanted), axis=-1)


def all_others(bits: Bits, widths: Sequence[int]) -> Bits:
    """All neurons that are not in packed sets (…, layer, byte) of layers of these widths."""
    there = np.arange(bits.shape[-1] * 8) < np.array(widths)[:, None]
    found: Bits = ~bits & np.packbits(there, axis=-1)
    return found
