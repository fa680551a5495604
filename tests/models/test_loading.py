"""Models load from folders as Hugging Face users expect, and bad names are explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, T5Config

import neuroglot as ng
from neuroglot.models.convert import in_dtype
from tests.testing import small_task, tiny_hf, tiny_model, tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_hf("gpt2").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    return tmp_path


def same_logits(model: ng.Model) -> bool:
    """Whether a model computes what the one in the folder does."""
    ids = torch.tensor([[3, 4, 5]], device=model.device)
    expected: Any = tiny_hf("gpt2")
    with torch.no_grad():
        return torch.equal(model.hf(ids).logits, expected.to(model.device)(ids).logits)


def test_a_folder_loads_equal(folder: Path) -> None:
    model = ng.load_model(folder)
    assert model.name == str(folder)
    assert model.hf.dtype == torch.float32
    assert same_logits(model)


def test_dtype(folder: Path) -> None:
    assert ng.load_model(folder, dtype="bfloat16").hf.dtype == torch.bfloat16


def test_truncated_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ng.NeuroglotError, match="cannot load model"):
        ng.load_model(folder)


def test_missing_weights_are_never_made_up(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    gone = next(name for name in state if "h.1.mlp.c_proj.weight" in name)
    save_file(
        {k: v for k, v in state.items() if k != gone},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(ng.NeuroglotError, match=r"lacks weights: .*h.1.mlp.c_proj.weight"):
        ng.load_model(folder)


def test_unknown_models_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ng.NeuroglotError, match="embedded/base, embedded/aligned"):
        ng.load_model("embedded/other")
    with pytest.raises(ng.NeuroglotError, match="cannot load model") as caught:
        ng.load_model(tmp_path / "nothing")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["tpu", "meta", "cuda:7", "nonsense"])
def test_devices_that_are_not_here(folder: Path, device: str) -> None:
    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ng.NeuroglotError, match=f"device='{device}': there is no such device here"):
        ng.load_model(folder, device=device)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int8", "nonsense"])
def test_types_that_nothing_can_be_computed_in(folder: Path, dtype: str) -> None:
    with pytest.raises(ng.NeuroglotError, match=f"dtype='{dtype}': expected 'auto', 'float32'"):
        ng.load_model(folder, dtype=dtype)


@pytest.mark.parametrize("changed", [{"n_head": 0}, {"n_embd": "16"}, {"model_type": 3}])
def test_configurations_that_make_no_sense(folder: Path, changed: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(ng.NeuroglotError, match="cannot load model"):
        ng.load_model(folder)


def test_a_model_is_shown_in_one_line() -> None:
    assert repr(tiny_model("gpt2")) == (
        "Model('tiny-gpt2', GPT2LMHeadModel, 3 layers of 20 neurons, float32 on cpu)"
    )


def test_pickled_weights_only_when_asked_for(folder: Path) -> None:
    state = tiny_hf("gpt2").state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(ng.NeuroglotError, match="allow_pickle"):
        ng.load_model(folder)
    assert ng.load_model(folder, allow_pickle=True).n_layers == 3


def test_an_encoder_decoder_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    T5Config(num_layers=1, d_model=16).save_pretrained(tmp_path)
    with pytest.raises(ng.NeuroglotError, match="T5Config describes an encoder-decoder"):
        ng.load_model(tmp_path)


def test_fingerprint_tells_checkpoints_apart() -> None:
    one, same, other = (ng.wrap_model(tiny_hf("gpt2", seed), tokenizer()) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_context_length_is_the_smallest_limit() -> None:
    assert ng.wrap_model(tiny_hf("gpt2"), tokenizer()).context_length == 48
    assert ng.wrap_model(tiny_hf("bloom"), tokenizer()).context_length is None


def test_dtype_auto_is_the_checkpoint_s_own(tmp_path: Path) -> None:
    tiny_hf("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    assert ng.load_model(tmp_path, device="cpu").hf.dtype == torch.float32
    by_default = ng.load_model(tmp_path)
    on_cpu = by_default.device.type == "cpu"
    assert by_default.hf.dtype == (torch.float32 if on_cpu else torch.bfloat16)
    assert ng.load_model(tmp_path, dtype="auto").hf.dtype == torch.bfloat16


def test_spread_over_devices_by_accelerate(folder: Path) -> None:
    pytest.importorskip("accelerate")
    model = ng.load_model(folder, device="auto")
    assert same_logits(model)
    task = small_task()
    expected = ng.record(ng.load_model(folder), task).dataset["active"]
    assert ng.record(model, task).dataset["active"].equals(expected)


def test_layers_on_the_disk_are_recorded(folder: Path, tmp_path: Path) -> None:
    """Accelerate brings weights in when a layer runs, so hooks see them as ever."""
    pytest.importorskip("accelerate")
    whole_parts = ("transformer.wte", "transformer.wpe", "transformer.ln_f", "lm_head")
    places: dict[str, Any] = dict.fromkeys(whole_parts, "cpu")
    places |= {f"transformer.h.{i}": "disk" if i else "cpu" for i in range(3)}
    hf = AutoModelForCausalLM.from_pretrained(
        folder, device_map=places, offload_folder=tmp_path / "offload"
    )
    model = ng.wrap_model(hf, tokenizer(), name="offloaded")
    assert same_logits(model)
    whole = ng.load_model(folder, device="cpu")  # where the other one runs
    task = small_task()
    for site in ("gate", "coefficient"):
        expected = ng.record(whole, task, reading=ng.Reading(site=site)).dataset["active"]
        assert (
            ng.record(model, task, reading=ng.Reading(site=site)).dataset["active"].equals(expected)
        )
    np.testing.assert_allclose(
        ng.evaluate(model, task)["log_prob"], ng.evaluate(whole, task)["log_prob"], atol=1e-4
    )
    with pytest.raises(ng.NeuroglotError, match="offloaded"):
        in_dtype(model, torch.bfloat16)
    with pytest.raises(ng.NeuroglotError, match=r"value vectors"):
        model.sites[1].value_vectors()


def test_what_the_hub_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Revision and token go to every part of a model, as Hugging Face users expect."""
    asked: list[dict[str, Any]] = []
    for part in (AutoConfig, AutoTokenizer, AutoModelForCausalLM):
        whole = part.from_pretrained

        def spy(source: Any, *, ask: Any = whole, **options: Any) -> Any:
            if source == "someone/gated":  # they also call each other
                asked.append(options)
            return ask(folder, **{k: v for k, v in options.items() if k != "revision"})

        monkeypatch.setattr(part, "from_pretrained", spy)
    model = ng.load_model("someone/gated", device="auto", revision="abc", token="hf_secret")
    assert [(o["revision"], o["token"], o["trust_remote_code"]) for o in asked] == [
        ("abc", "hf_secret", False)
    ] * 3
    assert asked[-1]["device_map"] == "auto"
    assert (model.name, model.revision) == ("someone/gated", "abc")
    assert "hf_secret" not in str(ng.record(model, small_task()).attrs)
