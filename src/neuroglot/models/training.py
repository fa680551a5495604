"""Which weights belong to a neuron, and how only those are trained."""

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


@dataclass(frozen=True)
class NeuronWeight:
    """A weight of which every neuron of a layer has its own rows or columns.

    Attributes:
        name: of the parameter inside the model.
        axis: along which neurons follow each other.
        copies: 2 where gate and up are fused: one is behind the other along the axis.
    """

    name: str
    axis: int
    copies: int

    def spread(self, chosen: Tensor, shape: torch.Size) -> Tensor:
        """What holds for each neuron (neuron,), for every number of the weight (its shape)."""
        along = [1] * len(shape)
        along[self.axis] = -1
        return chosen.repeat(self.copies).reshape(along).expand(shape)


def inlet_names(hf: PreTrainedModel, site: FFNSite) -> list[str]:
    """Paths of the projections whose outputs the coefficients of a layer are made of.

    Raises:
        NeuroglotError: there are none.
    """
    n = site.n_neurons
    names = {module: name for name, module in hf.named_modules()}
    found = [m for m in inlets(hf, site.path, site.block) if (widths(m) or (0, 0))[1] in (n, 2 * n)]
    if not found:
        raise NeuroglotError(
            f"nothing that feeds {site.path} is a projection to {n} neurons, as training needs."
        )
    return [names[module] for module in found]


def _weights_of(hf: PreTrainedModel, site: FFNSite) -> list[NeuronWeight]:
    """Those of one layer: rows of what feeds it, columns of its down projection."""
    found = []
    for path, is_inlet in [*((p, True) for p in inlet_names(hf, site)), (site.path, False)]:
        module = hf.get_submodule(path)
        if not is_ordinary(module):
            raise NeuroglotError(
                f"{path} ({type(module).__name__}) is quantised or offloaded; a mask needs plain "
                "weights. Load the model unquantised and wholly on one device."
            )
        copies = (widths(module) or (0, 0))[1] // site.n_neurons if is_inlet else 1
        # A Conv1D keeps its weight transposed.
        axis = int(is_inlet == isinstance(module, Conv1D))
        found.append(NeuronWeight(f"{path}.weight", axis, copies))
        if is_inlet and module.bias is not None:
            found.append(NeuronWeight(f"{path}.bias", 0, copies))
    return found


def neuron_weights(
    hf: PreTrainedModel, sites: Sequence[FFNSite]
) -> dict[int, tuple[NeuronWeight, ...]]:
    """The weights that belong to the neurons of each layer, verified on every kind of layer.

    They are a neuron's rows of the projections that feed it (of gate and up), with their biases,
    and its value vector.

    Raises:
        NeuroglotError: the model has no such rows, or they are laid out in another way.
    """
    found = {site.layer: tuple(_weights_of(hf, site)) for site in sites}
    for site in one_of_each_kind(sites):
        _verify(hf, site, found[site.layer])
    return found


def _verify(hf: PreTrainedModel, site: FFNSite, weights: Sequence[NeuronWeight]) -> None:
    """One neuron's coefficients must depend on its own rows, and on no others."""
    feeding = [w for w in weights if not w.name.startswith(f"{site.path}.")]
    parameters = [hf.get_parameter(weight.name) for weight in feeding]
    seen: list[Tensor] = []
    wanted = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_()
        with (
            torch.enable_grad(),
            reading([site.place("coefficient")], lambda _layer, values: seen.append(values)),
        ):
            probe_logits(hf)
            values = seen[0].reshape(-1, site.n_neurons)
            # The one that answers most: through one that is switched off, nothing would be seen.
            neuron = int(values.abs().amax(dim=0).argmax())
            given = torch.autograd.grad(values[:, neuron].float().sum(), parameters)
    finally:
        for parameter, before in zip(parameters, wanted, strict=True):
            parameter.requires_grad_(before)
    chosen = torch.zeros(site.n_neurons, dtype=torch.bool, device=values.device)
    chosen[neuron] = True
    moved = [(w.spread(chosen, g.shape), g != 0) for w, g in zip(feeding, given, strict=True)]
    if any((g & ~own).any() or not g.any() for own, g in moved):
        raise NeuroglotError(
            f"the weights that feed {site.path} are not laid out neuron by neuron as expected, so "
            "training cannot be confined to some neurons of this model."
        )


@contextmanager
def training_only(
    hf: PreTrainedModel, sites: Sequence[FFNSite], mask: np.ndarray[Any, np.dtype[np.bool_]]
) -> Iterator[None]:
    """Within the block, gradients reach the weights of the neurons in ``mask`` and nothing else.

    Args:
        hf: the model that is trained.
        sites: its feed-forward sites.
        mask: which neurons train (layer, neuron).

    Raises:
        NeuroglotError: the model's weights cannot be told apart by neuron.
    """
    found = neuron_weights(hf, sites)
    before = {parameter: parameter.requires_grad for parameter in hf.parameters()}
    hf.requires_grad_(requires_grad=False)
    with ExitStack() as stack:
        stack.callback(lambda: [p.requires_grad_(was) for p, was in before.items()])
        for site in sites:
            chosen = torch.from_numpy(mask[site.layer].copy())
            if not chosen.any():
                continue
            for weight in found[site.layer]:
                parameter = hf.get_parameter(weight.name).requires_grad_()
                kept = weight.spread(chosen.to(parameter.device), parameter.shape)
                stack.enter_context(parameter.register_hook(kept.__mul__))  # type: ignore[no-untyped-call]
        yield


@torch.inference_mode()
def check_preactivations(hf: PreTrainedModel, sites: Sequence[FFNSite]) -> None:
    """Refuse an activation function that is not positive just where its input is.

    Raises:
        NeuroglotError: it names the layer.
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
                f"layer {layer}: the activation function is not positive just where its input is, "
                "which a term for sharing needs. Train this model by another method."
            )


@contextmanager
def reading_preactivations(
    hf: PreTrainedModel, sites: Sequence[FFNSite], read: Reader
) -> Iterator[None]:
    """Within the block, ``read(layer, values)`` sees what goes into each activation function.

    Without gating that is what the one projection that feeds the layer gives.

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
