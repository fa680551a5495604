"""Value vectors come from ordinary weights only; recording needs none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import neuroglot as ng
from neuroglot.models.sites import is_ordinary
from tests.families import FAMILIES, build, family_hf
from tests.testing import small_task, tiny_hf, tokenizer


class Rounding(torch.nn.Linear):
    """Rounds its weight as it runs."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(values, self.weight.sign(), self.bias)


class Wrapped(torch.Tensor):
    """A tensor subclass that claims a floating-point type, as packed weights do."""


def with_down(module: torch.nn.Module) -> ng.Model:
    """A tiny Llama whose first down projection is another module."""
    hf = tiny_hf("llama")
    hf.model.layers[0].mlp.down_proj = module
    return ng.wrap_model(hf, tokenizer())


def test_a_linear_weight_is_transposed_and_a_conv1d_weight_is_not() -> None:
    llama = ng.wrap_model(family_hf("llama"), tokenizer())
    down: Any = llama.sites[1].down
    assert torch.equal(llama.sites[1].value_vectors()[7], down.weight[:, 7])
    gpt2 = ng.wrap_model(family_hf("gpt2"), tokenizer())
    down = gpt2.sites[1].down
    assert torch.equal(gpt2.sites[1].value_vectors()[7], down.weight[7])
    assert not gpt2.sites[1].value_vectors().requires_grad


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ["llama", "opt", "phi3", "gemma2", "bloom"])
def test_eight_bit_weights_are_recorded_but_hold_no_value_vectors(name: str) -> None:
    family = FAMILIES[name]
    ordinary = ng.wrap_model(family_hf(name), tokenizer())
    quantization = pytest.importorskip("torch.ao.quantization", reason="PyTorch has moved it")
    hf = quantization.quantize_dynamic(
        build(family.architecture, family.config), {torch.nn.Linear}, dtype=torch.qint8
    )
    model = ng.wrap_model(hf, tokenizer())
    assert not is_ordinary(model.sites[0].down)
    assert model.norm_after_ffn is family.norm_after
    found = ng.categories(ng.record(model, small_task()))
    agreement = float((found == ng.categories(ng.record(ordinary, small_task()))).mean())
    assert 0.85 < agreement < 1.0, "eight bits round, and little"
    with pytest.raises(ng.NeuroglotError, match=r"quantized.*Linear whose weights are packed"):
        model.sites[0].value_vectors()


def test_offloaded_and_low_bit_weights_are_refused() -> None:
    model = ng.wrap_model(tiny_hf("llama"), tokenizer())
    down: Any = model.sites[0].down
    weight = down.weight
    for other, message in (
        (weight.to("meta"), "float32 on meta"),
        (weight.to(torch.float8_e4m3fn), "float8_e4m3fn on cpu"),
        (weight.detach().as_subclass(Wrapped), "Wrapped"),
    ):
        down.weight = torch.nn.Parameter(other, requires_grad=False)
        with pytest.raises(ng.NeuroglotError, match=message):
            model.sites[0].value_vectors()
    down.weight = weight
    assert model.sites[0].value_vectors().shape == (20, 16)


def test_a_module_that_does_more_than_its_weight_says_is_refused() -> None:
    model = with_down(Rounding(20, 16, bias=False))
    with pytest.raises(ng.NeuroglotError, match="does more than multiply by its weight"):
        model.sites[0].value_vectors()
    assert ng.record(model, small_task()).languages == ("en", "de", "th")


def test_asking_for_value_vectors_fires_no_hook() -> None:
    model = ng.wrap_model(family_hf("llama"), tokenizer())
    seen: list[int] = []
    with model.units().reading("coefficient", lambda layer, _values: seen.append(layer), [0]):
        model.sites[0].value_vectors()
    assert seen == []
