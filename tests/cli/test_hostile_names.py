"""Names and paths from elsewhere: shown as they are, and never more than a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import neuroglot as ng
from neuroglot.cli import terminal
from tests.cli.conftest import Cli
from tests.testing import small_task

NAMES = (
    "[red]x[/red]",
    "[/]",
    ":smile:",
    "\u200fעברית",
    "\u202etxt.exe",
    "\x1b[31mred",
    "a\nb",
    "a\tb",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_table_is_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(("run", "share"), [(name, "1.0%"), ("other", "2.0%")], title=name)
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if "1.0%" in line]
    visible = name.encode("unicode_escape").decode() if name[0] in "\u202e\x1ba" else name
    assert row.strip().startswith(visible)
    assert lines[0].strip() == visible
    assert not {"\x1b", "\u202e"} & set("".join(lines))


@pytest.mark.parametrize("value", ["\udc80", "[red]", "\x1b"])
def test_json_bears_any_name(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.as_json({"name": value})
    assert json.loads(capsys.readouterr().out) == {"name": value}


LONG = "x" * 300


@pytest.mark.parametrize(
    "command",
    [
        ("report", LONG),
        ("report", f"run={LONG}"),
        ("report", f"../../x={LONG}"),
        ("report", "nowhere", "--out", LONG),
        ("report", "\0"),
        ("classify", LONG),
        ("record", LONG, "facts", "--out", "r"),
        ("record", "embedded/base", LONG, "--out", "r"),
        ("record", "embedded/base", f"{LONG}.csv", "--out", "r"),
        ("record", "embedded/base", "facts", "--limit", "1", "--out", LONG),
        ("record", "embedded/base", "xnli", "--path", LONG, "--out", "r"),
        ("record", "embedded/base", "facts", "--template", f"{LONG}.toml", "--out", "r"),
        ("run", "embedded/base", "facts", "--limit", "1", "--out", LONG),
        ("evaluate", "embedded/base", "facts", "--limit", "1", "--predictions", LONG),
        ("demo", "--out", LONG),
        ("demo", "--out", "taken"),
    ],
)
def test_paths_that_cannot_be(
    cli: Cli, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    code, out, err = cli(*command)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    last = [line for line in err.splitlines() if line.startswith("neuroglot: ")][-1]
    assert len(last) < 3000
    assert {path.name for path in tmp_path.iterdir()} <= {"taken"}


def test_a_name_of_a_run_is_no_path(cli: Cli, tmp_path: Path) -> None:
    kept = ng.evaluate(ng.load_model("embedded/base"), ng.load_task("facts", limit=2))
    ng.save(kept, tmp_path / "in" / "answers")
    inside = tmp_path / "in" / "answers"
    page = tmp_path / "out" / "page.html"
    code, _, err = cli("report", f"../../x={inside}", "--out", page)
    assert (code, "with a name that has no slash" in err) == (2, True)
    for name in ("..", "C:\\x", "CON", "x" * 400, "<script>alert(1)</script>".replace("/", "")):
        arguments = ("report", f"{name}={inside}", "--out", page, "--overwrite")
        code, _, err = cli(*arguments, "--figures", tmp_path / "out" / "figures")
        assert code == 0, err
        assert "<script>alert" not in page.read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} <= {"in", "out"}
    stems = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
    assert stems == {"accuracy"}


def test_a_task_with_a_name_like_a_path(tmp_path: Path, cli: Cli) -> None:
    """A task from Python may be called anything; what a run writes stays in its folder."""
    from tests.testing import tiny_model  # noqa: PLC0415

    for name in ("../../x", "/etc/x"):
        task = ng.ParallelTask.from_records(small_task(3).items, name=name)
        out = tmp_path / str(len(name))
        done = ng.run(tiny_model("llama"), task, out=out)
        ng.report(done.results, out=out / "report.html", figures=out / "figures")
        assert {p.name for p in out.iterdir() if not p.name.startswith(".")} == {
            *("answers", "figures", "predictions.csv", "recording", "report.html", "sharing"),
            *("report.items.csv", "report.layers.csv", "thresholds"),
            *("attribution", "report.attribution.csv", "report.accuracy.csv"),
        }
    assert {path.name for path in tmp_path.iterdir()} == {"6", "7"}
