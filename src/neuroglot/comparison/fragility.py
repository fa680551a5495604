"""Record the same prompts with other batches and in another number type, and compare."""

from __future__ import annotations

import shutil
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from neuroglot.errors import NeuroglotError
from neuroglot.models.convert import in_dtype
from neuroglot.models.model import Model
from neuroglot.models.operations import operation
from neuroglot.options import options_of
from neuroglot.recording.reading import Reading
from neuroglot.recording.recorder import header, record
from neuroglot.recording.recording import Recording
from neuroglot.sharing.flips import compare_values, fragility_head
from neuroglot.store.damage import DamagedError
from neuroglot.store.folders import as_path, is_result, locked, require_free
from neuroglot.store.results import open_dataset, opened_dataset, replace_whole, require_same
from neuroglot.tasks.parallel import ParallelTask

FULL, HALF = torch.float32, torch.bfloat16
BATCHES = "other batch size"
PARTS = ("reference", "batches", "dtype")  # recordings that a result is made of
OTHER_BATCH = 8  # prompts, whatever their length: by a budget of tokens, long ones would run alone


@operation
def fragility(
    model: Model,
    task: ParallelTask,
    *,
    reading: Reading | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """How many categories depend on rounding: on the batch size, and on the number type.

    The reference is one prompt at a time, the other batch size eight. Values of all prompts are
    kept in memory, and for a while a second copy of the model, so take some tens of items.

    What is counted is what happened to these prompts, with neither an interval nor a test for
    others; so an equal prompt is another run, and counts.

    Args:
        model: in float32 or bfloat16; it is compared with itself in the other of the two.
        task: whose prompts are recorded.
        reading: as in :func:`neuroglot.record`, with one threshold; values are kept anyway.
        out: folder to save the result in. A finished one of the same settings is opened; one that
            was stopped goes on, from the recordings that stand beside the folder until then.
        overwrite: replace what ``out`` holds.

    Returns:
        See :func:`neuroglot.sharing.flips.compare_values`.

    Raises:
        NeuroglotError: the model is in another number type, offloaded, quantised or being edited,
            several thresholds are asked for, or ``out`` holds something else.
    """
    model.require_unedited()
    if model.hf.dtype not in {FULL, HALF}:
        raise NeuroglotError(
            f"the model is in {model.dtype}; load it with dtype='float32' or 'bfloat16'."
        )

    how = replace(options_of(reading, Reading, "reading"), keep_values=True)
    if len(how.levels) > 1:
        raise NeuroglotError(f"thresholds={how.levels}: expected one for this comparison.")
    if out is None:
        return _compared(model, task, how, None)
    path = as_path(out)
    chosen = how.of_layers(model.n_layers)
    recorded = header(model.with_batch_size(1), task, chosen)
    names = (BATCHES, _name_of(_other_type(model)))
    head = fragility_head(recorded.attrs, len(task), chosen.numbered, names, how.levels[0])
    parts = path.with_name(f".{path.name}.recordings")
    with locked(path):
        if overwrite or not _is_finished(path, head):
            require_free(path, overwrite=True)
            replace_whole(_compared(model, task, how, parts, overwrite=overwrite), path)
        for part in map(parts.joinpath, PARTS):
            if is_result(part):
                shutil.rmtree(part)
        _remove_working_folder(parts)
    return opened_dataset(path)


def _is_finished(path: Path, head: xr.Dataset) -> bool:
    """Whether a result of these settings is there; one that is damaged is made again.

    Raises:
        NeuroglotError: a result of other settings is there.
    """
    if not is_result(path):
        return False
    require_same(path, open_dataset(path, only_coordinates=True), head, map(str, head.dims))
    try:
        opened_dataset(path)
    except DamagedError as error:
        warnings.warn(f"{str(path)!r} is damaged ({error.reason}); it is made again.", stacklevel=4)
        return False
    return True


def _compared(
    model: Model,
    task: ParallelTask,
    how: Reading,
    parts: Path | None,
    *,
    overwrite: bool = False,
) -> xr.Dataset:
    """The comparison of three recordings, which are kept in a folder if there is one."""

    def values(of: Model, batch_size: int, name: str) -> Recording:
        kept: dict[str, Any] = {}
        if parts is not None:
            kept = {"out": parts / name, "grow": False, "overwrite": overwrite}
        return record(of.with_batch_size(batch_size), task, reading=how, **kept)

    reference = values(model, 1, PARTS[0])
    others = {BATCHES: values(model, OTHER_BATCH, PARTS[1])}
    converted = in_dtype(model, _other_type(model))
    others[converted.dtype] = values(converted, 1, PARTS[2])
    return compare_values(reference, others, how.levels[0])


def _other_type(model: Model) -> torch.dtype:
    return HALF if model.hf.dtype == FULL else FULL


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _remove_working_folder(parts: Path) -> None:
    """Remove the folder of recordings, if nothing but their locks is in it."""
    if parts.is_dir():
        for name in PARTS:
            (parts / f".{name}.lock").unlink(missing_ok=True)
        with suppress(OSError):  # something of the user's is there
            parts.rmdir()
