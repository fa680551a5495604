"""A result in a folder that grows block by block of items."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Hashable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec

from neuroglot.store.arrays import StoredArray, stored_arrays
from neuroglot.store.asking import Checksums
from neuroglot.store.chunks import Values
from neuroglot.store.damage import (
    LAYOUT,
    DamagedError,
    layout_of,
    mark_layout,
    read_attributes,
    reading,
    writing,
)
from neuroglot.store.lazy import lazy_dataset
from neuroglot.store.results import (
    ASKED,
    DONE,
    FINISHED,
    GROWING,
    marks_of,
    text_as_objects,
    write_whole,
)

KEPT = "kept"  # array that marks which prompts were taken over from a smaller result


def blocks_of(n_items: int, size: int) -> list[slice]:
    """Blocks of ``size`` items, the last of which may be smaller."""
    return [slice(start, min(start + size, n_items)) for start in range(0, n_items, size)]


class InFolder:
    """A growing result in a folder, in which each block of items is either done or not.

    A block is marked as done after its data are written. Zarr writes each chunk under another name
    and renames it, so a chunk is never half there, and each chunk has a checksum.
    """

    def __init__(self, path: Path, head: xr.Dataset) -> None:
        """Open the folder.

        Args:
            path: the folder, which holds a result.
            head: the variables that are no part of any block.
        """
        self.path, self.head = path, head
        # Chunks of zeros are written too, so that a missing chunk always means damage.
        with reading(path), zarr.config.set({"array.write_empty_chunks": True}):
            stored = self._stored()
            self.group = zarr.open_group(path, mode="r+", use_consolidated=False)
            self.arrays: dict[str, Any] = {name: self.group[name] for name in stored}
            done = marks_of(path, stored)  # None if the result was saved as a whole
        self.n_items, self.size = (done.shape[0], done.chunks[0]) if done is not None else (0, 1)

    def _stored(self) -> dict[str, StoredArray]:
        """How the arrays are stored that hold values of blocks and exist already."""
        # An array that is not listed was being created when its writer was killed.
        listed: Any = read_attributes(self.path).get(LAYOUT) or layout_of(self.path)
        others = {*self.head.variables, ASKED, KEPT}
        return {
            name: array
            for name, array in stored_arrays(self.path).items()
            if "item" in array.dims and name not in others and name in listed
        }

    def _stored_values(self) -> dict[str, StoredArray]:
        """The same without the marks of the blocks that are done."""
        return {name: array for name, array in self._stored().items() if name != DONE}

    @property
    def blocks(self) -> list[slice]:
        """The blocks of all items."""
        return blocks_of(self.n_items, self.size)

    @cached_property
    def kept(self) -> Values:
        """Which prompts were taken over from a smaller result, undamaged (item, language).

        Raises:
            NeuroglotError: this cannot be read, for another reason than damage.
        """
        shape = tuple(self.head.sizes[dim] for dim in GROWING)
        with reading(self.path):
            data = lazy_dataset(self.path)
            if KEPT not in data:
                return np.zeros(shape, bool)
            try:
                kept = np.array(data[KEPT].to_numpy(), bool)
            except DamagedError as error:
                _warn_of_damage(self.path, "the marks of what was there before it grew are", error)
                return np.zeros(shape, bool)
            arrays = self._stored_values()
            for block in self.blocks:
                try:
                    if kept[block].any():
                        _require_block(block, arrays)
                except DamagedError as error:
                    _warn_of_damage(self.path, _called(block), error)
                    kept[block] = False
        return kept

    def there(self) -> Values:
        """Which prompts have values that are written and undamaged (item, language)."""
        there = self.kept.copy()
        missing = self.missing_blocks()
        for block in self.blocks:
            if block not in missing:
                there[block] = True
        return there

    def before(self, block: slice) -> xr.Dataset:
        """The values of a block some of whose prompts were taken over."""
        with reading(self.path):
            return xr.Dataset(
                {
                    name: (array.dims, _as_values(self.arrays[name][at(array.dims, block)]))
                    for name, array in self._stored_values().items()
                }
            )

    def taken(self, rows: Values, columns: Values, longer: Mapping[str, int]) -> xr.Dataset:
        """The values for the items and languages of another, larger result.

        Args:
            rows: for each item of the other result its index in this one, or −1 (item).
            columns: for each language of the other result its index in this one, or −1 (language).
            longer: new sizes of other dimensions, by name.

        Returns:
            All variables of blocks; NaN, 0 or an empty text stands where this result has no value.
        """
        indexes = {"item": rows, "language": columns}
        variables = {}
        for name, array in self._stored_values().items():
            sizes = zip(array.dims, array.shape, strict=True)
            # For each dimension, the old index of each new place.
            old = [indexes.get(dim, _old_indexes(n, longer.get(dim, n))) for dim, n in sizes]
            filled = [np.flatnonzero(index >= 0) for index in old]
            source = tuple(index[index >= 0] for index in old)
            values = np.full([len(index) for index in old], *_empty(array.dtype))
            values[np.ix_(*filled)] = _as_values(self.arrays[name].oindex[source])
            variables[name] = (array.dims, values)
        return xr.Dataset(variables)

    @property
    def is_finished(self) -> bool:
        """Whether the result is complete, and the arrays without items are undamaged.

        Raises:
            NeuroglotError: this cannot be read, for another reason than damage.
        """
        if DONE not in self.arrays:
            return True
        with reading(self.path):
            try:
                for array in stored_arrays(self.path).values():
                    if "item" not in array.dims:
                        array.require_whole()
            except DamagedError:
                return False
            return bool(read_attributes(self.path).get(FINISHED))

    def missing_blocks(self) -> list[slice]:
        """The blocks that are not done or whose data are damaged.

        Raises:
            NeuroglotError: they cannot be read, for another reason than damage.
        """
        with reading(self.path):
            arrays = self._stored()
            return [block for block in self.blocks if not self._is_whole(block, arrays)]

    def _is_whole(self, block: slice, arrays: Mapping[str, StoredArray]) -> bool:
        done = arrays[DONE]
        mark = next(done.places([block]))
        try:
            if not (done.has_chunk(mark) and done.chunk(mark)[: block.stop - block.start].all()):
                return False
            _require_block(block, {name: arrays[name] for name in arrays if name != DONE})
        except DamagedError as error:
            _warn_of_damage(self.path, _called(block), error)
            return False
        return True

    def write(self, block: slice, part: xr.Dataset, *, is_whole: bool = True) -> None:
        """Write the data of a block and then, if they are complete, mark it as done.

        Raises:
            NeuroglotError: the folder cannot be written to.
        """
        with writing(self.path, "The blocks before are kept; the same command goes on."):
            for name, variable in text_as_objects(part).data_vars.items():
                array = self._array(str(name), variable)
                array[at(variable.dims, block)] = variable.to_numpy()
            if is_whole:
                self.arrays[DONE][block] = True

    def _array(self, name: str, variable: xr.DataArray) -> zarr.Array[Any]:
        """The array of a variable, which is created with its first block.

        Raises:
            DamagedError: the array has another shape or other blocks.
        """
        sizes = {dim: variable.sizes[dim] for dim in variable.dims}
        shape = tuple(self.n_items if dim == "item" else size for dim, size in sizes.items())
        if name not in self.arrays:
            # A block of items is written at once, and a single threshold is read at once.
            pieces = {"item": self.size, "threshold": 1}
            self.arrays[name] = self.group.create_array(
                name,
                shape=shape,
                chunks=tuple(pieces.get(str(dim), size) for dim, size in sizes.items()),
                dtype=str if variable.dtype == object else variable.dtype,
                compressors=[Crc32cCodec()],
                dimension_names=[str(dim) for dim in sizes],
                config={"write_empty_chunks": True},
                overwrite=True,
            )
            self.group.attrs[LAYOUT] = layout_of(self.path)
        array: zarr.Array[Any] = self.arrays[name]
        if array.shape != shape:
            raise DamagedError(self.path, f"{name!r} is of shape {array.shape}, expected {shape}")
        # To write a part of a chunk, Zarr would first read the chunk, without checking it.
        if array.chunks[variable.dims.index("item")] != self.size:
            raise DamagedError(self.path, f"{name!r} is not in blocks of {self.size} items")
        return array

    def finish(self, rest: xr.Dataset) -> None:
        """Write the variables that were computed from all blocks, and mark the result as finished.

        Args:
            rest: these variables.
        """
        if self.is_finished:
            return
        with writing(self.path, "The blocks are kept; the same command goes on."):
            self._remove([*map(str, rest.data_vars), KEPT])
            if rest.data_vars:
                # xarray replaces the attributes in the folder by those of what it writes.
                attrs = read_attributes(self.path)
                write_whole(rest.drop_vars(list(rest.coords)).assign_attrs(attrs), self.path)
            self.group.attrs.update({LAYOUT: layout_of(self.path), FINISHED: 1})

    def _remove(self, names: list[str]) -> None:
        """Remove arrays, or what a killed run or damage has left of them.

        They are taken out of the list of arrays first, because every array in the list must exist.
        """
        listed = read_attributes(self.path).get(LAYOUT, {})
        if any(name in listed for name in names):
            kept = {name: checksum for name, checksum in listed.items() if name not in names}
            self.group.attrs.update({LAYOUT: kept, FINISHED: 0})
        for name in names:
            if (self.path / name).is_dir():
                shutil.rmtree(self.path / name)


def _called(block: slice) -> str:
    return f"items {block.start} to {block.stop - 1} are"


def _warn_of_damage(path: Path, what: str, error: DamagedError) -> None:
    warnings.warn(
        f"{str(path)!r}: {what} damaged ({error.reason}); they are made again.", stacklevel=5
    )


def at(dims: tuple[Hashable, ...], block: slice) -> tuple[slice, ...]:
    """The index of a block in an array with these dimensions."""
    return tuple(block if dim == "item" else slice(None) for dim in dims)


def _require_block(block: slice, arrays: Mapping[str, StoredArray]) -> None:
    """Check that every chunk of a block is there and undamaged.

    Raises:
        DamagedError: one is not.
    """
    for array in arrays.values():
        for place in array.places(at(array.dims, block)):
            array.chunk(place)


def _old_indexes(old: int, new: int) -> Values:
    """The indexes along a dimension that grows from ``old`` to ``new``; −1 for what is new."""
    indexes = np.arange(new)
    return np.where(indexes < old, indexes, -1)


def _as_values(stored: Any) -> Values:
    """Values that were read, with texts as objects."""
    values = np.asarray(stored)
    return values.astype(object) if values.dtype.kind in "TU" else values


def _empty(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The value that stands for none, and the type of an array with it."""
    if dtype.kind in "OU":
        return "", object
    return (np.nan if dtype.kind == "f" else np.zeros((), dtype)), dtype


def create(fresh: Path, head: xr.Dataset, size: int, asked: Checksums | None) -> None:
    """Begin a result in a new folder; the arrays of its data are created with their first block.

    Args:
        fresh: the folder.
        head: coordinates and provenance.
        size: the number of items in a block.
        asked: checksums of what each prompt asks (item, language), if the result may grow.
    """
    write_whole(head if asked is None else head.assign_coords({ASKED: (GROWING, asked)}), fresh)
    zarr.open_group(fresh, mode="r+").create_array(
        DONE,
        shape=(head.sizes["item"],),
        chunks=(size,),
        dtype=bool,
        compressors=[Crc32cCodec()],
        dimension_names=["item"],
    )
    mark_layout(fresh)
