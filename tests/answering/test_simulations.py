"""Few of the data sets of ``docs.make_statistics``: no test finds far too much in nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tests.answering.simulated import (
    BOUND,
    CORRECTED,
    PLACEBO,
    PLAIN,
    RELATIONS,
    SCENARIOS,
    Scenario,
    called_equivalent,
    found,
)

SETS = range(40)
BY_RELATION = next(one for one in SCENARIOS if one.by_relation)


def too_many(hits: np.ndarray) -> bool:
    """Whether a test that finds something in 7 % would hardly ever find so much."""
    return bool(stats.binom.sf(hits.sum() - 1, len(hits), 0.07) < 0.001)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_nothing_is_found_in_nothing(scenario: Scenario) -> None:
    hits = found(scenario, SETS)
    if scenario == BY_RELATION:  # on these relations there is something
        hits = {name: hits[name] for name in (RELATIONS, PLACEBO)}
    assert not {name: int(one.sum()) for name, one in hits.items() if too_many(one)}
    assert CORRECTED in hits or scenario == BY_RELATION


def test_tests_that_take_copies_for_independent_are_fooled() -> None:
    """The same data sets, whose equal prompts nobody told the tests of."""
    fourfold = next(one for one in SCENARIOS if one.copies > 1)
    assert too_many(found(fourfold, SETS, told=False)["against no edit"])


def test_a_difference_of_the_bound_is_seldom_called_equivalent() -> None:
    assert not too_many(called_equivalent(PLAIN, SETS))
    assert BOUND == 0.05
