"""Read how the arrays of a result are stored, and check their chunks.

Zarr (format 3) reserves as much memory as metadata and chunks claim to need, supports more ways to
store an array than neuroglot uses, and reads a missing chunk as zeros. So both are checked before
Zarr reads anything.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuroglot.errors import shown
from neuroglot.store.chunks import Values, check_size, decoded
from neuroglot.store.damage import (
    METADATA,
    DamagedError,
    WrongContentError,
    array_names,
    read_file,
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

Place = tuple[int, ...]
"""The position of a chunk in the grid of chunks."""


@dataclass(frozen=True)
class StoredArray:
    """How an array is stored.

    Attributes:
        folder: the folder of the array, inside the folder of the result.
        dims: the names of its dimensions.
        shape: its size along each dimension.
        chunks: the size of a chunk along each dimension; the last chunks are padded to it.
        dtype: the type of its values; ``object`` for texts.
        codec: ``"zstd"`` or ``"crc32c"``.
    """

    folder: Path
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: str

    @property
    def grid(self) -> tuple[int, ...]:
        """The number of chunks along each dimension."""
        return tuple(-(-n // size) for n, size in zip(self.shape, self.chunks, strict=True))

    def places(self, wanted: Sequence[Any] = ()) -> Iterator[Place]:
        """The positions of the chunks that hold the wanted values, by default of all chunks.

        Args:
            wanted: an index, a slice or an array of indexes for each dimension.
        """
        keys = wanted or [slice(None)] * len(self.dims)
        return itertools.product(*map(_numbers, keys, self.shape, self.chunks))

    def file(self, place: Place) -> str:
        """The path of a chunk's file, relative to the folder of the result."""
        return "/".join([self.folder.name, "c", *map(str, place)])

    def has_chunk(self, place: Place) -> bool:
        """Whether a chunk has a file."""
        return (self.folder.parent / self.file(place)).is_file()

    def damaged(self, reason: str) -> DamagedError:
        """The error that says what is wrong with this array."""
        return DamagedError(self.folder.parent, reason)

    def chunk(self, place: Place) -> Values:
        """The values of one chunk, which may reach beyond the end of the array.

        Raises:
            DamagedError: it is missing, its size or checksum is wrong, or it cannot be decoded.
        """
        path, name = self.folder.parent, self.file(place)
        if self.has_chunk(place):  # checked before it is read, because it may be large
            self._check_size(name, (path / name).stat().st_size)
        data = read_file(path, name)
        try:
            values = decoded(data, self.codec, math.prod(self.chunks), self.dtype)
        except WrongContentError as fault:
            raise self.damaged(f"{name}: {fault}") from fault
        return values.reshape(self.chunks)

    def require_chunks(self) -> None:
        """Check that every chunk is there and has a possible size, without reading any.

        Raises:
            DamagedError: one does not; the message names the array or the chunk.
        """
        sizes = dict(_file_sizes(self.folder))
        missing = sum(self.file(place) not in sizes for place in self.places())
        if missing:
            raise self.damaged(
                f"{missing} of {math.prod(self.grid)} chunks of {self.folder.name!r} are missing"
            )
        for name in map(self.file, self.places()):
            self._check_size(name, sizes[name])

    def require_whole(self) -> None:
        """Check that every chunk is there, has its checksum and can be decoded.

        Raises:
            DamagedError: one does not; the message names the array or the chunk.
        """
        self.require_chunks()
        for place in self.places():
            self.chunk(place)

    def _check_size(self, name: str, size: int) -> None:
        try:
            check_size(size, self.codec, math.prod(self.chunks), self.dtype)
        except WrongContentError as fault:
            raise self.damaged(f"{name}: {fault}") from fault


def _numbers(wanted: Any, length: int, size: int) -> Iterable[int]:
    """The numbers of the chunks along one dimension that hold the wanted indexes."""
    if not isinstance(wanted, slice):
        numbers: list[int] = np.unique(wanted % length // size).tolist()
        return numbers
    indexes = range(length)[wanted]
    if abs(indexes.step) > size:
        return sorted({index // size for index in indexes})
    first, last = sorted((indexes[0], indexes[-1])) if indexes else (0, -1)
    return range(first // size, last // size + 1)


def _file_sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Path and size of the files at any depth.

    Unlike ``Path.rglob``, it raises an error for a folder that may not be read.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                below = _file_sizes(folder / entry.name)
                yield from ((f"{folder.name}/{name}", size) for name, size in below)
            elif entry.is_file():
                yield f"{folder.name}/{entry.name}", entry.stat().st_size


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
