"""Find the weights of each neuron, and train the weights of some neurons only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from neuroglot.errors import NeuroglotError
from neuroglot.models.hooks import Place, Reader, on_input, on_output, reading
from neuroglot.models.probing import probe_logits
from neuroglot.models.sites import FFNSite, is_ordinary, widths
from neuroglot.models.structure import inlets, one_of_each_kind
from neuroglot.models.temporarily import temporarily


@dataclass(frozen=True)
class NeuronWeight:
    """A parameter in which every neuron of a layer has its own rows or columns.

    Attributes:
        name: name of the parameter inside the model.
        axis: the axis along which neurons follow each other.
        copies: 2 if gate and up are fused, one after the other along the axis; otherwise 1.
    """

    name: str
    axis: int
    copies: int

    def spread(self, chosen: Tensor, shape: torch.Size) -> Tensor:
        """Expand a mask of neurons (neuron,) to a mask of the parameter's elements (its shape)."""
        aligned = [1] * len(shape)
        aligned[self.axis] = -1
        return chosen.repeat(self.copies).reshape(aligned).expand(shape)


def inlet_names(hf: PreTrainedModel, site: FFNSite) -> list[str]:
    """Paths of the projections whose outputs the coefficients of a layer are made of.

    Raises:
        NeuroglotError: there are no such projections.
    """
    n = site.n_neurons
    names = {module: name for name, module in hf.named_modules()}
    fitting = [
        names[module]
        for module in inlets(hf, site.path, site.block)
        if (widths(module) or (0, 0))[1] in (n, 2 * n)
    ]
    if not fitting:
        raise NeuroglotError(
            f"nothing that feeds {site.path} is a projection to {n} neurons, as training needs."
        )
    return fitting


def _weights_of(hf: PreTrainedModel, site: FFNSite) -> list[NeuronWeight]:
    """The weights of one layer: rows of what feeds it, and columns of its down projection."""
    weights = []
    for path, is_inlet in [*((p, True) for p in inlet_names(hf, site)), (site.path, False)]:
        module = hf.get_submodule(path)
        if not is_ordinary(module):
            raise NeuroglotError(
                f"{path} ({type(module).__name__}) is quantised or offloaded; a mask needs plain "
                "weights. Load the model unquantised and wholly on one device."
            )
        copies = (widths(module) or (0, 0))[1] // site.n_neurons if is_inlet else 1
        # A Conv1D stores its weight transposed.
        axis = int(is_inlet == isinstance(module, Conv1D))
        weights.append(NeuronWeight(f"{path}.weight", axis, copies))
        if is_inlet and module.bias is not None:
            weights.append(NeuronWeight(f"{path}.bias", 0, copies))
    return weights


def neuron_weights(
    hf: PreTrainedModel, sites: Sequence[FFNSite]
) -> dict[int, tuple[NeuronWeight, ...]]:
    """The weights that belong to the neurons of each layer, verified on every kind of layer.

    The weights of a neuron are its rows of the projections that feed it (gate and up), the
    corresponding biases, and its value vector.

    Raises:
        NeuroglotError: the model has no such rows, or its weights are arranged in another way.
    """
    weights = {site.layer: tuple(_weights_of(hf, site)) for site in sites}
    for site in one_of_each_kind(sites):
        _verify(hf, site, weights[site.layer])
    return weights


def _verify(hf: PreTrainedModel, site: FFNSite, weights: Sequence[NeuronWeight]) -> None:
    """Check that the coefficients of one neuron depend on its own rows, and on no others."""
    feeding = [w for w in weights if not w.name.startswith(f"{site.path}.")]
    parameters = [hf.get_parameter(weight.name) for weight in feeding]
    seen: list[Tensor] = []
    with (
        temporarily((parameter, "requires_grad", True) for parameter in parameters),
        torch.enable_grad(),
        reading([site.place("coefficient")], lambda _layer, values: seen.append(values)),
    ):
        probe_logits(hf)
        values = seen[0].reshape(-1, site.n_neurons)
        # The neuron with the largest coefficient is taken: an inactive one may have no gradient.
        neuron = int(values.abs().amax(dim=0).argmax())
        gradients = torch.autograd.grad(values[:, neuron].float().sum(), parameters)
    chosen = torch.zeros(site.n_neurons, dtype=torch.bool, device=values.device)
    chosen[neuron] = True
    for weight, gradient in zip(feeding, gradients, strict=True):
        depends, own = gradient != 0, weight.spread(chosen, gradient.shape)
        if (depends & ~own).any() or not depends.any():
            raise NeuroglotError(
                f"the weights that feed {site.path} are not arranged neuron by neuron as expected, "
                "so training cannot be confined to some neurons of this model."
            )


@contextmanager
def training_only(
    hf: PreTrainedModel, sites: Sequence[FFNSite], mask: np.ndarray[Any, np.dtype[np.bool_]]
) -> Iterator[None]:
    """Within the block, gradients reach the weights of the neurons in ``mask`` and nothing else.

    Args:
        hf: the model to train.
        sites: its feed-forward networks.
        mask: true at the neurons to train (layer, neuron).

    Raises:
        NeuroglotError: the model's weights cannot be told apart by neuron.
    """
    weights = neuron_weights(hf, sites)
    with ExitStack() as stack:
        frozen = ((parameter, "requires_grad", False) for parameter in hf.parameters())
        stack.enter_context(temporarily(frozen))
        for site in sites:
            chosen = torch.from_numpy(mask[site.layer].copy())
            if not chosen.any():
                continue
            for weight in weights[site.layer]:
                parameter = hf.get_parameter(weight.name).requires_grad_()
                kept = weight.spread(chosen.to(parameter.device), parameter.shape)
                stack.enter_context(parameter.register_hook(kept.__mul__))  # type: ignore[no-untyped-call]
        yield


@torch.inference_mode()
def check_preactivations(hf: PreTrainedModel, sites: Sequence[FFNSite]) -> None:
    """Refuse an activation function that is not positive exactly where its input is positive.

    Raises:
        NeuroglotError: there is such a function; the message names the layer.
    """
    gates: dict[int, Tensor] = {}
    before: dict[int, Tensor] = {}
    with (
        reading([site.place("gate") for site in sites], gates.__setitem__),
        reading_preactivations(hf, sites, before.__setitem__),
    ):
        probe_logits(hf)
    for layer, gate in gates.items():
        if not torch.equal(gate > 0, before[layer] > 0):
            raise NeuroglotError(
                f"layer {layer}: the activation function is not positive exactly where its input "
                "is, which a loss term for sharing needs. Train this model by another method."
            )


@contextmanager
def reading_preactivations(
    hf: PreTrainedModel, sites: Sequence[FFNSite], read: Reader
) -> Iterator[None]:
    """Within the block, ``read(layer, values)`` gets the input of each activation function.

    Without gating, this is the output of the only projection that feeds the layer.

    Raises:
        NeuroglotError: more than one projection feeds a layer that has no activation module.
    """
    places: list[Place] = []
    for site in sites:
        if site.activation is not None:
            places.append(Place(site.layer, site.block, site.path, on_input, site.activation))
            continue
        names = inlet_names(hf, site)
        if len(names) > 1:
            raise NeuroglotError(f"{site.path} is fed by several projections: {names}.")
        places.append(
            Place(site.layer, site.block, site.path, on_output, hf.get_submodule(names[0]))
        )
    with reading(places, read):
        yield
