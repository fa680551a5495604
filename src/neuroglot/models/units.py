"""Units: the quantities of a model that can be read and edited, such as its FFN neurons."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal
from uuid import uuid4

import torch
from torch import Tensor
from transformers import PreTrainedModel

from neuroglot.models import hooks
from neuroglot.models.probing import probe_logits
from neuroglot.models.running import EditPosition
from neuroglot.models.site_kinds import SiteKind
from neuroglot.models.sites import FFNSite
from neuroglot.models.state import operating
from neuroglot.models.turns import hooking


@dataclass(frozen=True)
class Units(ABC):
    """All units of one kind in a model.

    Each subclass is a kind of units. It names the module in each layer whose input or output
    carries the values of the units. If this tensor is not laid out as (row, position, unit), the
    subclass also defines how to extract the values from it and put them back, with
    :meth:`taken_from` and :meth:`put_into`.

    Attributes:
        name: name of the kind, which is the ``unit`` of neuron sets of this kind.
        hf: the model.
        sites: its feed-forward networks, one per layer; they also identify the layers.
    """

    name: ClassVar[str]
    hf: PreTrainedModel
    sites: Sequence[FFNSite]

    @property
    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """Number of units in each layer."""

    @abstractmethod
    def places(self, kind: SiteKind) -> Sequence[hooks.Place]:
        """Where the values can be read and written, one place per layer.

        Args:
            kind: ``"coefficient"``, the values that can be edited and that multiply the
                :meth:`output_directions`, or ``"gate"``, which is the same if units have no gates.
        """

    @abstractmethod
    def output_directions(self, layer: int) -> Tensor:
        """What the units of a layer add to its output at a coefficient of one (unit, …, d_model).

        Norms that follow are not applied.

        Raises:
            NeuroglotError: the directions cannot be read from the weights.
        """

    def computed(self, _layer: int) -> Tensor | Literal[True]:
        """Units that the last pass computed (row, position, unit); ``True`` if all are computed."""
        return True

    def taken_from(self, _layer: int, values: Tensor) -> Tensor:
        """The values of units (…, unit, …), extracted from a tensor at a place (…, width)."""
        return values

    def put_into(self, _layer: int, _values: Tensor, new: Tensor) -> Tensor:
        """The tensor at a place (…, width), with new values of its units (…, unit, …)."""
        return new

    def _changing(self, edit: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Turn an edit of units into an edit of the tensors at their places."""
        return lambda layer, values, *rows: self.put_into(
            layer, values, edit(layer, self.taken_from(layer, values), *rows)
        )

    @torch.inference_mode()
    def prove_hooks(self) -> None:
        """Run a few tokens, and check that the hooks of all layers fire.

        Raises:
            NeuroglotError: a hook did not fire.
        """
        with (
            operating(self.hf, self.sites),
            self.reading("coefficient", lambda _layer, _values: None, range(len(self.sites))),
        ):
            probe_logits(self.hf)

    @contextmanager
    def reading(
        self, kind: SiteKind, read: hooks.Reader, layers: Sequence[int], *, then_stop: bool = False
    ) -> Iterator[None]:
        """Within the block, ``read(layer, values)`` is called with the values of the given layers.

        Args:
            kind: ``"gate"`` or ``"coefficient"``.
            read: called in every forward pass, with the values (row, position, unit).
            layers: numbers of the layers to read.
            then_stop: whether the forward pass, and with it the block, ends after the last of them.

        Raises:
            NeuroglotError: a pass ran, but a layer was never read.
        """
        places = self.places(kind)
        # Offloaded weights are put back at the end of each module, so passes must not be cut short.
        stop = then_stop and not any(parameter.is_meta for parameter in self.hf.parameters())
        with (
            hooking(self.hf),
            hooks.proven_reading(
                self.hf,
                [places[layer] for layer in sorted(layers)],
                lambda layer, values: read(layer, self.taken_from(layer, values)),
                then_stop=stop,
            ),
        ):
            yield

    @contextmanager
    def editing(self, edit: hooks.Editor) -> Iterator[None]:
        """Within the block, coefficients are what ``edit(layer, coefficients)`` returns.

        Raises:
            NeuroglotError: a forward pass ended without being edited.
        """
        with (
            hooking(self.hf) as turn,
            # A function cannot be compared, so results under it never count as having the same
            # edit.
            turn.running.edited(f"a function ({uuid4().hex})"),
            hooks.proven_editing(self.hf, self.places("coefficient"), self._changing(edit)),
        ):
            yield

    @contextmanager
    def editing_tokens(
        self, edit: hooks.TokenEditor, position: EditPosition, first_layer: int = 0
    ) -> Iterator[None]:
        """Within the block, the coefficients at a position are replaced by what ``edit`` returns.

        Args:
            edit: returns the new coefficients.
            position: which tokens are edited.
            first_layer: the first layer that is edited.

        Raises:
            NeuroglotError: a forward pass ended without being edited.
        """
        places, change = self.places("coefficient")[first_layer:], self._changing(edit)
        with (
            hooking(self.hf) as turn,
            hooks.editing_tokens(self.hf, places, change, (turn.running, position)),
        ):
            yield
