"""The arms of a condition: the category's neurons and their controls, answered block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.analysis.bits import inverted, unpack
from neuroglot.attribution.direct import Weights
from neuroglot.attribution.neuron_scores import score_batches
from neuroglot.attribution.targets import Target
from neuroglot.interventions.answering import Answering, correct_under
from neuroglot.interventions.conditions import (
    Masks,
    OfPrompt,
    Variant,
    check_category,
    draw,
    members,
    seed_of,
    strongest,
    within,
)
from neuroglot.models import Model
from neuroglot.neurons import NeuronSet
from neuroglot.recording import Recording
from neuroglot.recording.blocks import prompt_keys, tokenize_block
from neuroglot.recording.recording import Bits
from neuroglot.tasks import ParallelTask

ITEMS_AT_ONCE, BYTES_AT_ONCE = 32, 256 * 2**20
CATEGORY_ARM = "category"
DIMS = ("item", "language", "arm")


@dataclass(frozen=True)
class Controls:
    """What a category is compared with.

    Attributes:
        kinds: see :func:`neuroglot.interventions.conditions.draw`.
        draws: random sets of each kind, for every prompt.
        seed: of the draws.
        bound: of equivalence: smaller differences of accuracy, either way, are taken for none.
    """

    kinds: tuple[str, ...]
    draws: int
    seed: int
    bound: float

    @property
    def arms(self) -> list[str]:
        """Names of the category's own arm and of those of its controls."""
        return [CATEGORY_ARM, *(f"{kind} {i}" for kind in self.kinds for i in range(self.draws))]


@dataclass(frozen=True)
class Chosen:
    """What was chosen beforehand, on a development half.

    Attributes:
        neurons: one set for all prompts, in place of each item's category.
        ranking: of all neurons (layer, neuron), in place of the contribution in each prompt.
    """

    neurons: NeuronSet | None = None
    ranking: np.ndarray[Any, Any] | None = None


@dataclass(frozen=True)
class Condition:
    """A category, which part of it is edited, and its controls."""

    category: str
    variant: Variant
    controls: Controls
    chosen: Chosen = Chosen()

    @property
    def name(self) -> str:
        """The category, and what differs from switching all of it off."""
        said = str(self.variant)
        return f"{self.category}, {said}" if said else self.category


@dataclass(frozen=True)
class Arms:
    """Answers the prompts of a task under the arms of a condition.

    Attributes:
        model: which answers.
        task: its prompts.
        recording: of the task, for categories.
        condition: of the arms.
        how: prompts are answered.
        threshold: of the categories.
        weights: what contributions need.
    """

    model: Model
    task: ParallelTask
    recording: Recording
    condition: Condition
    how: Answering
    threshold: float
    weights: Weights

    @property
    def items_at_once(self) -> int:
        """Items whose sets are in memory together."""
        neurons = self.model.n_layers * self.model.n_neurons
        a_prompt = neurons * (8 + len(self.condition.controls.arms))
        return max(1, min(ITEMS_AT_ONCE, BYTES_AT_ONCE // (a_prompt * len(self.task.languages))))

    def answer(self, block: slice, done: Callable[[int], object]) -> xr.Dataset:
        """What the prompts of a block of items are answered under each arm.

        Returns:
            ``correct`` (item, language, arm), NaN where a control has too small a pool; ``share``
            (item, language, arm): the neurons' share of all contributions; ``n_neurons`` (item,
            language): how many there are. Under ``keep_only`` these are the neurons that are kept.
        """
        some = replace(self.task, items=self.task.items[block])
        contribution = self._contributions(some)
        sets, there = self._drawn(some, block, contribution)
        share = _shares(sets, contribution)
        variant = self.condition.variant
        edited = self._inverted(sets) if variant.keep_only else sets
        how = replace(self.how, factor=0.0 if variant.keep_only else variant.factor)
        correct = correct_under(self.model, some, edited, there, how)
        shape = (len(some), len(some.languages), -1)
        done(len(some) * len(some.languages))
        return xr.Dataset(
            {
                "correct": (DIMS, correct.reshape(shape)),
                "share": (DIMS, np.where(there, share, np.nan).astype(np.float32).reshape(shape)),
                "n_neurons": (
                    DIMS[:2],
                    np.bitwise_count(sets[:, 0])
                    .sum(axis=(1, 2), dtype=np.int64)
                    .reshape(shape[:2]),
                ),
            }
        )

    def _contributions(self, task: ParallelTask) -> np.ndarray[Any, np.dtype[np.float32]]:
        """``|m|·‖v‖`` (prompt, layer, neuron) at the last prompt token, without any edit."""
        model = self.model
        targets = [Target(ids, 0) for ids in tokenize_block(model, task)]
        found = np.zeros((len(targets), model.n_layers, model.n_neurons), np.float32)
        scored = score_batches(model, self.weights, targets, ("contribution",), self.how.batch_size)
        for rows, values in scored:
            found[rows] = values[:, 0].cpu().numpy()
        return found

    def _drawn(
        self, task: ParallelTask, block: slice, contribution: np.ndarray[Any, Any]
    ) -> tuple[Bits, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Packed neurons of each arm (prompt, arm, layer, byte), and which arms there are."""
        active = self.recording.bits(self.threshold, block)
        category, edited = self._categories(active, contribution)
        here = unpack(active, self.model.n_neurons).astype(np.bool_).reshape(category.shape)
        controls = self.condition.controls
        n_bytes = active.shape[-1]
        sets = np.zeros((len(edited), len(controls.arms), self.model.n_layers, n_bytes), np.uint8)
        there = np.ones(sets.shape[:2], np.bool_)
        for row, key in enumerate(prompt_keys(task)):
            of = OfPrompt(edited[row], category[row], here[row], contribution[row])
            seed = seed_of(controls.seed, self.condition.name, *key)
            drawn = draw(of, controls.kinds, controls.draws, seed)
            for arm, mask in enumerate([edited[row], *drawn]):
                if mask is None:
                    there[row, arm] = False
                else:
                    sets[row, arm] = np.packbits(mask, axis=-1)
        return sets, there

    def _categories(self, active: Bits, contribution: np.ndarray[Any, Any]) -> tuple[Masks, Masks]:
        """All neurons of the category, and those to be edited (prompt, layer, neuron)."""
        chosen, variant = self.condition.chosen, self.condition.variant
        if chosen.neurons is None:
            names = check_category(self.condition.category)
            category = members(names, active, self.model.n_neurons)
            category = category.reshape(-1, *category.shape[2:])
        else:
            category = np.broadcast_to(chosen.neurons.mask, contribution.shape)
        ranking = contribution if chosen.ranking is None else chosen.ranking[None]
        return category, strongest(within(category, variant.layers), ranking, variant.top)

    def _inverted(self, sets: Bits) -> Bits:
        """All other neurons, of the layers that the variant is about."""
        found = inverted(sets, self.model.n_neurons)
        layers = self.condition.variant.layers
        if layers is not None:
            others = [layer for layer in range(self.model.n_layers) if layer not in layers]
            found[:, :, others] = 0
        return found


def _shares(sets: Bits, contribution: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Share of a prompt's contributions that the neurons of each arm have (prompt, arm)."""
    sums = np.zeros(sets.shape[:2])
    for layer in range(contribution.shape[1]):  # masks as numbers take eight times the memory
        masks = unpack(sets[:, :, layer], contribution.shape[-1])
        sums += np.einsum("pan,pn->pa", masks, contribution[:, layer])
    return np.asarray(sums / contribution.sum(axis=(1, 2))[:, None])
