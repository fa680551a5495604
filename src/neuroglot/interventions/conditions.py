"""What a condition does to the neurons of each prompt, and to those of its controls."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import CodeType
from typing import Any

import numpy as np

from neuroglot import defaults
from neuroglot.errors import NeuroglotError, is_whole_number, listed
from neuroglot.interventions.edits import Edit
from neuroglot.neurons.members import Mask, Members, Prompts
from neuroglot.neurons.sampling import sample, seed_of

N_DECILES = 10
NEEDS_RECORDING = (
    "controls of active neurons need recording=; or choose others with "
    "controls=ng.Controls(kinds=...)."
)
OWN = "edit"  # the arm of the condition itself
NO_EDIT = "no_edit"  # what stands beside it and its controls


@dataclass(frozen=True)
class OfPrompt:
    """What the controls of one prompt are drawn from; all are (layer, neuron).

    Attributes:
        edited: the neurons that are edited.
        whole: those of which they are a part: a control has none of them.
        contribution: ``|m|·‖v‖``.
        known_active: those active in the prompt, if that was recorded.
    """

    edited: Mask
    whole: Mask
    contribution: np.ndarray[Any, Any]
    known_active: Mask | None

    @property
    def active(self) -> Mask:
        """Those active in the prompt.

        Raises:
            NeuroglotError: nobody recorded which are.
        """
        if self.known_active is None:
            raise NeuroglotError(NEEDS_RECORDING)
        return self.known_active


Control = Callable[[OfPrompt, np.random.Generator], Mask | None]
"""Draws neurons (layer, neuron) in place of those that are edited; ``None`` where it cannot."""


def size(of: OfPrompt, rng: np.random.Generator) -> Mask | None:
    """Any neurons outside the set, as many in each layer."""
    return sample(of.edited, ~of.whole, rng)


def active(of: OfPrompt, rng: np.random.Generator) -> Mask | None:
    """Neurons outside the set that are active in the prompt, as many in each layer."""
    return sample(of.edited, ~of.whole & of.active, rng)


def contribution(of: OfPrompt, rng: np.random.Generator) -> Mask | None:
    """Active ones, as many of each decile of the layer's contributions."""
    return sample(of.edited, ~of.whole & of.active, rng, deciles(of.contribution))


CONTROLS: dict[str, Control] = {"size": size, "active": active, "contribution": contribution}


@dataclass(frozen=True)
class Controls:
    """What every condition is held against: the same edit of other neurons.

    Attributes:
        kinds: of ``"size"`` (any neurons outside the set), ``"active"`` (active in the prompt) and
            ``"contribution"`` (active, and as many of each decile of ``|m|·‖v‖`` in the layer), or
            functions of your own (see :data:`Control`), which go by their names.
        draws: random sets of each kind for every prompt.
        seed: of the draws, the resampling and the exchanges.
        threshold: a neuron is active where its site value was greater.

    Raises:
        NeuroglotError: an unknown kind, one twice, or no whole number of draws or seed.
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
        if not all(names) or {OWN, NO_EDIT, *CONTROLS} & own:
            taken = [OWN, NO_EDIT, *CONTROLS]
            raise NeuroglotError(
                f"controls={listed(names)}: expected functions that have names, other than "
                f"{listed(taken)}."
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
        """Tells functions of a user's from others of the same names; empty where there are none."""
        own = [kind for name, kind in self.by_name.items() if CONTROLS.get(name) is not kind]
        said = "".join(map(_said_of_function, own)).encode("utf-8", "surrogatepass")
        return hashlib.sha256(said).hexdigest()[:16] if own else ""

    @property
    def arms(self) -> list[tuple[str, int]]:
        """Kind and draw of each arm beside the condition's own."""
        return [(name, i) for name in self.by_name for i in range(self.draws)]


def arm_name(control: str, draw: int) -> str:
    """What an arm is called; the condition itself has an empty control."""
    if control:
        return f"{control} {draw}"
    return f"{OWN} {draw}" if draw else OWN


@dataclass(frozen=True)
class Condition:
    """Edits that are done together, and what they are held against."""

    name: str
    edits: tuple[Edit, ...]
    controls: Controls

    @property
    def n_draws(self) -> int:
        """How many draws of what prompts are given there are."""
        return max([1, *(one.contents.n_draws for one in self.edits if one.contents is not None)])

    @property
    def arms(self) -> list[tuple[str, int]]:
        """Control, empty for the condition itself, and draw of each arm."""
        return [("", i) for i in range(self.n_draws)] + self.controls.arms

    @property
    def draws(self) -> list[int]:
        """Which draw of what prompts are given each arm gets: those of controls take turns."""
        return [draw % self.n_draws for _, draw in self.arms]

    def drawn(self, prompts: Prompts, known_active: Mask | None) -> list[Drawn]:
        """What each edit does to the neurons of some prompts, in every arm.

        Args:
            prompts: with the contributions of their neurons.
            known_active: the neurons active in each (prompt, layer, neuron), if recorded.
        """
        members = [one.neurons.members for one in self.edits]
        # Where all but those of a set are edited, controls keep others in their place.
        parts = [one if one.kept is None else one.kept[0] for one in members]
        assert prompts.contribution is not None
        edited = [part.masks(prompts) for part in parts]
        masks = [
            (here, here if part.whole is part else part.whole.masks(prompts))
            for part, here in zip(parts, edited, strict=True)
        ]
        shape = (len(prompts.keys), len(self.arms), *masks[0][0].shape[1:])
        there = np.ones(shape[:2], np.bool_)
        found = [Drawn(np.zeros(shape, np.bool_), one, there) for one in members]
        for contents in (one.contents for one in self.edits):
            if contents is not None:
                there &= ~contents.lacks(prompts.keys)[:, None]
        for row, key in enumerate(prompts.keys):
            rng = np.random.default_rng(seed_of(self.controls.seed, self.name, *key))
            here = None if known_active is None else known_active[row]
            own = np.stack([mask[row] for mask, _ in masks])
            whole = np.logical_or.reduce([mask[row] for _, mask in masks])
            drawn = _all(own, OfPrompt(whole, whole, prompts.contribution[row], here), self, rng)
            for arm, of_edits in enumerate(drawn):
                if of_edits is None:
                    there[row, arm] = False
                    continue
                for one, mask in zip(found, of_edits, strict=True):
                    one.masks[row, arm] = mask
        return found


def _all(
    own: Mask, of: OfPrompt, condition: Condition, rng: np.random.Generator
) -> Iterator[Mask | None]:
    """The neurons of each edit (edit, layer, neuron): of the condition itself and of each control.

    A control of several edits has as many neurons that are in the same ones of them: what two edits
    have in common, they have in common there, and no neuron stands for two.

    Args:
        own: the neurons of each edit (edit, layer, neuron).
        of: what controls are drawn from.
        condition: the edits and their controls.
        rng: draws.
    """
    yield from itertools.repeat(own, condition.n_draws)
    in_edits = (1 << np.arange(len(own)))[:, None, None]
    in_which = np.where(own, in_edits, 0).sum(axis=0)
    patterns = [pattern for pattern in np.unique(in_which).tolist() if pattern] or [1]

    def drawn(name: str, control: Control) -> Mask | None:
        masks, taken = np.zeros_like(own), of.whole
        for pattern in patterns:
            some = replace(of, edited=in_which == pattern, whole=taken)
            mask = _checked(control(some, rng), name, taken.shape)
            if mask is None:
                return None
            taken = taken | mask
            masks |= mask & ((pattern & in_edits) > 0)
        return masks

    for name, control in condition.controls.by_name.items():
        for _ in range(condition.controls.draws):
            yield drawn(name, control)


def _checked(mask: Mask | None, name: str, shape: tuple[int, ...]) -> Mask | None:
    """What a control gave.

    Raises:
        NeuroglotError: it is no mask of these layers and neurons.
    """
    if mask is not None and (mask.shape != shape or mask.dtype != np.bool_):
        raise NeuroglotError(
            f"the control {name!r} gave {mask.dtype} of shape {mask.shape}, expected true and "
            f"false of shape {shape} (layer, neuron), or None."
        )
    return mask


@dataclass(frozen=True)
class Drawn:
    """The neurons that one edit of a condition is about.

    Attributes:
        masks: of every prompt and arm (prompt, arm, layer, neuron): those that are edited, or where
            all others are edited, those that are kept.
        members: those of the edit.
        there: which arms there are (prompt, arm).
    """

    masks: Mask
    members: Members
    there: Mask

    @property
    def edited(self) -> Mask:
        """Those that are edited (prompt, arm, layer, neuron); none where there is no arm."""
        there = self.there[..., None, None]
        if self.members.kept is None:
            return self.masks & there
        widths, layers = self.members.widths, self.members.kept[1]
        found = ~self.masks & there & (np.arange(self.masks.shape[-1]) < np.array(widths)[:, None])
        if layers is not None:
            found[:, :, [i for i in range(len(widths)) if i not in layers]] = False
        return found


def _said_of_function(function: Any) -> str:
    """What a function does, as far as that can be told: its code, its defaults and its closure."""
    closure = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    names = ("__code__", "__defaults__", "__kwdefaults__")
    return _said_of([*(getattr(function, name, None) for name in names), closure])


def _said_of(value: Any) -> str:
    """The same of what code holds; nothing of it depends on the process."""
    if isinstance(value, CodeType):
        value = (value.co_code, value.co_names, value.co_consts)
    elif isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, tuple | list | set | frozenset):
        parts = [_said_of(part) for part in value]
        return f"[{', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)}]"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    return f"{type(value).__qualname__} {_said_of(getattr(value, '__code__', None))}"


def deciles(contribution: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decile of each neuron's contribution among those of its layer (layer, neuron).

    Equal contributions are in one decile, as those of the neurons of a ReLU that are off.
    """
    ends = np.quantile(contribution, np.arange(1, N_DECILES) / N_DECILES, axis=-1)
    found = (contribution[None] > ends[:, :, None]).sum(axis=0)
    return np.asarray(found, np.uint8)
