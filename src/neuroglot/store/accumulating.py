"""Sums over items that are saved while they grow, so that a stopped run can go on.

Unlike :mod:`.growing`, which keeps values for every item, sums need the same memory for any number
of items.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from neuroglot.errors import NeuroglotError, is_whole_number, shown
from neuroglot.store.asking import Checksums, prompts_only
from neuroglot.store.damage import DamagedError, mark_layout, read_attributes, reading, writing
from neuroglot.store.folders import (
    clear_up_after_kill,
    fresh_folder,
    is_result,
    locked,
    require_free,
)
from neuroglot.store.interrupts import stop_when_whole
from neuroglot.store.results import (
    ASKED,
    GROWING,
    ITEMS_ADDED,
    has_grown,
    open_dataset,
    opened_whole,
    require_same,
    write_whole,
)

# Each save writes all sums. A killed run loses at most this much work.
SECONDS_BETWEEN = 30.0
SUMS = "sums"  # the folder of the sums, inside the folder of a finished result

AddItems = Callable[[xr.Dataset, slice], None]
"""Adds a block of items to the sums, in place."""


@dataclass(frozen=True)
class Wider:
    """How sums over fewer items or languages become the sums that are wanted now.

    If the new items follow the old ones, they are added to the saved sums. Otherwise all items are
    added up anew, for example when a language is new, because every sum depends on the languages.

    Attributes:
        ask: computes a checksum of what each prompt asks (item, language).
        said: computes what else the sums of the first items depend on, given their number.
        free: settings that may also differ.
        allowed: whether the result may grow; if not, a result of other items or languages is
            refused.
    """

    ask: Callable[[], Checksums]
    said: Callable[[int], dict[str, str]]
    free: tuple[str, ...] = ()
    allowed: bool = True


class Sums:
    """Sums over the items so far, in memory and, if there is a path, on the disk."""

    def __init__(
        self,
        head: xr.Dataset,
        start: xr.Dataset,
        path: Path | None,
        ask: Callable[[], Checksums] | None = None,
    ) -> None:
        self.head, self.sums, self.path, self.ask = head, start, path, ask
        self.n_added, self.note = 0, ""

    def save(self) -> None:
        """Save the sums so far, if there is a path."""
        if self.path is not None:
            self.replace(self._with_asked().assign_attrs({ITEMS_ADDED: self.n_added}))

    def replace(self, data: xr.Dataset, sums: xr.Dataset | None = None) -> None:
        """Replace the folder by ``data`` with the coordinates and attributes of the head.

        Args:
            data: the new content.
            sums: the sums that it was computed from, kept in it so that items can be added later.
        """
        assert self.path is not None
        whole = data.assign_coords(self.head.coords).assign_attrs(self.head.attrs)
        with writing(self.path), fresh_folder(self.path) as fresh:
            write_whole(whole, fresh)
            if sums is not None:
                write_whole(sums, fresh / SUMS)
                mark_layout(fresh / SUMS)
            mark_layout(fresh)

    def finish(self, data: xr.Dataset, wider: Wider) -> None:
        """Save the result that was computed from the sums of all items."""
        self.replace(data, self._with_asked().assign_attrs(wider.said(self.n_added)))

    def _with_asked(self) -> xr.Dataset:
        """The sums and the checksums of what each prompt asks."""
        sums = self.sums.drop_attrs()
        return sums if self.ask is None else sums.assign({ASKED: (GROWING, self.ask())})


@contextmanager
def sums_in_folder(
    path: Path,
    head: xr.Dataset,
    start: xr.Dataset,
    *,
    overwrite: bool,
    wider: Wider | None = None,
) -> Iterator[Sums]:
    """Open the sums at ``path``, or begin them, and keep other processes from writing.

    Args:
        path: the folder. Sums with the same settings are continued; damaged ones are made again.
        head: coordinates and provenance of the result.
        start: the sums of no items.
        overwrite: whether to begin anew in any case.
        wider: how sums over fewer items or languages are continued.

    Raises:
        NeuroglotError: ``path`` holds something else, is in use, or cannot be written to.
    """
    with locked(path):
        growing = Sums(head, start, path, wider.ask if wider is not None else None)
        if overwrite or not is_result(path):
            require_free(path, overwrite=overwrite)
        elif wider is not None and (narrow := _narrower(path, head, wider)) is not None:
            first = _first_sums(path, narrow, growing, wider)
            growing.note = _described(narrow, head, goes_on=first is not None)
            if first is not None:
                growing.sums, growing.n_added = first, narrow.sizes["item"]
        elif (saved := _saved(path, head)) is not None:
            if ITEMS_ADDED not in saved.attrs:
                raise NeuroglotError(f"{str(path)!r} has just been finished by another process.")
            sums = saved.drop_vars([*head.coords, ASKED], errors="ignore").drop_attrs()
            if _of_same_kind(sums, start):
                growing.n_added, growing.sums = _n_added(path, saved), sums
            else:
                growing.note = (
                    "the saved sums are of another version of neuroglot and are made again."
                )
        yield growing


def _of_same_kind(sums: xr.Dataset, others: xr.Dataset) -> bool:
    """Whether two datasets of sums have the same variables with the same dimensions and sizes."""
    shapes, other_shapes = (
        {name: (variable.dims, variable.shape) for name, variable in data.variables.items()}
        for data in (sums, others)
    )
    return shapes == other_shapes


def _saved(path: Path, head: xr.Dataset, *, quiet: bool = False) -> xr.Dataset | None:
    """The saved sums or result; ``None``, with a warning unless ``quiet``, if it is damaged.

    Raises:
        NeuroglotError: it has other settings, or cannot be read for another reason.
    """
    require_same(path, xr.Dataset(attrs=read_attributes(path)), head, ())
    try:
        with reading(path):
            saved = opened_whole(path)
    except DamagedError as error:
        if not quiet:
            warnings.warn(
                f"{str(path)!r} is damaged ({error.reason}); it is made again.", stacklevel=5
            )
        return None
    require_same(path, saved, head, tuple(map(str, head.dims)))
    return saved


def _n_added(path: Path, saved: xr.Dataset) -> int:
    """How many items the saved sums hold."""
    n_added = saved.attrs[ITEMS_ADDED]
    if not is_whole_number(n_added, 0, saved.sizes.get("item", 0)):
        raise DamagedError(path, f"{ITEMS_ADDED!r} is {shown(n_added)}")
    return int(n_added)


def _narrower(path: Path, head: xr.Dataset, wider: Wider) -> xr.Dataset | None:
    """The coordinates of the saved result, if it has fewer items or languages than the head."""
    if not wider.allowed:
        return None
    try:
        saved = open_dataset(path, only_coordinates=True)
    except DamagedError:
        return None  # its settings are compared later, without its coordinates
    dims = tuple(map(str, head.dims))
    if not has_grown(saved, head, dims, *wider.free) or _has_other_prompts(path, wider):
        return None
    return saved


def _has_other_prompts(path: Path, wider: Wider) -> bool:
    """Whether no prompt of a result is wanted now, or the result does not say what they ask."""
    folder = path if ITEMS_ADDED in read_attributes(path) else path / SUMS
    if not folder.is_dir():
        return True
    try:
        with reading(path):
            sums = opened_whole(folder)
    except DamagedError:
        return False
    if ASKED not in sums:
        return True
    asked = sums[ASKED].to_numpy()
    return not set(prompts_only(asked).flat) & set(prompts_only(wider.ask()).flat)


def _first_sums(path: Path, narrow: xr.Dataset, wanted: Sums, wider: Wider) -> xr.Dataset | None:
    """The sums of a finished result, if they are undamaged and cover the first wanted items.

    Args:
        path: the folder of the result.
        narrow: the coordinates of the result.
        wanted: the sums that are wanted, over no items yet.
        wider: what the sums depend on.
    """
    n_items = narrow.sizes["item"]
    first = wanted.head.isel(item=slice(n_items))
    is_first = all(np.array_equal(narrow[dim], first[dim]) for dim in GROWING)
    if not (is_first and (path / SUMS).is_dir()):
        return None
    try:
        with reading(path):
            saved = opened_whole(path / SUMS)
    except DamagedError as error:
        warnings.warn(f"{str(path)!r} is damaged ({error.reason}); it is made again.", stacklevel=5)
        return None
    sums = saved.drop_vars(ASKED).drop_attrs()
    can_go_on = (
        np.array_equal(saved[ASKED].to_numpy().astype(object), wider.ask()[:n_items])
        and saved.attrs == wider.said(n_items)
        and _of_same_kind(sums, wanted.sums)
    )
    return sums if can_go_on else None


def _described(narrow: xr.Dataset, head: xr.Dataset, *, goes_on: bool) -> str:
    """What happens to a saved result of fewer items or languages."""
    saved, wanted = narrow.sizes, head.sizes
    if goes_on:
        return f"{saved['item']} of {wanted['item']} items are there; the rest is added."
    return (
        f"all of {wanted['item']} items in {wanted['language']} languages are added up; the saved "
        f"result has {saved['item']} items in {saved['language']} languages."
    )


def finished(path: Path, head: xr.Dataset, wider: Wider | None = None) -> bool:
    """Whether ``path`` holds a finished, undamaged result with these settings.

    Raises:
        NeuroglotError: it holds a result with other settings.
    """
    clear_up_after_kill(path)
    if not is_result(path) or (wider and _narrower(path, head, wider) is not None):
        return False
    saved = _saved(path, head, quiet=True)  # sums_in_folder warns of damage
    return saved is not None and ITEMS_ADDED not in saved.attrs


def add_all(sums: Sums, add: AddItems, size: int, what: str) -> None:
    """Add every item that is not in the sums yet, block by block.

    Args:
        sums: the sums, which are changed in place and saved from time to time.
        add: the function that adds a block.
        size: the number of items in a block.
        what: the label of the progress bar.
    """
    n_items, saved = sums.head.sizes["item"], time.monotonic()
    with (
        stop_when_whole() as stop_if_asked,
        tqdm(total=n_items, initial=sums.n_added, desc=what, unit="item") as bar,
    ):
        if sums.note and not bar.disable:
            bar.write(f"{what}: {sums.note}", file=sys.stderr)
        while sums.n_added < n_items:
            block = slice(sums.n_added, min(sums.n_added + size, n_items))
            add(sums.sums, block)
            sums.n_added = block.stop
            bar.update(block.stop - block.start)
            if time.monotonic() - saved >= SECONDS_BETWEEN:
                sums.save()
                saved = time.monotonic()
            try:
                stop_if_asked()
            except KeyboardInterrupt:
                sums.save()
                raise
