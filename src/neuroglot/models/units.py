"""Units: what can be read and written in a model, such as its FFN neurons."""

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

    A subclass is a kind: it says where in each layer the values of its units pass by. Where these
    are not (row, position, unit) there, it also says how they are made of what passes by, with
    :meth:`taken_from` and :meth:`put_into`.

    Attributes:
        name: of the kind, which sets of such units have as their ``unit``.
        hf: the model.
        sites: its feed-forward networks, one a layer, which also say what its layers are.
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
        """Where values pass by, one place a layer.

        Args:
            kind: ``"coefficient"``, which can be written and is what :meth:`output_directions` are
                multiplied with; or ``"gate"``, which is the same where units have no gates.
        """

    @abstractmethod
    def output_directions(self, layer: int) -> Tensor:
        """What the units of a layer add to its output at a coefficient of one (unit, …, d_model).

        A norm that follows is left out.

        Raises:
            NeuroglotError: the weights do not say so.
        """

    def computed(self, _layer: int) -> Tensor | Literal[True]:
        """Which units the pass that ran last computed (row, position, unit); true where all are."""
        return True

    def taken_from(self, _layer: int, values: Tensor) -> Tensor:
        """The values of units (…, unit, …) in what passes by (…, width)."""
        return values

    def put_into(self, _layer: int, _values: Tensor, new: Tensor) -> Tensor:
        """What passes by (…, width) with new values of its units (…, unit, …)."""
        return new

    def _changing(self, edit: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """An edit of what passes by, made of one of units."""
        return lambda layer, values, *rows: self.put_into(
            layer, values, edit(layer, self.taken_from(layer, values), *rows)
        )

    @torch.inference_mode()
    def prove_hooks(self) -> None:
        """Run a few tokens, and see that the hooks of all layers fire.

        Raises:
            NeuroglotError: some do not.
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
        """Within the block, ``read(layer, values)`` sees every firing of the given layers.

        With ``then_stop`` the forward pass ends, and with it the block, after the last of them.

        Raises:
            NeuroglotError: a pass ran, but a layer was never read.
        """
        every = self.places(kind)
        # What loads weights from elsewhere puts them back at the end of each module.
        stop = then_stop and not any(parameter.is_meta for parameter in self.hf.parameters())
        with (
            hooking(self.hf),
            hooks.proven_reading(
                self.hf,
                [every[layer] for layer in sorted(layers)],
                lambda layer, values: read(layer, self.taken_from(layer, values)),
                then_stop=stop,
            ),
        ):
            yield

    @contextmanager
    def editing(self, edit: hooks.Editor) -> Iterator[None]:
        """Within the block, coefficients are what ``edit(layer, coefficients)`` returns.

        Raises:
            NeuroglotError: a forward pass came to its end without being edited.
        """
        with (
            hooking(self.hf) as turn,
            # A function has no name to compare by, so no other result says that it is the same.
            turn.running.edited(f"a function ({uuid4().hex})"),
            hooks.proven_editing(self.hf, self.places("coefficient"), self._changing(edit)),
        ):
            yield

    @contextmanager
    def editing_tokens(
        self, edit: hooks.TokenEditor, position: EditPosition, first_layer: int = 0
    ) -> Iterator[None]:
        """Within the block, coefficients of some tokens are what ``edit`` returns for them.

        Args:
            edit: gives new coefficients.
            position: at which tokens.
            first_layer: before which nothing is edited.

        Raises:
            NeuroglotError: a forward pass came to its end without being edited.
        """
        places, change = self.places("coefficient")[first_layer:], self._changing(edit)
        with (
            hooking(self.hf) as turn,
            hooks.editing_tokens(self.hf, places, change, (turn.running, position)),
        ):
            yield
