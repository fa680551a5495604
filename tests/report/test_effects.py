"""What the page says of deactivation: rows, cells, the sentence, figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import neuroglot as ng
from neuroglot.experiments.differences import DIFFERENT, EQUIVALENT, OPEN
from neuroglot.interventions import amplify, deactivate
from neuroglot.report.effects import effect_cells, effect_lines, effect_rows, points
from neuroglot.report.findings import findings
from neuroglot.report.page import charts
from neuroglot.report.results import sort_results
from tests.interventions.planted import planted_model, planted_task

CONTROLS = ("size", "active", "contribution")
DIMS = ("condition", "against")


def outcome(**differences: tuple[float, float, float, float]) -> xr.Dataset:
    """Differences (no edit, size, active, contribution) of some conditions.

    One of zero is equivalent, one of a hundredth is open, and all others are differences.
    """
    against = ["no_edit", *CONTROLS]
    values = np.array(list(differences.values()))
    n = len(differences)
    ones = np.ones((n, 2, 2), bool)
    moved = abs(values) > 0.011
    verdicts = np.where(values == 0, EQUIVALENT, np.where(moved, DIFFERENT, OPEN))
    return xr.Dataset(
        {
            "difference": (DIMS, values),
            "difference_low": (DIMS, values - 0.02),
            "difference_high": (DIMS, values + 0.01),
            "p": (DIMS, np.where(moved, 0.0001, 0.03) + 0 * values),
            "p_holm": (DIMS, np.where(moved, 0.01, 0.25) + 0 * values),
            "p_equivalent_holm": (DIMS, np.where(values == 0, 0.01, 1.0)),
            "sufficient_subjects": (DIMS, np.where(np.isnan(values), np.nan, 240)),
            "verdict": (DIMS, np.where(np.isnan(values), OPEN, verdicts)),
            "n_prompts": (DIMS, np.where(np.isnan(values), 0, 4)),
            "n_subjects": (DIMS, np.where(np.isnan(values), 0, 12)),
            "reason": (DIMS, np.where(np.isnan(values), "the pool was too small", "")),
            "placebo_difference": (("condition", "control"), np.full((n, 3), 0.004)),
            "placebo_difference_low": (("condition", "control"), np.full((n, 3), -0.01)),
            "placebo_difference_high": (("condition", "control"), np.full((n, 3), 0.02)),
            "placebo_p": (("condition", "control"), np.full((n, 3), 0.4)),
            "placebo_p_holm": (("condition", "control"), np.full((n, 3), 0.9)),
            "correct": (("condition", "item", "language"), ones),
            "correct_no_edit": (("item", "language"), ones[0]),
            "correct_control": (
                ("condition", "control", "draw", "item", "language"), np.ones((n, 3, 1, 2, 2)),
            ),
            "counted": (("item", "language"), ones[0]),
            "n_neurons": (("condition", "item", "language"), 100 * ones),
            "share": ("condition", np.full(n, 0.25)),
            "share_beside": (("condition", "control"), np.full((n, 3), 0.2)),
            "control_share": (("condition", "control"), np.full((n, 3), 0.1)),
        },
        coords={"condition": list(differences), "against": against, "control": list(CONTROLS)},
        attrs={"equivalent_within": 0.05},
    )  # fmt: skip


def found_in(data: xr.Dataset) -> list[str]:
    return findings(effect_rows(data))


def test_findings_say_what_was_found_and_what_was_not() -> None:
    nan = np.nan
    data = outcome(
        all_shared=(-0.1, -0.1, -0.09, -0.05),
        partial_shared=(-0.1, -0.1, nan, nan),
        specific=(0.0, 0.0, 0.0, 0.0),
        specific_here=(0.03, 0.03, 0.03, 0.03),
        non_activated=(nan, nan, nan, nan),
        all_shared_2=(-0.01, -0.1, -0.1, -0.1),
    )
    short = [text.partition(".")[0] for text in found_in(data)]
    assert short == [
        "all-shared: accuracy falls beyond active and equally contributing random neurons",
        "partial-shared: accuracy falls, but too few prompts can be compared with both active and "
        "equally contributing random neurons",
        "specific: accuracy stays the same within ±5 points",
        "specific here: accuracy rises beyond active and equally contributing random neurons",
        "non-activated: too few subjects to compare; at least 10 are needed",
        "all-shared 2: too few items to tell whether accuracy changes",
    ]


def test_an_open_comparison_says_so_with_its_interval_and_what_would_do() -> None:
    (said,) = found_in(outcome(all_shared=(-0.01, 0.0, -0.1, 0.0)))
    assert "no significant" not in said
    assert (
        "−1.0 against no edit (−3.0 to +0.0; p 0.030, corrected 0.250): too few items to tell "
        "(about 240 subjects would tell 5 points from none; there are 12)" in said
    )
    assert (
        "−10.0 against random active (−12.0 to −9.0; p < 0.001, corrected 0.010): a difference"
        in said
    )
    assert "+0.0 against random, same contribution" in said
    assert said.endswith("equivalent within ±5 points.")


def test_a_difference_says_whether_it_is_shown_for_other_relations() -> None:
    data = outcome(all_shared=(-0.1, -0.1, -0.1, -0.1))
    for corrected, expected in ((0.2, "not shown for other relations"), (0.01, "also for other")):
        data["p_over_relations_holm"] = (DIMS, np.full((1, 4), corrected))
        assert found_in(data)[0].count(f"a difference, {expected}") == 3


def test_a_fall_that_a_control_shares_is_no_finding() -> None:
    for controls in ((0.0, 0.0, 0.0), (-0.1, -0.1, 0.0), (-0.1, 0.05, 0.05), (0.0, -0.1, 0.01)):
        (said,) = found_in(outcome(all_shared=(-0.1, *controls)))
        assert said.startswith("all-shared: accuracy falls, but that is not shown beyond both")


def test_a_claim_needs_both_controls_and_says_of_which_prompts_it_is() -> None:
    data = outcome(all_shared=(-0.1, -0.1, -0.1, -0.1))
    (said,) = found_in(data.sel(against=["no_edit", "active"]))
    assert said.startswith("all-shared: accuracy falls; it was not held against both")
    unknown = data.assign(difference=data["difference"].where(data["against"] != "contribution"))
    assert found_in(unknown)[0].startswith("all-shared: accuracy falls, but too few prompts can be")
    data["n_prompts"][0, 3] = 3
    assert "−10.0 against random, same contribution on 3 of 4 prompts" in found_in(data)[0]
    assert effect_cells(effect_rows(data))[1][-2][-1] == "3"


def test_a_placebo_that_differs_is_said() -> None:
    data = outcome(all_shared=(-0.1, -0.1, -0.1, -0.1))
    assert "placebo" not in found_in(data)[0]
    data["placebo_p_holm"][0, 1] = 0.01
    assert found_in(data)[0].endswith(
        "The placebo of random active differs from it by +0.4: do not rest claims on this control."
    )


def test_outcomes_of_before_are_still_shown() -> None:
    data = outcome(all_shared=(-0.1, -0.1, -0.01, 0.0))
    new = [name for name in data if str(name).startswith(("placebo", "p_eq", "suff", "verd"))]
    old = data.drop_vars(new).drop_attrs()
    (said,) = found_in(old)
    assert "−10.0 against no edit (−12.0 to −9.0; p < 0.001, corrected 0.010): a difference" in said
    assert "corrected 0.250): too few items to tell." in said
    assert len(effect_lines(effect_rows(old))[1]) == 5


def test_cells_show_differences_with_intervals_and_p_values() -> None:
    data = outcome(all_shared=(-0.1, 0.0, np.nan, -0.05))
    heads, cells = effect_cells(effect_rows(data))
    of_condition = ["all-shared", "100", "25% (20%, 10%)", "100.0%"]
    assert heads[4:] == [
        "held against", "difference (95 %)", "p", "corrected", "finding", "prompts"
    ]  # fmt: skip
    assert cells[0] == [
        *of_condition, "no edit", "−10.0 (−12.0 to −9.0)", "< 0.001", "0.010", "difference", "4",
    ]  # fmt: skip
    assert cells[1][4:] == [
        "random, as many", "+0.0 (−2.0 to +1.0)", "0.030", "0.250", "equivalent", "4"
    ]  # fmt: skip
    assert cells[2][4:] == [
        "placebo of random, as many", "+0.4 (−1.0 to +2.0)", "0.400", "0.900", "", "4"
    ]  # fmt: skip
    assert cells[3][4:] == ["random active", "–", "–", "–", "–", "0"]
    _, lines = effect_lines(effect_rows(data))
    assert lines[0] == ["all-shared: 100 neurons", "", "", "", ""]
    assert lines[3] == ["    placebo of size", "+0.4 (−1.0 to +2.0)", "0.400", "0.900", ""]
    assert lines[4] == ["  active", "–", "–", "–", "0"]
    assert lines[6] == ["  contribution", "−5.0 (−7.0 to −4.0)", "< 0.001", "0.010", "4"]
    assert [points(x) for x in (0.0, -0.0, np.nan)] == ["+0.0", "+0.0", "–"]


@pytest.fixture(scope="module")
def planted() -> dict[str, xr.Dataset]:
    model, task = planted_model(), planted_task()
    recording = ng.record(model, task)
    settings = {"categories": ["all_shared"], "draws": 1}
    return {
        "deactivation": deactivate(model, task, recording, draws=1),
        "dose-response": deactivate(
            model,
            task,
            recording,
            variants=ng.doses(0.5, 1),
            draws=1,
            categories=["all_shared", "specific"],
        ),
        "layer-bands": deactivate(
            model, task, recording, variants=ng.layer_bands(model, 2), **settings
        ),
        "keep-only": deactivate(
            model, task, recording, variants=[ng.Variant(keep_only=True)], **settings
        ),
        "amplification": amplify(model, task, recording, factors=(2.0,), draws=1),
    }


def test_rows_are_of_the_prompts_that_have_both(planted: dict[str, xr.Dataset]) -> None:
    for row in effect_rows(planted["deactivation"]):
        if not np.isnan(row["difference"]):
            difference = row["accuracy"] - row["accuracy_against"]
            assert difference == pytest.approx(row["difference"], abs=1e-6)


@pytest.mark.slow
def test_every_kind_is_drawn(planted: dict[str, xr.Dataset], tmp_path: Path) -> None:
    results = {f"planted/{kind}": found for kind, found in planted.items()}
    made = charts(sort_results(results))
    # Amplification is of half of the items, which are of fewer than ten subjects here.
    assert set(made) == {
        "deactivation", "effect-per-neuron", "deactivation-accuracy-planted", "dose-response",
        "layer-bands", "keep-only",
    }  # fmt: skip
    page = ng.report(results, tmp_path / "report.html", tmp_path / "figures")
    text = page.read_text(encoding="utf-8")
    assert (
        "all-shared: accuracy falls beyond active and equally contributing random neurons." in text
    )
    assert "all-shared, times 2: too few subjects to compare" in text
    assert {p.stem for p in (tmp_path / "figures").glob("*.svg")} == set(made)
    table = (tmp_path / "report.effects.csv").read_text(encoding="utf-8-sig").splitlines()
    assert table[0].startswith("run,kind,condition,against,neurons")


def test_figures_show_every_known_difference(planted: dict[str, xr.Dataset]) -> None:
    found = planted["deactivation"]
    chart = charts(sort_results({"planted": found}))["deactivation"].to_dict()
    (rows,) = chart["datasets"].values()
    shown = {(row["condition"], row["against"]): row["difference"] for row in rows}
    assert len(shown) == int(found["difference"].count())
    assert shown["all-shared", "no_edit"] == pytest.approx(-75)


def test_doses_of_two_categories_have_panels_of_their_own(planted: dict[str, xr.Dataset]) -> None:
    made = charts(sort_results({"planted": planted["dose-response"]}))["dose-response"].to_dict()
    assert made["facet"]["row"]["field"] == "category"
    (rows,) = made["datasets"].values()
    places = [(row["category"], row["dose"], row["against"]) for row in rows]
    assert len(set(places)) == len(places) > 8
