"""Which weights belong to a neuron, in every family, and that only those train."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import neuroglot as ng
from neuroglot.models.probing import probe_logits
from neuroglot.models.training import (
    check_preactivations,
    neuron_weights,
    reading_preactivations,
    training_only,
)
from tests.families import FAMILIES
from tests.testing import tiny_hf, tokenizer


def coefficients(model: ng.Model, layer: int) -> Tensor:
    """Of one layer on the probe (position, neuron)."""
    seen: list[Tensor] = []
    with model.units().reading("coefficient", lambda _, values: seen.append(values), [layer]):
        probe_logits(model.hf)
    return seen[0].detach().reshape(-1, model.n_neurons).clone()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_what_belongs_to_a_neuron(family: str) -> None:
    model = ng.wrap_model(tiny_hf(family), tokenizer(), name=family)
    weights_move_their_coefficient_and_no_other(model)
    preactivations_are_positive_where_the_gate_is(model)


def weights_move_their_coefficient_and_no_other(model: ng.Model) -> None:
    found = neuron_weights(model.hf, model.sites)
    for site in model.sites:
        before = coefficients(model, site.layer)
        neuron = int(before.abs().amax(dim=0).argmax())
        for weight in found[site.layer]:
            parameter = model.hf.get_parameter(weight.name)
            kept = parameter.clone()
            rows = [neuron + copy * model.n_neurons for copy in range(weight.copies)]
            index = torch.tensor(rows)
            parameter.index_copy_(
                weight.axis, index, 2 * parameter.index_select(weight.axis, index)
            )
            after = coefficients(model, site.layer)
            parameter.copy_(kept)
            changed = (after != before).any(dim=0)
            feeds = not weight.name.startswith(site.path)
            others = [i for i in range(model.n_neurons) if i != neuron]
            assert not changed[others].any(), weight.name
            if feeds and kept.index_select(weight.axis, index).abs().sum() > 0:
                assert changed[neuron], weight.name


def preactivations_are_positive_where_the_gate_is(model: ng.Model) -> None:
    gates: dict[int, Tensor] = {}
    before: dict[int, Tensor] = {}
    with (
        model.units().reading("gate", gates.__setitem__, range(model.n_layers)),
        reading_preactivations(model.hf, model.sites, before.__setitem__),
    ):
        probe_logits(model.hf)
    for layer, gate in gates.items():
        assert before[layer].shape == gate.shape
        assert ((before[layer] > 0) == (gate > 0)).all()
        assert not torch.equal(before[layer], gate)
    check_preactivations(model.hf, model.sites)


def test_another_kind_of_activation_is_refused() -> None:
    hf = tiny_hf("llama")
    for layer in hf.model.layers:
        layer.mlp.act_fn = torch.nn.Softplus()
    model = ng.wrap_model(hf, tokenizer(), name="softplus")
    with pytest.raises(ng.NeuroglotError, match="layer 0: the activation function"):
        check_preactivations(model.hf, model.sites)


# For each family: weights of a layer, and along which axis its neurons follow each other. What is
# fused holds the gate's rows before those that it is multiplied with.
BY_HAND: dict[str, tuple[str, dict[str, int]]] = {
    "gpt2": (
        "transformer.h.{i}.mlp.",
        {"c_fc.weight": 1, "c_fc.bias": 0, "c_proj.weight": 0},
    ),
    "bloom": (
        "transformer.h.{i}.mlp.",
        {"dense_h_to_4h.weight": 0, "dense_h_to_4h.bias": 0, "dense_4h_to_h.weight": 1},
    ),
    "llama": (
        "model.layers.{i}.mlp.",
        {"gate_proj.weight": 0, "up_proj.weight": 0, "down_proj.weight": 1},
    ),
    "phi3": ("model.layers.{i}.mlp.", {"gate_up_proj.weight": 0, "down_proj.weight": 1}),
}


def owned(family: str, mask: np.ndarray, name: str, shape: torch.Size) -> np.ndarray:
    """Which numbers of a weight belong to the neurons of a mask, by hand."""
    inside = np.zeros(shape, bool)
    path, axes = BY_HAND[family]
    for layer, chosen in enumerate(mask):
        for leaf, axis in axes.items():
            if name == path.format(i=layer) + leaf:
                rows = np.flatnonzero(chosen)
                if shape[axis] == 2 * len(chosen):
                    rows = np.concatenate([rows, rows + len(chosen)])
                np.moveaxis(inside, axis, 0)[rows] = True
    return inside


@pytest.mark.parametrize("family", BY_HAND)
def test_outside_the_mask_all_stays_bit_for_bit(family: str) -> None:
    hf = tiny_hf(family)
    model = ng.wrap_model(hf, tokenizer(), name=family)
    before = {name: p.detach().clone() for name, p in hf.named_parameters()}
    mask = np.random.default_rng(0).random((model.n_layers, model.n_neurons)) < 0.3
    mask[1] = False
    with training_only(hf, model.sites, mask):
        trainable = [p for p in hf.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=0.1, weight_decay=0.0)
        for _ in range(3):
            ids = torch.arange(2, 12)[None]
            hf(input_ids=ids, labels=ids).loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            optimizer.zero_grad()
    moved = n_owned = 0
    for name, parameter in hf.named_parameters():
        differs = (parameter.detach() != before[name]).numpy()
        inside = owned(family, mask, name, parameter.shape)
        assert not differs[~inside].any(), name
        moved, n_owned = moved + int(differs.sum()), n_owned + int(inside.sum())
    assert 0.9 * n_owned < moved <= n_owned
    assert all(p.requires_grad for p in hf.parameters()), "as it was before the block"
    hf(input_ids=ids, labels=ids).loss.backward()
    embedding = hf.get_input_embeddings().weight
    assert embedding.grad is not None, "no hook is left"
    assert embedding.grad.any()


def test_a_layout_that_is_not_neuron_by_neuron_is_refused() -> None:
    """Gate and up interleaved, as some families have them."""
    hf = tiny_hf("phi3")
    mlp = type(hf.model.layers[0].mlp)

    def interleaved(self: torch.nn.Module, x: Tensor) -> Tensor:
        both = self.gate_up_proj(x)
        return self.down_proj(both[..., 1::2] * self.activation_fn(both[..., ::2]))

    original = mlp.forward
    try:
        mlp.forward = interleaved
        model = ng.wrap_model(hf, tokenizer(), name="interleaved")
        with pytest.raises(ng.NeuroglotError, match=r"feed .* neuron by neuron"):
            neuron_weights(hf, model.sites)
    finally:
        mlp.forward = original
