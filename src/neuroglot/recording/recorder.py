"""Record which feed-forward neurons are active for each prompt of a task."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from neuroglot.models.model import Model
from neuroglot.models.operations import operation
from neuroglot.options import options_of
from neuroglot.recording.blocks import record_block, site_values, tokenize_block
from neuroglot.recording.reading import Reading
from neuroglot.recording.recording import BIT_DIMS, KIND, Recording
from neuroglot.recording.saved import load_saved
from neuroglot.running.batching import batches, by_length, pad
from neuroglot.store.asking import asked_by
from neuroglot.store.folders import as_path
from neuroglot.store.growing import InMemory, Prompts, grow_prompts, in_folder, is_whole
from neuroglot.store.joining import require_steady_prompts
from neuroglot.store.provenance import provenance
from neuroglot.store.taking_over import Growth
from neuroglot.tasks.parallel import ParallelTask

# The largest number of items, and of bytes in memory, that are written together, and lost together
# if a run is killed.
BLOCK, BLOCK_BYTES = 64, 32 * 2**20


@operation
def record(
    model: Model,
    task: ParallelTask,
    *,
    reading: Reading | None = None,
    out: str | Path | None = None,
    grow: bool = True,
    overwrite: bool = False,
) -> Recording:
    """Run every prompt of a task once, and record which neurons are active.

    The output head does not run. Padding never counts, on whichever side it is.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        task: the task whose prompts are run; its answers are not used.
        reading: the values that are recorded, and the tokens at which they are.
        out: the folder to record into. If it holds an unfinished recording with the same settings,
            recording goes on where it stopped; a finished one is opened; one with fewer items or
            languages grows. By default the recording stays in memory.
        grow: whether a recording in ``out`` with fewer items or languages, but otherwise the same
            settings, may grow, without running its prompts again. Otherwise it is refused.
        overwrite: whether to replace what is in ``out``.

    Raises:
        NeuroglotError: a setting is invalid, a prompt is longer than the context, activations are
            NaN or infinite, or ``out`` holds a recording with other settings. The part that was
            recorded before the error is kept.

    Examples:
        >>> import neuroglot as ng
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=4)
        >>> ng.record(ng.load_model("embedded/base"), task)
        Recording(embedded/base on facts: 4 items, 2 languages, 6 layers of 768 neurons)
    """
    chosen = options_of(reading, Reading, "reading").of_layers(model.n_layers)
    head = header(model, task, chosen)
    dims, growth = BIT_DIMS[:-1], Growth(lambda: asked_by(model, task), allowed=grow)
    if out is not None and not overwrite and is_whole(as_path(out), head, dims, growth):
        return _opened(out)
    for start in range(0, len(task), BLOCK):
        # A prompt that is too long is found now, and not after an hour.
        tokenize_block(model, task, slice(start, start + BLOCK))
    size = max(1, min(BLOCK, BLOCK_BYTES // _item_bytes(model, task, chosen)))

    def make(prompts: Prompts, done: Callable[[int], object]) -> xr.Dataset:
        return record_block(model, prompts.of(task), slice(None), chosen, done)

    if out is None:
        memory = InMemory(head, size)
        grow_prompts(memory, make, "record", task)
        require_steady_prompts(model, task, head.attrs)
        return Recording(memory.data)
    path = as_path(out)
    with in_folder(path, head, size, dims, overwrite=overwrite, growth=growth) as folder:
        grow_prompts(folder, make, "record", task)
        require_steady_prompts(model, task, head.attrs)
        folder.finish(xr.Dataset())
    return _opened(out)


def header(model: Model, task: ParallelTask, reading: Reading) -> xr.Dataset:
    """The coordinates and attributes of a recording, without its data."""
    return xr.Dataset(
        coords={
            "threshold": list(reading.levels),
            "item": [item["id"] for item in task.items],
            "language": list(task.languages),
            "layer": list(reading.numbered),
        },
        attrs={
            "kind": KIND,
            **provenance(model, task),
            "n_neurons": model.n_neurons,
            "site": reading.site,
            "position": reading.position,
            "keep_values": int(reading.keep_values),
            "added_tokens": int(reading.added_tokens),
        },
    )


def _opened(out: str | Path) -> Recording:
    stored = load_saved(out)
    assert isinstance(stored, Recording)
    return stored


def _item_bytes(model: Model, task: ParallelTask, reading: Reading) -> int:
    """The number of bytes that one item takes in the recording and in memory."""
    per_layer = len(reading.levels) * -(-model.n_neurons // 8)
    per_layer += 4 * model.n_neurons if reading.keep_values else 0
    return len(task.languages) * len(reading.numbered) * per_layer


@dataclass(frozen=True)
class Plan:
    """The cost of a recording that has not been made.

    Attributes:
        prompts: the number of prompts.
        tokens: the number of tokens, without padding.
        stored_bytes: the size of the recording in bytes.
        seconds: the time that recording will take, as estimated from one batch.
    """

    prompts: int
    tokens: int
    stored_bytes: int
    seconds: float


@operation
def plan_recording(
    model: Model,
    task: ParallelTask,
    *,
    reading: Reading | None = None,
) -> Plan:
    """Estimate the cost of :func:`record`, by running one batch of the prompts.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        task: the task whose prompts would be run.
        reading: the values that would be recorded.

    Raises:
        NeuroglotError: a layer is unknown, or a prompt does not fit into the model's context.

    Examples:
        >>> import neuroglot as ng
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=4)
        >>> plan = ng.plan_recording(ng.load_model("embedded/base"), task)
        >>> plan.prompts, plan.stored_bytes
        (8, 4608)
    """
    chosen = options_of(reading, Reading, "reading").of_layers(model.n_layers)
    sequences = tokenize_block(model, task)
    lengths = [len(ids) for ids in sequences]
    rows_of_batches = list(batches(model, by_length(lengths), lengths))
    batch = pad(model, sequences, rows_of_batches[len(rows_of_batches) // 2])
    site_values(model, batch, chosen)  # the first run is slower
    began = time.perf_counter()
    site_values(model, batch, chosen)
    per_token = (time.perf_counter() - began) / batch.ids.numel()
    padded = sum(len(rows) * max(lengths[row] for row in rows) for rows in rows_of_batches)
    return Plan(
        prompts=len(sequences),
        tokens=sum(lengths),
        stored_bytes=len(task) * _item_bytes(model, task, chosen),
        seconds=per_token * padded,
    )
