"""Sharing categories of neurons, per item, and what follows from them.

Source: *Sharing Matters* (arXiv 2406.09265), section 3; terms as in the project's method page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.errors import NeuroglotError, listed
from neuroglot.recording.recording import Recording, require_recording
from neuroglot.sharing.baselines import layer_rate_fraction, shuffled_fraction
from neuroglot.sharing.bits import (
    CATEGORIES,
    category_bits,
    category_counts,
    count,
    require_languages,
    unpack,
)
from neuroglot.sharing.tally import ITEMS_AT_ONCE, tally_of, with_the_rest
from neuroglot.store.joining import RUN_AS, refuse_old, said_of

# Provenance that belongs to one task, not to a comparison of several.
OF_A_TASK = ("template", "split", "task_checksum")


def categories(
    recording: Recording, *, threshold: float = 0.0, items: Sequence[str] | None = None
) -> xr.DataArray:
    """Category of every neuron for every item.

    With *k* of the *L* languages active: ``non_activated`` k = 0, ``specific`` k = 1,
    ``all_shared`` k = L, ``partial_shared`` otherwise.

    Args:
        recording: from :func:`neuroglot.record`.
        threshold: a neuron is active where its site value was greater.
        items: ids of the items to look at; by default all.

    Returns:
        Codes (item, layer, neuron), uint8; their names are in the attributes.

    Raises:
        NeuroglotError: a threshold or an item that was not recorded.
    """
    chosen = recording if items is None else recording.select(items=items)
    shape = (len(chosen), len(chosen.layers), chosen.n_neurons)
    codes = np.zeros(shape, dtype=np.uint8)
    for start in range(0, len(chosen), ITEMS_AT_ONCE):
        block = slice(start, start + ITEMS_AT_ONCE)
        for name, bits in category_bits(chosen.bits(threshold, block)).items():
            codes[block] += unpack(bits, chosen.n_neurons) * np.uint8(CATEGORIES.index(name))
    return xr.DataArray(
        codes,
        dims=("item", "layer", "neuron"),
        coords={"item": list(chosen.items), "layer": list(chosen.layers)},
        name="category",
        attrs=_attrs(chosen, threshold, "categories")
        | {name: code for code, name in enumerate(CATEGORIES)},
    )


def category_membership(recording: Recording, *, threshold: float = 0.0) -> xr.DataArray:
    """For which fraction of the items each neuron is in each category (layer, neuron, category).

    Args:
        recording: from :func:`neuroglot.record`.
        threshold: a neuron is active where its site value was greater.

    Raises:
        NeuroglotError: the threshold was not recorded, or there are fewer than two languages.
    """
    require_languages(len(recording.languages))
    return xr.DataArray(
        tally_of(recording, threshold).membership,
        dims=("layer", "neuron", "category"),
        coords={"layer": list(recording.layers), "category": list(CATEGORIES)},
        name="membership",
        attrs=_attrs(recording, threshold, "membership"),
    )


@overload
def classify(recording: Recording, *, threshold: float = 0.0) -> xr.Dataset: ...


@overload
def classify(recording: Recording, *, thresholds: Sequence[float]) -> xr.DataArray: ...


def classify(
    recording: Recording, *, threshold: float = 0.0, thresholds: Sequence[float] | None = None
) -> xr.Dataset | xr.DataArray:
    """How languages share neurons, with the baselines that sharing must be compared with.

    Args:
        recording: from :func:`neuroglot.record`.
        threshold: a neuron is active where its site value was greater.
        thresholds: several in its place, which must have been recorded, to see how sharing changes
            with the threshold.

    Returns:
        With ``thresholds``, the mean fraction over items (threshold, layer, category). Else a
        dataset with

        - ``fraction`` (item, layer, category): share of the layer's neurons;
        - ``active`` (item, layer, language): share of neurons active in that language;
        - ``shared_of_active`` (item, layer, language): all-shared neurons over active ones;
        - ``repetition`` (layer, category): share of neurons that are in the category for every
          item;
        - ``membership`` (layer, neuron, category): fraction of items for which the neuron is in
          the category;
        - ``overlap`` (layer, language, language_other): Jaccard index of the active sets, mean
          over items;
        - ``fraction_if_items_shuffled`` (layer, category): mean fraction expected after permuting
          each language's items (same languages and template, other content);
        - ``fraction_if_layer_rate`` (layer, category): mean fraction expected of independent
          languages that are active at their rates in the layer.

    Raises:
        NeuroglotError: the threshold was not recorded.
    """
    require_recording(recording)
    if thresholds is not None:
        return _sweep(recording, thresholds)
    require_languages(len(recording.languages))
    n, neurons = len(recording), recording.n_neurons
    tally = tally_of(recording, threshold)
    sizes = np.concatenate(tally.sizes)
    fraction = with_the_rest(sizes, neurons) / neurons
    pairs = np.concatenate(tally.pairs)
    n_active = np.diagonal(pairs, axis1=-2, axis2=-1)
    active = n_active / neurons
    membership = tally.membership
    with np.errstate(invalid="ignore"):
        # A language without an active neuron in a layer shares nothing that could be counted.
        shared = fraction[..., -1:] / active
        overlap = pairs / (n_active[..., None] + n_active[..., None, :] - pairs)
    by_item = ("item", "layer")
    return xr.Dataset(
        {
            "fraction": ((*by_item, "category"), fraction),
            "active": ((*by_item, "language"), active),
            "shared_of_active": ((*by_item, "language"), shared),
            "repetition": (("layer", "category"), (membership == 1).mean(axis=1)),
            "membership": (("layer", "neuron", "category"), membership),
            "overlap": (
                ("layer", "language", "language_other"),
                _mean_over_items(overlap),
            ),
            "fraction_if_items_shuffled": (
                ("layer", "category"),
                shuffled_fraction(tally.active, n),
            ),
            "fraction_if_layer_rate": (("layer", "category"), layer_rate_fraction(active)),
        },
        coords={
            "item": list(recording.items),
            "layer": list(recording.layers),
            "language": list(recording.languages),
            "language_other": list(recording.languages),
            "category": list(CATEGORIES),
        },
        attrs=_attrs(recording, threshold, "sharing"),
    )


def most_often(
    sharing: xr.Dataset, *, category: str = "all_shared", layer: int | None = None, n: int = 20
) -> pd.DataFrame:
    """The neurons that are in a category for the most items.

    Args:
        sharing: from :func:`classify`.
        category: one of the four.
        layer: only this one; by default all layers.
        n: how many neurons; of equal ones the first in order of layer and neuron.

    Returns:
        A table with ``layer``, ``neuron`` and ``membership``, the fraction of items.

    Raises:
        NeuroglotError: no such category or layer.
    """
    if category not in CATEGORIES:
        raise NeuroglotError(f"unknown category {category!r}; there are {listed(CATEGORIES)}.")
    found = sharing["membership"].sel(category=category, drop=True).transpose("layer", "neuron")
    if layer is not None:
        if layer not in found["layer"]:
            raise NeuroglotError(f"layer={layer!r}; there are {listed(found['layer'].to_numpy())}.")
        found = found.sel(layer=[layer])
    if "neuron" not in found.coords:
        found = found.assign_coords(neuron=np.arange(found.sizes["neuron"]))
    rows = found.to_series().rename("membership").reset_index()
    ranked = rows.sort_values("membership", ascending=False, kind="stable")
    return ranked.head(n).reset_index(drop=True)


def shared_of_active(sharing: xr.Dataset) -> xr.DataArray:
    """All-shared neurons over active ones, of all layers together (item, language).

    Args:
        sharing: from :func:`classify`.
    """
    shared = sharing["fraction"].sel(category="all_shared", drop=True).sum("layer")
    return shared / sharing["active"].sum("layer")


def _sweep(recording: Recording, thresholds: Sequence[float]) -> xr.DataArray:
    """Mean fraction over items (threshold, layer, category)."""
    fractions = []
    for threshold in thresholds:
        totals = np.zeros((len(recording.layers), len(CATEGORIES)))
        for start in range(0, len(recording), ITEMS_AT_ONCE):
            bits = recording.bits(threshold, slice(start, start + ITEMS_AT_ONCE))
            totals += category_counts(bits, recording.n_neurons).sum(axis=0)
        fractions.append(totals / (len(recording) * recording.n_neurons))
    return xr.DataArray(
        np.stack(fractions),
        dims=("threshold", "layer", "category"),
        coords={
            "threshold": [float(threshold) for threshold in thresholds],
            "layer": list(recording.layers),
            "category": list(CATEGORIES),
        },
        name="fraction",
        attrs=recording.attrs | {"kind": "thresholds"},
    )


def compare_tasks(recordings: Sequence[Recording], *, threshold: float = 0.0) -> xr.Dataset:
    """The paper's aggregated pattern of several tasks, side by side.

    All-shared falls with the number of languages and repetition with the number of items, so the
    tasks must have the same languages and equally many items (see :meth:`Recording.select`).

    Args:
        recordings: one for each task, of one model.
        threshold: a neuron is active where its site value was greater.

    Returns:
        A dataset with ``mean``, ``min`` and ``max`` over items of the fraction (task, layer,
        category) and ``repetition`` (task, layer, category).

    Raises:
        NeuroglotError: the recordings differ in languages, number of items, model, site or
            position, layers or number type, or two are of one task; it names both sides.
    """
    _require_alike(recordings)
    names = [task_label(recording) for recording in recordings]
    if len(set(names)) < len(names):
        raise NeuroglotError(f"a comparison needs different tasks, found {listed(names)}.")
    parts = [_over_items(recording, threshold) for recording in recordings]
    compared = xr.concat(parts, dim=xr.DataArray(names, dims="task", name="task"), join="exact")
    of_each = {key: ("task", [r.attrs.get(key, "") for r in recordings]) for key in OF_A_TASK}
    common = _attrs(recordings[0], threshold, "task comparison")
    kept = {key: value for key, value in common.items() if key not in OF_A_TASK}
    return compared.assign_coords(of_each).assign_attrs(kept)


def _over_items(recording: Recording, threshold: float) -> xr.Dataset:
    """Mean, least and greatest fraction over items, and repetition (layer, category)."""
    bits = recording.bits(threshold)
    masks = category_bits(bits)
    fraction = category_counts(bits, recording.n_neurons) / recording.n_neurons
    always = [np.bitwise_and.reduce(mask) for mask in masks.values()]
    never = recording.n_neurons - count(np.bitwise_or.reduce(bits, axis=(0, 1)))
    repetition = np.stack([never, *map(count, always)], axis=-1) / recording.n_neurons
    dims = ("layer", "category")
    return xr.Dataset(
        {
            "mean": (dims, fraction.mean(axis=0)),
            "min": (dims, fraction.min(axis=0)),
            "max": (dims, fraction.max(axis=0)),
            "repetition": (dims, repetition),
        },
        coords={"layer": list(recording.layers), "category": list(CATEGORIES)},
    )


def task_label(recording: Recording) -> str:
    """``task (template)``, by which comparisons name a recording."""
    template = recording.attrs["template"]
    return f"{recording.attrs['task']} ({template})" if template else str(recording.attrs["task"])


def _require_alike(recordings: Sequence[Recording]) -> None:
    for recording in recordings:
        require_recording(recording)
    if len(recordings) < 2:
        raise NeuroglotError("a comparison needs at least two recordings.")
    first = recordings[0]
    for other in recordings[1:]:
        both = f"{task_label(first)!r} and {task_label(other)!r}"
        if set(first.languages) != set(other.languages):
            common = [language for language in first.languages if language in other.languages]
            raise NeuroglotError(
                f"{both} have different languages ({listed(first.languages)}; "
                f"{listed(other.languages)}): all-shared falls with their number. "
                f"Common to both: {listed(common)}; use recording.select(languages=…)."
            )
        if len(first) != len(other):
            raise NeuroglotError(
                f"{both} have {len(first)} and {len(other)} items: repetition falls with their "
                "number. Use recording.select(items=…) for equally many."
            )
        if first.layers != other.layers:
            raise NeuroglotError(
                f"{both} were recorded on different layers: {listed(first.layers)}; "
                f"{listed(other.layers)}."
            )
        for recording in (first, other):
            refuse_old(recording.attrs, repr(task_label(recording)))
        for key in ("model", *RUN_AS, "site", "position", "added_tokens", "n_neurons"):
            one, two = (said_of(recording.attrs, key) for recording in (first, other))
            if one != two:
                raise NeuroglotError(f"{both} differ in {key}: {one!r}, {two!r}.")


def _mean_over_items(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis, leaving out NaN."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(known, values, 0).sum(axis=0) / known.sum(axis=0)
    return mean


def _attrs(recording: Recording, threshold: float, kind: str) -> dict[str, Any]:
    return recording.attrs | {"threshold": threshold, "kind": kind}
