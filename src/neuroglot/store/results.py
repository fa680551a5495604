"""Results on disk: xarray datasets in Zarr, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from zarr.codecs import ZstdCodec

from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.store.arrays import StoredArray
from neuroglot.store.damage import (
    LAYOUT,
    DamagedError,
    mark_layout,
    read_attributes,
    reading,
    writing,
)
from neuroglot.store.folders import (
    as_path,
    clear_up_after_kill,
    fresh_folder,
    is_result,
    locked,
    require_free,
)
from neuroglot.store.joining import named, refuse_old, said_of
from neuroglot.store.lazy import lazy_dataset, require_chunks
from neuroglot.store.metadata import stored_arrays

DONE = "done"  # which items of a growing result are written
ASKED = "asked"  # what each prompt of a growing result asks, as a checksum
FINISHED = "finished"  # attribute of one that is whole
ITEMS_ADDED = "items_added"  # attribute of sums that do not hold all items yet
ONE_ARRAY = "data_array"  # attribute that names the variable of a saved DataArray
# Settings that may differ between a run and its resumption without changing what is recorded.
FREE_TO_CHANGE = frozenset(
    {"batch_size", "device", "deterministic", "padding_side", FINISHED, ITEMS_ADDED, LAYOUT}
)
# What follows from the items and languages of a task, beside the names of these.
OF_PROMPTS_ALONE = frozenset({"task_checksum", "prompts_checksum", "task_notes"})
GROWING = ("item", "language")
CHECKED = (ZstdCodec(checksum=True),)
TEXT_TABLE_BYTES = 2**28  # a table of texts of one length may take so much, however short most are


class Labelled(Protocol):
    """What is kept as a dataset of its own, such as a recording."""

    @property
    def dataset(self) -> xr.Dataset:
        """All that it holds."""


Saved = Labelled | xr.Dataset | xr.DataArray


def save(result: Saved, path: str | Path, *, overwrite: bool = False) -> None:
    """Save a recording or any result; :func:`neuroglot.load` reads it again.

    Raises:
        NeuroglotError: ``path`` exists and ``overwrite`` is not set, or cannot be written.
    """
    out = as_path(path)
    data = _as_dataset(result).load()
    with locked(out):
        require_free(out, overwrite=overwrite)
        replace_whole(data, out)


def replace_whole(data: xr.Dataset, path: Path) -> None:
    """Let a result take the place of what is at ``path``; to be used under its lock."""
    with writing(path), fresh_folder(path) as fresh:
        write_whole(data, fresh)
        mark_layout(fresh)


def keep(result: Saved, path: Path) -> None:
    """Save what follows from other results, unless just that is there, whole.

    What is damaged, or of other settings, takes no time to make, and is replaced.

    Raises:
        NeuroglotError: something that is no result is there, or it cannot be written.
    """
    clear_up_after_kill(path)
    if not is_saved(result, path):
        save(result, path, overwrite=True)


def is_saved(result: Saved, path: Path) -> bool:
    """Whether just this result is in a folder, whole, as when the same command runs again."""
    try:
        return is_result(path) and opened_whole(path).identical(_as_dataset(result))
    except DamagedError:
        return False


def write_whole(data: xr.Dataset, path: Path) -> None:
    """Write variables and attributes into a folder, beside what is there, with checksums."""
    data = text_as_objects(data)
    for variable in data.variables.values():
        # The chunks and compressors of where the data came from are not those of the new store.
        variable.encoding.clear()
    data.to_zarr(
        path,
        mode="a",
        consolidated=False,
        encoding={name: {"compressors": CHECKED} for name in data.variables},
        write_empty_chunks=True,
    )


def text_as_objects(data: xr.Dataset) -> xr.Dataset:
    """Text of any length: Zarr v3 has no specified type for text of a fixed length."""
    fixed = {n: v.astype(object) for n, v in data.variables.items() if v.dtype.kind == "U"}
    return _replaced(data, fixed)


def _text_as_strings(data: xr.Dataset) -> xr.Dataset:
    """Undo :func:`text_as_objects`, unless one long text would make all others take its room."""
    texts = {n: v.astype(object).load() for n, v in data.variables.items() if v.dtype.kind in "OT"}
    found = {n: v.astype(str) for n, v in texts.items() if _has_room(v.to_numpy())}
    return _replaced(data, {**texts, **found})


def _has_room(texts: np.ndarray[Any, Any]) -> bool:
    """Whether a table of texts of one length takes little, or not much more than the texts."""
    lengths = [len(text) for text in texts.flat]
    table = len(lengths) * max(lengths, default=0)
    return 4 * table <= TEXT_TABLE_BYTES or table <= 16 * sum(lengths)


def _replaced(data: xr.Dataset, variables: dict[Any, xr.Variable]) -> xr.Dataset:
    """The dataset with other values; coordinates stay coordinates, and variables variables."""
    coordinates = {name: values for name, values in variables.items() if name in data.coords}
    others = {name: values for name, values in variables.items() if name not in data.coords}
    return data.assign_coords(coordinates).assign(others)


def _as_dataset(result: Saved) -> xr.Dataset:
    if isinstance(result, xr.Dataset):
        return result.copy()
    if isinstance(result, xr.DataArray):
        name = str(result.name or "values")
        return result.to_dataset(name=name).assign_attrs(result.attrs | {ONE_ARRAY: name})
    return result.dataset.copy()


def require_same(path: Path, found: xr.Dataset, wanted: xr.Dataset, dims: Iterable[str]) -> None:
    """Check that what is at ``path`` was made with the settings that are wanted now.

    Raises:
        NeuroglotError: it names the settings or dimensions that differ.
    """
    refuse_old(found.attrs, repr(str(path)))
    different = differences(found, wanted, dims)
    if different:
        raise NeuroglotError(
            f"{str(path)!r} was made with other settings ({'; '.join(different)}). Name another "
            "folder, use the same settings, or pass overwrite=True (--overwrite)."
        )


def differences(
    found: xr.Dataset,
    wanted: xr.Dataset,
    dims: Iterable[str],
    free: frozenset[str] = FREE_TO_CHANGE,
) -> list[str]:
    """In what two results differ, as a message says it.

    Args:
        found: the one that is there.
        wanted: the one that is wanted now.
        dims: coordinates that are compared.
        free: settings that may differ.
    """
    keys = sorted({*found.attrs, *wanted.attrs} - free)
    different = [
        f"{named(key)}: there {said_of(found.attrs, key)!r}, now {said_of(wanted.attrs, key)!r}"
        for key in keys
        if said_of(found.attrs, key) != said_of(wanted.attrs, key)
    ]
    return different + [
        f"{dim}s: there {_some(found, dim)}, now {_some(wanted, dim)}"
        for dim in dims
        if dim not in found.coords
        or not np.array_equal(found[dim].to_numpy(), wanted[dim].to_numpy())
    ]


def has_grown(found: xr.Dataset, wanted: xr.Dataset, dims: Iterable[str], *free: str) -> bool:
    """Whether ``wanted`` is ``found`` with more items or languages, and nothing taken away.

    What the prompts of both ask is not looked at.

    Args:
        found: the one that is there.
        wanted: the one that is wanted now.
        dims: coordinates of both.
        free: settings that may differ, beside those that always may.
    """
    others = [dim for dim in dims if dim not in GROWING]
    if differences(found, wanted, others, FREE_TO_CHANGE | OF_PROMPTS_ALONE | set(free)):
        return False
    if not all(dim in found.coords for dim in GROWING):
        return False
    there, now = ([_names(data, dim) for dim in GROWING] for data in (found, wanted))
    return there != now and all(x <= y for x, y in zip(there, now, strict=True))


def _names(data: xr.Dataset, dim: str) -> set[str]:
    return set(map(str, data[dim].to_numpy()))


def _some(data: xr.Dataset, dim: str) -> str:
    return listed(data[dim].to_numpy(), 3) if dim in data.coords else "none"


def open_dataset(path: Path, *, only_coordinates: bool = False) -> xr.Dataset:
    """The stored dataset; texts and coordinates are read, other data when they are used.

    Args:
        path: of the result.
        only_coordinates: leave out everything else, which may be damaged.

    Raises:
        NeuroglotError: it cannot be read.
    """
    with reading(path):
        data = lazy_dataset(path)
        data.attrs.pop(LAYOUT, None)
        others = [*data.data_vars, ASKED] if only_coordinates else []
        kept = data.drop_vars(others, errors="ignore")
        return _text_as_strings(kept)


def opened_whole(path: Path) -> xr.Dataset:
    """The stored dataset in memory, finished or not.

    Raises:
        NeuroglotError: it is damaged, or cannot be read for another reason.
    """
    with reading(path):
        require_chunks(path)
        return open_dataset(path).load()


def opened(path: str | Path) -> xr.Dataset:
    """A result that was saved or has grown whole; what it holds is read when it is used.

    Raises:
        NeuroglotError: there is no result, it was not finished, it is damaged, or it cannot be
            read for another reason.
    """
    folder = Path(path)
    if not is_result(folder):
        raise NeuroglotError(f"{str(folder)!r} holds no result of neuroglot.")
    with reading(folder):
        grows = (folder / DONE).is_dir()
        if grows and not read_attributes(folder).get(FINISHED):
            raise _unfinished_blocks(folder)
        # Before anything is read, since that would take memory for whatever is claimed.
        require_chunks(folder, but=DONE)
        data = open_dataset(folder)
        if ITEMS_ADDED in data.attrs:
            raise _unfinished(folder, data, data.attrs[ITEMS_ADDED])
        if grows:
            data = data.drop_vars([DONE, ASKED], errors="ignore")
            del data.attrs[FINISHED]
        return data


def opened_dataset(path: str | Path) -> xr.Dataset:
    """The same in memory; see :func:`opened`."""
    data = opened(path)
    with reading(Path(path)):
        return data.load()


def as_saved(path: str | Path, data: xr.Dataset) -> xr.Dataset | xr.DataArray:
    """An opened dataset in memory, or the array that it was when it was saved.

    Raises:
        DamagedError: it says that it was an array that it does not hold.
    """
    with reading(Path(path)):
        data.load()
        return _one_array(Path(path), data) if ONE_ARRAY in data.attrs else data


def _one_array(path: Path, data: xr.Dataset) -> xr.DataArray:
    """The only variable of a dataset that was a DataArray."""
    name = data.attrs.pop(ONE_ARRAY)
    if not isinstance(name, str) or name not in data:
        raise DamagedError(path, f"no array {shown(name)}")
    array: xr.DataArray = data[name].assign_attrs(data.attrs)
    return array


def _unfinished_blocks(path: Path) -> NeuroglotError:
    """The error for a result that grows, of which not all is there to be read.

    Raises:
        DamagedError: it cannot be told how much is.
    """
    data, done = open_dataset(path, only_coordinates=True), marks_of(path, stored_arrays(path))
    if done is None:
        raise DamagedError(path, f"no array {DONE!r}")
    return _unfinished(path, data, _n_done(done))


def marks_of(path: Path, arrays: Mapping[str, StoredArray]) -> StoredArray | None:
    """The marks of the items that are written; a result that was saved whole has none.

    Raises:
        DamagedError: they are no marks.
    """
    done = arrays.get(DONE)
    if done is not None and (done.dims != ("item",) or done.dtype != np.bool_):
        raise DamagedError(path, f"{DONE!r} is {done.dtype} {done.dims}, expected one mark an item")
    return done


def _n_done(done: StoredArray) -> int:
    """How many items are marked as written; a block that is not has no chunk of marks.

    Raises:
        DamagedError: a chunk is damaged.
    """
    return sum(int(done.chunk(place).sum()) for place in done.places() if done.has_chunk(place))


def _unfinished(path: Path, data: xr.Dataset, n_done: object) -> NeuroglotError:
    return NeuroglotError(
        f"{str(path)!r} is an unfinished {data.attrs['kind']} ({shown(n_done)} of "
        f"{data.sizes.get('item')} items); the same call or command with the same folder goes on."
    )
