"""Sums over items that are saved as they grow, so that a run that is stopped can go on.

Unlike :mod:`.growing`, which keeps what is known of every item, these take the same room however
many items there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import xarray as xr
from tqdm.auto import tqdm

from neuroglot.recording.damage import mark_layout, read_attributes
from neuroglot.recording.folders import fresh_folder, is_result, locked, require_free
from neuroglot.recording.interrupts import stop_when_whole
from neuroglot.recording.store import ITEMS_ADDED, open_dataset, require_same, write_whole

AddItems = Callable[[xr.Dataset, slice], None]
"""Adds a block of items to sums, in place."""


class Sums:
    """Sums of some items, in memory and, where there is a path, on the disk."""

    def __init__(self, head: xr.Dataset, start: xr.Dataset, path: Path | None) -> None:
        self.head, self.sums, self.path = head, start, path
        self.n_added = 0

    def add(self, block: slice, add: AddItems) -> None:
        """Add one block, then save all."""
        add(self.sums, block)
        self.n_added = block.stop
        if self.path is not None:
            self.replace(self.sums.assign_attrs({ITEMS_ADDED: self.n_added}))

    def replace(self, data: xr.Dataset) -> None:
        """Let ``data``, with the head's coordinates and attributes, take the folder's place."""
        assert self.path is not None
        whole = data.assign_coords(self.head.coords).assign_attrs(self.head.attrs)
        with fresh_folder(self.path) as fresh:
            write_whole(whole, fresh)
            mark_layout(fresh)


@contextmanager
def sums_in_folder(
    path: Path, head: xr.Dataset, start: xr.Dataset, *, overwrite: bool
) -> Iterator[Sums]:
    """The sums that grow at ``path``, held against other processes.

    Args:
        path: goes on with what is there, if it is of the same settings.
        head: coordinates and provenance.
        start: sums over nothing.
        overwrite: begin anew.

    Raises:
        NeuroglotError: ``path`` holds something else, is damaged, in use, or cannot be written to.
    """
    with locked(path):
        found = Sums(head, start, path)
        if overwrite or not is_result(path):
            require_free(path, overwrite=overwrite)
        else:
            saved = open_dataset(path).load()
            found.n_added = int(saved.attrs[ITEMS_ADDED])
            found.sums = saved.drop_vars([name for name in saved.coords if name in head.coords])
        yield found


def finished(path: Path, head: xr.Dataset) -> bool:
    """Whether a finished result of these settings is at ``path``.

    Raises:
        NeuroglotError: a result of other settings is there.
    """
    if not is_result(path):
        return False
    require_same(path, open_dataset(path, only_coordinates=True), head, tuple(map(str, head.dims)))
    return ITEMS_ADDED not in read_attributes(path)


def add_all(sums: Sums, add: AddItems, size: int, what: str) -> None:
    """Add every block of items that is not in the sums yet.

    Args:
        sums: to which they are added.
        add: adds one.
        size: items of a block.
        what: what the progress bar says is done.
    """
    n_items = sums.head.sizes["item"]
    with (
        stop_when_whole() as stop_if_asked,
        tqdm(total=n_items, initial=sums.n_added, desc=what, unit="item") as bar,
    ):
        while sums.n_added < n_items:
            block = slice(sums.n_added, min(sums.n_added + size, n_items))
            sums.add(block, add)
            bar.update(block.stop - block.start)
            stop_if_asked()
