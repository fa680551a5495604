"""Which neurons a set has in each prompt: found block by block, never for all prompts at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np

from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.recording.blocks import Prompt
from neuroglot.recording.recording import Bits, Recording, require_recording
from neuroglot.sharing.bits import CATEGORIES, category_bits, unpack

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


@dataclass(frozen=True, eq=False)
class Members:
    """Which neurons are meant.

    Attributes:
        widths: neurons of each layer.
        bits: finds packed neurons (prompt, layer, byte) of some prompts, the first of a byte in its
            highest bit; where they are the same in every prompt, the first size may be 1. Raises a
            ``NeuroglotError`` where they are not known for one of the prompts.
        said: finds what tells these members from others.
        per_prompt: whether the neurons differ from prompt to prompt.
        part_of: the members that these are a part of.
        kept: the members that are left out, where these are all others, and the layers in which
            that is so (``None`` for all).
    """

    widths: tuple[int, ...]
    bits: Callable[[Prompts], Bits]
    said: Callable[[], str]
    per_prompt: bool = True
    part_of: Members | None = None
    kept: tuple[Members, tuple[int, ...] | None] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and neurons of the widest one."""
        return len(self.widths), max(self.widths)

    @property
    def whole(self) -> Members:
        """Of what these are a part, directly or through others."""
        return self if self.part_of is None else self.part_of.whole

    @cached_property
    def checksum(self) -> str:
        """Sixteen hexadecimal digits of what tells these members from others."""
        return hashlib.sha256(self.said().encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def masks(self, prompts: Prompts) -> Mask:
        """Neurons of some prompts (prompt, layer, neuron)."""
        found = unpack(self.bits(prompts), self.shape[1]).astype(np.bool_)
        return np.broadcast_to(found, (len(prompts.keys), *self.shape))


def fixed(mask: Mask, widths: tuple[int, ...]) -> Members:
    """The same neurons in every prompt: those of a mask (layer, neuron)."""
    packed = np.packbits(mask, axis=-1)[None]
    return Members(widths, lambda _: packed, lambda: _digest(packed.tobytes()), per_prompt=False)


def written_down(packed: Bits, keys: Sequence[Any], widths: tuple[int, ...]) -> Members:
    """Neurons (prompt, layer, byte) that were written down for some prompts.

    Raises:
        NeuroglotError: they are not as many as the prompts, or not of these layers.
    """
    shape = (len(keys), len(widths), -(-max(widths) // 8))
    if packed.dtype != np.uint8 or packed.shape != shape:
        raise NeuroglotError(
            f"sets of {len(keys)} prompts need bytes (prompt, layer, byte) for {max(widths)} "
            f"neurons, found {packed.dtype} of shape {packed.shape}."
        )
    row_of = {key: row for row, key in enumerate(keys)}

    def bits(prompts: Prompts) -> Bits:
        unknown = [key for key in prompts.keys if key not in row_of]
        if unknown:
            raise NeuroglotError(f"there is no set for the prompt {shown(unknown[0])}.")
        found: Bits = packed[[row_of[key] for key in prompts.keys]]
        return found

    return Members(widths, bits, lambda: _digest(packed.tobytes() + _encoded(list(keys))))


def active_in(recording: Recording, threshold: float, category: str | None = None) -> Members:
    """The neurons that were active in each prompt of a recording, or those of a category.

    Args:
        recording: of all layers.
        threshold: a neuron is active where its site value was greater.
        category: of which the neurons are for the item of each prompt; by default those that are
            active in the prompt itself.

    Raises:
        NeuroglotError: an unknown category, or a threshold that was not recorded.
    """
    if category is not None and category not in CATEGORIES:
        raise NeuroglotError(f"unknown category {category!r}; there are {listed(CATEGORIES)}.")
    require_recording(recording)
    recording.check_threshold(threshold)
    widths = (recording.n_neurons,) * len(recording.layers)
    of_item = {item: i for i, item in enumerate(recording.items)}
    of_language = {language: i for i, language in enumerate(recording.languages)}

    def bits(prompts: Prompts) -> Bits:
        unknown = [k for k in prompts.keys if k[0] not in of_item or k[1] not in of_language]
        if unknown:
            raise NeuroglotError(f"the recording holds no prompt {shown(unknown[0])}.")
        places = [of_item[item] for item, *_ in prompts.keys]
        items = sorted(set(places))
        neighbours = slice(items[0], items[-1] + 1) if items else slice(0)
        is_range = len(items) == neighbours.stop - (neighbours.start or 0)
        active = recording.bits(threshold, neighbours if is_range else items)
        rows = np.searchsorted(items, places)
        if category is None:
            found: Bits = active[rows, [of_language[key[1]] for key in prompts.keys]]
            return found
        known = category_bits(active)
        if category in known:
            return known[category][rows]
        return all_others(np.bitwise_or.reduce(active, axis=1), widths)[rows]

    @cache
    def said() -> str:
        digest = hashlib.sha256(_encoded((recording.items, recording.languages)))
        for start in range(0, len(recording), ITEMS_AT_ONCE):
            some = slice(start, start + ITEMS_AT_ONCE)
            digest.update(recording.bits(threshold, some).tobytes())
        return f"{category} {digest.hexdigest()}"

    return Members(widths, bits, said)


def joined(sign: Sign, one: Members, other: Members) -> Members:
    """Neurons of two sets: of either, of both, or of the first only."""

    def bits(prompts: Prompts) -> Bits:
        first, second = one.bits(prompts), other.bits(prompts)
        if sign == "|":
            return first | second
        return first & (second if sign == "&" else ~second)

    return Members(
        one.widths,
        bits,
        lambda: f"({one.said()} {sign} {other.said()})",
        one.per_prompt or other.per_prompt,
        part_of=_whole_of(sign, one, other),
    )


def _whole_of(sign: Sign, one: Members, other: Members) -> Members | None:
    """Of what a joined set is a part, if one of the two is a part of something."""
    if sign == "|":
        if one.part_of is None and other.part_of is None:
            return None
        return joined("|", one.whole, other.whole)
    parts = [one] if sign == "-" else [one, other]
    return next((part.whole for part in parts if part.part_of is not None), None)


def others(of: Members) -> Members:
    """All neurons that are not in a set; all others of these are the set again."""
    if of.kept is not None and of.kept[1] is None:
        return of.kept[0]
    return Members(
        of.widths,
        lambda prompts: all_others(of.bits(prompts), of.widths),
        lambda: f"~({of.said()})",
        of.per_prompt,
        kept=(of, None),
    )


def in_layers(of: Members, layers: tuple[int, ...]) -> Members:
    """The neurons of a set that are in some layers."""

    def bits(prompts: Prompts) -> Bits:
        found = of.bits(prompts)
        kept = np.zeros_like(found)
        kept[:, layers] = found[:, layers]
        return kept

    kept = None
    if of.kept is not None:
        there = layers if of.kept[1] is None else tuple(x for x in layers if x in of.kept[1])
        kept = (in_layers(of.kept[0], there), there)
    said = lambda: f"({of.said()}) in {layers}"  # noqa: E731
    return Members(of.widths, bits, said, of.per_prompt, part_of=of, kept=kept)


def strongest(of: Members, share: float, scores: Scores | None = None) -> Members:
    """The share of a set's neurons in each layer that ranks highest, rounded up.

    Args:
        of: the set.
        share: of its neurons.
        scores: the higher, the sooner, of equal ones the first (layer, neuron); by default the
            contribution in each prompt.
    """

    def bits(prompts: Prompts) -> Bits:
        ranking = prompts.contribution if scores is None else scores[None]
        if ranking is None:
            raise NeuroglotError(
                "what is strongest in each prompt is known only within neuroglot.intervene; here, "
                "give strongest() scores to rank by."
            )
        masks = of.masks(prompts)
        wanted = np.ceil(share * masks.sum(axis=-1, keepdims=True) - 1e-9).astype(int)
        order = np.argsort(-np.where(masks, ranking, -np.inf), axis=-1, kind="stable")
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.arange(masks.shape[-1])[None, None], axis=-1)
        return np.packbits(masks & (place < wanted), axis=-1)

    def said() -> str:
        return (
            f"{share!r} of ({of.said()}) by {_digest(b'' if scores is None else scores.tobytes())}"
        )

    return Members(of.widths, bits, said, of.per_prompt or scores is None, part_of=of)


def all_others(bits: Bits, widths: Sequence[int]) -> Bits:
    """All neurons that are not in packed sets (…, layer, byte) of layers of these widths."""
    there = np.arange(bits.shape[-1] * 8) < np.array(widths)[:, None]
    found: Bits = ~bits & np.packbits(there, axis=-1)
    return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _encoded(keys: Any) -> bytes:
    return repr(keys).encode("utf-8", "surrogatepass")
