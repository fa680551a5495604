"""Sets of neurons: their algebra, their files, and what is drawn like them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import neuroglot as ng
from neuroglot.neurons.members import Prompts, written_down
from neuroglot.sharing.bits import unpack
from neuroglot.sharing.categories import categories
from tests.testing import small_task, tiny_model

SHAPE, WIDTHS = (3, 19), (19, 5, 16)
THERE = np.arange(SHAPE[1]) < np.array(WIDTHS)[:, None]
PROMPTS = [("a", "en"), ("a", "de"), ("b", "en")]
masks = arrays(np.bool_, SHAPE)
sets = masks.map(lambda mask: ng.NeuronSet(mask, "some"))
sets_of_prompts = st.lists(masks, min_size=3, max_size=3).map(
    lambda some: ng.NeuronSet.of_prompts(dict(zip(PROMPTS, some, strict=True)), "own")
)
sets_of_any_kind = sets | sets_of_prompts


def ragged(mask: np.ndarray) -> ng.NeuronSet:
    """The same in every prompt, of a model whose layers differ in width."""
    return ng.NeuronSet(mask & THERE, "ragged", widths=WIDTHS)


def ragged_of_prompts(some: Sequence[np.ndarray]) -> ng.NeuronSet:
    packed = np.packbits(np.stack(some) & THERE, axis=-1)
    return ng.NeuronSet(written_down(packed, PROMPTS, WIDTHS), "ragged, own")


ragged_sets = masks.map(ragged) | st.lists(masks, min_size=3, max_size=3).map(ragged_of_prompts)


def places(neurons: ng.NeuronSet) -> set[tuple[int, int]]:
    """Python's own sets know the algebra."""
    return {(int(layer), int(neuron)) for layer, neuron in np.argwhere(neurons.mask)}


EVERY = {(layer, neuron) for layer in range(SHAPE[0]) for neuron in range(SHAPE[1])}


@given(sets, sets, sets)
def test_the_algebra_is_that_of_sets(a: ng.NeuronSet, b: ng.NeuronSet, c: ng.NeuronSet) -> None:
    one, two = places(a), places(b)
    assert places(a | b) == one | two
    assert places(a & b) == one & two
    assert places(a - b) == one - two
    assert places(~a) == EVERY - one
    assert len(a) == len(one)
    assert sum(a.sizes) == len(one)
    assert a.sizes == tuple(sum(layer == i for layer, _ in one) for i in range(SHAPE[0]))
    assert ~(a | b) == ~a & ~b
    assert a - (b | c) == (a - b) - c
    assert (a == b) == (one == two)
    assert hash(a & b) == hash(b & a)


@given(sets_of_any_kind, sets_of_any_kind, sets_of_any_kind)
def test_the_algebra_of_sets_of_prompts(a: ng.NeuronSet, b: ng.NeuronSet, c: ng.NeuronSet) -> None:
    one, two = a.masks_of(PROMPTS), b.masks_of(PROMPTS)
    for found, expected in (
        (a | b, one | two),
        (a & b, one & two),
        (a - b, one & ~two),
        (~a, ~one),
        (~~a, one),
        (~(a | b), ~one & ~two),
        (~(a & b), ~one | ~two),
        ((a - b) | (b & c), (one & ~two) | (two & c.masks_of(PROMPTS))),
    ):
        np.testing.assert_array_equal(found.masks_of(PROMPTS), expected)
        np.testing.assert_array_equal(found.sizes_of(PROMPTS), expected.sum(axis=-1))
    for same, other in (
        (~(a | b), ~a & ~b),
        (~(a & b), ~a | ~b),
        (a - b, a & ~b),
        (a - (b | c), (a - b) - c),
        (a & (b | c), (a & b) | (a & c)),
    ):
        np.testing.assert_array_equal(same.masks_of(PROMPTS), other.masks_of(PROMPTS))
        assert same.per_prompt == other.per_prompt
        assert same == other or same.per_prompt
    assert (a | b).per_prompt == (a.per_prompt or b.per_prompt)


@given(ragged_sets, ragged_sets)
def test_no_set_leaves_the_width_of_a_layer(a: ng.NeuronSet, b: ng.NeuronSet) -> None:
    one, two = a.masks_of(PROMPTS), b.masks_of(PROMPTS)
    for found, expected in (
        (~a, ~one & THERE),
        (~~a, one),
        (~(a & b), ~(one & two) & THERE),
        (~a | ~b, ~(one & two) & THERE),
        (~a - b, ~one & ~two & THERE),
        ((~a).layers(1, 2), ~one & THERE & np.array([[False], [True], [True]])),
        ((~a).strongest(1.0, by=np.zeros(SHAPE)), ~one & THERE),
    ):
        assert found.widths == WIDTHS
        np.testing.assert_array_equal(found.masks_of(PROMPTS), expected)
        bits = found.bits_of(Prompts(PROMPTS))
        assert not unpack(bits, bits.shape[-1] * 8)[..., SHAPE[1] :].any(), "padding stays zero"


def test_widths_are_of_the_model() -> None:
    every = ~ragged(np.zeros(SHAPE, bool))
    assert every.sizes == WIDTHS
    assert repr(every) == "NeuronSet('~ragged', 40 of 40 neurons, by layer 19, 5, 16)"
    assert every != ~ng.NeuronSet(np.zeros(SHAPE, bool))
    with pytest.raises(ng.NeuroglotError, match="expected sets of one model"):
        every | ng.NeuronSet(np.zeros(SHAPE, bool))
    drawn = ragged(np.eye(*SHAPE, dtype=bool)).sample_like(0)
    assert (drawn.widths, drawn.sizes) == (WIDTHS, (1, 1, 1))
    top = ng.NeuronSet.top(np.ones(SHAPE), 30, within=every)
    assert (top.widths, len(top)) == (WIDTHS, 30)
    outside = np.ones(SHAPE, bool)
    for mask, widths in (
        (outside, WIDTHS),
        (~outside, (19, 5)),
        (~outside, (18, 5, 16)),
        (~outside, (20, 5, 16)),
        (~outside, ()),
    ):
        with pytest.raises(ng.NeuroglotError, match="does not fit layers of"):
            ng.NeuronSet(mask, widths=widths)


@settings(deadline=None)  # the first draw is compiled
@given(sets, st.integers(0, 2**32))
def test_what_is_drawn_like_a_set(a: ng.NeuronSet, seed: int) -> None:
    if any(n > SHAPE[1] - n for n in a.sizes):
        with pytest.raises(ng.NeuroglotError, match="neurons are to be drawn like 'some'"):
            a.sample_like(seed)
        return
    drawn = a.sample_like(np.int64(seed))  # type: ignore[arg-type]
    assert type(drawn.provenance["seed"]) is int
    assert drawn.sizes == a.sizes
    assert len(drawn & a) == 0
    assert drawn == a.sample_like(seed)


@settings(deadline=None)
@given(sets, sets)
def test_what_is_drawn_from_a_pool(a: ng.NeuronSet, pool: ng.NeuronSet) -> None:
    if all(n <= m for n, m in zip(a.sizes, pool.sizes, strict=True)):
        drawn = a.sample_like(1, pool)
        assert drawn.sizes == a.sizes
        assert drawn - pool == a - a
    else:
        with pytest.raises(ng.NeuroglotError, match=r"Give a larger pool="):
            a.sample_like(1, pool)


@given(arrays(np.float32, SHAPE, elements=st.floats(-5, 5, width=32)), st.integers(1, 57))
def test_the_top_by_a_score(scores: np.ndarray, k: int) -> None:
    found = ng.NeuronSet.top(scores, k)
    flat = [(-float(scores[place]), place) for place in sorted(EVERY)]
    assert places(found) == {place for _, place in sorted(flat)[:k]}


def test_the_top_within_a_set() -> None:
    scores = xr.DataArray(
        np.arange(57.0).reshape(SHAPE), dims=("layer", "neuron"), name="effective"
    )
    within = ng.NeuronSet(scores.to_numpy() < 20, "low")
    found = ng.NeuronSet.top(scores, 3, within=within)
    assert places(found) == {(0, 17), (0, 18), (1, 0)}
    assert found.name == "top 3 by effective"
    for bad, message in ((21, "from 1 to 20"), (0, "from 1 to 20"), (2.5, "from 1 to 20")):
        with pytest.raises(ng.NeuroglotError, match=message):
            ng.NeuronSet.top(scores, bad, within=within)  # type: ignore[arg-type]
    low = ng.NeuronSet.top(scores * 0 - np.inf, 2, within=within)
    assert len(low - within) == 0
    with pytest.raises(ng.NeuroglotError, match="NaN"):
        ng.NeuronSet.top(scores * np.nan, 3)
    with pytest.raises(ng.NeuroglotError, match="within= is of shape"):
        ng.NeuronSet.top(np.ones((2, 2)), 1, within=within)


@pytest.mark.parametrize("membership", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("category", ["all_shared", "specific", "non_activated"])
def test_from_a_category(category: str, membership: float) -> None:
    recording = ng.record(tiny_model("llama"), small_task(10, "en de"))
    codes = categories(recording)
    share = (codes.to_numpy() == codes.attrs[category]).mean(axis=0)
    found = ng.NeuronSet.from_category(recording, category, membership)
    np.testing.assert_array_equal(found.mask, share >= membership - 1e-12)
    assert found.provenance["category"] == category
    assert found.provenance["task_checksum"] == recording.attrs["task_checksum"]
    assert not found.per_prompt
    assert found.name == f"{category} ≥ {membership:g}"
    assert not found.chosen_on, "it looks at nothing but activity"


def test_bad_categories_are_refused() -> None:
    recording = ng.record(tiny_model("llama"), small_task(3))
    with pytest.raises(ng.NeuroglotError, match="unknown category 'shared'"):
        ng.NeuronSet.from_category(recording, "shared")
    with pytest.raises(ng.NeuroglotError, match=r"unknown category 'all_shared\+specific'"):
        ng.NeuronSet.from_category(recording, "all_shared+specific", 1.0)
    with pytest.raises(ng.NeuroglotError, match="finite"):
        ng.NeuronSet.from_category(recording, "all_shared", "0.5")  # type: ignore[arg-type]
    for membership in (0, 1.5, -1):
        with pytest.raises(ng.NeuroglotError, match="above 0, at most 1"):
            ng.NeuronSet.from_category(recording, "all_shared", membership)
    for made in (
        lambda: ng.NeuronSet.from_category(recording, "all_shared", threshold=0.5),
        lambda: ng.NeuronSet.from_category(recording, "all_shared", 0.5, threshold=0.5),
        lambda: ng.NeuronSet.specific_here(recording, threshold=0.5),
        lambda: ng.NeuronSet.active(recording, threshold=0.5),
    ):
        with pytest.raises(ng.NeuroglotError, match=r"threshold 0\.5 was not recorded"):
            made()


@cache
def recorded() -> ng.Recording:
    return ng.record(tiny_model("llama"), small_task(9), reading=ng.Reading(thresholds=(0.0, 0.1)))


def longhand(kind: str, threshold: float) -> dict[tuple[str, str], np.ndarray]:
    """A mask (layer, neuron) of each prompt, by all activity at once."""
    recording = recorded()
    active = unpack(recording.bits(threshold), recording.n_neurons).astype(bool)
    codes = categories(recording, threshold=threshold)
    found = {}
    for i, item in enumerate(recording.items):
        for j, language in enumerate(recording.languages):
            here = active[i, j]
            if kind != "active":
                category = "specific" if kind == "specific_here" else kind
                of_item = codes.to_numpy()[i] == codes.attrs[category]
                here = of_item & here if kind == "specific_here" else of_item
            found[item, language] = here
    return found


def made(kind: str, recording: ng.Recording, threshold: float) -> ng.NeuronSet:
    if kind in ("active", "specific_here"):
        by_name = {"active": ng.NeuronSet.active, "specific_here": ng.NeuronSet.specific_here}
        return by_name[kind](recording, threshold=threshold)
    return ng.NeuronSet.from_category(recording, kind, threshold=threshold)


KINDS = ("all_shared", "partial_shared", "specific", "non_activated", "specific_here", "active")


@pytest.mark.parametrize("threshold", [0.0, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_sets_of_prompts_longhand(kind: str, threshold: float, tmp_path: Path) -> None:
    ng.save(recorded(), tmp_path / "r")
    opened = ng.load(tmp_path / "r")
    assert isinstance(opened, ng.Recording)
    expected = longhand(kind, threshold)
    assert any(mask.any() for mask in expected.values())
    every = list(expected)
    orders = [every, every[::-1], [every[i] for i in (20, 3, 3, 7, 20, 0)], every[4:6], every[:1]]
    written = ng.NeuronSet.of_prompts(expected)
    for found in (made(kind, recorded(), threshold), made(kind, opened, threshold), written):
        for prompts in orders:
            masks = np.stack([expected[prompt] for prompt in prompts])
            np.testing.assert_array_equal(found.masks_of(prompts), masks)
            np.testing.assert_array_equal(found.sizes_of(prompts), masks.sum(axis=-1))
        assert found.masks_of([]).shape == (0, *masks.shape[1:])
        assert found.per_prompt
        assert not found.chosen_on


@pytest.mark.parametrize("kind", KINDS)
def test_sets_of_prompts_are_equal_if_they_were_made_in_the_same_way(
    kind: str, tmp_path: Path
) -> None:
    ng.save(recorded(), tmp_path / "r")
    opened = ng.load(tmp_path / "r")
    assert isinstance(opened, ng.Recording)
    one, again = made(kind, recorded(), 0.0), made(kind, opened, 0.0)
    assert one == again
    assert hash(one) == hash(again)
    assert one.layers(0) == again.layers(0) != one.layers(1)
    assert one - ~again == again - ~one
    fewer = recorded().select(items=recorded().items[:-1])
    others = [made(kind, recorded(), 0.1), made(kind, fewer, 0.0), one.layers(0, 1, 2), ~one]
    others += [made(other, recorded(), 0.0) for other in KINDS if other != kind]
    others.append(ng.NeuronSet(np.zeros(one.members.shape, bool)))
    assert not [other for other in others if other == one]
    assert one.name == kind
    assert repr(one) == f"NeuronSet({kind!r}, one for each prompt)"
    assert one.provenance["task_checksum"] == recorded().attrs["task_checksum"]


def test_a_recording_is_read_where_it_is_asked_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """By block, and not before: a set takes no room for prompts that nobody asks about."""
    recording, n_items = recorded(), []
    real = ng.Recording.bits

    def bits(self: ng.Recording, *given: Any) -> Any:
        found = real(self, *given)
        n_items.append(len(found))
        return found

    monkeypatch.setattr(ng.Recording, "bits", bits)
    shared = ng.NeuronSet.from_category(recording, "all_shared")
    neurons = (
        (~shared | ng.NeuronSet.active(recording))
        .layers(0, 2)
        .strongest(0.5, by=np.zeros(shared.members.shape))
    )
    assert not n_items
    neurons.masks_of([("item8", "en"), ("item1", "de"), ("item8", "th")])
    assert n_items == [2, 2]


ONE_SET_FOR_ALL: dict[str, Callable[[ng.NeuronSet, Path], object]] = {
    "len": lambda own, _: len(own),
    "mask": lambda own, _: own.mask,
    "sizes": lambda own, _: own.sizes,
    "iteration": lambda own, _: list(own),
    "in": lambda own, _: (0, 0) in own,
    "save": lambda own, path: own.save(path / "x"),
    "sample_like": lambda own, _: own.sample_like(0),
    "pool": lambda own, _: every(own).sample_like(0, own),
    "within": lambda own, _: ng.NeuronSet.top(np.ones(own.members.shape), 1, within=own),
}


def every(like: ng.NeuronSet) -> ng.NeuronSet:
    return ng.NeuronSet(np.ones(like.members.shape, bool))


@pytest.mark.parametrize("what", ONE_SET_FOR_ALL)
def test_what_a_set_of_prompts_is_not(what: str, tmp_path: Path) -> None:
    shared = ng.NeuronSet.from_category(recorded(), "all_shared")
    for own in (shared, ~shared, shared | every(shared), every(shared).strongest(0.5)):
        with pytest.raises(ng.NeuroglotError, match="differs from prompt to prompt") as caught:
            ONE_SET_FOR_ALL[what](own, tmp_path)
        assert repr(own.name) in str(caught.value)
        assert own, "there may be some"
    assert not list(tmp_path.iterdir())


def test_prompts_of_which_nothing_is_known() -> None:
    shared = ng.NeuronSet.from_category(recorded(), "all_shared")
    written = ng.NeuronSet.of_prompts({("item0", "en"): np.ones(shared.members.shape, bool)})
    for own, prompt, message in (
        (shared, ("none", "en"), "'all_shared': the recording holds no prompt .*none"),
        (shared, ("item0", "fr"), "the recording holds no prompt .*fr"),
        (~shared & every(shared), ("item0", "fr"), "the recording holds no prompt"),
        (written, ("item0", "de"), "'neurons': there is no set for the prompt .*de"),
        (shared.strongest(0.5), ("item0", "en"), r"only within neuroglot\.intervene"),
        (every(shared).strongest(0.5), ("item0", "en"), r"give strongest\(\) scores to rank by"),
    ):
        with pytest.raises(ng.NeuroglotError, match=message):
            own.masks_of([("item0", "en"), prompt])
        with pytest.raises(ng.NeuroglotError, match=message):
            own.sizes_of([("item0", "en"), prompt])


def test_sets_of_prompts_are_masks_of_one_shape() -> None:
    other = {("a", "en"): np.ones((2, 3), bool), ("b", "en"): np.ones((2, 4), bool)}
    for bad in ({}, other):
        with pytest.raises(ng.NeuroglotError, match=r"a mask .* for each prompt, all of one shape"):
            ng.NeuronSet.of_prompts(bad)
    with pytest.raises(ng.NeuroglotError, match="needs a mask"):
        ng.NeuronSet.of_prompts({("a", "en"): np.ones((2, 3))})  # type: ignore[dict-item]


def longhand_strongest(mask: np.ndarray, scores: np.ndarray, share: float) -> np.ndarray:
    """Neuron by neuron."""
    found = np.zeros_like(mask)
    for layer, here in enumerate(mask):
        ranked = sorted((-scores[layer, neuron], neuron) for neuron in np.flatnonzero(here))
        for _, neuron in ranked[: math.ceil(share * len(ranked) - 1e-9)]:
            found[layer, neuron] = True
    return found


scores_with_ties = arrays(np.float32, SHAPE, elements=st.sampled_from([-2.5, -1.0, 0.0, 1.0, 7.0]))


@given(
    sets_of_any_kind | ragged_sets, scores_with_ties, st.sampled_from([0.01, 0.1, 0.25, 0.7, 1.0])
)
def test_the_strongest_longhand(neurons: ng.NeuronSet, scores: np.ndarray, share: float) -> None:
    found = neurons.strongest(share, by=scores)
    assert found.per_prompt == neurons.per_prompt
    expected = [longhand_strongest(x, scores, share) for x in neurons.masks_of(PROMPTS)]
    np.testing.assert_array_equal(found.masks_of(PROMPTS), expected)
    assert found.name == f"{neurons.name}, top {share:g} by score"
    named = xr.DataArray(scores, dims=("layer", "neuron"), name="effective")
    assert neurons.strongest(share, by=named) == found
    assert neurons.strongest(share, by=named).name.endswith("by effective")
    within = prompts_with_contribution(scores)
    by_contribution = unpack(neurons.strongest(share).bits_of(within), SHAPE[1])
    np.testing.assert_array_equal(by_contribution, expected)


def prompts_with_contribution(scores: np.ndarray) -> Prompts:
    """As sets see them within :func:`neuroglot.intervene`."""
    return Prompts(PROMPTS, np.broadcast_to(scores, (len(PROMPTS), *SHAPE)))


@given(sets_of_any_kind, st.lists(st.integers(0, 2), min_size=1, unique=True))
def test_some_layers_longhand(neurons: ng.NeuronSet, layers: list[int]) -> None:
    found = neurons.layers(*layers)
    expected = neurons.masks_of(PROMPTS).copy()
    expected[:, [i for i in range(SHAPE[0]) if i not in layers]] = False
    np.testing.assert_array_equal(found.masks_of(PROMPTS), expected)
    assert found.per_prompt == neurons.per_prompt
    assert found == neurons.layers(*sorted(layers))


def test_parts_that_there_are_not() -> None:
    neurons = ng.NeuronSet(np.ones(SHAPE, bool), "some")
    assert neurons.layers(2, 0).name == "some, layers 0,2"
    assert neurons.layers(1, 0).name == "some, layers 0-1"
    assert neurons.layers(np.int64(1)).name == "some, layers 1"  # type: ignore[arg-type]
    for layers, message in (
        ((), "different whole numbers"),
        ((1, 1), "different whole numbers"),
        ((-1,), "whole numbers from 0"),
        ((0.5,), "whole numbers from 0"),
        ((3,), "from 0 to 2"),
    ):
        with pytest.raises(ng.NeuroglotError, match=message):
            neurons.layers(*layers)
    for share in (0, -0.1, 1.01, math.nan, "half"):
        with pytest.raises(ng.NeuroglotError, match="share"):
            neurons.strongest(share)  # type: ignore[arg-type]
    for by in (np.ones((2, 2)), np.full(SHAPE, np.nan), 1.0):
        with pytest.raises(
            ng.NeuroglotError, match=r"finite scores \(layer, neuron\) of shape \(3, 19\)"
        ):
            neurons.strongest(0.5, by=by)  # type: ignore[arg-type]


@given(sets)
def test_a_set_holds_pairs(neurons: ng.NeuronSet) -> None:
    expected = places(neurons)
    assert list(neurons) == sorted(expected)
    assert all(type(number) is int for pair in neurons for number in pair)
    assert {place for place in EVERY if place in neurons} == expected
    for other in ((3, 0), (0, 19), (-1, -1), (0,), 7, "all"):
        assert other not in neurons
    for place in sorted(expected)[:2]:
        assert tuple(map(np.int64, place)) in neurons
    assert bool(neurons) == bool(expected)


def test_sets_from_pairs_and_tables() -> None:
    model = tiny_model("llama")
    pairs = [(2, 19), (0, 4), (0, 4), (1, 0)]
    found = ng.NeuronSet.from_pairs(pairs, model, name="read", chosen_on=["a", "b"])
    assert list(found) == sorted(set(pairs))
    assert (found.name, found.chosen_on) == ("read", frozenset("ab"))
    assert found.provenance == {"model": "tiny-llama"}
    assert found.widths == (20, 20, 20)
    table = pd.DataFrame(pairs, columns=["layer", "neuron"]).assign(score=1.5)
    for these in (table[["score", "neuron", "layer"]], map(list, pairs), np.array(pairs), found):
        assert ng.NeuronSet.from_pairs(these, model) == found  # type: ignore[arg-type]
    assert not ng.NeuronSet.from_pairs([], model)
    for bad in ((3, 0), (0, 20), (-1, 0), (0, 1.5), (0, 1, 2), (0,), ("0", 1), (True, 1)):
        with pytest.raises(
            ng.NeuroglotError, match=r"is not a neuron of 'tiny-llama'; .* 0 to 2 .* 19"
        ):
            ng.NeuronSet.from_pairs([(0, 0), bad], model)  # type: ignore[list-item]
    with pytest.raises(ng.NeuroglotError, match="no column neuron; it has layer, score"):
        ng.NeuronSet.from_pairs(table[["layer", "score"]], model)
    with pytest.raises(ng.NeuroglotError, match="is not a neuron"):
        ng.NeuronSet.from_pairs(table.assign(neuron=[1.0, 2.5, 3.0, 4.0]), model)


def test_the_items_that_a_set_was_chosen_on_are_kept() -> None:
    mask, scores = np.eye(*SHAPE, dtype=bool), np.arange(57.0).reshape(SHAPE)
    plain = ng.NeuronSet(mask)
    one, two = ng.NeuronSet(mask, chosen_on=["a", "b"]), ng.NeuronSet(~mask, chosen_on=["b", "c"])
    own = ng.NeuronSet.of_prompts({("x", "en"): mask}, chosen_on=["x"])
    for found, expected in (
        (plain, ""),
        (plain | plain, ""),
        (one | two, "abc"),
        (one & two, "abc"),
        (one - two, "abc"),
        (plain - two, "bc"),
        (~one, "ab"),
        (own - ~one, "abx"),
        (one.layers(1), "ab"),
        (one.strongest(0.5), "ab"),
        (one.strongest(0.5, by=scores, chosen_on=["d"]), "abd"),
        (one.sample_like(0), "ab"),
        (plain.sample_like(0, two), "bc"),
        (ng.NeuronSet.top(scores, 3, chosen_on=["c"]), "c"),
        (ng.NeuronSet.top(scores, 3, within=one, chosen_on="d"), "abd"),
    ):
        assert found.chosen_on == frozenset(expected), found.name
    assert one == plain, "the neurons are the same"


def test_sets_of_other_units_do_not_mix(tmp_path: Path) -> None:
    mask = np.eye(*SHAPE, dtype=bool)
    heads, neurons = ng.NeuronSet(mask, "some", unit="heads"), ng.NeuronSet(mask)
    assert heads != neurons
    with pytest.raises(ng.NeuroglotError, match="of heads, 'neurons' of ffn neurons"):
        heads | neurons
    scores = np.ones(SHAPE)
    for made_of in (
        ~heads,
        heads | heads,
        heads.layers(1),
        heads.strongest(0.5, by=scores),
        heads.sample_like(0),
        ng.NeuronSet.top(scores, 2, within=heads),
    ):
        assert made_of.unit == "heads"


def test_a_mask_is_a_copy_that_cannot_be_written_to() -> None:
    mask = np.zeros(SHAPE, bool)
    neurons = ng.NeuronSet(mask)
    mask[0, 0] = True
    assert len(neurons) == 0
    with pytest.raises(ValueError, match="read-only"):
        neurons.mask[0, 0] = True
    for bad in (np.zeros(3, bool), np.zeros((2, 3)), np.zeros((0, 3), bool)):
        with pytest.raises(ng.NeuroglotError, match="needs a mask"):
            ng.NeuronSet(bad)


def test_sets_of_other_models_do_not_mix() -> None:
    one, other = ng.NeuronSet(np.ones(SHAPE, bool)), ng.NeuronSet(np.ones((2, 5), bool))
    for join in (lambda: one | other, lambda: one & other, lambda: one - other):
        with pytest.raises(ng.NeuroglotError, match="expected sets of one model"):
            join()
    with pytest.raises(ng.NeuroglotError, match="the other is str"):
        one | "all"  # type: ignore[operator]
    assert one != other
    assert one != "all"


@given(sets, st.text(max_size=20), st.dictionaries(st.text(max_size=5), st.integers(), max_size=3))
@settings(max_examples=50)
def test_a_set_reloads_to_what_was_saved(
    tmp_path_factory: Any, a: ng.NeuronSet, name: str, provenance: dict[str, int]
) -> None:
    try:
        name.encode()
        "".join(provenance).encode()
    except UnicodeEncodeError:
        return
    path = tmp_path_factory.mktemp("sets") / "some.neurons"
    named = ng.NeuronSet(a.mask, name, provenance)
    named.save(path)
    found = ng.NeuronSet.load(path)
    assert found == named
    assert (found.name, found.provenance) == (name, provenance)


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "some.neurons"
    ng.NeuronSet(np.random.default_rng(0).random(SHAPE) < 0.3, "some", {"q": 0.5}).save(path)
    return path


def test_the_file_is_what_the_documentation_says(tmp_path: Path) -> None:
    path = saved(tmp_path)
    line, _, bits = path.read_bytes().partition(b"\n")
    header = json.loads(line)
    neurons = ng.NeuronSet.load(path)
    assert header == {
        "format": "neuroglot neuron set 1",
        "name": "some",
        "shape": list(SHAPE),
        "sizes": list(neurons.sizes),
        "provenance": {"q": 0.5},
        "sha256": hashlib.sha256(bits).hexdigest(),
    }
    assert len(bits) == 3 * 3
    first = "".join(f"{byte:08b}" for byte in bits[:3])
    assert [bit == "1" for bit in first[:19]] == neurons.mask[0].tolist()


def test_a_file_of_before_opens(tmp_path: Path) -> None:
    """Its header says nothing of widths, unit or items."""
    mask = np.zeros((2, 9), bool)
    mask[0, 1] = mask[1, 8] = True
    bits = bytes([0b01000000, 0, 0, 0b10000000])
    header = (
        '{"format": "neuroglot neuron set 1", "name": "old", "shape": [2, 9], "sizes": [1, 1], '
        f'"provenance": {{"k": 2}}, "sha256": "{hashlib.sha256(bits).hexdigest()}"}}'
    )
    path = tmp_path / "old.neurons"
    path.write_bytes(header.encode() + b"\n" + bits)
    found = ng.NeuronSet.load(path)
    assert found == ng.NeuronSet(mask)
    assert (found.name, found.provenance, found.chosen_on) == ("old", {"k": 2}, frozenset())
    assert (found.widths, found.unit) == ((9, 9), ng.NeuronSet(mask).unit)
    found.save(tmp_path / "new.neurons")
    assert (tmp_path / "new.neurons").read_bytes() == path.read_bytes()


@given(masks, st.frozensets(st.text("ab/é", max_size=3), max_size=3), st.sampled_from(["", "h"]))
@settings(max_examples=25)
def test_a_file_keeps_what_is_not_as_usual(
    tmp_path_factory: Any, mask: np.ndarray, chosen_on: frozenset[str], unit: str
) -> None:
    path = tmp_path_factory.mktemp("sets") / "some.neurons"
    widths = tuple(np.array(WIDTHS))
    neurons = ng.NeuronSet(mask & THERE, chosen_on=chosen_on, unit=unit, widths=list(WIDTHS))
    assert neurons == ng.NeuronSet(mask & THERE, unit=unit, widths=widths)
    neurons.save(path)
    found = ng.NeuronSet.load(path)
    assert found == neurons
    assert (found.widths, found.unit, found.chosen_on) == (WIDTHS, unit, chosen_on)
    assert (~found).sizes == tuple(np.array(WIDTHS) - neurons.sizes)
    header = json.loads(path.read_bytes().partition(b"\n")[0])
    assert header["widths"] == list(WIDTHS)
    assert header["unit"] == unit
    assert header.get("chosen_on", []) == sorted(chosen_on)
    ng.NeuronSet(mask & THERE, widths=widths).save(path, overwrite=True)
    assert ng.NeuronSet.load(path).widths == WIDTHS


def lie(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Changes the header, leaving the bits."""

    def changed(content: bytes) -> bytes:
        line, _, bits = content.partition(b"\n")
        header = json.loads(line)
        change(header)
        return json.dumps(header).encode() + b"\n" + bits

    return changed


def with_padding_bit(content: bytes) -> bytes:
    """A neuron beyond the last, with the right checksum."""
    line, _, bits = content.partition(b"\n")
    bits = bits[:2] + bytes([bits[2] | 1]) + bits[3:]
    header = json.loads(line) | {"sha256": hashlib.sha256(bits).hexdigest()}
    return json.dumps(header).encode() + b"\n" + bits


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "8 bytes, expected 9"),
        (lambda content: content + b"x", "10 bytes, expected 9"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 128]), "checksum"),
        (lambda content: b"", "intact"),
        (lambda content: b"\x00" * 100, "intact"),
        (lambda content: b"[1]\n", "format"),
        (lie(lambda header: header.update(format="other")), "format"),
        (lie(lambda header: header.update(sizes=[0, 0, 0])), "numbers of neurons"),
        (lie(lambda header: header.update(shape=[9, 8])), "numbers of neurons"),
        (lie(lambda header: header.update(shape=[3])), "intact"),
        (lie(lambda header: header.update(shape=[10**9, 10**9])), "expected"),
        (lie(lambda header: header.update(shape=[-3, -19])), "its shape holds -3"),
        (lie(lambda header: header.update(shape=["3", 19])), "its shape holds"),
        (lie(lambda header: header.update(name=["x"])), "name .* not plain text"),
        (lie(lambda header: header.update(provenance={"x": [1]})), "more than plain"),
        (lie(lambda header: header.pop("sha256")), "sha256"),
        (lie(lambda header: header.update(widths=[19, 19, 0])), "its shape holds 0"),
        (lie(lambda header: header.update(widths=7)), "intact"),
        (lie(lambda header: header.update(widths=[19, 19])), "does not fit layers"),
        (lie(lambda header: header.update(widths=[19, 19, 1])), "does not fit layers"),
        (lie(lambda header: header.update(widths=[19, 20, 19])), "does not fit layers"),
        (lie(lambda header: header.update(unit=7)), "unit is not a text"),
        (lie(lambda header: header.update(chosen_on="a")), "list of ids"),
        (lie(lambda header: header.update(chosen_on=[7])), "list of ids"),
        (with_padding_bit, "numbers of neurons"),
    ],
)
def test_files_that_do_not_hold_what_they_say_are_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = saved(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ng.NeuroglotError, match=message) as caught:
        ng.NeuronSet.load(path)
    assert str(path) in str(caught.value)


@given(st.binary(max_size=300), st.integers(0, 400))
@settings(max_examples=100)
def test_any_bytes_are_a_set_or_an_error(tmp_path_factory: Any, junk: bytes, at: int) -> None:
    folder = tmp_path_factory.mktemp("junk")
    path = saved(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + junk + whole[at + len(junk) :])
    try:
        found = ng.NeuronSet.load(path)
    except ng.NeuroglotError:
        return
    assert found.mask.shape == SHAPE


def test_a_set_for_another_model_is_refused(tmp_path: Path) -> None:
    path, model = saved(tmp_path), tiny_model("llama")
    with pytest.raises(ng.NeuroglotError, match=r"3 layers of 19 ffn neurons, but 'tiny-llama'"):
        ng.NeuronSet.load(path, model)
    ng.NeuronSet(np.ones((model.n_layers, model.n_neurons), bool)).save(path, overwrite=True)
    assert len(ng.NeuronSet.load(path, model)) == model.n_layers * model.n_neurons


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    path = saved(tmp_path)
    neurons = ng.NeuronSet.load(path)
    unplain = ng.NeuronSet(neurons.mask, "x", {"a": [1]})  # type: ignore[dict-item]
    for action, message in (
        (lambda: neurons.save(path), "overwrite=True"),
        (lambda: neurons.save(tmp_path), "is a folder"),
        (lambda: neurons.save(tmp_path / "no" / "x"), "cannot write"),
        (lambda: ng.NeuronSet.load(tmp_path / "none"), "cannot read"),
        (lambda: ng.NeuronSet.load("a\x00b"), "cannot"),
        (lambda: unplain.save(tmp_path / "y"), "more than plain"),
    ):
        with pytest.raises(ng.NeuroglotError, match=message):
            action()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["some.neurons"]
