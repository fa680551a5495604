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
    """Input and output width of a linear map, even a quantised one; ``None`` for other modules."""
    if isinstance(module, Conv1D):
        # GPT-2's Conv1D stores its weight transposed, and has no in_features.
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    into, out = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return (into, out) if isinstance(into, int) and isinstance(out, int) else None


def down_widths(down: nn.Module) -> tuple[int, int]:
    """Input and output width of a down projection: neurons and ``d_model``.

    Raises:
        NeuroglotError: the module is not a linear map.
    """
    input_and_output = widths(down)
    if input_and_output is None:
        weight = getattr(down, "weight", None)
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else "none"
        raise NeuroglotError(
            f"{type(down).__name__} (weight shape {shape}) is not a dense down projection: "
            "expected a torch.nn.Linear, a Conv1D or a quantised linear layer."
        )
    return input_and_output


def is_ordinary(down: nn.Module) -> bool:
    """Whether the weight is a plain floating-point matrix, neither quantised nor offloaded."""
    weight = getattr(down, "weight", None)
    if not isinstance(down, nn.Linear | Conv1D) or not isinstance(weight, Tensor):
        return False
    # Quantised and sharded weights are of subclasses, which may report a floating-point type.
    is_plain = type(weight) in (Tensor, nn.Parameter)
    return is_plain and weight.dtype in FLOATING and not weight.is_meta


@dataclass(frozen=True)
class FFNSite:
    """The feed-forward network of one layer.

    Attributes:
        layer: number of the layer, counted from the input, from 0.
        path: dotted name of the down projection inside the model.
        down: the down projection; its input are the coefficients ``m``.
        activation: the module whose output is the gate ``g``, or ``None`` if ``g = m``.
        block: the layer that contains the network.
        found_by: whether the network was found by the table of paths, by the user's path, or by the
            structure of the layers.
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
        """Where its gates or its coefficients can be read and written."""
        if kind == "gate" and self.activation is not None:
            return Place(self.layer, self.block, self.path, on_output, self.activation)
        return Place(self.layer, self.block, self.path, on_input, self.down)

    def value_vectors(self) -> Tensor:
        """The matrix (neuron, d_model) whose rows are the value vectors ``v_i``.

        The matrix is a view of the weight, on its device and in its number type.

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
        # If it is pruned or parametrized, it is not a parameter but computed from others.
        matrix = cast("Tensor", self.down.weight).detach()
        vectors = matrix if isinstance(self.down, Conv1D) else matrix.T
        self._check(vectors)
        return vectors

    @torch.no_grad()
    def _check(self, vectors: Tensor) -> None:
        """Refuse a module that does not multiply by its weight, as if it quantises its input."""
        inputs = torch.linspace(-1, 1, len(vectors), device=vectors.device)[None].to(vectors.dtype)
        # `forward` is called directly, because hooks are meant for forward passes of the model.
        product = self.down.forward(inputs) - self.down.forward(torch.zeros_like(inputs))
        error = (product - inputs @ vectors).float().norm() / product.float().norm()
        if not error < torch.finfo(vectors.dtype).eps ** 0.5:
            raise NeuroglotError(
                f"{self.path} ({type(self.down).__name__}) does more than multiply by its weight, "
                "so the weight holds no value vectors; recording works without them."
            )
