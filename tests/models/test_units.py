"""Another kind of units is one class and its registration: attention heads, defined here only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import neuroglot as ng
from neuroglot.models.ffn import FFN
from neuroglot.models.hooks import Place, on_input
from neuroglot.models.model import UNITS
from neuroglot.models.site_kinds import SiteKind
from neuroglot.models.units import Units
from tests.families import N_LAYERS, N_NEURONS
from tests.testing import small_task, tiny_model

HEADS = "attention heads"
N_HEADS, SIZE = 2, 8
IDS = torch.tensor([[5, 9, 3, 7], [8, 2, 6, 4]])


class Heads(Units):
    """What each head gives to the output projection of the attention (…, head, number)."""

    name = HEADS

    @property
    def widths(self) -> tuple[int, ...]:
        return (N_HEADS,) * len(self.sites)

    def places(self, _kind: SiteKind) -> list[Place]:
        return [
            Place(x.layer, x.block, f"model.layers.{x.layer}.self_attn", on_input, projection(x))
            for x in self.sites
        ]

    def output_directions(self, layer: int) -> Tensor:
        return projection(self.sites[layer]).weight.detach().T.unflatten(0, (N_HEADS, SIZE))

    def taken_from(self, layer: int, values: Tensor) -> Tensor:
        return values.unflatten(-1, (N_HEADS, SIZE))[..., : self.widths[layer], :]

    def put_into(self, _layer: int, values: Tensor, new: Tensor) -> Tensor:
        flat = new.flatten(-2)
        return torch.cat([flat, values[..., flat.shape[-1] :]], dim=-1)


class Ragged(Heads):
    """The same, but that the second head of the layer in the middle cannot be reached."""

    @property
    def widths(self) -> tuple[int, ...]:
        return (N_HEADS, 1, N_HEADS)


def projection(site: Any) -> Any:
    return site.block.self_attn.o_proj


@pytest.fixture(params=[Heads, Ragged])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ng.Model:
    monkeypatch.setitem(UNITS, HEADS, request.param)
    return tiny_model("llama")


def heads_of(model: ng.Model, *places: tuple[int, int]) -> ng.NeuronSet:
    mask = np.zeros((N_LAYERS, N_HEADS), bool)
    for place in places:
        mask[place] = True
    return ng.NeuronSet(mask, "heads", unit=HEADS, widths=model.units(HEADS).widths)


@torch.no_grad()
def logits(model: ng.Model) -> Tensor:
    found: Tensor = model.hf(IDS).logits
    return found


@contextmanager
def longhand(model: ng.Model, change: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """Within the block, the inputs of the output projections are changed, layer by layer."""

    def hook(layer: int) -> Any:
        return lambda _module, inputs: change(layer, inputs[0])

    with ExitStack() as stack:
        for i, layer in enumerate(model.hf.model.layers):
            stack.enter_context(layer.self_attn.o_proj.register_forward_pre_hook(hook(i)))
        yield


def test_heads_are_read_and_their_directions_give_the_output(model: ng.Model) -> None:
    expected: dict[int, Tensor] = {}
    with longhand(model, expected.__setitem__):
        before = logits(model)
    found: dict[int, Tensor] = {}
    units = model.units(HEADS)
    with units.reading("coefficient", found.__setitem__, range(N_LAYERS)):
        assert torch.equal(logits(model), before)
    assert list(found) == [0, 1, 2]
    for layer, values in found.items():
        n = units.widths[layer]
        assert values.shape == (*IDS.shape, n, SIZE)
        for head in range(n):
            own = expected[layer][..., head * SIZE : (head + 1) * SIZE]
            assert torch.equal(values[:, :, head], own)
    with torch.no_grad():
        output = model.hf.model.layers[0].self_attn.o_proj(expected[0])
    made = torch.einsum("...hk,hkd->...d", found[0], units.output_directions(0))
    torch.testing.assert_close(made, output)
    assert units.computed(0) is True


@pytest.mark.parametrize("where", ["all", "last"])
def test_one_head_is_zeroed_and_comes_back(model: ng.Model, where: str) -> None:
    def zeroed(layer: int, values: Tensor) -> Tensor | None:
        values = values.clone()
        values[:, 0 if where == "all" else -1 :, :SIZE] = 0
        return values if layer == 1 else None

    before = logits(model)
    with longhand(model, zeroed):
        expected = logits(model)
    with ng.edit(model, ng.Zero(heads_of(model, (1, 0))), position=where):
        found = logits(model)
        said = ng.evaluate(model, small_task(2)).attrs["edits"]
    assert said.startswith("zero heads")
    assert torch.equal(found, expected)
    assert not torch.equal(found, before)
    assert torch.equal(logits(model), before), "removal restores every bit"


def test_other_edits_of_all_heads_beside_an_edit_of_neurons(model: ng.Model) -> None:
    """A number for each head, or one for all, at all numbers of the head."""
    widths, added = model.units(HEADS).widths, np.arange(6.0).reshape(N_LAYERS, N_HEADS)

    def changed(layer: int, values: Tensor) -> Tensor:
        values, end = values.clone(), widths[layer] * SIZE
        each = torch.tensor(added[layer], dtype=torch.float32).repeat_interleave(SIZE)
        values[..., :end] = values[..., :end] * 2.0 + each[:end] + 1.0
        return values

    everything = ~heads_of(model)
    assert len(everything) == sum(widths)
    edits = [ng.Scale(everything, 2.0), ng.Add(everything, added), ng.Add(everything, 1.0)]
    neurons = ng.NeuronSet(np.ones((N_LAYERS, N_NEURONS), bool))
    with ng.edit(model, ng.Zero(neurons), position="all"):
        with longhand(model, changed), model.units().editing(lambda _layer, values: values * 0):
            expected = logits(model)
        with ng.edit(model, edits, position="all"):
            found = logits(model)
    assert torch.equal(found, expected)


def test_heads_and_neurons_do_not_mix(model: ng.Model) -> None:
    heads, neurons = heads_of(model, (0, 0)), ng.NeuronSet(np.ones((N_LAYERS, N_NEURONS), bool))
    with pytest.raises(ng.NeuroglotError, match="'heads' is of attention heads, 'neurons' of ffn"):
        heads | neurons
    means = np.zeros((N_LAYERS, N_HEADS))
    with pytest.raises(ng.NeuroglotError, match=r"MeanAblate .* attention heads"):
        ng.edit(model, ng.MeanAblate(heads, means)).__enter__()
    with pytest.raises(ng.NeuroglotError, match="edits attention heads, but controls are drawn"):
        ng.intervene(model, small_task(2), {"off": ng.Zero(heads)})


def test_a_model_without_such_units_or_as_many_says_so(model: ng.Model) -> None:
    heads = ng.NeuronSet(np.ones((N_LAYERS, 3), bool), "many", unit=HEADS)
    with pytest.raises(ng.NeuroglotError, match="'many' is for 3 layers of 3 attention heads, but"):
        ng.edit(model, ng.Zero(heads)).__enter__()
    for name in ("experts", "FFN neurons"):
        with pytest.raises(ng.NeuroglotError, match=f"{name}'; there are ffn neurons, attention"):
            model.units(name)
    other = ng.NeuronSet(np.ones((N_LAYERS, 3), bool), unit="experts")
    with pytest.raises(ng.NeuroglotError, match=r"'tiny-llama' .*'exp"):
        ng.edit(model, ng.Zero(other)).__enter__()


def test_neurons_are_the_units_of_a_model_where_nothing_else_is_said() -> None:
    for name in ("gpt2", "llama"):
        model = tiny_model(name)
        units = model.units()
        assert (units.name, units) == (FFN, model.units("ffn neurons"))
        assert units.widths == (model.n_neurons,) * model.n_layers
        for layer, site in enumerate(model.sites):
            assert torch.equal(units.output_directions(layer), site.value_vectors())
            assert units.computed(layer) is True
