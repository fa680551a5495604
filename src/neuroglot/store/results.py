"""Save and open results: xarray datasets in Zarr, written as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from zarr.codecs import ZstdCodec

from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.store.arrays import StoredArray, stored_arrays
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

DONE = "done"  # array that marks which items of a growing result are written
ASKED = "asked"  # array with a checksum of what each prompt of a growing result asks
FINISHED = "finished"  # attribute of a growing result that is complete
ITEMS_ADDED = "items_added"  # attribute of sums that do not hold all items yet
ONE_ARRAY = "data_array"  # attribute that names the variable of a saved DataArray
# Settings that may differ when a run goes on, as they do not change the values.
FREE_TO_CHANGE = frozenset(
    {"batch_size", "device", "deterministic", "padding_side", FINISHED, ITEMS_ADDED, LAYOUT}
)
# Attributes that depend on which items and languages a result has.
OF_PROMPTS_ALONE = frozenset({"task_checksum", "prompts_checksum", "task_notes"})
GROWING = ("item", "language")  # the dimensions along which a result may grow
CHECKED = (ZstdCodec(checksum=True),)
TEXT_TABLE_BYTES = 2**28  # the size up to which texts are always kept in one length


class Labelled(Protocol):
    """An object whose content is a dataset, such as a recording."""

    @property
    def dataset(self) -> xr.Dataset:
        """Its content."""


Saved = Labelled | xr.Dataset | xr.DataArray


def save(result: Saved, path: str | Path, *, overwrite: bool = False) -> None:
    """Save a recording or a result in a folder; :func:`neuroglot.load` reads it again.

    The folder is written as a whole or not at all.

    Args:
        result: a recording, or a result as a dataset or an array.
        path: the folder. Its parents are created if they are missing.
        overwrite: whether a result that is in the folder is replaced.

    Raises:
        NeuroglotError: the folder holds a result and ``overwrite`` is not set, holds other files,
            is in use by another process, or cannot be written to.

    Examples:
        >>> import tempfile
        >>> import neuroglot as ng
        >>> import xarray as xr
        >>> result = xr.Dataset({"share": ("layer", [0.25, 0.5])}, attrs={"kind": "shares"})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ng.save(result, f"{folder}/shares")
        ...     ng.load(f"{folder}/shares")["share"].values.tolist()
        [0.25, 0.5]
    """
    out = as_path(path)
    data = _as_dataset(result).load()
    with locked(out):
        require_free(out, overwrite=overwrite)
        replace_whole(data, out)


def replace_whole(data: xr.Dataset, path: Path) -> None:
    """Replace the folder at ``path`` by a result; the caller holds its lock."""
    with writing(path), fresh_folder(path) as fresh:
        write_whole(data, fresh)
        mark_layout(fresh)


def keep(result: Saved, path: Path) -> None:
    """Save a result that is quickly computed from others, unless it is saved there already.

    A damaged result, or one with other settings, is replaced.

    Raises:
        NeuroglotError: the folder holds something other than a result, or cannot be written to.
    """
    clear_up_after_kill(path)
    if not is_saved(result, path):
        save(result, path, overwrite=True)


def is_saved(result: Saved, path: Path) -> bool:
    """Whether a folder holds exactly this result, undamaged, as after the same command."""
    try:
        return is_result(path) and opened_whole(path).identical(_as_dataset(result))
    except DamagedError:
        return False


def write_whole(data: xr.Dataset, path: Path) -> None:
    """Write variables, with checksums, and attributes into a folder, which may hold others."""
    data = text_as_objects(data)
    for variable in data.variables.values():
        # It holds the chunks and compressors of the store that the data were read from.
        variable.encoding.clear()
    data.to_zarr(
        path,
        mode="a",
        consolidated=False,
        encoding={name: {"compressors": CHECKED} for name in data.variables},
        write_empty_chunks=True,
    )


def text_as_objects(data: xr.Dataset) -> xr.Dataset:
    """The dataset with texts as objects; Zarr 3 specifies no type for text of a fixed length."""
    fixed = {n: v.astype(object) for n, v in data.variables.items() if v.dtype.kind == "U"}
    return _replaced(data, fixed)


def _text_as_strings(data: xr.Dataset) -> xr.Dataset:
    """Undo :func:`text_as_objects`, unless one long text would make all texts take its memory."""
    texts = {n: v.astype(object).load() for n, v in data.variables.items() if v.dtype.kind in "OT"}
    fixed = {n: v.astype(str) for n, v in texts.items() if _has_room(v.to_numpy())}
    return _replaced(data, texts | fixed)


def _has_room(texts: np.ndarray[Any, Any]) -> bool:
    """Whether texts take little memory if all are padded to the length of the longest."""
    lengths = [len(text) for text in texts.flat]
    table = len(lengths) * max(lengths, default=0)
    return 4 * table <= TEXT_TABLE_BYTES or table <= 16 * sum(lengths)


def _replaced(data: xr.Dataset, variables: dict[Any, xr.Variable]) -> xr.Dataset:
    """The dataset with other values; coordinates stay coordinates."""
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
    """Check that the result at ``path`` was made with the wanted settings.

    Args:
        path: the folder, for the message.
        found: the result that is there.
        wanted: the result that is wanted.
        dims: coordinates that must be the same.

    Raises:
        NeuroglotError: it was not; the message names the settings or dimensions that differ.
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
    """The differences between two results, as texts for a message.

    Args:
        found: the result that is there.
        wanted: the result that is wanted.
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
    """Whether ``wanted`` has all items and languages of ``found`` and more, and equal settings.

    What the prompts ask is not compared.

    Args:
        found: the result that is there.
        wanted: the result that is wanted.
        dims: coordinates of both.
        free: settings that may differ, beside those that always may.
    """
    others = [dim for dim in dims if dim not in GROWING]
    if differences(found, wanted, others, FREE_TO_CHANGE | OF_PROMPTS_ALONE | set(free)):
        return False
    if not all(dim in found.coords for dim in GROWING):
        return False
    there, now = ([set(map(str, data[d].to_numpy())) for d in GROWING] for data in (found, wanted))
    return there != now and all(map(set.issubset, there, now))


def _some(data: xr.Dataset, dim: str) -> str:
    return listed(data[dim].to_numpy(), 3) if dim in data.coords else "none"


def open_dataset(path: Path, *, only_coordinates: bool = False) -> xr.Dataset:
    """The stored dataset; texts and coordinates are read now, other data when they are used.

    Args:
        path: the folder of the result.
        only_coordinates: whether to leave out all other variables, which may be damaged.

    Raises:
        NeuroglotError: it cannot be read.
    """
    with reading(path):
        data = lazy_dataset(path)
        data.attrs.pop(LAYOUT, None)
        others = [*data.data_vars, ASKED] if only_coordinates else []
        return _text_as_strings(data.drop_vars(others, errors="ignore"))


def opened_whole(path: Path) -> xr.Dataset:
    """The stored dataset in memory, finished or not.

    Raises:
        NeuroglotError: it is damaged, or cannot be read for another reason.
    """
    with reading(path):
        require_chunks(path)
        return open_dataset(path).load()


def opened(path: str | Path) -> xr.Dataset:
    """A finished result, whose values are read when they are used.

    Raises:
        NeuroglotError: there is no result, or it is unfinished or damaged, or cannot be read for
            another reason.
    """
    folder = Path(path)
    if not is_result(folder):
        raise NeuroglotError(f"{str(folder)!r} holds no result of neuroglot.")
    with reading(folder):
        grows = (folder / DONE).is_dir()
        if grows and not read_attributes(folder).get(FINISHED):
            raise _unfinished_blocks(folder)
        # Before anything is read, since reading reserves as much memory as a chunk claims to need.
        require_chunks(folder, but=DONE)
        data = open_dataset(folder)
        if ITEMS_ADDED in data.attrs:
            raise _unfinished(folder, data, data.attrs[ITEMS_ADDED])
        if grows:
            data = data.drop_vars([DONE, ASKED], errors="ignore")
            del data.attrs[FINISHED]
        return data


def opened_dataset(path: str | Path) -> xr.Dataset:
    """A finished result in memory; it raises the errors of :func:`opened`."""
    data = opened(path)
    with reading(Path(path)):
        return data.load()


def as_saved(path: str | Path, data: xr.Dataset) -> xr.Dataset | xr.DataArray:
    """An opened dataset in memory, as the array that it was if an array was saved.

    Raises:
        DamagedError: it should be an array, but does not hold it.
    """
    with reading(Path(path)):
        data.load()
        if ONE_ARRAY not in data.attrs:
            return data
        name = data.attrs.pop(ONE_ARRAY)
        if not isinstance(name, str) or name not in data:
            raise DamagedError(Path(path), f"no array {shown(name)}")
        array: xr.DataArray = data[name].assign_attrs(data.attrs)
        return array


def _unfinished_blocks(path: Path) -> NeuroglotError:
    """The error for an unfinished growing result, with the number of items that are written.

    Raises:
        DamagedError: this number cannot be read.
    """
    data, done = open_dataset(path, only_coordinates=True), marks_of(path, stored_arrays(path))
    if done is None:
        raise DamagedError(path, f"no array {DONE!r}")
    # A block that is not written has no chunk of marks.
    n_done = sum(int(done.chunk(place).sum()) for place in done.places() if done.has_chunk(place))
    return _unfinished(path, data, n_done)


def marks_of(path: Path, arrays: Mapping[str, StoredArray]) -> StoredArray | None:
    """The array that marks which items are written; ``None`` for a result saved as a whole.

    Raises:
        DamagedError: it does not hold one mark for each item.
    """
    done = arrays.get(DONE)
    if done is not None and (done.dims != ("item",) or done.dtype != np.bool_):
        raise DamagedError(path, f"{DONE!r} is {done.dtype} {done.dims}, expected one mark an item")
    return done


def _unfinished(path: Path, data: xr.Dataset, n_done: object) -> NeuroglotError:
    return NeuroglotError(
        f"{str(path)!r} is an unfinished {data.attrs['kind']} ({shown(n_done)} of "
        f"{data.sizes.get('item')} items); the same call or command with the same folder goes on."
    )
