"""Special tokens, chat templates, padding and truncation are as asked, and recorded."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from transformers import PreTrainedTokenizerFast

import neuroglot as ng
from neuroglot.models.tokenization import Tokenization
from neuroglot.running.batching import tokenize
from tests.running.test_choices import with_special_tokens
from tests.testing import random_text, small_task, tiny_hf, tiny_model, tokenizer

TEMPLATE = (
    "{% for m in messages %}w2 {{ m.content }} w3{% endfor %}"
    "{% if add_generation_prompt %} w4{% endif %}"
)


def chatty() -> PreTrainedTokenizerFast:
    found = with_special_tokens()
    found.chat_template = TEMPLATE
    return found


def ids(model: ng.Model, text: str) -> list[int]:
    return tokenize(model, [text], ["the prompt"])[0]


def test_special_tokens_before_a_text_only() -> None:
    model = ng.wrap_model(tiny_hf("llama"), with_special_tokens())
    assert with_special_tokens()("w5 w6").input_ids == [1, 5, 6, 0]
    assert ids(model, "w5 w6") == [1, 5, 6]
    without = replace(model, tokenization=Tokenization(special_tokens=False))
    assert ids(without, "w5 w6") == [5, 6]
    # What looks like a special token in a text is a token of the text.
    assert ids(model, "w5 <end>") == [1, 5, 0]


def test_chat_template_brings_its_own_special_tokens() -> None:
    model = ng.wrap_model(tiny_hf("llama"), chatty(), tokenization=Tokenization(chat_template=True))
    assert ids(model, "w5 w6") == [2, 5, 6, 3, 4]
    plain = ng.wrap_model(tiny_hf("llama"), chatty())
    assert ids(plain, "w5 w6") == [1, 5, 6]
    with pytest.raises(ng.NeuroglotError, match="has no chat template"):
        ng.wrap_model(tiny_hf("llama"), tokenizer(), tokenization=Tokenization(chat_template=True))


def test_choices_follow_a_chat_template_at_once() -> None:
    """The same scores as prompts that spell the template out, and a choice after no space."""
    task = small_task()
    model = ng.wrap_model(tiny_hf("llama"), chatty(), tokenization=Tokenization(chat_template=True))
    spelled = [
        dict(item)
        | {"prompts": {k: f"w2 {v} w3 w4" for k, v in item["prompts"].items()}}
        | {"choices": {k: [f" {c}" for c in v] for k, v in item["choices"].items()}}
        | {"answers": {k: f" {v}" for k, v in item["answers"].items()}}
        | {"joins": dict.fromkeys(task.languages, "")}
        for item in task.items
    ]
    choices = [
        dict(item) | {field: s[field] for field in ("choices", "answers")}
        for item, s in zip(task.items, spelled, strict=True)
    ]
    bare = ng.wrap_model(
        tiny_hf("llama"), chatty(), tokenization=Tokenization(special_tokens=False)
    )
    one = ng.evaluate(model, ng.ParallelTask.from_records(choices, name="a"))
    other = ng.evaluate(bare, ng.ParallelTask.from_records(spelled, name="b"))
    np.testing.assert_allclose(one["log_prob"], other["log_prob"], atol=1e-5)
    recorded = ng.record(model, task).dataset["active"]
    expected = ng.record(bare, ng.ParallelTask.from_records(spelled, name="b")).dataset["active"]
    xr.testing.assert_equal(recorded, expected)


def test_truncation_is_asked_for_and_keeps_the_end() -> None:
    model = ng.wrap_model(tiny_hf("gpt2"), with_special_tokens())
    text = " ".join(f"w{2 + i}" for i in range(50))
    with pytest.raises(ng.NeuroglotError, match=r"the prompt has 51 tokens, but .* holds 48"):
        ids(model, text)
    cut = replace(model, tokenization=Tokenization(truncate=True))
    with pytest.warns(UserWarning, match="the prompt has 51 tokens; its beginning was cut"):
        assert ids(cut, text) == [1, *range(5, 52)]


def test_padding_side_is_chosen_and_changes_nothing() -> None:
    task = small_task()
    recordings = []
    for side in ("left", "right"):
        model = replace(tiny_model("llama"), tokenization=Tokenization(padding_side=side))
        recordings.append(ng.record(model.with_batch_size(15), task))
        assert recordings[-1].attrs["padding_side"] == side
    xr.testing.assert_equal(recordings[0].dataset, recordings[1].dataset)
    with pytest.raises(ng.NeuroglotError, match="expected 'left', 'right' or None"):
        ng.wrap_model(
            tiny_hf("llama"),
            tokenizer(),
            tokenization=Tokenization(padding_side="top"),  # type: ignore[arg-type]
        )


def test_every_choice_is_in_the_provenance(tmp_path: Path) -> None:
    chosen = Tokenization(chat_template=True, padding_side="left")
    model = ng.wrap_model(tiny_hf("llama"), chatty(), tokenization=chosen)
    attrs = ng.record(model, small_task(), out=tmp_path / "r").attrs
    assert (attrs["special_tokens"], attrs["truncate"]) == (0, 0)
    assert len(attrs["chat_template"]) == 16
    plain = replace(model, tokenization=Tokenization())
    with pytest.raises(ng.NeuroglotError, match="other settings"):
        ng.record(plain, small_task(), out=tmp_path / "r")


def test_a_text_of_special_tokens_only() -> None:
    model = ng.wrap_model(tiny_hf("llama"), with_special_tokens())
    with pytest.raises(ng.NeuroglotError, match="the prompt has no tokens"):
        ids(model, " ")


def test_slow_tokenizers_cannot_score(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ng.wrap_model(tiny_hf("llama"), with_special_tokens())
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False)
    ng.record(model, small_task())
    with pytest.raises(ng.NeuroglotError, match="load a fast tokenizer"):
        ng.evaluate(model, small_task())


def test_ragged_prompts_with_special_tokens_agree_one_by_one() -> None:
    rng = np.random.default_rng(5)
    records = [
        {"id": str(i), "prompts": {code: random_text(rng) for code in ("en", "de")}}
        for i in range(6)
    ]
    task = ng.ParallelTask.from_records(records, name="ragged")
    model = ng.wrap_model(tiny_hf("bloom"), with_special_tokens())
    one, many = (ng.record(model.with_batch_size(size), task).dataset for size in (1, "auto"))
    xr.testing.assert_equal(one["active"], many["active"])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ raise_exception('no system turn') }}",
            "chat template fails: TemplateError: no system turn",
        ),
        ("{{ messages", "chat template fails"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves out the prompt"),
    ],
)
def test_broken_chat_templates_are_explained(template: str, message: str) -> None:
    tokens = chatty()
    tokens.chat_template = template
    model = ng.wrap_model(tiny_hf("llama"), tokens, tokenization=Tokenization(chat_template=True))
    with pytest.raises(ng.NeuroglotError, match=message):
        ids(model, "w5")


def test_a_chat_template_is_never_cut() -> None:
    both = Tokenization(chat_template=True, truncate=True)
    with pytest.raises(ng.NeuroglotError, match="would cut the beginning of the chat template"):
        ng.wrap_model(tiny_hf("llama"), chatty(), tokenization=both)


def test_tokens_that_the_model_does_not_know() -> None:
    tokens = copy.deepcopy(tokenizer())
    tokens.add_special_tokens({"pad_token": "[PAD]"})
    assert tokens.pad_token_id == 64  # beyond the model's embeddings
    model, task = ng.wrap_model(tiny_hf("llama"), tokens), small_task()
    expected = ng.record(tiny_model("llama"), task).dataset["active"]
    xr.testing.assert_equal(ng.record(model, task).dataset["active"], expected)
    tokens.add_tokens(["x1"])
    record = {"id": "a", "prompts": {"en": "w5 x1", "de": "w6"}}
    with pytest.raises(ng.NeuroglotError, match=r"token 65 \('x1'\) has no embedding"):
        ng.record(model, ng.ParallelTask.from_records([record], name="x"))


def test_a_tokenization_is_one() -> None:
    given: Any = {"chat_template": True}
    with pytest.raises(ng.NeuroglotError, match=r"expected neuroglot.Tokenization\("):
        ng.wrap_model(tiny_hf("gpt2"), tokenizer(), tokenization=given)
