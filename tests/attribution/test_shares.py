"""Sums of scores by category, against loops over prompts and neurons."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neuroglot.attribution.shares import (
    N_GROUPS,
    add_item,
    category_shares,
    groups_of,
    no_sums,
    random_maximum,
    top_k_for,
)

N_ITEMS, N_SCORES, N_LANGUAGES, N_LAYERS, N_NEURONS, TOP_K = 12, 2, 3, 2, 9, 3


def random_items(n_items: int = N_ITEMS, seed: int = 0) -> list[tuple[Any, Any, Any]]:
    """Scores, category codes and correctness of some items; some scores are equal or zero."""
    rng = np.random.default_rng(seed)
    shape = (N_SCORES, N_LANGUAGES, N_LAYERS, N_NEURONS)
    return [
        (
            rng.normal(0.2, 1, shape).round(1).astype(np.float32),
            # The last item has a category that is empty in every layer.
            rng.integers(0, 4 if i < n_items - 1 else 3, (N_LAYERS, N_NEURONS)).astype(np.uint8),
            rng.integers(0, 2, N_LANGUAGES).astype(bool),
        )
        for i in range(n_items)
    ]


def shares(items: list[tuple[Any, Any, Any]], clusters: Any = None) -> Any:
    groups = groups_of(np.arange(len(items)) if clusters is None else np.asarray(clusters))
    sizes = {"language": N_LANGUAGES, "score": N_SCORES, "layer": N_LAYERS, "neuron": N_NEURONS}
    sums = no_sums(sizes)
    for (scores, codes, correct), group in zip(items, groups, strict=True):
        answered = (correct, np.ones(N_LANGUAGES, bool))
        given = (torch.from_numpy(scores), torch.from_numpy(codes), answered)
        add_item(sums, *given, TOP_K, int(group))
    return category_shares(sums.assign_coords(layer=range(N_LAYERS)))


ITEMS = random_items()
FOUND = shares(ITEMS)


def test_k_keeps_the_papers_share() -> None:
    assert [top_k_for(n) for n in (16_384, 2_048, 100, 3)] == [800, 100, 5, 1]


@pytest.mark.parametrize("n", range(1, 7))
def test_the_greatest_of_random_neurons(n: int) -> None:
    """The mean over all ways to draw as many."""
    values = [2.5, 1.0, 1.0, 0.0, -1.5, -4.0]
    expected = np.mean([max(drawn) for drawn in itertools.combinations(values, n)])
    ranked, sizes = torch.tensor([values]), torch.tensor([[n, 0, 6, 1]])
    found = random_maximum(ranked, sizes)[0]
    assert found[0].item() == pytest.approx(expected)
    assert found[1].isnan()
    assert found[2].item() == pytest.approx(2.5)
    assert found[3].item() == pytest.approx(np.mean(values))


def test_the_greatest_of_many() -> None:
    """Of a width at which binomial coefficients overflow."""
    values = torch.linspace(1, 0, 16_384)[None]
    found = random_maximum(values, torch.tensor([[8000, 1, 0, 16_384]]))[0]
    assert found[[0, 1, 3]].tolist() == pytest.approx([1 - 1 / 16_383, 0.5, 1.0], abs=1e-4)


@pytest.mark.parametrize("answered", ["all", "incorrect", "correct"])
@pytest.mark.parametrize("language", range(N_LANGUAGES))
def test_sums_over_prompts(answered: str, language: int) -> None:
    kept = [
        (scores[:, language], codes)
        for scores, codes, correct in ITEMS
        if answered == "all" or correct[language] == (answered == "correct")
    ]
    here = FOUND.sel(answered=answered).isel(language=language)
    assert int(here["n_prompts"]) == len(kept)
    places = itertools.product(range(N_SCORES), range(N_LAYERS), range(4))
    for score, layer, category in places:
        of = here.isel(layer=layer, category=category)
        one = of.isel(score=score)
        values = [
            [float(v) for v, c in zip(s[score, layer], codes[layer], strict=True) if c == category]
            for s, codes in kept
        ]
        every = [[float(v) for v in s[score, layer]] for s, _ in kept]
        size = sum(map(len, values))
        assert float(of["fraction"]) == pytest.approx(size / (len(kept) * N_NEURONS))
        positive = sum(v for prompt in values for v in prompt if v > 0)
        total = sum(v for prompt in every for v in prompt if v > 0)
        assert float(one["positive_share"]) == pytest.approx(positive / total, rel=1e-5)
        assert float(one["positive_sum"]) == pytest.approx(positive / len(kept), rel=1e-5)
        signed = sum(map(sum, values))
        assert float(one["signed_sum"]) == pytest.approx(signed / len(kept), abs=1e-5)
        assert float(one["mean"]) == pytest.approx(signed / size if size else np.nan, nan_ok=True)
        layer_mean = sum(map(sum, every)) / (len(kept) * N_NEURONS)
        assert float(one["layer_mean"]) == pytest.approx(layer_mean, abs=1e-5)
        greatest = [max(prompt) for prompt in values if prompt]
        assert float(one["maximum"]) == pytest.approx(np.mean(greatest), rel=1e-5)
        drawn = [
            np.mean([max(d) for d in itertools.combinations(whole, len(prompt))])
            for prompt, whole in zip(values, every, strict=True)
            if prompt
        ]
        assert float(one["random_maximum"]) == pytest.approx(np.mean(drawn), rel=1e-5, abs=1e-6)


def test_the_top_of_a_layer() -> None:
    """Of each prompt's layer the K highest, if they are positive; equal ones in their order."""
    in_top = np.zeros((N_SCORES, N_LANGUAGES, N_LAYERS, 4))
    for scores, codes, _ in ITEMS:
        for s, language, layer in itertools.product(
            range(N_SCORES), range(N_LANGUAGES), range(N_LAYERS)
        ):
            values = scores[s, language, layer]
            order = sorted(range(N_NEURONS), key=lambda i, v=values: -v[i])
            for neuron in order[:TOP_K]:
                if values[neuron] > 0:
                    in_top[s, language, layer, codes[layer, neuron]] += 1
    expected = in_top / in_top.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(FOUND["top_share"].sel(answered="all"), expected)


def test_over_all_layers() -> None:
    """Ratios of sums, not means of the layers' ratios."""
    for language, category in itertools.product(range(N_LANGUAGES), range(4)):
        scores = np.stack([s[0, language] for s, _, _ in ITEMS]).clip(0)
        mine = np.stack([codes == category for _, codes, _ in ITEMS])
        one = FOUND.sel(answered="all").isel(score=0, language=language, category=category)
        assert float(one["model_positive_share"]) == pytest.approx(
            scores[mine].sum() / scores.sum(), rel=1e-5
        )
        assert float(one["model_fraction"]) == pytest.approx(mine.mean())


def test_the_mean_of_every_neuron() -> None:
    expected = np.mean([scores for scores, _, _ in ITEMS], axis=0)
    np.testing.assert_allclose(FOUND["mean_score"], expected, rtol=1e-5, atol=1e-7)
    assert FOUND["mean_score"].dims == ("score", "language", "layer", "neuron")


def test_the_interval_is_that_of_the_bootstrap() -> None:
    """Of many prompts, resampled with their numerators and denominators together."""
    items = random_items(300, seed=1)
    one = shares(items).sel(answered="all").isel(score=0, language=1, layer=0, category=2)
    parts = np.array([(s[0, 1, 0].clip(0) * (c[0] == 2)).sum() for s, c, _ in items])
    totals = np.array([s[0, 1, 0].clip(0).sum() for s, _, _ in items])
    draws = np.random.default_rng(0).integers(0, 300, (4000, 300))
    ratios = parts[draws].sum(axis=1) / totals[draws].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert float(one["positive_share_low"]) == pytest.approx(low, abs=0.1 * (high - low))
    assert float(one["positive_share_high"]) == pytest.approx(high, abs=0.1 * (high - low))


def test_an_interval_needs_ten_subjects() -> None:
    for n, known in ((1, False), (9, False), (10, True)):
        for times in (1, 3):
            found = shares(ITEMS[:n] * times, [*range(n)] * times).sel(answered="all")
            assert found["positive_share"].notnull().all()
            assert bool(found["positive_share_low"].notnull().all()) == known


def test_items_of_one_subject_are_one_sample() -> None:
    """What is asked four times is known no better than what is asked once."""
    once = shares(ITEMS)
    fourfold = shares(ITEMS * 4, [*range(N_ITEMS)] * 4)
    for name in (x for x in once if str(x).endswith(("share", "_low", "_high"))):
        np.testing.assert_allclose(fourfold[name], once[name])


def test_the_interval_over_subjects_longhand() -> None:
    """By deleting one subject after the other, which agrees with linearising for many."""
    rng = np.random.default_rng(3)
    items, subjects = random_items(240, seed=2), np.repeat(np.arange(80), 3)[rng.permutation(240)]
    one = shares(items, subjects).sel(answered="all").isel(score=1, language=0, category=1)
    parts = np.array([(s[1, 0].clip(0) * (c == 1)).sum() for s, c, _ in items])
    totals = np.array([s[1, 0].clip(0).sum() for s, _, _ in items])
    without = np.array(
        [parts[subjects != s].sum() / totals[subjects != s].sum() for s in range(80)]
    )
    error = np.sqrt(79 / 80 * ((without - without.mean()) ** 2).sum())
    share = parts.sum() / totals.sum()
    width = stats.t.ppf(0.975, 79) * error
    assert float(one["model_positive_share"]) == pytest.approx(share)
    assert float(one["model_positive_share_low"]) == pytest.approx(share - width, abs=0.02 * width)
    assert float(one["model_positive_share_high"]) == pytest.approx(share + width, abs=0.02 * width)


def test_groups_are_those_of_subjects_as_long_as_there_are_groups() -> None:
    assert groups_of(np.array(["b", "a", "b", "c", "a"])).tolist() == [0, 1, 0, 2, 1]
    many = groups_of(np.repeat(np.arange(1000)[::-1], 2))
    assert many.tolist() == [i % N_GROUPS for i in range(1000) for _ in range(2)]
    assert groups_of(np.array(["b", "a"])).tolist() == [0, 1], "whatever follows"


@pytest.mark.parametrize("times", [1, 4])
def test_the_interval_covers_what_it_should(times: int) -> None:
    """About 95 of 100 intervals from ten subjects hold the share of the whole population."""
    population = random_items(2000, seed=5)
    true = shares(population).sel(answered="all")["model_positive_share"].isel(category=3)
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(100):
        drawn = np.tile(rng.integers(0, 2000, 10), times)
        subjects = np.tile(np.arange(10), times)
        one = shares([population[i] for i in drawn], subjects).sel(answered="all")
        low, high = (one[f"model_positive_share_{end}"].isel(category=3) for end in ("low", "high"))
        hits.append(((low <= true) & (true <= high)).mean())
    assert 0.9 < float(np.mean(hits)) < 0.98


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_shares_add_up_and_order_does_not_matter(seed: int, n_items: int) -> None:
    items = random_items(n_items, seed)
    found = shares(items)
    for name in ("fraction", "positive_share", "top_share", "model_positive_share"):
        total = found[name].sum("category", skipna=False).to_numpy()
        np.testing.assert_allclose(total[~np.isnan(total)], 1)
    every = found.sel(answered="all")
    drawn, greatest = every["random_maximum"], every["maximum"].max("category")
    if n_items == 1:
        assert (drawn.isnull() | (drawn <= greatest + 1e-6)).all()
    assert (
        found["n_prompts"].sel(answered=["correct", "incorrect"]).sum("answered") == n_items
    ).all()
    backwards = shares(items[::-1])
    for name, values in found.items():
        np.testing.assert_allclose(backwards[name], values, rtol=1e-6, atol=1e-9)
