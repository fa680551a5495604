"""Let a result grow to more items or languages without making again what it holds.

The new result is written beside the old one, with the values of all prompts that ask the same as
before, and then replaces it. So one of the two is always complete if the process is killed, and the
missing values are then made as for any result that was stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.errors import NeuroglotError
from neuroglot.store.asking import Checksums, prompts_only
from neuroglot.store.blockwise import KEPT, InFolder, create
from neuroglot.store.chunks import Values
from neuroglot.store.damage import mark_layout, read_attributes, reading, writing
from neuroglot.store.folders import fresh_folder
from neuroglot.store.lazy import lazy_dataset
from neuroglot.store.results import (
    ASKED,
    GROWING,
    has_grown,
    open_dataset,
    require_same,
    write_whole,
)


@dataclass(frozen=True)
class Growth:
    """How a result of fewer items or languages becomes the one that is wanted.

    Attributes:
        ask: computes a checksum of all that the values of each prompt depend on (item, language).
        longer: the new sizes of dimensions that more items may make longer, such as the choices.
        anew: variables that follow from the task, and replace the old ones (item, language).
        allowed: whether the result may grow; if not, one of other items or languages is refused.
    """

    ask: Callable[[], Checksums]
    longer: Mapping[str, int] = field(default_factory=dict)
    anew: Mapping[str, Values] = field(default_factory=dict)
    allowed: bool = True

    @cached_property
    def asked(self) -> Checksums:
        """A checksum of what each prompt asks (item, language)."""
        return self.ask()


def may_grow(path: Path, head: xr.Dataset, dims: tuple[str, ...], growth: Growth | None) -> bool:
    """Whether the result at ``path`` must grow; if not, it has the wanted settings.

    Raises:
        NeuroglotError: the result has other settings, does not say what its prompts ask, or has no
            prompt that is wanted.
    """
    saved = open_dataset(path, only_coordinates=True)
    if growth is None or not growth.allowed or not has_grown(saved, head, dims):
        require_same(path, saved, head, dims)
        return False
    with reading(path):
        data = lazy_dataset(path)
        if ASKED not in data:
            raise NeuroglotError(
                f"{str(path)!r} holds other items or languages, and cannot grow, as it does not "
                "say what each prompt asked: it was saved from memory, or made by an earlier "
                "version of neuroglot. Name another folder, use the same items and languages, or "
                "pass overwrite=True (--overwrite)."
            )
        there, before = _before(data, head)
        if not (there & (prompts_only(before) == prompts_only(growth.asked))).any():
            require_same(path, saved, head, dims)
    return True


def _before(data: xr.Dataset, head: xr.Dataset) -> tuple[Values, Values]:
    """Which wanted prompts the result has, and checksums of what they ask (item, language)."""
    rows, columns = _indexes(data, head)
    asked = data[ASKED].to_numpy().astype(object)[np.ix_(rows, columns)]
    return (rows >= 0)[:, None] & (columns >= 0), asked


def _indexes(data: xr.Dataset, head: xr.Dataset) -> tuple[Values, Values]:
    """The index in the result of each wanted item (item) and language (language), or −1."""
    rows, columns = (_index_of(data[dim], head[dim]) for dim in GROWING)
    return rows, columns


def _index_of(saved: xr.DataArray, wanted: xr.DataArray) -> Values:
    index = {str(name): i for i, name in enumerate(saved.to_numpy())}
    return np.array([index.get(str(name), -1) for name in wanted.to_numpy()], np.int64)


def take_over(path: Path, head: xr.Dataset, size: int, growth: Growth) -> None:
    """Replace the result by one with the wanted head and all values that stay valid.

    The caller holds the lock.

    Raises:
        NeuroglotError: the old result cannot be read, or the new one cannot be written; the old one
            is unchanged.
    """
    before = InFolder(path, open_dataset(path, only_coordinates=True))
    with reading(path):
        data = lazy_dataset(path)
        rows, columns = _indexes(data, head)
        wanted, asked = _before(data, head)
        same = wanted & (asked == growth.asked)
        _warn_of_others(head, wanted & ~same)
        kept = same & before.there()[np.ix_(rows, columns)]
    with writing(path), fresh_folder(path) as fresh:
        create(fresh, head, size, growth.asked)
        # xarray replaces the attributes in the folder by those of what it writes.
        write_whole(xr.Dataset({KEPT: (GROWING, kept)}, attrs=read_attributes(fresh)), fresh)
        after = InFolder(fresh, head)
        for block in after.blocks:
            of_block = kept[block]
            if of_block.any():
                with reading(path):
                    part = before.taken(
                        np.where(of_block.any(axis=1), rows[block], -1),
                        np.where(of_block.any(axis=0), columns, -1),
                        growth.longer,
                    )
                anew: dict[str, Any] = {
                    name: (GROWING, values[block]) for name, values in growth.anew.items()
                }
                after.write(block, part.assign(anew), is_whole=bool(of_block.all()))
        mark_layout(fresh)


def _warn_of_others(head: xr.Dataset, others: Values) -> None:
    """Warn of prompts that ask something else than before under the same id and language."""
    if others.any():
        row, column = np.argwhere(others)[0]
        item, language = head["item"].to_numpy()[row], head["language"].to_numpy()[column]
        warnings.warn(
            f"{int(others.sum())} prompts ask something else than before, or among other choices, "
            f"and are made again: the first is that of item {str(item)!r} in {str(language)!r}.",
            stacklevel=4,
        )
