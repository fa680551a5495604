"""Conditions: edits that are made together, and the neurons that they and their controls edit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from neuroglot.errors import NeuroglotError
from neuroglot.interventions.controls import OWN, Control, Controls, OfPrompt
from neuroglot.interventions.edits import Edit
from neuroglot.neurons.members import Mask, Members, Prompts
from neuroglot.neurons.sampling import seed_of


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
