"""Results on disk: xarray datasets in Zarr, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.codecs import ZstdCodec

from neuroglot.errors import NeuroglotError, listed
from neuroglot.recording.damage import (
    DAMAGE,
    LAYOUT,
    check_layout,
    damaged,
    guarded,
    mark_layout,
    read_attributes,
    require_chunks,
)
from neuroglot.recording.folders import as_path, fresh_folder, is_result, locked, require_free
from neuroglot.recording.recording import UNIT, Recording, checked_recording

DONE = "done"  # which items of a growing result are written
FINISHED = "finished"  # attribute of one that is whole
ITEMS_ADDED = "items_added"  # attribute of sums that do not hold all items yet
ONE_ARRAY = "data_array"  # attribute that names the variable of a saved DataArray
# Settings that may differ between a run and its resumption without changing what is recorded.
FREE_TO_CHANGE = frozenset(
    {"batch_size", "device", "deterministic", "padding_side", FINISHED, ITEMS_ADDED, LAYOUT}
)
CHECKED = (ZstdCodec(checksum=True),)

Stored = Recording | xr.Dataset | xr.DataArray


def save(result: Stored, path: str | Path, *, overwrite: bool = False) -> None:
    """Save a recording or any result; :func:`neuroglot.open` reads it again.

    Raises:
        NeuroglotError: ``path`` exists and ``overwrite`` is not set, or cannot be written.
    """
    out = as_path(path)
    data = _as_dataset(result).load()
    with locked(out):
        require_free(out, overwrite=overwrite)
        with fresh_folder(out) as fresh:
            write_whole(data, fresh)
            mark_layout(fresh)


def write_whole(data: xr.Dataset, path: Path) -> None:
    """Write variables and attributes into a folder, beside what is there, with checksums."""
    data = text_as_objects(data)
    for variable in data.variables.values():
        # The chunks and compressors of where the data came from are not those of the new store.
        variable.encoding.clear()
    data.to_zarr(
        path,
        mode="a",
        consolidated=False,
        encoding={name: {"compressors": CHECKED} for name in data.variables},
        write_empty_chunks=True,
    )


def text_as_objects(data: xr.Dataset) -> xr.Dataset:
    """Text of any length: Zarr v3 has no specified type for text of a fixed length."""
    fixed = {n: v.astype(object) for n, v in data.variables.items() if v.dtype.kind == "U"}
    return _replaced(data, fixed)


def _text_as_strings(data: xr.Dataset) -> xr.Dataset:
    """Undo :func:`text_as_objects`."""
    found = {
        n: v.astype(object).astype(str) for n, v in data.variables.items() if v.dtype.kind in "OT"
    }
    return _replaced(data, found)


def _replaced(data: xr.Dataset, variables: dict[Any, xr.Variable]) -> xr.Dataset:
    """The dataset with other values; coordinates stay coordinates, and variables variables."""
    coordinates = {name: values for name, values in variables.items() if name in data.coords}
    others = {name: values for name, values in variables.items() if name not in data.coords}
    return data.assign_coords(coordinates).assign(others)


def _as_dataset(result: Stored) -> xr.Dataset:
    if isinstance(result, Recording):
        return result.dataset.copy()
    if isinstance(result, xr.DataArray):
        name = str(result.name or "values")
        return result.to_dataset(name=name).assign_attrs(result.attrs | {ONE_ARRAY: name})
    return result.copy()


def require_same(path: Path, found: xr.Dataset, wanted: xr.Dataset, dims: Iterable[str]) -> None:
    """Check that what is at ``path`` was made with the settings that are wanted now.

    Raises:
        NeuroglotError: it names the settings or dimensions that differ.
    """
    keys = sorted({*found.attrs, *wanted.attrs} - FREE_TO_CHANGE)
    different = [
        f"{key}: there {found.attrs.get(key)!r}, now {wanted.attrs.get(key)!r}"
        for key in keys
        if found.attrs.get(key) != wanted.attrs.get(key)
    ]
    different += [
        f"{dim}s: there {_some(found, dim)}, now {_some(wanted, dim)}"
        for dim in dims
        if dim not in found.coords
        or not np.array_equal(found[dim].to_numpy(), wanted[dim].to_numpy())
    ]
    if different:
        raise NeuroglotError(
            f"{str(path)!r} was made with other settings ({'; '.join(different)}). Name another "
            "folder, use the same settings, or pass overwrite=True (--overwrite)."
        )


def _some(data: xr.Dataset, dim: str) -> str:
    return listed(data[dim].to_numpy(), 3) if dim in data.coords else "none"


def open_dataset(path: Path, *, only_coordinates: bool = False) -> xr.Dataset:
    """The stored dataset; texts and coordinates are read, other data when they are used.

    Args:
        path: of the result.
        only_coordinates: leave out everything else, which may be damaged.

    Raises:
        NeuroglotError: it cannot be read.
    """
    try:
        check_layout(path)
        data: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=False)
        data.attrs.pop(LAYOUT, None)
        kept = data.drop_vars(list(data.data_vars)) if only_coordinates else data
        return guarded(_text_as_strings(kept), path)
    except DAMAGE as error:
        raise damaged(path, error) from error


def open_result(path: str | Path) -> Stored:
    """Reload anything saved: a :class:`Recording`, or another result as it was.

    A recording is read when it is used; other results are read at once.

    Raises:
        NeuroglotError: there is no result, it was not finished, or it is damaged.
    """
    folder = Path(path)
    if not is_result(folder):
        raise NeuroglotError(f"{str(folder)!r} holds no result of neuroglot.")
    try:
        return _open(folder)
    except NeuroglotError:
        raise
    except DAMAGE as error:
        raise damaged(folder, error) from error


def opened_dataset(path: str | Path) -> xr.Dataset:
    """A result that is known to be a dataset."""
    found = open_result(path)
    assert isinstance(found, xr.Dataset)
    return found


def _open(folder: Path) -> Stored:
    """A result in a folder that holds one; see :func:`open_result`."""
    grows = (folder / DONE).is_dir()
    if not grows or read_attributes(folder).get(FINISHED):
        # Before anything is read, since that would take memory for whatever is claimed.
        require_chunks(folder, but=DONE)
    data = open_dataset(folder)
    if ITEMS_ADDED in data.attrs:
        raise _unfinished(folder, data, int(data.attrs[ITEMS_ADDED]))
    if grows:
        data = _finished(folder, data)
    if data.attrs.get("unit") == UNIT:
        return checked_recording(data)
    data.load()
    if ONE_ARRAY in data.attrs:
        name = data.attrs.pop(ONE_ARRAY)
        array: xr.DataArray = data[name].assign_attrs(data.attrs)
        return array
    return data


def _finished(path: Path, data: xr.Dataset) -> xr.Dataset:
    """A result that grew block by block, without the marks of its blocks.

    Raises:
        NeuroglotError: it was not finished.
    """
    if not data.attrs.get(FINISHED):
        raise _unfinished(path, data, int(data[DONE].sum()))
    kept = {key: value for key, value in data.attrs.items() if key != FINISHED}
    found = data.drop_vars(DONE)
    found.attrs = kept
    return found


def _unfinished(path: Path, data: xr.Dataset, n_done: int) -> NeuroglotError:
    return NeuroglotError(
        f"{str(path)!r} is an unfinished {data.attrs['unit']} ({n_done} of "
        f"{data.sizes['item']} items); the same call or command with the same folder goes on."
    )
