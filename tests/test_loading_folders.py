"""``ng.load`` opens the folder that a function got as ``out``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import neuroglot as ng
from neuroglot import pipeline
from neuroglot.interventions.presets import amplify, deactivate
from tests.testing import small_task, tiny_model

MODEL, TASK = tiny_model("llama"), small_task(24)
CONTROLS = ng.Controls((), draws=1)
EASY: dict[str, Any] = {"controls": CONTROLS, "equivalent_within": 0.1}


def off(out: Path) -> xr.Dataset:
    recording = ng.record(MODEL, TASK)
    neurons = ng.NeuronSet.from_category(recording, "specific")
    return ng.intervene(MODEL, TASK, {"off": ng.Zero(neurons)}, **EASY, out=out)


MAKERS: dict[str, Callable[[Path], Any]] = {
    "record": lambda out: ng.record(MODEL, TASK, out=out).dataset,
    "evaluate": lambda out: ng.evaluate(MODEL, TASK, out=out),
    "attribute": lambda out: ng.attribute(
        MODEL, TASK, recording=ng.record(MODEL, TASK), scores=["contribution"], out=out
    ),
    "agreement": lambda out: ng.causal_agreement(
        MODEL, TASK.first(3), scores=["contribution"], n_neurons=3, out=out
    ),
    "fragility": lambda out: ng.fragility(MODEL, TASK.first(3), out=out),
    "intervene": off,
    "deactivate": lambda out: deactivate(
        MODEL, TASK, ng.record(MODEL, TASK), categories=["specific"], **EASY, out=out
    ),
    "amplify": lambda out: amplify(
        MODEL, TASK, ng.record(MODEL, TASK), category="specific", factors=[2], **EASY, out=out
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_out_is_opened_again(name: str, tmp_path: Path) -> None:
    made = MAKERS[name](tmp_path / "out")
    loaded: Any = ng.load(tmp_path / "out")
    xr.testing.assert_identical(getattr(loaded, "dataset", loaded).load(), made.load())


@pytest.mark.parametrize("scores", [(), ("contribution",)])
def test_a_run_is_opened_as_a_whole(scores: tuple[str, ...], tmp_path: Path) -> None:
    made = ng.run(MODEL, TASK, name="mine", scores=scores, out=tmp_path / "mine")
    loaded: Any = ng.load(tmp_path / "mine")
    assert loaded.recording.dataset.load().identical(made.recording.dataset.load())
    assert list(loaded.results) == list(made.results)
    for name, result in made.results.items():
        xr.testing.assert_identical(loaded.results[name], result)
    page = ng.report(loaded.results, out=tmp_path / "r.html")
    assert page.exists()


def test_a_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recording").mkdir()
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ng.NeuroglotError, match="holds no result"):
            ng.load(folder)


@pytest.mark.parametrize("step", ["record", "evaluate", "attribute"])
def test_a_run_that_overwrites_another_can_be_stopped(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on without ``overwrite``, and is as if nothing had been there."""
    out, other = tmp_path / "run", ng.Reading(site="coefficient", thresholds=(0.0, 0.1))
    scores = ("contribution",)
    ng.run(MODEL, small_task(20), scores=scores, out=out, reading=other)
    real = getattr(pipeline, step)

    def stopped(*given: Any, **options: Any) -> None:
        if step == "record":  # once it has begun
            with monkeypatch.context() as patch:
                patch.setattr("neuroglot.recording.recorder.record_block", interrupted)
                real(*given, **options)
        interrupted()

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, step, stopped)
        with pytest.raises(KeyboardInterrupt):
            ng.run(MODEL, TASK, scores=scores, out=out, overwrite=True)
    ng.run(MODEL, TASK, scores=scores, out=out)
    ng.run(MODEL, TASK, scores=scores, out=tmp_path / "undisturbed" / "run")
    found, expected = (ng.load(path) for path in (out, tmp_path / "undisturbed" / "run"))
    assert found.recording.dataset.load().identical(expected.recording.dataset.load())
    for name, result in expected.results.items():
        xr.testing.assert_identical(found.results[name], result)


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_result_that_cannot_be_removed_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ng.evaluate(MODEL, TASK, out=tmp_path / "run" / "answers")

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refused)
        with pytest.raises(ng.NeuroglotError, match=r"cannot write to .*Permission denied"):
            ng.run(MODEL, TASK, scores=(), out=tmp_path / "run", overwrite=True)
    assert len(ng.load(tmp_path / "run" / "answers")["item"]) == len(TASK)
