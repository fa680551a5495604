"""What became of each neuron, counted one at a time."""

from __future__ import annotations

import numpy as np
import pytest

import neuroglot as ng
from neuroglot.sharing.bits import CATEGORIES
from tests.testing import small_task, tiny_model


def two_recordings(
    architecture: str = "llama", **related: str
) -> tuple[ng.Recording, ng.Recording]:
    """Of two random models of one shape; ``related`` are attributes that both get."""
    task = small_task(7)
    found = [ng.record(tiny_model(architecture, seed), task) for seed in (0, 1)]
    one, other = (ng.Recording(x.dataset.assign_attrs(related)) for x in found)
    return one, other


@pytest.mark.parametrize("architecture", ["gpt2", "bloom", "llama"])
def test_flow_longhand(architecture: str) -> None:
    before, after = two_recordings(architecture)
    found = ng.category_flow(before, after, lineage=True)
    was, now = (ng.categories(x).to_numpy() for x in (before, after))
    for layer in range(3):
        for i in range(4):
            for j in range(4):
                share = ((was[:, layer] == i) & (now[:, layer] == j)).mean()
                cell = found.sel(layer=layer, category=CATEGORIES[i], category_after=CATEGORIES[j])
                assert float(cell) == pytest.approx(share)
    np.testing.assert_allclose(found.sum(["category", "category_after"]), 1)
    same = ng.category_flow(before, before)
    assert float(same.sum()) == pytest.approx(3)
    for name in CATEGORIES:
        np.testing.assert_allclose(
            same.sel(category=name, category_after=name),
            same.sel(category=name).sum("category_after"),
        )


def test_margins_are_the_fractions() -> None:
    before, after = two_recordings()
    found = ng.category_flow(before, after, lineage=True)
    for side, recording in (("category_after", before), ("category", after)):
        fraction = ng.classify(recording)["fraction"].mean("item")
        np.testing.assert_allclose(found.sum(side).to_numpy(), fraction.to_numpy())


def test_without_lineage_it_is_refused() -> None:
    before, after = two_recordings()
    with pytest.raises(ng.NeuroglotError, match="lineage=True"):
        ng.category_flow(before, after)
    ng.category_flow(*two_recordings(model_lineage="a common"))
    weights = str(before.attrs["model_weights"])
    child = ng.Recording(after.dataset.assign_attrs(model_lineage=f"older {weights}"))
    ng.category_flow(before, child)


def test_the_embedded_models_continue_one_checkpoint() -> None:
    task = ng.load_task("facts", limit=3)
    before, after = (
        ng.record(ng.load_model(f"embedded/{name}"), task) for name in ("base", "aligned")
    )
    assert ng.category_flow(before, after).sizes["layer"] == 6


def test_recordings_that_differ_are_refused() -> None:
    before, after = two_recordings()
    cases = {
        "items": after.select(items=3),
        "languages": after.select(languages=["en", "th"]),
        "layers": ng.record(tiny_model("llama"), small_task(7), reading=ng.Reading(layers=[0])),
        "site": ng.record(
            tiny_model("llama"), small_task(7), reading=ng.Reading(site="coefficient")
        ),
    }
    for what, other in cases.items():
        with pytest.raises(ng.NeuroglotError, match=what):
            ng.category_flow(before, other, lineage=True)
    with pytest.raises(ng.NeuroglotError, match=r"threshold 0\.5 was not recorded"):
        ng.category_flow(before, after, threshold=0.5, lineage=True)
