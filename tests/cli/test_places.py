"""Where the commands write: links, the root, folders and pages of the user."""

from __future__ import annotations

from pathlib import Path

import pytest

import neuroglot as ng
from neuroglot.cli.parsing import check_folder, check_new_page
from neuroglot.report.page import END, TITLE
from tests.cli.conftest import Cli

EARLY = ("demo", "run", "deactivate", "amplify", "compare", "align")
WHERE = ("/", "/proc/x", "loop", "dangling", "dangling/x", "file/x", "theirs", "repository")


@pytest.fixture
def commands(tmp_path: Path, tiny: tuple[Path, Path]) -> dict[str, tuple[str, ...]]:
    """Every command that takes a folder, without --out."""
    model, task = map(str, tiny)
    recording = tmp_path / "recording"
    ng.record(ng.load_model(model), ng.ParallelTask.from_jsonl(task), recording)
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
    }


def test_places_where_nothing_can_be(
    cli: Cli,
    commands: dict[str, tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("nowhere")
    Path("file").write_text("")
    Path("theirs").mkdir()
    Path("theirs", "notes.txt").write_text("mine")
    Path("repository", ".git").mkdir(parents=True)
    roots = set(Path("/").iterdir())
    before = {p for p in tmp_path.rglob("*") if p.name[-5:] != ".lock"}
    for i, (name, command) in enumerate(commands.items()):
        # Loading a model takes long: some commands do before they look, and try fewer places.
        places = WHERE if name in EARLY else (WHERE[i % len(WHERE)], "theirs")
        for place in places:
            more = ("--overwrite",) if place == "theirs" and name != "demo" else ()
            code, out, err = cli(*command, "--out", place, *more)
            said = [x for x in err.splitlines() if x.startswith("neuroglot: ")]
            assert (code, out) == (2, ""), (name, place, err)
            assert "Traceback" not in err
            assert [x for x in said if "warning" not in x and "note" not in x] == said[-1:]
    assert {p for p in tmp_path.rglob("*") if p.name[-5:] != ".lock"} == before
    assert Path("theirs", "notes.txt").read_text() == "mine"
    assert set(Path("/").iterdir()) == roots


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


def test_a_report_is_a_file(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    assert cli("evaluate", *tiny, "--limit", "2", "--out", tmp_path / "e")[0] == 0
    for place in ("/dev/null", tmp_path, tmp_path / "e" / "zarr.json" / "x"):
        code, out, err = cli("report", tmp_path / "e", "--out", place, "--overwrite")
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
    assert Path("/dev/null").is_char_device()
