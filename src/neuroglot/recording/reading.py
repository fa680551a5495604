"""What of the neurons is recorded, as options of the user."""

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
    """What of the neurons is recorded.

    Attributes:
        site: ``"gate"`` (output of the FFN's activation function) or ``"coefficient"`` (input of
            its down projection); the same without gating.
        position: ``"last"`` (the last prompt token) or ``"all"`` (active at any prompt token; the
            kept value is the largest).
        thresholds: a neuron is active where its site value is greater, strictly; one number, or
            several.
        layers: which to record, from 0; by default all.
        keep_values: whether the site values are kept as float32, with 32 times the size of the
            bits.
        added_tokens: whether ``"all"`` has the tokens that the tokenizer adds, such as the one
            that begins every text, at which far more neurons are active than elsewhere; also where
            a chat template writes that one.

    Raises:
        NeuroglotError: an unknown site or position, repeated or infinite thresholds, repeated
            layers, or added tokens left out of a position that has none.
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
        """The thresholds as numbers."""
        return cast("tuple[float, ...]", self.thresholds)

    @property
    def numbered(self) -> tuple[int, ...]:
        """The layers by number, of what :meth:`of_layers` returned."""
        assert self.layers is not None
        return tuple(self.layers)

    def of_layers(self, n_layers: int) -> Reading:
        """The same for a model of so many layers, with the layers by number, ascending.

        Raises:
            NeuroglotError: layers that the model does not have, or one of them twice.
        """
        known = range(n_layers)
        chosen = tuple(known if self.layers is None else self.layers)
        unknown = [x for x in chosen if not isinstance(x, int) or x not in known]
        if unknown or not chosen or len(set(chosen)) < len(chosen):
            raise NeuroglotError(
                f"layers={list(chosen)}: expected different numbers from 0 to {n_layers - 1}."
            )
        return replace(self, layers=tuple(sorted(chosen)))
