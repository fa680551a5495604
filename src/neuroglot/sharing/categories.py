"""The sharing categories of neurons for each item, and statistics of them.

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
    unpack,
)
from neuroglot.sharing.tally import ITEMS_AT_ONCE, tally_of, with_the_rest
from neuroglot.store.joining import OF_READING, RUN_AS, refuse_old, said_of

# Provenance that is of one task, and not of a comparison of several.
OF_A_TASK = ("template", "split", "task_checksum")


def categories(
    recording: Recording, *, threshold: float = 0.0, items: Sequence[str] | None = None
) -> xr.DataArray:
    """The category of every neuron for every item.

    A neuron that is active in *k* of the *L* languages is ``non_activated`` if k = 0, ``specific``
    if k = 1, ``all_shared`` if k = L, and ``partial_shared`` otherwise.

    Args:
        recording: from :func:`neuroglot.record`.
        threshold: a neuron is active if its site value is greater than the threshold.
        items: the ids of the items; by default all.

    Returns:
        The codes of the categories (item, layer, neuron), uint8. The attributes have the code of
        each category under its name.

    Raises:
        NeuroglotError: the threshold or an item was not recorded, or there are fewer than two
            languages.

    Examples:
        >>> import neuroglot as ng
        >>> task = ng.load_task("facts", languages=["en", "de", "th"], limit=4)
        >>> recording = ng.record(ng.load_model("embedded/base"), task)
        >>> codes = ng.categories(recording)
        >>> codes.dims
        ('item', 'layer', 'neuron')
        >>> int(codes.max()) == codes.attrs["all_shared"]
        True
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
    """The fraction of items for which each neuron is in each category (layer, neuron, category).

    Args:
        recording: from :func:`neuroglot.record`.
        threshold: a neuron is active if its site value is greater than the threshold.

    Raises:
        NeuroglotError: the threshold was not recorded, or there are fewer than two languages.
    """
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
    """How languages share neurons, beside the baselines with which sharing must be compared.

    Args:
        recording: from :func:`neuroglot.record`.
        threshold: a neuron is active if its site value is greater than the threshold.
        thresholds: several thresholds instead, to see how sharing changes with the threshold.

    Returns:
        With ``thresholds``, the mean fraction over items (threshold, layer, category). Otherwise a
        dataset with

        - ``fraction`` (item, layer, category): the share of the layer's neurons;
        - ``active`` (item, layer, language): the share of neurons active in that language;
        - ``shared_of_active`` (item, layer, language): all-shared neurons over active ones;
        - ``repetition`` (layer, category): the share of neurons that are in the category for every
          item;
        - ``membership`` (layer, neuron, category): the fraction of items for which the neuron is
          in the category;
        - ``overlap`` (layer, language, language_other): the Jaccard index of the active sets, mean
          over items;
        - ``fraction_if_items_shuffled`` (layer, category): the mean fraction expected after
          permuting each language's items (same languages and template, other content);
        - ``fraction_if_layer_rate`` (layer, category): the mean fraction expected of independent
          languages that are active at their rates in the layer.

    Raises:
        NeuroglotError: a threshold was not recorded, or there are fewer than two languages.

    Examples:
        >>> import neuroglot as ng
        >>> task = ng.load_task("facts", languages=["en", "de", "th"], limit=20)
        >>> sharing = ng.classify(ng.record(ng.load_model("embedded/base"), task))
        >>> shared = sharing["fraction"].sel(category="all_shared").mean()
        >>> shuffled = sharing["fraction_if_items_shuffled"].sel(category="all_shared").mean()
        >>> bool(shared > shuffled)  # translations share more than unrelated items
        True
    """
    require_recording(recording)
    if thresholds is not None:
        return _sweep(recording, thresholds)
    tally = tally_of(recording, threshold)
    fraction = with_the_rest(tally.sizes, recording.n_neurons) / recording.n_neurons
    n_active = np.diagonal(tally.pairs, axis1=-2, axis2=-1)
    active = n_active / recording.n_neurons
    membership = tally.membership
    with np.errstate(invalid="ignore"):
        # Languages without active neurons in a layer give NaN, which the mean leaves out.
        shared = fraction[..., -1:] / active
        overlap = tally.pairs / (n_active[..., None] + n_active[..., None, :] - tally.pairs)
        mean_overlap = np.nansum(overlap, axis=0) / (~np.isnan(overlap)).sum(axis=0)
    shuffled = shuffled_fraction(tally.active, len(recording))
    return xr.Dataset(
        {
            "fraction": (("item", "layer", "category"), fraction),
            "active": (("item", "layer", "language"), active),
            "shared_of_active": (("item", "layer", "language"), shared),
            "repetition": (("layer", "category"), (membership == 1).mean(axis=1)),
            "membership": (("layer", "neuron", "category"), membership),
            "overlap": (("layer", "language", "language_other"), mean_overlap),
            "fraction_if_items_shuffled": (("layer", "category"), shuffled),
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
        category: one of the four categories.
        layer: the layer whose neurons are listed; by default all layers.
        n: the number of neurons. Neurons with equal membership are in order of layer and neuron.

    Returns:
        A table with ``layer``, ``neuron`` and ``membership``, the fraction of items.

    Raises:
        NeuroglotError: there is no such category or layer.

    Examples:
        >>> import neuroglot as ng
        >>> task = ng.load_task("facts", languages=["en", "de", "th"], limit=20)
        >>> sharing = ng.classify(ng.record(ng.load_model("embedded/base"), task))
        >>> neurons = ng.most_often(sharing, layer=0, n=2)
        >>> list(neurons.columns), list(neurons["layer"])
        (['layer', 'neuron', 'membership'], [0, 0])
    """
    if category not in CATEGORIES:
        raise NeuroglotError(f"unknown category {category!r}; there are {listed(CATEGORIES)}.")
    membership = sharing["membership"].sel(category=category, drop=True)
    if layer is not None:
        if layer not in (layers := membership["layer"]):
            raise NeuroglotError(f"layer={layer!r}; there are {listed(layers.to_numpy())}.")
        membership = membership.sel(layer=[layer])
    if "neuron" not in membership.coords:
        membership = membership.assign_coords(neuron=np.arange(membership.sizes["neuron"]))
    rows = membership.transpose("layer", "neuron").to_series().rename("membership").reset_index()
    ranked = rows.sort_values("membership", ascending=False, kind="stable")
    return ranked.head(n).reset_index(drop=True)


def shared_of_active(sharing: xr.Dataset) -> xr.DataArray:
    """All-shared neurons over active ones, in all layers together (item, language).

    Args:
        sharing: from :func:`classify`.
    """
    shared = sharing["fraction"].sel(category="all_shared", drop=True).sum("layer")
    return shared / sharing["active"].sum("layer")


def _sweep(recording: Recording, thresholds: Sequence[float]) -> xr.DataArray:
    """The mean fraction over items (threshold, layer, category)."""
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
    """The fractions of categories in several tasks, side by side, as the paper shows them.

    The all-shared fraction falls with the number of languages, and repetition with the number of
    items. So the tasks must have the same languages and the same number of items; see
    :meth:`Recording.select`.

    Args:
        recordings: one recording for each task, of one model.
        threshold: a neuron is active if its site value is greater than the threshold.

    Returns:
        A dataset with ``mean``, ``min`` and ``max`` over items of the fraction (task, layer,
        category) and ``repetition`` (task, layer, category).

    Raises:
        NeuroglotError: the recordings differ in languages, number of items, layers, model, site,
            position or number type, or two are of one task; the message names both sides.
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
    """The mean, minimum and maximum of the fraction over items, and the repetition."""
    tally = tally_of(recording, threshold)
    fraction = with_the_rest(tally.sizes, recording.n_neurons) / recording.n_neurons
    dims = ("layer", "category")
    return xr.Dataset(
        {
            "mean": (dims, fraction.mean(axis=0)),
            "min": (dims, fraction.min(axis=0)),
            "max": (dims, fraction.max(axis=0)),
            "repetition": (dims, (tally.membership == 1).mean(axis=1)),
        },
        coords={"layer": list(recording.layers), "category": list(CATEGORIES)},
    )


def task_label(recording: Recording) -> str:
    """The name of a recording in comparisons: ``task (template)``."""
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
        for key in ("model", *RUN_AS, *OF_READING, "n_neurons"):
            one, two = (said_of(recording.attrs, key) for recording in (first, other))
            if one != two:
                raise NeuroglotError(f"{both} differ in {key}: {one!r}, {two!r}.")


def _attrs(recording: Recording, threshold: float, kind: str) -> dict[str, Any]:
    return recording.attrs | {"threshold": threshold, "kind": kind}
