"""The shape of BLOOMZ-7B with random weights on a GPU; a small shape on a CPU.

``python -m bench.gpu`` times 1,000 items in ten languages of 60 tokens each.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import neuroglot as ng
from bench.measure import Row, at_least, reported
from bench.models import bloom, prompts_of
from bench.recording import bare_forward, notebook_way


@dataclass(frozen=True)
class Shape:
    """What is run."""

    width: int
    layers: int
    heads: int
    n_items: int
    n_by_sets: int  # items for the notebook's way, which is then scaled up
    dtype: str


BLOOMZ_7B = Shape(4096, 30, 32, 1000, 4, "bfloat16")
SMALL = Shape(128, 4, 4, 24, 4, "float32")


def _seconds(run: object, device: str) -> list[float]:
    assert callable(run)
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return [time.perf_counter() - start]


def rows() -> list[Row]:
    """Lines of the table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = BLOOMZ_7B if device == "cuda" else SMALL
    model = bloom(shape.width, shape.layers, shape.heads, device, shape.dtype)
    task = prompts_of(shape.n_items, (60, 60))
    few = ng.ParallelTask.from_records(task.items[: shape.n_by_sets], name="random")
    with tempfile.TemporaryDirectory() as folder:
        ng.classify(ng.record(model, few, out=Path(folder) / "warm"))
        ours = _seconds(
            lambda: ng.classify(ng.record(model, task, out=Path(folder) / "recording")), device
        )
    bare_forward(model, few)
    bare = _seconds(lambda: bare_forward(model, task), device)
    (some,) = _seconds(lambda: notebook_way(model, few), device)
    by_sets = [some * shape.n_items / shape.n_by_sets]
    if device == "cpu":
        small = "CPU, a small shape: shows that it runs, the bounds are for a GPU"
        return [
            reported("record and classify, small", ours, bare, f"bare body; {small}"),
            reported("the same", ours, by_sets, f"the notebook's way, scaled up; {small}"),
        ]
    where = torch.cuda.get_device_name()
    return [
        at_least("record and classify, 7B", ours, bare, 0.9, f"bare body; {where}"),
        at_least("the same", ours, by_sets, 20, f"the notebook's way, scaled up; {where}"),
        Row(
            "10,000 prompts of 60 tokens", ours[0], 45, ours[0] / 45, "< 45 s", ours[0] < 45, where
        ),
    ]


if __name__ == "__main__":
    from bench.table import print_table

    print_table(rows())
