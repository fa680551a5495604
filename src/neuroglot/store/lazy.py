"""Saved results as datasets: Zarr reads them, once what is asked for is known to be sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr
from xarray.backends.common import BackendArray
from xarray.core import indexing

from neuroglot.store.arrays import StoredArray
from neuroglot.store.damage import check_layout, reading, todays_names
from neuroglot.store.metadata import stored_arrays


class _Checked(BackendArray):
    """Values that are read when they are used, and then may turn out to be damaged."""

    def __init__(self, stored: StoredArray, variable: xr.Variable) -> None:
        self.stored, self.variable = stored, variable
        self.shape, self.dtype = variable.shape, variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        outer = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, outer, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        with reading(self.stored.folder.parent):
            for place in self.stored.places(key):
                self.stored.chunk(place)
            return self.variable[key].to_numpy()


def lazy_dataset(path: Path) -> xr.Dataset:
    """The result at ``path``: what labels dimensions is read, the rest when it is used.

    Raises:
        DamagedError: metadata or labels cannot be read, or do not fit together.
    """
    check_layout(path)
    arrays = stored_arrays(path)
    for name, array in arrays.items():
        if array.dims == (name,):
            array.require_whole()
    data = xr.open_zarr(path, chunks=None, consolidated=False, decode_cf=False)
    # By name: the order of a folder depends on how and where it was written.
    names = sorted(map(str, data.variables))
    found = {
        name: data.variables[name]
        if name in data.xindexes
        else _lazy(arrays[name], data.variables[name])
        for name in names
    }
    return xr.decode_cf(xr.Dataset(found, attrs=todays_names(data.attrs)))


def _lazy(stored: StoredArray, variable: xr.Variable) -> xr.Variable:
    """The variable, which is read when it is used."""
    values = indexing.LazilyIndexedArray(_Checked(stored, variable))
    return xr.Variable(variable.dims, values, variable.attrs, variable.encoding)


def require_chunks(path: Path, but: str | None = None) -> None:
    """A result must be complete before it is read.

    Args:
        path: of the result.
        but: an array that may lack chunks.

    Raises:
        DamagedError: it names the array or the chunk.
    """
    for name, array in stored_arrays(path).items():
        if name != but:
            array.require_chunks()
