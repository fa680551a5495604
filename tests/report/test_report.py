"""The page opens offline, escapes what data say, and draws what it should."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import neuroglot as ng
from neuroglot.report.accuracy import accuracy_rows
from neuroglot.report.by_layer import activity_by_language
from neuroglot.report.page import charts
from neuroglot.report.results import run_facts, sort_results
from neuroglot.report.style import CATEGORY_COLOURS, language_lines
from neuroglot.report.tables import headline, headline_table, percent
from tests.testing import small_task, tiny_model


@pytest.fixture(scope="module")
def results() -> dict:
    model, task = tiny_model("llama"), small_task(24)
    recording = ng.record(model, task, thresholds=(0.0, 0.1))
    return {
        "one/sharing": ng.classify(recording),
        "one/answers": ng.evaluate(model, task),
        "one/attribution": ng.attribute(model, task, recording),
        "one/agreement": ng.causal_agreement(model, task.first(4), n_neurons=5),
        "one/thresholds": ng.sweep_thresholds(recording),
        "two/sharing": ng.classify(recording),
        "tasks": ng.compare_tasks(
            [recording, ng.Recording(recording.dataset.assign_attrs(task="other"))]
        ),
    }


def test_page_figures_and_tables(results: dict, tmp_path: Path) -> None:
    page = ng.report(results, tmp_path / "out" / "report.html", figures=tmp_path / "figures")
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
    html = ng.report(named, tmp_path / "r.html").read_text()
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
        ng.report({}, tmp_path / "r.html")
    odd = results["one/sharing"].assign_attrs(unit="soup")
    with pytest.raises(ng.NeuroglotError, match="'odd' is of kind 'soup'"):
        ng.report({"odd": odd}, tmp_path / "r.html")
    twice = {"a/one": results["one/sharing"], "a/two": results["two/sharing"]}
    with pytest.raises(ng.NeuroglotError, match="run 'a' has two results of kind 'sharing'"):
        ng.report(twice, tmp_path / "r.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(ng.NeuroglotError, match="cannot write"):
        ng.report(results, tmp_path / "file" / "r.html")


def answered(held_out: list[list[bool]], answers: list[list[str]]) -> xr.Dataset:
    """Three items in two languages; the first item is answered right in both, the others wrong."""
    dims = ("item", "language")
    shape = (3, 2)
    return xr.Dataset(
        {
            "correct": (dims, [[True, True], [False, False], [False, False]]),
            "answer": (dims, answers),
            "chance": (dims, np.full(shape, 0.5)),
            "held_out": (dims, held_out),
            "counted": (dims, np.ones(shape, bool)),
        },
        coords={"item": list("abc"), "language": ["en", "de"]},
        attrs={"unit": "evaluation", "split": "all", "seed": 0},
    )


ANSWERS = [["x", "u"], ["x", "v"], ["y", "w"]]


def test_taught_and_held_out_prompts_stand_apart_beside_the_majority() -> None:
    answers = answered([[True, False], [True, False], [True, True]], ANSWERS)
    english, german = accuracy_rows(answers)
    # English was never taught, German for the first two items.
    assert np.isnan(english["taught"])
    assert english["taught_prompts"] == 0
    assert (english["held_out"], english["held_out_prompts"]) == (pytest.approx(1 / 3), 3)
    assert english["majority"] == pytest.approx(2 / 3)  # "x" twice of three
    assert (german["taught"], german["taught_prompts"]) == (0.5, 2)
    assert (german["held_out"], german["held_out_prompts"]) == (0, 1)
    assert german["majority"] == 1  # one held-out prompt has one answer
    (row,) = headline(sort_results({"one/answers": answers}))
    assert (row["taught"], row["held_out"]) == (0.5, 0.25)
    assert row["majority"] == 0.75  # "x" twice, "w" once, of four held-out prompts
    columns, cells = headline_table([row])
    assert columns[:5] == ["run", "taught", "held out", "chance", "majority"]
    assert cells[0][:5] == ["one", "50.0%", "25.0%", "50.0%", "75.0%"]
    figure = str(charts(sort_results({"one/answers": answers}))["accuracy"].to_dict())
    assert "'kind': 'taught'" in figure
    assert "'kind': 'held out'" in figure


def test_a_task_without_held_out_prompts_has_one_accuracy() -> None:
    answers = answered([[False, False]] * 3, ANSWERS)
    english, german = accuracy_rows(answers)
    assert (english["accuracy"], english["accuracy_prompts"]) == (pytest.approx(1 / 3), 3)
    assert (english["majority"], german["majority"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert "taught" not in english
    columns, _ = headline_table(headline(sort_results({"one/answers": answers})))
    assert columns[:4] == ["run", "accuracy", "chance", "majority"]
    figure = str(charts(sort_results({"one/answers": answers}))["accuracy"].to_dict())
    assert "'kind': 'all prompts'" in figure


def test_results_saved_without_the_right_answers_have_no_majority() -> None:
    old = answered([[False, False]] * 3, ANSWERS).drop_vars("answer")
    columns, _ = headline_table(headline(sort_results({"one/answers": old})))
    assert "majority" not in columns
    assert np.isnan(accuracy_rows(old)[0]["majority"])


def test_the_page_shows_openly_what_a_run_is_of(results: dict, tmp_path: Path) -> None:
    rows = {row["run"]: row for row in run_facts(results)}
    expected = {"model": "tiny-llama", "task": "small", "items": "24", "languages": "en, de, th"}
    expected |= {"site": "gate", "position": "last"}
    assert expected.items() <= rows["one"].items()
    assert rows["tasks"]["task"] == "small, other"
    assert rows["tasks"]["items"] == "–"
    html = ng.report(results, tmp_path / "r.html").read_text()
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
