"""A table shows the same rows as texts, as a frame, as records and as HTML."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import neuroglot as ng
from neuroglot.cli import terminal
from neuroglot.reporting.cells import number_with, percent, percent_with, points_with
from neuroglot.reporting.gathering import in_page_order, sort_results, tables
from neuroglot.reporting.kinds import KINDS
from neuroglot.reporting.table import Column, Table
from tests.testing import small_task, tiny_model

COLUMNS = (
    Column("run", ("run",)),
    Column("accuracy", ("accuracy", "low", "high"), percent_with, explained="Accuracy: of all."),
    Column("chance", ("chance",), percent, is_optional=True, explained="Chance: of a guess."),
    Column("share", ("share",), percent, is_for_page=True, explained="Share: of all neurons."),
)
ROWS: list[dict[str, Any]] = [
    {"run": "a", "accuracy": 0.5, "low": 0.25, "high": 0.75, "chance": np.nan, "share": 0.1},
    {"run": "b", "accuracy": 0.25, "low": np.nan, "high": np.nan, "chance": np.nan, "note": 7},
]


def test_cells_frame_and_records_are_of_the_same_rows() -> None:
    table = Table("t", COLUMNS, ROWS)
    assert table.headings() == ["run", "accuracy", "share"]
    assert table.cells() == [["a", "50.0% (25.0–75.0)", "10.0%"], ["b", "25.0%", "–"]]
    assert table.records() == ROWS
    assert table.records()[0] is not ROWS[0]
    pd.testing.assert_frame_equal(table.frame(), pd.DataFrame(ROWS))
    for row, cells in zip(table.frame().to_dict("records"), table.cells(), strict=True):
        assert cells[1].startswith(percent(row["accuracy"]))


def test_what_is_not_known_is_left_out_and_not_explained() -> None:
    table = Table("t", COLUMNS, ROWS, explained=["All of it.", "Accuracy: of all."])
    assert "chance" not in table.headings()
    assert table.explanations() == ["All of it.", "Accuracy: of all.", "Share: of all neurons."]
    known = Table("t", COLUMNS, [*ROWS, {"run": "c", "chance": 0.5}])
    assert known.headings() == ["run", "accuracy", "chance", "share"]
    assert known.cells()[2] == ["c", "–", "50.0%", "–"]
    assert "Chance: of a guess." in known.explanations()
    assert Table("t", COLUMNS, []).cells() == []


def test_a_terminal_shows_less_and_explains_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("title", COLUMNS, ROWS, said=["It is so."])
    assert table.headings(in_terminal=True) == ["run", "accuracy"]
    assert table.cells(in_terminal=True) == [row[:2] for row in table.cells()]
    assert table.explanations(in_terminal=True) == ["Accuracy: of all."]
    detail = Table("a detail", COLUMNS, ROWS, is_for_page=True)
    terminal.show([table, detail, table])
    printed = capsys.readouterr().out
    assert printed.count("title") == printed.count("It is so.") == 2
    assert printed.count("Accuracy: of all.") == 1
    assert "detail" not in printed


def test_rows_of_a_group_stand_below_its_line() -> None:
    group = Column("run", ("run", "note"), lambda run, note: f"{run}: {note:g}")
    rows = [ROWS[0] | {"note": 7}, ROWS[1] | {"run": "a"}, ROWS[1] | {"note": 8}]
    columns = (Column("of", ("kind",), lambda _: "x"), *COLUMNS[1:])
    cells = Table("t", columns, rows, group=group).cells()
    assert [row[0] for row in cells] == ["a: 7", "  x", "  x", "b: 8", "  x"]
    assert [row[1] for row in cells] == ["", "50.0% (25.0–75.0)", "25.0%", "", "25.0%"]
    assert Table("t", columns, rows, group=group).records() == rows
    assert "<td>&emsp;x</td><td>25.0%</td>" in Table("t", columns, rows, group=group).html()


def test_intervals_are_joined_as_far_as_they_are_known() -> None:
    nan = np.nan
    assert percent_with(0.5, 0.25, 0.75, nan, nan) == "50.0% (25.0–75.0)"
    assert percent_with(0.5, 0.25, 0.75, 0, 1) == "50.0% (25.0–75.0, over relations 0.0–100.0)"
    assert percent_with(nan, nan, nan) == "–"
    assert points_with(-0.1, -0.2, 0.0) == "−10.0 (−20.0 to +0.0)"
    assert points_with(-0.001, nan, nan, digits=2) == "−0.10"
    assert number_with(0.5, 0.25, 0.75) == "0.50 (0.25 to 0.75)"
    assert number_with(1.5, 1, 2, sign="×") == "×1.50 (1.00 to 2.00)"
    assert number_with(nan, nan, nan) == "–"


def test_markup_in_names_is_text_and_signs_that_disturb_a_line_are_shown() -> None:
    bad = "<b>[red]</b>\x1b[31m & {{ 1 }}"
    table = Table(bad, [Column("<i>run</i>", ("run",))], [{"run": bad}], [bad], [bad])
    html = table._repr_html_()
    assert html.count("&lt;b&gt;[red]&lt;/b&gt;\\x1b[31m &amp; {{ 1 }}") == 4
    assert "<b>" not in html
    assert "&lt;i&gt;run&lt;/i&gt;" in table.html()
    assert table.cells() == [["<b>[red]</b>\\x1b[31m & {{ 1 }}"]]
    assert table.frame()["run"].tolist() == [bad]


def test_a_notebook_shows_title_rows_and_sentences() -> None:
    html = Table("what", COLUMNS, ROWS, ["found"], ["explained"])._repr_html_()
    for text in ("<h4>what</h4>", "<td>50.0% (25.0–75.0)</td>", "<p>found</p>", "<p>explained Acc"):
        assert text in html


def test_page_and_terminal_ask_the_kinds_and_know_none_by_name() -> None:
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names) == 10
    answers = ng.evaluate(tiny_model("llama"), small_task(12))
    ((kind, group, runs),) = in_page_order(sort_results({"one/answers": answers}))
    assert (kind.name, group, list(runs)) == ("evaluation", "evaluation", ["one"])
    (table,) = tables(answers)
    assert table.title == "tiny-llama on small: accuracy by language"
    assert [row["language"] for row in table.records()] == ["en", "de", "th"]
    with pytest.raises(ng.NeuroglotError, match="'tiny-llama on small' is of kind 'soup'"):
        tables(answers.assign_attrs(kind="soup"))
