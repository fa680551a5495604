"""Edits of coefficients: what happens to the neurons of a set while a model runs."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neuroglot.errors import NeuroglotError, listed, require_finite
from neuroglot.models import Model
from neuroglot.models.hooks import TokenEditor
from neuroglot.models.running import Positions, check_positions
from neuroglot.models.state import refuse_compiled
from neuroglot.neurons import NeuronSet, PromptSets
from neuroglot.recording import Recording
from neuroglot.recording.matching import AS_RECORDED, require_of_model

Neurons = NeuronSet | PromptSets


class Edit(Protocol):
    """What happens to the coefficients of some neurons."""

    @property
    def neurons(self) -> Neurons:
        """Which neurons: the same for every prompt, or each prompt's own."""

    def new(self, layer: int, values: Tensor) -> Tensor:
        """What coefficients (token, neuron) of a layer become, were all neurons meant."""

    def check(self, model: Model) -> None:
        """Refuse what cannot be done to the model."""

    def __str__(self) -> str:
        """What is done, for provenance."""


class _OnNeurons:
    """What all edits have in common."""

    neurons: Neurons

    def check(self, model: Model) -> None:
        """Refuse a model of another shape.

        Raises:
            NeuroglotError: it gives both shapes.
        """
        if not isinstance(self.neurons, Neurons):
            raise NeuroglotError(
                f"an edit needs a NeuronSet or PromptSets, found {type(self.neurons).__name__}."
            )
        self.neurons.check_fits(model)

    def _said(self, what: str) -> str:
        return f"{what} {self.neurons.name} ({self.neurons.checksum})"


@dataclass(frozen=True)
class Zero(_OnNeurons):
    """Switch neurons off: their coefficients are zero."""

    neurons: Neurons

    def new(self, _layer: int, values: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(values)

    def __str__(self) -> str:
        return self._said("zero")


@dataclass(frozen=True)
class Scale(_OnNeurons):
    """Multiply coefficients by a factor: amplify above 1, weaken below."""

    neurons: Neurons
    factor: float

    def __post_init__(self) -> None:
        require_finite("factor", self.factor)

    def new(self, _layer: int, values: Tensor) -> Tensor:
        """Multiples."""
        return values * self.factor

    def __str__(self) -> str:
        return self._said(f"scale by {float(self.factor)!r}")


@dataclass(frozen=True)
class SetTo(_OnNeurons):
    """Give all coefficients one value."""

    neurons: Neurons
    value: float

    def __post_init__(self) -> None:
        require_finite("value", self.value)

    def new(self, _layer: int, values: Tensor) -> Tensor:
        """The value."""
        return torch.full_like(values, self.value)

    def __str__(self) -> str:
        return self._said(f"set to {float(self.value)!r}")


@dataclass(frozen=True, eq=False)
class MeanAblate(_OnNeurons):
    """Give every neuron its mean coefficient over other prompts.

    Attributes:
        neurons: which.
        reference: a recording with ``site="coefficient"`` and ``keep_values=True``, whose mean over
            items and languages is taken, or means (layer, neuron).
    """

    neurons: Neurons
    reference: Recording | xr.DataArray

    @cached_property
    def means(self) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """Mean coefficients (layer, neuron).

        Raises:
            NeuroglotError: a recording of another site, or without values.
        """
        if not isinstance(self.reference, Recording):
            return np.asarray(self.reference, dtype=np.float32)
        site = self.reference.attrs["site"]
        if site != "coefficient":
            raise NeuroglotError(
                f"the reference holds values of the site {site!r}, expected those of "
                "'coefficient'; record it with site='coefficient' and keep_values=True."
            )
        return self.reference.values.mean(["item", "language"]).to_numpy()

    def check(self, model: Model) -> None:
        """Refuse a model, or a reference, of another shape.

        Raises:
            NeuroglotError: it gives both shapes.
        """
        super().check(model)
        if isinstance(self.reference, Recording):
            require_of_model(self.reference.attrs, model, "the reference", AS_RECORDED)
        shape = (model.n_layers, model.n_neurons)
        means = self.means
        if means.shape != shape or not np.isfinite(means).all():
            raise NeuroglotError(
                f"the reference has means of shape {means.shape}, expected finite ones of {shape} "
                "(layer, neuron)."
            )

    def new(self, layer: int, values: Tensor) -> Tensor:
        """The means of the layer."""
        means = torch.from_numpy(self.means[layer])
        return means.to(values.device, values.dtype).expand_as(values)

    def __str__(self) -> str:
        digest = hashlib.sha256(self.means.tobytes()).hexdigest()[:16]
        return self._said(f"set to the means {digest} of other prompts")


@contextmanager
def edit(model: Model, edits: Edit | Sequence[Edit], positions: str = "answer") -> Iterator[Model]:
    """Within the block, coefficients of the model are edited; its weights are never touched.

    Blocks may stand within each other, and an edit then gets what those around it left. Leaving
    one restores the model bit for bit, also after an exception. Results made within say so.

    Args:
        model: whose coefficients.
        edits: one or several, in order: ``ng.Zero(neurons)``, ``ng.Scale(neurons, factor)``,
            ``ng.SetTo(neurons, value)``, ``ng.MeanAblate(neurons, reference)``.
        positions: ``"answer"``: the last prompt token and the answer's tokens, given or written;
            ``"last"``: the last prompt token; ``"all"``: every token of both. Where the model
            itself is called, all tokens are a prompt's, unless keys and values of others come with
            them.

    Raises:
        NeuroglotError: sets for a model of another shape, unknown positions, or a model whose
            hooks do not fire, as after ``torch.compile``.
    """
    chosen = check_positions(positions)
    these: Sequence[Edit] = edits if isinstance(edits, Sequence) else [edits]
    for one in these:
        if not callable(getattr(one, "check", None)):
            names = listed(["Zero", "Scale", "SetTo", "MeanAblate"])
            raise NeuroglotError(f"{type(one).__name__} is no edit; there are {names}.")
        one.check(model)
    with model.ready():
        # An edit around this one was proven already, and its sets may be of prompts of a task.
        if not model.running.edits:
            model.prove_hooks()
        n_before = model.running.n_passes
        with applied(model, these, chosen):
            yield model
        if model.running.n_passes == n_before:
            warnings.warn(
                f"no forward pass of {model.name!r} ran within this block of neuroglot.edit, so "
                "nothing was edited. A copy of the model, or one that torch.compile made of it, "
                "does not know of the edit.",
                stacklevel=3,
            )
        refuse_compiled(model.hf)


@contextmanager
def applied(model: Model, edits: Sequence[Edit], positions: Positions) -> Iterator[None]:
    """As :func:`edit`, of a model and edits that were checked before."""
    with ExitStack() as stack:
        for one in edits:
            stack.enter_context(model.running.edited(f"{one} at {positions}"))
            stack.enter_context(model.editing_tokens(_token_editor(model, one), positions))
        yield


def _token_editor(model: Model, one: Edit) -> TokenEditor:
    def change(layer: int, values: Tensor, rows: Tensor) -> Tensor:
        masks = one.neurons.masks(layer, model.running.prompts).to(values.device)
        meant = masks.expand(1, -1) if len(masks) == 1 else masks[rows]
        return torch.where(meant, one.new(layer, values), values)

    return change
