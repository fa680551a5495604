"""What a model writes, and how it is compared."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import neuroglot as ng
from neuroglot.answering.answer_texts import exact_match, first_number, token_f1, words
from neuroglot.interventions.answering import Edited, answers_under
from neuroglot.recording.blocks import prompt_keys
from tests.testing import ARCHITECTURES, small_task, tiny_model, tokenizer


def open_task(n_items: int = 4) -> ng.ParallelTask:
    """The small task without its choices."""
    records = [dict(item) | {"choices": {}} for item in small_task(n_items).items]
    return ng.ParallelTask.from_records(records, name="open")


def longhand_text(model: ng.Model, prompt: str, n_tokens: int) -> str:
    """The likeliest token again and again, each from a forward pass of its own."""
    ids = tokenizer()(prompt).input_ids
    written: list[int] = []
    while len(written) < n_tokens:
        with torch.no_grad():
            asked = torch.tensor([[*ids, *written]], device=model.device)
            token = int(model.hf(asked).logits[0, -1].argmax())
        written.append(token)
        if token == model.hf.generation_config.eos_token_id:
            break
    return str(tokenizer().decode(written, skip_special_tokens=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("batch_size", [1, 5, "auto"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_written_greedily_as_longhand(architecture: str, batch_size: int, side: str) -> None:
    padded = copy.copy(tokenizer())
    padded.padding_side = side
    model, task = ng.wrap_model(tiny_model(architecture).hf, padded), open_task()
    found = ng.evaluate(
        model.with_batch_size(batch_size), task, answering=ng.Answering(max_new_tokens=5)
    )
    for i, item in enumerate(task.items):
        for language in task.languages:
            expected = longhand_text(model, item["prompts"][language], 5)
            assert found["text"].sel(language=language)[i].item() == expected
    assert found.attrs["answered_by"] == "writing"
    assert np.isnan(found["chance"]).all()


def test_a_right_answer_is_found_right(tmp_path: Path) -> None:
    model, task = tiny_model("llama"), open_task()
    items = [copy.deepcopy(dict(item)) for item in task.items]
    prompt = items[1]["prompts"]["de"]
    items[1]["answers"]["de"] = longhand_text(model, prompt, 3).upper() + "."
    task = replace(task, items=items)
    found = ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=3), out=tmp_path / "a")
    assert bool(found["correct"].sel(language="de")[1])
    assert float(found["f1"].sel(language="de")[1]) == 1
    xr.testing.assert_identical(ng.load(tmp_path / "a"), found)
    xr.testing.assert_identical(
        ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=3), out=tmp_path / "a"),
        found,
    )
    with pytest.raises(ng.NeuroglotError, match="other settings"):
        ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=4), out=tmp_path / "a")
    with pytest.raises(ng.NeuroglotError, match="expected at least 1"):
        ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=0))
    with pytest.raises(ng.NeuroglotError, match=r"has .* tokens and 47 after it"):
        ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=47))


def test_a_model_s_own_end_of_text_ends_an_answer() -> None:
    model, task = tiny_model("llama"), open_task()
    whole = (
        ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=5))["text"][0, 0]
        .item()
        .split()
    )
    own = copy.deepcopy(model.hf.generation_config)
    try:
        model.hf.generation_config.eos_token_id = int(whole[1][1:])  # "w17" is token 17
        cut = (
            ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=5))["text"][0, 0]
            .item()
            .split()
        )
    finally:
        model.hf.generation_config = own
    assert cut == whole[: whole.index(whole[1]) + 1]
    assert len(cut) < len(whole)


@pytest.mark.parametrize(
    "own",
    [
        {"do_sample": True, "temperature": 50.0},
        {"repetition_penalty": 5.0},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": list(range(2, 40))},
        {"stop_strings": ["w"]},
        {"num_beams": 3},
    ],
)
def test_a_model_s_own_ways_of_writing_are_not_used(own: dict[str, Any]) -> None:
    model, task = tiny_model("llama"), open_task()
    expected = ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=5))
    before = model.hf.generation_config
    try:
        model.hf.generation_config = changed = copy.deepcopy(before)
        for field, value in own.items():
            setattr(changed, field, value)
        xr.testing.assert_identical(
            ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=5)), expected
        )
        assert model.hf.generation_config is changed
    finally:
        model.hf.generation_config = before


@pytest.mark.parametrize(
    ("written", "answer", "exact", "f1"),
    [
        (" Paris.\nQuestion: more", "paris", True, 1.0),
        ("the city of Paris", "Paris", False, 0.4),
        ("", "Paris", False, 0.0),
        ("\n\n Straße ", "STRASSE", True, 1.0),
        ("基辅。", "基辅", True, 1.0),
        ("基辅市", "基辅", False, 0.8),
        ("Ⅳ", "iv", True, 1.0),
        ("!", "!", True, 1.0),
        ("?", "!", False, 0.0),
        ("a a b", "a b b", False, 2 / 3),
    ],
)
def test_matching_of_text(written: str, answer: str, exact: bool, f1: float) -> None:
    assert exact_match(written, answer, "text") is exact
    assert token_f1(written, answer) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (" 18.", "18"),
        ("It is 2,125 in all, not 3", "2125"),
        ("114.200", "114200"),
        ("1,00,000", "100000"),
        ("১,১৪,২০০ টাকা", "114200"),
        ("1,000.50", "1000.5"),
        ("3/5", "3"),
        ("276 000", "276000"),
        ("276\u202f000", "276000"),
        ("-5", "-5"),
        ("18.00 dollars", "18"),
        ("1.5", "1.5"),
        ("১৮", "18"),
        ("none", ""),
    ],
)
def test_first_number(written: str, number: str) -> None:
    assert first_number(written) == number
    assert exact_match(written, "18", "number") == (number == "18")


@given(st.text(max_size=30), st.text(max_size=30))
def test_f1_is_symmetric_and_one_for_the_same(one: str, other: str) -> None:
    one, other = " ".join(one.split()), " ".join(other.split())
    assert 0 <= token_f1(one, other) <= 1
    assert token_f1(one, other) == pytest.approx(token_f1(other, one))
    if words(one):
        assert token_f1(one, one) == pytest.approx(1)
        assert exact_match(one, one, "text")


@pytest.mark.parametrize("with_choices", [True, False])
def test_predictions_say_what_happened(with_choices: bool, tmp_path: Path) -> None:
    model = tiny_model("llama")
    task = small_task() if with_choices else open_task(5)
    answers = ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=3))
    table = ng.predictions(task, answers)
    assert len(table) == 15
    for column in ("correct", "counted", "held_out"):
        np.testing.assert_array_equal(table[column], answers[column].to_numpy().ravel())
    assert set(table["held_out"]) == {True, False}
    row = table.iloc[4]  # the second item in the second language
    item = task.items[1]
    assert (row["item"], row["language"]) == (item["id"], "de")
    assert row["prompt"] == item["prompts"]["de"]
    assert row["answer"] == item["answers"]["de"]
    found = answers.isel(item=1, language=1)
    assert row["correct"] == bool(found["correct"])
    if with_choices:
        assert row["predicted"] == item["choices"]["de"][int(found["choice"])]
        assert row["log_prob_2"] == pytest.approx(float(found["log_prob"][1]), abs=1e-5)
        assert row["n_tokens_2"] == len(item["choices"]["de"][1].split())
    else:
        assert row["predicted"] == found["text"].item()
    table.to_csv(tmp_path / "t.csv", index=False)
    assert len(pd.read_csv(tmp_path / "t.csv")) == 15
    with pytest.raises(ng.NeuroglotError, match="with other items"):
        ng.predictions(small_task(4), answers)


def test_the_language_and_the_aliases_of_a_task_count(tmp_path: Path) -> None:
    model = tiny_model("llama")
    said = longhand_text(model, "w5", 2)
    record = {"id": "i", "prompts": dict.fromkeys(("en", "tr"), "w5")}

    def graded(answers: Any, asked_in: str | None = None) -> xr.Dataset:
        task = ng.ParallelTask.from_records([record | {"answers": answers}], name="t")
        task = replace(task, asked_in=asked_in)
        found = ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=2))
        table = ng.predictions(task, found)
        assert ("aliases" in table) is ("aliases" in task.items[0])
        assert found.attrs["asked_in"] == (asked_in or "")
        return found

    # An article is left out in English only.
    plain = dict.fromkeys(("en", "tr"), f"the {said}")
    assert graded(plain)["correct"].to_numpy().tolist() == [[True, False]]
    assert graded(plain, "en")["correct"].to_numpy().tolist() == [[True, True]]
    several = graded({"en": ["w2", said], "tr": ["w2", "w2 w2 w2"]})
    assert several["correct"].to_numpy().tolist() == [[True, False]]
    assert several["answer"].to_numpy().tolist() == [["w2", "w2"]]
    assert float(several["f1"][0, 0]) == 1


def test_switched_off_neurons_are_graded_alike() -> None:
    """What an edit leaves is compared with all answers, in the language that is asked in."""
    model, task = tiny_model("llama"), open_task(2)
    items = [dict(item) | {"aliases": {x: [] for x in task.languages}} for item in task.items]
    said = longhand_text(model, items[0]["prompts"]["de"], 2)
    items[0]["aliases"] = {"en": [], "de": [said], "th": []}
    task = replace(task, items=items)
    nothing = np.zeros((6, 1, model.n_layers, model.n_neurons), bool)
    edits = [(ng.Zero(ng.NeuronSet(nothing[0, 0])), nothing)]
    edited = Edited(edits, prompt_keys(task), np.ones((6, 1), bool), [0], "answer")
    found = answers_under(model, task, edited, ng.Answering(max_new_tokens=2))
    expected = ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=2))
    np.testing.assert_array_equal(found["correct"].reshape(2, 3), expected["correct"])
    np.testing.assert_array_equal(found["text"].reshape(2, 3), expected["text"])
    assert found["correct"][1, 0] == 1
