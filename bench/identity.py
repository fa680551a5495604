"""Checksums over every byte of a model's weights, beside reading them once."""

from __future__ import annotations

from statistics import median

import torch
from torch import nn

from bench.measure import Row, in_turns, reported
from neuroglot.models.identity import weights_checksum

GIGABYTE = 10**9
PARAMETERS_7B, BYTES_OF_BFLOAT16 = 7 * 10**9, 2


def rows(layers: int = 16) -> list[Row]:
    """Lines of the table."""
    width = int((GIGABYTE / 4 / layers) ** 0.5)
    stack = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    weights = [parameter.detach().view(torch.int64) for parameter in stack.parameters()]
    size = sum(parameter.nbytes for parameter in stack.parameters()) / GIGABYTE
    seconds = in_turns(
        {
            "floor": lambda: [weight.sum() for weight in weights],
            "ours": lambda: weights_checksum(stack),
        }
    )
    speed = size / median(seconds["ours"])
    whole = PARAMETERS_7B * BYTES_OF_BFLOAT16 / GIGABYTE / speed
    note = f"sum of the bytes as words, all threads; {size:.2f} GB at {speed:.1f} GB/s"
    said = "7 billion weights in bfloat16 at that speed; bound in seconds"
    return [
        reported("identity, 1 GB of weights", seconds["ours"], seconds["floor"], note),
        Row("identity, extrapolated to 7B", whole, 5, whole / 5, "< 5 s", whole < 5, said),
    ]
