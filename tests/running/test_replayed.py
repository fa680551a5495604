"""First layers that run once for all edits, against each edit by itself, in every family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import neuroglot as ng
from neuroglot.answering.answers import asked_of, by_prompt
from neuroglot.interventions.edits import applied
from neuroglot.running.choices import questions
from neuroglot.running.replayed import Arms, can_replay, log_probs_of_arms
from tests.families import by_family
from tests.testing import small_task, tiny_model


def long_task(n_items: int = 5) -> ng.ParallelTask:
    """Choices of one to four tokens."""
    records = []
    for item in small_task(n_items, "en de").items:
        choices = {code: ["w2", "w3 w4", "w5 w6 w7", "w3 w8 w9 w2"] for code in ("en", "de")}
        prompts = {code: f"w9 {item['prompts'][code]}" for code in choices}
        records.append(
            {
                **item,
                "prompts": prompts,
                "choices": choices,
                "answers": dict.fromkeys(choices, "w2"),
            }
        )
    return ng.ParallelTask.from_records(records, name="long")


@pytest.mark.parametrize("family", by_family())
def test_edits_of_later_layers(family: str) -> None:
    model, task = tiny_model(family), long_task()
    asked = questions(model, asked_of(task, by_prompt(task, "choices")))
    # Falcon-H1 keeps states that are changed in place.
    assert can_replay(model, asked) == (model.shares_cache and family != "falcon-h1")
    rng = np.random.default_rng(1)
    for first in range(model.n_layers):
        edits = []
        for _ in range(3):
            mask = rng.random((model.n_layers, model.n_neurons)) < 0.5
            mask[:first] = False
            edits.append(ng.Zero(ng.NeuronSet(mask)))

        def arm(one: ng.Zero, first: int = first) -> Iterator[None]:
            with applied(model, [one], "answer", first):
                yield

        arms = Arms([lambda one=one: contextmanager(arm)(one) for one in edits], first)
        for size in (2, "auto") if can_replay(model, asked) else ():
            found = np.full((3, len(asked), 4), np.nan)
            for rows, values in log_probs_of_arms(model.with_batch_size(size), asked, 4, arms):
                found[:, rows] = values.transpose(0, 1).numpy()
            for number, one in enumerate(edits):
                with ng.edit(model, one):
                    expected = ng.evaluate(model, task)["log_prob"].values
                np.testing.assert_allclose(found[number].reshape(expected.shape), expected,
                                           atol=1e-4)  # fmt: skip
    assert all("forward" not in vars(site.block) for site in model.sites)
