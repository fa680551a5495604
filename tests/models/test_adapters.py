"""Adapters become part of their base model as peft itself would have it, tokenizer and all."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

import neuroglot as ng
from neuroglot.models.tokenization import shown_prompts
from tests.families import FAMILIES, VOCABULARY, build
from tests.models.multimodal import multimodal_hf
from tests.models.test_checkpoint import Bomb
from tests.testing import tiny_hf, tokenizer

peft: Any = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")  # peft says much

N_TOKENS = VOCABULARY + 6
IDS = torch.tensor([[2, 9, 33, 17, 5, 48, 69]])
WHOLE = ["embed_tokens", "lm_head"]


def words(n: int, template: str | None = None) -> PreTrainedTokenizerFast:
    vocabulary = {"<end>": 0, "<unk>": 1} | {f"w{i}": i for i in range(2, n)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", pad_token="<end>")
    made.chat_template = template
    return made


def template(word: str) -> str:
    return "{% for m in messages %}{{ '" + word + " ' + m['content'] }}{% endfor %}"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny_hf("llama").save_pretrained(tmp_path / "base")
    words(VOCABULARY, template("w2")).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def adapters(base: Path, folder: Path, n_tokens: int = VOCABULARY, **config: Any) -> Path:
    """Adapters that do something, and perhaps embeddings for more tokens."""
    hf: Any = AutoModelForCausalLM.from_pretrained(base)
    if n_tokens != VOCABULARY:
        hf.resize_token_embeddings(n_tokens)
    config = {"target_modules": ["q_proj"]} | config
    wrapped = peft.get_peft_model(hf, peft.LoraConfig(r=2, task_type="CAUSAL_LM", **config))
    torch.manual_seed(1)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(folder)
    return folder


@torch.no_grad()
def by_hand(base: Path, *folders: Path, n_tokens: int = VOCABULARY) -> torch.Tensor:
    """Logits as whoever uses peft would compute them."""
    hf: Any = AutoModelForCausalLM.from_pretrained(base)
    if n_tokens != VOCABULARY:
        hf.resize_token_embeddings(n_tokens)
    for folder in folders:
        hf = peft.PeftModel.from_pretrained(hf, folder).merge_and_unload()
    logits: torch.Tensor = hf(IDS.clamp(max=n_tokens - 1)).logits
    return logits


@torch.no_grad()
def found(model: ng.Model) -> torch.Tensor:
    logits: torch.Tensor = model.hf(IDS.clamp(max=model.n_embeddings - 1)).logits
    return logits


def shown(folder: Path) -> str:
    """A prompt in the chat template that a folder brings."""
    model = ng.load_model(folder, device="cpu", tokenization=ng.Tokenization(chat_template=True))
    return shown_prompts(model.tokenizer, model.tokenization, ["w5"])[0]


def test_without_a_tokenizer_of_their_own(base: Path, tmp_path: Path) -> None:
    folder = adapters(base, tmp_path / "a")
    assert torch.equal(found(ng.load_model(folder, device="cpu")), by_hand(base, folder))
    assert shown(folder) == "w2 w5"


def test_their_own_tokenizer_and_template_are_used(base: Path, tmp_path: Path) -> None:
    folder = adapters(base, tmp_path / "a")
    words(VOCABULARY, template("w9")).save_pretrained(folder)
    assert shown(folder) == "w9 w5"


def test_their_own_template_with_the_tokenizer_of_the_base(base: Path, tmp_path: Path) -> None:
    folder = adapters(base, tmp_path / "a")
    (folder / "chat_template.jinja").write_text(template("w7"))
    assert shown(folder) == "w7 w5"


def test_of_adapters_on_adapters_the_last_tokenizer_wins(base: Path, tmp_path: Path) -> None:
    first, second, third = (adapters(base, tmp_path / name) for name in "abc")
    for folder, on in ((second, first), (third, second)):
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(
            json.dumps(config | {"base_model_name_or_path": str(on)})
        )
    words(VOCABULARY, template("w3")).save_pretrained(first)
    words(VOCABULARY, template("w4")).save_pretrained(second)
    assert [shown(folder) for folder in (first, second, third)] == ["w3 w5", "w4 w5", "w4 w5"]
    expected = by_hand(base, first, second, third)
    assert torch.equal(found(ng.load_model(third, device="cpu")), expected)


@pytest.mark.parametrize(
    "config",
    [
        {"modules_to_save": WHOLE},
        {},
        {"target_modules": ["q_proj", *WHOLE]},
        {"trainable_token_indices": {"embed_tokens": list(range(VOCABULARY, N_TOKENS))}},
    ],
    ids=["saved whole", "saved beside", "adapted", "new tokens only"],
)
def test_more_tokens_than_the_base_has(base: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    folder = adapters(base, tmp_path / "a", N_TOKENS, **config)
    words(N_TOKENS).save_pretrained(folder)
    model = ng.load_model(folder, device="cpu")
    assert model.n_embeddings == N_TOKENS == len(model.tokenizer)
    torch.testing.assert_close(
        found(model), by_hand(base, folder, n_tokens=N_TOKENS), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "config",
    [{"modules_to_save": WHOLE}, {}, {"trainable_token_indices": list(range(64, N_TOKENS))}],
    ids=["saved whole", "saved beside", "new tokens only"],
)
def test_more_tokens_where_both_ends_share_them(tmp_path: Path, config: dict[str, Any]) -> None:
    base = tmp_path / "base"
    sizes = FAMILIES["llama"].config | {"tie_word_embeddings": True}
    build("LlamaForCausalLM", sizes).save_pretrained(base)
    folder = adapters(base, tmp_path / "a", N_TOKENS, **config)
    words(N_TOKENS).save_pretrained(folder)
    expected = by_hand(base, folder, n_tokens=N_TOKENS)
    torch.testing.assert_close(
        found(ng.load_model(folder, device="cpu")), expected, rtol=0, atol=1e-5
    )


def test_embeddings_are_padded_as_the_adapters_have_them(base: Path, tmp_path: Path) -> None:
    folder = adapters(base, tmp_path / "a", 128, modules_to_save=WHOLE)
    words(N_TOKENS).save_pretrained(folder)
    model = ng.load_model(folder, device="cpu")
    assert model.n_embeddings == 128
    torch.testing.assert_close(found(model), by_hand(base, folder, n_tokens=128))


def test_embeddings_are_never_made_up(base: Path, tmp_path: Path) -> None:
    folder = adapters(base, tmp_path / "a", N_TOKENS, modules_to_save=WHOLE)
    words(N_TOKENS + 1).save_pretrained(folder)
    with pytest.raises(ng.NeuroglotError, match=r"71 tokens .* embeddings for 70"):
        ng.load_model(folder)
    words(N_TOKENS).save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    state = {k: v for k, v in load_file(file).items() if "lm_head" not in k}
    save_file(state, file, {"format": "pt"})
    with pytest.raises(ng.NeuroglotError, match=r"in '[^']*a'"):
        ng.load_model(folder)
    beside = adapters(base, tmp_path / "b", N_TOKENS)
    words(N_TOKENS).save_pretrained(beside)
    file = beside / "adapter_model.safetensors"
    state = {k: v for k, v in load_file(file).items() if "lm_head" not in k}
    save_file(state, file, {"format": "pt"})
    with pytest.raises(ng.NeuroglotError, match="hold no embeddings for some"):
        ng.load_model(beside)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_broken_tokenizer_is_said_in_one_line(base: Path, tmp_path: Path, file: str) -> None:
    folder = adapters(base, tmp_path / "a")
    words(VOCABULARY).save_pretrained(folder)
    (folder / file).write_text((folder / file).read_text()[:30])
    with pytest.raises(ng.NeuroglotError, match="cannot read the tokenizer beside the adapters"):
        ng.load_model(folder)


def test_a_tokenizer_without_its_vocabulary(base: Path, tmp_path: Path) -> None:
    folder = adapters(base, tmp_path / "a")
    words(VOCABULARY).save_pretrained(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ng.NeuroglotError, match="cannot read the tokenizer beside the adapters"):
        ng.load_model(folder)


def pickled(folder: Path) -> Path:
    weights = folder / "adapter_model.safetensors"
    torch.save(load_file(weights), folder / "adapter_model.bin")
    weights.unlink()
    return folder


def test_pickled_adapters_only_when_asked_for(base: Path, tmp_path: Path) -> None:
    folder = adapters(base, tmp_path / "a")
    expected = by_hand(base, folder)
    pickled(folder)
    with pytest.raises(ng.NeuroglotError, match="allow_pickle=True"):
        ng.load_model(folder)
    model = ng.load_model(folder, device="cpu", allow_pickle=True)
    assert torch.equal(found(model), expected)


def test_pickled_adapters_are_refused_before_anything_is_unpickled(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that other adapters lie on, and also where peft itself would take no care."""
    first, second = adapters(base, tmp_path / "a"), adapters(base, tmp_path / "b")
    config = json.loads((second / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(first)
    (second / "adapter_config.json").write_text(json.dumps(config))
    (first / "adapter_model.safetensors").unlink()
    (first / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **o: load(*a, **o | {"weights_only": False}))
    for folder in (first, second):
        with pytest.raises(ng.NeuroglotError, match="allow_pickle=True"):
            ng.load_model(folder)
    assert not (tmp_path / "mark").exists()


def test_adapters_without_weights(base: Path, tmp_path: Path) -> None:
    folder = adapters(base, tmp_path / "a")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ng.NeuroglotError, match="have no weights"):
        ng.load_model(folder)


def test_an_index_of_adapters_may_not_leave_its_folder(base: Path, tmp_path: Path) -> None:
    folder = adapters(base, tmp_path / "a")
    index = {"weight_map": {"x": "../x.safetensors"}}
    (folder / "adapter_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ng.NeuroglotError, match="names the weights"):
        ng.load_model(folder)


def test_prompts_that_were_learnt_are_no_weights(base: Path, tmp_path: Path) -> None:
    hf = AutoModelForCausalLM.from_pretrained(base)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    peft.get_peft_model(hf, config).save_pretrained(tmp_path / "a")
    with pytest.raises(ng.NeuroglotError, match="PROMPT_TUNING"):
        ng.load_model(tmp_path / "a")


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_adapters_that_do_not_fit(base: Path, tmp_path: Path, change: str) -> None:
    folder = adapters(base, tmp_path / "a")
    file = folder / "adapter_model.safetensors"
    state = load_file(file)
    name = next(name for name in state if "layers.1." in name)
    tensor = state[name] if change == "unexpected" else state.pop(name)
    if change == "unexpected":
        state[name.replace("layers.1.", "layers.7.")] = tensor.clone()
    save_file(state, file, {"format": "pt"})
    with pytest.raises(ng.NeuroglotError, match=r"do not fit their base model: .*layers\.[17]"):
        ng.load_model(folder)


def test_adapters_of_a_model_that_sees(tmp_path: Path) -> None:
    """Those of its eyes are left out with them."""
    base, folder = tmp_path / "base", tmp_path / "a"
    multimodal_hf("llava").save_pretrained(base)
    tokenizer().save_pretrained(base)
    whole: Any = AutoModelForImageTextToText.from_pretrained(base)
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj", "linear_1"], modules_to_save=["linear_2"]
    )
    wrapped = peft.get_peft_model(whole, config)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(folder)
    with torch.no_grad():
        ids = IDS.clamp(max=50)
        expected = wrapped(input_ids=ids).logits
        model = ng.load_model(folder, device="cpu")
        torch.testing.assert_close(model.hf(input_ids=ids).logits, expected, rtol=0, atol=1e-5)


def test_the_tokenizer_of_the_base_is_as_ever(base: Path) -> None:
    own = AutoTokenizer.from_pretrained(base)
    assert ng.load_model(base, device="cpu").tokenizer.get_vocab() == own.get_vocab()
