"""Conditions do what they did before sets, edits and outcomes were rebuilt."""

from __future__ import annotations

import numpy as np
import pytest

from tests.interventions.golden import EXACT, NAMES, SAVED, kept, outcomes

KNOWN = np.load(SAVED, allow_pickle=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_results_are_those_of_before(name: str) -> None:
    saved = {key.partition("/")[2]: KNOWN[key] for key in KNOWN.files if key.startswith(f"{name}/")}
    before = saved.pop("condition").tolist()
    parts = [kept(found) for found in outcomes(name)]
    assert sorted(x for part in parts for x in part["condition"].tolist()) == sorted(before)
    for part in parts:
        rows = [before.index(condition) for condition in part.pop("condition").tolist()]
        assert part.keys() == saved.keys()
        for key, values in part.items():
            if key == "p_holm" and len(parts) > 1:
                continue
            expected = saved[key] if key in ("correct_no_edit", "development_accuracy") else (
                saved[key][rows]
            )  # fmt: skip
            if key in EXACT:
                np.testing.assert_array_equal(values, expected, err_msg=key)
            else:
                np.testing.assert_allclose(values, expected, 1e-5, 1e-7, err_msg=key)
