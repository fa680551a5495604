"""Thoughts are told from the answer, and kept."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import neuroglot as ng
from neuroglot.answering.answer_texts import exact_match, first_number
from neuroglot.answering.predictions import save_predictions
from neuroglot.answering.spreadsheet import read_table
from neuroglot.running.thoughts import PAIRS, Written, opened_by, split
from tests.families import VOCABULARY
from tests.testing import tiny_hf

HARMONY = "<|channel|>analysis<|message|>3 bags<|end|><|start|>assistant"


@pytest.mark.parametrize(
    ("text", "answer", "thoughts", "was_cut"),
    [
        ("<think>\n3 bags\n</think>\n\n18", "18", "3 bags", False),
        ("<think>\n\n</think>\n\n18", "18", "", False),
        ("3 bags\n</think>\n\n18", "18", "3 bags", False),
        ("<think>\n3 bags of", "", "3 bags of", True),
        ("<think>a</think>b<think>c</think>18", "b\n18", "a\nc", False),
        ("18 <think>no", "18", "no", True),
        ("<think>a <think> b</think>18", "18", "a <think> b", False),
        ("<think>3 bags</think><response>18</response>", "18", "3 bags", False),
        ("[THINK]3 bags[/THINK]18", "18", "3 bags", False),
        ("<thinking>3 bags</thinking>18", "18", "3 bags", False),
        ("<seed:think>3 bags</seed:think>18", "18", "3 bags", False),
        ("◁think▷3 bags◁/think▷18", "18", "3 bags", False),
        (f"{HARMONY}<|channel|>final<|message|>18<|return|>", "18", "3 bags", False),
        (f"{HARMONY}<|channel|>final<|message|>18", "18", "3 bags", False),
        (HARMONY, "", "3 bags", True),
        ("<|channel|>analysis<|message|>3 ba", "", "3 ba", True),
        ("Here is my thought process: 3\nHere is my response: 18", "18", "3", False),
        ("<think>3</think><|begin_of_box|>18<|end_of_box|>", "18", "3", False),
    ],
)
def test_thoughts_and_answer(text: str, answer: str, thoughts: str, was_cut: bool) -> None:
    assert split(text) == Written(answer, thoughts, was_cut)
    assert first_number(text) == ("18" if "18" in answer else "")
    assert exact_match(text, "18", "number") is ("18" in answer)
    assert exact_match(text, "18", "text") is answer.startswith("18")


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|user|>How many?<|assistant|><think>\n", "<think>\n"),
        ("How many?[THINK]", "[THINK]"),
        ("<|start|>assistant<|channel|>analysis<|message|>", "<|channel|>analysis<|message|>"),
        ("<|assistant|><think>\n\n</think>\n\n", ""),
        ("What is <think>?", ""),
        ("<|start|>assistant", ""),
    ],
)
def test_a_prompt_that_opens_a_thought(prompt: str, opened: str) -> None:
    assert opened_by(prompt) == opened
    closing = "<|end|><|channel|>final<|message|>" if "message" in opened else ""
    closing = closing or PAIRS.get(opened.strip(), "")
    if opened:
        assert split("3 ba", opened) == Written("", "3 ba", was_cut=True)
        assert split(f"3 bags{closing}18", opened) == Written("18", "3 bags")


@settings(deadline=None, derandomize=True, max_examples=200, database=None)
@given(
    st.sampled_from([x for x in PAIRS.items() if x[0] != "Here is my thought process:"]),
    st.text(alphabet="ab1 \n", max_size=9),
    st.text(alphabet="cd2 \n", max_size=9),
    st.booleans(),
)
def test_every_mark(pair: tuple[str, str], thought: str, answer: str, opened: bool) -> None:
    opening, closing = pair
    said = f"{'' if opened else opening}{thought}{closing}{answer}"
    expected = Written(answer.strip(), thought.strip())
    assert split(said, opening if opened else "") == expected
    assert split(said) == expected


# --- the model itself writes them ---------------------------------------------------------------


def marked(opens: str, closes: str, *, special: bool) -> PreTrainedTokenizerFast:
    """Words and the marks of thoughts, ``w3`` and ``w4`` being replaced by these."""
    vocabulary = {"<end>": 0, "<unk>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    del vocabulary["w3"], vocabulary["w4"]
    vocabulary |= {opens: 3, closes: 4}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_tokens([AddedToken(mark, special=special) for mark in (opens, closes)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", pad_token="<end>")
    if special:
        made.add_special_tokens({"additional_special_tokens": [opens, closes]})
    return made


def that_writes(after: dict[int, int], tokens: PreTrainedTokenizerFast) -> ng.Model:
    """A model that follows each token by one of our choice."""
    hf: Any = tiny_hf("llama")
    model = ng.wrap_model(hf, tokens, name="thinks")
    with torch.no_grad():
        # Only the last token itself reaches the logits.
        for layer in hf.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        seen = torch.nn.functional.normalize(hf.model.embed_tokens.weight.clone())
        hf.model.norm.weight.fill_(1)
        hf.lm_head.weight.zero_()
        for token, following in after.items():
            hf.lm_head.weight[following] += seen[token]
    return model


def asks(prompt: str) -> ng.ParallelTask:
    record = {"id": "i", "prompts": {"en": prompt, "de": "w9"}, "answers": {"en": "w8", "de": "w8"}}
    return ng.ParallelTask.from_records([record], name="t")


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(("opens", "closes"), [("<think>", "</think>"), ("[THINK]", "[/THINK]")])
def test_what_a_model_thinks_is_kept_beside_its_answer(
    opens: str, closes: str, special: bool, tmp_path: Path
) -> None:
    tokens = marked(opens, closes, special=special)
    model = that_writes({5: 3, 3: 7, 7: 10, 10: 4, 4: 8, 8: 0, 9: 8}, tokens)
    task = asks("w5")
    found = ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=9), out=tmp_path / "a")
    assert found["text"].to_numpy().tolist() == [["w8", "w8"]]
    assert found["thoughts"].to_numpy().tolist() == [["w7 w10", ""]]
    assert found["correct"].all()
    assert (found["f1"] == 1).all()
    assert ng.load(tmp_path / "a")["thoughts"].to_numpy().tolist() == [["w7 w10", ""]]
    save_predictions(task, found, tmp_path / "p.csv")
    table = read_table(tmp_path / "p.csv")
    assert table["predicted"].tolist() == ["w8", "w8"]
    assert table["thoughts"].fillna("").tolist() == ["w7 w10", ""]
    # The prompt opens the thought; only its end is written.
    opened = ng.evaluate(model, asks(f"w5 {opens}"), answering=ng.Answering(max_new_tokens=9))
    assert opened["thoughts"].to_numpy().tolist() == [["w7 w10", ""]]
    assert opened["text"].to_numpy().tolist() == [["w8", "w8"]]


def test_a_thought_that_is_cut_leaves_no_answer() -> None:
    tokens = marked("<think>", "</think>", special=False)
    model = that_writes({5: 3, 3: 8, 8: 10, 10: 4, 4: 8, 9: 0}, tokens)
    for prompt in ("w5", "w5 <think>"):
        with pytest.warns(UserWarning, match="1 of 2 texts that the model wrote end within its th"):
            found = ng.evaluate(model, asks(prompt), answering=ng.Answering(max_new_tokens=2))
        assert found["text"][0, 0].item() == ""
        assert found["thoughts"][0, 0].item().startswith("w8")
        assert not found["correct"].any()


def test_results_of_before_have_no_thoughts() -> None:
    tokens = marked("<think>", "</think>", special=False)
    task = asks("w5")
    found = ng.evaluate(
        that_writes({5: 8, 8: 0, 9: 8}, tokens), task, answering=ng.Answering(max_new_tokens=2)
    )
    assert "thoughts" not in ng.predictions(task, found.drop_vars("thoughts"))
    np.testing.assert_array_equal(ng.predictions(task, copy.copy(found))["thoughts"], ["", ""])
