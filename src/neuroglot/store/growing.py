"""Results that grow block by block of items, in memory or in a folder."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from neuroglot.errors import NeuroglotError
from neuroglot.store.blockwise import InFolder, at, blocks_of, create
from neuroglot.store.chunks import Values
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
"""Makes the variables of a block of items, and calls back with the number of prompts just done."""


@dataclass(frozen=True)
class Prompts:
    """Some items, each in some languages.

    Attributes:
        items: their indexes in the task, ascending (item).
        languages: their indexes in the task, ascending (language).
    """

    items: Values
    languages: Values

    def of(self, task: ParallelTask) -> ParallelTask:
        """The task reduced to these prompts."""
        items = [task.items[i] for i in self.items]
        return replace(
            task, items=items, languages=tuple(task.languages[j] for j in self.languages)
        )

    def __len__(self) -> int:
        return len(self.items) * len(self.languages)


MadeOfPrompts = Callable[[Prompts, Callable[[int], object]], xr.Dataset]
"""Makes the variables of some prompts, and calls back with the number of prompts just done."""


def grow(
    result: Growing,
    make: Made,
    what: str,
    prompts: Mapping[str, int],
    kept: Values | None = None,
) -> None:
    """Make every missing block, and write each one while the next is made.

    Args:
        result: the result that the blocks are written to.
        make: the function that makes a block.
        what: the label of the progress bar.
        prompts: the number of prompts of an ``"item"`` and in ``"total"``.
        kept: which prompts have values already (item, language).

    Raises:
        NeuroglotError: a block cannot be written.
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
            bar.write(f"{what}: {_described(kept)}", file=sys.stderr)
        for block in blocks:
            part = make(block, bar.update)
            if pending is not None:
                pending.result()
            try:
                pending = writer.submit(result.write, block, part)
            except RuntimeError as error:  # no thread can be started
                raise NeuroglotError(
                    f"cannot write what was made: {error}. The blocks before are kept; the same "
                    "command goes on."
                ) from error
            stop_if_asked()
        if pending is not None:
            pending.result()


def grow_prompts(result: Growing, make: MadeOfPrompts, what: str, task: ParallelTask) -> None:
    """Make every missing block, without the prompts that are kept from a smaller result.

    Args:
        result: the result that the blocks are written to.
        make: the function that makes some prompts of a block.
        what: the label of the progress bar.
        task: the task of the prompts.
    """
    kept = result.kept

    def made(block: slice, done: Callable[[int], object]) -> xr.Dataset:
        parts = [(prompts, make(prompts, done)) for prompts in _left(block, kept)]
        if not kept[block].any():
            return parts[0][1]
        assert isinstance(result, InFolder)  # a result in memory keeps no prompts
        return _joined(block, result.before(block), parts)

    n = len(task.languages)
    grow(result, made, what, {"item": n, "total": len(task) * n}, kept)


def _described(kept: Values) -> str:
    """How much of a growing result is kept and how much is added."""
    n_items, n_languages = kept.any(axis=1).sum(), kept.any(axis=0).sum()
    return (
        f"{n_items} of {kept.shape[0]} items are there in {n_languages} of {kept.shape[1]} "
        f"languages; {int((~kept).sum())} prompts are added."
    )


def _left(block: slice, kept: Values) -> list[Prompts]:
    """The prompts of a block that are not kept; items that lack the same languages are together."""
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
    """The variables of a block, with the new values in place of those from before."""
    joined = before.copy(deep=True)
    for prompts, part in parts:
        indexes = {"item": prompts.items - block.start, "language": prompts.languages}
        for name, variable in text_as_objects(part).data_vars.items():
            places = [indexes.get(str(dim), np.arange(n)) for dim, n in variable.sizes.items()]
            joined[name].to_numpy()[np.ix_(*places)] = variable.to_numpy()
    return joined


class InMemory:
    """A result in memory."""

    def __init__(self, head: xr.Dataset, size: int) -> None:
        self.head, self.size = head, size
        self.parts: dict[str, np.ndarray[Any, Any]] = {}
        self.dims: dict[str, tuple[Any, ...]] = {}

    @property
    def kept(self) -> Values:
        """Which prompts have values from a smaller result: none (item, language)."""
        return np.zeros((self.head.sizes["item"], self.head.sizes["language"]), bool)

    def missing_blocks(self) -> list[slice]:
        """The blocks of all items."""
        return blocks_of(self.head.sizes["item"], self.size)

    def write(self, block: slice, part: xr.Dataset) -> None:
        """Copy the variables of a block to their places."""
        for name, variable in text_as_objects(part).data_vars.items():
            dims, key = variable.dims, str(name)
            if key not in self.parts:
                sizes = {**variable.sizes, "item": self.head.sizes["item"]}
                self.parts[key] = np.zeros([sizes[dim] for dim in dims], variable.dtype)
                self.dims[key] = dims
            self.parts[key][at(dims, block)] = variable.to_numpy()

    @property
    def data(self) -> xr.Dataset:
        """The head and the variables of the blocks that were written."""
        variables = {
            name: (self.dims[name], values.astype(str) if values.dtype == object else values)
            for name, values in self.parts.items()
        }
        return self.head.assign(variables)


Growing = InFolder | InMemory
"""A result to which blocks of items are written."""


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
    """Open the growing result at ``path``, or begin it, and keep other processes from writing.

    Args:
        path: the folder. A result with the same settings is continued.
        head: coordinates and provenance.
        size: the number of items in a block.
        dims: coordinates that must be the same.
        overwrite: whether to begin anew in any case.
        growth: how a result of fewer items or languages is continued.

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
    """Whether ``path`` holds a finished, undamaged result with these settings.

    Raises:
        NeuroglotError: it holds a result with other settings, which cannot grow.
    """
    clear_up_after_kill(path)
    if not is_result(path):
        return False
    if growth is not None and _damage(path, head, dims) is not None:
        return False
    if may_grow(path, head, dims, growth):
        return False
    saved = InFolder(path, head)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in_folder warns of damage
        return saved.is_finished and not saved.missing_blocks()


def _damage(path: Path, head: xr.Dataset, dims: tuple[str, ...]) -> Damage | None:
    """The damage outside the blocks of a result with these settings, if there is any.

    Raises:
        NeuroglotError: the damage hides whether the result has these settings.
    """
    damage = damage_of(path, head)
    return damage if damage and is_same_otherwise(path, head, dims, damage) else None
