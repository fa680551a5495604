"""What is computed on a GPU is what is computed on the CPU, but for rounding.

Runs where there is a GPU, and with ``python -m pytest -p tests.second_device``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import neuroglot as ng
from neuroglot.attribution.neuron_scores import SCORES
from neuroglot.interventions.presets import Parts, deactivate
from tests.attribution.models import random_hf, random_model
from tests.families import FAMILIES
from tests.testing import small_task, tokenizer

ELSEWHERE = torch.accelerator.current_accelerator(check_available=True)
pytestmark = pytest.mark.skipif(ELSEWHERE is None, reason="no device but the CPU is here")
NAMES = ("gpt2", "bloom", "llama", "opt", "gemma2")

TASK = small_task(6)
OPEN = ng.ParallelTask.from_records(
    [dict(item) | {"choices": {}} for item in TASK.items], name="open"
)
# Three layers of sums of at most 80 numbers around 1 in single precision: far more than rounding
# changes, far less than any fault does.
NEAR = 1e-3


@cache
def moved(name: str) -> ng.Model:
    hf: Any = copy.deepcopy(random_hf(name))
    return ng.wrap_model(hf.to(ELSEWHERE), tokenizer(), name=f"random-{name}")


def some_neurons(model: ng.Model, seed: int) -> ng.NeuronSet:
    rng = np.random.default_rng(seed)
    return ng.NeuronSet(rng.random((model.n_layers, model.n_neurons)) < 0.3)


def recorded(model: ng.Model, site: str, position: str) -> Any:
    return ng.record(
        model, TASK, reading=ng.Reading(site=site, position=position, keep_values=True)
    ).values


def edited(model: ng.Model, positions: str) -> Any:
    one, two, three = (some_neurons(model, seed) for seed in range(3))
    means = np.linspace(-1, 1, model.n_layers * model.n_neurons).reshape(model.n_layers, -1)
    edits = [ng.Scale(one, 2.0), ng.SetTo(two, 0.5), ng.MeanAblate(three, means)]
    with ng.edit(model, edits, position=positions):
        return ng.evaluate(model, TASK)["log_prob"]


def patched(model: ng.Model) -> Any:
    """Sets of prompts, and values that come from elsewhere."""
    recording = ng.record(model, TASK, reading=ng.Reading(site="coefficient", keep_values=True))
    shared = ng.NeuronSet.from_category(recording, "all_shared")
    added = np.linspace(-1, 1, model.n_layers * model.n_neurons).reshape(model.n_layers, -1)
    edits = [
        ng.Add(~shared, added),
        ng.MeanAblate(shared.layers(0), recording, within="both", task=TASK),
        ng.Patch(shared.layers(1, 2), recording, task=TASK),
    ]
    with ng.edit(model, edits):
        return ng.evaluate(model, TASK)["log_prob"]


def scored(model: ng.Model, score: str) -> Any:
    return ng.neuron_scores(model, TASK, score=score)


NUMBERS: dict[str, Callable[[ng.Model], Any]] = {
    "gates": partial(recorded, site="gate", position="last"),
    "coefficients": partial(recorded, site="coefficient", position="all"),
    "choices": lambda model: ng.evaluate(model, TASK)["log_prob"],
    "edits": partial(edited, position="answer"),
    "edits of all tokens": partial(edited, position="all"),
    "edits by prompt": patched,
    "parts of logits": lambda model: ng.logit_parts(model, TASK)["attention"],
    "description": lambda model: [
        logit for _, logit in ng.describe(model, layer=1, neuron=2).promoted
    ],
    **{score: partial(scored, score=score) for score in SCORES},
}


def is_defined(name: str, what: str) -> bool:
    return not (FAMILIES[name].norm_after and what == "integrated_gradients")


@pytest.mark.parametrize(
    ("name", "what"), [both for both in product(NAMES, NUMBERS) if is_defined(*both)]
)
def test_numbers_are_those_of_the_cpu(name: str, what: str) -> None:
    found, expected = (np.asarray(NUMBERS[what](of(name))) for of in (moved, random_model))
    np.testing.assert_allclose(found, expected, rtol=NEAR, atol=NEAR)


def causal(model: ng.Model) -> Any:
    return ng.causal_agreement(model, TASK, scores=["effective"], n_neurons=4)


def deactivated(model: ng.Model) -> Any:
    parts = Parts((0.5,), rank_by="effective")
    recording = ng.record(model, TASK)
    return deactivate(
        model,
        TASK,
        recording,
        categories=["all_shared"],
        parts=parts,
        controls=ng.Controls(draws=2),
    )


# What counts answers or neurons, which rounding may move to either side.
COUNTS: dict[str, Callable[[ng.Model], Any]] = {
    "writing": lambda model: ng.evaluate(model, OPEN, answering=ng.Answering(max_new_tokens=3)),
    "categories": lambda model: ng.attribute(model, TASK, recording=ng.record(model, TASK)),
    "agreement": causal,
    "deactivation": deactivated,
    "fragility": lambda model: ng.fragility(model, TASK),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", COUNTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_everything_runs_there(name: str, what: str) -> None:
    found = COUNTS[what](moved(name))
    assert str(found.attrs["device"]).startswith(str(ELSEWHERE))
    assert found.attrs["deterministic"] == 0
