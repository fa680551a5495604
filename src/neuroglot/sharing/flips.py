"""Which categories change when the same values are computed with different rounding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.errors import NeuroglotError, listed
from neuroglot.recording.recording import Recording
from neuroglot.sharing.bits import category_bits, count
from neuroglot.store.joining import OF_READING, said_of

Array = np.ndarray[Any, Any]


def _of_layer(values: Array, other: Array, threshold: float) -> dict[str, float]:
    """The differences in one layer; values are (item, language, neuron)."""
    both = values > threshold, other > threshold
    flipped = both[0] != both[1]
    # Packed bits have an axis for layers before that of bytes.
    before, after = (category_bits(np.packbits(active[:, :, None], axis=-1)) for active in both)
    differing = [before[name] ^ after[name] for name in before]
    n_flips = int(count(np.bitwise_or.reduce(differing)).sum())
    margin = np.abs(values - threshold)
    at_flips = margin[flipped]
    return {
        "activity_flips": float(flipped.mean()),
        "category_flips": n_flips / flipped[:, 0].size,
        "n_category_flips": n_flips,
        "margin_median": float(np.median(at_flips)) if at_flips.size else np.nan,
        "margin_largest": float(at_flips.max()) if at_flips.size else np.nan,
        "value_median": float(np.median(margin)),
        "difference_largest": float(np.abs(values - other).max()),
    }


def compare_values(
    reference: Recording, others: Mapping[str, Recording], threshold: float = 0.0
) -> xr.Dataset:
    """How many categories differ between recordings that should be equal, and how near to τ.

    Args:
        reference: a recording made with ``keep_values=True``.
        others: recordings of the same prompts, languages and layers, by the name of what was
            changed.
        threshold: the threshold τ; a neuron is active if its site value is greater.

    Returns:
        A dataset (comparison, layer) with ``category_flips`` (the share of neurons of an item whose
        category differs), ``n_category_flips`` (their number over all items), ``activity_flips``
        (the share of site values on the other side of the threshold), ``margin_median`` and
        ``margin_largest`` (|site value - τ| of the reference where activity differs; NaN if it
        differs nowhere), ``value_median`` (the median of that distance over all values, for
        comparison) and ``difference_largest`` (the largest difference between two site values).

    Raises:
        NeuroglotError: values were not kept, or a recording has other prompts, languages or layers,
            or another site.
    """
    rows = []
    for name, other in others.items():
        _require_alike(reference, other, name)
        for layer in reference.layers:
            values, changed = (
                recording.values.sel(layer=layer).to_numpy() for recording in (reference, other)
            )
            rows.append(_of_layer(values, changed, threshold))
    shape = len(others), len(reference.layers)
    table = {
        key: (("comparison", "layer"), np.array([row[key] for row in rows]).reshape(shape))
        for key in rows[0]
    }
    head = fragility_head(reference.attrs, len(reference), reference.layers, others, threshold)
    return head.assign(table)


def fragility_head(
    attrs: Mapping[str, Any],
    n_items: int,
    layers: Iterable[int],
    others: Iterable[str],
    threshold: float,
) -> xr.Dataset:
    """The coordinates and attributes of the dataset that :func:`compare_values` returns.

    Args:
        attrs: the attributes of the reference.
        n_items: the number of recorded items.
        layers: the recorded layers.
        others: the names of the comparisons.
        threshold: the threshold of activity.
    """
    kept = {k: v for k, v in attrs.items() if k not in {"kind", "keep_values"}}
    return xr.Dataset(
        coords={"comparison": list(others), "layer": list(layers)},
        attrs={"kind": "fragility", **kept, "n_items": n_items, "threshold": threshold},
    )


def _require_alike(one: Recording, other: Recording, name: str) -> None:
    differing = [
        name
        for name in ("items", "languages", "layers", "n_neurons")
        if getattr(one, name) != getattr(other, name)
    ]
    differing += [
        key
        for key in ("task_checksum", *OF_READING)
        if said_of(one.attrs, key) != said_of(other.attrs, key)
    ]
    if differing:
        raise NeuroglotError(
            f"recording {name!r} differs from the reference in {listed(differing)}; only "
            "rounding may differ."
        )
