"""What depends on rounding is counted, and nothing else is."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import neuroglot as ng
from neuroglot.models.convert import in_dtype
from neuroglot.recording.recording import Recording
from neuroglot.reporting.kinds.fragility import fragility_by_layer
from neuroglot.sharing.flips import compare_values
from tests.families import GROUPED, SIZES, TOKENS, build
from tests.testing import ARCHITECTURES, longhand_categories, small_task, tiny_model, tokenizer

# The function of the same name hides the module.
experiment = importlib.import_module("neuroglot.comparison.fragility")


def shifted(recording: Recording, by: xr.DataArray | float) -> Recording:
    return Recording(recording.dataset.assign(values=recording.values + by))


@pytest.fixture
def recording() -> Recording:
    return ng.record(tiny_model("llama"), small_task(), reading=ng.Reading(keep_values=True))


def test_flips_are_counted_longhand(recording: Recording) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, recording.values.shape)
    other = shifted(recording, xr.zeros_like(recording.values) + noise)
    found = compare_values(recording, {"noise": other}, 0.1).sel(comparison="noise")
    one, changed = recording.values.values, other.values.values
    for layer in range(3):
        flips, category_flips, margins = 0, 0, []
        for item in range(5):
            for neuron in range(20):
                k = [0, 0]
                for language in range(3):
                    pair = (
                        one[item, language, layer, neuron],
                        changed[item, language, layer, neuron],
                    )
                    k[0] += pair[0] > 0.1
                    k[1] += pair[1] > 0.1
                    if (pair[0] > 0.1) != (pair[1] > 0.1):
                        flips += 1
                        margins.append(abs(pair[0] - 0.1))
                # With three languages: none, one, two, three are four categories.
                category_flips += k[0] != k[1]
        here = found.sel(layer=layer)
        assert int(here["n_category_flips"]) == category_flips > 0
        assert float(here["category_flips"]) == pytest.approx(category_flips / 100)
        assert float(here["activity_flips"]) == pytest.approx(flips / 300)
        assert float(here["margin_largest"]) == pytest.approx(max(margins))
        assert float(here["margin_median"]) == pytest.approx(np.median(margins))
        assert float(here["value_median"]) == pytest.approx(np.median(abs(one[:, :, layer] - 0.1)))
        difference = abs(one[:, :, layer] - changed[:, :, layer]).max()
        assert float(here["difference_largest"]) == pytest.approx(difference)


def test_nothing_flips_between_equals(recording: Recording) -> None:
    found = compare_values(recording, {"same": recording})
    assert (found["n_category_flips"] == 0).all()
    assert found["margin_largest"].isnull().all()
    assert fragility_by_layer(found).to_dict()


def test_only_rounding_may_differ(recording: Recording) -> None:
    fewer = recording.select(items=3)
    with pytest.raises(ng.NeuroglotError, match="'fewer' differs from the reference in items"):
        compare_values(recording, {"fewer": fewer})
    coefficient = ng.record(
        tiny_model("llama"), small_task(), reading=ng.Reading(site="coefficient", keep_values=True)
    )
    with pytest.raises(ng.NeuroglotError, match="in site"):
        compare_values(recording, {"other": coefficient})
    with pytest.raises(ng.NeuroglotError, match="keep_values=True"):
        compare_values(recording, {"bits": ng.record(tiny_model("llama"), small_task())})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_models_beside_themselves(architecture: str, tmp_path: Path) -> None:
    model, task = tiny_model(architecture), small_task(12)
    found = ng.fragility(model, task)
    assert [str(name) for name in found["comparison"].values] == ["other batch size", "bfloat16"]
    batches, types = (found.sel(comparison=name) for name in found["comparison"].values)
    assert (batches["difference_largest"] < 1e-4).all()
    assert (types["difference_largest"] > 1e-4).all()
    # What flips is nearer to the threshold than the values differ.
    flipped = types["margin_largest"].fillna(0)
    assert (flipped <= types["difference_largest"]).all()
    assert model.hf.dtype == torch.float32
    ng.save(found, tmp_path / "f")
    xr.testing.assert_identical(ng.load(tmp_path / "f"), found)
    page = ng.report({"tiny": found}, out=tmp_path / "page.html", figures=tmp_path / "figures")
    assert page.exists()
    assert (tmp_path / "figures" / "fragility-tiny.png").exists()
    # The categories that it starts from are the oracle's.
    values = ng.record(model.with_batch_size(1), task, reading=ng.Reading(keep_values=True))
    expected = longhand_categories(model, task, "gate")
    np.testing.assert_array_equal(ng.categories(values), expected)


def test_one_thing_is_changed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(model: ng.Model, task: ng.ParallelTask, **options: Any) -> Recording:
        seen.append((model.batch_size, model.hf.dtype))
        return ng.record(model, task, **options)

    monkeypatch.setattr(experiment, "record", spy)
    ng.fragility(tiny_model("gpt2"), small_task(3))
    full, half = torch.float32, torch.bfloat16
    assert seen == [(1, full), (8, full), (1, half)]


def test_converted_as_if_loaded(tmp_path: Path) -> None:
    """Weights in bfloat16, but buffers that stay in full precision stay."""
    model = tiny_model("llama")
    model.hf.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    loaded = ng.load_model(tmp_path, dtype="bfloat16")
    half = in_dtype(ng.load_model(tmp_path), torch.bfloat16)
    ids = torch.tensor([[2, 5, 9]], device=half.device)
    with torch.no_grad():
        assert torch.equal(half.hf(ids).logits, loaded.hf(ids).logits)
    assert half.hf.model.rotary_emb.inv_freq.dtype == torch.float32
    assert half.sites[0].down is half.hf.model.layers[0].mlp.down_proj
    back = ng.fragility(half, small_task(3))
    assert str(back["comparison"].values[1]) == "float32"


def test_a_class_that_auto_classes_do_not_know_is_converted() -> None:
    config = SIZES | TOKENS | GROUPED
    model = ng.wrap_model(build("Emu3ForCausalLM", config), tokenizer())
    half = in_dtype(model, torch.bfloat16)
    assert type(half.hf) is type(model.hf)
    assert half.dtype == "bfloat16"


def test_other_number_types_are_refused() -> None:
    model = in_dtype(tiny_model("llama"), torch.float64)
    with pytest.raises(ng.NeuroglotError, match="the model is in float64; load it"):
        ng.fragility(model, small_task(3))
