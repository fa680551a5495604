"""Where the commands write: links, the root, folders and pages of the user."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

import neuroglot as ng
from neuroglot import pipeline
from neuroglot.cli.app import app, main
from neuroglot.cli.places import check_folder, check_new_page
from neuroglot.reporting.page import END, TITLE
from tests.cli.conftest import Cli
from tests.faults import REFUSED, Ended, Faulty, in_child
from tests.killing import files_of

BAD = ("/", "/proc/x", "loop", "dangling", "dangling/x", "file", "file/x")
TAKEN = ("theirs", "repository", "another")  # by a user's things, or by a result of another kind
LOADING = ("load_model", "load_task", "load", "compare", "classify", "align")


@pytest.fixture
def commands(
    tmp_path: Path, tiny: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> dict[str, tuple[str, ...]]:
    """Every command that takes a folder, without --out."""
    model, task = map(str, tiny)
    recording = tmp_path / "recording"
    ng.record(ng.load_model(model), ng.ParallelTask.from_jsonl(task), out=recording)
    capsys.readouterr()
    asked = (model, task, "--limit", "3")
    return {
        "demo": ("demo", "--items", "1"),
        "run": ("run", *asked),
        "record": ("record", *asked),
        "classify": ("classify", str(recording)),
        "evaluate": ("evaluate", *asked),
        "attribute": ("attribute", model, task, str(recording)),
        "agreement": ("agreement", *asked, "--neurons", "3"),
        "deactivate": ("deactivate", *asked),
        "amplify": ("amplify", *asked),
        "compare": ("compare", str(recording), str(recording)),
        "align": ("align", *asked, "--method", "sharing", "--steps", "2"),
        "fragility": ("fragility", *asked),
        "report": ("report", str(recording)),
    }


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with links, a file, and folders that hold something."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("nowhere")
    Path("file").write_text("mine")
    Path("theirs").mkdir()
    Path("theirs", "notes.txt").write_text("mine")
    Path("repository", ".git").mkdir(parents=True)
    return tmp_path


def forbid_loading(patch: pytest.MonkeyPatch) -> None:
    """Let a test fail in which a command does anything that may take long."""

    def fail(*_: object, **__: object) -> None:
        pytest.fail("it loads, or works, before it has looked at where it is to write")

    for name in LOADING:
        patch.setattr(ng, name, fail)
    patch.setattr(pipeline, "load_model", fail)


def call_in_child(command: Sequence[str], faulty: Faulty) -> Ended:
    """A command whose standard error is that of its process, and not pytest's."""

    def call() -> None:
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        main(command)

    return in_child(call, faulty)


def test_every_command_is_tried(commands: dict[str, tuple[str, ...]]) -> None:
    known: Any = typer.main.get_command(app)
    with_out = {
        name
        for name, command in known.commands.items()
        if "out" in {p.name for p in command.params}
    }
    assert with_out == set(commands)


def test_what_cannot_be_written_is_refused_before_anything_is_loaded(
    cli: Cli,
    commands: dict[str, tuple[str, ...]],
    places: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recording = ng.load("recording")
    assert isinstance(recording, ng.Recording)
    ng.save(ng.classify(recording, thresholds=recording.thresholds), "another")
    forbid_loading(monkeypatch)
    roots, before = set(Path("/").iterdir()), files_of(places)
    for name, command in commands.items():
        for place in (*BAD, *TAKEN):
            tried: list[tuple[str, ...]] = [("--out", place)]
            if place == "theirs" and name != "demo":
                tried.append(("--out", place, "--overwrite"))
            for more in tried:
                code, out, err = cli(*command, *more)
                assert (code, out, err.count("\n")) == (2, "", 1), (name, more, err)
                assert "Traceback" not in err
    assert files_of(places) == before
    assert set(Path("/").iterdir()) == roots


@pytest.mark.parametrize("option", ["--predictions", "--figures"])
def test_second_places_are_looked_at_too(
    option: str,
    cli: Cli,
    commands: dict[str, tuple[str, ...]],
    places: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forbid_loading(monkeypatch)
    names = ("evaluate",) if option == "--predictions" else ("attribute", "report")
    before = files_of(places)
    bad = [place for place in BAD if place != "file"] if option == "--predictions" else BAD
    for name in names:
        for place in bad:
            code, out, err = cli(*commands[name], option, place)
            assert (code, out, err.count("\n")) == (2, "", 1), (name, place, err)
    assert files_of(places) == before


def test_where_no_file_can_be_made_nothing_is_loaded(
    commands: dict[str, tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk" / "empty").mkdir(parents=True)
    full = Faulty(tmp_path / "disk", 0, "full")
    tried = [
        (*command, "--out", str(tmp_path / "disk" / place))
        for command in commands.values()
        for place in ("r", "new/r", *(["empty"] if command[0] != "report" else []))
    ]
    tried.append((*commands["evaluate"], "--predictions", str(tmp_path / "disk" / "p.csv")))
    tried.append((*commands["attribute"], "--figures", str(tmp_path / "disk" / "figures")))
    forbid_loading(monkeypatch)
    for command in tried:
        ended = call_in_child(command, full)
        assert (ended.code, "No space left" in ended.said) == (REFUSED, True), (command, ended.said)
    assert [path.name for path in tmp_path.rglob("disk/**/*")] == ["empty"]


def test_a_finished_result_is_opened_where_nothing_can_be_written(
    cli: Cli, commands: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    out = tmp_path / "disk" / "e"
    command = (*commands["evaluate"], "--out", str(out))
    assert cli(*command)[0] == 0
    ended = call_in_child(command, Faulty(tmp_path / "disk", 0, "full"))
    assert ended.code == 0, ended.said


def test_a_run_through_a_link(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to("disk")
    command = ("run", *tiny, "--limit", "3", "--scores", "none", "--out", tmp_path / "run")
    assert cli(*command)[0] == 0
    (tmp_path / "pages").mkdir()
    (tmp_path / "disk" / "report.html").rename(tmp_path / "pages" / "r.html")
    (tmp_path / "disk" / "report.html").symlink_to(Path("..", "pages", "r.html"))
    assert cli(*command)[0] == 0
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "disk" / "report.html").is_symlink()
    assert (tmp_path / "disk" / "predictions.csv").is_file()


def test_pages_that_were_there(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    command = ("run", *tiny, "--limit", "3", "--scores", "none", "--out", tmp_path / "run")
    assert cli(*command)[0] == 0
    page = tmp_path / "run" / "report.html"
    whole = page.read_text()
    assert TITLE in whole
    assert whole.rstrip().endswith(END)
    report = ("report", tmp_path / "run" / "answers", "--out", page)
    for again, beginning in ((command, ""), (report, ""), (report, whole[:9])):
        page.write_text(beginning)
        assert cli(*again)[0] == 0, (beginning, again)
        assert page.read_text().rstrip().endswith(END)
    for beginning in ("", whole[:9], whole[: whole.index(TITLE) + 3], whole[:5000]):
        page.write_text(beginning)
        check_folder(tmp_path / "run")
        check_new_page(page)
    for own in ("<html>mine", whole[:30] + "mine", f"{'mine ' * 99} about {TITLE}"):
        page.write_text(own)
        for again in (command, report):
            code, _, err = cli(*again)
            assert code == 2
            assert "no report of neuroglot" in err or "--overwrite" in err
            assert page.read_text() == own
    page.write_text(whole)
    assert cli("report", tmp_path / "run" / "answers", "--out", page)[0] == 2
    assert page.read_text() == whole


def test_the_same_report_again(
    cli: Cli, commands: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    command = (*commands["report"], "--out", page)
    assert cli(*command)[0] == 0
    (tmp_path / "page.items.csv").unlink()
    before = page.read_bytes()
    assert cli(*command)[0] == 0
    assert page.read_bytes() == before
    assert (tmp_path / "page.items.csv").is_file()
    named = f"other={commands['report'][1]}"
    code, _, err = cli("report", named, "--out", page)
    assert (code, "--overwrite" in err, page.read_bytes()) == (2, True, before)
    assert cli("report", named, "--out", page, "--overwrite")[0] == 0
    assert page.read_bytes() != before


def test_the_same_categories_again(
    cli: Cli, commands: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    command = (*commands["classify"], "--out", tmp_path / "s")
    assert cli(*command)[0] == 0
    before = files_of(tmp_path / "s")
    assert cli(*command)[0] == 0
    table = tmp_path / "s" / "fraction" / "zarr.json"
    sound = table.read_text()
    table.write_text("{}")
    assert cli(*command)[0] == 2
    table.write_text(sound)
    ng.save(ng.classify(ng.load(tmp_path / "recording")), tmp_path / "t")  # type: ignore[arg-type]
    changed = ng.load(tmp_path / "t")
    ng.save(changed.assign_attrs(threshold=0.5), tmp_path / "t", overwrite=True)  # type: ignore[union-attr]
    code, _, err = cli(*commands["classify"], "--out", tmp_path / "t")
    assert (code, "--overwrite" in err) == (2, True)
    assert files_of(tmp_path / "s") == before


def test_the_same_table_of_answers_again(
    cli: Cli,
    commands: dict[str, tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, table = tmp_path / "e", tmp_path / "p.csv"
    alone = (*commands["evaluate"], "--predictions", table)
    command = (*alone, "--out", out)
    assert cli(*command)[0] == 0
    before, sound = files_of(tmp_path), table.read_bytes()
    assert cli(*command)[0] == 0
    assert files_of(tmp_path) == before
    table.unlink()  # killed just before it was there
    assert cli(*command)[0] == 0
    assert files_of(tmp_path) == before
    # From here on, what is there is not what the command would write.
    other = sound.replace(b"True", b"False", 1)
    assert other != sound
    with monkeypatch.context() as patch:
        patch.setattr(ng, "load_model", lambda *_, **__: pytest.fail("loads a model"))
        for given, content in (
            (command, other),
            (command, b""),
            (command, b"mine"),
            (command, sound + b"more"),
            (alone, sound),
            ((*alone, "--out", tmp_path / "f"), sound),
            ((*command, "--languages", "en,de"), sound),
        ):
            table.write_bytes(content)
            code, said, err = cli(*given)
            assert (code, said, "p.csv' exists" in err) == (2, "", True), (given, err)
            assert table.read_bytes() == content
            assert not (tmp_path / "f").exists()
        table.write_bytes(sound)
        damaged = next(path for path in (out / "log_prob" / "c").rglob("*") if path.is_file())
        damaged.write_bytes(b"damaged")
        assert cli(*command)[0] == 2
    assert cli(*commands["evaluate"], "--out", out)[0] == 0  # which mends it
    assert cli(*command)[0] == 0
    table.write_bytes(other)
    assert cli(*alone, "--overwrite")[0] == 0
    assert table.read_bytes() == sound


def test_a_report_is_a_file(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    assert cli("evaluate", *tiny, "--limit", "2", "--out", tmp_path / "e")[0] == 0
    for place in ("/dev/null", tmp_path, tmp_path / "e" / "zarr.json" / "x"):
        code, out, err = cli("report", tmp_path / "e", "--out", place, "--overwrite")
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
    assert Path("/dev/null").is_char_device()
