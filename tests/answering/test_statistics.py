"""Clustered intervals and Holm, each against a longhand computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from neuroglot.answering.statistics import (
    accuracy_interval,
    clustered_interval,
    holm,
)
from neuroglot.tasks.halves import halves, parts_of
from neuroglot.tasks.parallel import ParallelTask
from tests.testing import small_task


def test_the_interval_resamples_clusters() -> None:
    rng = np.random.default_rng(3)
    values, clusters = rng.random(60), rng.integers(0, 12, 60)
    low, high = clustered_interval(values, clusters, 0)
    groups = [values[clusters == name] for name in np.unique(clusters)]
    means = []
    for _ in range(4000):
        picked = [groups[i] for i in rng.integers(0, len(groups), len(groups))]
        means.append(np.concatenate(picked).mean())
    # Student's 2.201 for eleven degrees of freedom, and as much more as n / (n − 1) asks for.
    outside = 100 * stats.norm.sf(2.201 * math.sqrt(12 / 11))
    np.testing.assert_allclose(
        [low, high], np.percentile(means, [outside, 100 - outside]), atol=0.01
    )


def test_few_clusters_say_nothing() -> None:
    values, clusters = np.ones(90), np.repeat(np.arange(9), 10)
    assert np.isnan(clustered_interval(values, clusters, 0)).all()


def test_values_that_are_all_alike_show_nothing_of_how_they_vary() -> None:
    values, clusters = np.zeros(40), np.repeat(np.arange(20), 2)
    assert np.isnan(clustered_interval(values, clusters, 0)).all()
    low, high = accuracy_interval(values + 1, clusters, 0)
    z = 1.959963984540054  # Wilson's interval for 20 of 20
    assert (low, high) == (pytest.approx(20 / (20 + z**2)), 1)


def test_holm_by_hand() -> None:
    given = np.array([[0.01, 0.04], [np.nan, 0.03]])
    # Smallest times three, next times two, last as it is, never falling.
    np.testing.assert_allclose(holm(given), [[0.03, 0.06], [np.nan, 0.06]])
    assert np.isnan(holm(np.full(3, np.nan))).all()


def test_holm_as_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 40):
        given = rng.choice([rng.random(size) ** 3, np.full(size, 0.02)])
        np.testing.assert_allclose(holm(given), multipletests(given, method="holm")[1])


def with_subjects(n_items: int, n_subjects: int) -> ParallelTask:
    items = small_task(n_items).items
    return ParallelTask.from_records(
        [{**item, "subject": f"s{i % n_subjects}"} for i, item in enumerate(items)], name="s"
    )


@pytest.mark.parametrize("n_subjects", [2, 7, 30])
def test_halves_share_no_subject(n_subjects: int) -> None:
    task = with_subjects(30, n_subjects)
    one, other = halves(task)
    assert ids_of(one) | ids_of(other) == ids_of(task)
    assert len(one) + len(other) == len(task)
    subjects = [{item["subject"] for item in half.items} for half in (one, other)]
    assert not subjects[0] & subjects[1]
    assert abs(len(one) - len(other)) <= 30 / n_subjects + 1
    assert (one, other) == halves(task)
    assert tuple(map(ids_of, (one, other))) == tuple(map(set, parts_of(task, 0.5)))
    if n_subjects > 2:
        assert halves(task, seed=1) != (one, other)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_parts_have_about_their_share(share: float) -> None:
    task = with_subjects(60, 20)
    first, second = parts_of(task, share, seed=1)
    assert set(first) | set(second) == ids_of(task)
    assert not set(first) & set(second)
    assert abs(len(first) - 60 * share) <= 3, "a subject has three items"


def ids_of(task: ParallelTask) -> set[str]:
    return {item["id"] for item in task.items}


def test_one_subject_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="one subject"):
        halves(with_subjects(4, 1))
