"""A model that gives NaN or infinity is told from one whose number type is too narrow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import neuroglot as ng
from neuroglot.attribution.targets import against_best_wrong
from neuroglot.models.finite import why_not_finite
from neuroglot.models.loading import EMBEDDED, _dtype
from neuroglot.running.writing import _Finite, _NotFiniteError
from tests.testing import small_task, tiny_hf, tokenizer

MENDED = "load it with dtype='bfloat16' or 'float32'"


def overflowing() -> Any:
    """A float16 model whose weights all fit, and the sums of whose last layer do not."""
    hf: Any = tiny_hf("llama").half()
    with torch.no_grad():
        hf.model.layers[2].mlp.down_proj.weight.mul_(1e3)
        hf.model.layers[2].mlp.up_proj.weight.mul_(1e3)
    assert all(bool(torch.isfinite(p).all()) for p in hf.parameters())
    return hf


def broken(value: float, dtype: torch.dtype) -> PreTrainedModel:
    hf: Any = tiny_hf("llama").to(dtype)
    with torch.no_grad():
        hf.model.layers[2].mlp.up_proj.weight[3, 4] = value
    return hf


def refusal(hf: PreTrainedModel) -> str:
    with pytest.raises(ng.NeuroglotError, match="the model's logits are NaN or infinite") as caught:
        ng.wrap_model(hf, tokenizer())
    return str(caught.value)


def test_sums_that_overflow_in_float16() -> None:
    said = refusal(overflowing())
    assert "sums overflow in float16, where they do not in bfloat16" in said
    assert "65,504" in said
    assert MENDED in said


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_the_message_advises_helps(dtype: torch.dtype) -> None:
    assert ng.wrap_model(overflowing().to(dtype), tokenizer()).n_layers == 3


def test_the_model_stays_as_it_is() -> None:
    hf = overflowing()
    before = {name: values.clone() for name, values in hf.state_dict().items()}
    why_not_finite(hf)
    after = hf.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {p.dtype for p in hf.parameters()} == {torch.float16}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_that_are_nan(dtype: torch.dtype) -> None:
    said = refusal(broken(float("nan"), dtype))
    assert "'model.layers.2.mlp.up_proj.weight' itself holds NaN" in said
    assert "no dtype mends it" in said


def test_weights_that_became_infinite_when_they_were_made_float16() -> None:
    said = refusal(broken(1e9, torch.float16))
    assert "'model.layers.2.mlp.up_proj.weight' itself holds NaN or infinity" in said
    assert MENDED in said
    assert "no dtype mends it" in refusal(broken(float("inf"), torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_no_dtype_mends(dtype: torch.dtype) -> None:
    hf: Any = tiny_hf("llama").to(dtype)
    hf.model.norm.register_forward_hook(lambda _module, _inputs, output: output / 0 * 0)
    said = why_not_finite(hf)
    assert "its weights are finite" in said
    assert "no other dtype mends it" in said
    assert "load it with" not in said


def test_what_cannot_be_found_out_is_not_said() -> None:
    """Quantised layers insist on the number type that they were made for."""
    hf = overflowing()
    hf.is_quantized = True
    said = why_not_finite(hf)
    assert "sums may overflow" in said
    assert MENDED in said


def test_edits_in_force_are_named() -> None:
    said = why_not_finite(overflowing(), edits=["Scale(1000) of 5 neurons"])
    assert "Scale(1000) of 5 neurons" in said
    assert "Scale" in why_not_finite(tiny_hf("llama"), edits=["Scale(1000) of 5 neurons"])


def overflows_on(word: int) -> ng.Model:
    """A float16 model that is well until it meets one word."""
    hf: Any = tiny_hf("llama").half()
    with torch.no_grad():
        hf.model.layers[0].post_attention_layernorm.weight.fill_(1)
    model = ng.wrap_model(hf, tokenizer(), name="narrow")
    with torch.no_grad():
        hf.model.layers[0].mlp.up_proj.weight.zero_()
        hf.model.layers[0].mlp.up_proj.weight[:, 0] = 3e4
        hf.model.layers[0].mlp.gate_proj.weight[:, 0] = 3e4
        hf.model.layers[0].self_attn.o_proj.weight.zero_()
        hf.model.embed_tokens.weight[:, 0] = 0
        hf.model.embed_tokens.weight[word, 0] = 50
    return model


def two_prompts(first: str, second: str) -> ng.ParallelTask:
    record = {
        "id": "i", "prompts": {"en": first, "de": second}, "answers": {"en": "w8", "de": "w8"},
        "choices": {"en": ["w8", "w9"], "de": ["w8", "w9"]},
    }  # fmt: skip
    return ng.ParallelTask.from_records([record], name="t")


def test_record_says_which_prompt_overflows_and_why() -> None:
    task = two_prompts("w3 w4 w5", "w3 w7")
    with pytest.raises(
        ng.NeuroglotError, match=r"'i' in 'de': layer 0 has NaN or infinite activations: .*sums ov"
    ) as caught:
        ng.record(overflows_on(7), task)
    assert MENDED in str(caught.value)


def test_evaluate_says_which_prompt_overflows_and_why() -> None:
    task = two_prompts("w3 w4 w5", "w3 w7")
    with pytest.raises(
        ng.NeuroglotError, match=r"'i' in 'de': the log-probability of a choice is .*sums overflow"
    ) as caught:
        ng.evaluate(overflows_on(7), task)
    assert MENDED in str(caught.value)


def test_record_tells_of_weights_that_broke_after_loading() -> None:
    hf: Any = tiny_hf("llama")
    model = ng.wrap_model(hf, tokenizer())
    with torch.no_grad():
        hf.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(ng.NeuroglotError, match=r"weight 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        ng.record(model, small_task())


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps", "xpu"])
def test_embedded_models_compute_in_float32_everywhere(device: str) -> None:
    where = torch.device(device)
    assert _dtype(None, where, embedded=True) == torch.float32
    assert _dtype("float16", where, embedded=True) == torch.float16
    assert _dtype("auto", where, embedded=True) == "auto"
    own = torch.float32 if device == "cpu" else "auto"
    assert _dtype(None, where, embedded=False) == own


def test_load_model_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, which the weights here never reach."""
    asked: list[Any] = []

    class EnoughError(Exception):
        pass

    def stop(*_args: Any, **options: Any) -> None:
        asked.append(options["dtype"])
        raise EnoughError

    monkeypatch.setattr("neuroglot.models.loading._device", lambda _device: torch.device("cuda"))
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", stop)
    for name in EMBEDDED:
        with pytest.raises(ng.NeuroglotError, match="EnoughError"):
            ng.load_model(name)
    assert asked == [torch.float32] * 2


def nan_on(word: int) -> ng.Model:
    """A model that is well until it meets one word, whose embedding is NaN."""
    hf: Any = tiny_hf("llama")
    model = ng.wrap_model(hf, tokenizer(), name="broken")
    with torch.no_grad():
        hf.model.embed_tokens.weight[word] = float("nan")
    return model


def written(first: str, second: str) -> ng.ParallelTask:
    """The same two prompts, answered by writing."""
    record = dict(two_prompts(first, second).items[0]) | {"choices": {}}
    return ng.ParallelTask.from_records([record], name="t")


def test_writing_says_which_prompt_overflows_and_why() -> None:
    with pytest.raises(
        ng.NeuroglotError, match=r"'i' in 'de': the logits of what is written next .*sums overflow"
    ) as caught:
        ng.evaluate(overflows_on(7), written("w3 w4 w5", "w3 w7"))
    assert MENDED in str(caught.value)


@pytest.mark.parametrize("target", ["prediction", "answer"])
@pytest.mark.parametrize("score", ["gradient_x_activation", "integrated_gradients"])
def test_gradients_name_the_prompt(target: str, score: str) -> None:
    with pytest.raises(ng.NeuroglotError, match=r"'i' in 'de': the logits are NaN .*embed_tokens"):
        ng.neuron_scores(nan_on(7), written("w3 w4", "w3 w7"), score=score, target=target)


def test_a_prediction_from_nan_is_refused() -> None:
    """The largest of NaN would be a token like any other."""
    with pytest.raises(ng.NeuroglotError, match=r"prompt 1: the logits are NaN .*embed_tokens"):
        ng.neuron_scores(nan_on(7), ["w3 w4", "w3 w7"], score="effective")


def test_causal_agreement_names_the_prompt() -> None:
    task = written("w3 w4", "w3 w7")
    with pytest.raises(ng.NeuroglotError, match=r"'i' in 'de': the logits are NaN .*embed_tokens"):
        ng.causal_agreement(nan_on(7), task, scores=["contribution"], target="answer", n_neurons=3)


def test_known_log_probabilities_that_are_nan_are_refused() -> None:
    log_prob = np.array([[[-1.0, -2.0], [-1.0, np.nan]]])
    with pytest.raises(ng.NeuroglotError, match=r"'i' in 'de': the log-probability of a choice"):
        against_best_wrong(nan_on(63), two_prompts("w3", "w4"), log_prob)


def test_what_one_neuron_says_is_refused() -> None:
    hf: Any = tiny_hf("llama")
    model = ng.wrap_model(hf, tokenizer())
    with torch.no_grad():
        hf.lm_head.weight[5, 5] = float("inf")
    with pytest.raises(
        ng.NeuroglotError, match=r"neuron 2 of layer 1 are NaN or infinite.*lm_head"
    ):
        ng.describe(model, layer=1, neuron=2)


def test_what_comes_after_the_end_of_a_text_is_not_looked_at() -> None:
    check = _Finite(2, [0, 9])
    logits = torch.zeros(3, 5)
    logits[1] = torch.nan
    ids = torch.tensor([[3, 3, 4, 5], [3, 3, 9, 0], [0, 0, 4, 4]])
    assert check(ids, logits) is logits
    logits[2, 3] = torch.inf
    with pytest.raises(_NotFiniteError) as caught:
        check(ids, logits)
    assert (caught.value.row, caught.value.written) == (2, [4, 4])
