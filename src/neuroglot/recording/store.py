"""Results on disk: xarray datasets in Zarr, written whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.errors import NeuroglotError, listed
from neuroglot.recording.recording import UNIT, Recording

DONE = "done"
ONE_ARRAY = "data_array"  # attribute that names the variable of a saved DataArray
# Settings that may differ between a run and its resumption without changing what is recorded.
FREE_TO_CHANGE = frozenset({"batch_size", "device", "padding_side"})

Stored = Recording | xr.Dataset | xr.DataArray


def is_result(path: Path) -> bool:
    """Whether a folder holds something that neuroglot saved, and not just any Zarr data."""
    try:
        metadata = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return "unit" in metadata.get("attributes", {})


def as_path(out: str | Path) -> Path:
    """The folder to write to; its parent is made if missing.

    Raises:
        NeuroglotError: the place cannot be written to.
    """
    path = Path(out).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NeuroglotError(f"cannot write to {str(path)!r}: {error}.") from error
    if path.exists() and not path.is_dir():
        raise NeuroglotError(f"{str(path)!r} is a file; a result needs a folder of its own.")
    return path


def clear(path: Path, *, overwrite: bool) -> None:
    """Make room for a new result at ``path``.

    Raises:
        NeuroglotError: something is there and ``overwrite`` is not set, or it is no result.
    """
    if not path.exists():
        return
    if any(path.iterdir()):
        if not is_result(path):
            raise NeuroglotError(
                f"{str(path)!r} is not empty and holds no result of neuroglot; name another folder."
            )
        if not overwrite:
            raise NeuroglotError(
                f"{str(path)!r} already holds a result; pass overwrite=True (--overwrite) to "
                "replace it."
            )
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise NeuroglotError(f"cannot replace {str(path)!r}: {error}.") from error


def save(result: Stored, path: str | Path, *, overwrite: bool = False) -> None:
    """Save a recording or any result; :func:`neuroglot.open` reads it again.

    Raises:
        NeuroglotError: ``path`` exists and ``overwrite`` is not set, or cannot be written.
    """
    out = as_path(path)
    data = text_as_objects(_as_dataset(result).load())
    for variable in data.variables.values():
        # The chunks and compressors of where the data came from are not those of the new store.
        variable.encoding.clear()
    with fresh_folder(out) as fresh:
        data.to_zarr(fresh, mode="w", consolidated=False)
        clear(out, overwrite=overwrite)
        fresh.rename(out)


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A new folder beside ``out``, to be renamed to it when it is whole; gone if it is not.

    Raises:
        NeuroglotError: the place cannot be written to.
    """
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
            yield Path(folder) / out.name
    except OSError as error:
        raise NeuroglotError(f"cannot write to {str(out)!r}: {error}.") from error


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


def open_dataset(path: Path) -> xr.Dataset:
    """The stored dataset; data are read when they are used.

    Raises:
        NeuroglotError: it cannot be read.
    """
    try:
        data: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=False)
    except (OSError, KeyError, ValueError) as error:
        raise NeuroglotError(f"cannot read a result from {str(path)!r}: {error}.") from error
    return _text_as_strings(data)


def open_result(path: str | Path) -> Stored:
    """Reload anything saved: a :class:`Recording`, or another result as it was.

    Raises:
        NeuroglotError: there is no result, or it is a recording that was not finished.
    """
    folder = Path(path)
    if not is_result(folder):
        raise NeuroglotError(f"{str(folder)!r} holds no result of neuroglot.")
    data = open_dataset(folder)
    if ONE_ARRAY in data.attrs:
        name = data.attrs.pop(ONE_ARRAY)
        array: xr.DataArray = data[name].assign_attrs(data.attrs)
        return array
    if data.attrs.get("unit") != UNIT:
        return data
    if DONE in data:
        finished, total = int(data[DONE].sum()), data.sizes["item"]
        if finished < total:
            raise NeuroglotError(
                f"{str(folder)!r} is an unfinished recording ({finished} of {total} items); "
                "record with the same settings and out= to go on."
            )
        data = data.drop_vars(DONE)
    return Recording(data)
