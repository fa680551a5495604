"""A result that grows to more items or languages: what it holds is not made again.

The new result is made aside, with all values of prompts that ask the same as before, and then
takes the place of the old one. So either of them is there whenever a process is killed, and what
is still missing of the new one is made like that of any result that was stopped.
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
from neuroglot.store.blockwise import KEPT, PROMPT, InFolder, Values, create
from neuroglot.store.damage import mark_layout, read_attributes, reading, writing
from neuroglot.store.folders import fresh_folder
from neuroglot.store.lazy import lazy_dataset
from neuroglot.store.results import ASKED, has_grown, open_dataset, require_same, write_whole


@dataclass(frozen=True)
class Growth:
    """How a result of fewer items or languages becomes the one that is wanted.

    Attributes:
        ask: finds a checksum of all that the values of each prompt depend on (item, language).
        longer: sizes of dimensions that more items may make longer, such as that of choices.
        anew: variables (item, language) that follow from the task, and are not taken over.
        allowed: whether it may grow, or is refused as one of other settings.
    """

    ask: Callable[[], Checksums]
    longer: Mapping[str, int] = field(default_factory=dict)
    anew: Mapping[str, Values] = field(default_factory=dict)
    allowed: bool = True

    @cached_property
    def asked(self) -> Checksums:
        """What each prompt asks (item, language)."""
        return self.ask()


def may_grow(path: Path, head: xr.Dataset, dims: tuple[str, ...], growth: Growth | None) -> bool:
    """Whether what is at ``path`` is to grow; it is of the settings that are wanted if not.

    Raises:
        NeuroglotError: it is of other settings, does not say what its prompts ask, or none of them
            is wanted.
    """
    found = open_dataset(path, only_coordinates=True)
    if growth is None or not growth.allowed or not has_grown(found, head, dims):
        require_same(path, found, head, dims)
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
            require_same(path, found, head, dims)
    return True


def _before(data: xr.Dataset, head: xr.Dataset) -> tuple[Values, Values]:
    """Which of the prompts that are wanted the result has, and what they ask (item, language)."""
    rows, columns = _places(data, head)
    asked = data[ASKED].to_numpy().astype(object)[np.ix_(rows, columns)]
    return (rows >= 0)[:, None] & (columns >= 0), asked


def _places(data: xr.Dataset, head: xr.Dataset) -> tuple[Values, Values]:
    """Where each item and each language is in the result; −1 for one that is not."""
    rows, columns = (_index_of(data[dim], head[dim]) for dim in PROMPT)
    return rows, columns


def _index_of(there: xr.DataArray, wanted: xr.DataArray) -> Values:
    index = {str(name): i for i, name in enumerate(there.to_numpy())}
    return np.array([index.get(str(name), -1) for name in wanted.to_numpy()], np.int64)


def take_over(path: Path, head: xr.Dataset, size: int, growth: Growth) -> None:
    """Let a result with the head that is wanted, and all values that stay, take its place.

    To be used under the lock.

    Raises:
        NeuroglotError: the old result cannot be read, or the new one not be written; the old one
            is there still.
    """
    before = InFolder(path, open_dataset(path, only_coordinates=True))
    with reading(path):
        data = lazy_dataset(path)
        rows, columns = _places(data, head)
        wanted, asked = _before(data, head)
        same = wanted & (asked == growth.asked)
        _warn_of_others(head, wanted & ~same)
        kept = same & before.there()[np.ix_(rows, columns)]
    with writing(path), fresh_folder(path) as fresh:
        create(fresh, head, size, growth.asked)
        # With the attributes that are there, which xarray would replace by none.
        write_whole(xr.Dataset({KEPT: (PROMPT, kept)}, attrs=read_attributes(fresh)), fresh)
        after = InFolder(fresh, head)
        for block in after.blocks:
            here = kept[block]
            if here.any():
                with reading(path):
                    part = before.taken(
                        np.where(here.any(axis=1), rows[block], -1),
                        np.where(here.any(axis=0), columns, -1),
                        growth.longer,
                    )
                anew: dict[str, Any] = {
                    name: (PROMPT, values[block]) for name, values in growth.anew.items()
                }
                after.write(block, part.assign(anew), is_whole=bool(here.all()))
        mark_layout(fresh)


def _warn_of_others(head: xr.Dataset, others: Values) -> None:
    """Say which prompts ask something else than before, though they are called the same."""
    if others.any():
        row, column = np.argwhere(others)[0]
        item, language = head["item"].to_numpy()[row], head["language"].to_numpy()[column]
        warnings.warn(
            f"{int(others.sum())} prompts ask something else than before, or among other choices, "
            f"and are made again: the first is that of item {str(item)!r} in {str(language)!r}.",
            stacklevel=4,
        )
