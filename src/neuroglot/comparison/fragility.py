"""Compare recordings of the same prompts with other batch sizes and number types."""

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
PARTS = ("reference", "batches", "dtype")  # the recordings that are compared
OTHER_BATCH = 8  # prompts; with batch size "auto", long ones could run alone


@operation
def fragility(
    model: Model,
    task: ParallelTask,
    *,
    reading: Reading | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """How many categories depend on rounding, through the batch size and the number type.

    The reference runs one prompt at a time. It is compared with batches of eight prompts, and with
    the model in the other number type. The values of all prompts are kept in memory, and for a
    while a second copy of the model, so use some tens of items.

    The numbers are counts for these prompts, without intervals or tests for others. So equal
    prompts all count.

    Args:
        model: a model in float32 or bfloat16, which is compared with itself in the other type.
        task: the task whose prompts are recorded.
        reading: as in :func:`neuroglot.record`, with one threshold; values are always kept.
        out: the folder to save the result in. If it holds a finished result with the same
            settings, that is opened. If a run was stopped, it goes on from its recordings, which
            are beside the folder until then.
        overwrite: whether to replace what is in ``out``.

    Returns:
        A dataset (comparison, layer); see :func:`neuroglot.sharing.flips.compare_values`.

    Raises:
        NeuroglotError: the model has another number type, or is offloaded, quantised or being
            edited; there are several thresholds; or ``out`` holds something else.

    Examples:
        >>> import neuroglot as ng
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=4)
        >>> flips = ng.fragility(ng.load_model("embedded/base"), task)
        >>> flips["comparison"].values.tolist()
        ['other batch size', 'bfloat16']
        >>> bool(flips["category_flips"].max() < 0.1)
        True
    """
    model.require_unedited()
    if model.hf.dtype not in {FULL, HALF}:
        raise NeuroglotError(
            f"the model is in {model.dtype}; load it with dtype='float32' or 'bfloat16'."
        )
    kept = replace(options_of(reading, Reading, "reading"), keep_values=True)
    if len(kept.levels) > 1:
        raise NeuroglotError(f"thresholds={kept.levels}: expected one for this comparison.")
    if out is None:
        return _compared(model, task, kept, None)
    path = as_path(out)
    chosen = kept.of_layers(model.n_layers)
    attrs = header(model.with_batch_size(1), task, chosen).attrs
    names = (BATCHES, str(_other_type(model)).removeprefix("torch."))
    head = fragility_head(attrs, len(task), chosen.numbered, names, kept.levels[0])
    parts = path.with_name(f".{path.name}.recordings")
    with locked(path):
        if overwrite or not _is_finished(path, head):
            require_free(path, overwrite=True)
            replace_whole(_compared(model, task, kept, parts, overwrite=overwrite), path)
        for part in map(parts.joinpath, PARTS):
            if is_result(part):
                shutil.rmtree(part)
        _remove_working_folder(parts)
    return opened_dataset(path)


def _is_finished(path: Path, head: xr.Dataset) -> bool:
    """Whether a folder holds an undamaged result with these settings.

    Raises:
        NeuroglotError: it holds a result with other settings.
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
    reading: Reading,
    parts: Path | None,
    *,
    overwrite: bool = False,
) -> xr.Dataset:
    """The comparison of three recordings, which are saved in the folder ``parts``, if given."""

    def values(variant: Model, batch_size: int, name: str) -> Recording:
        kept: dict[str, Any] = {}
        if parts is not None:
            kept = {"out": parts / name, "grow": False, "overwrite": overwrite}
        return record(variant.with_batch_size(batch_size), task, reading=reading, **kept)

    reference = values(model, 1, PARTS[0])
    others = {BATCHES: values(model, OTHER_BATCH, PARTS[1])}
    converted = in_dtype(model, _other_type(model))
    others[converted.dtype] = values(converted, 1, PARTS[2])
    return compare_values(reference, others, reading.levels[0])


def _other_type(model: Model) -> torch.dtype:
    return HALF if model.hf.dtype == FULL else FULL


def _remove_working_folder(parts: Path) -> None:
    """Remove the folder of recordings, if it holds nothing but their locks."""
    if parts.is_dir():
        for name in PARTS:
            (parts / f".{name}.lock").unlink(missing_ok=True)
        with suppress(OSError):  # the user has put something there
            parts.rmdir()
