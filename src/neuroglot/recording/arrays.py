"""Arrays in the folder of a result, read chunk by chunk in the thread that asks.

Zarr writes them (format 3). They are read here, because Zarr takes what is missing for zeros, takes
as much room as a chunk claims to need, and cannot read where no thread can be started.
"""

from __future__ import annotations

import base64
import itertools
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends.common import BackendArray
from xarray.core import indexing

from neuroglot.errors import shown
from neuroglot.recording.chunks import Values, check_size, decoded
from neuroglot.recording.damage import (
    METADATA,
    DamagedError,
    WrongContentError,
    array_names,
    check_layout,
    read_attributes,
    read_file,
    read_json,
    reading,
)

TEXT = "string"
FIXED_TEXT = "fixed_length_utf32"  # of the first version
NUMBERS = ("bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)))
NUMBERS += ("float16", "float32", "float64", "complex64", "complex128")
CHUNK_KEYS = {"name": "default", "configuration": {"separator": "/"}}
MOST_DIMENSIONS = 32
MOST_BYTES = 2**62
MOST_BEYOND = 2**28  # bytes of a chunk that is larger than its array, as that of few items may be

Place = tuple[int, ...]
"""Of a chunk in the grid of chunks."""


@dataclass(frozen=True)
class StoredArray:
    """How an array is kept.

    Attributes:
        folder: of the array, in that of the result.
        dims: names of its dimensions.
        shape: its sizes.
        chunks: the sizes of a chunk; those at the end of a dimension are filled up.
        dtype: of its values, ``object`` for texts.
        codec: ``"zstd"`` or ``"crc32c"``.
        attrs: its attributes.
    """

    folder: Path
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: str
    attrs: Mapping[str, Any]

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks along each dimension."""
        return tuple(-(-n // size) for n, size in zip(self.shape, self.chunks, strict=True))

    def damaged(self, reason: str) -> DamagedError:
        """The error for this array."""
        return DamagedError(self.folder.parent, reason)

    def chunk(self, place: Place) -> Values:
        """The values of one chunk, which may reach beyond the end of the array.

        Raises:
            DamagedError: it is missing, its size or checksum is wrong, or it does not decode.
        """
        self._require([place])
        key = _key(place)
        data = read_file(self.folder.parent, f"{self.folder.name}/{key}")
        try:
            values = decoded(data, self.codec, math.prod(self.chunks), self.dtype)
        except WrongContentError as fault:
            raise self.damaged(f"{self.folder.name}/{key}: {fault}") from fault
        return values.reshape(self.chunks)

    def chunks_there(self) -> list[Place]:
        """The places of the chunks that have a file."""
        keys = [key.split("/") for key, _ in _file_sizes(self.folder)]
        return [tuple(map(int, key[1:])) for key in keys if _is_chunk(key)]

    def has_chunk(self, place: Place) -> bool:
        """Whether a chunk has a file."""
        return (self.folder / _key(place)).is_file()

    def require_chunks(self) -> None:
        """Every chunk must be there and of a size that may be right; none is read.

        Raises:
            DamagedError: it names the array or the chunk.
        """
        sizes = dict(_file_sizes(self.folder))
        sizes.pop(METADATA)
        # Counted before they are listed: damaged metadata may claim any number.
        missing = math.prod(self.grid) - len(sizes)
        if missing <= 0:
            keys = [_key(place) for place in itertools.product(*map(range, self.grid))]
            missing = sum(key not in sizes for key in keys)
        if missing > 0:
            raise self.damaged(
                f"{missing} of {math.prod(self.grid)} chunks of {self.folder.name!r} are missing"
            )
        for key in keys:
            self._check_size(key, sizes[key])

    def _require(self, places: Iterable[Place]) -> None:
        """The same of some chunks; of so many that they cannot be listed, one is missing."""
        for key in map(_key, places):
            file = self.folder / key
            if not file.is_file():
                raise self.damaged(f"no file {self.folder.name}/{key}")
            self._check_size(key, file.stat().st_size)

    def _check_size(self, key: str, size: int) -> None:
        try:
            check_size(size, self.codec, math.prod(self.chunks), self.dtype)
        except WrongContentError as fault:
            raise self.damaged(f"{self.folder.name}/{key}: {fault}") from fault

    def read(self, wanted: Sequence[slice | Values]) -> Values:
        """Some of the values, in the order in which they are asked for.

        Args:
            wanted: for each dimension a slice with a step above zero, or indexes from zero.

        Raises:
            DamagedError: a chunk that holds some of them is missing or damaged.
        """
        along = list(zip(wanted, self.shape, self.chunks, strict=True))
        # Before anything is made room for.
        self._require(_places([_numbers(*one) for one in along]))
        out = np.empty([_length(one, n) for one, n, _ in along], self.dtype)
        for pieces in itertools.product(*(list(_pieces(*one)) for one in along)):
            values = self.chunk(tuple(number for number, _, _ in pieces))
            _copy(values, [inside for _, _, inside in pieces], out, [to for _, to, _ in pieces])
        return out

    def read_all(self) -> Values:
        """All values.

        Raises:
            DamagedError: a chunk is missing or damaged.
        """
        return self.read([slice(None)] * len(self.shape))


def _key(place: Place) -> str:
    """The file of a chunk in the folder of its array."""
    return "/".join(["c", *map(str, place)])


def _is_chunk(key: Sequence[str]) -> bool:
    return key[0] == "c" and all(part.isdecimal() for part in key[1:])


def _file_sizes(folder: Path, before: str = "") -> Iterator[tuple[str, int]]:
    """Files at any depth, by their path. Unlike ``rglob``, what may not be read is said."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _file_sizes(folder / entry.name, f"{before}{entry.name}/")
            elif entry.is_file():
                yield before + entry.name, entry.stat().st_size


def _places(numbers: Sequence[Iterable[int]]) -> Iterator[Place]:
    """The product of the numbers, of which there may be more than could be listed."""
    if not numbers:
        yield ()
        return
    for number in numbers[0]:
        for others in _places(numbers[1:]):
            yield (number, *others)


def _length(wanted: slice | Values, length: int) -> int:
    return len(range(length)[wanted]) if isinstance(wanted, slice) else len(wanted)


def _numbers(wanted: slice | Values, length: int, size: int) -> Iterable[int]:
    """The chunks along one dimension that are needed, or lie between them."""
    if not isinstance(wanted, slice):
        found: list[int] = np.unique(wanted // size).tolist()
        return found
    indexes = range(length)[wanted]
    return range(indexes[0] // size, indexes[-1] // size + 1) if indexes else range(0)


def _pieces(
    wanted: slice | Values, length: int, size: int
) -> Iterator[tuple[int, slice | Values, slice | Values]]:
    """Along one dimension: a chunk, where its values go, and where they stand in the chunk."""
    if not isinstance(wanted, slice):
        for number in _numbers(wanted, length, size):
            places = np.flatnonzero(wanted // size == number)
            yield number, places, wanted[places] - number * size
        return
    indexes = range(length)[wanted]
    for number in _numbers(wanted, length, size):
        # The first of the indexes that is not below each end of the chunk.
        ends = (number * size, (number + 1) * size)
        begin, end = (max(0, -(-(x - indexes.start) // indexes.step)) for x in ends)
        end = min(end, len(indexes))
        if begin < end:
            first, last = indexes[begin] - number * size, indexes[end - 1] - number * size
            yield number, slice(begin, end), slice(first, last + 1, indexes.step)


def _copy(
    values: Values, inside: list[slice | Values], out: Values, places: list[slice | Values]
) -> None:
    """``out[places] = values[inside]``, dimension by dimension."""
    if all(isinstance(one, slice) for one in inside):
        out[tuple(places)] = values[tuple(inside)]
    else:
        out[_outer(places, out.shape)] = values[_outer(inside, values.shape)]


def _outer(wanted: list[slice | Values], shape: tuple[int, ...]) -> tuple[Values, ...]:
    """Indexes that NumPy takes dimension by dimension."""
    indexes = [
        np.arange(n)[one] if isinstance(one, slice) else one
        for one, n in zip(wanted, shape, strict=True)
    ]
    return np.ix_(*indexes)


def stored_arrays(path: Path) -> dict[str, StoredArray]:
    """The arrays of a result, by name.

    Raises:
        DamagedError: one is kept in a way that cannot be read, or not as neuroglot does.
    """
    found = {name: read_json(path, f"{name}/{METADATA}") for name in array_names(path)}
    return {
        name: stored_array(path / name, metadata)
        for name, metadata in found.items()
        if metadata.get("node_type") != "group"
    }


def stored_array(folder: Path, metadata: Mapping[str, Any]) -> StoredArray:
    """An array from its metadata.

    Raises:
        DamagedError: they are not such as neuroglot writes.
    """
    try:
        return _parsed(folder, metadata)
    except WrongContentError as fault:
        raise DamagedError(folder.parent, f"{folder.name}/{METADATA}: {fault}") from fault


def _parsed(folder: Path, metadata: Mapping[str, Any]) -> StoredArray:
    fixed = {
        **{"zarr_format": 3, "node_type": "array", "chunk_key_encoding": CHUNK_KEYS},
        "storage_transformers": [],
    }
    for key, expected in fixed.items():
        if metadata.get(key, []) != expected:
            raise WrongContentError(f"{key!r} is {shown(metadata.get(key))}, expected {expected!r}")
    shape, chunks = _sizes(metadata.get("shape"), 0), _chunk_shape(metadata.get("chunk_grid"))
    dims = metadata.get("dimension_names") or []  # none of a single value
    if not isinstance(dims, list) or not all(isinstance(dim, str) for dim in dims):
        raise WrongContentError(f"'dimension_names' are {shown(dims)}, expected names")
    if not len(dims) == len(shape) == len(chunks) == len(set(dims)):
        raise WrongContentError(
            f"dimensions {shown(dims)}, sizes {shown(shape)} and chunks {shown(chunks)}"
        )
    dtype = _dtype(metadata.get("data_type"))
    if max(math.prod(shape), math.prod(chunks)) * max(dtype.itemsize, 8) > MOST_BYTES:
        raise WrongContentError(
            f"sizes {shown(shape)} in chunks of {shown(chunks)} are more than can be"
        )
    beyond = any(size > n for size, n in zip(chunks, shape, strict=True))
    if beyond and math.prod(chunks) * dtype.itemsize > MOST_BEYOND:
        raise WrongContentError(f"chunks of {shown(chunks)} reach far beyond {shown(shape)}")
    attrs = metadata.get("attributes", {})
    if not isinstance(attrs, dict):
        raise WrongContentError(f"'attributes' are {shown(attrs)}, expected an object")
    codec = _codec(metadata.get("codecs"), dtype)
    return StoredArray(folder, tuple(dims), shape, chunks, dtype, codec, _without_fill(attrs))


def _sizes(value: object, least: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MOST_DIMENSIONS:
        raise WrongContentError(f"{shown(value)} are no sizes")
    if any(type(size) is not int or size < least for size in value):
        raise WrongContentError(f"{shown(value)} are no sizes of at least {least}")
    return tuple(value)


def _chunk_shape(grid: object) -> tuple[int, ...]:
    configuration = grid.get("configuration") if isinstance(grid, dict) else None
    if not isinstance(configuration, dict) or grid != {
        "name": "regular",
        "configuration": configuration,
    }:
        raise WrongContentError(f"'chunk_grid' is {shown(grid)}, expected a regular one")
    return _sizes(configuration.get("chunk_shape"), 1)


def _dtype(data_type: object) -> np.dtype[Any]:
    if data_type == TEXT:
        return np.dtype(object)
    if isinstance(data_type, str) and data_type in NUMBERS:
        return np.dtype(data_type).newbyteorder("<")
    if isinstance(data_type, dict) and data_type.get("name") == FIXED_TEXT:
        configuration = data_type.get("configuration")
        length = configuration.get("length_bytes") if isinstance(configuration, dict) else None
        if type(length) is int and 0 < length <= 2**31 and not length % 4:
            return np.dtype(f"<U{length // 4}")
    raise WrongContentError(f"'data_type' is {shown(data_type)}, which neuroglot does not write")


def _codec(codecs: object, dtype: np.dtype[Any]) -> str:
    """How the bytes are kept, if it is in one of the ways that neuroglot writes."""
    names = []
    for codec in codecs if isinstance(codecs, list) else []:
        name = codec.get("name") if isinstance(codec, dict) else None
        configuration = codec.get("configuration", {}) if isinstance(codec, dict) else None
        if name == "bytes" and configuration not in ({}, {"endian": "little"}):
            name = None
        names.append(name)
    to_bytes = "vlen-utf8" if dtype.kind == "O" else "bytes"
    if names not in ([to_bytes, "zstd"], [to_bytes, "crc32c"]):
        raise WrongContentError(f"codecs {shown(codecs)} are not those that neuroglot writes")
    return str(names[1])


def _without_fill(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes without the mark that xarray gives to numbers: that NaN stands for NaN."""
    kept = dict(attrs)
    fill = kept.pop("_FillValue", None)
    if fill is not None and not _is_nan(fill):
        raise WrongContentError(f"'_FillValue' is {shown(fill)}, expected NaN")
    return kept


def _is_nan(encoded: object) -> bool:
    try:
        content = base64.standard_b64decode(str(encoded))
        return any(math.isnan(x) for x in struct.unpack(f"<{len(content) // 8}d", content))
    except (ValueError, struct.error):
        return False


class _Lazy(BackendArray):
    """Values that are read when they are used, and then may turn out to be damaged."""

    def __init__(self, array: StoredArray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        outer = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, outer, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        wanted = [_from_zero(one, n) for one, n in zip(key, self.shape, strict=True)]
        kept = [0 if isinstance(one, int | np.integer) else slice(None) for one in key]
        with reading(self.array.folder.parent):
            return self.array.read(wanted)[(*kept, ...)]


def _from_zero(wanted: Any, length: int) -> slice | Values:
    """What xarray asks for along a dimension, counted from its beginning."""
    if isinstance(wanted, slice):
        return wanted
    if isinstance(wanted, int | np.integer):
        index = range(length)[wanted]
        return slice(index, index + 1)
    indexes: Values = np.where(wanted < 0, wanted + length, wanted)
    return indexes


def lazy_dataset(path: Path) -> xr.Dataset:
    """The result at ``path``: what labels dimensions is read, the rest when it is used.

    Raises:
        DamagedError: metadata or labels cannot be read, or do not fit together.
    """
    check_layout(path)
    arrays, sizes = stored_arrays(path), dict[str, int]()
    for name, array in arrays.items():
        for dim, size in zip(array.dims, array.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise array.damaged(f"{name!r} has {size} of {dim!r}, others {sizes[dim]}")
    variables = {name: _variable(name, array) for name, array in arrays.items()}
    return xr.decode_cf(xr.Dataset(variables, attrs=read_attributes(path)))


def _variable(name: str, array: StoredArray) -> xr.Variable:
    is_label = array.dims == (name,)
    data = array.read_all() if is_label else indexing.LazilyIndexedArray(_Lazy(array))
    return xr.Variable(array.dims, data, array.attrs)


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
