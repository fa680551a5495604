"""Conditions of an experiment, beside as many plain evaluations."""

from __future__ import annotations

from collections.abc import Sequence

import neuroglot as ng
from bench.measure import Row, at_most, in_turns
from bench.models import bloom, prompts_of
from neuroglot.interventions import presets
from neuroglot.models.running import Positions

DRAWS = 3


def rows(n_items: int = 4) -> list[Row]:
    """Lines of the table."""
    model = bloom(512, 8, 8)
    task = prompts_of(n_items, (16, 60), n_choices=10)
    recording = ng.record(model, task)

    def deactivate(positions: Positions = "answer", layers: Sequence[int] | None = None) -> object:
        # Specific neurons are few, so that every prompt has as many random ones.
        return presets.deactivate(
            model,
            task,
            recording,
            categories=["specific"],
            parts=presets.Parts(bands=[layers]),
            controls=ng.Controls(["size"], DRAWS),
            answering=ng.Answering(positions),
        )

    upper = range(model.n_layers // 2, model.n_layers)
    seconds = in_turns(
        {
            "evaluate": lambda: ng.evaluate(model, task),
            "answer": deactivate,
            "all": lambda: deactivate("all"),
            "upper": lambda: deactivate(layers=upper),
        },
        rounds=2,
    )
    # The category and its draws; the answers without an edit are one more evaluation.
    n_conditions = 1 + DRAWS + 1
    floor = [n_conditions * once for once in seconds["evaluate"]]
    note = f"{n_conditions} times one evaluation"
    return [
        at_most("deactivate, at the answer", seconds["answer"], floor, 1.15, note),
        at_most("deactivate, at all tokens", seconds["all"], floor, 1.15, note),
        at_most("deactivate, above the middle layer", seconds["upper"], floor, 0.7, note),
    ]
