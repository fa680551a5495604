"""One feed-forward network: its down projection, its activation and its value vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from neuroglot.errors import NeuroglotError
from neuroglot.models.hooks import Place, on_input, on_output
from neuroglot.models.site_kinds import SiteKind

FoundBy = Literal["table", "path", "structure"]
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def widths(module: nn.Module) -> tuple[int, int] | None:
    """Input and output width of a linear map, also of a quantised one; else ``None``."""
    if isinstance(module, Conv1D):
        # GPT-2's Conv1D keeps its weight transposed, and has no in_features.
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    into, out = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return (into, out) if isinstance(into, int) and isinstance(out, int) else None


def down_widths(down: nn.Module) -> tuple[int, int]:
    """Input and output width of a down projection: neurons and ``d_model``.

    Raises:
        NeuroglotError: the module is no linear map.
    """
    found = widths(down)
    if found is None:
        weight = getattr(down, "weight", None)
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else "none"
        raise NeuroglotError(
            f"{type(down).__name__} (weight shape {shape}) is no dense down projection: expected "
            "a torch.nn.Linear, a Conv1D or a quantised linear layer."
        )
    return found


def is_ordinary(down: nn.Module) -> bool:
    """Whether the weight is a plain floating-point matrix: not quantised, and not offloaded."""
    weight = getattr(down, "weight", None)
    if not isinstance(down, nn.Linear | Conv1D) or not isinstance(weight, Tensor):
        return False
    # Quantised and sharded weights are subclasses that may claim a floating-point type.
    plain = type(weight) in (Tensor, nn.Parameter)
    return plain and weight.dtype in FLOATING and not weight.is_meta


@dataclass(frozen=True)
class FFNSite:
    """The feed-forward network of one layer.

    Attributes:
        layer: index from the input side, from 0.
        path: dotted name of the down projection inside the model.
        down: the down projection; its input are the coefficients ``m``.
        activation: the module whose output is the gate ``g``, or ``None`` where ``g = m``.
        block: the layer that holds the network.
        found_by: the table, the path that a user named, or the structure of the layers.
    """

    layer: int
    path: str
    down: nn.Module
    activation: nn.Module | None
    block: nn.Module
    found_by: FoundBy

    @property
    def n_neurons(self) -> int:
        """Number of hidden units."""
        return down_widths(self.down)[0]

    def place(self, kind: SiteKind) -> Place:
        """Where its gates pass by, or its coefficients."""
        if kind == "gate" and self.activation is not None:
            return Place(self.layer, self.block, self.path, on_output, self.activation)
        return Place(self.layer, self.block, self.path, on_input, self.down)

    def value_vectors(self) -> Tensor:
        """The matrix (neuron, d_model) whose rows are the value vectors ``v_i``.

        It is a view of the weight, on its device and in its dtype.

        Raises:
            NeuroglotError: the weight is quantised or offloaded, or the module does more than
                multiply by it.
        """
        if not is_ordinary(self.down):
            weight = getattr(self.down, "weight", None)
            kind = f"{weight.dtype} on {weight.device}" if isinstance(weight, Tensor) else "packed"
            raise NeuroglotError(
                f"value vectors need floating-point weights, but {self.path} is a "
                f"{type(self.down).__module__}.{type(self.down).__name__} whose weights are "
                f"{kind} ({type(weight).__name__}); recording works without them. For value "
                "vectors, load the model unquantised and wholly on one device."
            )
        # Not a parameter where it is pruned or parametrized, but computed from others.
        matrix = cast("Tensor", self.down.weight).detach()
        vectors = matrix if isinstance(self.down, Conv1D) else matrix.T
        self._check(vectors)
        return vectors

    @torch.no_grad()
    def _check(self, vectors: Tensor) -> None:
        """The module must do what its weight says; one that quantises as it runs does not."""
        some = torch.linspace(-1, 1, len(vectors), device=vectors.device)[None].to(vectors.dtype)
        # Past the hooks, which belong to the forward pass of the model.
        found = self.down.forward(some) - self.down.forward(torch.zeros_like(some))
        error = (found - some @ vectors).float().norm() / found.float().norm()
        if not error < torch.finfo(vectors.dtype).eps ** 0.5:
            raise NeuroglotError(
                f"{self.path} ({type(self.down).__name__}) does more than multiply by its weight, "
                "so the weight holds no value vectors; recording works without them."
            )
