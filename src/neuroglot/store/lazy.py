"""Open saved results as datasets, whose chunks are checked before Zarr reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr
from xarray.backends.common import BackendArray
from xarray.core import indexing

from neuroglot.store.arrays import StoredArray, stored_arrays
from neuroglot.store.damage import check_layout, reading, todays_names


class _Checked(BackendArray):
    """Values that are checked and read when they are used."""

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
    """The result at ``path``; the labels of dimensions are read now, other values when used.

    Raises:
        DamagedError: metadata or labels are damaged or do not fit together.
    """
    check_layout(path)
    arrays = stored_arrays(path)
    for name, array in arrays.items():
        if array.dims == (name,):
            array.require_whole()
    data = xr.open_zarr(path, chunks=None, consolidated=False, decode_cf=False)
    # Sorted, since the order of files in a folder depends on how and where they were written.
    variables = {name: data.variables[name] for name in sorted(map(str, data.variables))}
    for name in variables.keys() - set(data.xindexes):
        read = variables[name]
        values = indexing.LazilyIndexedArray(_Checked(arrays[name], read))
        variables[name] = xr.Variable(read.dims, values, read.attrs, read.encoding)
    return xr.decode_cf(xr.Dataset(variables, attrs=todays_names(data.attrs)))


def require_chunks(path: Path, but: str | None = None) -> None:
    """Check that no chunk of a result is missing.

    Args:
        path: the folder of the result.
        but: the name of an array that may lack chunks.

    Raises:
        DamagedError: a chunk is missing or has an impossible size; the message names the array or
            the chunk.
    """
    for name, array in stored_arrays(path).items():
        if name != but:
            array.require_chunks()
