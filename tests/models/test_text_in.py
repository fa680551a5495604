"""What stands at the ends of a prompt, special tokens in it, and arguments of chat templates."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

import neuroglot as ng
from neuroglot.models.tokenization import between, end_tokens, token_names, without_spaces
from neuroglot.running.batching import tokenize
from neuroglot.running.choices import Asked, questions
from neuroglot.store.provenance import checksum_of_prompts
from tests.testing import tiny_hf

BOS, EOS, TURN = 1, 2, 3
WORDS = ("The", "capital", "is", "Paris", "Rome", "Answer", ":", "said")
KINDS = ("unigram", "bpe")
SPECIAL = ".* holds special tokens"


@cache
def sentence_pieces(kind: str) -> PreTrainedTokenizerFast:
    """Words with the space before them, as SentencePiece cuts them; Gemma's are like ``bpe``."""
    special = ["<unk>", "<bos>", "<eos>", "<turn>"]
    pieces = ["▁", "\n", "\t", *WORDS, *(f"▁{word}" for word in WORDS)]
    if kind == "unigram":
        scores = [*((piece, 0.0) for piece in special), *((piece, -2.0) for piece in pieces)]
        inner = Tokenizer(models.Unigram(scores, unk_id=0))
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        inner.decoder = decoders.Metaspace(prepend_scheme="first")
    else:
        letters = sorted({letter for word in WORDS for letter in word})
        merges, begun = [], []
        for word in sorted(WORDS, key=len, reverse=True):
            begun += [word[:n] for n in range(2, len(word))]
            merges += [(word[: n - 1], word[n - 1]) for n in range(2, len(word) + 1)]
        merges += [("▁", word) for word in WORDS]
        found = list(dict.fromkeys([*special, *pieces, *letters, *begun]))
        known = {piece: i for i, piece in enumerate(found)}
        inner = Tokenizer(models.BPE(known, merges, unk_token="<unk>"))
        inner.normalizer = normalizers.Replace(" ", "▁")
        inner.decoder = decoders.Replace("▁", " ")
    inner.add_special_tokens([AddedToken(piece, special=True) for piece in special])
    inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<eos>",
    )


def model_of(tokens: PreTrainedTokenizerFast, **chosen: Any) -> ng.Model:
    hf = tiny_hf("llama")
    hf.resize_token_embeddings(len(tokens))
    return ng.wrap_model(hf, tokens, name="x", tokenization=ng.Tokenization(**chosen))


def with_template(template: str, kind: str = "bpe") -> PreTrainedTokenizerFast:
    tokens = copy.deepcopy(sentence_pieces(kind))
    tokens.chat_template = template
    return tokens


def capitals(end: str = "", **more: Any) -> ng.ParallelTask:
    """Two prompts that end in ``end``."""
    record = {
        "id": "a",
        "prompts": {"en": f"The capital is{end}", "de": f"The capital said{end}"},
        "choices": {"en": ["Paris", "Rome"], "de": ["Rome", "Paris"]},
        "answers": {"en": "Paris", "de": "Rome"},
        **{key: dict.fromkeys(("en", "de"), value) for key, value in more.items()},
    }
    return ng.ParallelTask.from_records([record], name="capitals")


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> ng.Model:
    return model_of(sentence_pieces(request.param))


def first_choice(model: ng.Model, task: ng.ParallelTask) -> tuple[list[int], list[int]]:
    """Tokens of the first prompt of a task, and of its first choice."""
    item, language = task.items[0], task.languages[0]
    asked = Asked(
        [item["prompts"][language]],
        [item["choices"][language]],
        [item["joins"][language]],
        ["the prompt"],
        [None],
    )
    (question,) = questions(model, asked)
    return question.prefix, question.choices[0]


def pieces(model: ng.Model, ids: list[int]) -> list[str]:
    return list(model.tokenizer.convert_ids_to_tokens(ids))


@pytest.mark.parametrize("end", [" ", "  "])
def test_spaces_at_the_end_of_a_prompt_change_nothing(model: ng.Model, end: str) -> None:
    plain, spaced = capitals(), capitals(end)
    one, other = ng.evaluate(model, plain), ng.evaluate(model, spaced)
    xr.testing.assert_identical(one["log_prob"], other["log_prob"])
    xr.testing.assert_identical(one["n_tokens"], other["n_tokens"])
    assert one.attrs["prompts_checksum"] == other.attrs["prompts_checksum"]
    bits = [ng.record(model, task).dataset["active"] for task in (plain, spaced)]
    xr.testing.assert_identical(*bits)
    parts = [
        ng.attribute(model, task, recording=ng.record(model, task)) for task in (plain, spaced)
    ]
    xr.testing.assert_equal(*parts)
    texts = [task.items[0]["prompts"]["en"] for task in (plain, spaced)]
    scores = [ng.neuron_scores(model, [text], score="effective", target=[7]) for text in texts]
    np.testing.assert_array_equal(*(found.to_numpy() for found in scores))


@pytest.mark.parametrize(
    ("end", "join", "prefix", "choice"),
    [
        ("", None, "▁is", ["▁Paris"]),
        (" ", None, "▁is", ["▁Paris"]),
        (" ", "", "▁is", ["▁Paris"]),
        ("   ", " ", "▁is", ["▁Paris"]),
        (" ", "\n", "▁is", ["\n", "Paris"]),
        ("\n", None, "\n", ["Paris"]),
        ("\n", "", "\n", ["Paris"]),
        ("\n", " ", "\n", ["▁Paris"]),
        ("\n ", None, "\n", ["▁Paris"]),
        (" Answer:\n", None, "\n", ["Paris"]),
        ("\t", None, "▁is", ["\t", "Paris"]),
    ],
)
def test_the_space_moves_to_the_choice_and_the_end_of_a_line_stays(
    end: str, join: str | None, prefix: str, choice: list[str]
) -> None:
    """What is scored begins after the token that recording looks at."""
    model = model_of(sentence_pieces("bpe"))
    task = capitals(end) if join is None else capitals(end, joins=join)
    asked, scored = first_choice(model, task)
    assert (pieces(model, asked)[-1], pieces(model, scored)) == (prefix, choice)
    assert tokenize(model, [task.items[0]["prompts"]["en"]], ["it"]) == [asked]


def test_what_the_ends_of_prompts_are_made_of() -> None:
    assert without_spaces("is \t\u3000\u00a0") == ("is", " \t\u3000\u00a0")
    assert without_spaces("is\r\n ") == ("is\r\n", " ")
    assert without_spaces(" is") == (" is", "")
    assert [between(" ", " "), between("\t", " "), between("", ""), between("  ", "")] == [
        " ",
        "\t ",
        "",
        "  ",
    ]


def test_rows_and_templates_join_as_records_do() -> None:
    rows = [
        {"id": "a", "language": language, "prompt": f"{language}{end}"}
        for language, end in (("en", "\n"), ("de", " "))
    ]
    task = ng.ParallelTask.from_rows(rows, name="rows")
    assert task.items[0]["joins"] == {"en": "", "de": " "}


def test_what_is_written_after_spaces(model: ng.Model) -> None:
    def written(end: str) -> list[str]:
        task = capitals(end, choices=None)
        return (
            ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=4))["text"]
            .values.ravel()
            .tolist()
        )

    assert written(" ") == written("")
    assert written("\n") != written("")


def test_spaces_at_the_end_of_a_turn_and_of_a_template() -> None:
    turn = "<turn>{{ messages[0].content }}<eos>{% if add_generation_prompt %}said: {% endif %}"
    model = model_of(with_template(turn), chat_template=True)
    expected = tokenize(model, ["The capital is"], ["it"])[0]
    assert pieces(model, expected)[-3:] == ["<eos>", "said", ":"]
    for end in (" ", "\t "):
        assert tokenize(model, [f"The capital is{end}"], ["it"]) == [expected]
    # What the template itself ends in moves to the choice as well.
    asked, scored = first_choice(model, capitals(" "))
    assert (asked, pieces(model, scored)) == (expected, ["▁Paris"])


def test_a_begin_token_that_is_there_is_not_added(model: ng.Model) -> None:
    def ids(text: str, **chosen: Any) -> list[int]:
        how = replace(model, tokenization=ng.Tokenization(**chosen))
        return tokenize(how, [text], ["it"])[0]

    given = ids("<bos>Paris")
    assert given[0] == BOS
    assert given.count(BOS) == 1
    assert ids("<bos>Paris", special_tokens=False) == given
    assert ids("<bos><bos>Paris") == [BOS, *given]
    record = capitals().items[0]
    begun = {x: f"<bos>{text}" for x, text in record["prompts"].items()}
    task = ng.ParallelTask.from_records([dict(record) | {"prompts": begun}], name="t")
    bare = replace(model, tokenization=ng.Tokenization(special_tokens=False))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=SPECIAL)
        one, other = ng.evaluate(model, task), ng.evaluate(bare, task)
    xr.testing.assert_identical(one["log_prob"], other["log_prob"])


def of_texts(*texts: str) -> ng.ParallelTask:
    records = [
        {"id": f"i{n}", "prompts": {"en": text, "de": "Paris"}} for n, text in enumerate(texts)
    ]
    return ng.ParallelTask.from_records(records, name="t")


def test_special_tokens_inside_a_text_are_warned_of_once() -> None:
    model = model_of(sentence_pieces("bpe"))
    task = of_texts("Paris", "Rome<turn> is", "<bos>is", "is<eos>")
    with pytest.warns(UserWarning, match="the prompt of item 'i1' in 'en' holds special") as seen:
        ng.record(model, task)
    (message,) = [str(one.message) for one in seen if "holds special" in str(one.message)]
    assert "(<turn>, <eos> in all)" in message
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=SPECIAL)
        ng.record(model, task)
    with pytest.warns(UserWarning, match="the choice of item 'a' in 'en' holds"):
        ng.evaluate(model, capitals(choices=["Paris<eos>", "Rome"], answers="Rome"))


def test_masked_prompts_are_held_to_what_prompts_are() -> None:
    """Special tokens in them are warned of, and the checksum tells one from another."""
    model = model_of(sentence_pieces("bpe"))

    def masked(text: str) -> ng.ParallelTask:
        items = [{**item, "masked": {"en": text, "de": "is"}} for item in of_texts("Paris").items]
        return ng.ParallelTask.from_records(items, name="t")

    with pytest.warns(UserWarning, match="the masked prompt of item 'i0' in 'en' holds special"):
        ng.record(model, masked("Rome<turn> is"))
    found = [checksum_of_prompts(model, masked(text)) for text in ("Rome", "Rome is", "Rome")]
    assert found[0] == found[2] != found[1]


def test_special_tokens_that_the_chat_template_did_not_write() -> None:
    template = "<bos><turn>{{ messages[0].content }}<eos>"
    model = model_of(with_template(template), chat_template=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=SPECIAL)
        ng.record(model, of_texts("Paris", "Xyz unknown"))
    with pytest.warns(UserWarning, match=r"item 'i1' in 'en' .*\(<bos> in all\)"):
        ng.record(model, of_texts("Paris", "<bos>Rome"))


DATED = (
    "{% if not date is defined %}{% set date = 'Rome' %}{% endif %}"
    "{% if tools %}Answer{% endif %}{{ bos_token }}{{ date }} {{ messages[0].content }}"
    "{% if thinking is defined and thinking %} said{% endif %}{% for m in messages %}"
    "{% if loop.last %}{% break %}{% endif %}{% endfor %}{% generation %}{% endgeneration %}"
)


def test_arguments_reach_the_chat_template_and_are_recorded(tmp_path: Path) -> None:
    tokens = with_template(DATED)
    arguments = {"thinking": True, "date": "Paris"}
    plain = model_of(tokens, chat_template=True)
    model = replace(
        plain, tokenization=ng.Tokenization(chat_template=True, template_arguments=arguments)
    )
    assert tokens.decode(tokenize(plain, ["is"], ["it"])[0]) == "<bos>Rome is"
    assert tokens.decode(tokenize(model, ["is"], ["it"])[0]) == "<bos>Paris is said"
    attrs = ng.record(model, capitals(), out=tmp_path / "r").attrs
    assert attrs["template_arguments"] == '{"date": "Paris", "thinking": true}'
    assert ng.record(plain, capitals()).attrs["template_arguments"] == ""
    # An argument that changes no prompt still is another way to ask.
    same = replace(plain, tokenization=ng.Tokenization(chat_template=True, thinking=False))
    ng.record(plain, capitals(), out=tmp_path / "plain")
    with pytest.raises(ng.NeuroglotError, match="template_arguments"):
        ng.record(same, capitals(), out=tmp_path / "plain")
    with pytest.raises(ng.NeuroglotError, match="template_arguments"):
        ng.attribute(same, capitals(), recording=ng.record(plain, capitals()))


def test_two_spellings_of_one_tokenization() -> None:
    one = ng.Tokenization(chat_template=True, enable_thinking=False)
    other = ng.Tokenization(chat_template=True, template_arguments={"enable_thinking": False})
    assert one == other
    assert hash(one) == hash(other)
    assert one != ng.Tokenization(chat_template=True)
    assert replace(one, truncate=True).template_arguments == {"enable_thinking": False}
    with pytest.raises(ng.NeuroglotError, match="x is given twice"):
        ng.Tokenization(template_arguments={"x": 1}, x=1)
    with pytest.raises(ng.NeuroglotError, match="expected a mapping"):
        ng.Tokenization(template_arguments="x=1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"date": "x"}, "date: arguments of a chat template without chat_template=True"),
        (
            {"chat_template": True, "enable_thinkin": True},
            "takes no argument enable_thinkin; there are date, thinking, tools.",
        ),
        ({"chat_template": True, "messages": []}, "takes no argument messages"),
        ({"chat_template": True, "bos_token": ""}, "takes no argument bos_token"),
        ({"chat_template": True, "tokenize": True}, "takes no argument tokenize"),
        ({"chat_template": True, "date": {1, 2}}, "a text, a number, true or false"),
        ({"chat_template": True, "date": float("nan")}, "a text, a number, true or false"),
    ],
)
def test_arguments_that_the_template_does_not_take(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(ng.NeuroglotError) as error:
        model_of(with_template(DATED), **chosen)
    assert message in str(error.value)


def test_end_tokens_are_those_of_both(model: ng.Model) -> None:
    own = copy.deepcopy(model.hf.generation_config)
    for given, expected in ((None, [2]), (5, [2, 5]), ([7, 5], [2, 5, 7]), (2, [2])):
        own.eos_token_id = given
        assert end_tokens(model.tokenizer, own) == expected
    assert end_tokens(model.tokenizer, None) == [2]


@pytest.mark.parametrize("says", ["tokenizer", "generation"])
def test_writing_ends_at_either_end_token(says: str) -> None:
    tokens = copy.deepcopy(sentence_pieces("bpe"))
    model = model_of(tokens)
    task = capitals(choices=None)
    model.hf.generation_config.eos_token_id = None
    whole = ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=6))[
        "text"
    ].values.ravel()[0]
    end = tokens(str(whole), add_special_tokens=False)["input_ids"][0]
    before = model.identity.config
    if says == "tokenizer":
        tokens.eos_token = tokens.convert_ids_to_tokens(end)
    else:
        model.hf.generation_config.eos_token_id = end
    cut = ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=6))["text"].values.ravel()[
        0
    ]
    assert len(cut) < len(whole)
    assert model.identity.config != before


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("template", [None, "{{ bos_token }}{{ messages[0].content }}"])
def test_added_tokens_can_be_left_out_of_all_positions(side: Any, template: str | None) -> None:
    tokens = copy.deepcopy(sentence_pieces("bpe"))
    tokens.chat_template = template
    model = model_of(tokens, chat_template=template is not None, padding_side=side)
    task = of_texts("The capital is", "Rome")
    seen: list[np.ndarray] = []
    for text in ("The capital is", "Paris", "Rome", "Paris"):
        layers = range(model.n_layers)
        with (
            torch.inference_mode(),
            model.units().reading("gate", lambda _, x: seen.append(x[0].cpu().numpy()), layers),
        ):
            model.hf(input_ids=torch.tensor([tokens(text).input_ids]))
    of_prompts = [seen[n : n + model.n_layers] for n in range(0, len(seen), model.n_layers)]
    for added, start in ((True, 0), (False, 1)):
        kept = ng.record(
            model, task, reading=ng.Reading(position="all", keep_values=True, added_tokens=added)
        )
        assert kept.attrs["added_tokens"] == int(added)
        expected = [[layer[start:].max(axis=0) for layer in layers] for layers in of_prompts]
        np.testing.assert_allclose(
            kept.values.to_numpy().reshape(4, model.n_layers, -1), expected, atol=1e-5
        )


def test_what_was_looked_at_must_match(tmp_path: Path) -> None:
    model, task = model_of(sentence_pieces("bpe")), of_texts("Rome", "Paris")
    whole = ng.record(model, task, out=tmp_path / "r", reading=ng.Reading(position="all"))
    with pytest.raises(ng.NeuroglotError, match="added_tokens"):
        ng.record(
            model, task, out=tmp_path / "r", reading=ng.Reading(position="all", added_tokens=False)
        )
    part = ng.record(model, task, reading=ng.Reading(position="all", added_tokens=False))
    with pytest.raises(ng.NeuroglotError, match="added_tokens"):
        ng.category_flow(whole, part, lineage=True)
    with pytest.raises(ng.NeuroglotError, match=r"--no-added-tokens.* position 'last' has none"):
        ng.record(model, task, reading=ng.Reading(added_tokens=False))
    # Recordings of before said nothing of it, and had them all.
    whole.dataset.attrs.pop("added_tokens")
    whole.dataset.attrs.pop("template_arguments")
    ng.category_flow(
        whole, ng.record(model, task, reading=ng.Reading(position="all")), lineage=True
    )


@pytest.mark.parametrize("kind", KINDS)
def test_different_tokens_have_different_names(kind: str) -> None:
    tokens = sentence_pieces(kind)
    names = token_names(tokens, range(len(tokens)))
    assert len(set(names)) == len(tokens)
    known = dict(zip(tokens.convert_ids_to_tokens(list(range(len(tokens)))), names, strict=True))
    if kind == "bpe":
        assert (known["▁Paris"], known["Paris"]) == (" Paris", "Paris")
    else:  # both decode to "Paris", which is cut as the first of them
        number = tokens.convert_tokens_to_ids("Paris")
        assert (known["▁Paris"], known["Paris"]) == ("Paris", f"Paris (token {number})")
    model = model_of(tokens)
    said = ng.describe(model, layer=0, neuron=0, k=len(tokens))
    assert len({name for name, _ in said.promoted}) == len(tokens)


def test_prompts_that_are_the_same_have_one_checksum() -> None:
    model = model_of(sentence_pieces("bpe"))
    assert checksum_of_prompts(model, ["is "]) == checksum_of_prompts(model, ["is"])
    assert checksum_of_prompts(model, ["is\n"]) != checksum_of_prompts(model, ["is"])
