"""Sums over items that are saved as they grow, so that a run that is stopped can go on.

Unlike :mod:`.growing`, which keeps what is known of every item, these take the same room however
many items there are.
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

# All sums are written each time; so much work is lost at most when a run is killed.
SECONDS_BETWEEN = 30.0
SUMS = "sums"  # folder in that of a finished result

AddItems = Callable[[xr.Dataset, slice], None]
"""Adds a block of items to sums, in place."""


@dataclass(frozen=True)
class Wider:
    """What becomes of sums over fewer items or languages.

    Items after those that were added are added to the same sums. Else all are added up anew, as
    where there is another language, on which what is added up depends.

    Attributes:
        ask: finds a checksum of what each prompt asks (item, language).
        said: finds what else the sums of so many first items depend on.
        free: settings that may differ too.
        allowed: whether there may be more items or languages, or they are refused as other
            settings.
    """

    ask: Callable[[], Checksums]
    said: Callable[[int], dict[str, str]]
    free: tuple[str, ...] = ()
    allowed: bool = True


class Sums:
    """Sums of some items, in memory and, where there is a path, on the disk."""

    def __init__(
        self,
        head: xr.Dataset,
        start: xr.Dataset,
        path: Path | None,
        ask: Callable[[], Checksums] | None = None,
    ) -> None:
        self.head, self.sums, self.path, self.ask = head, start, path, ask
        self.n_added, self.note = 0, ""

    def add(self, block: slice, add: AddItems) -> None:
        """Add one block."""
        add(self.sums, block)
        self.n_added = block.stop

    def save(self) -> None:
        """Save what was added so far."""
        if self.path is not None:
            self.replace(self._with_asked().assign_attrs({ITEMS_ADDED: self.n_added}))

    def replace(self, data: xr.Dataset, sums: xr.Dataset | None = None) -> None:
        """Let ``data``, with the head's coordinates and attributes, take the folder's place.

        Args:
            data: what is to be there.
            sums: from which it follows, kept in it for more items to be added.
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
        """The same for the result, now that all items are added."""
        self.replace(data, self._with_asked().assign_attrs(wider.said(self.n_added)))

    def _with_asked(self) -> xr.Dataset:
        """The sums, with what each prompt asks."""
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
    """The sums that grow at ``path``, held against other processes.

    Args:
        path: goes on with what is there, if it is of the same settings; begins anew if that is
            damaged, or of fewer items or languages.
        head: coordinates and provenance.
        start: sums over nothing.
        overwrite: begin anew.
        wider: what becomes of sums over fewer items or languages.

    Raises:
        NeuroglotError: ``path`` holds something else, is in use, or cannot be written to.
    """
    with locked(path):
        found = Sums(head, start, path, wider.ask if wider is not None else None)
        if overwrite or not is_result(path):
            require_free(path, overwrite=overwrite)
        elif wider is not None and (narrow := _narrower(path, head, wider)) is not None:
            first = _first_sums(path, narrow, found, wider)
            found.note = _said_of(narrow, head, goes_on=first is not None)
            if first is not None:
                found.sums, found.n_added = first, narrow.sizes["item"]
        elif (saved := _saved(path, head)) is not None:
            if ITEMS_ADDED not in saved.attrs:
                raise NeuroglotError(f"{str(path)!r} has just been finished by another process.")
            sums = saved.drop_vars([*head.coords, ASKED], errors="ignore").drop_attrs()
            if _of_same_kind(sums, start):
                found.n_added, found.sums = _n_added(path, saved), sums
            else:
                found.note = "what was there is of another version of neuroglot; it is made again."
        yield found


def _of_same_kind(sums: xr.Dataset, others: xr.Dataset) -> bool:
    """Whether sums are of the same names and shapes."""
    one, other = ({x: (v.dims, v.shape) for x, v in of.variables.items()} for of in (sums, others))
    return one == other


def _saved(path: Path, head: xr.Dataset, *, quiet: bool = False) -> xr.Dataset | None:
    """What is there of these settings; nothing, with a warning unless quiet, if it is damaged.

    Raises:
        NeuroglotError: it is of other settings, or cannot be read for another reason.
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
    """Items that the sums hold."""
    found = saved.attrs[ITEMS_ADDED]
    if not is_whole_number(found, 0, saved.sizes.get("item", 0)):
        raise DamagedError(path, f"{ITEMS_ADDED!r} is {shown(found)}")
    return int(found)


def _narrower(path: Path, head: xr.Dataset, wider: Wider) -> xr.Dataset | None:
    """The coordinates of what is there, if it is of fewer items or languages."""
    if not wider.allowed:
        return None
    try:
        found = open_dataset(path, only_coordinates=True)
    except DamagedError:
        return None  # whether it is of other settings is looked at without coordinates
    dims = tuple(map(str, head.dims))
    if not has_grown(found, head, dims, *wider.free) or _is_of_others(path, wider):
        return None
    return found


def _is_of_others(path: Path, wider: Wider) -> bool:
    """Whether no prompt of a result is wanted, or it is of before this was kept."""
    place = path if ITEMS_ADDED in read_attributes(path) else path / SUMS
    if not place.is_dir():
        return True
    try:
        with reading(path):
            kept = opened_whole(place)
    except DamagedError:
        return False
    if ASKED not in kept:
        return True
    asked = kept[ASKED].to_numpy()
    return not set(prompts_only(asked).flat) & set(prompts_only(wider.ask()).flat)


def _first_sums(path: Path, narrow: xr.Dataset, wanted: Sums, wider: Wider) -> xr.Dataset | None:
    """The sums of a finished result, if they are those of the first items, and whole.

    Args:
        path: of the result.
        narrow: its coordinates.
        wanted: sums over nothing yet.
        wider: what the sums depend on.
    """
    n_items = narrow.sizes["item"]
    first = wanted.head.isel(item=slice(n_items))
    is_first = all(np.array_equal(narrow[dim], first[dim]) for dim in GROWING)
    if not (is_first and (path / SUMS).is_dir()):
        return None
    try:
        with reading(path):
            found = opened_whole(path / SUMS)
    except DamagedError as error:
        warnings.warn(f"{str(path)!r} is damaged ({error.reason}); it is made again.", stacklevel=5)
        return None
    same = np.array_equal(found[ASKED].to_numpy().astype(object), wider.ask()[:n_items])
    sums = found.drop_vars(ASKED).drop_attrs()
    is_known = same and found.attrs == wider.said(n_items) and _of_same_kind(sums, wanted.sums)
    return sums if is_known else None


def _said_of(narrow: xr.Dataset, head: xr.Dataset, *, goes_on: bool) -> str:
    """What is done with what was there."""
    there, wanted = narrow.sizes, head.sizes
    if goes_on:
        return f"{there['item']} of {wanted['item']} items are there; the rest is added."
    return (
        f"all of {wanted['item']} items in {wanted['language']} languages are added up; what was "
        f"there was of {there['item']} items in {there['language']} languages."
    )


def finished(path: Path, head: xr.Dataset, wider: Wider | None = None) -> bool:
    """Whether a finished result of these settings is at ``path``, with nothing damaged.

    Raises:
        NeuroglotError: a result of other settings is there.
    """
    clear_up_after_kill(path)
    if not is_result(path) or (wider and _narrower(path, head, wider) is not None):
        return False
    saved = _saved(path, head, quiet=True)  # whoever makes it again will say what is damaged
    return saved is not None and ITEMS_ADDED not in saved.attrs


def add_all(sums: Sums, add: AddItems, size: int, what: str) -> None:
    """Add every block of items that is not in the sums yet.

    Args:
        sums: to which they are added.
        add: adds one.
        size: items of a block.
        what: what the progress bar says is done.
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
            sums.add(block, add)
            bar.update(block.stop - block.start)
            if time.monotonic() - saved >= SECONDS_BETWEEN:
                sums.save()
                saved = time.monotonic()
            try:
                stop_if_asked()
            except KeyboardInterrupt:
                sums.save()
                raise
