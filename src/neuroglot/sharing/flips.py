"""Which categories change when the same values are computed with other rounding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.errors import NeuroglotError, listed
from neuroglot.recording.recording import Recording
from neuroglot.sharing.bits import category_bits, count
from neuroglot.store.joining import said_of

Array = np.ndarray[Any, Any]


def _n_differing(active: Array, other: Array) -> int:
    """Neurons of all items whose category differs; activity is (item, language, neuron)."""
    # One layer, packed as a recording is.
    one, two = (category_bits(np.packbits(x[:, :, None], axis=-1)) for x in (active, other))
    differing = [one[name] ^ two[name] for name in one]
    return int(count(np.bitwise_or.reduce(differing)).sum())


def _of_layer(values: Array, other: Array, threshold: float) -> dict[str, float]:
    """What differs in one layer; values are (item, language, neuron)."""
    active, active_other = values > threshold, other > threshold
    flipped = active != active_other
    n_flips = _n_differing(active, active_other)
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
    """How many categories flip between recordings that should be equal, and how near to τ.

    Args:
        reference: recorded with ``keep_values=True``.
        others: by what was changed, the same prompts, languages and layers.
        threshold: a neuron is active where its site value is greater.

    Returns:
        A dataset (comparison, layer) with ``category_flips`` (share of neurons of an item whose
        category differs), ``n_category_flips`` (their number over all items), ``activity_flips``
        (share of site values on the other side of the threshold), ``margin_median`` and
        ``margin_largest`` (|site value - τ| of the reference where activity flipped; NaN where
        none did), ``value_median`` (the median of that distance over all values, to compare with)
        and ``difference_largest`` (largest difference between two site values).

    Raises:
        NeuroglotError: values were not kept, or a recording is of other prompts, languages,
            layers or another site.
    """
    rows = []
    for name, other in others.items():
        _require_alike(reference, other, name)
        for layer in reference.layers:
            one, changed = (x.values.sel(layer=layer).to_numpy() for x in (reference, other))
            found = _of_layer(one, changed, threshold)
            rows.append({"comparison": name, "layer": layer, **found})
    table: dict[str, Any] = {
        key: (
            ("comparison", "layer"),
            np.array([row[key] for row in rows]).reshape(len(others), len(reference.layers)),
        )
        for key in rows[0]
        if key not in {"comparison", "layer"}
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
    """Coordinates and provenance of what :func:`compare_values` returns.

    Args:
        attrs: of the reference.
        n_items: that were recorded.
        layers: that were recorded.
        others: what was changed in the others.
        threshold: of activity.
    """
    kept = {k: v for k, v in attrs.items() if k not in {"kind", "keep_values"}}
    return xr.Dataset(
        coords={"comparison": list(others), "layer": list(layers)},
        attrs={"kind": "fragility", **kept, "n_items": n_items, "threshold": threshold},
    )


def _require_alike(one: Recording, other: Recording, name: str) -> None:
    differing = [
        what
        for what in ("items", "languages", "layers", "n_neurons")
        if getattr(one, what) != getattr(other, what)
    ]
    differing += [
        key
        for key in ("task_checksum", "site", "position", "added_tokens")
        if said_of(one.attrs, key) != said_of(other.attrs, key)
    ]
    if differing:
        raise NeuroglotError(
            f"recording {name!r} differs from the reference in {listed(differing)}; only "
            "rounding may differ."
        )
