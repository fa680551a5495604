"""Scores beside what zeroing does, prompt by prompt and neuron by neuron."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

import neuroglot as ng
from tests.attribution.models import ids_of, log_prob_with, random_hf, random_model
from tests.testing import small_task

SCORES = ("contribution", "effective", "gradient_x_activation")
TASK = small_task(4)


@pytest.mark.parametrize("name", ["gpt2", "bloom", "llama", "opt", "gemma2"])
def test_effects_are_those_of_whole_prompts(name: str) -> None:
    found = ng.causal_agreement(random_model(name), TASK, scores=["effective"], n_neurons=4, seed=3)
    scores = ng.neuron_scores(random_model(name), TASK, score="effective").to_numpy()
    targets = ng.neuron_scores(random_model(name), TASK, score="effective")
    hf = random_hf(name)
    for i, item in enumerate(TASK.items):
        for j, language in enumerate(TASK.languages):
            row = 3 * i + j
            token, against = (
                int(str(targets[c][row].item()).removeprefix("w")) for c in ("token", "against")
            )
            n_fed = int(targets["fed"][row])
            words = [item["prompts"][language], *item["answers"][language].split()[:n_fed]]
            ids = ids_of(" ".join(words))
            for layer in range(3):
                for k in range(4):
                    neuron = int(found["neuron"][layer, k])

                    def zeroed(
                        this: int, values: torch.Tensor, layer: int = layer, neuron: int = neuron
                    ) -> torch.Tensor:
                        values = values.clone()
                        if this == layer:
                            values[:, neuron] = 0
                        return values

                    with torch.no_grad():
                        effect = sum(
                            sign * float(log_prob_with(hf, name, ids, t, change))
                            for sign, t, change in (
                                (1, token, lambda _, v: v),
                                (-1, against, lambda _, v: v),
                                (-1, token, zeroed),
                                (1, against, zeroed),
                            )
                        )
                    assert float(found["effect"][i, j, layer, k]) == pytest.approx(effect, abs=1e-4)
                    value = found["value"].sel(score="effective")[i, j, layer, k]
                    assert float(value) == pytest.approx(scores[row, layer, neuron], abs=1e-4)


def test_the_correlation_is_spearmans() -> None:
    task = small_task(12)  # fewer subjects have no interval
    found = ng.causal_agreement(random_model("llama"), task, scores=SCORES, n_neurons=12)
    for prefix, of in (("", lambda x: x), ("size_", np.abs)):
        for score in SCORES:
            for layer in range(3):
                by_item = [
                    np.mean(
                        [
                            stats.spearmanr(
                                of(found["value"].sel(score=score).values[i, j, layer]),
                                of(found["effect"].values[i, j, layer]),
                            ).statistic
                            for j in range(3)
                        ]
                    )
                    for i in range(12)
                ]
                one = found.sel(score=score, layer=layer)
                assert float(one[f"{prefix}agreement"]) == pytest.approx(np.mean(by_item))
                low, high = (float(one[f"{prefix}agreement_{end}"]) for end in ("low", "high"))
                assert min(by_item) <= low <= np.mean(by_item) <= high <= max(by_item)


def test_gradients_agree_with_small_effects() -> None:
    """Where zeroing changes little, the gradient times the value is the effect."""
    model = random_model("bloom")
    hf = ng.wrap_model(type(model.hf)(model.hf.config).eval(), model.tokenizer)  # small weights
    found = ng.causal_agreement(hf, TASK, scores=["gradient_x_activation", "contribution"])
    assert found.sizes["sample"] == 64
    assert (found["agreement"].sel(score="gradient_x_activation") > 0.99).all()
    assert (found["agreement"].sel(score="contribution") < 0.9).all()


def test_neurons_that_never_fire_have_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama")
    weight = model.hf.get_parameter("model.layers.1.mlp.up_proj.weight")
    monkeypatch.setattr(weight, "data", torch.zeros_like(weight))
    found = ng.causal_agreement(model, TASK, scores=["effective"], n_neurons=5)
    assert found["agreement"].isnull().values.tolist() == [[False, True, False]]


def test_seeds_batches_and_saving(tmp_path: Any) -> None:
    model = random_model("bloom")

    def found(model: ng.Model = model, **kwargs: Any) -> xr.Dataset:
        return ng.causal_agreement(model, TASK, scores=["effective"], n_neurons=6, **kwargs)

    first = found()
    xr.testing.assert_identical(found(), first)
    assert not first["neuron"].equals(found(seed=1)["neuron"])
    alone = found(model.with_batch_size(1)).drop_attrs()
    xr.testing.assert_allclose(
        alone[["effect", "value"]], first.drop_attrs()[["effect", "value"]], atol=1e-4
    )
    assert all(len(set(row)) == 6 for row in first["neuron"].values.tolist())
    ng.save(first, tmp_path / "r")
    xr.testing.assert_identical(ng.load(tmp_path / "r"), first)


def test_too_few_neurons() -> None:
    for n in (2, 0, 1.5, True):
        with pytest.raises(ng.NeuroglotError, match="needs at least 3"):
            ng.causal_agreement(random_model("llama"), TASK, n_neurons=n)  # type: ignore[arg-type]
    found = ng.causal_agreement(random_model("llama"), TASK, scores=["effective"], n_neurons=999)
    assert found.sizes["sample"] == 20, "at most all"


def test_half_precision_is_refused() -> None:
    model = random_model("llama")
    half = ng.wrap_model(copy.deepcopy(model.hf).to(torch.bfloat16), model.tokenizer)
    with pytest.raises(ng.NeuroglotError, match="in bfloat16 most effects"):
        ng.causal_agreement(half, TASK)


def test_seeds_are_whole_numbers() -> None:
    for seed in (-1, 1.5):
        with pytest.raises(ng.NeuroglotError, match="expected a whole number from 0"):
            ng.causal_agreement(random_model("llama"), TASK, seed=seed)  # type: ignore[arg-type]
