"""Sets of neurons: their algebra, their files, and what is drawn like them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import neuroglot as ng
from neuroglot.analysis import categories
from tests.testing import small_task, tiny_model

SHAPE = (3, 19)
masks = arrays(np.bool_, SHAPE)
sets = masks.map(lambda mask: ng.NeuronSet(mask, "some"))


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
    within = ng.NeuronSet(scores.values < 20, "low")
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
    share = (codes.values == codes.attrs[category]).mean(axis=0)
    found = ng.NeuronSet.from_category(recording, category, membership)
    np.testing.assert_array_equal(found.mask, share >= membership - 1e-12)
    assert found.provenance["category"] == category
    assert found.provenance["task_checksum"] == recording.attrs["task_checksum"]


def test_bad_categories_are_refused() -> None:
    recording = ng.record(tiny_model("llama"), small_task(3))
    with pytest.raises(ng.NeuroglotError, match="unknown category 'shared'"):
        ng.NeuronSet.from_category(recording, "shared")
    union = ng.NeuronSet.from_category(recording, "all_shared+specific", 1.0)
    assert len(ng.NeuronSet.from_category(recording, "all_shared", 1.0) - union) == 0
    with pytest.raises(ng.NeuroglotError, match="finite"):
        ng.NeuronSet.from_category(recording, "all_shared", "0.5")  # type: ignore[arg-type]
    for membership in (0, 1.5, -1):
        with pytest.raises(ng.NeuroglotError, match="above 0, at most 1"):
            ng.NeuronSet.from_category(recording, "all_shared", membership)
    with pytest.raises(ng.NeuroglotError, match=r"threshold 0\.5 was not recorded"):
        ng.NeuronSet.from_category(recording, "all_shared", threshold=0.5)


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
        (lambda content: b"", "no sound neuron set"),
        (lambda content: b"\x00" * 100, "no sound neuron set"),
        (lambda content: b"[1]\n", "format"),
        (lie(lambda header: header.update(format="other")), "format"),
        (lie(lambda header: header.update(sizes=[0, 0, 0])), "other numbers of neurons"),
        (lie(lambda header: header.update(shape=[9, 8])), "other numbers|checksum|expected"),
        (lie(lambda header: header.update(shape=[3])), "no sound"),
        (lie(lambda header: header.update(shape=[10**9, 10**9])), "expected"),
        (lie(lambda header: header.update(shape=[-3, -19])), "its shape holds -3"),
        (lie(lambda header: header.update(shape=["3", 19])), "its shape holds"),
        (lie(lambda header: header.update(name=["x"])), "no plain text"),
        (lie(lambda header: header.update(provenance={"x": [1]})), "more than plain"),
        (lie(lambda header: header.pop("sha256")), "sha256"),
        (with_padding_bit, "other numbers of neurons"),
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
    with pytest.raises(ng.NeuroglotError, match=r"3 layers of 19 neurons, but 'tiny-llama' has 3"):
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
