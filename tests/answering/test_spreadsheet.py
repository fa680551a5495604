"""No text in a CSV file is a formula, and what was written comes back."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neuroglot as ng
from neuroglot.answering.predictions import save_predictions
from neuroglot.answering.spreadsheet import neutral, original, read_table, save_table
from tests.testing import small_task, tiny_model

FORMULAS = (
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "＝1",
    '=HYPERLINK("x")',
)
HARMLESS = ("", "a=b", "-5", "+3", "-1,234.5", "'quoted'", "'-5", " =1", "1+1", "a\rb", "a\r\nb")


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_gets_an_apostrophe(text: str) -> None:
    assert neutral(text) == f"'{text}"
    assert neutral(f"'{text}") == f"''{text}"


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_and_numbers_stay(text: str) -> None:
    assert neutral(text) == text
    assert neutral(-1.5) == -1.5
    assert neutral(None) is None


@settings(deadline=None, derandomize=True, max_examples=500, database=None)
@given(st.text(alphabet="'=+-@\t\r\n＝15.,a ", max_size=6) | st.text(max_size=4))
def test_taking_it_off_gives_back_what_was_written(text: str) -> None:
    assert original(neutral(text)) == text
    shown = neutral(text)
    number = text.lstrip("+-").replace(",", "").replace(".", "").isascii()
    assert not shown.startswith(("=", "@", "\t", "\r", "\n")) or not shown
    assert not shown.startswith(("+", "-")) or (number and shown[1:2].isdigit())


def test_a_table_comes_back(tmp_path: Path) -> None:
    texts = [
        *FORMULAS,
        *(f"'{x}" for x in FORMULAS),
        *(x for x in HARMLESS if x),
        "nan",
        "NA",
        "None",
    ]
    table = pd.DataFrame({"text": texts, "number": [-float(i) for i in range(len(texts))]})
    save_table(table, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), table, check_dtype=False)
    with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = [row[0] for row in csv.reader(file)]
    assert not [cell for cell in cells if cell.startswith(("=", "@", "\t", "\r", "＝"))]


def test_predictions_hold_no_formula(tmp_path: Path) -> None:
    items = small_task(2).items
    evil = {"en": "=1+1 w3", "de": "@w4", "th": "-w5"}
    records = [{**items[0], "prompts": evil, "relation": "=x"}, {**items[1], "id": "=id"}]
    task = ng.ParallelTask.from_records(records, name="t")
    answers = ng.evaluate(tiny_model("llama"), task)
    save_predictions(task, answers, tmp_path / "p.csv")
    written = pd.read_csv(tmp_path / "p.csv")
    assert list(written["prompt"][:3]) == ["'=1+1 w3", "'@w4", "'-w5"]
    assert written["item"][3] == "'=id"
    assert (written["log_prob_1"] < 0).all()
    back = read_table(tmp_path / "p.csv")
    expected = ng.predictions(task, answers)
    for column in ("item", "language", "relation", "prompt", "answer", "predicted", "choice_1"):
        assert list(back[column]) == list(expected[column])
