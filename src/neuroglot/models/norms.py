"""Norms of any class as affine maps whose scale is frozen."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

# For inputs of this size, the small number that norms add to the variance has no effect.
LARGE = 1e3
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Norm:
    """``norm(x) = weight * (x - mean(x)) / scale(x) + bias``; without the mean unless ``centred``.

    Attributes:
        module: a copy of the model's module, in float32.
        weight: weight of each dimension (d_model,).
        bias: bias of each dimension (d_model,).
        centred: whether the mean is subtracted (LayerNorm) or not (RMSNorm).
    """

    module: nn.Module
    weight: Tensor
    bias: Tensor
    centred: bool

    def _spread(self, x: Tensor) -> Tensor:
        """``weight * (x - mean(x))``, of the shape of ``x``."""
        return self.weight * (x - x.mean(dim=-1, keepdim=True) if self.centred else x)

    @torch.no_grad()
    def apply(self, x: Tensor) -> Tensor:
        """The module's output for ``x`` (…, d_model), in float32."""
        return cast("Tensor", self.module.forward(x.float()))

    def pull_back(self, direction: Tensor, at: Tensor) -> Tensor:
        """Translate a direction in the norm's output into a direction in its input.

        Args:
            direction: direction in the output (prompt, d_model).
            at: input (prompt, d_model) at which the scale is frozen.

        Returns:
            ``d'`` (prompt, d_model) with ``d' · x = direction · (norm(x) - bias)`` for all ``x`` of
            the same scale.
        """
        spread = self._spread(at.float())
        size = (spread * spread).sum(dim=-1, keepdim=True)
        along = (spread * (self.apply(at) - self.bias)).sum(dim=-1, keepdim=True)
        # An input that the norm maps to its bias has no scale, and contributes nothing.
        inverse_scale = torch.where(size > 0, along / size.clamp(min=1e-30), 0.0)
        weighted = self.weight * direction
        if self.centred:
            weighted = weighted - weighted.mean(dim=-1, keepdim=True)
        return weighted * inverse_scale


@torch.no_grad()
def as_norm(module: nn.Module, d_model: int, device: torch.device) -> Norm | None:
    """The module as a norm of vectors of size ``d_model``, or ``None`` if it is no norm.

    Weight and bias are derived from its outputs for two opposite inputs, and whether it subtracts
    the mean from its output for a constant input. Its output for a random input must then agree
    with the formula.
    """
    size = sum(parameter.numel() for parameter in module.parameters())
    if size > 2 * d_model or any(parameter.is_meta for parameter in module.parameters()):
        return None
    # `forward` is called directly, so that no hook of the model runs.
    copied = copy.deepcopy(module).float().to(device)
    # Accelerate replaces it by a function that would move the values to another device.
    copied.__dict__.pop("forward", None)
    signs = torch.ones(1, d_model, device=device, dtype=torch.float32)
    signs[:, 1::2] = -1
    signs = signs - signs.mean()
    try:
        up, down = copied.forward(LARGE * signs), copied.forward(-LARGE * signs)
        constant = copied.forward(LARGE * torch.ones_like(signs))
        bias = (up + down) / 2
        weight = (up - down) / 2 * signs.square().mean().sqrt() / signs
        centred = bool((constant - bias).norm() < (constant - bias - weight).norm())
        norm = Norm(copied, weight[0], bias[0], centred)
        random = torch.Generator().manual_seed(0)
        x = torch.randn(1, d_model, generator=random, dtype=torch.float32).to(device) + 0.5
        spread = x - x.mean() if centred else x
        expected = weight * spread / spread.square().mean().sqrt() + bias
        error = (copied.forward(x) - expected).norm() / expected.norm()
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return None
    return norm if error < TOLERANCE else None


def norms_in(
    parts: Iterable[nn.Module], d_model: int, device: torch.device
) -> dict[nn.Module, Norm]:
    """Those of the modules that are norms of vectors of size ``d_model``, by module."""
    leaves = (part for part in parts if not any(True for _ in part.children()))
    norms = {part: as_norm(part, d_model, device) for part in leaves}
    return {part: norm for part, norm in norms.items() if norm is not None}
