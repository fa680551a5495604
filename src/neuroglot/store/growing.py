"""Results that grow block by block of items, in memory or in a folder."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from neuroglot.errors import NeuroglotError
from neuroglot.store.blockwise import InFolder, Values, at, blocks_of, create
from neuroglot.store.damage import writing
from neuroglot.store.folders import (
    clear_up_after_kill,
    fresh_folder,
    is_result,
    locked,
    require_free,
)
from neuroglot.store.interrupts import stop_when_whole
from neuroglot.store.mending import Damage, damage_of, is_same_otherwise, mend
from neuroglot.store.results import text_as_objects
from neuroglot.store.taking_over import Growth, may_grow, take_over
from neuroglot.tasks.parallel import ParallelTask

Made = Callable[[slice, Callable[[int], object]], xr.Dataset]
"""Makes the variables of a block of items; calls back with the number of prompts just done."""


@dataclass(frozen=True)
class Prompts:
    """Some items, each in some languages.

    Attributes:
        items: where they are in the task, ascending.
        languages: where they are in the task, ascending.
    """

    items: Values
    languages: Values

    def of(self, task: ParallelTask) -> ParallelTask:
        """The task with these prompts only."""
        items = [task.items[i] for i in self.items]
        return replace(
            task, items=items, languages=tuple(task.languages[j] for j in self.languages)
        )

    def __len__(self) -> int:
        return len(self.items) * len(self.languages)


MadeOfPrompts = Callable[[Prompts, Callable[[int], object]], xr.Dataset]
"""Makes the variables of some prompts; calls back with the number of prompts just done."""


class Growing(Protocol):
    """Takes the blocks of a result."""

    @property
    def kept(self) -> Values:
        """Prompts whose values are known from a smaller result (item, language)."""

    def missing_blocks(self) -> list[slice]:
        """Blocks of items that are still to be made."""

    def write(self, block: slice, part: xr.Dataset) -> None:
        """Keep the variables of one block."""

    def finish(self, rest: xr.Dataset) -> None:
        """Keep what follows from all blocks, now that none is missing."""


def grow(
    result: Growing,
    make: Made,
    what: str,
    prompts: Mapping[str, int],
    kept: Values | None = None,
) -> None:
    """Make every block that is missing, and write one while the next is made.

    Args:
        result: where blocks go.
        make: makes one.
        what: what the progress bar says is done.
        prompts: ``item``: prompts of an item, and ``total``: of all.
        kept: prompts (item, language) of which nothing has to be made.
    """
    blocks = result.missing_blocks()
    left = sum(block.stop - block.start for block in blocks) * prompts["item"]
    left -= 0 if kept is None else sum(int(kept[block].sum()) for block in blocks)
    total = prompts["total"]
    pending: Future[None] | None = None
    with (
        stop_when_whole() as stop_if_asked,
        tqdm(total=total, initial=total - left, desc=what, unit="prompt") as bar,
        ThreadPoolExecutor(1) as writer,  # waits for the last block, also after an error
    ):
        if kept is not None and kept.any() and not bar.disable:
            bar.write(f"{what}: {_said_of(kept)}", file=sys.stderr)
        for block in blocks:
            part = make(block, bar.update)
            if pending is not None:
                pending.result()
            pending = _submitted(writer, result, block, part)
            stop_if_asked()
        if pending is not None:
            pending.result()


def grow_prompts(result: Growing, make: MadeOfPrompts, what: str, task: ParallelTask) -> None:
    """The same, where prompts that are kept from a smaller result are not made again.

    Args:
        result: where blocks go.
        make: makes some prompts of a block.
        what: what the progress bar says is done.
        task: of the prompts.
    """
    kept = result.kept

    def made(block: slice, done: Callable[[int], object]) -> xr.Dataset:
        parts = [(some, make(some, done)) for some in _left(block, kept)]
        if not kept[block].any():
            return parts[0][1]
        assert isinstance(result, InFolder)  # in memory, nothing was there before
        return _joined(block, result.before(block), parts)

    n = len(task.languages)
    grow(result, made, what, {"item": n, "total": len(task) * n}, kept)


def _said_of(kept: Values) -> str:
    """What of a result that has grown was there before."""
    n_items, n_languages = kept.any(axis=1).sum(), kept.any(axis=0).sum()
    return (
        f"{n_items} of {kept.shape[0]} items are there in {n_languages} of {kept.shape[1]} "
        f"languages; {int((~kept).sum())} prompts are added."
    )


def _left(block: slice, kept: Values) -> list[Prompts]:
    """The prompts of a block that are not kept: items that lack the same languages together."""
    lacking = ~kept[block]
    return [
        Prompts(
            block.start + np.flatnonzero((lacking == languages).all(axis=1)),
            np.flatnonzero(languages),
        )
        for languages in np.unique(lacking, axis=0)
        if languages.any()
    ]


def _joined(
    block: slice, before: xr.Dataset, parts: Sequence[tuple[Prompts, xr.Dataset]]
) -> xr.Dataset:
    """The variables of a block: those of before, with what was made in its place."""
    found = {str(name): variable.to_numpy().copy() for name, variable in before.items()}
    for some, part in parts:
        where = {"item": some.items - block.start, "language": some.languages}
        for name, variable in text_as_objects(part).data_vars.items():
            places = [where.get(str(dim), np.arange(size)) for dim, size in variable.sizes.items()]
            found[str(name)][np.ix_(*places)] = variable.to_numpy()
    return xr.Dataset({name: (before[name].dims, values) for name, values in found.items()})


def _submitted(
    writer: ThreadPoolExecutor, result: Growing, block: slice, part: xr.Dataset
) -> Future[None]:
    try:
        return writer.submit(result.write, block, part)
    except RuntimeError as error:
        raise NeuroglotError(
            f"cannot write what was made: {error}. The blocks before are kept; the same command "
            "goes on."
        ) from error


class InMemory:
    """A result in memory; ``data`` is there once a block was written."""

    def __init__(self, head: xr.Dataset, size: int) -> None:
        self.head, self.size = head, size
        self.parts: dict[str, np.ndarray[Any, Any]] = {}
        self.dims: dict[str, tuple[Any, ...]] = {}

    @property
    def kept(self) -> Values:
        """None."""
        return np.zeros((self.head.sizes["item"], self.head.sizes["language"]), bool)

    def missing_blocks(self) -> list[slice]:
        """All of them."""
        return blocks_of(self.head.sizes["item"], self.size)

    def write(self, block: slice, part: xr.Dataset) -> None:
        """Copy the block to its place."""
        for name, variable in part.data_vars.items():
            dims, key = variable.dims, str(name)
            if key not in self.parts:
                # Texts have no width until all are known.
                dtype = np.dtype(object) if variable.dtype.kind == "U" else variable.dtype
                shape = [self._size(dim, part) for dim in dims]
                self.parts[key], self.dims[key] = np.zeros(shape, dtype), dims
            self.parts[key][at(dims, block)] = variable.to_numpy()

    def _size(self, dim: Any, part: xr.Dataset) -> int:
        return self.head.sizes["item"] if dim == "item" else part.sizes[dim]

    def finish(self, rest: xr.Dataset) -> None:
        """Nothing is left to be done."""

    @property
    def data(self) -> xr.Dataset:
        """Everything so far."""
        found = {
            name: (self.dims[name], values.astype(str) if values.dtype == object else values)
            for name, values in self.parts.items()
        }
        return self.head.assign(found)


@contextmanager
def in_folder(
    path: Path,
    head: xr.Dataset,
    size: int,
    dims: tuple[str, ...],
    *,
    overwrite: bool,
    growth: Growth | None = None,
) -> Iterator[InFolder]:
    """The result that grows at ``path``, held against other processes.

    Args:
        path: goes on with what is there, if it is of the same settings.
        head: coordinates and provenance.
        size: items of a block.
        dims: coordinates that must be the same.
        overwrite: begin anew.
        growth: how what is there goes on if it is of fewer items or languages.

    Raises:
        NeuroglotError: ``path`` holds something else, is in use, or cannot be written to.
    """
    with locked(path):
        if overwrite or not is_result(path):
            require_free(path, overwrite=overwrite)
            with writing(path), fresh_folder(path) as fresh:
                create(fresh, head, size, None if growth is None else growth.asked)
        elif growth is not None and (damage := _damage(path, head, dims)) is not None:
            mend(path, head, size, growth, damage)
        elif may_grow(path, head, dims, growth):
            assert growth is not None
            take_over(path, head, size, growth)
        yield InFolder(path, head)


def is_whole(
    path: Path, head: xr.Dataset, dims: tuple[str, ...], growth: Growth | None = None
) -> bool:
    """Whether a finished result of these settings is at ``path``, with nothing damaged.

    Raises:
        NeuroglotError: a result of other settings is there, which cannot grow.
    """
    clear_up_after_kill(path)
    if not is_result(path):
        return False
    if growth is not None and _damage(path, head, dims) is not None:
        return False
    if may_grow(path, head, dims, growth):
        return False
    found = InFolder(path, head)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever mends it will say what is damaged
        return found.is_finished and not found.missing_blocks()


def _damage(path: Path, head: xr.Dataset, dims: tuple[str, ...]) -> Damage | None:
    """What is to be mended of a result of these settings, beside its blocks.

    Raises:
        NeuroglotError: it is not known whether it is of these settings.
    """
    damage = damage_of(path, head)
    return damage if damage and is_same_otherwise(path, head, dims, damage) else None
