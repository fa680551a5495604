"""How the categories of neurons change from one checkpoint to the next."""

from __future__ import annotations

import numpy as np
import xarray as xr

from neuroglot.errors import NeuroglotError, listed
from neuroglot.recording.recording import Bits, Recording, require_recording
from neuroglot.sharing.bits import CATEGORIES, category_bits, count, inverted
from neuroglot.sharing.tally import ITEMS_AT_ONCE
from neuroglot.store.joining import OF_READING, RUN_AS, refuse_old, said_of
from neuroglot.store.provenance import OF_PROMPTS

# Attributes that must be equal for the categories of two recordings to be compared.
ALIKE = (
    *("task", "template", *OF_PROMPTS, *OF_READING),
    *(key for key in RUN_AS if key != "model_weights"),
)


def are_related(before: Recording, after: Recording) -> bool:
    """Whether, by their lineages, one model continues the other or both a common checkpoint.

    Neuron *i* is then the same neuron in both.
    """
    first, second = (
        {
            *str(recording.attrs.get("model_lineage", "")).split(),
            *str(recording.attrs.get("model_weights", "")).split(),
        }
        for recording in (before, after)
    )
    return bool(first & second)


def category_flow(
    before: Recording, after: Recording, *, threshold: float = 0.0, lineage: bool = False
) -> xr.DataArray:
    """How many neurons of each layer move from each category to each other, item by item.

    Args:
        before: the recording of one model.
        after: the recording of another model, on the same items and languages.
        threshold: a neuron is active if its site value is greater than the threshold.
        lineage: states that one model continues the other, or both a common checkpoint, so that
            neuron *i* is the same in both. Models that :func:`neuroglot.align` saves say so
            themselves.

    Returns:
        The share of the layer's neurons (layer, category, category_after), mean over items.

    Raises:
        NeuroglotError: it is not known that neuron *i* is the same in both, or the recordings
            differ in items, languages, layers, width, site, position or task (the message says in
            which).

    Examples:
        >>> import neuroglot as ng
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=4)
        >>> base = ng.record(ng.load_model("embedded/base"), task)
        >>> aligned = ng.record(ng.load_model("embedded/aligned"), task)
        >>> flow = ng.category_flow(base, aligned)
        >>> bool(flow.sel(category="specific", category_after="all_shared").sum() > 0)
        True
    """
    require_recording(before, "before")
    require_recording(after, "after")
    _require_same_neurons(before, after, lineage=lineage)
    n = before.n_neurons
    totals = np.zeros((len(before.layers), len(CATEGORIES), len(CATEGORIES)))
    for start in range(0, len(before), ITEMS_AT_ONCE):
        block = slice(start, start + ITEMS_AT_ONCE)
        masks, masks_after = (
            _every_category(recording.bits(threshold, block), n) for recording in (before, after)
        )
        for i, mask in enumerate(masks):
            for j, mask_after in enumerate(masks_after):
                totals[:, i, j] += count(mask & mask_after).sum(axis=0)
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
    """A packed mask (item, layer, byte) for each category, in the order of ``CATEGORIES``."""
    masks = list(category_bits(active).values())
    return [inverted(np.bitwise_or.reduce(masks), n_neurons), *masks]


def _require_same_neurons(before: Recording, after: Recording, *, lineage: bool) -> None:
    both = before, after
    names = [str(recording.attrs.get("model")) for recording in both]
    for key in ("layers", "n_neurons", "items", "languages"):
        values = [getattr(recording, key) for recording in both]
        if values[0] != values[1]:
            texts = [listed(v, 3) if isinstance(v, tuple) else repr(v) for v in values]
            raise NeuroglotError(f"the recordings have different {key}: {texts[0]}; {texts[1]}.")
    for name, recording in zip(names, both, strict=True):
        refuse_old(recording.attrs, f"the recording of {name!r}")
    for key in ALIKE:
        one, two = (said_of(recording.attrs, key) for recording in both)
        if one != two:
            raise NeuroglotError(f"the recordings differ in {key}: {one!r}, {two!r}.")
    if not lineage and not are_related(before, after):
        raise NeuroglotError(
            f"it is not known that {names[0]!r} and {names[1]!r} continue one checkpoint, so "
            "neuron i of one need not be neuron i of the other. If they do, pass lineage=True "
            "(--lineage)."
        )
