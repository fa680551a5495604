"""Neurons, attention, embedding and biases add up to the logit, each as computed longhand."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import neuroglot as ng
from neuroglot.models.direct_path import find_direct_path
from neuroglot.models.finding import find_sites
from tests.attribution.models import (
    ATTENTION,
    FINAL_NORM,
    NAMES,
    coefficients,
    down,
    ids_of,
    random_hf,
    random_model,
    seeing,
    value_vectors,
)
from tests.families import FAMILIES, N_LAYERS, family_hf
from tests.testing import tokenizer

TEXTS = ["w3 w5 w7 w9", "w9", "w8 w2 w6 w11 w20 w4"]
TOKENS = [5, 40, 7]


def logits(hf: Any, text: str) -> np.ndarray:
    with torch.no_grad():
        found = hf(input_ids=ids_of(text).to(hf.device)).logits[0, -1]
    return np.asarray(found.double().cpu().numpy())


@pytest.mark.parametrize("name", NAMES)
def test_all_parts_are_the_logit(name: str) -> None:
    model = random_model(name)
    parts = ng.logit_parts(model, TEXTS, target=TOKENS)
    cap = getattr(model.hf.config, "final_logit_softcapping", None)
    for p, (text, token) in enumerate(zip(TEXTS, TOKENS, strict=True)):
        expected = logits(model.hf, text)[token]
        if cap:
            expected = cap * np.arctanh(expected / cap)
        assert float(parts["logit"][p]) == pytest.approx(expected, abs=2e-5)
        of_prompt = parts.isel(prompt=p)
        summed = sum(float(of_prompt[part].sum()) for part in parts if part != "logit")
        assert summed == pytest.approx(expected, abs=2e-5)


def frozen(name: str, seen: dict[str, tuple[Any, Any]], key: str, d: np.ndarray) -> np.ndarray:
    """The direction before a norm, by the formula of the family's norm, for its output's ``d``."""
    hf = random_hf(name)
    norm: Any = hf.get_submodule(key)
    x = seen[key][0].numpy()
    weight = norm.weight.detach().double().numpy()
    if name in ("gpt2", "bloom", "opt"):
        scaled = weight * d / np.sqrt(x.var() + norm.eps)
        return scaled - scaled.mean()
    weight = 1 + weight if name == "gemma2" else weight
    eps = norm.eps if name == "gemma2" else norm.variance_epsilon
    return weight * d / np.sqrt((x * x).mean() + eps)


@pytest.mark.parametrize("name", ["gpt2", "bloom", "llama", "opt", "gemma2"])
def test_each_part_is_what_its_module_adds(name: str) -> None:
    """Attention by its own output, neurons one by one, through norms written out."""
    hf, model = random_hf(name), random_model(name)
    parts = ng.logit_parts(model, TEXTS, target=TOKENS)
    scores = ng.neuron_scores(model, TEXTS, score="direct_logit", target=TOKENS)
    after = "model.layers.{i}.post_feedforward_layernorm"
    names = {f"attention{i}": ATTENTION[name].replace("{i}", str(i)) for i in range(N_LAYERS)}
    if name == "gemma2":
        names |= {after.replace("{i}", str(i)): after.replace("{i}", str(i)) for i in range(3)}
    names[FINAL_NORM[name]] = FINAL_NORM[name]
    modules = {key: hf.get_submodule(path) for key, path in names.items()}
    for p, (text, token) in enumerate(zip(TEXTS, TOKENS, strict=True)):
        with seeing(modules) as seen, torch.no_grad():
            hf(input_ids=ids_of(text))
        row: Any = hf.get_output_embeddings()
        end = frozen(name, seen, FINAL_NORM[name], row.weight[token].detach().double().numpy())
        m = coefficients(hf, name, text)
        for layer in range(N_LAYERS):
            attention = float(end @ seen[f"attention{layer}"][1].numpy())
            assert float(parts["attention"][p, layer]) == pytest.approx(attention, abs=2e-5)
            direction = end
            if name == "gemma2":
                direction = frozen(name, seen, after.replace("{i}", str(layer)), end)
            neurons = [
                m[layer, i] * float(direction @ vector)
                for i, vector in enumerate(value_vectors(hf, name, layer))
            ]
            np.testing.assert_allclose(scores[p, layer], neurons, rtol=1e-3, atol=2e-5)
            bias: Any = getattr(down(hf, name, layer), "bias", None)
            expected = 0.0 if bias is None else float(direction @ bias.detach().double().numpy())
            assert float(parts["ffn_bias"][p, layer]) == pytest.approx(expected, abs=2e-5)


def test_two_tokens_are_the_difference_of_their_logits() -> None:
    records = [
        {
            "id": "a",
            "prompts": {"en": "w3 w4", "de": "w5"},
            "choices": {"en": ["w6", "w7"], "de": ["w6 w8", "w6 w9"]},
            "answers": {"en": "w7", "de": "w6 w8"},
        }
    ]
    task = ng.ParallelTask.from_records(records, name="two")
    model = random_model("bloom")
    parts = ng.logit_parts(model, task)
    assert parts["fed"].values.tolist() == [0, 1]
    en, de = logits(model.hf, "w3 w4"), logits(model.hf, "w5 w6")
    assert float(parts["logit"][0]) == pytest.approx(en[7] - en[6], abs=2e-5)
    assert float(parts["logit"][1]) == pytest.approx(de[8] - de[9], abs=2e-5)


def test_what_is_on_the_way_is_measured() -> None:
    def path(name: str) -> Any:
        model = random_model(name)
        return find_direct_path(model.hf, model.sites)

    assert path("llama").scale == 1.0
    assert path("cohere").scale == pytest.approx(random_hf("cohere").config.logit_scale, rel=1e-4)
    granite = random_hf("granite").config
    assert path("granite").scale == pytest.approx(1 / granite.logits_scaling, rel=1e-4)
    assert {round(x.factor, 5) for x in path("granite").after} == {granite.residual_multiplier}
    assert path("gemma2").cap == 30.0
    assert all(after.norm is not None for after in path("gemma2").after)
    assert all(after == type(after)(None, 1.0) for after in path("gpt2").after)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("opt-350m", "takes vectors of 8, but the layers work with 16"),
        ("bert-decoder", "no norm between its last layer and its LM head"),
        ("modernbert-decoder", "no norm between its last layer and its LM head"),
    ],
)
def test_other_ways_are_refused(name: str, message: str) -> None:
    model = ng.wrap_model(family_hf(name), tokenizer())
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.neuron_scores(model, TEXTS, score="direct_logit", target=TOKENS)
    assert ng.neuron_scores(model, TEXTS, score="contribution").shape == (
        3,
        N_LAYERS,
        model.n_neurons,
    )
    assert (
        ng.neuron_scores(model, TEXTS, score="gradient_x_activation", target=TOKENS).notnull().all()
    )


def test_a_norm_over_the_sum_is_refused() -> None:
    """OPT with its norms after the residual stream, where nothing else is in the way."""
    config = FAMILIES["opt-350m"].config | {"word_embed_proj_dim": 16}
    torch.manual_seed(0)
    hf = transformers.OPTForCausalLM(transformers.OPTConfig(**config)).eval()
    model = ng.wrap_model(hf, tokenizer())
    with pytest.raises(ng.NeuroglotError, match=r"no norm between|does not just add"):
        ng.neuron_scores(model, TEXTS, score="direct_logit", target=TOKENS)


def test_a_tied_and_an_untied_head() -> None:
    for tied in (True, False):
        config = FAMILIES["llama"].config | {"tie_word_embeddings": tied}
        torch.manual_seed(1)
        hf = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
        assert (hf.lm_head.weight is hf.model.embed_tokens.weight) == tied
        parts = ng.logit_parts(ng.wrap_model(hf, tokenizer()), TEXTS, target=TOKENS)
        for p, (text, token) in enumerate(zip(TEXTS, TOKENS, strict=True)):
            expected = logits(hf, text)[token]
            assert float(parts["logit"][p]) == pytest.approx(expected, abs=1e-5)


def test_quantised_heads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama")
    monkeypatch.setattr(model.hf, "get_output_embeddings", lambda: None)
    with pytest.raises(ng.NeuroglotError, match="names no output embeddings"):
        ng.neuron_scores(model, TEXTS, score="effective", target=TOKENS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_factors_in_half_precision(dtype: torch.dtype) -> None:
    """A feed-forward network that is small beside its residual stream, as in Granite 3."""
    torch.manual_seed(0)
    config = transformers.GraniteConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, embedding_multiplier=12.0,
        residual_multiplier=0.22, logits_scaling=8.0, pad_token_id=0, eos_token_id=0,
        bos_token_id=0,
    )  # fmt: skip
    whole = transformers.GraniteForCausalLM(config).eval()
    half = copy.deepcopy(whole).to(dtype)
    exact = ng.neuron_scores(
        ng.wrap_model(whole, tokenizer()), TEXTS, score="direct_logit", target=TOKENS
    )
    found = ng.neuron_scores(
        ng.wrap_model(half, tokenizer()), TEXTS, score="direct_logit", target=TOKENS
    )
    for layer in range(4):
        one, other = exact.sel(layer=layer).to_numpy(), found.sel(layer=layer).to_numpy()
        assert float((one * other).sum() / (one * one).sum()) == pytest.approx(1, abs=0.1)


def test_what_rounding_hides_is_refused() -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**FAMILIES["llama"].config)
    hf = transformers.LlamaForCausalLM(config).eval()
    hf.model.embed_tokens.weight.data.mul_(1e5)
    for layer in hf.model.layers:
        layer.mlp.down_proj.weight.data.mul_(1e-3)
    hf = hf.to(torch.bfloat16)
    with pytest.raises(ng.NeuroglotError, match=r"lost in the rounding of the residual stream"):
        find_direct_path(hf, find_sites(hf))
