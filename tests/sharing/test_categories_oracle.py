"""The main promise: categories agree exactly with a longhand oracle."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import neuroglot as ng
from tests.testing import ARCHITECTURES, longhand_categories, small_task, tiny_model, tokenizer

SITES = ("gate", "coefficient")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("position", ["last", "all"])
def test_categories_agree_for_every_batching(architecture: str, site: str, position: str) -> None:
    task = small_task()
    model = tiny_model(architecture)
    expected = longhand_categories(model, task, site, position)
    assert len(np.unique(expected)) >= 3, "the oracle must see the categories differ"
    for side in ("left", "right"):
        padded = copy.copy(tokenizer())
        padded.padding_side = side
        sided = ng.wrap_model(model.hf, padded)
        for batch_size in (1, 3, 16, "auto"):
            recording = ng.record(
                sided.with_batch_size(batch_size),
                task,
                reading=ng.Reading(site=site, position=position),
            )
            found = ng.categories(recording)
            np.testing.assert_array_equal(found.values, expected, f"{side}, {batch_size}")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_thresholds_agree(architecture: str) -> None:
    task, model = small_task(3), tiny_model(architecture)
    recording = ng.record(model, task, reading=ng.Reading(thresholds=(0.0, 0.1, 0.5)))
    for tau in (0.0, 0.1, 0.5):
        expected = longhand_categories(model, task, "gate", tau=tau)
        np.testing.assert_array_equal(ng.categories(recording, threshold=tau).values, expected)


def test_two_languages_have_no_partial_shared() -> None:
    task = small_task(languages="en de")
    recording = ng.record(tiny_model("llama"), task)
    expected = longhand_categories(tiny_model("llama"), task, "gate")
    found = ng.categories(recording)
    np.testing.assert_array_equal(found.values, expected)
    assert not (found == found.attrs["partial_shared"]).any()


def test_items_select_and_codes_are_named() -> None:
    recording = ng.record(tiny_model("bloom"), small_task())
    every = ng.categories(recording)
    some = ng.categories(recording, items=["item3", "item1"])
    np.testing.assert_array_equal(some.values, every.sel(item=["item3", "item1"]).values)
    names = ("non_activated", "specific", "partial_shared", "all_shared")
    assert [every.attrs[name] for name in names] == [0, 1, 2, 3]
    assert every.dtype == np.uint8
