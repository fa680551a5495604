"""Read and check the metadata of arrays.

Zarr (format 3) reserves as much memory as metadata claim to need, and supports more ways to store
an array than neuroglot uses. All others are refused before Zarr reads anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuroglot.errors import shown
from neuroglot.store.arrays import StoredArray
from neuroglot.store.damage import (
    METADATA,
    DamagedError,
    WrongContentError,
    array_names,
    read_json,
)

NUMBERS = ("bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)))
NUMBERS += ("float16", "float32", "float64", "complex64", "complex128")
NO_FILL = (None, "AAAAAAAA+H8=")  # xarray writes NaN as the fill value of numbers
FIXED: dict[str, tuple[object, ...]] = {
    "zarr_format": (3,),
    "node_type": ("array",),
    "chunk_key_encoding": ({"name": "default", "configuration": {"separator": "/"}},),
    "storage_transformers": (None, []),
}
MOST_DIMENSIONS = 32
MOST_CHUNKS = 2**22  # far more files than any result has
MOST_BYTES = 2**62
MOST_BEYOND = 2**28  # bytes of a chunk that is larger than its array, as with very few items


def stored_arrays(path: Path) -> dict[str, StoredArray]:
    """The arrays of a result, by name.

    Raises:
        DamagedError: metadata cannot be read or are not such as neuroglot writes, or the sizes of
            two arrays do not fit together.
    """
    metadata = {name: read_json(path, f"{name}/{METADATA}") for name in array_names(path)}
    arrays = {
        name: stored_array(path / name, of_array)
        for name, of_array in metadata.items()
        if of_array.get("node_type") != "group"
    }
    sizes = dict[str, int]()
    for name, array in arrays.items():
        for dim, size in zip(array.dims, array.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise array.damaged(f"{name!r} has {size} of {dim!r}, others {sizes[dim]}")
    return arrays


def stored_array(folder: Path, metadata: Mapping[str, Any]) -> StoredArray:
    """The array that metadata describe.

    Raises:
        DamagedError: the metadata are not such as neuroglot writes.
    """
    try:
        return _parsed(folder, metadata)
    except WrongContentError as fault:
        raise DamagedError(folder.parent, f"{folder.name}/{METADATA}: {fault}") from fault


def _parsed(folder: Path, metadata: Mapping[str, Any]) -> StoredArray:
    for key, possible in FIXED.items():
        if metadata.get(key) not in possible:
            raise _wrong(metadata, key)
    attrs = metadata.get("attributes", {})
    if not isinstance(attrs, dict) or attrs.get("_FillValue") not in NO_FILL:
        raise _wrong(metadata, "attributes")
    shape, chunks = _sizes(metadata, "shape"), _sizes(metadata, "chunk_grid")
    dims = metadata.get("dimension_names") or []  # null for a single value
    if not isinstance(dims, list) or not all(isinstance(dim, str) for dim in dims):
        raise _wrong(metadata, "dimension_names")
    dtype = _dtype(metadata)
    described = f"dimensions {shown(dims)}, sizes {shown(shape)} and chunks {shown(chunks)}"
    if not len(dims) == len(shape) == len(chunks) == len(set(dims)) <= MOST_DIMENSIONS:
        raise WrongContentError(f"{described} do not fit together")
    array = StoredArray(folder, tuple(dims), shape, chunks, dtype, _codec(metadata, dtype))
    n_bytes = max(math.prod(shape), math.prod(chunks)) * max(dtype.itemsize, 8)
    if n_bytes > MOST_BYTES or math.prod(max(n, 1) for n in array.grid) > MOST_CHUNKS:
        raise WrongContentError(f"{described} are too large for a result")
    beyond = any(size > n for size, n in zip(chunks, shape, strict=True))
    if beyond and math.prod(chunks) * dtype.itemsize > MOST_BEYOND:
        raise WrongContentError(f"{described}: a chunk reaches far beyond the array")
    return array


def _wrong(metadata: Mapping[str, Any], key: str) -> WrongContentError:
    return WrongContentError(f"{key!r} is {shown(metadata.get(key))}, which neuroglot never writes")


def _sizes(metadata: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """The sizes of an array, each at least 0, or of its chunks, each at least 1."""
    match metadata.get(key):
        case list(sizes) if key == "shape":
            least = 0
        case {"name": "regular", "configuration": {"chunk_shape": list(sizes)}}:
            least = 1
        case _:
            raise _wrong(metadata, key)
    if any(type(size) is not int or size < least for size in sizes):
        raise _wrong(metadata, key)
    return tuple(sizes)


def _dtype(metadata: Mapping[str, Any]) -> np.dtype[Any]:
    match metadata.get("data_type"):
        case "string":
            return np.dtype(object)
        case str(name) if name in NUMBERS:
            return np.dtype(name).newbyteorder("<")
        # The first version of neuroglot wrote texts of a fixed length.
        case {"name": "fixed_length_utf32", "configuration": {"length_bytes": int(length)}} if (
            0 < length <= 2**31 and not length % 4
        ):
            return np.dtype(f"<U{length // 4}")
    raise _wrong(metadata, "data_type")


def _codec(metadata: Mapping[str, Any], dtype: np.dtype[Any]) -> str:
    """The codec of the chunks, if it is one that neuroglot writes."""
    match metadata.get("codecs"):
        case [{"name": str(to_bytes), **rest}, {"name": "zstd" | "crc32c" as codec}]:
            is_little = rest.get("configuration", {}) in ({}, {"endian": "little"})
            if is_little and to_bytes == ("vlen-utf8" if dtype.kind == "O" else "bytes"):
                return str(codec)
    raise _wrong(metadata, "codecs")
