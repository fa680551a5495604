"""Options: which values of neurons are recorded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.site_kinds import SITE_KINDS, SiteKind

Position = Literal["last", "all"]
POSITIONS: tuple[Position, ...] = ("last", "all")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Which values of neurons are recorded, and at which tokens.

    Attributes:
        site: ``"gate"`` (the output of the FFN's activation function) or ``"coefficient"`` (the
            input of its down projection). Without gating, both are the same.
        position: ``"last"`` (the last prompt token) or ``"all"`` (all prompt tokens: a neuron is
            active if it is active at any of them, and its value is the largest).
        thresholds: one number or several; a neuron is active if its site value is greater.
        layers: the numbers of the layers to record, from 0; by default all layers.
        keep_values: whether the site values are kept too, as float32, which takes 32 times as much
            space as the bits.
        added_tokens: whether position ``"all"`` includes the tokens that the tokenizer adds, such
            as the one that begins every text, even if a chat template writes it. Far more neurons
            are active at that token than elsewhere.

    Raises:
        NeuroglotError: the site or position is unknown, thresholds are repeated or infinite, or
            ``added_tokens`` is false for position ``"last"``, which has none.

    Examples:
        >>> import neuroglot as ng
        >>> ng.Reading(thresholds=0.5).levels
        (0.5,)
        >>> ng.Reading(site="output")
        Traceback (most recent call last):
        neuroglot.errors.NeuroglotError: unknown site 'output'; there are gate, coefficient.
    """

    site: SiteKind = field(default="gate", metadata={"help": "gate or coefficient."})
    position: Position = field(default="last", metadata={"help": "last or all."})
    thresholds: Sequence[float] | float = field(
        default=(0.0,),
        metadata={"help": "A neuron is active above this; several with commas between."},
    )
    layers: Sequence[int] | None = None
    keep_values: bool = field(default=False, metadata={"help": "Also keep the site values."})
    added_tokens: bool = field(
        default=True,
        metadata={
            "help": "Whether position all has the tokens that the tokenizer adds before a text."
        },
    )

    def __post_init__(self) -> None:
        if self.site not in SITE_KINDS:
            raise NeuroglotError(f"unknown site {self.site!r}; there are {listed(SITE_KINDS)}.")
        if self.position not in POSITIONS:
            raise NeuroglotError(
                f"unknown position {self.position!r}; there are {listed(POSITIONS)}."
            )
        if not self.added_tokens and self.position != "all":
            raise NeuroglotError(
                "added_tokens=False (--no-added-tokens) leaves tokens out of position 'all'; "
                f"position {self.position!r} has none of them."
            )
        given = self.thresholds
        levels = tuple(map(float, (given,) if isinstance(given, int | float) else given))
        if not levels or len(set(levels)) < len(levels) or not all(map(math.isfinite, levels)):
            raise NeuroglotError(f"thresholds={levels}: expected different finite numbers.")
        object.__setattr__(self, "thresholds", levels)

    @property
    def levels(self) -> tuple[float, ...]:
        """The thresholds as a tuple of numbers."""
        return cast("tuple[float, ...]", self.thresholds)

    @property
    def numbered(self) -> tuple[int, ...]:
        """The numbers of the layers, once :meth:`of_layers` has set them."""
        assert self.layers is not None
        return tuple(self.layers)

    def of_layers(self, n_layers: int) -> Reading:
        """The same options for a model with so many layers, with its layers in ascending order.

        Raises:
            NeuroglotError: the model does not have a layer, or a layer is repeated.
        """
        chosen = tuple(range(n_layers) if self.layers is None else self.layers)
        known = all(isinstance(layer, int) and layer in range(n_layers) for layer in chosen)
        if not known or not chosen or len(set(chosen)) < len(chosen):
            raise NeuroglotError(
                f"layers={list(chosen)}: expected different numbers from 0 to {n_layers - 1}."
            )
        return replace(self, layers=tuple(sorted(chosen)))
