"""The page opens offline, escapes what data say, and draws what it should."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import neuroglot as ng
from neuroglot.reporting.cells import percent
from neuroglot.reporting.gathering import run_facts, sort_results, tables
from neuroglot.reporting.headline import headline, headline_table
from neuroglot.reporting.kinds.answers import accuracy_rows, why_not_masked
from neuroglot.reporting.kinds.sharing import activity_by_language
from neuroglot.reporting.page import charts
from neuroglot.reporting.style import CATEGORY_COLOURS, language_lines
from tests.testing import small_task, tiny_model


@pytest.fixture(scope="module")
def results() -> dict:
    model, task = tiny_model("llama"), small_task(24)
    recording = ng.record(model, task, reading=ng.Reading(thresholds=(0.0, 0.1)))
    return {
        "one/sharing": ng.classify(recording),
        "one/answers": ng.evaluate(model, task),
        "one/attribution": ng.attribute(model, task, recording=recording),
        "one/agreement": ng.causal_agreement(model, task.first(4), n_neurons=5),
        "one/thresholds": ng.classify(recording, thresholds=recording.thresholds),
        "two/sharing": ng.classify(recording),
        "tasks": ng.compare(
            [recording, ng.Recording(recording.dataset.assign_attrs(task="other"))]
        ),
    }


def test_page_figures_and_tables(results: dict, tmp_path: Path) -> None:
    page = ng.report(results, out=tmp_path / "out" / "report.html", figures=tmp_path / "figures")
    html = page.read_text()
    assert "<script src" not in html
    assert "@import" not in html
    names = {"accuracy", "baselines", "fractions", "activity", "repetition", "overlap"}
    names |= {"thresholds", "tasks-tasks", "score-shares", "causal-agreement"}
    names |= {f"{kind}-one" for kind in ("shares", "curves", "maxima", "correct")}
    for suffix in (".png", ".svg"):
        assert {path.stem for path in (tmp_path / "figures").glob(f"*{suffix}")} == names
    for path in (tmp_path / "figures").glob("*.png"):
        width, height = struct.unpack(">II", path.read_bytes()[16:24])
        assert width > 400, path
        assert height > 400, path
    items = pd.read_csv(page.with_suffix(".items.csv"))
    assert len(items) == 2 * 24 * 3
    assert {"run", "item", "language", "active", "shared_of_active", "correct"} <= set(items)
    scores = pd.read_csv(page.with_suffix(".attribution.csv"))
    assert len(scores) == 3 * 3 * 3 * 3 * 4
    assert {"run", "score", "answered", "category", "positive_share", "maximum"} <= set(scores)
    layers = pd.read_csv(page.with_suffix(".layers.csv"))
    assert len(layers) == 2 * 3 * 4


def test_a_category_has_one_colour_everywhere(results: dict) -> None:
    made = charts(sort_results(results))
    for name in ("fractions", "baselines", "repetition", "thresholds"):
        text = str(made[name].to_dict())
        for colour in CATEGORY_COLOURS.values():
            assert colour in text, name


def test_text_from_data_is_escaped(results: dict, tmp_path: Path) -> None:
    bad = "</script><img src=x onerror=alert(1)>"
    named = {
        f"{bad.replace('/', '')}/sharing": results["one/sharing"].assign_attrs(task=bad),
    }
    html = ng.report(named, out=tmp_path / "r.html").read_text()
    assert "<img src=x" not in html
    assert html.count("</script>") == 2


def test_headline_numbers(results: dict) -> None:
    rows = headline(sort_results(results))
    assert [row["run"] for row in rows] == ["one", "two"]
    sharing, answers = results["one/sharing"], results["one/answers"]
    held = answers["held_out"].to_numpy()
    correct = answers["correct"].to_numpy()
    assert np.isnan(rows[0]["accuracy"])
    assert rows[0]["taught"] == correct[~held].mean()
    assert rows[0]["held_out"] == correct[held].mean()
    assert rows[0]["chance"] == pytest.approx(1 / 3)
    assert rows[0]["all_shared"] == float(sharing["fraction"].sel(category="all_shared").mean())


def test_what_cannot_be_drawn_is_refused(results: dict, tmp_path: Path) -> None:
    with pytest.raises(ng.NeuroglotError, match="no results"):
        ng.report({}, out=tmp_path / "r.html")
    odd = results["one/sharing"].assign_attrs(kind="soup")
    with pytest.raises(ng.NeuroglotError, match="'odd' is of kind 'soup'"):
        ng.report({"odd": odd}, out=tmp_path / "r.html")
    twice = {"a/one": results["one/sharing"], "a/two": results["two/sharing"]}
    with pytest.raises(ng.NeuroglotError, match="run 'a' has two results of kind 'sharing'"):
        ng.report(twice, out=tmp_path / "r.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(ng.NeuroglotError, match="cannot write"):
        ng.report(results, out=tmp_path / "file" / "r.html")


def answered(held_out: list[list[bool]]) -> xr.Dataset:
    """Three items in two languages; the first item is answered right in both, the others wrong."""
    dims = ("item", "language")
    shape = (3, 2)
    return xr.Dataset(
        {
            "correct": (dims, [[True, True], [False, False], [False, False]]),
            "chance": (dims, np.full(shape, 0.5)),
            "majority": (dims, [[1, 0.25], [0.5, 0], [0, 0.5]]),
            "margin": (dims, [[2.0, 1.0], [-1.0, -3.0], [-2.5, -0.5]]),
            "held_out": (dims, held_out),
            "counted": (dims, np.ones(shape, bool)),
        },
        coords={"item": list("abc"), "language": ["en", "de"]},
        attrs={"kind": "evaluation", "split": "all", "seed": 0},
    )


def test_taught_and_held_out_prompts_stand_apart_beside_the_majority() -> None:
    answers = answered([[True, False], [True, False], [True, True]])
    english, german = accuracy_rows(answers)
    # English was never taught, German for the first two items.
    assert np.isnan(english["taught"])
    assert english["taught_prompts"] == 0
    assert (english["held_out"], english["held_out_prompts"]) == (pytest.approx(1 / 3), 3)
    assert english["majority"] == pytest.approx(0.5)  # over its three held-out prompts
    assert english["margin"] == pytest.approx(-0.5)
    assert (german["taught"], german["taught_prompts"]) == (0.5, 2)
    assert (german["held_out"], german["held_out_prompts"]) == (0, 1)
    assert (german["majority"], german["margin"]) == (0.5, -0.5)  # of its only held-out prompt
    (row,) = headline(sort_results({"one/answers": answers}))
    assert (row["taught"], row["held_out"]) == (0.5, 0.25)
    assert (row["majority"], row["margin"]) == (0.5, -0.5)  # of four held-out prompts
    table = headline_table(sort_results({"one/answers": answers}))
    assert table.headings()[:5] == ["run", "taught", "held out", "chance", "majority"]
    assert table.cells()[0][:5] == ["one", "50.0%", "25.0%", "50.0%", "50.0%"]
    figure = str(charts(sort_results({"one/answers": answers}))["accuracy"].to_dict())
    assert "'kind': 'taught'" in figure
    assert "'kind': 'held out'" in figure


def test_a_task_without_held_out_prompts_has_one_accuracy() -> None:
    answers = answered([[False, False]] * 3)
    english, german = accuracy_rows(answers)
    assert (english["accuracy"], english["accuracy_prompts"]) == (pytest.approx(1 / 3), 3)
    assert (english["majority"], german["majority"]) == (pytest.approx(0.5), pytest.approx(0.25))
    assert "taught" not in english
    table = headline_table(sort_results({"one/answers": answers}))
    assert table.headings()[:4] == ["run", "accuracy", "chance", "majority"]
    figure = str(charts(sort_results({"one/answers": answers}))["accuracy"].to_dict())
    assert "'kind': 'all prompts'" in figure


NEW = ["majority", "margin"]


def shown_on(page: Path) -> str:
    """What a reader sees without unfolding anything, as one line."""
    return " ".join(page.read_text().partition("<details>")[0].split())


def test_results_of_before_show_what_they_have(tmp_path: Path) -> None:
    old = answered([[False, False]] * 3).drop_vars(NEW)
    columns = headline_table(sort_results({"one/answers": old})).headings()
    assert columns[:3] == ["run", "accuracy", "chance"]
    assert "majority" not in columns
    assert np.isnan(accuracy_rows(old)[0]["majority"])
    (table,) = tables(old, name="one")
    assert table.headings() == ["language", "accuracy", "chance", "prompts"]
    assert "–" not in {cell for row in table.cells() for cell in row}
    page = ng.report({"one/answers": old}, out=tmp_path / "r.html")
    assert "An earlier version kept no majority and no margins." in shown_on(page)
    csv = pd.read_csv(page.with_suffix(".accuracy.csv"))
    assert {"accuracy", "chance"} <= set(csv)
    assert not {"low", "high", "majority", "margin", "subject_masked"} & set(csv)


def with_masked(answers: xr.Dataset) -> xr.Dataset:
    """Right without the subject in the first item, in both languages."""
    dims = ("item", "language")
    masked = xr.DataArray([[1.0, 0.5], [-1.0, -3.0], [-2.0, -2.0]], dims=dims)
    found = {"masked_correct": (masked > 0).astype(float), "masked_margin": masked}
    found["margin_beyond_masked"] = answers["margin"] - masked
    return answers.assign(found).assign_attrs(masked="answered")


def test_what_a_guesser_knows_stands_beside_every_accuracy(tmp_path: Path) -> None:
    answers = with_masked(answered([[False, False]] * 3))
    english, german = accuracy_rows(answers)
    assert english["subject_masked"] == german["subject_masked"] == pytest.approx(1 / 3)
    assert english["margin"] == pytest.approx(-0.5)
    assert english["margin_beyond_masked"] == pytest.approx((1 + 0 - 0.5) / 3)
    (table,) = tables(answers, name="one")
    assert str(table.records()) == str([english, german])  # NaN is no NaN
    headings, cells = table.headings(), table.cells()
    assert headings[2:] == ["chance", "majority", "masked", "margin", "beyond masked", "prompts"]
    assert cells[0][2:] == ["50.0%", "50.0%", "33.3%", "-0.50", "+0.17", "3"]
    page = ng.report({"one/answers": answers}, out=tmp_path / "r.html")
    shown = shown_on(page)
    for cell in (*headings, *cells[0], *cells[1]):
        assert f">{cell}</t" in shown, cell
    assert "no masked prompts" not in shown
    csv = pd.read_csv(page.with_suffix(".accuracy.csv"))
    names = ["chance", "majority", "subject_masked", "margin", "margin_beyond_masked"]
    expected = [english[name] for name in names]
    assert csv[names].iloc[0].tolist() == pytest.approx(expected)
    items = pd.read_csv(page.with_suffix(".items.csv"))
    assert items["margin_beyond_masked"].tolist() == pytest.approx([1, 0.5, 0, 0, -0.5, 1.5])
    figure = str(charts(sort_results({"one/answers": answers}))["accuracy"].to_dict())
    assert "subject_masked" in figure


def test_where_no_subject_is_masked_the_page_says_why(tmp_path: Path) -> None:
    plain = answered([[False, False]] * 3)
    whole = with_masked(plain)
    part = whole.assign(
        {name: whole[name].where(whole["item"] != "a") for name in ("masked_correct",)}
    )
    said = {
        "The subject was not masked: the task has no masked prompts.": plain,
        "The subject was not masked in this run, although the task has masked prompts.": (
            plain.assign_attrs(masked="left out")
        ),
        "The subject was not masked: only choices are asked for without it.": plain.assign(
            text=plain["correct"].astype(str)
        ),
        "4 of 6 prompts have a masked form.": part,
        "": whole,
    }
    for sentence, answers in said.items():
        assert why_not_masked(answers) == sentence
        assert sentence in shown_on(ng.report({"one/answers": answers}, out=tmp_path / "r.html"))
    both = sort_results({"one/answers": whole, "two/answers": plain})
    table = headline_table(both)
    masked = table.headings().index("masked")
    assert [row[masked] for row in table.cells()] == ["33.3%", "none"]


def test_the_page_shows_openly_what_a_run_is_of(results: dict, tmp_path: Path) -> None:
    rows = {row["run"]: row for row in run_facts(results).records()}
    expected = {"model": "tiny-llama", "task": "small", "items": "24", "languages": "en, de, th"}
    expected |= {"site": "gate", "position": "last"}
    assert expected.items() <= rows["one"].items()
    assert rows["tasks"]["task"] == "small, other"
    assert rows["tasks"]["items"] == "–"
    html = ng.report(results, out=tmp_path / "r.html").read_text()
    shown, _, folded = html.partition("<details>")
    assert "<td>en, de, th</td>" in shown
    assert "task_checksum" not in shown
    assert "task_checksum" in folded
    assert "Partial-shared can lie" in shown


def test_percentages_have_no_negative_zero() -> None:
    shares = (-1e-17, -0.0004, 0.0004, 1.0, -0.25, float("nan"))
    assert [percent(share) for share in shares] == ["0.0%", "0.0%", "0.0%", "100.0%", "-25.0%", "–"]
    assert percent(0.0004, 3) == "0.040%"


def test_no_two_of_many_languages_look_alike() -> None:
    few = language_lines([f"l{i}" for i in range(15)])
    assert "strokeDash" not in few
    many = language_lines([f"l{i}" for i in range(40)])
    colours, patterns = (many[x].to_dict()["scale"]["range"] for x in ("color", "strokeDash"))
    assert len({(c, tuple(p)) for c, p in zip(colours, patterns, strict=True)}) == 40


def test_many_runs_wrap_into_rows(results: dict) -> None:
    runs = {f"run {i}": results["one/sharing"] for i in range(8)}
    found = sort_results({f"{name}/sharing": data for name, data in runs.items()})
    made = {name: chart.to_dict() for name, chart in charts(found).items()}
    for name in ("activity", "baselines"):
        assert [row["columns"] for row in made[name]["vconcat"]] == [3, 3], name
    four = activity_by_language(dict(list(runs.items())[:4])).to_dict()
    assert [row["columns"] for row in four["vconcat"]] == [4, 4]


def test_equal_prompts_count_once_and_are_said(tmp_path: Path) -> None:
    """Twelve prompts, one of them asked nine times more: the table is that of twelve."""
    model, task = tiny_model("llama"), small_task(12)
    task = replace(task, items=[{**item, "held_out": []} for item in task.items])
    copies = [{**task.items[0], "id": f"copy{i}"} for i in range(9)]
    longer = replace(task, items=[*task.items, *copies])
    results = {"twelve": ng.evaluate(model, task), "longer": ng.evaluate(model, longer)}
    rows = {name: accuracy_rows(answers) for name, answers in results.items()}
    for one, other in zip(*rows.values(), strict=True):
        assert one.pop("accuracy_prompts") == 12
        assert other.pop("accuracy_prompts") == 21
        assert one == pytest.approx(other, nan_ok=True)
    (one, other) = headline(sort_results({f"{x}/answers": y for x, y in results.items()}))
    assert one | {"run": ""} == pytest.approx(other | {"run": ""}, nan_ok=True)
    page = ng.report({f"{x}/answers": y for x, y in results.items()}, out=tmp_path / "page.html")
    said = "longer: 9 of 21 prompts in English, 9 of 21 prompts in German"
    assert said in page.read_text(encoding="utf-8")
