"""Selection sampling: right numbers in every stratum, and every subset as likely."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from neuroglot.neurons.sampling import sample

SHAPE = (2, 12)


@settings(deadline=None)  # the first draw is compiled
@given(
    arrays(np.bool_, SHAPE),
    arrays(np.bool_, SHAPE),
    arrays(np.uint8, SHAPE, elements=st.integers(0, 3)),
)
def test_as_many_of_every_stratum_or_none(
    wanted: np.ndarray, pool: np.ndarray, strata: np.ndarray
) -> None:
    found = sample(wanted, pool, np.random.default_rng(0), strata)

    def numbers(mask: np.ndarray) -> list[Counter[int]]:
        return [Counter(strata[layer][mask[layer]].tolist()) for layer in range(SHAPE[0])]

    enough = all(n <= m for n, m in zip(numbers(wanted), numbers(pool), strict=True))
    assert (found is not None) == enough
    if found is not None:
        assert not (found & ~pool).any()
        assert numbers(found) == numbers(wanted)


def test_every_subset_is_as_likely() -> None:
    wanted = np.array([[True, True, False, False, False, False]])
    pool = np.array([[False, True, True, True, False, True]])
    rng = np.random.default_rng(1)
    drawn = Counter(tuple(np.flatnonzero(sample(wanted, pool, rng))) for _ in range(6000))
    assert len(drawn) == 6  # pairs of four
    assert stats.chisquare(list(drawn.values())).pvalue > 1e-3
