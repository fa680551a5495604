"""What the page says of interventions: rows, cells, the sentence, figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import neuroglot as ng
from neuroglot.answering.differences import DIFFERENT, EQUIVALENT, OPEN
from neuroglot.interventions.controls import OfPrompt, size
from neuroglot.interventions.presets import Parts, amplify, deactivate
from neuroglot.reporting.cells import points
from neuroglot.reporting.gathering import sort_results, tables
from neuroglot.reporting.kinds.outcome import how_edited
from neuroglot.reporting.kinds.outcome_findings import findings
from neuroglot.reporting.kinds.outcome_rows import effect_rows, group_of
from neuroglot.reporting.page import charts
from neuroglot.reporting.table import Table
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
    ones = np.ones((2, 2), bool)
    of_control, answered = ("condition", "kind"), ("condition", "arm", "item", "language")
    # Of the condition's neurons and of those of each control, which no prompt of German has.
    shares = np.tile(np.array([0.2, 0.1, 0.1, 0.1])[:, None, None], (n, 1, 2, 2))
    shares[:, 0, :, 1] = 0.3
    shares[:, 1:, :, 1] = np.nan
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
            "placebo_difference": (of_control, np.full((n, 3), 0.004)),
            "placebo_difference_low": (of_control, np.full((n, 3), -0.01)),
            "placebo_difference_high": (of_control, np.full((n, 3), 0.02)),
            "placebo_p": (of_control, np.full((n, 3), 0.4)),
            "placebo_p_holm": (of_control, np.full((n, 3), 0.9)),
            "correct": (answered, np.ones((n, 4, 2, 2))),
            "correct_no_edit": (("item", "language"), ones),
            "counted": (("item", "language"), ones),
            "n_neurons": (("condition", "item", "language"), np.full((n, 2, 2), 100)),
            "share": (answered, shares),
        },
        coords={
            "condition": list(differences),
            "against": against,
            "kind": list(CONTROLS),
            "control": ("arm", ["", *CONTROLS]),
            "draw": ("arm", [-1, 0, 0, 0]),
            "item": ["a", "b"],
            "language": ["en", "de"],
        },
        attrs={
            "kind": "outcome",
            "equivalent_within": 0.05,
            "edit_position": "last",
            "chosen_on": 0,
        },
    )


def table_of(data: xr.Dataset) -> Table:
    (table,) = tables(data.assign_attrs(model="m", task="t"))
    return table


def below(heading: str, table: Table) -> list[str]:
    place = table.headings().index(heading)
    return [cells[place] for cells in table.cells()]


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
    assert said.startswith("all-shared: accuracy falls; it was not compared with both")
    unknown = data.assign(difference=data["difference"].where(data["against"] != "contribution"))
    assert found_in(unknown)[0].startswith("all-shared: accuracy falls, but too few prompts can be")
    data["n_prompts"][0, 3] = 3
    assert "−10.0 against random, same contribution on 3 of 4 prompts" in found_in(data)[0]
    assert below("prompts", table_of(data)) == ["", "4", "4", "4", "3"]


def test_a_placebo_that_differs_is_said() -> None:
    data = outcome(all_shared=(-0.1, -0.1, -0.1, -0.1))
    assert "placebo" not in found_in(data)[0]
    data["placebo_p_holm"][0, 1] = 0.01
    assert found_in(data)[0].endswith(
        "The placebo of random active differs from it by +0.4: do not rest claims on this control."
    )


@pytest.mark.parametrize("old", ["deactivation", "dose-response", "amplification", "variants"])
def test_an_outcome_of_before_is_to_be_made_again(old: str) -> None:
    data = outcome(all_shared=(-0.1, -0.1, -0.01, 0.0)).assign_attrs(kind=old)
    with pytest.raises(ng.NeuroglotError, match=rf"'old/it' is a '{old}' of an earlier version"):
        charts(sort_results({"old/it": data}))


def test_cells_show_differences_with_intervals_and_p_values() -> None:
    table = table_of(outcome(all_shared=(-0.1, 0.0, np.nan, -0.05)))
    assert table.title.endswith("accuracy 100.0% without any edit")
    assert table.headings() == [
        "condition, and held against", "difference (95 %)", "p", "corrected", "prompts",
        "placebo (95 %)", "placebo p", "placebo corrected", "contribution", "accuracy", "finding",
    ]  # fmt: skip
    placebo = ["+0.4 (−1.0 to +2.0)", "0.400", "0.900"]
    cells = table.cells()
    assert cells[0] == ["all-shared: 100 neurons", *[""] * 10]
    assert cells[1] == [
        "  no edit", "−10.0 (−12.0 to −9.0)", "< 0.001", "0.010", "4", "–", "–", "–",
        "25%", "100.0%", "difference",
    ]  # fmt: skip
    assert cells[2] == [
        "  random, as many", "+0.0 (−2.0 to +1.0)", "0.030", "0.250", "4", *placebo,
        "20% (10%)", "100.0%", "equivalent",
    ]  # fmt: skip
    unknown = ["–", "–", "–", "0", *placebo, "20% (10%)", "100.0%", "–"]
    assert cells[3] == ["  random active", *unknown]
    assert cells[4][:5] == [
        "  random, same contribution", "−5.0 (−7.0 to −4.0)", "< 0.001", "0.010", "4"
    ]  # fmt: skip
    # Sentences below the table in a terminal say what it leaves out.
    assert table.headings(in_terminal=True) == table.headings()[:8]
    assert [points(x) for x in (0.0, -0.0, np.nan)] == ["+0.0", "+0.0", "–"]


def any_but_the_first(of: OfPrompt, rng: np.random.Generator) -> np.ndarray | None:
    """A control of a user's: random neurons, as many, none of them the first of a layer."""
    pool = ~of.whole
    pool[:, 0] = False
    return size(replace(of, whole=~pool), rng)


@pytest.fixture(scope="module")
def planted() -> dict[str, xr.Dataset]:
    model, task = planted_model(), planted_task()
    recording = ng.record(model, task)
    controls = ng.Controls(draws=1)
    shared = ng.NeuronSet.from_category(recording, "all_shared")
    shares = (0.25, 1.0, 0.5)
    two = [shared, ng.NeuronSet.from_category(recording, "specific")]

    def found(categories: Sequence[str] = ("all_shared",), parts: Parts | None = None) -> Any:
        return deactivate(
            model, task, recording, categories=categories, parts=parts, controls=controls
        )

    def asked(edits: Mapping[str, Any], **how: Any) -> xr.Dataset:
        chosen = ng.Controls(["size", any_but_the_first], draws=1)
        return ng.intervene(model, task, edits, recording=recording, controls=chosen, **how)

    return {
        "deactivation": deactivate(model, task, recording, controls=controls),
        "dose-response": found(("all_shared", "specific"), Parts((0.5, 1))),
        "layer-bands": found(parts=Parts(bands=((0,), (1,)))),
        "keep-only": found(parts=Parts(keep_only=True)),
        "scaled": found(parts=Parts(factor=0.5)),
        "amplification": amplify(model, task, recording, factors=(2.0,), controls=controls),
        "conditions": asked({"off": ng.Zero(shared), "doubled": ng.Scale(shared, 2)}),
        "by-dose": asked(
            {f"{share}": ng.Zero(shared.strongest(share)) for share in shares},
            coordinates={"dose": shares, "always": [1, 1, 1]},
        ),
        "by-share": asked(
            {f"{one.name} {x}": ng.Zero(one.strongest(x)) for one in two for x in (0.5, 1)},
            coordinates={
                "prompts": [0.5, 1, 0.5, 1],  # as a column of the table is called
                "category": [one.name for one in two for _ in range(2)],
            },
        ),
    }


def test_rows_are_of_the_prompts_that_have_both(planted: dict[str, xr.Dataset]) -> None:
    for row in effect_rows(planted["deactivation"]):
        if not np.isnan(row["difference"]):
            difference = row["accuracy"] - row["accuracy_against"]
            assert difference == pytest.approx(row["difference"], abs=1e-6)


def test_kinds_are_by_what_conditions_differ_in(planted: dict[str, xr.Dataset]) -> None:
    expected = {kind: kind for kind in planted} | {"by-share": "by-prompts"}
    assert {name: group_of(found) for name, found in planted.items()} == expected


def test_what_was_done_is_said(planted: dict[str, xr.Dataset]) -> None:
    done = {
        **dict.fromkeys(("deactivation", "dose-response", "layer-bands"), ("switched off",)),
        "keep-only": ("kept", "all others switched off"),
        "scaled": ("multiplied",),
        "amplification": ("multiplied", "chosen on the other half of the items"),
        **dict.fromkeys(("conditions", "by-dose", "by-share"), ("edited as the conditions say",)),
    }
    for name, outcome_of in planted.items():
        for words in (*done[name], "at the last prompt token and the answer's tokens"):
            assert words in how_edited(outcome_of), name
    chosen = planted["deactivation"].assign_attrs(chosen_on=1200, edit_position="all")
    assert how_edited(chosen) == (
        "Neurons are switched off at all tokens of prompt and answer; they were chosen on 1,200 "
        "other items."
    )


def test_two_outcomes_of_one_kind_are_of_two_runs(planted: dict[str, xr.Dataset]) -> None:
    results = {f"planted/{kind}": found for kind, found in planted.items()}
    with pytest.raises(ng.NeuroglotError, match="'planted' has two results of kind 'by-dose'"):
        sort_results(results | {"planted/again": planted["by-dose"]})


@pytest.mark.slow
def test_every_kind_is_drawn(planted: dict[str, xr.Dataset], tmp_path: Path) -> None:
    results = {f"planted/{kind}": found for kind, found in planted.items()}
    made = charts(sort_results(results))
    # Amplification is of half of the items, which are of fewer than ten subjects here.
    assert set(made) == {
        "deactivation", "effect-per-neuron", "deactivation-accuracy-planted", "dose-response",
        "layer-bands", "keep-only", "scaled", "conditions", "conditions-accuracy-planted",
        "by-dose", "by-prompts",
    }  # fmt: skip
    page = ng.report(results, out=tmp_path / "report.html", figures=tmp_path / "figures")
    text = page.read_text(encoding="utf-8")
    assert (
        "all-shared: accuracy falls beyond active and equally contributing random neurons." in text
    )
    assert "all-shared, times 2: too few subjects to compare" in text
    assert {p.stem for p in (tmp_path / "figures").glob("*.svg")} == set(made)
    table = (tmp_path / "report.effects.csv").read_text(encoding="utf-8-sig").splitlines()
    assert table[0].startswith("run,kind,condition,against,neurons")
    assert "planted,by-dose,0.25,any_but_the_first," in "\n".join(table)
    assert "<td>&emsp;any but the first</td>" in text


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


def rows_of(chart: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    made = chart.to_dict()
    (rows,) = made["datasets"].values()
    return made, rows


def encodings(part: Any, channel: str) -> Iterator[dict[str, Any]]:
    """What a channel shows, in every layer of a chart."""
    if isinstance(part, dict) and channel in part.get("encoding", {}):
        yield part["encoding"][channel]
    for inner in part.values() if isinstance(part, dict) else part:
        if isinstance(inner, dict | list):
            yield from encodings(inner, channel)


def test_a_coordinate_of_the_user_has_one_figure_along_it(planted: dict[str, xr.Dataset]) -> None:
    found = planted["by-dose"]
    made = charts(sort_results({"planted": found}))
    assert set(made) == {"by-dose"}
    chart, rows = rows_of(made["by-dose"])
    assert "row" not in chart["facet"], "one panel"
    place = next(x for x in encodings(chart, "x") if "field" in x)
    assert (place["field"], place["title"]) == ("value", "dose")
    assert place["sort"] == ["0.25", "0.5", "1.0"], "in the order of numbers"
    shown = {(row["value"], row["against"]): row["difference"] for row in rows}
    assert len(shown) == 9
    for dose, one in found.groupby("dose"):
        for against in ("no_edit", "size", "any_but_the_first"):
            expected = 100 * float(one["difference"].sel(against=against).squeeze())
            assert shown[str(dose), against] == pytest.approx(expected)


def test_a_coordinate_that_is_no_number_stands_as_it_was_given(
    planted: dict[str, xr.Dataset],
) -> None:
    found = planted["by-dose"].drop_vars(["dose", "always"])
    found = found.assign_coords(how_many=("condition", ["some", "all", "many"]))
    chart, _ = rows_of(charts(sort_results({"planted": found}))["by-how-many"])
    place = next(x for x in encodings(chart, "x") if "field" in x)
    assert (place["title"], place["sort"]) == ("how many", ["some", "all", "many"])


def test_a_category_beside_a_coordinate_has_a_panel_of_its_own(
    planted: dict[str, xr.Dataset],
) -> None:
    chart, rows = rows_of(charts(sort_results({"planted": planted["by-share"]}))["by-prompts"])
    assert chart["facet"]["row"]["sort"] == ["all-shared", "specific"]
    places = [(row["category"], row["value"], row["against"]) for row in rows]
    assert len(set(places)) == len(places) > 8


def test_a_control_of_the_user_is_in_tables_and_figures(planted: dict[str, xr.Dataset]) -> None:
    found, name = planted["conditions"], "any but the first"
    (table,) = tables(found, name="planted")
    assert [row[0] for row in table.cells()].count(f"  {name}") == 2
    made = charts(sort_results({"planted": found}))
    assert set(made) == {"conditions", "conditions-accuracy-planted"}
    for chart in made.values():
        made_of, rows = rows_of(chart)
        assert name in {row["arm"] for row in rows}
        text = json.dumps(made_of)
        assert "switched off" not in text, "one of the conditions is another edit"
    _, rows = rows_of(made["conditions-accuracy-planted"])
    assert {row["arm"] for row in rows} == {"edited", "no edit", "random, as many", name}
    for colour in encodings(made_of, "color"):
        assert len(set(colour["scale"]["range"])) == len(colour["scale"]["domain"]) == 4
