"""Conditions do what they did before sets, edits and outcomes were rebuilt."""

from __future__ import annotations

import numpy as np
import pytest

from tests.interventions.golden import EXACT, SAVED, Case, cases, kept

KNOWN = np.load(SAVED, allow_pickle=False)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "case"), [pytest.param(*one, id=one[0]) for one in cases()])
def test_results_are_those_of_before(name: str, case: Case) -> None:
    found = kept(case())
    saved = {key: KNOWN[key] for key in KNOWN.files if key.startswith(f"{name}/")}
    assert {f"{name}/{key}" for key in found} == saved.keys()
    for key, values in found.items():
        if key in EXACT or values.dtype.kind == "U":
            np.testing.assert_array_equal(values, saved[f"{name}/{key}"], err_msg=key)
        else:
            np.testing.assert_allclose(values, saved[f"{name}/{key}"], 1e-5, 1e-7, err_msg=key)
