"""Conditions and their controls: which neurons are edited in each prompt and arm."""

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


def arm_name(control: str, draw: int) -> str:
    """The name of an arm; ``control`` is empty for the condition itself."""
    return f"{control or OWN} {draw}" if control or draw else OWN


@dataclass(frozen=True)
class Condition:
    """Edits that are made together, and their controls."""

    name: str
    edits: tuple[Edit, ...]
    controls: Controls

    @property
    def n_draws(self) -> int:
        """The number of draws of the condition itself, such as those of :class:`Patch`."""
        return max([1, *(one.contents.n_draws for one in self.edits if one.contents is not None)])

    @property
    def arms(self) -> list[tuple[str, int]]:
        """The control (empty for the condition itself) and the draw of each arm."""
        return [("", i) for i in range(self.n_draws)] + self.controls.arms

    @property
    def chosen_on(self) -> frozenset[str]:
        """The ids of the items on which the neurons of the edits were chosen."""
        return frozenset[str]().union(*(one.neurons.chosen_on for one in self.edits))

    @property
    def draws(self) -> list[int]:
        """Which of the condition's own draws each arm uses; the arms of controls take turns."""
        return [draw % self.n_draws for _, draw in self.arms]

    def drawn(self, prompts: Prompts, known_active: Mask | None) -> list[Drawn]:
        """The neurons that each edit changes in each prompt and arm.

        Args:
            prompts: the prompts, with the contributions of their neurons.
            known_active: whether each neuron is active (prompt, layer, neuron), if that is known.
        """
        members = [one.neurons.members for one in self.edits]
        # If all neurons but those of a set are edited, controls keep other neurons instead.
        chosen = [one if one.kept is None else one.kept[0] for one in members]
        assert prompts.contribution is not None
        own = [part.masks(prompts) for part in chosen]
        wholes = [
            mask if part.whole is part else part.whole.masks(prompts)
            for part, mask in zip(chosen, own, strict=True)
        ]
        shape = (len(prompts.keys), len(self.arms), *members[0].shape)
        there = np.ones(shape[:2], np.bool_)
        for one in self.edits:
            if one.contents is not None:
                there &= ~one.contents.lacks(prompts.keys)[:, None]
        drawn = [Drawn(np.zeros(shape, np.bool_), one, there) for one in members]
        for row, key in enumerate(prompts.keys):
            rng = np.random.default_rng(seed_of(self.controls.seed, self.name, *key))
            active_here = None if known_active is None else known_active[row]
            edited = np.stack([mask[row] for mask in own])
            whole = np.logical_or.reduce([mask[row] for mask in wholes])
            of = OfPrompt(whole, whole, prompts.contribution[row], active_here)
            for arm, masks in enumerate(_masks_by_arm(edited, of, self, rng)):
                if masks is None:
                    there[row, arm] = False
                    continue
                for of_edit, mask in zip(drawn, masks, strict=True):
                    of_edit.masks[row, arm] = mask
        return drawn


def _masks_by_arm(
    own: Mask, of: OfPrompt, condition: Condition, rng: np.random.Generator
) -> Iterator[Mask | None]:
    """The neurons of each edit (edit, layer, neuron), arm by arm; ``None`` if there are too few.

    A control of several edits has as many neurons in each combination of these edits as the
    condition has, and no neuron of the control is drawn for two combinations.

    Args:
        own: the neurons of each edit of the condition (edit, layer, neuron).
        of: what controls are drawn from.
        condition: the edits and their controls.
        rng: the random numbers.

    Raises:
        NeuroglotError: a control did not return a mask of these layers and neurons.
    """
    yield from itertools.repeat(own, condition.n_draws)
    in_edits = (1 << np.arange(len(own)))[:, None, None]
    in_which = np.where(own, in_edits, 0).sum(axis=0)
    combinations = [code for code in np.unique(in_which).tolist() if code] or [1]

    def drawn(name: str, control: Control) -> Mask | None:
        masks, taken = np.zeros_like(own), of.whole
        for combination in combinations:
            mask = control(replace(of, edited=in_which == combination, whole=taken), rng)
            if mask is None:
                return None
            if mask.shape != taken.shape or mask.dtype != np.bool_:
                raise NeuroglotError(
                    f"the control {name!r} gave {mask.dtype} of shape {mask.shape}, expected true "
                    f"and false of shape {taken.shape} (layer, neuron), or None."
                )
            taken = taken | mask
            masks |= mask & ((combination & in_edits) > 0)
        return masks

    for name, _ in condition.controls.arms:
        yield drawn(name, condition.controls.by_name[name])


@dataclass(frozen=True)
class Drawn:
    """The neurons of one edit of a condition, in each prompt and arm.

    Attributes:
        masks: the neurons (prompt, arm, layer, neuron) that are edited or, if the edit is of a
            complement, those that are kept.
        members: the members of the edit.
        there: whether the prompt has the arm (prompt, arm).
    """

    masks: Mask
    members: Members
    there: Mask

    @property
    def edited(self) -> Mask:
        """The neurons that are edited (prompt, arm, layer, neuron); none if there is no arm."""
        there = self.there[..., None, None]
        if self.members.kept is None:
            return self.masks & there
        widths, layers = self.members.widths, self.members.kept[1]
        exist = np.arange(self.masks.shape[-1]) < np.array(widths)[:, None]
        if layers is not None:
            exist &= np.isin(np.arange(len(widths)), layers)[:, None]
        return ~self.masks & there & exist


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
