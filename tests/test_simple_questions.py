"""Simple questions are one call each, and notebooks show what things are."""

from __future__ import annotations

import numpy as np
import pytest

import neuroglot as ng
from tests.testing import small_task, tiny_model

MODEL, TASK = tiny_model("llama"), small_task(24, "en de")


@pytest.fixture(scope="module")
def recording() -> ng.Recording:
    return ng.record(MODEL, TASK, reading=ng.Reading(keep_values=True))


def test_unpacked_activity(recording: ng.Recording) -> None:
    active = recording.active()
    assert active.dims == ("item", "language", "layer", "neuron")
    assert active.dtype == np.bool_
    values = recording.values.transpose(*active.dims)
    np.testing.assert_array_equal(active, values > 0)
    assert active["item"].values.tolist() == [item["id"] for item in TASK.items]
    np.testing.assert_array_equal(recording.active(items=slice(2, 5)), active[2:5])
    with pytest.raises(ng.NeuroglotError, match=r"threshold 0\.5 was not recorded"):
        recording.active(0.5)


def test_the_neurons_that_are_most_often_all_shared(recording: ng.Recording) -> None:
    sharing = ng.classify(recording)
    often = (recording.values > 0).all("language").mean("item").transpose("layer", "neuron").values
    found = ng.most_often(sharing, layer=1, n=5)
    order = sorted(range(often.shape[1]), key=lambda neuron: (-often[1, neuron], neuron))[:5]
    assert found["neuron"].tolist() == order
    assert found["layer"].tolist() == [1] * 5
    np.testing.assert_allclose(found["membership"], often[1, order])
    of_all = ng.most_often(sharing, n=often.size)
    assert len(of_all) == often.size
    assert of_all["membership"].is_monotonic_decreasing
    for _, layer, neuron, share in of_all.itertuples():
        assert often[layer, neuron] == pytest.approx(share)
    with pytest.raises(ng.NeuroglotError, match="unknown category 'shared'"):
        ng.most_often(sharing, category="shared")
    with pytest.raises(ng.NeuroglotError, match="layer=9"):
        ng.most_often(sharing, layer=9)


def test_what_notebooks_show(recording: ng.Recording) -> None:
    fixed = ng.NeuronSet.from_pairs([(0, 1), (1, 2)], MODEL, name="a <b> & c", chosen_on=["x"])
    own = ng.NeuronSet.active(recording)
    model, task, of_fixed, of_own, of_recording = (
        thing._repr_html_() for thing in (MODEL, TASK, fixed, own, recording)
    )
    for html in (model, task, of_fixed, of_own, of_recording):
        assert html.startswith("<table><caption>")
        assert html.count("<tr>") == html.count("</tr>") > 2
    assert "a &lt;b&gt; &amp; c" in of_fixed
    assert "2 of" in of_fixed
    assert "items chosen on</th><td style='text-align: left'>1<" in of_fixed
    assert "each prompt has its own" in of_own
    assert "LlamaForCausalLM" in model
    assert "first prompt, de" in task
    assert "en de" in of_recording


def test_one_table_and_one_figure(recording: ng.Recording) -> None:
    answers = ng.evaluate(MODEL, TASK)
    (table,) = ng.tables(answers)
    frame = table.frame().set_index("language")
    taught = answers["correct"].where(~answers["held_out"]).mean("item").to_series()
    np.testing.assert_allclose(frame["taught"], taught[frame.index], atol=1e-9)
    assert "<table>" in table._repr_html_()
    sharing = ng.classify(recording)
    chart = ng.plot(sharing, "fractions").to_dict()
    assert "vega-lite" in chart["$schema"]
    assert chart != ng.plot(sharing, "overlap").to_dict()
    assert ng.plot(answers).to_dict()["$schema"] == chart["$schema"]
    with pytest.raises(ng.NeuroglotError, match="there are"):
        ng.plot(sharing, "nothing")
    with pytest.raises(ng.NeuroglotError, match="of kind"):
        ng.plot(sharing["fraction"])
