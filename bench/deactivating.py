"""Conditions of an experiment, beside as many plain evaluations."""

from __future__ import annotations

from collections.abc import Sequence

import neuroglot as ng
from bench.measure import Row, at_most, in_turns
from bench.models import bloom, prompts_of
from neuroglot.interventions import presets
from neuroglot.models.running import EditPosition

DRAWS, MANY_DRAWS = 3, 15
FEW_WORDS = 2_000  # so that layers take most of the time, as in models of billions of parameters


def rows(n_items: int = 4) -> list[Row]:
    """Lines of the table."""
    return [*_at_positions(n_items), _above_the_middle(n_items)]


def _deactivate(
    model: ng.Model,
    task: ng.ParallelTask,
    recording: ng.Recording,
    draws: int,
    position: EditPosition = "answer",
    layers: Sequence[int] | None = None,
) -> object:
    # Specific neurons are few, so that every prompt has as many random ones.
    return presets.deactivate(
        model,
        task,
        recording,
        categories=["specific"],
        parts=presets.Parts(bands=[layers]),
        controls=ng.Controls(["size"], draws),
        position=position,
    )


def _floor(once: Sequence[float], draws: int) -> tuple[list[float], str]:
    """What as many evaluations take: the set, its draws, and the answers without an edit."""
    n = 1 + draws + 1
    return [n * seconds for seconds in once], f"{n} times one evaluation"


def _at_positions(n_items: int) -> list[Row]:
    model = bloom(512, 8, 8)
    task = prompts_of(n_items, (16, 60), n_choices=10)
    recording = ng.record(model, task)
    seconds = in_turns(
        {
            "evaluate": lambda: ng.evaluate(model, task),
            "answer": lambda: _deactivate(model, task, recording, DRAWS),
            "all": lambda: _deactivate(model, task, recording, DRAWS, "all"),
        },
        rounds=2,
    )
    floor, note = _floor(seconds["evaluate"], DRAWS)
    return [
        at_most("deactivate, at the answer", seconds["answer"], floor, 1.15, note),
        at_most("deactivate, at all tokens", seconds["all"], floor, 1.15, note),
    ]


def _above_the_middle(n_items: int) -> Row:
    model = bloom(512, 8, 8, words=FEW_WORDS)
    task = prompts_of(n_items, (16, 60), n_choices=10, words=FEW_WORDS)
    recording = ng.record(model, task)
    upper = range(model.n_layers // 2, model.n_layers)
    seconds = in_turns(
        {
            "evaluate": lambda: ng.evaluate(model, task),
            "upper": lambda: _deactivate(model, task, recording, MANY_DRAWS, layers=upper),
        },
        rounds=2,
    )
    floor, note = _floor(seconds["evaluate"], MANY_DRAWS)
    return at_most("deactivate, above the middle layer", seconds["upper"], floor, 0.7, note)
