"""Run a block of items through a model, and keep the activity of its neurons."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neuroglot.errors import NeuroglotError
from neuroglot.models.finite import why_not_finite
from neuroglot.models.forward import run_body, run_body_continuations, run_body_prefixes
from neuroglot.models.model import Model
from neuroglot.recording.reading import Reading
from neuroglot.recording.recording import BIT_DIMS, VALUE_DIMS, Bits
from neuroglot.running.batching import (
    Batch,
    RowsAndValues,
    batches,
    in_halves,
    pad,
    tokenize_and_count,
)
from neuroglot.running.prefixes import Group, shared_prefixes
from neuroglot.tasks.parallel import ParallelTask

Prompt = tuple[str, str]
"""Item and language."""

WEIGHTS = (128, 64, 32, 16, 8, 4, 2, 1)  # of the bits in a byte, from the first neuron on


class _Reader:
    """Collects the site values of one batch at the positions that are read."""

    def __init__(self, batch: Batch, reading: Reading, n_neurons: int) -> None:
        self.batch, self.position = batch, reading.position
        self.row_of = {layer: row for row, layer in enumerate(reading.numbered)}
        shape = (len(batch.rows), len(reading.numbered), n_neurons)
        self.values = torch.empty(shape, device=batch.ids.device, dtype=torch.float32)

    def __call__(self, layer: int, values: Tensor) -> None:
        if self.position == "last":
            rows = torch.arange(len(values), device=values.device)
            reduced = values[rows, self.batch.last.to(values.device)]
        else:
            # A neuron is active at some token if its largest value is above the threshold.
            left_out = ~self.batch.mask
            if self.batch.added is not None:
                left_out = left_out | self.batch.added
            left_out = left_out.to(values.device)[..., None]
            reduced = values.masked_fill(left_out, -torch.inf).amax(dim=1)
            # The maximum would hide values of minus infinity.
            is_finite = (torch.isfinite(values) | left_out).all(dim=1)
            reduced = reduced.masked_fill(~is_finite, torch.nan)
        self.values[:, self.row_of[layer]] = reduced.to(self.values.device, torch.float32)


@torch.inference_mode()
def site_values(
    model: Model, batch: Batch, reading: Reading, prompts: Sequence[Prompt] | None = None
) -> Tensor:
    """Site values (prompt, layer, neuron), float32; layers after the last one read do not run.

    Args:
        model: the model that runs.
        batch: the prompts.
        reading: the site, positions and layers that are read.
        prompts: the item and language of each prompt, which edits may ask for.
    """
    reader = _Reader(batch, reading, model.n_neurons)
    with (
        model.units().reading(reading.site, reader, reading.numbered, then_stop=True),
        model.asking(prompts),
    ):
        run_body(model.hf, batch.ids, batch.mask)
    return reader.values


@torch.inference_mode()
def _values_after(
    model: Model,
    sequences: Sequence[Sequence[int]],
    groups: Sequence[Group],
    reading: Reading,
) -> Tensor:
    """Site values (prompt, layer, neuron) at the last token of the groups' prompts, in order.

    The shared beginning of a group runs once, and all its prompts use its keys and values.
    """
    begins = [sequences[group.rows[0]][: group.n_shared] for group in groups]
    ends = [sequences[row][group.n_shared :] for group in groups for row in group.rows]
    before = pad(model, begins, list(range(len(begins))), side="left")
    after = pad(model, ends, list(range(len(ends))), side="right")
    owner = [i for i, group in enumerate(groups) for _ in group.rows]
    owners = torch.tensor(owner, device=before.ids.device)
    cache = run_body_prefixes(model.hf, before.ids, before.mask)
    reader = _Reader(after, reading, model.n_neurons)
    mask = torch.cat([before.mask[owners], after.mask], dim=1)
    with model.units().reading(reading.site, reader, reading.numbered, then_stop=True):
        run_body_continuations(model.hf, after.ids, mask, cache, owners)
    return reader.values


def prompt_keys(task: ParallelTask, block: slice = slice(None)) -> list[Prompt]:
    """The item and language of each prompt, item by item and language by language."""
    return [(item["id"], language) for item in task.items[block] for language in task.languages]


def prompt_names(task: ParallelTask, block: slice = slice(None)) -> list[str]:
    """The name of each prompt in error messages, item by item and language by language."""
    return [
        f"prompt of item {item['id']!r} in {language!r}"
        for item in task.items[block]
        for language in task.languages
    ]


def tokenize_block(model: Model, task: ParallelTask, block: slice = slice(None)) -> list[list[int]]:
    """The token ids of each prompt, item by item and language by language."""
    return _tokenize_and_count(model, task, block)[0]


def _tokenize_and_count(
    model: Model, task: ParallelTask, block: slice
) -> tuple[list[list[int]], list[int]]:
    """As :func:`tokenize_block`, and how many tokens the tokenizer added before each prompt."""
    texts = [item["prompts"][lang] for item in task.items[block] for lang in task.languages]
    return tokenize_and_count(model, texts, prompt_names(task, block))


def pack(values: Tensor, threshold: float) -> Bits:
    """The bits (…, byte) of ``values > threshold`` (…, neuron), the first neuron's bit highest.

    They are packed on the device of the values, so that little is copied from it.
    """
    active = values > threshold
    active = torch.nn.functional.pad(active, (0, -active.shape[-1] % 8))
    weights = torch.tensor(WEIGHTS, dtype=torch.uint8, device=values.device)
    eights = active.to(torch.uint8).reshape(*active.shape[:-1], -1, 8)
    return np.asarray((eights * weights).sum(dim=-1, dtype=torch.uint8).cpu().numpy())


def _check_finite(
    model: Model,
    values: Tensor,
    tokens: Sequence[Sequence[int]],
    names: list[str],
    layers: Sequence[int],
) -> None:
    """Check that site values (prompt, layer, neuron) are finite.

    Args:
        model: the model that ran.
        values: the site values of a batch.
        tokens: the tokens of each prompt of the batch.
        names: the name of each prompt of the batch.
        layers: the layers that were read.

    Raises:
        NeuroglotError: a value is NaN or infinite; the message names the first such prompt and
            layer.
    """
    # If the sum is finite, so are all its terms. If it is not, it may have overflowed.
    if bool(torch.isfinite(values.sum())):
        return
    finite = torch.isfinite(values).all(dim=-1)
    if not bool(finite.all()):
        prompt, layer = torch.nonzero(~finite)[0].tolist()
        why = why_not_finite(model.hf, tokens[prompt], model.running.edits)
        raise NeuroglotError(
            f"{names[prompt]}: layer {layers[layer]} has NaN or infinite activations: {why} To go "
            "on without it, leave out this item."
        )


def _batches_of_values(
    model: Model,
    sequences: Sequence[Sequence[int]],
    n_added: Sequence[int],
    keys: Sequence[Prompt],
    reading: Reading,
) -> Iterator[RowsAndValues]:
    """Rows of ``sequences`` and their site values (prompt, layer, neuron), batch by batch."""
    lengths = [len(ids) for ids in sequences]
    # Positions before the last one, where they are read or edited, belong to each prompt itself.
    alone = reading.position == "all" or bool(model.running.edits) or model.batch_size == 1
    if model.shares_cache and not alone:
        groups = shared_prefixes(sequences)
    else:
        groups = [Group([row], 0) for row in range(len(sequences))]
    group_of = {row: group for group in groups for row in group.rows}

    def by_themselves(rows: list[int]) -> Tensor:
        batch = pad(model, sequences, rows, n_added=None if reading.added_tokens else n_added)
        return site_values(model, batch, reading, [keys[row] for row in rows])

    def in_groups(rows: list[int]) -> Tensor:
        # A batch may hold a part of a group.
        parts = itertools.groupby(rows, key=lambda row: group_of[row])
        of_batch = [Group(list(part), group.n_shared) for group, part in parts]
        return _values_after(model, sequences, of_batch, reading)

    single = [row for group in groups if not group.n_shared for row in group.rows]
    for rows in batches(model, sorted(single, key=lambda row: lengths[row]), lengths):
        yield from in_halves(by_themselves, rows)
    shared = sorted((group for group in groups if group.n_shared), key=lambda group: group.n_shared)
    together = [row for group in shared for row in sorted(group.rows, key=lambda row: lengths[row])]
    for rows in batches(model, together, lengths):
        yield from in_halves(in_groups, rows)


def record_block(
    model: Model,
    task: ParallelTask,
    block: slice,
    reading: Reading,
    done: Callable[[int], object],
) -> xr.Dataset:
    """The activity of neurons for the prompts of a block of items.

    Args:
        model: the model that runs.
        task: the task.
        block: the places of the items in the task.
        reading: what is recorded.
        done: called after each batch with the number of its prompts.

    Returns:
        ``active`` and, if they are kept, ``values``, as in a :class:`Recording`.

    Raises:
        NeuroglotError: activations are NaN or infinite; the message names the prompt and the layer.
    """
    names, keys = prompt_names(task, block), prompt_keys(task, block)
    sequences, n_added = _tokenize_and_count(model, task, block)
    shape = (len(sequences), len(reading.numbered))
    active = np.zeros((len(reading.levels), *shape, -(-model.n_neurons // 8)), np.uint8)
    kept = np.zeros((*shape, model.n_neurons if reading.keep_values else 0), np.float32)
    for rows, values in _batches_of_values(model, sequences, n_added, keys, reading):
        tokens, called = [sequences[row] for row in rows], [names[row] for row in rows]
        _check_finite(model, values, tokens, called, reading.numbered)
        for i, threshold in enumerate(reading.levels):
            active[i, rows] = pack(values, threshold)
        if reading.keep_values:
            kept[rows] = values.cpu().numpy()
        done(len(rows))
    by_item = (-1, len(task.languages), len(reading.numbered))
    arrays: dict[str, Any] = {
        "active": (BIT_DIMS, active.reshape(len(reading.levels), *by_item, active.shape[-1]))
    }
    if reading.keep_values:
        arrays["values"] = (VALUE_DIMS, kept.reshape(*by_item, model.n_neurons))
    return xr.Dataset(arrays)
