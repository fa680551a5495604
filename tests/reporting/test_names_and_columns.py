"""Names stand in every figure as they are, and tables have their columns in one order."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import vl_convert as vlc
import xarray as xr

import neuroglot as ng
from neuroglot.answering.spreadsheet import in_order, read_table
from neuroglot.interventions.presets import deactivate
from neuroglot.reporting import page as pages
from neuroglot.reporting.gathering import sort_results
from neuroglot.reporting.page import _specifications
from tests.testing import small_task, tiny_model

NAMES = ("C:\\new x.y[0]", '\\u0041 a\\"b\\')


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of every kind, by kind; comparisons are made anew with each name."""
    folder = tmp_path_factory.mktemp("runs")
    model, task = tiny_model("llama"), small_task(22)
    done = ng.run(model, task, out=folder / "one")
    ng.run(tiny_model("llama", 1), task, out=folder / "two")
    found = {key.rpartition("/")[2]: value for key, value in done.results.items()}
    few = small_task(3)
    found["agreement"] = ng.causal_agreement(model, few, n_neurons=5)
    found["fragility"] = ng.fragility(model, few)
    found["deactivation"] = deactivate(
        model, task, done.recording, categories=["all_shared"], controls=ng.Controls(draws=2)
    )
    found["alignment"] = ng.align(
        model, task, method="instruction", out=folder / "align",
        training=ng.Training(steps=2, pairs=2, checks=1, learning_rate=1e-2),
    )  # fmt: skip
    other = ng.Recording(done.recording.dataset.assign_attrs(task="other"))
    found["comparison of tasks"] = (done.recording, other)
    found["runs"] = (folder / "one", folder / "two")
    return found


def named(made: dict[str, Any], name: str) -> dict[str, Any]:
    kinds = ("sharing", "answers", "thresholds", "attribution", "agreement", "fragility",
             "deactivation", "alignment")  # fmt: skip
    found = {f"{name}/{kind}": made[kind] for kind in kinds}
    found |= {f"other/{kind}": made[kind] for kind in kinds}
    one, two = made["comparison of tasks"]
    renamed = ng.Recording(two.dataset.assign_attrs(task=name))
    found[f"{name}/tasks"] = ng.compare([one, renamed])
    runs = dict(zip((f"{name} 0", f"{name} 1"), made["runs"], strict=True))
    found[f"{name}/runs"] = ng.compare(runs, x="step\\now", lineage=True)
    return found


def texts_of(svg: str) -> str:
    return "\n".join(html.unescape(x) for x in re.findall(r">([^<>]+)</(?:text|tspan)>", svg))


@pytest.mark.parametrize("name", NAMES)
def test_a_backslash_is_a_backslash_in_every_figure(name: str, made: dict[str, Any]) -> None:
    figures = _specifications(sort_results(named(made, name)))
    kinds = {"accuracy", "baselines", "causal-agreement", "deactivation", "alignment"}
    kinds |= {f"{x}-{name}" for x in ("flow", "series", "tasks", "sharing-and-accuracy")}
    assert kinds <= set(figures)
    for figure, specification in figures.items():
        svg = vlc.vegalite_to_svg(specification)
        if not (figure.startswith("fragility") or figure.endswith("-other")):  # of no such run
            assert name in texts_of(svg), figure
        said = [html.unescape(x) for x in re.findall(r'aria-label="([^"]*)"', svg)]
        assert not [x for x in said if "\n" in x], figure
        if figure.startswith("series"):
            assert "step\\now" in texts_of(svg)
            assert sum(x.startswith(f"{name} ") for x in said) == 6 + 3  # points and lines
        if figure.startswith("flow"):
            cells = [x for x in said if x.startswith(f"{name} 1: ") and " became " in x]
            assert len(cells) == 2 * 16


def columns_of(folder: Path) -> dict[str, list[str]]:
    return {
        path.name: list(pd.read_csv(path, encoding="utf-8-sig", nrows=1))
        for path in folder.glob("*.csv")
    }


def test_columns_have_one_order(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_drawn", lambda _: {})
    monkeypatch.setattr(pages, "_specifications", lambda _: {})
    kinds = ("sharing", "answers", "attribution", "deactivation")
    full = {f"full/{kind}": made[kind] for kind in kinds}
    # Answers without choices, with other variables in another order, of other languages first.
    records = [
        {key: value for key, value in item.items() if key in ("id", "prompts", "answers")}
        for item in small_task(12, "th en").items
    ]
    written = ng.evaluate(
        tiny_model("llama"),
        ng.ParallelTask.from_records(records, name="t"),
        answering=ng.Answering(max_new_tokens=2),
    )
    turned = made["answers"][sorted(made["answers"])[::-1]].transpose("language", "item", ...)
    less = {
        "less/answers": written,
        "turned/answers": turned,
        "turned/sharing": made["sharing"][sorted(made["sharing"])[::-1]],
        "turned/attribution": made["attribution"][sorted(made["attribution"])],
    }
    orders = ({**full, **less}, {**less, **full}, dict(reversed({**full, **less}.items())))
    found = []
    for i, results in enumerate(orders):
        ng.report(results, out=tmp_path / str(i) / "r.html")
        found.append(columns_of(tmp_path / str(i)))
    assert len(found[0]) == 5
    assert found[0] == found[1] == found[2]
    ng.report(full, out=tmp_path / "full" / "r.html")
    for name, columns in columns_of(tmp_path / "full").items():
        assert [x for x in found[0][name] if x in columns] == columns
    assert found[0]["r.items.csv"][:3] == ["run", "item", "language"]


def test_predictions_have_one_order() -> None:
    items = [dict(item) for item in small_task(3).items]
    languages = list(items[0]["prompts"])
    items[0]["choices"] = {code: texts[:2] for code, texts in items[0]["choices"].items()}
    items[0]["answers"] = {code: texts[0] for code, texts in items[0]["choices"].items()}
    found = []
    for order in (items, items[::-1]):
        task = ng.ParallelTask.from_records(order, name="t", languages=languages)
        found.append(list(ng.predictions(task, ng.evaluate(tiny_model("llama"), task))))
    assert found[0] == found[1]
    assert found[0][-3:] == ["choice_3", "log_prob_3", "n_tokens_3"]
    assert found[0][:3] == ["item", "language", "relation"]


def test_columns_that_are_not_listed_follow() -> None:
    table = pd.DataFrame([[1, 2, 3, 4]], columns=["z", "b", "a", "y"])
    assert list(in_order(table, ["b", "missing", "a"])) == ["b", "a", "y", "z"]


IDS = ("007", "7", "1e5", "1E5", "0x10", "1_000", "NaN", "true", "-0", "+1", "1.0", "٣", "٠٠٧")


def rows() -> list[dict[str, str]]:
    return [
        {"id": name, "language": code, "prompt": f"w{i + 2} w3", "answer": "w3",
         "choice1": "w3", "choice2": "w4", "relation": "01", "subject": name}
        for i, name in enumerate(IDS)
        for code in ("en", "de")
    ]  # fmt: skip


def test_ids_stay_text_everywhere(tmp_path: Path) -> None:
    pd.DataFrame(rows()).to_csv(tmp_path / "t.csv", index=False)
    from_csv = ng.ParallelTask.from_csv(tmp_path / "t.csv")
    from_csv.to_jsonl(tmp_path / "t.jsonl")
    model = tiny_model("llama")
    tasks = (from_csv, ng.ParallelTask.from_rows(rows(), name="t"),
             ng.ParallelTask.from_jsonl(tmp_path / "t.jsonl"))  # fmt: skip
    for task in tasks:
        assert [item["id"] for item in task.items] == list(IDS)
        assert task.checksum == from_csv.checksum
    task = from_csv
    recording = ng.record(model, task, out=tmp_path / "r")
    answers = ng.evaluate(model, task, out=tmp_path / "e")
    attributed = ng.attribute(model, task, recording=recording, scores=["contribution"])
    for stored in (ng.load(tmp_path / "r").dataset, ng.load(tmp_path / "e")):  # type: ignore[union-attr]
        assert stored["item"].to_numpy().tolist() == list(IDS)
    assert answers["subject"].to_numpy().tolist() == list(IDS)
    results: dict[str, xr.Dataset | xr.DataArray] = {
        "001/sharing": ng.classify(recording),
        "001/answers": answers,
        "001/attribution": attributed,
    }
    page = ng.report(results, out=tmp_path / "page.html")
    for path in (page.with_suffix(".items.csv"), tmp_path / "p.csv"):
        if path.name == "p.csv":
            from neuroglot.answering.predictions import save_predictions  # noqa: PLC0415

            save_predictions(task, answers, path)
        table = read_table(path)
        assert table["item"].tolist() == [name for name in IDS for _ in range(2)]
        assert set(table["relation"]) == {"01"}
        assert table["correct"].dtype == bool
        assert table["chance"].tolist() == [0.5] * len(table)
    items = read_table(page.with_suffix(".items.csv"))
    assert set(items["run"]) == {"001"}
    assert items["subject"].tolist() == items["item"].tolist()


@pytest.mark.parametrize("cell", IDS)
def test_a_column_with_a_cell_that_is_no_number_is_text(cell: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"x,item\n1,2\n{cell},3\n", encoding="utf-8")
    table = read_table(tmp_path / "t.csv")
    assert table["item"].tolist() == ["2", "3"]
    expected = ["1", cell]
    if cell in ("7", "1.0", "-0"):
        assert table["x"].tolist() == [1, float(cell)]
    else:
        assert table["x"].tolist() == expected


def test_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    from neuroglot.answering.spreadsheet import save_table  # noqa: PLC0415

    values = [1e-5, -1.5e300, 1e16, 0.1, -0.0, float("inf"), float("-inf"), float("nan"), 1e22]
    table = pd.DataFrame({"x": values, "n": range(len(values)), "yes": [True, False, True] * 3})
    save_table(table, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), table)
