"""Norms by what they do, held against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from neuroglot.models.norms import Norm, as_norm, norms_in

CPU = torch.device("cpu")


def random(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return module


def found(module: nn.Module, d_model: int) -> Norm:
    norm = as_norm(module, d_model, CPU)
    assert norm is not None
    return norm


@pytest.mark.parametrize("d_model", [4, 7, 16])
def test_weight_bias_and_centre_are_read_off(d_model: int) -> None:
    layer = random(nn.LayerNorm(d_model))
    assert isinstance(layer, nn.LayerNorm)
    norm = found(layer, d_model)
    assert norm.centred
    torch.testing.assert_close(norm.weight, layer.weight.data, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm.bias, layer.bias.data, atol=1e-5, rtol=1e-5)
    llama = random(LlamaRMSNorm(d_model))
    norm = found(llama, d_model)
    assert not norm.centred
    torch.testing.assert_close(norm.weight, llama.get_parameter("weight").data)
    assert norm.bias.abs().max() < 1e-5
    # Gemma's weight is what is added to one.
    gemma = random(Gemma2RMSNorm(d_model))
    expected = 1 + gemma.get_parameter("weight").data
    torch.testing.assert_close(found(gemma, d_model).weight, expected, atol=1e-5, rtol=1e-5)


def test_norms_without_weights_and_in_half_precision() -> None:
    assert found(nn.LayerNorm(8, elementwise_affine=False), 8).centred
    half = random(nn.LayerNorm(8)).to(torch.bfloat16)
    norm = found(half, 8)
    assert norm.weight.dtype == torch.float32
    assert half.get_parameter("weight").dtype == torch.bfloat16, "the model's own is left alone"


class Unscaled(nn.Module):
    """Takes off the mean, but does not divide."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=-1, keepdim=True)


def test_what_is_no_norm() -> None:
    others = [
        nn.Identity(), nn.Dropout().eval(), nn.Linear(8, 8), nn.Linear(8, 1), nn.ReLU(), nn.Tanh(),
        nn.Softmax(dim=-1), nn.Embedding(4, 8), nn.LayerNorm(6), Unscaled(),
    ]  # fmt: skip
    assert [as_norm(module, 8, CPU) for module in others] == [None] * len(others)
    layer = nn.LayerNorm(8)
    assert list(norms_in([*others, nn.Sequential(layer), layer], 8, CPU)) == [layer]


@pytest.mark.parametrize(
    "module",
    [nn.LayerNorm(9), LlamaRMSNorm(9), Gemma2RMSNorm(9), nn.LayerNorm(9, elementwise_affine=False)],
)
def test_a_direction_before_the_norm_does_what_it_does_after(module: nn.Module) -> None:
    norm = found(random(module), 9)
    generator = torch.Generator().manual_seed(1)
    x, direction = torch.randn(2, 5, 9, generator=generator)
    before = norm.pull_back(direction, x)
    with torch.no_grad():
        after = (direction * (module(x) - norm.bias)).sum(dim=-1)
    torch.testing.assert_close((before * x).sum(dim=-1), after)
    # With its scale frozen, the norm is linear: parts of x add up.
    part = torch.randn(5, 9, generator=generator)
    whole = (before * part).sum(dim=-1) + (before * (x - part)).sum(dim=-1)
    torch.testing.assert_close(whole, after)


def test_a_direction_is_what_the_gradient_is_when_the_scale_is_frozen() -> None:
    """By autograd, with the scale as a constant."""
    layer = random(nn.LayerNorm(6, eps=1e-12))
    assert isinstance(layer, nn.LayerNorm)
    x = torch.randn(1, 6, generator=torch.Generator().manual_seed(2)).requires_grad_()
    direction = torch.arange(6.0)[None]
    scale = x.detach().std(unbiased=False)
    output = layer.weight * (x - x.mean()) / scale + layer.bias
    (gradient,) = torch.autograd.grad((direction * output).sum(), [x])
    torch.testing.assert_close(found(layer, 6).pull_back(direction, x.detach()), gradient)


def test_nothing_in_nothing_out() -> None:
    norm = found(random(nn.LayerNorm(6)), 6)
    assert norm.pull_back(torch.ones(1, 6), torch.zeros(1, 6)).abs().max() == 0
