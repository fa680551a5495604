"""What the files of an array must hold.

Zarr takes chunks that are missing for zeros, and as much room as one claims to need, so all are
looked at before it reads them.
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
    """

    folder: Path
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: str

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks along each dimension."""
        return tuple(-(-n // size) for n, size in zip(self.shape, self.chunks, strict=True))

    def places(self, wanted: Sequence[Any] = ()) -> Iterator[Place]:
        """Of the chunks that hold some values, by default all.

        Args:
            wanted: for each dimension an index, a slice, or an array of indexes.
        """
        along = zip(wanted or [slice(None)] * len(self.dims), self.shape, self.chunks, strict=True)
        return itertools.product(*(_numbers(*one) for one in along))

    def file(self, place: Place) -> str:
        """Name of a chunk's file in the folder of the result."""
        return "/".join([self.folder.name, "c", *map(str, place)])

    def has_chunk(self, place: Place) -> bool:
        """Whether a chunk has a file."""
        return (self.folder.parent / self.file(place)).is_file()

    def damaged(self, reason: str) -> DamagedError:
        """The error for this array."""
        return DamagedError(self.folder.parent, reason)

    def chunk(self, place: Place) -> Values:
        """The values of one chunk, which may reach beyond the end of the array.

        Raises:
            DamagedError: it is missing, its size or checksum is wrong, or it does not decode.
        """
        path, name = self.folder.parent, self.file(place)
        if self.has_chunk(place):  # before it is read, as it may be large
            self._check_size(name, (path / name).stat().st_size)
        data = read_file(path, name)
        try:
            values = decoded(data, self.codec, math.prod(self.chunks), self.dtype)
        except WrongContentError as fault:
            raise self.damaged(f"{name}: {fault}") from fault
        return values.reshape(self.chunks)

    def require_chunks(self) -> None:
        """Every chunk must be there and of a size that may be right; none is read.

        Raises:
            DamagedError: it names the array or the chunk.
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
        """The same, and every chunk must decode.

        Raises:
            DamagedError: it names the array or the chunk.
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
    """The chunks along one dimension that are needed."""
    if not isinstance(wanted, slice):
        numbers: list[int] = np.unique(wanted % length // size).tolist()
        return numbers
    indexes = range(length)[wanted]
    if abs(indexes.step) > size:
        return sorted({index // size for index in indexes})
    first, last = sorted((indexes[0], indexes[-1])) if indexes else (0, -1)
    return range(first // size, last // size + 1)


def _file_sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Files at any depth, by their path. Unlike ``rglob``, what may not be read is said."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                found = _file_sizes(folder / entry.name)
                yield from ((f"{folder.name}/{name}", size) for name, size in found)
            elif entry.is_file():
                yield f"{folder.name}/{entry.name}", entry.stat().st_size
