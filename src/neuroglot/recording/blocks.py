"""Run a block of items through a model and keep what its neurons did."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
    batches,
    in_halves,
    pad,
    tokenize_and_count,
)
from neuroglot.running.prefixes import Group, shared_prefixes
from neuroglot.tasks.parallel import ParallelTask

Prompt = tuple[str, str]
"""Item and language."""

WEIGHTS = (128, 64, 32, 16, 8, 4, 2, 1)  # of a byte's bits, the first neuron's first


class _Reader:
    """Gathers the site values of one batch at the positions that are looked at."""

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
            # Active at any token means: the largest value is above the threshold.
            left_out = ~self.batch.mask
            if self.batch.added is not None:
                left_out = left_out | self.batch.added
            left_out = left_out.to(values.device)[..., None]
            reduced = values.masked_fill(left_out, -torch.inf).amax(dim=1)
            # A maximum would hide what is minus infinity.
            sound = (torch.isfinite(values) | left_out).all(dim=1)
            reduced = reduced.masked_fill(~sound, torch.nan)
        self.values[:, self.row_of[layer]] = reduced.to(self.values.device, torch.float32)


@torch.inference_mode()
def site_values(
    model: Model, batch: Batch, reading: Reading, prompts: Sequence[Prompt] | None = None
) -> Tensor:
    """Site values (prompt, layer, neuron), float32; nothing runs after the last layer of them.

    Args:
        model: which runs.
        batch: of prompts.
        reading: what is read.
        prompts: item and language of each prompt of the batch, for edits that ask for them.
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

    The beginning that a group shares runs once; its keys and values serve all its prompts.
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
    """What tells prompts apart, item by item and language by language."""
    return [(item["id"], language) for item in task.items[block] for language in task.languages]


def prompt_names(task: ParallelTask, block: slice = slice(None)) -> list[str]:
    """What errors call each prompt, item by item and language by language."""
    return [
        f"prompt of item {item['id']!r} in {language!r}"
        for item in task.items[block]
        for language in task.languages
    ]


def tokenize_block(model: Model, task: ParallelTask, block: slice = slice(None)) -> list[list[int]]:
    """Token ids of each prompt, item by item and language by language."""
    return _tokenize_and_count(model, task, block)[0]


def _tokenize_and_count(
    model: Model, task: ParallelTask, block: slice
) -> tuple[list[list[int]], list[int]]:
    """The same, and how many of each prompt's first tokens the tokenizer added."""
    texts = [item["prompts"][lang] for item in task.items[block] for lang in task.languages]
    return tokenize_and_count(model, texts, prompt_names(task, block))


def pack(values: Tensor, threshold: float) -> Bits:
    """Bits (…, byte) of ``values > threshold`` (…, neuron); the first neuron is the highest bit.

    Packed where the values are, since an eighth of a byte a neuron is soon copied.
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
    """Refuse site values (prompt, layer, neuron) that are NaN or infinite.

    Args:
        model: which ran.
        values: of a batch.
        tokens: of each of its prompts.
        names: of each of its prompts.
        layers: which were read.

    Raises:
        NeuroglotError: it names the first such prompt and layer.
    """
    # A sum is finite only if all its terms are, or if they overflow together.
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


class _Kept:
    """The arrays of one block, prompt by prompt."""

    def __init__(self, n_prompts: int, reading: Reading, n_neurons: int) -> None:
        self.reading = reading
        shape = (n_prompts, len(reading.numbered))
        n_thresholds = len(reading.levels)
        self.active = np.zeros((n_thresholds, *shape, -(-n_neurons // 8)), np.uint8)
        self.values = np.zeros((*shape, n_neurons if reading.keep_values else 0), np.float32)

    def keep(self, rows: list[int], values: Tensor) -> None:
        for i, threshold in enumerate(self.reading.levels):
            self.active[i, rows] = pack(values, threshold)
        if self.reading.keep_values:
            self.values[rows] = values.cpu().numpy()

    def by_item(self, n_languages: int) -> xr.Dataset:
        shape = (-1, n_languages, len(self.reading.numbered))
        n_thresholds, n_bytes = len(self.active), self.active.shape[-1]
        parts: dict[str, Any] = {
            "active": (BIT_DIMS, self.active.reshape(n_thresholds, *shape, n_bytes))
        }
        if self.reading.keep_values:
            parts["values"] = (VALUE_DIMS, self.values.reshape(*shape, self.values.shape[-1]))
        return xr.Dataset(parts)


def record_block(
    model: Model,
    task: ParallelTask,
    block: slice,
    reading: Reading,
    done: Callable[[int], object],
) -> xr.Dataset:
    """What neurons did for the prompts of a block of items.

    Args:
        model: which runs.
        task: of the items.
        block: which items.
        reading: what is recorded.
        done: told, again and again, how many prompts were run since.

    Returns:
        ``active`` and, where kept, ``values``, as in a :class:`Recording`.

    Raises:
        NeuroglotError: NaN or infinite activations; it names the prompt and the layer.
    """
    names = prompt_names(task, block)
    sequences, n_added = _tokenize_and_count(model, task, block)
    kept = _Kept(len(sequences), reading, model.n_neurons)
    groups = [Group([row], 0) for row in range(len(sequences))]
    # Where all positions are looked at, or edited, a shared beginning belongs to each prompt.
    alone = reading.position == "all" or bool(model.running.edits) or model.batch_size == 1
    if model.shares_cache and not alone:
        groups = shared_prefixes(sequences)
    left_out = None if reading.added_tokens else n_added
    prompts = _Prompts(sequences, prompt_keys(task, block), left_out)
    for run, order in _orders(model, prompts, groups, reading):
        for batch in batches(model, order, [len(ids) for ids in sequences]):
            for rows, values in in_halves(run, batch):
                tokens, called = [sequences[row] for row in rows], [names[row] for row in rows]
                _check_finite(model, values, tokens, called, reading.numbered)
                kept.keep(rows, values)
                done(len(rows))
    return kept.by_item(len(task.languages))


@dataclass(frozen=True)
class _Prompts:
    """Tokens of each prompt, what tells it apart, and how many first tokens are not looked at."""

    sequences: Sequence[Sequence[int]]
    keys: Sequence[Prompt]
    left_out: Sequence[int] | None


def _orders(
    model: Model, prompts: _Prompts, groups: Sequence[Group], reading: Reading
) -> Iterator[tuple[Callable[[list[int]], Tensor], list[int]]]:
    """How prompts are run, and in which order: those by themselves, and those in groups."""
    group_of = {row: group for group in groups for row in group.rows}
    sequences = prompts.sequences

    def by_themselves(rows: list[int]) -> Tensor:
        these = [prompts.keys[row] for row in rows]
        batch = pad(model, sequences, rows, n_added=prompts.left_out)
        return site_values(model, batch, reading, these)

    def in_groups(rows: list[int]) -> Tensor:
        # A batch may hold a part of a group.
        parts = itertools.groupby(rows, key=lambda row: group_of[row])
        these = [Group(list(part), group.n_shared) for group, part in parts]
        return _values_after(model, sequences, these, reading)

    def length(row: int) -> int:
        return len(sequences[row])

    alone = [row for group in groups if not group.n_shared for row in group.rows]
    yield by_themselves, sorted(alone, key=length)
    ordered = sorted((g for g in groups if g.n_shared), key=lambda group: group.n_shared)
    yield in_groups, [row for group in ordered for row in sorted(group.rows, key=length)]
