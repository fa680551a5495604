"""Adding up by category, streaming over items."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import neuroglot as ng
from neuroglot.attribution import by_category as module
from neuroglot.attribution import shares as analysis_module
from neuroglot.models.model import BatchSize
from tests.attribution.models import random_model
from tests.testing import small_task

MODEL, TASK = random_model("llama"), small_task(7)
RECORDING = ng.record(MODEL, TASK)
SCORES = ("contribution", "effective", "gradient_x_activation")


def attributed(model: ng.Model = MODEL, **kwargs: Any) -> xr.Dataset:
    return ng.attribute(model, TASK, recording=RECORDING, scores=SCORES, **kwargs)


FOUND = attributed()


def test_longhand_from_single_scores_and_answers() -> None:
    """Sums over the whole arrays of `neuron_scores`, `categories` and `evaluate`."""
    codes, answers = ng.categories(RECORDING), ng.evaluate(MODEL, TASK)["correct"]
    target = "correct_minus_best_wrong"
    for name in SCORES:
        scores = ng.neuron_scores(MODEL, TASK, score=name, target=target).to_numpy()
        by_item = scores.reshape(7, 3, MODEL.n_layers, MODEL.n_neurons)
        for answered in ("all", "correct", "incorrect"):
            for j, language in enumerate(TASK.languages):
                right = answers.sel(language=language).to_numpy()
                kept = np.ones(7, bool) if answered == "all" else right == (answered == "correct")
                here = FOUND.sel(score=name, answered=answered, language=language)
                assert int(here["n_prompts"]) == kept.sum()
                for layer in range(MODEL.n_layers):
                    values = by_item[kept, j, layer].clip(0)
                    mine = codes.to_numpy()[kept, layer] == 3
                    one = here.sel(layer=layer, category="all_shared")
                    with np.errstate(invalid="ignore"):
                        expected = values[mine].sum() / values.sum()
                    assert float(one["positive_share"]) == pytest.approx(
                        expected, rel=1e-4, nan_ok=True
                    )
        means = by_item.mean(axis=0)
        np.testing.assert_allclose(FOUND["mean_score"].sel(score=name), means, rtol=1e-3, atol=1e-5)


def test_scores_are_taken_where_the_target_is_predicted() -> None:
    """Also the contribution, for which `neuron_scores` needs no target."""
    assert FOUND.attrs["target"] == "correct_minus_best_wrong"
    first = attributed(target="answer")
    assert first.attrs["target"] == "answer"
    assert not np.allclose(
        first["mean_score"].sel(score="effective"), FOUND["mean_score"].sel(score="effective")
    )


def test_answers_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ng.evaluate(MODEL, TASK)
    monkeypatch.setattr(module, "answers_of", None)
    xr.testing.assert_equal(attributed(answers=answers), FOUND)
    part = RECORDING.select(items=["item4", "item1"], languages=["th", "en"])
    found = ng.attribute(MODEL, TASK, recording=part, answers=answers)
    right = answers["correct"].sel(item=["item4", "item1"], language=["th", "en"]).sum("item")
    assert (found["n_prompts"].sel(answered="correct", drop=True) == right).all()


@pytest.mark.parametrize("size", [1, 3, "auto"])
def test_batches_change_nothing(size: BatchSize) -> None:
    found = attributed(MODEL.with_batch_size(size))
    xr.testing.assert_allclose(found.drop_attrs(), FOUND.drop_attrs(), rtol=1e-3, atol=1e-5)


def test_a_part_of_the_items_and_languages() -> None:
    part = RECORDING.select(items=["item4", "item1"], languages=["th", "en"])
    found = ng.attribute(MODEL, TASK, recording=part)
    assert found["item"].values.tolist() == ["item4", "item1"]
    assert found["language"].values.tolist() == ["th", "en"]
    assert found["n_prompts"].sel(answered="all").values.tolist() == [2, 2]


def test_a_task_without_choices_is_answered_by_writing() -> None:
    records = [
        {"id": str(i), "prompts": {"en": f"w{3 + i} w5", "de": f"w{7 + i}"},
         "answers": {"en": "w8 w9", "de": "w10"}}
        for i in range(4)
    ]  # fmt: skip
    task = ng.ParallelTask.from_records(records, name="written")
    found = ng.attribute(MODEL, task, recording=ng.record(MODEL, task), scores=["effective"])
    assert found.attrs["target"] == "answer"
    correct = ng.evaluate(MODEL, task)["correct"].sum("item")
    assert (found["n_prompts"].sel(answered="correct", drop=True) == correct).all()


def test_saved_and_opened_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ITEMS_AT_ONCE", 2)
    monkeypatch.setattr("neuroglot.store.accumulating.SECONDS_BETWEEN", 0.0)
    expected = attributed(out=tmp_path / "whole")
    xr.testing.assert_identical(ng.load(tmp_path / "whole"), expected)
    xr.testing.assert_allclose(expected.drop_attrs(), FOUND.drop_attrs(), rtol=1e-3, atol=1e-5)

    real, calls = module.answers_of, []

    def stopping(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "answers_of", stopping)
    with pytest.raises(KeyboardInterrupt):
        attributed(out=tmp_path / "stopped")
    with pytest.raises(ng.NeuroglotError, match=r"unfinished attribution \(4 of 7 items\)"):
        ng.load(tmp_path / "stopped")
    with pytest.raises(ng.NeuroglotError, match=r"top_k: there 1, now 2"):
        attributed(out=tmp_path / "stopped", top_k=2)
    found = attributed(out=tmp_path / "stopped")
    assert len(calls) == 3 + 2, "what was added is not computed again"
    xr.testing.assert_identical(found, expected)
    attributed(out=tmp_path / "stopped")
    assert len(calls) == 5, "a finished one is opened"
    attributed(out=tmp_path / "stopped", overwrite=True)
    assert len(calls) == 9


def test_the_headline() -> None:
    found = ng.share_of_correct(FOUND)
    correct = FOUND.sel(answered="correct", category="all_shared", score="effective", drop=True)
    xr.testing.assert_equal(found["share"], correct["positive_share"])
    xr.testing.assert_equal(
        found["fraction"], correct["fraction"].drop_vars("score", errors="ignore")
    )
    assert found["share"].dims == ("language", "layer")
    assert found["model_share"].dims == ("language",)
    with pytest.raises(ng.NeuroglotError, match="'direct_logit' was not attributed; there are"):
        ng.share_of_correct(FOUND, score="direct_logit")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scores": ("effective", "effective")}, "expected different ones"),
        ({"scores": ()}, "scores=none"),
        ({"scores": "effective"}, "is one text; expected a list of names"),
        ({"scores": ("loud",)}, "unknown score 'loud'"),
        ({"top_k": 0}, "top_k=0: expected 1 to 20"),
        ({"top_k": 21}, "top_k=21"),
        ({"top_k": 1.5}, "a whole number"),
        ({"target": "x"}, "unknown target 'x'"),
        ({"threshold": 0.7}, "threshold 0.7 was not recorded"),
    ],
)
def test_settings_that_make_no_sense(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.attribute(MODEL, TASK, recording=RECORDING, **kwargs)


def test_recordings_of_something_else() -> None:
    with pytest.raises(ng.NeuroglotError, match="recording is a str; expected what"):
        ng.attribute(MODEL, TASK, recording="folder")  # type: ignore[arg-type]
    with pytest.raises(ng.NeuroglotError, match="recording is of model 'random-llama'"):
        ng.attribute(random_model("bloom"), TASK, recording=RECORDING)
    with pytest.raises(ng.NeuroglotError, match="recording is of task 'small'"):
        ng.attribute(MODEL, small_task(7, seed=3), recording=RECORDING)
    with pytest.raises(ng.NeuroglotError, match="holds the layers 0, 2, expected all 3"):
        ng.attribute(
            MODEL, TASK, recording=ng.record(MODEL, TASK, reading=ng.Reading(layers=[0, 2]))
        )
    every = ng.NeuronSet(np.ones((MODEL.n_layers, MODEL.n_neurons), bool))
    with ng.edit(MODEL, ng.Zero(every)):
        edited = ng.evaluate(MODEL, TASK)
    with pytest.raises(ng.NeuroglotError, match=r"evaluation is of model .* with other edits than"):
        attributed(answers=edited)
    others = ng.evaluate(random_model("bloom"), TASK)
    by_function_before = ng.evaluate(MODEL, TASK).assign_attrs(edited=1)
    for answers in (by_function_before, ng.classify(RECORDING)):
        with pytest.raises(ng.NeuroglotError, match=r"kind .*neuroglot\.evaluate"):
            attributed(answers=answers)
    with pytest.raises(ng.NeuroglotError, match="evaluation is of model 'random-bloom' with other"):
        attributed(answers=others)
    records = [{"id": "a", "prompts": {"en": "w3", "de": "w4"}}]
    silent = ng.ParallelTask.from_records(records, name="silent")
    with pytest.raises(ng.NeuroglotError, match="without choices or answers"):
        ng.attribute(MODEL, silent, recording=ng.record(MODEL, silent))


def stopped(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave sums over the first four items at a place."""
    monkeypatch.setattr(module, "ITEMS_AT_ONCE", 2)
    monkeypatch.setattr("neuroglot.store.accumulating.SECONDS_BETWEEN", 0.0)
    real, calls = module.answers_of, []

    def stopping(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise RuntimeError("stop")
        return real(*args)

    with monkeypatch.context() as context:
        context.setattr(module, "answers_of", stopping)
        with pytest.raises(RuntimeError, match="stop"):
            attributed(out=out)


def asked_and_found(n_items: int, n_languages: int, out: Path | None, **how: Any) -> xr.Dataset:
    """The attribution of a part of the task."""
    task = TASK.part(TASK.items[:n_items], TASK.languages[:n_languages])
    return ng.attribute(
        MODEL, task, recording=ng.record(MODEL, task), scores=SCORES, out=out, **how
    )


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of prompts that were scored."""
    found: list[int] = []
    real = module.score_batches
    monkeypatch.setattr(module, "score_batches", lambda *a: (found.append(len(a[2])), real(*a))[1])
    return found


@pytest.mark.parametrize("given", [False, True])
def test_more_items_are_added_to_the_sums(
    given: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], scored: list[int]
) -> None:
    def answers(n: int) -> dict[str, Any]:
        task = TASK.part(TASK.items[:n])
        return {"answers": ng.evaluate(MODEL, task, out=tmp_path / "answers")} if given else {}

    before = asked_and_found(5, 3, tmp_path / "r", **answers(5))
    for refused in ({"grow": False}, {"top_k": 2}):
        with pytest.raises(ng.NeuroglotError, match="made with other settings"):
            asked_and_found(7, 3, tmp_path / "r", **answers(7), **refused)
    xr.testing.assert_identical(ng.load(tmp_path / "r"), before)
    scored.clear()
    capsys.readouterr()
    found = asked_and_found(7, 3, tmp_path / "r", **answers(7))
    assert sum(scored) == 6, "what is there is not scored again"
    assert "attribute: 5 of 7 items are there; the rest is added." in capsys.readouterr().err
    xr.testing.assert_allclose(found.drop_attrs(), FOUND.drop_attrs(), rtol=1e-3, atol=1e-5)
    xr.testing.assert_identical(ng.load(tmp_path / "r"), found)
    scored.clear()
    xr.testing.assert_identical(asked_and_found(7, 3, tmp_path / "r", **answers(7)), found)
    assert not scored, "a finished one is opened"
    with pytest.raises(ng.NeuroglotError, match="made with other settings"):
        asked_and_found(5, 3, tmp_path / "r")


def test_what_was_made_before_sums_were_kept_is_refused(tmp_path: Path) -> None:
    asked_and_found(5, 3, tmp_path / "r")
    ng.save(ng.load(tmp_path / "r"), tmp_path / "r", overwrite=True)
    with pytest.raises(ng.NeuroglotError, match="made with other settings"):
        asked_and_found(7, 3, tmp_path / "r")


def test_sums_that_were_stopped_over_other_prompts_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "ITEMS_AT_ONCE", 2)
        stopped(tmp_path / "r", patch)
    others = small_task(8, seed=1)
    with pytest.raises(ng.NeuroglotError, match="made with other settings"):
        ng.attribute(
            MODEL, others, recording=ng.record(MODEL, others), scores=SCORES, out=tmp_path / "r"
        )


def test_sums_of_another_kind_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those of a version that added up something else."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "ITEMS_AT_ONCE", 2)
        patch.setattr(analysis_module, "N_GROUPS", 7)
        stopped(tmp_path / "r", patch)
    found = attributed(out=tmp_path / "r")
    assert "of another version of neuroglot" in capsys.readouterr().err
    xr.testing.assert_allclose(found.drop_attrs(), FOUND.drop_attrs(), rtol=1e-3, atol=1e-5)


def test_sums_over_other_prompts_of_the_same_names_are_refused(tmp_path: Path) -> None:
    before = asked_and_found(5, 3, tmp_path / "r")
    others = small_task(7, seed=1)
    with pytest.raises(ng.NeuroglotError, match="made with other settings"):
        ng.attribute(
            MODEL, others, recording=ng.record(MODEL, others), scores=SCORES, out=tmp_path / "r"
        )
    xr.testing.assert_identical(ng.load(tmp_path / "r"), before)


@pytest.mark.parametrize(
    "why", ["language", "other text", "order", "other answers", "damage", "subjects", "stopped"]
)
def test_what_is_no_sum_of_the_first_items_is_added_up_again(
    why: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    scored: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, how = tmp_path / "r", {}
    if why == "stopped":
        with monkeypatch.context() as patch:
            patch.setattr(module, "ITEMS_AT_ONCE", 2)
            stopped(out, patch)
    else:
        asked_and_found(5, 2 if why == "language" else 3, out)
    items = [copy.deepcopy(dict(item)) for item in TASK.items]
    if why == "other text":
        items[2]["prompts"]["de"] = "w2 w3 w4"
    if why == "order":
        items = items[::-1]
    if why == "damage":
        next(x for x in (out / "sums" / "positive" / "c").rglob("*") if x.is_file()).unlink()
    if why == "subjects":
        items[6]["subject"] = items[2]["id"]
        items[4]["subject"] = items[1]["id"]
    if why == "stopped":
        items += [{**items[0], "id": "another"}]
    task = ng.ParallelTask.from_records(items, name=TASK.name)
    if why == "other answers":
        how = {"answers": ng.evaluate(MODEL, task)}
    scored.clear()
    capsys.readouterr()
    recording = ng.record(MODEL, task)
    with pytest.warns(UserWarning, match="made again") if why == "damage" else nullcontext():
        found = ng.attribute(MODEL, task, recording=recording, scores=SCORES, out=out, **how)
    assert sum(scored) == 3 * len(task)
    assert f"all of {len(task)} items in 3 languages are added up" in capsys.readouterr().err
    wanted = ng.attribute(MODEL, task, recording=recording, scores=SCORES, **how)
    xr.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)
    assert found.attrs == wanted.attrs


@pytest.mark.parametrize("is_finished", [False, True])
def test_what_is_damaged_is_made_again(
    is_finished: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_finished:
        attributed(out=tmp_path / "r")
    else:
        stopped(tmp_path / "r", monkeypatch)
    variable = "positive_sum" if is_finished else "positive"
    chunks = [path for path in (tmp_path / "r" / variable / "c").rglob("*") if path.is_file()]
    assert chunks
    chunks[0].unlink()
    with pytest.raises(ng.NeuroglotError, match="positive"):
        ng.load(tmp_path / "r")
    with pytest.warns(UserWarning, match=rf"chunks of '{variable}' are missing.* made again"):
        found = attributed(out=tmp_path / "r")
    xr.testing.assert_allclose(found.drop_attrs(), FOUND.drop_attrs(), rtol=1e-3, atol=1e-5)
    xr.testing.assert_identical(attributed(out=tmp_path / "r"), found)


def test_what_is_damaged_is_only_made_again_with_the_same_settings(tmp_path: Path) -> None:
    attributed(out=tmp_path / "r")
    (chunk,) = [path for path in (tmp_path / "r" / "item" / "c").rglob("*") if path.is_file()]
    chunk.unlink()
    with pytest.raises(ng.NeuroglotError, match=r"made with other settings \(top_k"):
        attributed(out=tmp_path / "r", top_k=3)
    with pytest.warns(UserWarning, match="made again"):
        attributed(out=tmp_path / "r")


@pytest.mark.concurrent
def test_one_that_another_process_has_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributed(out=tmp_path / "r")
    monkeypatch.setattr(module, "finished", lambda *_: False)
    with pytest.raises(ng.NeuroglotError, match="has just been finished by another process"):
        attributed(out=tmp_path / "r")


def test_other_answers_are_other_settings(tmp_path: Path) -> None:
    answers = ng.evaluate(MODEL, TASK)
    attributed(out=tmp_path / "r", answers=answers)
    flipped = answers.assign(correct=~answers["correct"])
    with pytest.raises(ng.NeuroglotError, match="answers_checksum: there"):
        attributed(out=tmp_path / "r", answers=flipped)
    with pytest.raises(ng.NeuroglotError, match="answers lack a recorded item"):
        attributed(answers=answers.isel(item=slice(2)))


def test_a_recording_under_another_tokenisation() -> None:
    tokens = copy.deepcopy(MODEL.tokenizer)
    tokens.chat_template = "{% for m in messages %}w7 {{ m.content }} w9{% endfor %}"
    chat = ng.wrap_model(MODEL.hf, tokens, tokenization=ng.Tokenization(chat_template=True))
    bare = ng.wrap_model(MODEL.hf, tokens, tokenization=ng.Tokenization(special_tokens=False))
    with pytest.raises(ng.NeuroglotError, match="with other special_tokens than"):
        ng.attribute(MODEL, TASK, recording=ng.record(chat, TASK))
    with pytest.raises(ng.NeuroglotError, match=r"the evaluation is .* other special_tokens"):
        attributed(answers=ng.evaluate(bare, TASK))
    half = ng.wrap_model(copy.deepcopy(MODEL.hf).to(torch.bfloat16), MODEL.tokenizer)
    with pytest.raises(ng.NeuroglotError, match="recording is of model"):
        ng.attribute(half, TASK, recording=RECORDING)


def test_prompts_that_cannot_be_told_apart_are_left_out() -> None:
    records = [dict(item) for item in TASK.items]
    records[2] = records[2] | {
        "choices": records[2]["choices"] | {"de": ["w4", "w4 w5", "w4 w6"]},
        "answers": records[2]["answers"] | {"de": "w4"},
    }
    task = ng.ParallelTask.from_records(records, name="some")
    recording = ng.record(MODEL, task)
    with pytest.warns(UserWarning, match="1 prompts are left out of the attribution"):
        found = ng.attribute(MODEL, task, recording=recording, scores=["effective"])
    assert found["n_prompts"].sel(answered="all").values.tolist() == [7, 6, 7]
    rest = [item for item in recording.items if item != "item2"]
    without = ng.attribute(
        MODEL, task, recording=recording.select(items=rest), scores=["effective"]
    )
    for name in ("positive_share", "mean_score", "maximum"):
        np.testing.assert_allclose(
            found[name].sel(language="de"), without[name].sel(language="de"), rtol=1e-4, atol=1e-6
        )


def test_the_split_decides_what_counts() -> None:
    held_out = dataclasses.replace(TASK, split="held_out")
    found = ng.attribute(
        MODEL, held_out, recording=ng.record(MODEL, held_out), scores=["effective"]
    )
    counted = ng.evaluate(MODEL, held_out)["counted"].sum("item")
    assert (found["n_prompts"].sel(answered="all", drop=True) == counted).all()


def test_mixed_tasks_are_refused() -> None:
    records = [dict(item) for item in TASK.items]
    records[0] = records[0] | {"choices": {}}
    task = ng.ParallelTask.from_records(records, name="mixed")
    with pytest.raises(ng.NeuroglotError, match="items with choices and items without"):
        ng.attribute(MODEL, task, recording=ng.record(MODEL, task))


def test_recordings_with_and_without_added_tokens_are_told_apart(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the position
        for added in (True, False):
            reading = ng.Reading(position="all", added_tokens=added)
            recording = ng.record(MODEL, TASK, reading=reading)
            if added:
                found = ng.attribute(
                    MODEL, TASK, recording=recording, scores=SCORES, out=tmp_path / "a"
                )
                assert (found.attrs["position"], found.attrs["added_tokens"]) == ("all", 1)
            else:
                with pytest.raises(ng.NeuroglotError, match="added_tokens: there 1, now 0"):
                    ng.attribute(
                        MODEL, TASK, recording=recording, scores=SCORES, out=tmp_path / "a"
                    )
