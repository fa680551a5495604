"""Which token neurons are scored for, found by hand on words that are tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import neuroglot as ng
from neuroglot.attribution.targets import Target, targets_of
from tests.attribution.models import ids_of, random_model
from tests.testing import small_task


def task(prompts: str, *, choices: str = "", answer: str = "") -> ng.ParallelTask:
    """The same question in two languages; choices with bars between."""
    record: dict[str, Any] = {"id": "a", "prompts": dict.fromkeys(("en", "de"), prompts)}
    if choices:
        record["choices"] = dict.fromkeys(("en", "de"), choices.split("|"))
    if answer:
        record["answers"] = dict.fromkeys(("en", "de"), answer)
    return ng.ParallelTask.from_records([record], name="one")


def log_prob(model: ng.Model, prompt: str, choice: str) -> float:
    """Summed log-probability of the words of a choice."""
    ids = ids_of(f"{prompt} {choice}")
    with torch.no_grad():
        logits = model.hf(input_ids=ids).logits.log_softmax(dim=-1)
    n = len(choice.split())
    return float(logits[0, -n - 1 : -1].gather(1, ids[0, -n:, None]).sum())


def test_the_first_token_at_which_answer_and_best_wrong_differ() -> None:
    model = random_model("llama")
    given = task("w3 w4", choices="w10 w11 w12|w10 w11 w13|w10 w20", answer="w10 w11 w12")
    found = targets_of(model, given, "correct_minus_best_wrong")
    wrong = max(["w10 w11 w13", "w10 w20"], key=lambda c: log_prob(model, "w3 w4", c))
    n = 2 if wrong == "w10 w11 w13" else 1
    fed = [3, 4, 10, 11][: 2 + n]
    assert found == [Target(fed, [11, 12][n - 1], {2: 13, 1: 20}[n], n_fed=n)] * 2


def test_a_choice_that_only_goes_on_is_passed_over() -> None:
    model = random_model("llama")
    given = task("w3", choices="w10|w10 w11|w12", answer="w10")
    assert targets_of(model, given, "correct_minus_best_wrong") == [Target([3], 10, 12)] * 2
    given = task("w3", choices="w10 w11|w10", answer="w10")
    assert targets_of(model, given, "correct_minus_best_wrong") == [None, None]
    with pytest.raises(ng.NeuroglotError, match=r"item 'a' in 'en': every wrong choice begins"):
        ng.neuron_scores(model, given, score="effective")


def test_the_papers_target_is_the_answers_first_token() -> None:
    model = random_model("bloom")
    given = task("w3 w4", choices="w10 w12|w10 w11", answer="w10 w12")
    assert targets_of(model, given, "answer") == [Target([3, 4], 10)] * 2
    assert targets_of(model, task("w3", answer="w9 w8"), "answer") == [Target([3], 9)] * 2


def test_the_prediction_is_the_likeliest_token() -> None:
    model = random_model("gpt2")
    texts = ["w3 w5 w7 w9", "w9", "w8 w2 w6"]
    found = ng.neuron_scores(model, texts, score="effective", target="prediction")
    for text, token in zip(texts, found["token"].values, strict=True):
        with torch.no_grad():
            assert f"w{int(model.hf(input_ids=ids_of(text)).logits[0, -1].argmax())}" == token


def test_defaults_are_what_the_task_has() -> None:
    model = random_model("bloom")
    tasks = {
        "correct_minus_best_wrong": task("w3", choices="w10|w11", answer="w10"),
        "answer": task("w3", answer="w10"),
        "prediction": task("w3"),
    }
    for expected, given in tasks.items():
        assert ng.neuron_scores(model, given, score="effective").attrs["target"] == expected


def test_known_log_probabilities_are_not_computed_again() -> None:
    model, given = random_model("bloom"), task("w3", choices="w10|w11|w12", answer="w10")
    log_prob = np.array([[[0.0, -5, -1], [0, -1, -5]]])
    found = targets_of(model, given, "correct_minus_best_wrong", log_prob)
    assert [target.against for target in found] == [12, 11]


@pytest.mark.parametrize(
    ("given", "target", "message"),
    [
        (task("w3"), "answer", "needs answers, which items of task 'one' lack"),
        (task("w3", answer="w4"), "correct_minus_best_wrong", "needs choices"),
        (small_task(2), "best", "unknown target 'best'; there are answer"),
    ],
)
def test_targets_that_a_task_does_not_have(
    given: ng.ParallelTask, target: str, message: str
) -> None:
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.neuron_scores(random_model("bloom"), given, score="effective", target=target)


def test_an_answer_without_tokens() -> None:
    tokens = random_model("bloom").tokenizer
    assert tokens("  ").input_ids == []
    record = {
        "id": "a", "prompts": {"en": "w3", "de": "w4"}, "answers": {"en": "w5", "de": "\u200a"},
    }  # fmt: skip
    given = ng.ParallelTask(
        "blank", ("en", "de"), [small_task(1).items[0] | record | {"choices": {}}]
    )
    with pytest.raises(ng.NeuroglotError, match=r"'de': the choice .* adds no token"):
        ng.neuron_scores(random_model("bloom"), given, score="effective")
