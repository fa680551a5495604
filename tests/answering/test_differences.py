"""Exchanges of a condition with its control, each against a longhand computation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroglot.answering.differences import (
    DIFFERENT,
    EQUIVALENT,
    OPEN,
    Difference,
    check_bound,
    difference,
    difference_interval,
    sufficient_clusters,
    verdict,
    verdicts,
)
from neuroglot.errors import NeuroglotError

BOUND = 0.05


def of_two(differences: np.ndarray, clusters: np.ndarray, seed: int = 0) -> Difference:
    """Condition and control whose difference this is."""
    return difference(np.stack([differences, 0 * differences]), clusters, BOUND, seed)


def data(seed: int = 0) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Differences, the names of eleven clusters of several sizes, and which each is of."""
    rng = np.random.default_rng(seed)
    names = list("abcdefghijk")
    clusters = np.repeat(np.array(names), rng.integers(1, 5, len(names)))
    return rng.choice([-1.0, 0, 0.2, 1], len(clusters)), names, clusters


def mid_p(values: np.ndarray, clusters: np.ndarray) -> float:
    """By all flips of signs: what exceeds the sum, and half of what is as large."""
    sums = [sum(values[clusters == name]) for name in np.unique(clusters)]
    flipped = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=len(sums))]
    own = abs(sum(sums))
    more = np.mean([value > own + 1e-9 for value in flipped])
    return more + np.mean([abs(value - own) <= 1e-9 for value in flipped]) / 2


@pytest.mark.parametrize("seed", range(3))
def test_all_flips_of_whole_clusters_with_half_of_the_ties(seed: int) -> None:
    values, _, clusters = data(seed)
    assert of_two(values, clusters).p == pytest.approx(mid_p(values, clusters))


@pytest.mark.parametrize("seed", range(2))
def test_the_interval_holds_what_the_test_does_not_reject(seed: int) -> None:
    values, _, clusters = data(seed)
    found = of_two(values, clusters)
    grid = np.arange(-1.5, 1.5, 0.01)
    kept = [shift for shift in grid if mid_p(values - shift, clusters) >= 0.05]
    assert [found.low, found.high] == pytest.approx([min(kept), max(kept)], abs=0.011)
    assert difference_interval(values, clusters, 0) == (found.low, found.high)
    assert found.mean == pytest.approx(values.mean())


def test_equivalence_is_two_one_sided_tests_with_two_clusters_more() -> None:
    values, names, clusters = data(1)
    size = 1.5 * len(values) / len(names)
    sums = [sum(values[clusters == name]) for name in names] + [size, -size]
    sizes = [sum(clusters == name) for name in names] + [size, size]
    larger = 0.0
    for sign in (1, -1):
        # Of a condition that is worse, or better, by the bound than it is found to be.
        moved = [sign * s + BOUND * n for s, n in zip(sums, sizes, strict=True)]
        flips = itertools.product((-1, 1), repeat=len(moved))
        share = np.mean([np.dot(signs, moved) >= sum(moved) - 1e-9 for signs in flips])
        larger = max(larger, share)
    assert of_two(values, clusters).p_equivalent == pytest.approx(larger)


def test_several_draws_can_also_change_places_one_by_one() -> None:
    rng = np.random.default_rng(2)
    n, draws = 10, 2
    values = (rng.random((1 + draws, n)) < 0.5).astype(float)
    values[0] = 1
    others = values[1:].mean(axis=0)
    flips = mid_p(values[0] - others, np.arange(n))
    own = abs(sum(values[0] - others))
    beside = [
        [values[place, i] - np.delete(values[:, i], place).mean() for place in range(1 + draws)]
        for i in range(n)
    ]
    made = [abs(sum(one)) for one in itertools.product(*beside)]
    more = np.mean([value > own + 1e-9 for value in made])
    exchanges = more + np.mean([abs(value - own) <= 1e-9 for value in made]) / 2
    found = difference(values, np.arange(n), BOUND, 0)
    assert found.p == pytest.approx(max(flips, exchanges), abs=0.005)


def test_draws_that_are_all_the_same_are_one_draw() -> None:
    """Exchanging one of five equal draws would make far smaller differences than there are."""
    rng = np.random.default_rng(4)
    one, other = (rng.random(40) < 0.5).astype(float), (rng.random(40) < 0.5).astype(float)
    alone = difference(np.stack([one, other]), np.arange(40), BOUND, 0)
    several = difference(np.stack([one, *[other] * 5]), np.arange(40), BOUND, 0)
    assert several.p == pytest.approx(alone.p)
    assert several.p_equivalent >= alone.p_equivalent - 1e-9


def test_rare_rights_do_not_fool_the_mean_of_several_draws() -> None:
    """The condition is never right, and the draws once each in other subjects: that says little."""
    values = np.zeros((6, 30))
    for draw in range(1, 6):
        values[draw, [draw, draw + 5]] = 1
    moved = values[0] - values[1:].mean(axis=0)
    assert mid_p_of_signs(moved) < 0.01
    assert difference(values, np.arange(30), BOUND, 0).p > 0.1


def mid_p_of_signs(moved: np.ndarray) -> float:
    """All that moved fell, by the same."""
    assert set(np.round(moved, 6)) == {0.0, -0.2}
    return 2 / 2 ** (moved != 0).sum() / 2


def test_one_answer_a_subject_is_the_mid_p_mcnemar_test() -> None:
    before = np.array([1] * 30 + [0] * 20)
    after = before.copy()
    after[:9] = 0
    after[30:32] = 1
    n, k = 11, 2
    tails = 2 * sum(math.comb(n, i) for i in range(k)) + math.comb(n, k)
    arms = np.stack([after, before]).astype(float)
    once = difference(arms, np.arange(50), BOUND, 0).p
    assert once == pytest.approx(tails / 2**n, abs=0.01)
    # Two answers of each subject are no more than one.
    twice = difference(np.repeat(arms, 2, axis=1), np.repeat(np.arange(50), 2), BOUND, 0)
    assert twice.p == pytest.approx(once)


def test_copies_of_a_cluster_say_no_more_than_it() -> None:
    once = np.array([1.0, 1, 1, 1, 1, 1, 1, -1, -1, -1])
    found = of_two(np.repeat(once, 100), np.repeat(np.arange(10), 100))
    assert found.p == pytest.approx(of_two(once, np.arange(10)).p)
    assert found.p > 0.2
    assert of_two(np.repeat(once, 100), np.arange(1000)).p < 0.01


def test_what_does_not_move_is_no_difference_and_few_of_it_no_equivalence() -> None:
    for n, equivalent in ((10, False), (30, False), (100, True)):
        found = of_two(np.zeros(n), np.arange(n))
        assert (found.mean, found.p) == (0, 1)
        assert np.isnan([found.low, found.high]).all()
        assert (found.p_equivalent < 0.05) == equivalent
    # Rounding is no difference: thirty sums of a trillionth all rise, and say nothing.
    assert of_two(np.full(30, 1e-12), np.arange(30)).p == 1
    # Four subjects that differ say too little of how others would.
    assert np.isnan(of_two(np.array([1.0] * 4 + [0] * 40), np.arange(44)).low)
    assert np.isfinite(of_two(np.array([1.0] * 5 + [0] * 40), np.arange(45)).low)


def test_few_clusters_say_nothing() -> None:
    found = of_two(np.ones(90), np.repeat(np.arange(9), 10))
    assert np.isnan(list(vars(found).values())).all()
    assert np.isnan(difference_interval(np.ones(90), np.repeat(np.arange(9), 10), 0)).all()
    assert np.isnan(difference(np.zeros((2, 0)), np.zeros(0), BOUND, 0).p)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(10, 25), st.integers(1, 4))
def test_a_p_value_and_its_interval_never_disagree(seed: int, n: int, draws: int) -> None:
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(n), rng.integers(1, 4, n))
    values = (rng.random((1 + draws, len(clusters))) < rng.choice([0.2, 0.5])).astype(float)
    values[0] *= rng.random(len(clusters)) < rng.choice([0.4, 1])
    found = difference(values, clusters, BOUND, seed)
    if np.isnan(found.low):
        return
    assert found.low <= found.mean + 1e-8
    assert found.mean - 1e-8 <= found.high
    if found.p < 0.05:
        assert not found.low < 0 < found.high
    else:
        assert found.low <= 0 <= found.high
    swapped = difference(np.stack([values[1], values[0]]), clusters, BOUND, seed)
    forward = difference(values[:2], clusters, BOUND, seed)
    assert (swapped.p, swapped.mean) == pytest.approx((forward.p, -forward.mean))
    assert swapped.p_equivalent == pytest.approx(forward.p_equivalent, abs=0.04)


@pytest.mark.parametrize("n_tests", [1, 4])
def test_so_many_subjects_as_are_said_would_do(n_tests: int) -> None:
    """At least four of five times, what does the same as its control is called equivalent."""
    rng = np.random.default_rng(5)

    def drawn(n: int) -> np.ndarray:
        chance = rng.random(n)
        return (rng.random((2, n)) < chance).astype(float)

    wide = 0.15
    few = [difference(drawn(60), np.arange(60), wide, i).variance for i in range(40)]
    enough = int(np.median(sufficient_clusters(np.array(few), wide, n_tests)))
    found = [difference(drawn(enough), np.arange(enough), wide, i) for i in range(300)]
    equivalent = np.mean([one.p_equivalent < 0.05 / n_tests for one in found])
    assert 0.74 < equivalent < 0.95


@pytest.mark.parametrize(
    ("bound", "n"), [(0.05, 45), (0.05, 64), (0.05, 148), (0.1, 73), (0.15, 21)]
)
def test_rare_harms_are_seldom_called_equivalent(bound: float, n: int) -> None:
    """All answers were right, and each subject is lost with just the bound's probability."""
    right, found = np.ones(n), 0.0
    for lost in range(n):
        values = np.stack([np.arange(n) >= lost, right])
        if difference(values, np.arange(n), bound, 0).p_equivalent >= 0.05:
            break
        found += math.comb(n, lost) * bound**lost * (1 - bound) ** (n - lost)
    assert found < 0.07


def test_as_many_draws_as_are_allowed() -> None:
    rng = np.random.default_rng(0)
    values = (rng.random((1001, 12)) < 0.5).astype(float)
    assert 0 <= difference(values, np.arange(12), BOUND, 0).p <= 1


def test_verdicts() -> None:
    nan = np.nan
    assert verdict(0.04, 0.5) == verdict(0.04, 0.01) == DIFFERENT
    assert verdict(0.05, 0.04) == EQUIVALENT
    assert verdict(0.2, 0.05) == verdict(nan, nan) == verdict(0.2, nan) == OPEN
    found = verdicts(np.array([[0.04, 0.5]]), np.array([[0.5, 0.01]]))
    assert found.tolist() == [[DIFFERENT, EQUIVALENT]]


@pytest.mark.parametrize("bound", [0, 1, -0.05, 5, np.nan, "0.05", True])
def test_bounds_that_are_none(bound: float) -> None:
    with pytest.raises(NeuroglotError, match="equivalent_within="):
        check_bound(bound)
    assert check_bound(0.05) == 0.05
