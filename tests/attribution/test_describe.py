"""What one neuron says and when, from the weights and bits themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import neuroglot as ng
from tests.attribution.models import random_hf, random_model, value_vectors
from tests.testing import small_task

TASK = small_task(6)


@pytest.mark.parametrize("name", ["gpt2", "bloom", "llama", "opt", "gemma2"])
def test_tokens_are_ranked_by_the_unembedding(name: str) -> None:
    found = ng.describe(random_model(name), layer=2, neuron=5, k=3)
    vector = value_vectors(random_hf(name), name, 2)[5]
    head: Any = random_hf(name).get_output_embeddings()
    logits = [float(row @ vector) for row in head.weight.detach().double().numpy()]
    order = sorted(range(len(logits)), key=lambda token: logits[token])
    tokens = random_model(name).tokenizer.convert_ids_to_tokens
    assert [token for token, _ in found.promoted] == tokens(order[::-1][:3])
    assert [token for token, _ in found.suppressed] == tokens(order[:3])
    assert found.promoted[0][1] == pytest.approx(max(logits), rel=1e-4)
    assert found.suppressed[0][1] == pytest.approx(min(logits), rel=1e-4)
    assert found.length == pytest.approx(np.linalg.norm(vector), rel=1e-4)
    assert found.activity is None


def test_activity_is_that_of_the_recording() -> None:
    model = random_model("llama")
    recording = ng.record(model, TASK, reading=ng.Reading(keep_values=True, layers=[0, 2]))
    codes = ng.categories(recording)
    values = recording.values.sel(layer=2)
    for neuron in range(model.n_neurons):
        found = ng.describe(model, layer=2, neuron=neuron, recording=recording, k=4).activity
        assert found is not None
        one = values.isel(neuron=neuron)
        assert found.by_language == dict(
            zip(TASK.languages, (one > 0).mean("item").values.tolist(), strict=True)
        )
        for name in ("non_activated", "specific", "partial_shared", "all_shared"):
            expected = (codes.sel(layer=2, neuron=neuron) == codes.attrs[name]).mean()
            assert found.by_category[name] == pytest.approx(float(expected))
        greatest = sorted(one.values.ravel().tolist(), reverse=True)[:4]
        assert [value for _, _, value in found.strongest] == greatest
        item, language, value = found.strongest[0]
        assert float(one.sel(item=item, language=language)) == value


def test_printed() -> None:
    model = random_model("llama")
    text = str(ng.describe(model, layer=1, neuron=3, recording=ng.record(model, TASK), k=2))
    lines = text.splitlines()
    assert lines[0].startswith("layer 1, neuron 3 (length of its value vector ")
    starts = ["promotes", "suppresses", "active in", "category", "(by", "strongest"]
    assert [line.split()[0] for line in lines[1:]] == [start.split()[0] for start in starts]
    assert lines[3].count("%") == 3
    assert "with a negative coefficient it does the opposite" in lines[5]
    assert "values were not kept" in lines[6]
    coefficients = ng.record(model, TASK, reading=ng.Reading(site="coefficient"))
    assert "opposite" not in str(ng.describe(model, layer=1, neuron=3, recording=coefficients))


@pytest.mark.parametrize(
    ("layer", "neuron", "kwargs", "message"),
    [
        (3, 0, {}, "layer=3: expected a number from 0 to 2"),
        (-1, 0, {}, "layer=-1"),
        (0, 20, {}, "neuron=20: expected a number from 0 to 19"),
        (0, 1.0, {}, "neuron=1.0"),
        (0, 0, {"k": 0}, "k=0: expected at least 1"),
    ],
)
def test_no_such_neuron(layer: Any, neuron: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.describe(random_model("llama"), layer=layer, neuron=neuron, **kwargs)


def test_recordings_that_do_not_say() -> None:
    model = random_model("llama")
    with pytest.raises(ng.NeuroglotError, match="with other weights"):
        ng.describe(random_model("bloom"), layer=0, neuron=0, recording=ng.record(model, TASK))
    with pytest.raises(ng.NeuroglotError, match="holds the layers 1, not 0"):
        ng.describe(
            model,
            layer=0,
            neuron=0,
            recording=ng.record(model, TASK, reading=ng.Reading(layers=[1])),
        )
    with pytest.raises(ng.NeuroglotError, match=r"threshold 0.0 was not recorded"):
        ng.describe(
            model,
            layer=0,
            neuron=0,
            recording=ng.record(model, TASK, reading=ng.Reading(thresholds=0.5)),
        )
