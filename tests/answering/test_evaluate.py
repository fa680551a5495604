"""Answers under edits, accuracy and its intervals, and results that are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import neuroglot as ng
from tests.testing import small_task, tiny_hf, tiny_model, tokenizer


def test_an_edit_acts_and_is_gone_afterwards() -> None:
    model, task = tiny_model("llama"), small_task()
    before = ng.evaluate(model, task)
    every = ng.NeuronSet(np.ones((model.n_layers, model.n_neurons), bool), "all")
    with ng.edit(model, ng.Scale(every, 1.0)):
        same = ng.evaluate(model, task)
    with ng.edit(model, ng.Zero(every)):
        zeroed = ng.evaluate(model, task)
    xr.testing.assert_equal(before, same)
    assert not np.allclose(before["log_prob"], zeroed["log_prob"])
    assert zeroed.attrs["edits"].startswith("zero all (")
    xr.testing.assert_identical(before, ng.evaluate(model, task))


def test_accuracy_counts_held_out_prompts_only() -> None:
    task = small_task(12)
    held = replace(task, split="held_out").select(lambda item: bool(item["held_out"]))
    answers = ng.evaluate(tiny_model("llama"), held)
    assert answers["counted"].sum() == 4
    assert answers["counted"].sel(language="en").all()
    expected = answers["correct"].sel(language="en").mean()
    assert answers["accuracy"].sel(language="en") == expected
    assert answers["accuracy"].sel(language="de").isnull()
    np.testing.assert_allclose(answers["chance"], 1 / 3)


def test_different_numbers_of_choices() -> None:
    records = [dict(item) for item in small_task().items]
    records[1]["choices"] = {k: [*v, "w40 w41", "w50"] for k, v in records[1]["choices"].items()}
    task = ng.ParallelTask.from_records(records, name="ragged")
    answers = ng.evaluate(tiny_model("gpt2"), task)
    assert answers.sizes["option"] == 5
    assert np.isnan(answers["log_prob"][0, 0, 3:]).all()
    assert np.isfinite(answers["log_prob"][1]).all()
    np.testing.assert_allclose(answers["chance"][1], 0.2)


def test_out_is_opened_again_and_never_mixed_up(tmp_path: Path) -> None:
    model, task = tiny_model("llama"), small_task()
    first = ng.evaluate(model, task, out=tmp_path / "a")
    xr.testing.assert_identical(ng.load(tmp_path / "a"), first)
    xr.testing.assert_identical(ng.evaluate(model, task, out=tmp_path / "a"), first)
    with pytest.raises(ng.NeuroglotError, match="other settings"):
        ng.evaluate(tiny_model("gpt2"), task, out=tmp_path / "a")
    none = ng.NeuronSet(np.zeros((model.n_layers, model.n_neurons), bool))
    with (
        pytest.raises(ng.NeuroglotError, match=r"other settings .*edits"),
        ng.edit(model, ng.Zero(none)),
    ):
        ng.evaluate(model, task, out=tmp_path / "a")
    xr.testing.assert_identical(ng.load(tmp_path / "a"), first)


def test_a_task_without_answers_is_refused() -> None:
    records = [{"id": "a", "prompts": {"en": "w2", "de": "w3"}}]
    task = ng.ParallelTask.from_records(records, name="bare")
    with pytest.raises(ng.NeuroglotError, match="without choices"):
        ng.evaluate(tiny_model("llama"), task)


def test_right_answers_are_kept(tmp_path: Path) -> None:
    task = small_task()
    answers = ng.evaluate(tiny_model("llama"), task, out=tmp_path / "a")
    expected = [[item["answers"][x] for x in task.languages] for item in task.items]
    assert ng.load(tmp_path / "a")["answer"].values.tolist() == expected
    assert answers["answer"].values.tolist() == expected


def test_mixed_tasks_are_refused_and_other_matches_are_other_settings(tmp_path: Path) -> None:
    records = [dict(item) for item in small_task().items]
    records[2] |= {"choices": {}}
    with pytest.raises(ng.NeuroglotError, match="make two tasks of them"):
        ng.evaluate(tiny_model("llama"), ng.ParallelTask.from_records(records, name="mixed"))
    task = ng.ParallelTask.from_records([r | {"choices": {}} for r in records], name="open")
    ng.evaluate(
        tiny_model("llama"), task, out=tmp_path / "a", answering=ng.Answering(max_new_tokens=2)
    )
    other = replace(task, match="number")
    with pytest.raises(ng.NeuroglotError, match="other settings"):
        ng.evaluate(
            tiny_model("llama"), other, out=tmp_path / "a", answering=ng.Answering(max_new_tokens=2)
        )


def test_a_log_probability_that_is_no_number_is_named() -> None:
    model, task = ng.wrap_model(tiny_hf("llama"), tokenizer()), small_task()
    torch.nn.init.constant_(model.hf.lm_head.weight, float("nan"))
    with pytest.raises(ng.NeuroglotError, match=r"prompt of item 'item0' in 'en': .* is NaN"):
        ng.evaluate(model, task)
