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

from neuroglot.store.arrays import StoredArray
from neuroglot.store.asking import Checksums
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
from neuroglot.store.metadata import stored_arrays
from neuroglot.store.results import ASKED, DONE, FINISHED, marks_of, text_as_objects, write_whole

PROMPT = ("item", "language")
KEPT = "kept"  # which prompts of an unfinished result were taken over from a smaller one

Values = np.ndarray[Any, Any]


def blocks_of(n_items: int, size: int) -> list[slice]:
    """Blocks of so many items, the last of which may be smaller."""
    return [slice(start, min(start + size, n_items)) for start in range(0, n_items, size)]


class InFolder:
    """A result in a folder. A block is either done or not: its mark is written after its data.

    Chunks are files that appear whole (Zarr renames them), each with a checksum.
    """

    def __init__(self, path: Path, head: xr.Dataset) -> None:
        """Open the folder; the variables of ``head`` are those that no block holds."""
        self.path, self.head = path, head
        # Chunks of zeros are written too, so that one that is missing is known to be.
        with reading(path), zarr.config.set({"array.write_empty_chunks": True}):
            stored = self._stored()
            self.group = zarr.open_group(path, mode="r+", use_consolidated=False)
            self.arrays: dict[str, Any] = {name: self.group[name] for name in stored}
            done = marks_of(path, stored)  # absent where a result was saved whole
        self.n_items, self.size = (done.shape[0], done.chunks[0]) if done is not None else (0, 1)

    def _stored(self) -> dict[str, StoredArray]:
        """How the arrays that blocks go to are kept, as far as they are made."""
        # An array without a mark was being made when its writer was killed.
        marked: Any = read_attributes(self.path).get(LAYOUT) or layout_of(self.path)
        others = {*self.head.variables, ASKED, KEPT}
        return {
            name: array
            for name, array in stored_arrays(self.path).items()
            if "item" in array.dims and name not in others and name in marked
        }

    @property
    def blocks(self) -> list[slice]:
        """All blocks of items."""
        return blocks_of(self.n_items, self.size)

    @cached_property
    def kept(self) -> Values:
        """Prompts that were taken over from a smaller result, and are whole (item, language).

        Raises:
            NeuroglotError: they cannot be read for another reason.
        """
        shape = tuple(self.head.sizes[dim] for dim in PROMPT)
        with reading(self.path):
            data = lazy_dataset(self.path)
            if KEPT not in data:
                return np.zeros(shape, bool)
            try:
                found = np.array(data[KEPT].to_numpy(), bool)
            except DamagedError as error:
                _warn_of_damage(self.path, "what was there before it grew is", error)
                return np.zeros(shape, bool)
            arrays = self._stored()
            for block in self.blocks:
                try:
                    if found[block].any():
                        _require_values(block, arrays)
                except DamagedError as error:
                    _warn_of_damage(self.path, _called(block), error)
                    found[block] = False
        return found

    def there(self) -> Values:
        """Prompts that are made, and whole (item, language)."""
        found = self.kept.copy()
        missing = self.missing_blocks()
        for block in self.blocks:
            if block not in missing:
                found[block] = True
        return found

    def before(self, block: slice) -> xr.Dataset:
        """The values of a block some of whose prompts were taken over."""
        with reading(self.path):
            return xr.Dataset(
                {
                    name: (array.dims, _as_values(self.arrays[name][at(array.dims, block)]))
                    for name, array in self._stored().items()
                    if name != DONE
                }
            )

    def taken(self, rows: Values, columns: Values, longer: Mapping[str, int]) -> xr.Dataset:
        """Values of some items and languages, in another order and beside others.

        Args:
            rows: where each item is here; −1 for one that is not.
            columns: where each language is here; −1 for one that is not.
            longer: new sizes of other dimensions.

        Returns:
            All that blocks hold, empty (NaN, 0 or no text) where nothing is here.
        """
        places = {"item": rows, "language": columns}
        found = {}
        for name, array in self._stored().items():
            if name == DONE:
                continue
            sizes = zip(array.dims, array.shape, strict=True)
            along = [places.get(dim, _first(size, longer.get(dim, size))) for dim, size in sizes]
            there = [np.flatnonzero(here >= 0) for here in along]
            here = tuple(one[where] for one, where in zip(along, there, strict=True))
            values = np.full([len(one) for one in along], *_nothing(array.dtype))
            values[np.ix_(*there)] = _as_values(self.arrays[name].oindex[here])
            found[name] = (array.dims, values)
        return xr.Dataset(found)

    @property
    def is_finished(self) -> bool:
        """Whether all was written, and what follows from all blocks is there and not damaged.

        Raises:
            NeuroglotError: it cannot be read for another reason.
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
        """Blocks that are not done, or whose data are damaged.

        Raises:
            NeuroglotError: they cannot be read for another reason.
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
            _require_values(block, arrays)
        except DamagedError as error:
            _warn_of_damage(self.path, _called(block), error)
            return False
        return True

    def write(self, block: slice, part: xr.Dataset, *, is_whole: bool = True) -> None:
        """Write the data of a block, then its mark if they are whole.

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
        """The array of a variable, made when its first block is there.

        Raises:
            DamagedError: the one that is there is of another shape, or in other blocks.
        """
        sizes = {dim: variable.sizes[dim] for dim in variable.dims}
        shape = tuple(self.n_items if dim == "item" else size for dim, size in sizes.items())
        if name not in self.arrays:
            # Blocks of items are written together; thresholds are read one at a time.
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
        found: zarr.Array[Any] = self.arrays[name]
        if found.shape != shape:
            raise DamagedError(self.path, f"{name!r} is of shape {found.shape}, expected {shape}")
        # Zarr would read a chunk of which only a part is written, whatever it holds.
        if found.chunks[variable.dims.index("item")] != self.size:
            raise DamagedError(self.path, f"{name!r} is not in blocks of {self.size} items")
        return found

    def finish(self, rest: xr.Dataset) -> None:
        """Write what follows from all blocks, then the mark of the whole."""
        if self.is_finished:
            return
        with writing(self.path, "The blocks are kept; the same command goes on."):
            self._remove([*map(str, rest.data_vars), KEPT])
            if rest.data_vars:
                # With the attributes that are there, which xarray would replace by none.
                attrs = read_attributes(self.path)
                alone = rest.drop_vars(list(rest.coords)).assign_attrs(attrs)
                write_whole(alone, self.path)
            self.group.attrs.update({LAYOUT: layout_of(self.path), FINISHED: 1})

    def _remove(self, names: list[str]) -> None:
        """Remove arrays of which a run that was killed, or damage, may have left some.

        First they are no longer marked: one that is marked must be there.
        """
        marked = read_attributes(self.path).get(LAYOUT, {})
        if any(name in marked for name in names):
            kept = {name: checksum for name, checksum in marked.items() if name not in names}
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
    """Index of a block in an array with these dimensions."""
    return tuple(block if dim == "item" else slice(None) for dim in dims)


def _require_values(block: slice, arrays: Mapping[str, StoredArray]) -> None:
    """Every chunk of a block must be there and whole, but for its mark.

    Raises:
        DamagedError: one is not.
    """
    for name, array in arrays.items():
        if name != DONE:
            for place in array.places(at(array.dims, block)):
                array.chunk(place)


def _first(old: int, new: int) -> Values:
    """Where each of ``new`` places is among ``old`` ones; −1 for those beyond."""
    places = np.arange(new)
    return np.where(places < old, places, -1)


def _as_values(found: Any) -> Values:
    """Texts of any length as objects."""
    values = np.asarray(found)
    return values.astype(object) if values.dtype.kind in "TU" else values


def _nothing(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """What stands where there is no value, and the type of the array."""
    if dtype.kind in "OU":
        return "", object
    return (np.nan if dtype.kind == "f" else np.zeros((), dtype)), dtype


def create(fresh: Path, head: xr.Dataset, size: int, asked: Checksums | None) -> None:
    """Everything but the data, in a new folder: arrays appear with their first block.

    Args:
        fresh: the folder.
        head: coordinates and provenance.
        size: items of a block.
        asked: what each prompt asks, where the result may grow.
    """
    write_whole(head if asked is None else head.assign_coords({ASKED: (PROMPT, asked)}), fresh)
    zarr.open_group(fresh, mode="r+").create_array(
        DONE,
        shape=(head.sizes["item"],),
        chunks=(size,),
        dtype=bool,
        compressors=[Crc32cCodec()],
        dimension_names=["item"],
    )
    mark_layout(fresh)
