"""What a guesser knows: margins, majority, and the model with the subject masked."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import neuroglot as ng
from neuroglot.answering import evaluation, masked
from neuroglot.answering.answers import margins
from neuroglot.reporting.gathering import sort_results, tables
from neuroglot.reporting.headline import headline_table
from neuroglot.reporting.kinds.answers import accuracy_rows
from neuroglot.store.damage import mark_layout
from neuroglot.tasks.guessing import majority
from tests.attribution.models import random_model
from tests.running.test_choices import spaceless
from tests.testing import random_text, small_task, tiny_hf, tiny_model, tokenizer

NEW = ("majority", "margin")
OF_MASKED = ("masked_log_prob", "masked_correct", "masked_margin", "margin_beyond_masked")


def masked_task(n_items: int = 8, languages: str = "en de", seed: int = 0) -> ng.ParallelTask:
    """Two relations with one masked prompt each in a language, of different lengths."""
    rng = np.random.default_rng(seed + 100)
    of_relation = {
        relation: {code: random_text(rng, longest) for code in languages.split()}
        for relation, longest in (("odd", 9), ("even", 3))
    }
    items = small_task(n_items, languages, seed).items
    records = [{**item, "masked": of_relation[item["relation"]]} for item in items]
    return ng.ParallelTask.from_records(records, name="masked")


def asked_without_subject(task: ng.ParallelTask) -> ng.ParallelTask:
    """The masked prompts as a task of their own."""
    items = []
    for item in task.items:
        left = {key: value for key, value in item.items() if key != "masked"}
        items.append({**left, "prompts": item["masked"]})
    return replace(task, items=items)


def right_options(task: ng.ParallelTask) -> np.ndarray:
    return np.array(
        [
            [item["choices"][x].index(item["answers"][x]) for x in task.languages]
            for item in task.items
        ]
    )


def longhand_margins(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Item by item and language by language."""
    found = np.full(right.shape, np.nan)
    for place in np.ndindex(right.shape):
        values = [float(x) for x in scores[place]]
        answer = values.pop(right[place])
        found[place] = answer - max(x for x in values if not math.isnan(x))
    return found


def check_against_longhand(found: xr.Dataset, plain: xr.Dataset, alone: xr.Dataset) -> None:
    """What stands beside the answers against two evaluations, of which one is of masked prompts."""
    np.testing.assert_allclose(found["log_prob"], plain["log_prob"], atol=1e-4)
    np.testing.assert_allclose(found["masked_log_prob"], alone["log_prob"], atol=1e-4)
    np.testing.assert_array_equal(found["masked_correct"], alone["correct"])
    np.testing.assert_allclose(found["masked_margin"], alone["margin"], atol=1e-4)
    beyond = plain["margin"] - alone["margin"]
    np.testing.assert_allclose(found["margin_beyond_masked"], beyond, atol=1e-4)


@pytest.mark.parametrize("score", ["sum", "mean"])
def test_the_margin_is_the_right_score_less_the_best_wrong_one(score: str) -> None:
    records = [dict(item) for item in small_task(9).items]
    records[1]["choices"] = {k: [*v, "w40 w41", "w50"] for k, v in records[1]["choices"].items()}
    task = ng.ParallelTask.from_records(records, name="ragged")
    found = ng.evaluate(tiny_model("llama"), task, answering=ng.Answering(choice_score=score))
    scores = found["log_prob"].to_numpy()
    if score == "mean":
        scores = scores / np.maximum(found["n_tokens"].to_numpy(), 1)
    np.testing.assert_allclose(found["margin"], longhand_margins(scores, right_options(task)))
    np.testing.assert_array_equal(found["margin"] > 0, found["correct"])


def test_without_a_wrong_choice_there_is_no_margin() -> None:
    log_prob = np.array([[-1.0, np.nan], [-3.0, -1.5]])
    found = margins(log_prob, np.array([[2, 0], [2, 1]]), np.array([0, 0]), "sum")
    np.testing.assert_array_equal(found, [np.nan, -1.5])
    mean = margins(log_prob, np.array([[2, 0], [2, 1]]), np.array([0, 0]), "mean")
    np.testing.assert_array_equal(mean, [np.nan, 0.0])


def test_majority_stands_beside_chance_for_choosing_and_writing() -> None:
    task = masked_task(12)
    found = ng.evaluate(tiny_model("llama"), task)
    np.testing.assert_array_equal(found["majority"], majority(task))
    records = [{k: v for k, v in x.items() if k != "choices"} for x in task.items]
    written = ng.ParallelTask.from_records(records, name="written")
    found = ng.evaluate(tiny_model("llama"), written, answering=ng.Answering(max_new_tokens=1))
    np.testing.assert_array_equal(found["majority"], majority(written))
    assert not set(OF_MASKED) & set(found)
    assert "masked" not in found.attrs


@pytest.mark.parametrize("name", ["gpt2", "bloom", "llama", "opt", "gemma3"])
@pytest.mark.parametrize("score", ["sum", "mean"])
def test_masked_prompts_agree_with_a_task_of_their_own(name: str, score: str) -> None:
    task, hf = masked_task(), random_model(name).hf
    for side, shared, batch_size in itertools.product(
        ("left", "right"), (True, False), (3, "auto")
    ):
        padded = copy.copy(tokenizer())
        padded.padding_side = side
        model = replace(ng.wrap_model(hf, padded, name=name), shares_cache=shared)
        plain = ng.evaluate(
            model.with_batch_size(batch_size),
            task,
            answering=ng.Answering(masked=False, choice_score=score),
        )
        alone = ng.evaluate(
            model.with_batch_size(1),
            asked_without_subject(task),
            answering=ng.Answering(choice_score=score),
        )
        found = ng.evaluate(
            model.with_batch_size(batch_size), task, answering=ng.Answering(choice_score=score)
        )
        check_against_longhand(found, plain, alone)
        assert (found.attrs["masked"], plain.attrs["masked"]) == ("answered", "left out")
        assert not set(OF_MASKED) & set(plain)


def test_masked_prompts_are_put_into_the_chat_template() -> None:
    chatting = copy.copy(tokenizer())
    chatting.chat_template = "w2 w3 {% for m in messages %}{{ m['content'] }} w4 {% endfor %}"
    how = ng.Tokenization(chat_template=True)
    model = ng.wrap_model(tiny_hf("llama"), chatting, tokenization=how)
    task = masked_task()
    found = ng.evaluate(model, task)
    alone = ng.evaluate(model, asked_without_subject(task))
    check_against_longhand(
        found, ng.evaluate(model, task, answering=ng.Answering(masked=False)), alone
    )
    bare = ng.evaluate(ng.wrap_model(tiny_hf("llama"), tokenizer()), task)
    assert not np.allclose(found["masked_log_prob"], bare["masked_log_prob"], atol=1e-2)


def test_a_choice_is_scored_from_where_its_own_item_says() -> None:
    """Where a choice joins the end of the prompt, all choices of that item begin before it."""
    tokens = spaceless("x |ab c| ?[^ ]+", ["<end>", "ab c", "ab", " d", " c", "x ", " e"])
    model = ng.wrap_model(tiny_hf("llama"), tokens)
    records = [
        {
            "id": str(i),
            "prompts": dict.fromkeys(("en", "de"), "x x ab"),
            "masked": dict.fromkeys(("en", "de"), "x ab"),
            "choices": dict.fromkeys(("en", "de"), choices),
            "answers": dict.fromkeys(("en", "de"), "d"),
        }
        for i, choices in enumerate((["c", "d"], ["d", "e"]))
    ]
    task = ng.ParallelTask.from_records(records, name="joined")
    for score in ("sum", "mean"):
        found = ng.evaluate(model, task, answering=ng.Answering(choice_score=score))
        alone = ng.evaluate(
            model, asked_without_subject(task), answering=ng.Answering(choice_score=score)
        )
        assert alone["n_tokens"].values[:, 0].tolist() == [[1, 2], [1, 1]]
        check_against_longhand(
            found,
            ng.evaluate(model, task, answering=ng.Answering(masked=False, choice_score=score)),
            alone,
        )


def test_items_without_a_masked_prompt_say_nothing_of_it() -> None:
    task = masked_task()
    some = [dict(item) for item in task.items]
    for i in (0, 3):
        del some[i]["masked"]
    part = ng.ParallelTask.from_records(some, name="part")
    found, whole = (ng.evaluate(tiny_model("llama"), one) for one in (part, task))
    kept = [i for i in range(len(task)) if i not in (0, 3)]
    for name in OF_MASKED:
        assert found[name].isel(item=[0, 3]).isnull().all()
        np.testing.assert_allclose(found[name][kept], whole[name][kept], atol=1e-5)
    assert found["margin"].notnull().all()


def of_relations(n_objects: int) -> ng.ParallelTask:
    """One relation of many objects, of which each item offers three."""
    words = [f"w{2 + i % 60} w{2 + i // 60} w7" for i in range(n_objects)]
    records: list[dict[str, Any]] = []
    for i in range(n_objects):
        choices = [words[(i + k) % n_objects] for k in (0, 1, 5)]
        records.append(
            {
                "id": f"item{i}",
                "prompts": {"en": f"w3 w{2 + i % 60} w5", "de": f"w4 w{2 + i % 60}"},
                "masked": {"en": "w3 w63 w5", "de": "w4 w63"},
                "choices": {"en": choices, "de": choices},
                "answers": dict.fromkeys(("en", "de"), choices[0]),
                "relation": "one",
            }
        )
    return ng.ParallelTask.from_records(records, name="many")


def test_each_choice_after_a_masked_prompt_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many items and blocks there are, and never more choices together than in an item."""
    task = of_relations(70)
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    real = masked.scores_of_choices

    def counted(model: Any, asked: Sequence[Any], *rest: Any) -> Any:
        assert max(len(one.choices) for one in asked) <= task.most_choices
        seen.extend((tuple(one.prefix), tuple(x)) for one in asked for x in one.choices)
        return real(model, asked, *rest)

    monkeypatch.setattr(masked, "scores_of_choices", counted)
    found = ng.evaluate(tiny_model("llama"), task)
    assert len(seen) == len(set(seen)) == 2 * 70
    alone = ng.evaluate(tiny_model("llama"), asked_without_subject(task))
    np.testing.assert_allclose(found["masked_log_prob"], alone["log_prob"], atol=1e-4)


def test_blocks_do_not_matter_and_a_stopped_run_goes_on_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = tiny_model("llama"), masked_task(11)
    whole = ng.evaluate(model, task)
    monkeypatch.setattr(evaluation, "ITEMS_AT_ONCE", 2)
    undisturbed = ng.evaluate(model, task, out=tmp_path / "u")
    xr.testing.assert_allclose(whole, undisturbed, atol=1e-4)
    real, calls = evaluation._answers, 0

    def stops(*given: Any) -> xr.Dataset:
        nonlocal calls
        calls += 1
        if calls in (3, 5):
            raise RuntimeError("stopped")
        return real(*given)

    monkeypatch.setattr(evaluation, "_answers", stops)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="stopped"):
            ng.evaluate(model, task, out=tmp_path / "r")
    xr.testing.assert_identical(ng.evaluate(model, task, out=tmp_path / "r"), undisturbed)
    with pytest.raises(ng.NeuroglotError, match="masked: there 'answered', now 'left out'"):
        ng.evaluate(model, task, out=tmp_path / "r", answering=ng.Answering(masked=False))


def test_limits_take_the_masked_prompts_of_what_is_left() -> None:
    task = masked_task(9)
    few, whole = (
        ng.evaluate(tiny_model("llama"), task.first(4)),
        ng.evaluate(tiny_model("llama"), task),
    )
    for name in OF_MASKED:
        np.testing.assert_allclose(few[name], whole[name][:4], atol=1e-4)


def test_an_edit_acts_on_masked_prompts_too() -> None:
    model, task = tiny_model("llama"), masked_task()

    every = ng.NeuronSet(np.ones((model.n_layers, model.n_neurons), bool))
    with ng.edit(model, ng.Scale(every, 0.5), position="all"):
        found = ng.evaluate(model, task)
        alone = ng.evaluate(model, asked_without_subject(task))
        unmasked = ng.evaluate(model, task, answering=ng.Answering(masked=False))
    check_against_longhand(found, unmasked, alone)
    plain = ng.evaluate(model, task)
    assert not np.allclose(found["masked_log_prob"], plain["masked_log_prob"], atol=1e-2)


@pytest.mark.parametrize("positions", ["answer", "last", "all"])
def test_a_masked_prompt_has_the_neurons_of_its_item_edited(positions: str) -> None:
    """With a set for each prompt, the same masked prompt is not the same for two items."""
    model, task = random_model("llama"), masked_task(5)
    prompts = [(item["id"], language) for item in task.items for language in task.languages]
    shape = (len(prompts), model.n_layers, model.n_neurons)
    masks = np.random.default_rng(0).random(shape) < 0.4
    sets = ng.NeuronSet.of_prompts(dict(zip(prompts, masks, strict=True)), "each its own")
    with ng.edit(model, ng.Zero(sets), position=positions):
        found = ng.evaluate(model, task)
        plain = ng.evaluate(model, task, answering=ng.Answering(masked=False))
        alone = ng.evaluate(model.with_batch_size(1), asked_without_subject(task))
    check_against_longhand(found, plain, alone)
    first, third = found["masked_log_prob"][0], found["masked_log_prob"][2]
    assert task.items[0]["masked"] == task.items[2]["masked"]
    assert not np.allclose(first, third, atol=1e-3)


def test_a_masked_prompt_that_does_not_fit_is_named() -> None:
    records = [dict(item) for item in masked_task(3).items]
    records[1]["masked"] = {**records[1]["masked"], "de": "w2 " * 100}
    task = ng.ParallelTask.from_records(records, name="long")
    with pytest.raises(ng.NeuroglotError, match=r"masked prompt of item 'item1' in 'de'"):
        ng.evaluate(tiny_model("gpt2"), task)
    ng.evaluate(tiny_model("gpt2"), task, answering=ng.Answering(masked=False))


def made_before(path: Path) -> None:
    """Take from a result what earlier versions did not keep."""
    group = zarr.open_group(path, mode="r+")
    for name in NEW:
        del group[name]
    mark_layout(path)


def test_a_finished_result_of_before_is_opened_with_what_follows_from_it(tmp_path: Path) -> None:
    model, task = tiny_model("llama"), small_task(5)
    for score in ("sum", "mean"):
        made = ng.evaluate(
            model, task, out=tmp_path / score, answering=ng.Answering(choice_score=score)
        )
        made_before(tmp_path / score)
        assert not set(NEW) & set(ng.load(tmp_path / score))
        again = ng.evaluate(
            model, task, out=tmp_path / score, answering=ng.Answering(choice_score=score)
        )
        xr.testing.assert_identical(again[sorted(made)], made)
    texts = [{k: v for k, v in item.items() if k != "choices"} for item in task.items]
    written = ng.ParallelTask.from_records(texts, name="written")
    made = ng.evaluate(model, written, out=tmp_path / "w", answering=ng.Answering(max_new_tokens=1))
    group = zarr.open_group(tmp_path / "w", mode="r+")
    del group["majority"]
    mark_layout(tmp_path / "w")
    again = ng.evaluate(
        model, written, out=tmp_path / "w", answering=ng.Answering(max_new_tokens=1)
    )
    xr.testing.assert_identical(again[sorted(made)], made)


def test_an_unfinished_result_of_before_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first blocks would hold zeros for margins."""
    monkeypatch.setattr(evaluation, "ITEMS_AT_ONCE", 2)
    model, task, real = tiny_model("llama"), small_task(6), evaluation._answers
    blocks = iter(range(3))

    def stops(*given: Any) -> xr.Dataset:
        if next(blocks) == 2:
            raise RuntimeError("stopped")
        return real(*given)

    monkeypatch.setattr(evaluation, "_answers", stops)
    with pytest.raises(RuntimeError, match="stopped"):
        ng.evaluate(model, task, out=tmp_path / "r")
    monkeypatch.setattr(evaluation, "_answers", real)
    made_before(tmp_path / "r")
    with pytest.raises(ng.NeuroglotError, match="kept no majority and no margins") as error:
        ng.evaluate(model, task, out=tmp_path / "r")
    assert "\n" not in str(error.value)
    found = ng.evaluate(model, task, out=tmp_path / "r", overwrite=True)
    xr.testing.assert_identical(found, ng.evaluate(model, task))


def test_runs_with_and_without_masked_answers_are_compared() -> None:
    """What is compared is the same in both, and in answers of before."""
    task = masked_task(12)
    models = {name: tiny_model("llama", seed) for name, seed in (("a", 0), ("b", 1))}
    recordings = {name: ng.record(model, task) for name, model in models.items()}
    runs = {
        name: (
            recordings[name],
            ng.evaluate(model, task, answering=ng.Answering(masked=name == "a")),
        )
        for name, model in models.items()
    }
    both = {name: (recordings[name], ng.evaluate(model, task)) for name, model in models.items()}
    before = {name: (one, answers.drop_vars(NEW)) for name, (one, answers) in runs.items()}
    expected = ng.compare(both)
    xr.testing.assert_identical(ng.compare(runs), expected)
    xr.testing.assert_identical(ng.compare(before), expected)


def test_progress_reaches_its_end_with_every_prompt_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ng.evaluate(tiny_model("llama"), masked_task(8))
    assert "16/16" in capsys.readouterr().err


def test_equal_prompts_of_which_some_have_a_masked_form_weigh_as_much_as_others() -> None:
    """Item 0 is asked once more without a masked prompt: the two are still one observation."""
    first, *others = [{**item, "held_out": []} for item in masked_task(6).items]
    again = {key: value for key, value in first.items() if key != "masked"}
    task = ng.ParallelTask.from_records([first, {**again, "id": "again"}, *others], name="t")
    found = ng.evaluate(tiny_model("llama"), task)
    margin = found["margin_beyond_masked"].to_numpy()
    assert np.isnan(margin[1]).all()
    rows = accuracy_rows(found)
    seen = [row["margin_beyond_masked"] for row in rows]
    same = found["same_tokens_as"].to_numpy()
    assert (same[1] == 0).all()
    expected = [
        np.mean([np.nanmean(margin[same[:, j] == first, j]) for first in np.unique(same[:, j])])
        for j in range(2)
    ]
    np.testing.assert_allclose(seen, expected)
    # The headline has no margins, and so explains none.
    headline = headline_table(sort_results({"t": found}))
    assert not any("argin" in text for text in headline.explanations())
    assert any("argin" in text for table in tables(found) for text in table.explanations())
