"""What a condition does to the neurons of each prompt, and to those of its controls."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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
        said = b"".join(_code(getattr(kind, "__code__", None)) for kind in own)
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
            for one, (own, whole) in zip(found, masks, strict=True):
                of = OfPrompt(own[row], whole[row], prompts.contribution[row], here)
                for arm, mask in enumerate(_all(of, self.controls, rng, self.n_draws)):
                    if mask is None:
                        there[row, arm] = False
                    else:
                        one.masks[row, arm] = mask
        return found


def _all(
    of: OfPrompt, controls: Controls, rng: np.random.Generator, n_draws: int
) -> Iterator[Mask | None]:
    """The neurons of the condition itself, in each of its draws, and of each control."""
    yield from itertools.repeat(of.edited, n_draws)
    for name, control in controls.by_name.items():
        for _ in range(controls.draws):
            mask = control(of, rng)
            if mask is not None and (mask.shape != of.edited.shape or mask.dtype != np.bool_):
                raise NeuroglotError(
                    f"the control {name!r} gave {mask.dtype} of shape {mask.shape}, expected true "
                    f"and false of shape {of.edited.shape} (layer, neuron), or None."
                )
            yield mask


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


def _code(code: Any) -> bytes:
    """What a function does, as far as that can be told."""
    return b"" if code is None else code.co_code + repr((code.co_consts, code.co_names)).encode()


def deciles(contribution: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decile of each neuron's contribution among those of its layer (layer, neuron).

    Equal contributions are in one decile, as those of the neurons of a ReLU that are off.
    """
    ends = np.quantile(contribution, np.arange(1, N_DECILES) / N_DECILES, axis=-1)
    found = (contribution[None] > ends[:, :, None]).sum(axis=0)
    return np.asarray(found, np.uint8)
