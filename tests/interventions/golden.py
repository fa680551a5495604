"""What conditions did before sets, edits and outcomes were rebuilt, to be equal to the bit.

``golden.npz`` was written by the functions of then, ``ng.deactivate`` and ``ng.amplify``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import neuroglot as ng
from neuroglot.interventions.effects import by_control
from neuroglot.interventions.presets import Parts, amplify, deactivate
from tests.attribution.models import random_model
from tests.testing import small_task

SAVED = Path(__file__).with_name("golden.npz")
EXACT = ("correct", "correct_control", "correct_no_edit", "n_neurons")
NUMBERS = (
    *("share", "control_share", "difference", "difference_low", "difference_high", "p", "p_holm"),
    *("p_equivalent", "difference_by_language", "accuracy", "accuracy_control", "n_prompts"),
    *("placebo_difference", "placebo_p", "development_accuracy"),
)
SHARED = ["all_shared", "all_shared+partial_shared"]
OF_EMBEDDED = ("plain", "another seed", "doses", "membership", "amplify")


def settings() -> dict[str, dict[str, Any]]:
    """Settings by name."""
    every = ["all_shared", "partial_shared", "specific", "specific_here", "non_activated",
             "all_shared+specific_here"]  # fmt: skip
    return {
        "plain": {"categories": every},
        "another seed": {"categories": SHARED, "seed": 3},
        "doses": {"categories": SHARED, "parts": [Parts((0.25, 0.6, 1.0))]},
        "doses by answer": {
            "categories": ["all_shared"], "parts": [Parts((0.5,), rank_by="effective")]
        },
        "bands": {
            "categories": ["all_shared", "specific_here"],
            "parts": [Parts(bands=((0, 1), (2,)))],
        },
        "membership": {
            "categories": ["all_shared", "specific"],
            "parts": [Parts(membership=0.5), Parts((0.5,), membership=0.2)],
        },
        "keep only": {"categories": SHARED, "parts": [Parts(bands=(None, (1,)), keep_only=True)]},
        "scaled": {"categories": SHARED, "parts": [Parts(factor=2), Parts(factor=-1)]},
        "all positions": {"categories": ["all_shared"], "position": "all"},
        "last position": {"categories": ["all_shared"], "position": "last", "choice_score": "mean"},
        "amplify": {"category": "all_shared", "factors": (1.5, 3.0)},
    }  # fmt: skip


NAMES = [
    *(f"{family} {name}" for family in ("llama", "gpt2") for name in (
        "plain", "another seed", "doses", "doses by answer", "bands", "membership", "keep only",
        "scaled", "all positions", "last position", "amplify",
    )),
    "llama written",
    *(f"aligned {name}" for name in OF_EMBEDDED),
]  # fmt: skip


@cache
def recorded(family: str) -> tuple[ng.Model, ng.ParallelTask, ng.Recording]:
    """A model, a task and what was recorded of both."""
    if family == "aligned":
        model = ng.load_model("embedded/aligned")
        task = ng.load_task("facts", limit=16, languages=["en", "de", "th"])
    else:
        model, task = random_model(family), small_task(12)
    return model, task, ng.record(model, task)


def written() -> list[xr.Dataset]:
    """Under conditions, of a task without choices."""
    records = [
        {**item, "choices": {}, "answers": dict(item["prompts"])} for item in small_task(10).items
    ]
    model, task = random_model("llama"), ng.ParallelTask.from_records(records, name="written")
    return [
        deactivate(
            model, task, ng.record(model, task), categories=["all_shared"],
            controls=ng.Controls(draws=2), answering=ng.Answering(max_new_tokens=3),
        )
    ]  # fmt: skip


def outcomes(name: str) -> list[xr.Dataset]:
    """What a case finds; several, where its conditions were found in one call before."""
    if name == "llama written":
        return written()
    family, _, case = name.partition(" ")
    model, task, recording = recorded(family)
    how = dict(settings()[case])
    known: dict[str, Any] = {
        "controls": ng.Controls(draws=2, seed=how.pop("seed", 0)),
        "answering": ng.Answering(choice_score=how.pop("choice_score", "sum")),
    }
    if case == "amplify":
        return [amplify(model, task, recording, **how, **known)]
    return [
        deactivate(model, task, recording, **how, **known, parts=parts)
        for parts in how.pop("parts", [None])
    ]


def kept(found: xr.Dataset) -> dict[str, np.ndarray[Any, Any]]:
    """What is compared, as it was kept before: answers as whole numbers, numbers as numbers."""
    counted, controls = found["counted"], by_control(found["share"])
    there = by_control(found["correct"]).notnull().all("draw")
    dims = ["item", "language"]
    values = {
        "correct": found["correct"].isel(arm=0),
        "correct_control": by_control(found["correct"]),
        "correct_no_edit": found["correct_no_edit"],
        "n_neurons": found["n_neurons"],
        "share": found["share"].isel(arm=0).where(counted).mean(dims),
        "control_share": controls.mean("draw").where(counted & there).mean(dims),
        **{name: found[name] for name in NUMBERS if name in found and "share" not in name},
    }
    parts = {"condition": found["condition"].to_numpy().astype(str)}
    for name, one in values.items():
        numbers = one.astype(float).fillna(-1) if name in EXACT else one
        parts[name] = numbers.to_numpy().astype(np.int16 if name in EXACT else float)
    return parts
