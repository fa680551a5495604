"""Obvious misuse is told of in one line that says what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import neuroglot as ng
from tests.testing import small_task, tiny_model

MODEL, TASK = tiny_model("llama"), small_task(3)
PATH: Any = Path("runs/recording")
ANY: Any = ng


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ng.record(TASK, MODEL), "model is a ParallelTask; expected"),  # type: ignore[arg-type]
        (lambda: ng.record(ANY.Model, TASK), "model is a type; expected"),
        (lambda: ng.record("embedded/base", TASK), "model is a str; expected"),  # type: ignore[arg-type]
        (lambda: ng.record(MODEL, "facts"), "task is a str; expected what neuroglot.load_task"),  # type: ignore[arg-type]
        (lambda: ng.evaluate(MODEL, "facts"), "task is a str; expected"),  # type: ignore[arg-type]
        (lambda: ng.run(MODEL, task=MODEL), "task is a Model; expected"),  # type: ignore[arg-type]
        (lambda: ng.attribute(MODEL, TASK, recording=PATH), "recording is a PosixPath; expected"),
        (
            lambda: ng.describe(MODEL, layer=0, neuron=0, recording=PATH),
            "recording is a PosixPath; expected",
        ),
        (
            lambda: ANY.record(MODEL, TASK, site="gate"),
            r"record\(site=\) is gone; write reading=neuroglot.Reading\(site=…\)",
        ),
        (
            lambda: ANY.evaluate(MODEL, TASK, score="mean"),
            r"write answering=neuroglot.Answering\(choice_score=…\)",
        ),
        (lambda: ANY.record(MODEL, TASK, batch_size=2), "batch_size=. is gone; name it in"),
        (lambda: ng.record(MODEL, TASK, reading=ANY.Answering()), "reading= is a Answering; exp"),
        (lambda: ng.evaluate(MODEL, TASK, answering=ANY.Reading()), "answering= is a Reading"),
        (lambda: ng.classify(PATH), "recording is a PosixPath; expected"),
        (lambda: ng.classify("a", thresholds=[0]), "recording is a str; expected"),  # type: ignore[call-overload]
        (lambda: ng.category_flow(PATH, PATH), "before is a PosixPath; expected"),
        (lambda: ng.compare([ng.record(MODEL, TASK), PATH]), "recording is a PosixPath; expected"),
        (lambda: ng.NeuronSet.from_category(PATH, "all_shared"), "recording is a PosixPath"),
        (lambda: ng.NeuronSet.active(PATH), "recording is a PosixPath; expected"),
        (lambda: ng.intervene(MODEL, TASK, {"off": ANY.Zero(3)}), "needs a NeuronSet, found int"),
        (lambda: ng.load_model(MODEL.hf), "name is a LlamaForCausalLM; expected .*wrap_model"),  # type: ignore[arg-type]
        (lambda: ng.load_model(MODEL), "name is a Model; expected"),  # type: ignore[arg-type]
        (lambda: ng.report(ng.classify(ng.record(MODEL, TASK))), "results are a Dataset; expected"),  # type: ignore[arg-type]
    ],
)
def test_misuse(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ng.NeuroglotError, match=said):
        call()
