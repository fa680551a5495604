"""Properties and longhand oracles of the sharing statistics."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import neuroglot as ng
from neuroglot.sharing.baselines import layer_rate_fraction
from neuroglot.sharing.bits import CATEGORIES
from tests.testing import small_task, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:the shuffled-items baseline")


def recording_of(active: np.ndarray, **attrs: object) -> ng.Recording:
    """A recording of given zeros and ones (item, language, layer, neuron)."""
    n_items, n_languages, n_layers, n_neurons = active.shape
    bits = np.packbits(active.astype(bool), axis=-1)[None]
    known = {
        "model": "m", "model_weights": "w", "model_config": "c", "tokenizer_checksum": "k",
        "task": "t", "template": "", "site": "gate",
        "position": "last", "n_neurons": n_neurons, "kind": "recording", "dtype": "float32",
    }  # fmt: skip
    return ng.Recording(
        xr.Dataset(
            {"active": (("threshold", "item", "language", "layer", "byte"), bits)},
            coords={
                "threshold": [0.0],
                "item": [f"i{i}" for i in range(n_items)],
                "language": [f"l{i}" for i in range(n_languages)],
                "layer": list(range(n_layers)),
            },
            attrs={**known, **attrs},
        )
    )


def random_active(seed: int, shape: tuple[int, ...], rate: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base = rng.random(shape[-2:]) < rate  # what all prompts have in common
    return (rng.random(shape) < rate) ^ (base & (rng.random(shape) < 0.7))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_languages=st.integers(2, 12),
    n_neurons=st.integers(1, 21),
    rate=st.floats(0, 1),
)
def test_fractions_sum_to_one(seed: int, n_languages: int, n_neurons: int, rate: float) -> None:
    recording = recording_of(random_active(seed, (3, n_languages, 2, n_neurons), rate))
    sharing = ng.classify(recording)
    np.testing.assert_allclose(sharing["fraction"].sum("category"), 1)
    np.testing.assert_allclose(sharing["membership"].sum("category"), 1)
    np.testing.assert_allclose(sharing["fraction_if_layer_rate"].sum("category"), 1)
    assert (sharing["repetition"] <= sharing["fraction"].min("item") + 1e-12).all()
    np.testing.assert_allclose(
        sharing["membership"].mean("neuron"), sharing["fraction"].mean("item")
    )


def test_every_variable_agrees_with_sets() -> None:
    active = random_active(3, (4, 3, 2, 13), 0.5)
    sharing = ng.classify(recording_of(active))
    n_items, n_languages, n_layers, n_neurons = active.shape
    for item, layer in itertools.product(range(n_items), range(n_layers)):
        sets = [set(np.flatnonzero(active[item, lang, layer])) for lang in range(n_languages)]
        shared = set.intersection(*sets)
        one = sharing.isel(item=item, layer=layer)
        assert one["fraction"].sel(category="all_shared") == len(shared) / n_neurons
        for lang in range(n_languages):
            assert one["active"][lang] == len(sets[lang]) / n_neurons
            assert np.isclose(one["shared_of_active"][lang], len(shared) / len(sets[lang]))
    layer = 1
    for a, b in itertools.product(range(n_languages), repeat=2):
        jaccards = []
        for item in range(n_items):
            one, other = (set(np.flatnonzero(active[item, x, layer])) for x in (a, b))
            jaccards.append(len(one & other) / len(one | other))
        assert np.isclose(sharing["overlap"][layer, a, b], np.mean(jaccards))
    k = active.sum(axis=1)
    for code, rule in enumerate([k == 0, k == 1, (k > 1) & (k < 3), k == 3]):
        chosen = sharing.sel(category=CATEGORIES[code])
        np.testing.assert_allclose(chosen["membership"], rule.mean(axis=0))
        np.testing.assert_allclose(chosen["repetition"], rule.all(axis=0).mean(axis=-1))


def test_layer_rate_by_enumeration() -> None:
    rates = np.array([0.2, 0.5, 0.9])
    expected = np.zeros(4)
    for outcome in itertools.product((0, 1), repeat=3):
        k = sum(outcome)
        code = 0 if k == 0 else 1 if k == 1 else 3 if k == 3 else 2
        expected[code] += np.prod(
            [p if on else 1 - p for p, on in zip(rates, outcome, strict=True)]
        )
    np.testing.assert_allclose(layer_rate_fraction(rates[None, None])[0], expected)


def test_shuffled_items_keep_what_never_changes_and_lose_what_does() -> None:
    constant = np.broadcast_to(random_active(0, (1, 1, 1, 40), 0.4), (30, 4, 1, 40))
    sharing = ng.classify(recording_of(constant))
    np.testing.assert_allclose(
        sharing["fraction_if_items_shuffled"], sharing["fraction"].mean("item")
    )
    content = np.broadcast_to(random_active(1, (30, 1, 1, 40), 0.3), (30, 4, 1, 40))
    sharing = ng.classify(recording_of(content))
    shuffled = sharing["fraction_if_items_shuffled"].sel(category="all_shared")
    measured = sharing["fraction"].sel(category="all_shared").mean("item")
    assert (shuffled < 0.3 * measured).all()
    again = ng.classify(recording_of(content))
    xr.testing.assert_identical(sharing, again)


def test_few_items_warn_and_give_nan() -> None:
    with pytest.warns(UserWarning, match="needs 20 items, found 5"):
        sharing = ng.classify(recording_of(random_active(0, (5, 3, 1, 9), 0.5)))
    assert sharing["fraction_if_items_shuffled"].isnull().all()


def test_nothing_active_is_nan_not_an_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        sharing = ng.classify(recording_of(np.zeros((2, 3, 1, 9))))
    assert sharing["shared_of_active"].isnull().all()
    assert sharing["overlap"].isnull().all()
    assert (sharing["fraction"].sel(category="non_activated") == 1).all()


def test_one_language_is_refused() -> None:
    with pytest.raises(ng.NeuroglotError, match="at least two languages, found 1"):
        ng.classify(recording_of(np.ones((2, 1, 1, 9))))


def test_sweep_agrees_with_classify_at_every_threshold() -> None:
    recording = ng.record(
        tiny_model("llama"), small_task(), reading=ng.Reading(thresholds=(0.0, 0.2, 0.4))
    )
    sweep = ng.classify(recording, thresholds=recording.thresholds)
    for tau in (0.0, 0.2, 0.4):
        expected = ng.classify(recording, threshold=tau)["fraction"].mean("item")
        np.testing.assert_allclose(sweep.sel(threshold=tau), expected)
    active = 1 - sweep.sel(category="non_activated").mean("layer")
    assert (np.diff(active) <= 0).all(), "a higher threshold never makes more neurons active"


def test_comparison_of_tasks() -> None:
    one = recording_of(random_active(0, (4, 3, 2, 13), 0.5), task="one")
    other = recording_of(random_active(1, (4, 3, 2, 13), 0.3), task="other")
    compared = ng.compare([one, other])
    assert list(compared["task"].values) == ["one", "other"]
    for name, recording in {"one": one, "other": other}.items():
        sharing = ng.classify(recording)
        for statistic in ("mean", "min", "max"):
            expected = getattr(sharing["fraction"], statistic)("item")
            np.testing.assert_allclose(compared[statistic].sel(task=name), expected)
        np.testing.assert_allclose(compared["repetition"].sel(task=name), sharing["repetition"])


@pytest.mark.parametrize("n_languages", [2, 3])
def test_shuffled_items_by_hand(n_languages: int) -> None:
    """Permuted independently, any items of the languages meet with the same chance."""
    active = random_active(5, (20, n_languages, 2, 11), 0.5)
    found = ng.classify(recording_of(active))["fraction_if_items_shuffled"]
    expected = np.zeros((2, 4))
    for rows in itertools.product(range(20), repeat=n_languages):
        k = active[list(rows), range(n_languages)].sum(axis=0)
        codes = np.select([k == 0, k == 1, k == n_languages], [0, 1, 3], 2)
        expected += np.stack([(codes == code).mean(axis=1) for code in range(4)], axis=-1)
    np.testing.assert_allclose(found, expected / 20**n_languages, atol=1e-12)


def test_shuffled_items_are_what_permutations_give_on_average() -> None:
    active = random_active(6, (30, 4, 1, 90), 0.5)
    found = ng.classify(recording_of(active))["fraction_if_items_shuffled"]
    rng, draws = np.random.default_rng(0), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(60):
            order = np.stack([rng.permutation(30) for _ in range(4)], axis=1)
            permuted = recording_of(active[order, np.arange(4)])
            draws.append(ng.classify(permuted)["fraction"].mean("item").values)
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert (np.abs(np.mean(draws, axis=0) - found) <= 4 * error).all()


def test_comparison_refuses_other_layers_and_the_same_task_twice() -> None:
    one = recording_of(random_active(0, (4, 3, 2, 13), 0.5), task="one")
    lower = recording_of(random_active(0, (4, 3, 3, 13), 0.5), task="two")
    with pytest.raises(ng.NeuroglotError, match="different layers: 0, 1; 0, 1, 2"):
        ng.compare([one, lower])
    with pytest.raises(ng.NeuroglotError, match="different tasks, found one, one"):
        ng.compare([one, one])
    with pytest.raises(ng.NeuroglotError, match="at least two recordings"):
        ng.compare([one])


@pytest.mark.parametrize(
    ("shape", "attrs", "message"),
    [
        ((4, 4, 2, 13), {}, "different languages"),
        ((5, 3, 2, 13), {}, "4 and 5 items"),
        ((4, 3, 2, 13), {"site": "coefficient"}, "differ in site"),
        ((4, 3, 2, 13), {"model_weights": "x"}, "differ in model_weights"),
    ],
)
def test_unlike_tasks_are_refused(shape: tuple[int, ...], attrs: dict, message: str) -> None:
    one = recording_of(random_active(0, (4, 3, 2, 13), 0.5), task="one")
    other = recording_of(random_active(1, shape, 0.5), task="other", **attrs)
    with pytest.raises(ng.NeuroglotError, match=message) as caught:
        ng.compare([one, other])
    assert "one" in str(caught.value)
    assert "other" in str(caught.value)
    if shape != (4, 3, 2, 13):
        alike = other.select(languages=one.languages, items=4)
        assert len(ng.compare([one, alike])["task"]) == 2
