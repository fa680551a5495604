"""Tables that are printed, reports of several runs, and options of a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

import neuroglot as ng
from neuroglot.answering.observations import OVER_RELATIONS
from neuroglot.cli import terminal
from neuroglot.reporting.accuracy import KINDS_OF_PROMPTS
from neuroglot.reporting.headline import COLUMNS
from neuroglot.reporting.kinds.answers import accuracy_rows
from neuroglot.reporting.table import Table
from tests.cli.conftest import Cli
from tests.testing import small_task, tiny_hf, tiny_model, tokenizer


def test_tables_fit_a_terminal_of_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shares = dict.fromkeys((column.keys[0] for column in COLUMNS), 1.0)
    runs = ("base, native", "aligned, shared")
    rows = [shares | {"accuracy": float("nan"), "run": run} for run in runs]
    table = Table("runs", COLUMNS, rows)
    terminal.show([table])
    printed = capsys.readouterr().out
    for heading in table.headings():
        assert all(word in printed for word in heading.split())
    assert printed.count("100.0%") == 2 * 8
    assert "aligned, shared" in printed


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_column_is_dropped_and_no_line_is_too_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    columns = ["language", *(f"column {i}" for i in range(12))]
    rows = [[code, *(f"{code}{i}.{i}%" for i in range(12))] for code in ("en", "de")]
    terminal.table(columns, rows, "a title")
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    for row in rows:
        assert all(cell in printed.split() for cell in row)
    assert printed.count("a title") == 1
    n_parts = printed.count("language")
    assert n_parts == printed.split().count("en")
    assert (n_parts == 1) == (width == 200)


def test_answers_stand_beside_what_a_guesser_knows(
    cli: Cli, tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    model, task = tiny
    code, out, _ = cli("evaluate", model, task)
    assert code == 0
    assert "the task has no masked prompts" in out
    assert {"chance", "majority", "margin"} <= set(out.split())
    assert "masked" not in out.partition("In brackets")[0].split()
    records = [json.loads(line) for line in task.read_text().splitlines()]
    masked = tmp_path / "masked.jsonl"
    for record in records:
        record["masked"] = dict.fromkeys(record["prompts"], "w9 w8")
    masked.write_text("".join(json.dumps(record) + "\n" for record in records))
    command = ("evaluate", model, masked)
    code, out, _ = cli(*command, "--out", tmp_path / "e", "--predictions", tmp_path / "p.csv")
    assert code == 0
    assert {"masked", "beyond"} <= set(out.partition("In brackets")[0].split())
    assert "no masked prompts" not in out
    answers = ng.load(tmp_path / "e")
    rows = pd.read_csv(tmp_path / "p.csv")
    assert (rows["masked_prompt"] == "w9 w8").all()
    names = ("chance", "majority", "margin", "masked_correct", "margin_beyond_masked")
    for name in names:
        expected = answers[name].to_numpy().ravel()
        assert rows[name].tolist() == pytest.approx(expected, abs=1e-6), name
    (english, *_) = json.loads(cli(*command, "--json")[1])["accuracy"]
    held_out = answers.sel(language="en", item=answers["held_out"].sel(language="en"))
    assert english["subject_masked"] == pytest.approx(float(held_out["masked_correct"].mean()))
    out = cli(*command, "--no-masked")[1]
    assert "although the task has masked prompts" in out
    run = ("run", model, masked, "--limit", "4", "--scores", "none", "--no-masked")
    assert cli(*run, "--out", tmp_path / "r")[0] == 0
    assert ng.load(tmp_path / "r" / "answers").attrs["masked"] == "left out"


def test_a_language_without_counted_prompts_is_shown(
    cli: Cli, tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    command = ("evaluate", *tiny, "--split", "held_out")  # of this task, in English only
    english, german, _ = json.loads(cli(*command, "--json")[1])["accuracy"]
    assert (english["held_out_prompts"], german["held_out_prompts"]) == (8, 0)
    assert german["held_out"] is german["majority"] is None
    assert "taught" not in english
    code, out, _ = cli(*command)
    assert code == 0
    assert out.count("–") >= 6  # accuracy, chance and majority of two languages


def test_report_names_runs_and_drops_nothing(
    cli: Cli, tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    for run in ("a", "b"):
        assert cli("run", *tiny, "--out", tmp_path / run / "out")[0] == 0
    one, two, page = tmp_path / "a" / "out", tmp_path / "b" / "out", tmp_path / "page.html"
    (tmp_path / "empty").mkdir()
    code, out, err = cli("report", one, tmp_path / "empty", "--out", page)
    assert (code, out) == (2, "")
    holds_none = f"{str(tmp_path / 'empty')!r} holds no saved result, and no folder in it does."
    assert err == f"neuroglot: {holds_none}\n"
    assert not page.exists()
    code, _, err = cli("report", one, two, "--out", page)
    assert code == 2
    assert f"another 'out/answers' is reported already; name its run, RUN={two}." in err
    assert cli("report", one, f"second={two}", "--out", page)[0] == 0
    shown = page.read_text().partition("<details>")[0]
    assert "<td>out</td>" in shown
    assert "<td>second</td>" in shown
    # Results one by one belong to the run that they are named for.
    parts = [f"third={two / part}" for part in ("sharing", "answers")]
    assert cli("report", *parts, "--out", page, "--overwrite")[0] == 0
    assert page.read_text().partition("<details>")[0].count("<td>third</td>") == 2


def test_run_takes_site_position_and_batch_size(
    cli: Cli, tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = ("run", *tiny, "--out", out, "--site", "coefficient", "--position", "all")
    assert cli(*command, "--batch-size", "5")[0] == 0
    recording = ng.load(out / "recording")
    assert (recording.attrs["site"], recording.attrs["position"]) == ("coefficient", "all")
    assert recording.attrs["batch_size"] == 5
    assert ng.load(out / "answers").attrs["batch_size"] == 5
    code, _, err = cli("run", *tiny, "--out", tmp_path / "no", "--site", "up")
    assert code == 2
    assert "unknown site 'up'" in err


def test_prompts_that_are_cut_are_one_line(cli: Cli, tmp_path: Path) -> None:
    task = tmp_path / "long.jsonl"
    records = [
        {
            "id": f"item{i}",
            "prompts": dict.fromkeys(("en", "de"), "w2 " * (200 if i else 3)),
            "choices": {code: ["w3", "w4"] for code in ("en", "de")},
            "answers": dict.fromkeys(("en", "de"), "w3"),
        }
        for i in range(4)
    ]
    ng.ParallelTask.from_records(records, name="long").to_jsonl(task)
    tiny_hf("gpt2").save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    command = ("run", tmp_path / "model", task, "--out", tmp_path / "run", "--truncate")
    code, _, err = cli(*command)
    assert code == 0
    cut = [line for line in err.splitlines() if "cut" in line]
    assert cut == [
        "neuroglot: warning: 6 prompts do not fit into the model's context; their beginning was "
        "cut. The first is the prompt of item 'item1' in 'en'."
    ]


def test_intervals_over_relations_stand_beside_those_over_subjects(
    capsys: pytest.CaptureFixture[str],
) -> None:
    items = [
        {**item, "subject": f"s{i}", "held_out": []} for i, item in enumerate(small_task(12).items)
    ]
    for n_relations in (12, 5):
        records = [{**item, "relation": f"r{i % n_relations}"} for i, item in enumerate(items)]
        task = ng.ParallelTask.from_records(records, name="t")
        answers = ng.evaluate(tiny_model("llama"), task)
        terminal.result(answers, "t", json=False)
        said = capsys.readouterr().out
        row = accuracy_rows(answers)[0]
        kind = next(name for name in KINDS_OF_PROMPTS if f"{name}_low" in row)
        assert f"({100 * row[f'{kind}_low']:.1f}–{100 * row[f'{kind}_high']:.1f})" in said
        assert ("over relations" in said.lower()) == (n_relations == 12)
        if n_relations == 12:
            low, high = (100 * row[f"{kind}{end}"] for end in OVER_RELATIONS)
            assert f"{low:.1f}–{high:.1f}" in said


def test_lines_are_wrapped_between_words() -> None:
    text = "In brackets: 95 % intervals; /a/path/that/is/longer/than/the/width"
    wrapped = terminal.wrapped(text, 20)
    assert wrapped == ["In brackets: 95 %", "intervals;", "/a/path/that/is/longer/than/the/width"]
    assert terminal.wrapped("  a  b", 20) == ["  a  b"]
    indented = terminal.wrapped("name  one two three", 12, indent=6)
    assert indented == ["name  one", "      two", "      three"]
    wide = terminal.wrapped("ไทย 日本語 日本語", 13)
    assert wide == ["ไทย 日本語", "日本語"], "as wide as they are shown"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_terminal_gets_lines_of_its_width(
    stream: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    text, is_error = "word " * 20 + "end", stream == "stderr"
    terminal.say(text, err=is_error)
    assert getattr(capsys.readouterr(), stream[3:]) == text + "\n", "a file gets one line"
    monkeypatch.setattr(getattr(sys, stream), "isatty", lambda: True)
    terminal.say(text, err=is_error)
    lines = getattr(capsys.readouterr(), stream[3:]).splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 30
    assert " ".join(lines) == text
