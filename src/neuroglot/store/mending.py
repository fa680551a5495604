"""Mend a growing result that is damaged outside its blocks.

Labels of values follow from the task and the settings, and are written again. If the metadata of
an array of values are damaged, all values are made again.
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
from neuroglot.store.arrays import stored_array
from neuroglot.store.blockwise import create
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
from neuroglot.store.results import ASKED, GROWING, differences, write_whole
from neuroglot.store.taking_over import Growth


@dataclass(frozen=True)
class Damage:
    """Which arrays of a result are damaged outside the values of blocks.

    Attributes:
        labels: the damaged variables of its head.
        values: other arrays, with damaged metadata.
        reason: what is wrong with the first damaged array.
    """

    labels: frozenset[str]
    values: frozenset[str]
    reason: str


def damage_of(path: Path, head: xr.Dataset) -> Damage | None:
    """The damage of a result outside its blocks, or ``None`` without any.

    Damage of early results, which keep no checksums of metadata, is not found here.

    Raises:
        NeuroglotError: the result cannot be read, for another reason than damage.
    """
    listed = read_attributes(path).get(LAYOUT)
    if not isinstance(listed, dict):
        return None
    labels = {*map(str, head.variables), ASKED}
    reasons = {}
    with reading(path):
        for name, checksum in listed.items():
            try:
                _require_as_written(path, name, checksum, whole=name in labels)
            except DamagedError as error:
                reasons[name] = error.reason
    if not reasons:
        return None
    damaged = reasons.keys()
    return Damage(
        frozenset(damaged & labels), frozenset(damaged - labels), next(iter(reasons.values()))
    )


def _require_as_written(path: Path, name: str, checksum: object, *, whole: bool) -> None:
    """Check the metadata of an array and, with ``whole``, all of its chunks.

    Raises:
        DamagedError: they are damaged.
    """
    file = f"{name}/{METADATA}"
    if hashlib.sha256(read_file(path, file)).hexdigest()[:16] != checksum:
        raise DamagedError(path, f"{file} is not as it was written")
    if whole:
        stored_array(path / name, read_json(path, file)).require_whole()


def is_same_otherwise(path: Path, head: xr.Dataset, dims: Collection[str], damage: Damage) -> bool:
    """Whether the undamaged part of a result has the wanted settings.

    Damaged labels of items and languages do not matter, since the checksum of the task covers them.

    Raises:
        NeuroglotError: the labels of another dimension are damaged, so the answer is unknown.
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
    """Replace a damaged result by one with new labels and the undamaged values.

    The caller holds the lock.

    Raises:
        NeuroglotError: the new result cannot be written; the old one is unchanged.
    """
    part = "all of it is" if damage.values else "what labels its values is"
    warnings.warn(f"{str(path)!r} is damaged ({damage.reason}); {part} made again.", stacklevel=4)
    with writing(path), fresh_folder(path) as fresh:
        if damage.values:
            create(fresh, head, size, growth.asked)
            return

        def damaged(folder: str, names: list[str]) -> set[str]:
            return set(names) & damage.labels if Path(folder) == path else set()

        shutil.copytree(path, fresh, ignore=damaged, dirs_exist_ok=True)
        attrs = read_attributes(fresh)
        complete = head.assign_coords({ASKED: (GROWING, growth.asked)})
        # As variables, since the attributes name the coordinates already.
        labels = xr.Dataset({name: complete[name].variable for name in sorted(damage.labels)})
        write_whole(labels.assign_attrs(attrs), fresh)
        written = layout_of(fresh)
        group = zarr.open_group(fresh, mode="r+", use_consolidated=False)
        group.attrs[LAYOUT] = attrs[LAYOUT] | {name: written[name] for name in damage.labels}
