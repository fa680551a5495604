"""What the page says of deactivation: rows, cells, the sentence, figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import neuroglot as ng
from neuroglot.interventions import amplify, deactivate
from neuroglot.report.effects import effect_cells, effect_lines, effect_rows, finding, points
from neuroglot.report.page import charts
from neuroglot.report.results import sort_results
from tests.interventions.planted import planted_model, planted_task

CONTROLS = ("size", "active", "contribution")


def outcome(**differences: tuple[float, float, float, float]) -> xr.Dataset:
    """Differences (no edit, size, active, contribution) of some conditions, all significant."""
    against = ["no_edit", *CONTROLS]
    values = np.array(list(differences.values()))
    dims = ("condition", "against")
    n = len(differences)
    ones = np.ones((n, 2, 2), bool)
    return xr.Dataset(
        {
            "difference": (dims, values),
            "difference_low": (dims, values - 0.01),
            "difference_high": (dims, values + 0.01),
            "p": (dims, np.where(values == 0, 1.0, values * 0 + 0.001)),
            "p_holm": (dims, np.where(values == 0, 1.0, values * 0 + 0.01)),
            "n_prompts": (dims, np.where(np.isnan(values), 0, 4)),
            "n_subjects": (dims, np.where(np.isnan(values), 0, 12)),
            "reason": (dims, np.where(np.isnan(values), "the pool was too small", "")),
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
    )  # fmt: skip


def test_the_sentence_says_what_was_found_and_what_was_not() -> None:
    nan = np.nan
    found = outcome(
        all_shared=(-0.1, -0.1, -0.09, -0.05),
        partial_shared=(-0.1, -0.1, nan, nan),
        specific=(0.0, 0.0, 0.0, 0.0),
        specific_here=(0.03, 0.03, 0.03, 0.03),
        non_activated=(nan, nan, nan, nan),
    )
    assert finding(effect_rows(found)) == (
        "In percentage points: accuracy falls beyond active and equally contributing random "
        "neurons for all-shared (−10.0 against no edit, −9.0 against random active, −5.0 against "
        "random, same contribution); accuracy rises beyond active and equally contributing random "
        "neurons for specific here (+3.0 against no edit, +3.0 against random active, +3.0 against "
        "random, same contribution); it changes, but too few prompts can be compared with both "
        "active and equally contributing random neurons for partial-shared (−10.0 against no "
        "edit); no significant change for specific (+0.0); too few subjects to compare for "
        "non-activated."
    )


def test_a_fall_that_a_control_shares_is_no_finding() -> None:
    for controls in ((0.0, 0.0, 0.0), (-0.1, -0.1, 0.0), (-0.1, 0.05, 0.05)):
        said = finding(effect_rows(outcome(all_shared=(-0.1, *controls))))
        assert said.startswith("In percentage points: it changes, but not shown beyond both")


def test_a_claim_needs_both_controls_and_says_of_which_prompts_it_is() -> None:
    found = outcome(all_shared=(-0.1, -0.1, -0.1, -0.1))
    few = found.sel(against=["no_edit", "active"])
    assert finding(effect_rows(few)).startswith(
        "In percentage points: it changes, but too few prompts can be"
    )
    found["n_prompts"][0, 3] = 3
    assert "−10.0 against random, same contribution on 3 of 4 prompts" in finding(
        effect_rows(found)
    )
    assert effect_cells(effect_rows(found))[1][0][-1] == "−10.0* (−11.0 to −9.0, 3)"


def test_cells_show_differences_with_intervals_and_stars() -> None:
    found = outcome(all_shared=(-0.1, 0.0, np.nan, -0.05))
    _, cells = effect_cells(effect_rows(found))
    assert cells == [
        ["all-shared", "100", "25% (20%, 10%)", "100.0%", "−10.0* (−11.0 to −9.0)",
         "+0.0 (−1.0 to +1.0)", "–", "−5.0* (−6.0 to −4.0)"]
    ]  # fmt: skip
    _, lines = effect_lines(effect_rows(found))
    assert lines[0] == ["all-shared: 100 neurons", "", "", ""]
    assert lines[3] == ["  active", "–", "–", "0"]
    assert lines[4] == ["  contribution", "−5.0 (−6.0 to −4.0)", "0.010", "4"]
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
        "accuracy falls beyond active and equally contributing random neurons for all-shared"
        in text
    )
    assert "too few subjects to compare for all-shared, times 2" in text
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
