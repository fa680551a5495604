"""Results that grow block by block of items, in memory or in a folder."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Container, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
import zarr
from tqdm.auto import tqdm
from zarr.codecs import Crc32cCodec

from neuroglot.errors import NeuroglotError
from neuroglot.recording.arrays import StoredArray
from neuroglot.recording.damage import (
    LAYOUT,
    DamagedError,
    layout_of,
    mark_layout,
    read_attributes,
    reading,
    writing,
)
from neuroglot.recording.folders import (
    clear_up_after_kill,
    fresh_folder,
    is_result,
    locked,
    require_free,
)
from neuroglot.recording.interrupts import stop_when_whole
from neuroglot.recording.metadata import stored_arrays
from neuroglot.recording.store import (
    DONE,
    FINISHED,
    marks_of,
    open_dataset,
    require_same,
    text_as_objects,
    write_whole,
)

Made = Callable[[slice, Callable[[int], object]], xr.Dataset]
"""Makes the variables of a block of items; calls back with the number of prompts just done."""


class Growing(Protocol):
    """Takes the blocks of a result."""

    def missing_blocks(self) -> list[slice]:
        """Blocks of items that are still to be made."""

    def write(self, block: slice, part: xr.Dataset) -> None:
        """Keep the variables of one block."""

    def finish(self, rest: xr.Dataset) -> None:
        """Keep what follows from all blocks, now that none is missing."""


def grow(result: Growing, make: Made, what: str, prompts: Mapping[str, int]) -> None:
    """Make every block that is missing, and write one while the next is made.

    Args:
        result: where blocks go.
        make: makes one.
        what: what the progress bar says is done.
        prompts: ``item``: prompts of an item, and ``total``: of all.
    """
    blocks = result.missing_blocks()
    left = sum(block.stop - block.start for block in blocks) * prompts["item"]
    total = prompts["total"]
    pending: Future[None] | None = None
    with (
        stop_when_whole() as stop_if_asked,
        tqdm(total=total, initial=total - left, desc=what, unit="prompt") as bar,
        ThreadPoolExecutor(1) as writer,  # waits for the last block, also after an error
    ):
        for block in blocks:
            part = make(block, bar.update)
            if pending is not None:
                pending.result()
            pending = _submitted(writer, result, block, part)
            stop_if_asked()
        if pending is not None:
            pending.result()


def _submitted(
    writer: ThreadPoolExecutor, result: Growing, block: slice, part: xr.Dataset
) -> Future[None]:
    try:
        return writer.submit(result.write, block, part)
    except RuntimeError as error:
        raise NeuroglotError(
            f"cannot write what was made: {error}. The blocks before are kept; the same command "
            "goes on."
        ) from error


def _blocks(n_items: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n_items)) for start in range(0, n_items, size)]


class InMemory:
    """A result in memory; ``data`` is there once a block was written."""

    def __init__(self, head: xr.Dataset, size: int) -> None:
        self.head, self.size = head, size
        self.parts: dict[str, np.ndarray[Any, Any]] = {}
        self.dims: dict[str, tuple[Any, ...]] = {}

    def missing_blocks(self) -> list[slice]:
        """All of them."""
        return _blocks(self.head.sizes["item"], self.size)

    def write(self, block: slice, part: xr.Dataset) -> None:
        """Copy the block to its place."""
        for name, variable in part.data_vars.items():
            dims, key = variable.dims, str(name)
            if key not in self.parts:
                # Texts have no width until all are known.
                dtype = np.dtype(object) if variable.dtype.kind == "U" else variable.dtype
                shape = [self._size(dim, part) for dim in dims]
                self.parts[key], self.dims[key] = np.zeros(shape, dtype), dims
            self.parts[key][_at(dims, block)] = variable.to_numpy()

    def _size(self, dim: Any, part: xr.Dataset) -> int:
        return self.head.sizes["item"] if dim == "item" else part.sizes[dim]

    def finish(self, rest: xr.Dataset) -> None:
        """Nothing is left to be done."""

    @property
    def data(self) -> xr.Dataset:
        """Everything so far."""
        found = {
            name: (self.dims[name], values.astype(str) if values.dtype == object else values)
            for name, values in self.parts.items()
        }
        return self.head.assign(found)


class InFolder:
    """A result in a folder. A block is either done or not: its mark is written after its data.

    Chunks are files that appear whole (Zarr renames them), each with a checksum.
    """

    def __init__(self, path: Path, others: Container[Hashable]) -> None:
        """Open the folder; ``others`` are variables of the items that no block holds."""
        self.path, self.others = path, others
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
        return {
            name: array
            for name, array in stored_arrays(self.path).items()
            if "item" in array.dims and name not in self.others and name in marked
        }

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
            blocks = _blocks(self.n_items, self.size)
            return [block for block in blocks if not self._is_whole(block, arrays)]

    def _is_whole(self, block: slice, arrays: Mapping[str, StoredArray]) -> bool:
        done = arrays[DONE]
        mark = next(done.places([block]))
        try:
            if not (done.has_chunk(mark) and done.chunk(mark)[: block.stop - block.start].all()):
                return False
            for array in arrays.values():
                for place in array.places(_at(array.dims, block)):
                    array.chunk(place)
        except DamagedError as error:
            warnings.warn(
                f"{str(self.path)!r}: items {block.start} to {block.stop - 1} are damaged "
                f"({error.reason}); they are made again.",
                stacklevel=4,
            )
            return False
        return True

    def write(self, block: slice, part: xr.Dataset) -> None:
        """Write the data of a block, then its mark.

        Raises:
            NeuroglotError: the folder cannot be written to.
        """
        with writing(self.path, "The blocks before are kept; the same command goes on."):
            for name, variable in text_as_objects(part).data_vars.items():
                array = self._array(str(name), variable)
                array[_at(variable.dims, block)] = variable.to_numpy()
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
            self._remove(list(map(str, rest.data_vars)))
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


def _at(dims: tuple[Hashable, ...], block: slice) -> tuple[slice, ...]:
    """Index of a block in an array with these dimensions."""
    return tuple(block if dim == "item" else slice(None) for dim in dims)


@contextmanager
def in_folder(
    path: Path, head: xr.Dataset, size: int, dims: tuple[str, ...], *, overwrite: bool
) -> Iterator[InFolder]:
    """The result that grows at ``path``, held against other processes.

    Args:
        path: goes on with what is there, if it is of the same settings.
        head: coordinates and provenance.
        size: items of a block.
        dims: coordinates that must be the same.
        overwrite: begin anew.

    Raises:
        NeuroglotError: ``path`` holds something else, is in use, or cannot be written to.
    """
    with locked(path):
        if overwrite or not is_result(path):
            require_free(path, overwrite=overwrite)
            _create(path, head, size)
        else:
            require_same(path, open_dataset(path, only_coordinates=True), head, dims)
        yield InFolder(path, head.variables)


def is_whole(path: Path, head: xr.Dataset, dims: tuple[str, ...]) -> bool:
    """Whether a finished result of these settings is at ``path``, with nothing damaged.

    Raises:
        NeuroglotError: a result of other settings is there.
    """
    clear_up_after_kill(path)
    if not is_result(path):
        return False
    require_same(path, open_dataset(path, only_coordinates=True), head, dims)
    found = InFolder(path, head.variables)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever mends it will say what is damaged
        return found.is_finished and not found.missing_blocks()


def _create(path: Path, head: xr.Dataset, size: int) -> None:
    """Everything but the data: arrays appear with their first block."""
    with writing(path), fresh_folder(path) as fresh:
        write_whole(head, fresh)
        zarr.open_group(fresh, mode="r+").create_array(
            DONE,
            shape=(head.sizes["item"],),
            chunks=(size,),
            dtype=bool,
            compressors=[Crc32cCodec()],
            dimension_names=["item"],
        )
        mark_layout(fresh)
