"""What conditions did before sets, edits and outcomes were rebuilt, to be equal to the bit.

``python -m tests.interventions.golden`` writes ``golden.npz``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import neuroglot as ng
from neuroglot.interventions.conditions import Variant
from tests.attribution.models import random_model
from tests.testing import small_task

SAVED = Path(__file__).with_name("golden.npz")
EXACT = ("correct", "correct_control", "correct_no_edit", "n_neurons")
NUMBERS = (
    *("share", "control_share", "difference", "difference_low", "difference_high", "p", "p_holm"),
    *("p_equivalent", "difference_by_language", "accuracy", "accuracy_control", "n_prompts"),
    *("placebo_difference", "placebo_p", "development_accuracy"),
)
Case = Callable[[], xr.Dataset]


def written() -> ng.ParallelTask:
    """A task without choices."""
    records = [
        {**item, "choices": {}, "answers": dict(item["prompts"])} for item in small_task(10).items
    ]
    return ng.ParallelTask.from_records(records, name="written")


def cases() -> Iterator[tuple[str, Case]]:
    """Names of cases and what they find."""
    task = small_task(12)
    for family in ("llama", "gpt2"):
        model = random_model(family)
        recording = ng.record(model, task)
        for name, how in of_model(model).items():
            yield f"{family} {name}", _case(model, task, recording, how)
    model, task = random_model("llama"), written()
    how = {"categories": ["all_shared"], "max_new_tokens": 3}
    yield "llama written", _case(model, task, ng.record(model, task), how)
    model = ng.load_model("embedded/aligned")
    task = ng.load_task("facts", limit=16, languages=["en", "de", "th"])
    recording = ng.record(model, task)
    for name in ("plain", "another seed", "doses", "membership", "amplify"):
        yield f"aligned {name}", _case(model, task, recording, of_model(model)[name])


def of_model(model: ng.Model) -> dict[str, dict[str, Any]]:
    """Settings by name."""
    shared = ["all_shared", "all_shared+partial_shared"]
    bands = ng.layer_bands(model, 2)
    return {
        "plain": {"categories": ["all_shared", "partial_shared", "specific", "specific_here",
                                 "non_activated", "all_shared+specific_here"]},
        "another seed": {"categories": shared, "seed": 3},
        "doses": {"categories": shared, "variants": ng.doses(0.25, 0.6, 1.0)},
        "doses by answer": {
            "categories": ["all_shared"], "variants": ng.doses(0.5, rank_by="effective")
        },
        "bands": {"categories": ["all_shared", "specific_here"], "variants": bands},
        "membership": {
            "categories": ["all_shared", "specific"],
            "variants": [Variant(membership=0.5), Variant(membership=0.2, top=0.5)],
        },
        "keep only": {
            "categories": shared,
            "variants": [Variant(keep_only=True), Variant(keep_only=True, layers=(1,))],
        },
        "scaled": {"categories": shared, "variants": [Variant(factor=2), Variant(factor=-1)]},
        "all positions": {"categories": ["all_shared"], "positions": "all"},
        "last position": {"categories": ["all_shared"], "positions": "last", "score": "mean"},
        "amplify": {"category": "all_shared", "factors": (1.5, 3.0)},
    }  # fmt: skip


def _case(
    model: ng.Model, task: ng.ParallelTask, recording: ng.Recording, how: dict[str, Any]
) -> Case:
    run = ng.amplify if "factors" in how else ng.deactivate
    return lambda: run(model, task, recording, **{"draws": 2} | how)


def kept(found: xr.Dataset) -> dict[str, np.ndarray[Any, Any]]:
    """What is compared: answers as bytes, numbers as numbers."""
    parts: dict[str, np.ndarray[Any, Any]] = {
        "condition": found["condition"].to_numpy().astype(str)
    }
    for name in EXACT:
        values = found[name].astype(float).fillna(-1).to_numpy()
        parts[name] = values.astype(np.int16)
    for name in NUMBERS:
        if name in found:
            parts[name] = found[name].to_numpy().astype(float)
    return parts


def main() -> None:
    saved = {}
    for name, case in cases():
        saved |= {f"{name}/{key}": values for key, values in kept(case()).items()}
    np.savez_compressed(SAVED, **saved)


if __name__ == "__main__":
    main()
