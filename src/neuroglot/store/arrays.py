"""Checks of the files of an array.

Zarr reads a missing chunk as zeros, and reserves as much memory as a chunk claims to need. So all
chunks are checked before Zarr reads them.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuroglot.store.chunks import Values, check_size, decoded
from neuroglot.store.damage import DamagedError, WrongContentError, read_file

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
