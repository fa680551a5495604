"""What became of neurons from one checkpoint to the next."""

from __future__ import annotations

import numpy as np
import xarray as xr

from neuroglot.errors import NeuroglotError, listed
from neuroglot.recording.recording import Bits, Recording, require_recording
from neuroglot.sharing.bits import CATEGORIES, category_bits, count, inverted
from neuroglot.sharing.tally import ITEMS_AT_ONCE
from neuroglot.store.joining import RUN_AS, refuse_old, said_of
from neuroglot.store.provenance import OF_PROMPTS

# What must be alike for two recordings to say the same of the same neurons.
ALIKE = (
    *("task", "template", *OF_PROMPTS, "site", "position", "added_tokens"),
    *(key for key in RUN_AS if key != "model_weights"),
)


def are_related(before: Recording, after: Recording) -> bool:
    """Whether one model continues the other, or both a common checkpoint, as they themselves say.

    Neuron *i* is then the same neuron in both.
    """
    one, other = (
        {
            *str(recording.attrs.get("model_lineage", "")).split(),
            *str(recording.attrs.get("model_weights", "")).split(),
        }
        for recording in (before, after)
    )
    return bool(one & other)


def category_flow(
    before: Recording, after: Recording, *, threshold: float = 0.0, lineage: bool = False
) -> xr.DataArray:
    """From which category to which the neurons of each layer have gone, item by item.

    Args:
        before: of one model.
        after: of another, on the same items and languages.
        threshold: a neuron is active where its site value was greater.
        lineage: vouch for one model continuing the other, or both a common checkpoint, where the
            models themselves do not say so (those that :func:`neuroglot.align` saves do).

    Returns:
        Share of the layer's neurons, mean over items (layer, category, category_after).

    Raises:
        NeuroglotError: nothing says that neuron *i* is the same in both, or the recordings differ
            in items, languages, layers, width, site, position or task; it says which.
    """
    require_recording(before, "before")
    require_recording(after, "after")
    _require_same_neurons(before, after, lineage=lineage)
    n = before.n_neurons
    totals = np.zeros((len(before.layers), len(CATEGORIES), len(CATEGORIES)))
    for start in range(0, len(before), ITEMS_AT_ONCE):
        block = slice(start, start + ITEMS_AT_ONCE)
        was, now = (_every_category(x.bits(threshold, block), n) for x in (before, after))
        for i, one in enumerate(was):
            for j, other in enumerate(now):
                totals[:, i, j] += count(one & other).sum(axis=0)
    return xr.DataArray(
        totals / (len(before) * n),
        dims=("layer", "category", "category_after"),
        coords={
            "layer": list(before.layers),
            "category": list(CATEGORIES),
            "category_after": list(CATEGORIES),
        },
        name="flow",
        attrs=after.attrs
        | {"kind": "category flow", "threshold": threshold}
        | {f"before_{key}": before.attrs[key] for key in ("model", "model_weights")},
    )


def _every_category(active: Bits, n_neurons: int) -> list[Bits]:
    """Packed masks (item, layer, byte), in the order of ``CATEGORIES``."""
    masks = list(category_bits(active).values())
    return [inverted(np.bitwise_or.reduce(masks), n_neurons), *masks]


def _require_same_neurons(before: Recording, after: Recording, *, lineage: bool) -> None:
    names = [str(x.attrs.get("model")) for x in (before, after)]
    sizes = [(len(x.layers), x.n_neurons) for x in (before, after)]
    if sizes[0] != sizes[1] or before.layers != after.layers:
        raise NeuroglotError(
            f"{names[0]!r} has {sizes[0]} layers and neurons recorded, {names[1]!r} {sizes[1]}: "
            "the flow is of neurons that both have."
        )
    for what in ("items", "languages"):
        one, other = getattr(before, what), getattr(after, what)
        if one != other:
            raise NeuroglotError(
                f"the recordings have different {what}: {listed(one, 3)}; {listed(other, 3)}."
            )
    for name, recording in zip(names, (before, after), strict=True):
        refuse_old(recording.attrs, f"the recording of {name!r}")
    for key in ALIKE:
        one, two = (said_of(recording.attrs, key) for recording in (before, after))
        if one != two:
            raise NeuroglotError(f"the recordings differ in {key}: {one!r}, {two!r}.")
    if not lineage and not are_related(before, after):
        raise NeuroglotError(
            f"nothing says that {names[0]!r} and {names[1]!r} continue one checkpoint, so neuron i "
            "of one need not be neuron i of the other. If they do, say so with lineage=True "
            "(--lineage)."
        )
