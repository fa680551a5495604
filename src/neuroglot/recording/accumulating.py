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

import xarray as xr
from tqdm.auto import tqdm

from neuroglot.errors import NeuroglotError, is_whole_number, shown
from neuroglot.recording.damage import DamagedError, mark_layout, read_attributes, reading, writing
from neuroglot.recording.folders import (
    clear_up_after_kill,
    fresh_folder,
    is_result,
    locked,
    require_free,
)
from neuroglot.recording.interrupts import stop_when_whole
from neuroglot.recording.store import (
    ITEMS_ADDED,
    has_grown,
    open_dataset,
    opened_whole,
    require_same,
    write_whole,
)

# All sums are written each time; so much work is lost at most when a run is killed.
SECONDS_BETWEEN = 30.0

AddItems = Callable[[xr.Dataset, slice], None]
"""Adds a block of items to sums, in place."""


class Sums:
    """Sums of some items, in memory and, where there is a path, on the disk."""

    def __init__(self, head: xr.Dataset, start: xr.Dataset, path: Path | None) -> None:
        self.head, self.sums, self.path = head, start, path
        self.n_added, self.note = 0, ""

    def add(self, block: slice, add: AddItems) -> None:
        """Add one block."""
        add(self.sums, block)
        self.n_added = block.stop

    def save(self) -> None:
        """Save what was added so far."""
        if self.path is not None:
            self.replace(self.sums.assign_attrs({ITEMS_ADDED: self.n_added}))

    def replace(self, data: xr.Dataset) -> None:
        """Let ``data``, with the head's coordinates and attributes, take the folder's place."""
        assert self.path is not None
        whole = data.assign_coords(self.head.coords).assign_attrs(self.head.attrs)
        with writing(self.path), fresh_folder(self.path) as fresh:
            write_whole(whole, fresh)
            mark_layout(fresh)


@dataclass(frozen=True)
class Wider:
    """Whether sums over fewer items or languages are made again over all.

    Attributes:
        allowed: whether they are, or are refused as of other settings.
        free: settings that may then differ too.
    """

    allowed: bool = False
    free: tuple[str, ...] = ()


NARROW = Wider()


@contextmanager
def sums_in_folder(
    path: Path,
    head: xr.Dataset,
    start: xr.Dataset,
    *,
    overwrite: bool,
    wider: Wider = NARROW,
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
        found = Sums(head, start, path)
        if overwrite or not is_result(path):
            require_free(path, overwrite=overwrite)
        elif (narrow := _narrower(path, head, wider)) is not None:
            sizes = (
                f"{data.sizes['item']} items in {data.sizes['language']} languages"
                for data in (narrow, head)
            )
            found.note = "made for all {1}; what was there was of {0}".format(*sizes)
        elif (saved := _saved(path, head)) is not None:
            if ITEMS_ADDED not in saved.attrs:
                raise NeuroglotError(f"{str(path)!r} has just been finished by another process.")
            found.n_added = _n_added(path, saved)
            found.sums = saved.drop_vars([name for name in saved.coords if name in head.coords])
        yield found


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
    return found if has_grown(found, head, dims, *wider.free) else None


def finished(path: Path, head: xr.Dataset, wider: Wider = NARROW) -> bool:
    """Whether a finished result of these settings is at ``path``, with nothing damaged.

    Raises:
        NeuroglotError: a result of other settings is there.
    """
    clear_up_after_kill(path)
    if not is_result(path) or _narrower(path, head, wider) is not None:
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
