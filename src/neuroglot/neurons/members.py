"""Which neurons a set has in each prompt, computed for the prompts that are asked about."""

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
ITEMS_AT_ONCE = 64  # items of a recording that are read together


@dataclass(frozen=True)
class Prompts:
    """Prompts, and what a set needs to know about them to say which neurons it has in each.

    Attributes:
        keys: the item and the language of each prompt.
        contribution: ``|m|·‖v‖`` of each neuron (prompt, layer, neuron); ``None`` where it was not
            computed.
    """

    keys: Sequence[Prompt]
    contribution: Scores | None = None


@dataclass(frozen=True, eq=False)
class Members:
    """The neurons of a set.

    Attributes:
        widths: the number of neurons in each layer of the model.
        bits: computes the packed neurons (prompt, layer, byte) of prompts; the first neuron of a
            byte is its highest bit. The first size may be 1 where all prompts have the same
            neurons. Raises a ``NeuroglotError`` for a prompt about which nothing is known.
        said: describes the neurons in a text that no other members have; checksums are made of it.
        per_prompt: whether the neurons differ between prompts.
        part_of: the members from which these were chosen, if they are a part of others.
        kept: for a complement, the members whose complement it is, and the layers in which it is
            one (``None`` for all layers).
    """

    widths: tuple[int, ...]
    bits: Callable[[Prompts], Bits]
    said: Callable[[], str]
    per_prompt: bool = True
    part_of: Members | None = None
    kept: tuple[Members, tuple[int, ...] | None] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """The number of layers, and the number of neurons in the widest one."""
        return len(self.widths), max(self.widths)

    @property
    def whole(self) -> Members:
        """The largest members of which these are a part, directly or through others."""
        return self if self.part_of is None else self.part_of.whole

    @cached_property
    def checksum(self) -> str:
        """Sixteen hexadecimal digits that tell these members from others."""
        return hashlib.sha256(self.said().encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def masks(self, prompts: Prompts) -> Mask:
        """The neurons in each prompt (prompt, layer, neuron); the array is read-only."""
        masks = unpack(self.bits(prompts), self.shape[1]).astype(np.bool_)
        return np.broadcast_to(masks, (len(prompts.keys), *self.shape))


def fixed(mask: Mask, widths: tuple[int, ...]) -> Members:
    """The neurons of a mask (layer, neuron), the same in every prompt."""
    packed = np.packbits(mask, axis=-1)[None]
    return Members(widths, lambda _: packed, lambda: _digest(packed.tobytes()), per_prompt=False)


def written_down(packed: Bits, keys: Sequence[Any], widths: tuple[int, ...]) -> Members:
    """Neurons that are given for each of a number of prompts.

    Args:
        packed: the neurons (prompt, layer, byte).
        keys: the prompts to which they belong.
        widths: the number of neurons in each layer of the model.

    Raises:
        NeuroglotError: the array does not fit the number of prompts or the layers.
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
        return np.asarray(packed[[row_of[key] for key in prompts.keys]])

    return Members(widths, bits, lambda: _digest(packed.tobytes() + _encoded(list(keys))))


def active_in(recording: Recording, threshold: float, category: str | None = None) -> Members:
    """The neurons that are active in each prompt of a recording, or that are in a category.

    Args:
        recording: the recording, which must hold all layers.
        threshold: a neuron is active where its site value is greater.
        category: the category that the neurons have for the item of the prompt; by default the
            neurons are those that are active in the prompt itself.

    Raises:
        NeuroglotError: the category is unknown, or the threshold was not recorded.
    """
    if category is not None and category not in CATEGORIES:
        raise NeuroglotError(f"unknown category {category!r}; there are {listed(CATEGORIES)}.")
    require_recording(recording)
    recording.check_threshold(threshold)
    widths = (recording.n_neurons,) * len(recording.layers)
    place_of_item = {item: i for i, item in enumerate(recording.items)}
    place_of_language = {language: i for i, language in enumerate(recording.languages)}

    def bits(prompts: Prompts) -> Bits:
        for key in prompts.keys:
            if key[0] not in place_of_item or key[1] not in place_of_language:
                raise NeuroglotError(f"the recording holds no prompt {shown(key)}.")
        places = np.array([place_of_item[key[0]] for key in prompts.keys], np.intp)
        items, rows = np.unique(places, return_inverse=True)
        start, stop = (items[0], items[-1] + 1) if len(items) else (0, 0)
        is_range = stop - start == len(items)
        active = recording.bits(threshold, slice(start, stop) if is_range else items.tolist())
        if category is None:
            return np.asarray(active[rows, [place_of_language[key[1]] for key in prompts.keys]])
        by_category = category_bits(active)
        if category in by_category:
            return by_category[category][rows]
        return all_others(np.bitwise_or.reduce(active, axis=1), widths)[rows]

    @cache
    def said() -> str:
        digest = hashlib.sha256(_encoded((recording.items, recording.languages)))
        for start in range(0, len(recording), ITEMS_AT_ONCE):
            digest.update(recording.bits(threshold, slice(start, start + ITEMS_AT_ONCE)).tobytes())
        return f"{category} {digest.hexdigest()}"

    return Members(widths, bits, said)


def joined(sign: Sign, one: Members, other: Members) -> Members:
    """The neurons of either (``|``), of both (``&``), or of the first only (``-``)."""

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
    """The members of which joined ones are a part, if one of the two is a part of others."""
    if sign == "|":
        is_part = one.part_of is not None or other.part_of is not None
        return joined("|", one.whole, other.whole) if is_part else None
    candidates = [one] if sign == "-" else [one, other]
    return next((x.whole for x in candidates if x.part_of is not None), None)


def others(of: Members) -> Members:
    """All neurons that are not in a set. The complement of a complement is the set itself."""
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
    """The neurons of a set that are in the given layers."""

    def bits(prompts: Prompts) -> Bits:
        packed = of.bits(prompts)
        in_these = np.isin(np.arange(len(of.widths)), layers)[:, None]
        return np.where(in_these, packed, np.uint8(0))

    kept = None
    if of.kept is not None:
        complement_of, where = of.kept
        both = layers if where is None else tuple(layer for layer in layers if layer in where)
        kept = (in_layers(complement_of, both), both)
    said = lambda: f"({of.said()}) in {layers}"  # noqa: E731
    return Members(of.widths, bits, said, of.per_prompt, part_of=of, kept=kept)


def strongest(of: Members, share: float, scores: Scores | None = None) -> Members:
    """The highest-ranking share of a set's neurons in each layer, rounded up.

    Args:
        of: the set.
        share: the share of its neurons.
        scores: the scores to rank by (layer, neuron); of equal ones, the first neuron ranks
            higher. By default neurons rank by their contribution in each prompt.
    """

    def bits(prompts: Prompts) -> Bits:
        ranking = prompts.contribution if scores is None else scores[None]
        if ranking is None:
            raise NeuroglotError(
                "the strongest neurons of each prompt are known only within neuroglot.intervene; "
                "outside it, give strongest() scores to rank by."
            )
        masks = of.masks(prompts)
        wanted = np.ceil(share * masks.sum(axis=-1, keepdims=True) - 1e-9).astype(int)
        order = np.argsort(-np.where(masks, ranking, -np.inf), axis=-1, kind="stable")
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.arange(masks.shape[-1])[None, None], axis=-1)
        return np.packbits(masks & (place < wanted), axis=-1)

    def said() -> str:
        ranked_by = _digest(b"" if scores is None else scores.tobytes())
        return f"{share!r} of ({of.said()}) by {ranked_by}"

    return Members(of.widths, bits, said, of.per_prompt or scores is None, part_of=of)


def all_others(bits: Bits, widths: Sequence[int]) -> Bits:
    """All neurons that are not in packed sets (…, layer, byte) of layers of these widths."""
    exist = np.arange(bits.shape[-1] * 8) < np.array(widths)[:, None]
    return np.asarray(~bits & np.packbits(exist, axis=-1))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _encoded(keys: Any) -> bytes:
    return repr(keys).encode("utf-8", "surrogatepass")
