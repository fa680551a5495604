"""Controls: random neurons that are edited in place of those of a condition."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import numpy as np

from neuroglot import defaults
from neuroglot.errors import NeuroglotError, is_whole_number, listed
from neuroglot.neurons.members import Mask
from neuroglot.neurons.sampling import sample

N_DECILES = 10
NEEDS_RECORDING = (
    "controls of active neurons need recording=; or choose others with "
    "controls=ng.Controls(kinds=...)."
)
OWN = "edit"  # name of the arm of the condition itself
NO_EDIT = "no_edit"  # name of the answers without an edit


@dataclass(frozen=True)
class OfPrompt:
    """What a control can use to draw neurons for one prompt; all arrays are (layer, neuron).

    Attributes:
        edited: the neurons of the condition, for which the control draws others, as many. Where a
            condition edits all neurons but those of a set, they are the ones that it leaves alone.
        whole: the neurons that the control must not draw: the whole set of which the ones of the
            condition are a part, and what was drawn before for other edits of the condition.
        contribution: ``|m|·‖v‖`` of each neuron.
        known_active: the neurons that are active in the prompt; ``None`` if that is not known.
    """

    edited: Mask
    whole: Mask
    contribution: np.ndarray[Any, Any]
    known_active: Mask | None

    @property
    def active(self) -> Mask:
        """The neurons that are active in the prompt.

        Raises:
            NeuroglotError: there is no recording that says so.
        """
        if self.known_active is None:
            raise NeuroglotError(NEEDS_RECORDING)
        return self.known_active


Control = Callable[[OfPrompt, np.random.Generator], Mask | None]
"""Draws neurons (layer, neuron) in place of the edited ones; ``None`` if there are too few."""


def size(of: OfPrompt, rng: np.random.Generator) -> Mask | None:
    """Any neurons outside the set, as many in each layer."""
    return sample(of.edited, ~of.whole, rng)


def active(of: OfPrompt, rng: np.random.Generator) -> Mask | None:
    """Neurons outside the set that are active in the prompt, as many in each layer."""
    return sample(of.edited, ~of.whole & of.active, rng)


def contribution(of: OfPrompt, rng: np.random.Generator) -> Mask | None:
    """Active neurons outside the set, as many in each layer and decile of contributions."""
    return sample(of.edited, ~of.whole & of.active, rng, deciles(of.contribution))


CONTROLS: dict[str, Control] = {"size": size, "active": active, "contribution": contribution}
OF_ACTIVE = {"active", "contribution"}  # those that need a recording


@dataclass(frozen=True)
class Controls:
    """The controls of every condition: the same edits of other neurons, which are drawn at random.

    Attributes:
        kinds: the kinds of controls: ``"size"`` (any neurons outside the set), ``"active"``
            (neurons outside the set that are active in the prompt) and ``"contribution"`` (active
            neurons, as many from each decile of ``|m|·‖v‖`` in the layer). A kind may also be a
            function of your own, which is called by its name in results; see :data:`Control`.
        draws: the number of random sets of each kind for every prompt.
        seed: the seed of the draws, and of the resampling and the tests.
        threshold: a neuron is active where its site value is greater.

    Raises:
        NeuroglotError: a kind is unknown or given twice, or ``draws`` or ``seed`` is not a whole
            number in its range.

    Examples:
        >>> import neuroglot as ng
        >>> ng.Controls(["size", "active"], draws=2).arms
        [('size', 0), ('size', 1), ('active', 0), ('active', 1)]
    """

    kinds: Sequence[str | Control] = defaults.CONTROLS
    draws: int = defaults.DRAWS
    seed: int = 0
    threshold: float = 0.0
    by_name: dict[str, Control] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.kinds, str) or not isinstance(self.kinds, Iterable):
            raise NeuroglotError(
                f"controls={self.kinds!r}: expected a list of names, which may be empty."
            )
        kinds = tuple(self.kinds)
        unknown = [kind for kind in kinds if not callable(kind) and kind not in CONTROLS]
        names = [getattr(kind, "__name__", "") if callable(kind) else kind for kind in kinds]
        own = {name for name, kind in zip(names, kinds, strict=True) if callable(kind)}
        reserved = [OWN, NO_EDIT, *CONTROLS]
        if not all(names) or own & set(reserved):
            raise NeuroglotError(
                f"controls={listed(names)}: expected functions that have names, other than "
                f"{listed(reserved)}."
            )
        if unknown or len(set(names)) < len(names):
            raise NeuroglotError(
                f"controls={listed(names)}: expected different ones of {listed(CONTROLS)}, or "
                "functions."
            )
        if not is_whole_number(self.draws, 1, 1000):
            raise NeuroglotError(f"draws={self.draws!r}: expected a whole number from 1 to 1,000.")
        if not is_whole_number(self.seed, 0):
            raise NeuroglotError(f"seed={self.seed!r}: expected a whole number from 0.")
        functions = [kind if callable(kind) else CONTROLS[kind] for kind in kinds]
        object.__setattr__(self, "kinds", kinds)
        object.__setattr__(self, "by_name", dict(zip(names, functions, strict=True)))

    @property
    def code(self) -> str:
        """Tells a user's functions from others of the same names; empty if there are none."""
        own = [kind for name, kind in self.by_name.items() if CONTROLS.get(name) is not kind]
        text = "".join(map(_text_of_function, own)).encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).hexdigest()[:16] if own else ""

    @property
    def arms(self) -> list[tuple[str, int]]:
        """The kind and the draw of each arm that is a control."""
        return list(itertools.product(self.by_name, range(self.draws)))


def _text_of_function(function: Any) -> str:
    """A text of what a function does, as far as it is known: its code, defaults and closure."""
    closure = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    names = ("__code__", "__defaults__", "__kwdefaults__")
    return _text_of([*(getattr(function, name, None) for name in names), closure])


def _text_of(value: Any) -> str:
    """A text of a value that code holds; it is the same in every process."""
    if isinstance(value, CodeType):
        value = (value.co_code, value.co_names, value.co_consts)
    elif isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, tuple | list | set | frozenset):
        parts = [_text_of(part) for part in value]
        return f"[{', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)}]"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    return f"{type(value).__qualname__} {_text_of(getattr(value, '__code__', None))}"


def deciles(contribution: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The decile of each neuron's contribution among those of its layer (layer, neuron).

    Equal contributions are in the same decile, such as those of all neurons of a ReLU that are off.
    """
    ends = np.quantile(contribution, np.arange(1, N_DECILES) / N_DECILES, axis=-1)
    return np.asarray((contribution[None] > ends[:, :, None]).sum(axis=0), np.uint8)
