"""What is trained, in which order, and which of its tokens are predicted."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

import neuroglot as ng
from neuroglot.alignment.schedule import PARTS, Pair, checked_part, schedule, split
from neuroglot.alignment.texts import IGNORED, collate, training_texts
from tests.testing import small_task, tiny_model, tokenizer

TRAINING = ng.Training(steps=30, pairs=5)


def test_what_is_held_out_is_never_trained() -> None:
    task = small_task(20, "en de th vi")
    training = ng.Training(steps=60, pairs=5, languages=("en", "de", "th"), held_out=0.3)
    chosen = split(task, training)
    kept, left = ({item["id"] for item in x.items} for x in (chosen.trained, chosen.held_out))
    assert kept | left == {item["id"] for item in task.items}
    assert not kept & left
    assert len(left) == 6
    for pair in schedule(chosen, training):
        assert pair.source != pair.target
        for number in (pair.item, pair.other):
            held_out = chosen.trained.items[number]["held_out"]
            assert not {pair.source, pair.target} & {*held_out, "vi"}


def test_parts_longhand() -> None:
    task = small_task(12, "en de th")
    chosen = split(task, ng.Training(languages=("en", "th")))
    trained = {item["id"] for item in chosen.trained.items}
    for item, row in zip(task.items, chosen.part(task), strict=True):
        for language, found in zip(task.languages, row, strict=True):
            known_item = item["id"] in trained
            known_language = language != "de" and language not in item["held_out"]
            expected = {
                (True, True): "trained", (False, True): "item_held_out",
                (True, False): "language_held_out", (False, False): "both_held_out",
            }[known_item, known_language]  # fmt: skip
            assert found == expected
            assert expected in PARTS


def test_items_of_a_subject_stay_together() -> None:
    records = [{**item, "subject": f"s{i % 7}"} for i, item in enumerate(small_task(40).items)]
    task = ng.ParallelTask.from_records(records, name="subjects")
    chosen = split(task, TRAINING)
    one, other = ({item["subject"] for item in x.items} for x in (chosen.trained, chosen.held_out))
    assert not one & other
    assert 5 <= len(chosen.held_out) <= 15


def test_a_step_has_two_languages_and_mismatched_sources_are_the_same_texts() -> None:
    chosen = split(small_task(20, "en de th"), TRAINING)
    pairs = schedule(chosen, TRAINING)
    assert len(pairs) == 30 * 5
    for start in range(0, len(pairs), 5):
        step = pairs[start : start + 5]
        assert len({(p.source, p.target) for p in step}) == 1
        assert all(p.item != p.other for p in step)
        assert Counter(p.item for p in step) == Counter(p.other for p in step)
    assert schedule(chosen, TRAINING) == pairs
    assert schedule(chosen, ng.Training(steps=30, pairs=5, seed=1)) != pairs


def test_few_items_are_repeated_within_a_step() -> None:
    training = ng.Training(steps=3, pairs=9)
    chosen = split(small_task(6, "en de th"), training)
    pairs = schedule(chosen, training)
    assert len(pairs) == 27
    assert all(p.item != p.other for p in pairs)


def words(ids: list[int]) -> str:
    return str(tokenizer().decode(ids))


@pytest.mark.parametrize("mismatched", [False, True])
def test_texts_longhand(mismatched: bool) -> None:
    model, task = tiny_model("llama"), small_task(8)
    chosen = split(task, TRAINING)
    items = chosen.trained.items
    pairs = [Pair(0, 1, "de", "th"), Pair(2, 0, "th", "de")]

    def text(number: int, language: str) -> str:
        item = items[number]
        return f"{item['prompts'][language]} {item['answers'][language]}"

    found = training_texts(model, chosen, pairs, "translation", mismatched=mismatched)
    for (one,), pair in zip(found, pairs, strict=True):
        source = text(pair.other if mismatched else pair.item, pair.source)
        target = text(pair.item, pair.target)
        assert words(one.ids) == f"{source} {target} <end>"
        assert words(one.ids[one.first :]) == f"{target} <end>"
    for method in ("sharing", "unpaired", "instruction"):
        found = training_texts(model, chosen, pairs, method, mismatched=mismatched)
        for (source, target), pair in zip(found, pairs, strict=True):
            other = pair.other if mismatched else pair.item
            for one, number, language in (
                (source, other, pair.source), (target, pair.item, pair.target)
            ):  # fmt: skip
                prompt = items[number]["prompts"][language]
                assert words(one.ids) == f"{text(number, language)} <end>"
                assert words(one.ids[: one.last + 1]) == prompt
                assert one.first == (one.last + 1 if method == "instruction" else 1)


def test_collated_texts_predict_what_they_should() -> None:
    model, task = tiny_model("gpt2"), small_task(10)
    training = ng.Training(steps=1, pairs=4)
    chosen = split(task, training)
    pairs = schedule(chosen, training)
    texts = training_texts(model, chosen, pairs, "instruction", mismatched=False)
    batch = collate(model, texts)
    flat = [one for one, _ in texts] + [other for _, other in texts]
    for row, text in enumerate(flat):
        n = len(text.ids)
        assert batch["input_ids"][row, :n].tolist() == text.ids
        assert batch["attention_mask"][row].tolist() == [1] * n + [0] * (
            batch["input_ids"].shape[1] - n
        )
        predicted = [i for i, label in enumerate(batch["labels"][row]) if label != IGNORED]
        assert predicted == list(range(text.first, n))
        assert torch.equal(batch["labels"][row, predicted], batch["input_ids"][row, predicted])
        assert batch["last"][row] == text.last


def test_prompts_without_answers_are_texts_too() -> None:
    records = [{"id": i["id"], "prompts": i["prompts"]} for i in small_task(8).items]
    task = ng.ParallelTask.from_records(records, name="prompts")
    model, chosen = tiny_model("llama"), split(task, TRAINING)
    pairs = [Pair(0, 1, "de", "th")]
    ((one,),) = training_texts(model, chosen, pairs, "translation", mismatched=False)
    item = chosen.trained.items[0]
    assert words(one.ids) == f"{item['prompts']['de']} {item['prompts']['th']} <end>"
    ((first, _),) = training_texts(model, chosen, pairs, "sharing", mismatched=False)
    assert words(first.ids) == f"{item['prompts']['de']} <end>"
    assert first.last == len(first.ids) - 2
    with pytest.raises(ng.NeuroglotError, match="without answers"):
        training_texts(model, chosen, pairs, "instruction", mismatched=False)


def test_what_is_measured_is_of_both_sides() -> None:
    training = ng.Training(checked_items=3)
    chosen = split(small_task(20), training)
    ids = [item["id"] for item in checked_part(chosen, training).items]
    trained, held_out = ([i["id"] for i in x.items] for x in (chosen.trained, chosen.held_out))
    assert ids[:3] == [i for i in trained if i in ids]
    assert ids[3:] == [i for i in held_out if i in ids]
    assert len(ids) == 6
    everything = checked_part(chosen, ng.Training()).items
    assert [item["id"] for item in everything] == [*trained, *held_out]


def test_nothing_in_common_is_refused() -> None:
    records = [{**item, "held_out": ["en", "th"]} for item in small_task(8).items]
    task = ng.ParallelTask.from_records(records, name="apart")
    with pytest.raises(ng.NeuroglotError, match="no two of en, de, th"):
        schedule(split(task, TRAINING), TRAINING)
