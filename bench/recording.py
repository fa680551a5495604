"""Recording beside the bare forward pass, and beside the published notebook's way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import neuroglot as ng
from bench.measure import Row, at_least, in_turns
from bench.models import bloom, prompts_of

BATCH = 16


def _texts(task: ng.ParallelTask) -> list[str]:
    return [item["prompts"][language] for item in task.items for language in task.languages]


def padded_batches(
    model: ng.Model, texts: Sequence[str], size: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Batches sorted by length, as anyone would make them."""
    encoded = sorted(model.tokenizer(list(texts))["input_ids"], key=len)
    for start in range(0, len(encoded), size):
        batch = model.tokenizer.pad(
            {"input_ids": encoded[start : start + size]}, return_tensors="pt"
        )
        yield {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}


@torch.inference_mode()
def bare_forward(model: ng.Model, task: ng.ParallelTask) -> None:
    """Run every prompt through the body of the model, and keep nothing."""
    for batch in padded_batches(model, _texts(task), BATCH):
        model.hf.base_model(**batch, use_cache=False)


@torch.no_grad()
def notebook_way(model: ng.Model, task: ng.ParallelTask) -> list[dict[str, set[int]]]:
    """One prompt at a time, with the head, a trace on each module, and Python sets.

    How the published notebooks do it, in our own words; returns neurons by category and item.
    """
    return [
        _categories_by_sets(
            {
                language: _active_by_trace(model, item["prompts"][language])
                for language in task.languages
            },
            model.n_layers * model.n_neurons,
        )
        for item in task.items
    ]


def _active_by_trace(model: ng.Model, prompt: str) -> set[int]:
    """Numbers of the active neurons of all layers, from one forward pass."""
    kept: dict[int, torch.Tensor] = {}

    def trace(layer: int) -> Any:
        return lambda _module, inputs, _output: kept.__setitem__(layer, inputs[0].detach().clone())

    hf: Any = model.hf
    handles = [
        block.mlp.dense_4h_to_h.register_forward_hook(trace(layer))
        for layer, block in enumerate(hf.transformer.h)
    ]
    hf(input_ids=model.tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device))
    for handle in handles:
        handle.remove()
    return {
        layer * model.n_neurons + neuron
        for layer, values in kept.items()
        for neuron in torch.nonzero(values[0, -1] > 0)[:, 0].tolist()
    }


def _categories_by_sets(active: dict[str, set[int]], n_neurons: int) -> dict[str, set[int]]:
    every = set.intersection(*active.values())
    some = set.union(*active.values())
    specific: set[int] = set()
    for language, neurons in active.items():
        others = set().union(*(other for name, other in active.items() if name != language))
        specific |= neurons - others
    return {
        "all_shared": every,
        "specific": specific,
        "partial_shared": some - every - specific,
        "non_activated": set(range(n_neurons)) - some,
    }


def _recorded(model: ng.Model, task: ng.ParallelTask) -> ng.Recording:
    with tempfile.TemporaryDirectory() as folder:
        return ng.record(model, task, out=Path(folder) / "recording")


def rows(n_items: int = 64, width: int = 512, layers: int = 8) -> list[Row]:
    """Lines of the table."""
    model = bloom(width, layers, 8)
    plain = prompts_of(n_items, (16, 60))
    shared = prompts_of(n_items, (40, 60), shared=30)
    few = ng.ParallelTask.from_records(plain.items[:8], name="random")
    by_sets = notebook_way(model, few)
    ours = ng.categories(ng.record(model, few)).values.reshape(len(few), -1)
    agreeing = sum(
        int((ours[i] == code).sum() == len(found[name]))
        for i, found in enumerate(by_sets)
        for code, name in enumerate(("non_activated", "specific", "partial_shared", "all_shared"))
    )
    if agreeing < 4 * len(few) - 2:
        raise RuntimeError("the notebook's way finds other categories")
    seconds = in_turns(
        {
            "bare": lambda: bare_forward(model, plain),
            "record": lambda: _recorded(model, plain),
            "bare, shared": lambda: bare_forward(model, shared),
            "record, shared": lambda: _recorded(model, shared),
        }
    )
    small = in_turns(
        {
            "notebook": lambda: notebook_way(model, few),
            "ours": lambda: ng.classify(ng.record(model, few)),
        }
    )
    return [
        at_least(
            "record, throughput", seconds["record"], seconds["bare"], 0.95,
            "bare body in batches of 16, sorted by length",
        ),
        at_least(
            "record, prompts that share 30 words", seconds["record, shared"],
            seconds["bare, shared"], 1.0, "the same",
        ),
        at_least(
            "record and classify", small["ours"], small["notebook"], 3.0,
            "one prompt at a time, Python sets",
        ),
    ]  # fmt: skip
