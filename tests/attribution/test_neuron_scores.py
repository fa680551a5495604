"""Scores of single neurons, against longhand computation prompt by prompt."""

from __future__ import annotations

import copy
import dataclasses
import gc

import numpy as np
import pytest
import torch

import neuroglot as ng
from neuroglot.attribution.neuron_scores import SCORES
from tests.attribution.models import (
    NAMES,
    coefficients,
    ids_of,
    log_prob_with,
    random_hf,
    random_model,
    value_vectors,
)
from tests.families import FAMILIES, build
from tests.testing import small_task, tokenizer

TEXTS = ["w3 w5 w7 w9", "w9", "w8 w2 w6 w11 w20 w4", "w30 w31"]
TOKENS = [5, 40, 7, 9]
families = pytest.mark.parametrize("name", NAMES)
scores = pytest.mark.parametrize("score", SCORES)


def unembedding(model: ng.Model) -> np.ndarray:
    return model.hf.get_output_embeddings().weight.detach().double().numpy()


@families
def test_contribution_is_size_times_length(name: str) -> None:
    model = random_model(name)
    found = ng.neuron_scores(model, TEXTS, score="contribution")
    for p, text in enumerate(TEXTS):
        m = coefficients(model.hf, name, text)
        for layer in range(model.n_layers):
            for i, vector in enumerate(value_vectors(model.hf, name, layer)):
                expected = abs(m[layer, i]) * sum(x * x for x in vector) ** 0.5
                assert found[p, layer, i] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert found.attrs["target"] == "none"
    assert set(found["token"].values) == {""}


@families
def test_effective_scores_add_up_to_what_the_ffn_says(name: str) -> None:
    """Each is ``e_w . m_i v_i``; together they are ``e_w . (FFN(x) - bias)``."""
    model = random_model(name)
    found = ng.neuron_scores(model, TEXTS, score="effective", target=TOKENS)
    assert found.dtype == np.float32
    for p, (text, token) in enumerate(zip(TEXTS, TOKENS, strict=True)):
        e = unembedding(model)[token]
        m = coefficients(model.hf, name, text)
        for layer in range(model.n_layers):
            vectors = value_vectors(model.hf, name, layer)
            expected = [m[layer, i] * float(e @ vector) for i, vector in enumerate(vectors)]
            np.testing.assert_allclose(found[p, layer], expected, rtol=1e-4, atol=1e-5)
            ffn = m[layer] @ vectors
            assert float(found[p, layer].sum()) == pytest.approx(float(e @ ffn), abs=1e-4)


@families
def test_gradient_x_activation_is_a_small_change(name: str) -> None:
    """The score of a neuron is its value times the slope, found by moving it a little each way."""
    model, double = random_model(name), random_hf(name, double=True)
    found = ng.neuron_scores(model, TEXTS, score="gradient_x_activation", target=TOKENS)
    step = 3e-3  # some norms compute in single precision, whatever they are given
    for p, (text, token) in enumerate(zip(TEXTS, TOKENS, strict=True)):
        m = coefficients(double, name, text)
        for layer, i in [(0, 3), (1, 0), (1, 7), (2, 19)]:

            def change(
                this: int, values: torch.Tensor, layer: int = layer, i: int = i
            ) -> torch.Tensor:
                values = values.clone()
                values[:, i] += torch.tensor([step, -step]) if this == layer else 0.0
                return values

            with torch.no_grad():
                both = log_prob_with(double, name, ids_of(text).expand(2, -1), token, change)
            slope = float(both[0] - both[1]) / (2 * step)
            assert float(found[p, layer, i]) == pytest.approx(
                m[layer, i] * slope, rel=1e-2, abs=5e-4
            )


@pytest.mark.parametrize("name", ["gpt2", "bloom", "llama", "opt"])
def test_integrated_gradients_are_a_long_sum(name: str) -> None:
    """A midpoint rule of many steps in double precision, whole prompts, no cache."""
    model, double = random_model(name), random_hf(name, double=True)
    found = ng.neuron_scores(model, TEXTS, score="integrated_gradients", target=TOKENS)
    n = 400
    alphas = ((torch.arange(n) + 0.5) / n).double()
    for p, (text, token) in enumerate(zip(TEXTS, TOKENS, strict=True)):
        m = torch.from_numpy(coefficients(double, name, text))
        for layer in range(model.n_layers):
            at = (alphas[:, None] * m[layer]).requires_grad_()

            def change(
                this: int, values: torch.Tensor, at: torch.Tensor = at, layer: int = layer
            ) -> torch.Tensor:
                return at if this == layer else values

            ids = ids_of(text).expand(n, -1)
            (slopes,) = torch.autograd.grad(
                log_prob_with(double, name, ids, token, change).sum(), [at]
            )
            expected = (m[layer] * slopes.mean(dim=0)).numpy()
            np.testing.assert_allclose(found[p, layer], expected, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("name", [name for name in NAMES if not FAMILIES[name].norm_after])
def test_integrated_gradients_are_complete(name: str) -> None:
    """The scores of a layer sum to what zeroing its coefficients takes off the log-probability.

    ReLU leaves kinks on the way, over which a rule of few points is less exact.
    """
    model = random_model(name)
    found = ng.neuron_scores(model, TEXTS, score="integrated_gradients", target=TOKENS)
    for p, (text, token) in enumerate(zip(TEXTS, TOKENS, strict=True)):
        for layer in range(model.n_layers):

            def zeroed(this: int, values: torch.Tensor, layer: int = layer) -> torch.Tensor:
                return values * 0 if this == layer else values

            with torch.no_grad():
                whole = log_prob_with(model.hf, name, ids_of(text), token, lambda _, v: v)
                without = log_prob_with(model.hf, name, ids_of(text), token, zeroed)
            difference = float(whole - without)
            allowed = 0.02 * float(np.abs(found[p, layer]).sum()) + 1e-4
            assert float(found[p, layer].sum()) == pytest.approx(difference, abs=allowed)


@pytest.mark.parametrize("name", [name for name in NAMES if FAMILIES[name].norm_after])
def test_no_integrated_gradients_through_a_norm(name: str) -> None:
    with pytest.raises(ng.NeuroglotError, match="a norm after its feed-forward networks"):
        ng.neuron_scores(random_model(name), TEXTS, score="integrated_gradients", target=TOKENS)


@scores
@pytest.mark.parametrize("name", ["gpt2", "bloom", "llama", "opt", "gemma2"])
def test_batches_padding_and_order_change_nothing(name: str, score: str) -> None:
    model = random_model(name)
    if score == "integrated_gradients" and model.norm_after_ffn:
        return
    expected = ng.neuron_scores(model.with_batch_size(1), TEXTS, score=score, target=TOKENS).values
    for side in ("left", "right"):
        chosen = ng.Tokenization(padding_side=side)
        padded = ng.wrap_model(model.hf, model.tokenizer, tokenization=chosen)
        for size in (2, "auto"):
            found = ng.neuron_scores(
                padded.with_batch_size(size), TEXTS, score=score, target=TOKENS
            ).values
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5)
    backwards = ng.neuron_scores(model, TEXTS[::-1], score=score, target=TOKENS[::-1]).values
    np.testing.assert_allclose(backwards[::-1], expected, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("score", ["gradient_x_activation", "integrated_gradients"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom", "opt"])
def test_a_shared_cache_changes_nothing(name: str, score: str) -> None:
    texts, tokens = TEXTS[:1] + TEXTS[2:], TOKENS[:1] + TOKENS[2:]  # of more than one token
    model = random_model(name)
    assert model.shares_cache
    found = ng.neuron_scores(model, texts, score=score, target=tokens)
    without = dataclasses.replace(model, shares_cache=False)
    whole = ng.neuron_scores(without, texts, score=score, target=tokens)
    np.testing.assert_allclose(found, whole, rtol=1e-3, atol=2e-5)


@scores
def test_nothing_is_left_behind(score: str) -> None:
    """No tensor, no hook, no gradient: counted over 50 calls."""
    model = random_model("llama")
    weights = list(model.hf.parameters())
    assert all(weight.requires_grad for weight in weights)

    def alive() -> int:
        gc.collect()
        return sum(isinstance(x, torch.Tensor) for x in gc.get_objects())

    ng.neuron_scores(model, TEXTS[:2], score=score, target=TOKENS[:2])
    before = alive()
    for _ in range(50):
        ng.neuron_scores(model, TEXTS[:2], score=score, target=TOKENS[:2])
    assert alive() <= before
    assert all(weight.requires_grad and weight.grad is None for weight in weights)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())


def test_weights_that_were_fixed_stay_fixed() -> None:
    model = random_model("bloom")
    some = list(model.hf.parameters())[::2]
    for weight in some:
        weight.requires_grad = False
    try:
        ng.neuron_scores(model, TEXTS, score="gradient_x_activation", target=TOKENS)
        assert [w.requires_grad for w in model.hf.parameters()][:4] == [False, True, False, True]
    finally:
        for weight in some:
            weight.requires_grad = True


def test_under_no_grad_and_inference_mode() -> None:
    """Gradients are asked for, whatever the caller has switched off."""
    model = random_model("llama")
    expected = ng.neuron_scores(model, TEXTS, score="gradient_x_activation", target=TOKENS)
    with torch.no_grad():
        assert ng.neuron_scores(model, TEXTS, score="gradient_x_activation", target=TOKENS).equals(
            expected
        )
    with torch.inference_mode():
        assert ng.neuron_scores(model, TEXTS, score="gradient_x_activation", target=TOKENS).equals(
            expected
        )


def test_scores_of_a_task_are_labelled() -> None:
    task = small_task(4)
    found = ng.neuron_scores(random_model("llama"), task, score="effective")
    assert found.dims == ("prompt", "layer", "neuron")
    assert found["item"].values[:4].tolist() == ["item0"] * 3 + ["item1"]
    assert found["language"].values[:4].tolist() == ["en", "de", "th", "en"]
    assert found.attrs["target"] == "correct_minus_best_wrong"
    assert found.attrs["task"] == "small"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"score": "effekt"}, "unknown score 'effekt'; there are contribution"),
        ({"target": "reply"}, "unknown target 'reply'; there are answer"),
        ({"target": "answer"}, "'answer' needs a task"),
        ({"target": [1]}, "1 target tokens for 2 prompts"),
        ({"target": [1, 64]}, "target 64 of prompt 1: expected a token id from 0 to 63"),
        ({"target": [1, -1]}, "target -1 of prompt 1"),
        ({"target": 5}, "target=5: expected one token id for each prompt"),
        ({"target": ["w3", 4]}, "target 'w3' of prompt 0: expected a token id"),
        ({"target": [5.9, 4]}, "target 5.9 of prompt 0"),
        ({"target": [True, 4]}, "target True of prompt 0"),
        ({"prompts": "w1"}, "prompts is one text; expected a list"),
        ({"prompts": []}, "there are no prompts"),
        ({"prompts": ["w1", ""]}, "prompt 1 has no tokens"),
    ],
)
def test_what_cannot_be_scored(kwargs: dict[str, object], message: str) -> None:
    asked = {"prompts": ["w1 w2", "w3"], "score": "effective"} | kwargs
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.neuron_scores(random_model("llama"), **asked)  # type: ignore[arg-type]


def test_a_task_has_no_token_ids() -> None:
    with pytest.raises(ng.NeuroglotError, match="takes the name of a target"):
        ng.neuron_scores(random_model("llama"), small_task(2), score="effective", target=[1, 2])


def test_overflow_is_an_error() -> None:
    model = random_model("llama")
    half = ng.wrap_model(copy.deepcopy(model.hf).to(torch.float16), model.tokenizer, name="half")
    half.hf.get_parameter("model.layers.1.mlp.up_proj.weight").data.fill_(6e4)
    for score in SCORES:
        with pytest.raises(ng.NeuroglotError, match="NaN or infinite"):
            ng.neuron_scores(half, TEXTS, score=score, target=TOKENS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("score", SCORES)
def test_quantised_weights(score: str) -> None:
    quantization = pytest.importorskip("torch.ao.quantization", reason="PyTorch has moved it")
    hf = quantization.quantize_dynamic(
        build(FAMILIES["llama"].architecture, FAMILIES["llama"].config),
        {torch.nn.Linear},
        dtype=torch.qint8,
    )
    model = ng.wrap_model(hf, tokenizer())
    with pytest.raises(ng.NeuroglotError, match=r"floating-point weights|quantised|no gradient"):
        ng.neuron_scores(model, TEXTS, score=score, target=TOKENS)


def test_sums_take_the_same_room_for_any_number_of_items() -> None:
    model = random_model("llama")
    sizes = set()
    for n in (2, 9):
        task = small_task(n)
        found = ng.attribute(model, task, recording=ng.record(model, task), scores=["effective"])
        sizes.add(found.drop_vars("item").nbytes)
    assert len(sizes) == 1
