"""Which neurons a condition is about, for every prompt, and which ones are its controls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroglot.analysis.bits import CATEGORIES, unpack
from neuroglot.attribution.neuron_scores import SCORES
from neuroglot.errors import NeuroglotError, is_whole_number, listed, require_finite
from neuroglot.models import Model
from neuroglot.neurons import NeuronSet
from neuroglot.neurons.neuron_set import UNION
from neuroglot.neurons.prompt_sets import bits_of_category
from neuroglot.neurons.sampling import sample
from neuroglot.recording import Recording
from neuroglot.recording.recording import Bits

Masks = np.ndarray[Any, np.dtype[np.bool_]]
SPECIFIC_HERE = "specific_here"
NAMES = (*CATEGORIES, SPECIFIC_HERE)
# What the issue of a category's role is about first; the order of figures.
DEFAULT_CATEGORIES = ("all_shared", "partial_shared", "specific", SPECIFIC_HERE, "non_activated")
CONTROLS = ("size", "active", "contribution")
N_DECILES = 10


@dataclass(frozen=True)
class Variant:
    """Which part of a category is edited, and how.

    Attributes:
        layers: only in these; by default in all.
        top: only this share of the category's neurons in each layer, those that rank highest.
        rank_by: what they are ranked by: ``"contribution"`` (``|m|·‖v‖`` in the prompt itself), or
            a score that uses the answer, whose mean over a development half of the items then
            ranks, and the result is that of the other half.
        membership: one set for all items instead of each item's own: the neurons that are in the
            category for at least this share of the items of a development half; the result is that
            of the other half.
        keep_only: switch off all other neurons (of these layers) instead.
        factor: what coefficients are multiplied with; 0 switches them off.
    """

    layers: tuple[int, ...] | None = None
    top: float = 1.0
    rank_by: str = "contribution"
    membership: float | None = None
    keep_only: bool = False
    factor: float = 0.0

    def __post_init__(self) -> None:
        """Give variants that mean the same the same values.

        Raises:
            NeuroglotError: shares, factor or layers that are no numbers, or an unknown score.
        """
        for name in ("top", "factor"):
            require_finite(name, getattr(self, name))
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.membership is not None:
            require_finite("membership", self.membership)
        if self.rank_by not in SCORES:
            raise NeuroglotError(f"rank_by={self.rank_by!r}: there are {listed(SCORES)}.")
        if self.top == 1:
            object.__setattr__(self, "rank_by", "contribution")
        if self.layers is not None:
            object.__setattr__(self, "layers", _sorted_layers(self.layers))

    @property
    def needs_halves(self) -> bool:
        """Whether something is chosen on a development half."""
        ranks_by_answer = self.top < 1 and self.rank_by != "contribution"
        return ranks_by_answer or self.membership is not None

    def __str__(self) -> str:
        """What differs from deactivating the whole category, item by item; ``""`` for nothing."""
        said = {
            "keep only": "" if self.keep_only else None,
            "layers": None if self.layers is None else layer_range(self.layers),
            "top": None if self.top == 1 else _exact(self.top),
            "by": None if self.top == 1 or self.rank_by == "contribution" else self.rank_by,
            "membership": None if self.membership is None else _exact(self.membership),
            "times": None if self.factor == 0 else _exact(self.factor),
        }
        return ", ".join(f"{what} {how}".strip() for what, how in said.items() if how is not None)


def _exact(number: float) -> str:
    """A number that no other one is written as: conditions and their draws go by it."""
    return repr(float(number)).removesuffix(".0")


def _sorted_layers(layers: Any) -> tuple[int, ...]:
    given = tuple(layers) if isinstance(layers, Iterable) else (layers,)
    if not given or len(set(given)) < len(given) or not all(is_whole_number(x, 0) for x in given):
        raise NeuroglotError(f"layers={layers!r}: expected different whole numbers from 0.")
    return tuple(sorted(int(layer) for layer in given))


def layer_range(layers: Sequence[int]) -> str:
    """Layers as text: neighbours as ``0-2``, others as ``0,2,5``."""
    first, last = min(layers), max(layers)
    if sorted(layers) == list(range(first, last + 1)):
        return str(first) if first == last else f"{first}-{last}"
    return ",".join(map(str, layers))


def check_variant(variant: Variant, model: Model) -> None:
    """Refuse a variant that cannot be.

    Raises:
        NeuroglotError: it says what was found and what is expected.
    """
    if variant.layers is not None and variant.layers[-1] >= model.n_layers:
        raise NeuroglotError(
            f"layers={variant.layers}: expected numbers from 0 to {model.n_layers - 1}."
        )
    for name, share in (("top", variant.top), ("membership", variant.membership)):
        if share is not None and not 0 < share <= 1:
            raise NeuroglotError(f"{name}={share}: expected above 0, at most 1.")
    if variant.keep_only and variant.factor != 0:
        raise NeuroglotError("keep_only= switches all others off; leave factor= at 0.")


def check_category(category: str) -> tuple[str, ...]:
    """The names that a category, or a union of them with ``+`` between, consists of.

    Raises:
        NeuroglotError: an unknown name, or one that stands twice.
    """
    names = tuple(name.strip() for name in str(category).split(UNION))
    unknown = [name for name in names if name not in NAMES]
    if unknown or len(set(names)) < len(names):
        raise NeuroglotError(
            f"category {category!r}: expected one of {listed(NAMES)}, or several different ones "
            f"with {UNION!r} between."
        )
    return tuple(sorted(names, key=NAMES.index))


def members(names: Sequence[str], active: Bits, n_neurons: int) -> Masks:
    """Neurons that are in any of the categories (item, language, layer, neuron).

    Args:
        names: of the categories; ``"specific_here"`` are the specific neurons that are active in
            the prompt's own language.
        active: packed activity (item, language, layer, byte).
        n_neurons: neurons of one layer.
    """
    found = np.zeros_like(active)
    for name in names:
        if name == SPECIFIC_HERE:
            found |= bits_of_category(active, "specific", n_neurons)[:, None] & active
        else:
            found |= bits_of_category(active, name, n_neurons)[:, None]
    return np.asarray(unpack(found, n_neurons), np.bool_)


def within(masks: Masks, layers: Sequence[int] | None) -> Masks:
    """The masks (…, layer, neuron), empty in all other layers."""
    if layers is None:
        return masks
    kept = np.zeros_like(masks)
    kept[..., list(layers), :] = masks[..., list(layers), :]
    return kept


def strongest(masks: Masks, ranking: np.ndarray[Any, Any], share: float) -> Masks:
    """The share of the neurons of each mask and layer that ranks highest, rounded up.

    Args:
        masks: (prompt, layer, neuron).
        ranking: the higher, the sooner (prompt or 1, layer, neuron).
        share: of the neurons.
    """
    if share == 1:
        return masks
    n_kept = np.ceil(share * masks.sum(axis=-1, keepdims=True) - 1e-9).astype(int)
    order = np.argsort(-np.where(masks, ranking, -np.inf), axis=-1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(masks.shape[-1])[None, None], axis=-1)
    return np.asarray(masks & (place < n_kept))


def deciles(contribution: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decile of each neuron's contribution among those of its layer (layer, neuron).

    Equal contributions are in one decile, as those of the neurons of a ReLU that are off.
    """
    ends = np.quantile(contribution, np.arange(1, N_DECILES) / N_DECILES, axis=-1)
    found = (contribution[None] > ends[:, :, None]).sum(axis=0)
    return np.asarray(found, np.uint8)


@dataclass(frozen=True)
class OfPrompt:
    """What controls of one prompt are drawn from; all are (layer, neuron).

    Attributes:
        edited: the neurons of the condition.
        category: all neurons of the category, of which the edited ones may be a part.
        active: those active in the prompt.
        contribution: ``|m|·‖v‖``.
    """

    edited: Masks
    category: Masks
    active: Masks
    contribution: np.ndarray[Any, Any]


def draw(of: OfPrompt, controls: Sequence[str], draws: int, seed: Sequence[int]) -> list[Any]:
    """Random neurons in place of the condition's, as many in each layer.

    Args:
        of: the prompt.
        controls: ``"size"``: any neuron outside the category; ``"active"``: active in the prompt,
            outside the category; ``"contribution"``: the same, and as many of each decile of the
            layer's contributions.
        draws: how many times.
        seed: of the draws.

    Returns:
        A mask (layer, neuron) for each control and draw, or ``None`` where its pool is too small.
    """
    rng = np.random.default_rng(seed)
    outside = ~of.category
    pools = {"size": outside, "active": outside & of.active, "contribution": outside & of.active}
    found = []
    for control in controls:
        strata = deciles(of.contribution) if control == "contribution" else None
        found += [sample(of.edited, pools[control], rng, strata) for _ in range(draws)]
    return found


def seed_of(seed: int, *names: str) -> list[int]:
    """A seed that depends on nothing but the names, such as condition, item and language."""
    digest = hashlib.sha256("\x1f".join(names).encode("utf-8", "surrogatepass")).digest()
    return [seed, int.from_bytes(digest[:8], "big")]


def fixed_set(
    names: Sequence[str], recording: Recording, membership: float, threshold: float
) -> NeuronSet:
    """The neurons that are in the categories for enough of the items, one set for all.

    Raises:
        NeuroglotError: a category that differs between the languages of an item.
    """
    if SPECIFIC_HERE in names:
        raise NeuroglotError(
            f"{SPECIFIC_HERE!r} depends on the language, so no set can stand for all prompts; use "
            "'specific'."
        )
    return NeuronSet.from_category(recording, UNION.join(names), membership, threshold=threshold)
