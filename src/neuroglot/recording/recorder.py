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
from neuroglot.recording.saved import load
from neuroglot.running.batching import batches, by_length, pad
from neuroglot.store.asking import asked_by
from neuroglot.store.folders import as_path
from neuroglot.store.growing import InMemory, Prompts, grow_prompts, in_folder, is_whole
from neuroglot.store.joining import require_steady_prompts
from neuroglot.store.provenance import provenance
from neuroglot.store.taking_over import Growth
from neuroglot.tasks.parallel import ParallelTask

# Items that are written together, and lost together when a run is killed: at most so many, and
# at most so many bytes, which a block takes in memory.
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
    """Run every prompt of ``task`` once and record which neurons are active.

    The LM head is not run. Padding never counts, on whichever side the tokenizer pads.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        task: its prompts are read, its answers are not.
        reading: what of the neurons is recorded, and at which tokens.
        out: folder to record into. An unfinished recording of the same settings there goes on
            where it stopped; a finished one is opened; one of fewer items or languages grows.
            Without it, the recording stays in memory.
        grow: whether a recording in ``out`` of fewer items or languages, and of the same settings
            else, grows: prompts that ask the same are not run again. Else it is refused.
        overwrite: replace what ``out`` holds.

    Raises:
        NeuroglotError: bad settings, a prompt longer than the context, NaN or infinite
            activations, or an ``out`` that holds a recording of other settings. What was
            recorded before the error stays.
    """
    chosen = options_of(reading, Reading, "reading").of_layers(model.n_layers)
    head = header(model, task, chosen)
    dims, growth = BIT_DIMS[:-1], Growth(lambda: asked_by(model, task), allowed=grow)
    if out is not None and not overwrite and is_whole(as_path(out), head, dims, growth):
        return _opened(out)
    _check_lengths(model, task)
    size = max(1, min(BLOCK, BLOCK_BYTES // _item_bytes(model, task, chosen)))

    def make(some: Prompts, done: Callable[[int], object]) -> xr.Dataset:
        return record_block(model, some.of(task), slice(None), chosen, done)

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
    """Coordinates and provenance of a recording, without its data."""
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
    stored = load(out)
    assert isinstance(stored, Recording)
    return stored


def _check_lengths(model: Model, task: ParallelTask) -> None:
    """A prompt that does not fit is found now, not after an hour; tokens are not kept."""
    for start in range(0, len(task), BLOCK):
        tokenize_block(model, task, slice(start, start + BLOCK))


def _item_bytes(model: Model, task: ParallelTask, reading: Reading) -> int:
    """Bytes that one item takes in the recording and in memory."""
    per_layer = len(reading.levels) * -(-model.n_neurons // 8)
    per_layer += 4 * model.n_neurons if reading.keep_values else 0
    return len(task.languages) * len(reading.numbered) * per_layer


@dataclass(frozen=True)
class Plan:
    """What a recording will cost, for ``--dry-run``.

    Attributes:
        prompts: number of prompts.
        tokens: number of tokens, padding excluded.
        stored_bytes: size of the recording.
        seconds: estimate from a batch that was really run.
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
    """What :func:`record` would cost, from the real prompts and a timing of one batch.

    Args:
        model: as for :func:`record`.
        task: as for :func:`record`.
        reading: as for :func:`record`.

    Raises:
        NeuroglotError: unknown layers, or a prompt does not fit into the model's context.
    """
    chosen = options_of(reading, Reading, "reading").of_layers(model.n_layers)
    sequences = tokenize_block(model, task)
    lengths = [len(ids) for ids in sequences]
    found = list(batches(model, by_length(lengths), lengths))
    batch = pad(model, sequences, found[len(found) // 2])
    site_values(model, batch, chosen)  # warms up
    began = time.perf_counter()
    site_values(model, batch, chosen)
    per_token = (time.perf_counter() - began) / batch.ids.numel()
    padded = sum(len(rows) * max(lengths[row] for row in rows) for rows in found)
    return Plan(
        prompts=len(sequences),
        tokens=sum(lengths),
        stored_bytes=len(task) * _item_bytes(model, task, chosen),
        seconds=per_token * padded,
    )
