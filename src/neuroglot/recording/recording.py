"""Recordings: one bit per item, language, layer and neuron, with provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.errors import NeuroglotError, listed
from neuroglot.notebook import as_html
from neuroglot.store.damage import DamagedError

KIND = "recording"
BIT_DIMS = ("threshold", "item", "language", "layer", "byte")
VALUE_DIMS = ("item", "language", "layer", "neuron")

Bits = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Recording:
    """Which neurons were active for which prompt.

    Attributes:
        dataset: ``active`` (threshold, item, language, layer, byte), with eight neurons to a byte,
            the first in the highest bit; ``values`` (item, language, layer, neuron), if they were
            kept; and provenance in the attributes.

    Examples:
        >>> import neuroglot as ng
        >>> task = ng.load_task("facts", languages=["en", "de", "th"], limit=4)
        >>> recording = ng.record(ng.load_model("embedded/base"), task)
        >>> recording.active().sizes["neuron"]
        768
        >>> recording.select(languages=["en", "de"], items=2)
        Recording(embedded/base on facts: 2 items, 2 languages, 6 layers of 768 neurons)
    """

    dataset: xr.Dataset

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes of the languages, in order."""
        return tuple(str(language) for language in self.dataset["language"].values)

    @property
    def items(self) -> tuple[str, ...]:
        """The ids of the items, in order."""
        return tuple(str(item) for item in self.dataset["item"].values)

    @property
    def layers(self) -> tuple[int, ...]:
        """The numbers of the recorded layers, in order."""
        return tuple(int(layer) for layer in self.dataset["layer"].values)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds for which activity was recorded."""
        return tuple(float(threshold) for threshold in self.dataset["threshold"].values)

    @property
    def n_neurons(self) -> int:
        """The number of neurons in a layer."""
        return int(self.dataset.attrs["n_neurons"])

    @property
    def attrs(self) -> dict[str, Any]:
        """Provenance: model, task, site, position, versions and so on."""
        return dict(self.dataset.attrs)

    @property
    def values(self) -> xr.DataArray:
        """The site values (item, language, layer, neuron).

        Raises:
            NeuroglotError: the values were not kept.
        """
        if "values" not in self.dataset:
            raise NeuroglotError("this recording holds no values; record with keep_values=True.")
        return self.dataset["values"]

    def __len__(self) -> int:
        return self.dataset.sizes["item"]

    def __repr__(self) -> str:
        return (
            f"Recording({self.attrs['model']} on {self.attrs['task']}: {len(self)} items, "
            f"{len(self.languages)} languages, {len(self.layers)} layers of "
            f"{self.n_neurons} neurons)"
        )

    def _repr_html_(self) -> str:
        kept = ("model", "task", "site", "position", "dtype")
        facts: dict[str, object] = {key: self.attrs.get(key) for key in kept}
        facts |= {"items": len(self), "languages": " ".join(self.languages)}
        facts |= {"layers": listed(self.layers, 6), "neurons_per_layer": self.n_neurons}
        facts |= {"thresholds": listed(self.thresholds), "values_kept": "values" in self.dataset}
        return as_html("recording", facts)

    def check_threshold(self, threshold: float) -> None:
        """Check that activity was recorded for a threshold.

        Raises:
            NeuroglotError: it was not; the message lists the thresholds.
        """
        if threshold not in self.thresholds:
            raise NeuroglotError(
                f"threshold {threshold} was not recorded; there are {listed(self.thresholds)}. "
                "Record with thresholds=(…)."
            )

    def bits(self, threshold: float = 0.0, items: slice | Sequence[int] = slice(None)) -> Bits:
        """Packed activity (item, language, layer, byte) at one threshold.

        Args:
            threshold: a neuron is active if its site value is greater than the threshold.
            items: the places of the items; by default all.

        Raises:
            NeuroglotError: activity was not recorded for this threshold, or the recording is
                damaged or cannot be read for another reason.
        """
        self.check_threshold(threshold)
        chosen = self.dataset["active"].isel(threshold=self.thresholds.index(threshold), item=items)
        try:
            return np.asarray(chosen.values)
        except DamagedError as error:
            ids = listed(chosen["item"].to_numpy(), 3)
            raise NeuroglotError(
                f"the recording is damaged in some of the items {ids} ({error.reason}). Record "
                "with the same settings into the same folder; undamaged items are kept."
            ) from error

    def active(
        self, threshold: float = 0.0, items: slice | Sequence[int] = slice(None)
    ) -> xr.DataArray:
        """Which neurons were active (item, language, layer, neuron), as booleans.

        Args:
            threshold: a neuron is active if its site value is greater than the threshold.
            items: the places of the items; by default all. Each neuron takes a byte of memory.

        Raises:
            NeuroglotError: see :meth:`bits`.
        """
        bits = self.bits(threshold, items)
        chosen = self.dataset["active"].isel(item=items)
        return xr.DataArray(
            np.unpackbits(bits, axis=-1, count=self.n_neurons).astype(np.bool_),
            dims=VALUE_DIMS,
            coords={dim: chosen[dim].to_numpy() for dim in VALUE_DIMS[:-1]},
            name="active",
            attrs=self.attrs | {"threshold": threshold},
        )

    def select(
        self, *, languages: Sequence[str] | None = None, items: int | Sequence[str] | None = None
    ) -> Recording:
        """The recording of only some languages and items, to compare it with another one.

        Args:
            languages: the codes of the languages to keep, in this order; by default all.
            items: the ids of the items to keep, or the number of first items; by default all.

        Raises:
            NeuroglotError: a language or item is unknown or repeated, or there are fewer than two
                languages or no items.
        """
        data = self.dataset.assign_attrs(selected=1)  # the checksum is that of the whole task
        if languages is not None:
            _require(languages, self.languages, "language")
            if len(set(languages)) < 2:
                raise NeuroglotError(
                    f"at least two languages are needed, found {listed(languages)}."
                )
            data = data.sel(language=list(languages))
        if isinstance(items, int):
            if not 1 <= items <= len(self):
                raise NeuroglotError(f"items={items}: the recording has {len(self)}.")
            data = data.isel(item=slice(items))
        elif items is not None:
            _require(items, self.items, "item")
            if not len(items):
                raise NeuroglotError("no item selected.")
            data = data.sel(item=list(items))
        return Recording(data)


def checked_recording(data: xr.Dataset) -> Recording:
    """The recording in a dataset, if its variables fit together.

    Raises:
        ValueError: variables, dimensions or sizes do not fit together.
    """
    active, neurons = data["active"], data.attrs.get("n_neurons")
    if active.dims != BIT_DIMS or active.dtype != np.uint8:
        raise ValueError(f"'active' is {active.dtype} {active.dims}, expected uint8 {BIT_DIMS}")
    if not isinstance(neurons, int) or -(-neurons // 8) != active.sizes["byte"]:
        raise ValueError(f"{active.sizes['byte']} bytes a layer do not hold {neurons!r} neurons")
    if "values" in data and data["values"].sizes.get("neuron") != neurons:
        raise ValueError(f"'values' are not of {neurons} neurons")
    return Recording(data)


def require_recording(value: object, name: str = "recording") -> None:
    """Check that an argument is a recording.

    Args:
        value: the value of the argument.
        name: the name of the argument.

    Raises:
        NeuroglotError: it is not; the message says where recordings come from.
    """
    if not isinstance(value, Recording):
        raise NeuroglotError(
            f"{name} is a {type(value).__name__}; expected what neuroglot.record returns, or "
            "neuroglot.load of its folder."
        )


def _require(wanted: Sequence[str], known: Sequence[str], what: str) -> None:
    """Check that ``wanted`` has no repeated and no unknown names of a ``what``."""
    if len(set(wanted)) < len(wanted):
        raise NeuroglotError(f"a {what} is selected twice: {listed(wanted)}.")
    unknown = [name for name in wanted if name not in set(known)]
    if unknown:
        raise NeuroglotError(
            f"the recording has no {what} {listed(unknown)}; there are {listed(known)}."
        )
