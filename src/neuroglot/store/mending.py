"""A result that grows, and is damaged elsewhere than in its blocks, is mended by the same command.

What labels its values follows from the task and the settings, and is written again. Where it is
not known how values are kept, all of them are made again.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from neuroglot.errors import NeuroglotError
from neuroglot.store.blockwise import PROMPT, create
from neuroglot.store.damage import (
    LAYOUT,
    METADATA,
    DamagedError,
    layout_of,
    read_attributes,
    read_file,
    read_json,
    reading,
    writing,
)
from neuroglot.store.folders import fresh_folder
from neuroglot.store.metadata import stored_array
from neuroglot.store.results import ASKED, GROWING, differences, write_whole
from neuroglot.store.taking_over import Growth


@dataclass(frozen=True)
class Damage:
    """What of a result is damaged beside the values of blocks.

    Attributes:
        labels: variables of its head.
        values: other arrays of which it is not known how they are kept.
        reason: what is wrong with the first.
    """

    labels: frozenset[str]
    values: frozenset[str]
    reason: str


def damage_of(path: Path, head: xr.Dataset) -> Damage | None:
    """What is damaged, if anything is; results of before, which keep no checksums, do not say.

    Raises:
        NeuroglotError: it cannot be read for another reason.
    """
    marked = read_attributes(path).get(LAYOUT)
    if not isinstance(marked, dict):
        return None
    known = {*map(str, head.variables), ASKED}
    reasons = {}
    with reading(path):
        for name, checksum in marked.items():
            try:
                _require_as_written(path, name, checksum, whole=name in known)
            except DamagedError as error:
                reasons[name] = error.reason
    if not reasons:
        return None
    labels, values = reasons.keys() & known, reasons.keys() - known
    return Damage(frozenset(labels), frozenset(values), next(iter(reasons.values())))


def _require_as_written(path: Path, name: str, checksum: object, *, whole: bool) -> None:
    """An array must be kept as it was, and its chunks be whole if they are asked for.

    Raises:
        DamagedError: it is not.
    """
    file = f"{name}/{METADATA}"
    if hashlib.sha256(read_file(path, file)).hexdigest()[:16] != checksum:
        raise DamagedError(path, f"{file} is not as it was written")
    if whole:
        stored_array(path / name, read_json(path, file)).require_whole()


def is_same_otherwise(path: Path, head: xr.Dataset, dims: Collection[str], damage: Damage) -> bool:
    """Whether what is not damaged is of the settings that are wanted.

    Items and languages follow from the checksum of the task.

    Raises:
        NeuroglotError: the labels of another dimension are damaged, so that this is not known.
    """
    attrs = {key: value for key, value in read_attributes(path).items() if key != "coordinates"}
    if differences(xr.Dataset(attrs=attrs), head, ()):
        return False
    with reading(path):
        group: Any = zarr.open_group(path, mode="r", use_consolidated=False)
        sound = [dim for dim in dims if dim not in damage.labels]
        if not all(np.array_equal(group[dim][...], head[dim].to_numpy()) for dim in sound):
            return False
    unknown = [dim for dim in dims if dim in damage.labels and dim not in GROWING]
    if unknown:
        raise NeuroglotError(
            f"{str(path)!r} is damaged ({damage.reason}), so that it is not known whether its "
            f"{unknown[0]}s are those that are wanted now. Name another folder, or pass "
            "overwrite=True (--overwrite)."
        )
    return True


def mend(path: Path, head: xr.Dataset, size: int, growth: Growth, damage: Damage) -> None:
    """Let a result take the place of the damaged one that has sound labels, and what is whole.

    To be used under the lock.

    Raises:
        NeuroglotError: it cannot be written; what was there is there still.
    """
    what = "all of it is" if damage.values else "what labels its values is"
    warnings.warn(f"{str(path)!r} is damaged ({damage.reason}); {what} made again.", stacklevel=4)
    with writing(path), fresh_folder(path) as fresh:
        if damage.values:
            create(fresh, head, size, growth.asked)
            return
        _copy(path, fresh, damage.labels)
        attrs = read_attributes(fresh)
        labels = head.assign_coords({ASKED: (PROMPT, growth.asked)})[sorted(damage.labels)]
        # As variables, since the attributes name the coordinates already.
        alone = xr.Dataset({name: labels[name].variable for name in sorted(damage.labels)})
        write_whole(alone.assign_attrs(attrs), fresh)
        written = layout_of(fresh)
        group = zarr.open_group(fresh, mode="r+", use_consolidated=False)
        group.attrs[LAYOUT] = attrs[LAYOUT] | {name: written[name] for name in damage.labels}


def _copy(path: Path, fresh: Path, but: Collection[str]) -> None:
    """Copy a folder, without some of what is in it."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        return set(names) & set(but) if Path(folder) == path else set()

    shutil.copytree(path, fresh, ignore=left_out, dirs_exist_ok=True)
