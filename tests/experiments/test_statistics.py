"""Clustered intervals, sign flips, McNemar and Holm, each against a longhand computation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from neuroglot.experiments.halves import halves
from neuroglot.experiments.statistics import (
    accuracy_interval,
    clustered_interval,
    holm,
    sign_flip_p,
)
from neuroglot.tasks import ParallelTask
from tests.testing import small_task


def test_sign_flips_of_whole_clusters_all_of_them() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.array(list("abcdefghijk")), 3)
    differences = rng.choice([-1.0, 0, 0.2, 1], len(clusters))
    sums = [sum(differences[clusters == name]) for name in "abcdefghijk"]
    flipped = np.array(
        [np.dot(signs, sums) for signs in itertools.product((-1, 1), repeat=len(sums))]
    )
    low = (flipped <= sum(sums) + 1e-9).mean()
    high = (flipped >= sum(sums) - 1e-9).mean()
    expected = min(1.0, 2 * min(low, high))
    assert sign_flip_p(differences, clusters, 0) == pytest.approx(expected, abs=1e-6)


def test_sign_flips_do_not_take_prompts_of_a_cluster_for_independent() -> None:
    """A hundred copies of each of ten subjects say no more than ten."""
    once = np.array([1.0, 1, 1, 1, 1, 1, 1, -1, -1, -1])
    clusters = np.arange(10)
    expected = sign_flip_p(once, clusters, 0)
    found = sign_flip_p(np.repeat(once, 100), np.repeat(clusters, 100), 0)
    assert found == pytest.approx(expected)
    assert found > 0.3
    assert sign_flip_p(np.repeat(once, 100), np.arange(1000), 0) < 0.01


def test_the_interval_resamples_clusters() -> None:
    rng = np.random.default_rng(3)
    values, clusters = rng.random(60), rng.integers(0, 12, 60)
    low, high = clustered_interval(values, clusters, 0)
    groups = [values[clusters == name] for name in np.unique(clusters)]
    means = []
    for _ in range(4000):
        picked = [groups[i] for i in rng.integers(0, len(groups), len(groups))]
        means.append(np.concatenate(picked).mean())
    np.testing.assert_allclose([low, high], np.percentile(means, [2.5, 97.5]), atol=0.01)


def test_few_clusters_say_nothing() -> None:
    values, clusters = np.ones(90), np.repeat(np.arange(9), 10)
    assert np.isnan(clustered_interval(values, clusters, 0)).all()
    assert math.isnan(sign_flip_p(values, clusters, 0))


def test_values_that_are_all_alike_show_nothing_of_how_they_vary() -> None:
    values, clusters = np.zeros(40), np.repeat(np.arange(20), 2)
    assert np.isnan(clustered_interval(values, clusters, 0)).all()
    assert sign_flip_p(values, clusters, 0) == 1
    low, high = accuracy_interval(values + 1, clusters, 0)
    z = 1.959963984540054  # Wilson's interval for 20 of 20
    assert (low, high) == (pytest.approx(20 / (20 + z**2)), 1)


def test_one_answer_a_subject_is_mcnemars_exact_test() -> None:
    before = np.array([1] * 30 + [0] * 20)
    after = before.copy()
    after[:9] = 0
    after[30:32] = 1
    n, k = 11, 2
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    assert sign_flip_p(after - before, np.arange(50), 0) == pytest.approx(2 * tail)
    assert sign_flip_p(before - before, np.arange(50), 0) == 1
    # Rounding is no difference: thirty sums of a trillionth all rise, and say nothing.
    assert sign_flip_p(np.full(30, 1e-12), np.arange(30), 0) == 1
    # Two answers of each subject are no more than one.
    twice = sign_flip_p(np.repeat(after - before, 2), np.repeat(np.arange(50), 2), 0)
    assert twice == pytest.approx(2 * tail)


def test_holm_by_hand() -> None:
    given = np.array([[0.01, 0.04], [np.nan, 0.03]])
    # Smallest times three, next times two, last as it is, never falling.
    np.testing.assert_allclose(holm(given), [[0.03, 0.06], [np.nan, 0.06]])
    assert np.isnan(holm(np.full(3, np.nan))).all()


def with_subjects(n_items: int, n_subjects: int) -> ParallelTask:
    items = small_task(n_items).items
    return ParallelTask.from_records(
        [{**item, "subject": f"s{i % n_subjects}"} for i, item in enumerate(items)], name="s"
    )


@pytest.mark.parametrize("n_subjects", [2, 7, 30])
def test_halves_share_no_subject(n_subjects: int) -> None:
    task = with_subjects(30, n_subjects)
    subject = {item["id"]: item["subject"] for item in task.items}
    one, other = halves(task)
    assert sorted(one + other) == sorted(subject)
    assert not {subject[x] for x in one} & {subject[x] for x in other}
    assert abs(len(one) - len(other)) <= 30 / n_subjects + 1
    assert (one, other) == halves(task)
    if n_subjects > 2:
        assert halves(task, 1) != (one, other)


def test_one_subject_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="one subject only"):
        halves(with_subjects(4, 1))
