"""Killed, stopped, damaged, in use, full: what is written stays, and the same call goes on."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore

import neuroglot as ng
from neuroglot.store import blockwise
from neuroglot.store.folders import GONE, NEW, OLD, locked
from tests import killing
from tests.testing import small_task, tiny_hf, tiny_model, tokenizer

COMMAND_LINE = """
from neuroglot.cli.app import main
from tests import killing

killing.end_if_it_hangs()
killing.prepared()
killing.wait_at_block(3)
main()
"""
KINDS = pytest.mark.parametrize("what", ["record", "evaluate"])


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroglot.recording.recorder.BLOCK", 2)
    monkeypatch.setattr("neuroglot.answering.evaluation.ITEMS_AT_ONCE", 2)


def make(what: str, out: Path | None, **options: object) -> xr.Dataset:
    model, task = tiny_model("llama"), small_task(6)
    if what == "record":
        return ng.record(
            model, task, out=out, reading=ng.Reading(keep_values=True), **options
        ).dataset  # type: ignore[arg-type]
    return ng.evaluate(model, task, out=out, **options)  # type: ignore[arg-type]


def variable_of(what: str) -> str:
    return "active" if what == "record" else "log_prob"


@pytest.mark.slow
@KINDS
@pytest.mark.concurrent
def test_killed_again_and_again_it_ends_as_if_undisturbed(what: str, tmp_path: Path) -> None:
    done = killing.kill_at_random(what, tmp_path / "r", 3)
    assert any(0 < n < killing.N_ITEMS for n in done), "some kill in the middle"
    killing.finish(what, tmp_path / "r")
    killing.finish(what, tmp_path / "u")
    killed, expected = (killing.opened(tmp_path / name) for name in "ru")
    assert killing.checksum(killed) == killing.checksum(expected)
    xr.testing.assert_identical(killed, expected)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.endswith("lock")) == ["r", "u"]


@pytest.mark.slow
@KINDS
@pytest.mark.concurrent
def test_ctrl_c_finishes_the_block(what: str, tmp_path: Path) -> None:
    _, errors = killing.interrupted(killing.start(what, tmp_path / "r", waits_at=3))
    assert "stopping after this block; Ctrl-C again stops at once" in errors
    assert "KeyboardInterrupt" in errors
    assert 4 <= killing.n_done(tmp_path / "r") < killing.N_ITEMS
    with pytest.raises(ng.NeuroglotError, match=r"is an unfinished .* goes on"):
        ng.load(tmp_path / "r")


@pytest.mark.slow
@pytest.mark.concurrent
def test_ctrl_c_on_the_command_line(tmp_path: Path) -> None:
    model, task, out = (str(tmp_path / name) for name in ("model", "small.jsonl", "r"))
    tiny_hf("llama").save_pretrained(model)
    tokenizer().save_pretrained(model)
    small_task(killing.N_ITEMS).to_jsonl(task)
    process = killing.started(["-c", COMMAND_LINE, "record", model, task, "--out", out], "waiting")
    _, errors = killing.interrupted(process)
    assert process.returncode == 130
    assert 4 <= killing.n_done(tmp_path / "r") < killing.N_ITEMS
    assert "neuroglot: stopped; with --out, the same command goes on" in errors
    assert "Traceback" not in errors


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def chunk_of(folder: Path, variable: str, block: int) -> Path:
    """The file of a block's first chunk; thresholds come before items."""
    chunks = sorted(p for p in (folder / variable / "c").rglob("*") if p.is_file())
    return chunks[block]


def read_all(path: Path) -> None:
    found = ng.load(path)
    if isinstance(found, ng.Recording):
        found.bits(items=slice(0, 2))  # these are whole
        found.bits()
        found.values.load()


@pytest.mark.parametrize(
    ("what", "variable"),
    [("record", "active"), ("record", "values"), ("evaluate", "log_prob"), ("evaluate", "answer")],
)
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_block_is_named_and_made_again(
    what: str, variable: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    expected = make(what, tmp_path / "r").load()
    damage(chunk_of(tmp_path / "r", variable, 1))
    with pytest.raises(ng.NeuroglotError, match="damaged"):
        read_all(tmp_path / "r")
    with pytest.warns(UserWarning, match=r"items 2 to 3 are damaged .*; they are made again"):
        mended = make(what, tmp_path / "r")
    xr.testing.assert_identical(mended, expected)


def test_the_items_of_a_damaged_block_are_named(tmp_path: Path) -> None:
    make("record", tmp_path / "r")
    flip(chunk_of(tmp_path / "r", "active", 1))
    found = ng.load(tmp_path / "r")
    assert isinstance(found, ng.Recording)
    with pytest.raises(ng.NeuroglotError, match="items item2, item3"):
        ng.classify(found.select(items=["item2", "item3"]))


def test_damaged_marks_and_metadata(tmp_path: Path) -> None:
    expected = make("record", tmp_path / "r").load()
    flip(chunk_of(tmp_path / "r", "done", 2))
    with pytest.warns(UserWarning, match="items 4 to 5 are damaged"):
        xr.testing.assert_identical(make("record", tmp_path / "r"), expected)
    (tmp_path / "r" / "active" / "zarr.json").write_text("{")
    with pytest.raises(ng.NeuroglotError, match=r"cannot read a result .* it is damaged"):
        ng.load(tmp_path / "r")
    xr.testing.assert_identical(make("record", tmp_path / "r", overwrite=True), expected)


@pytest.mark.parametrize("left", ["damaged", "written before the mark of the whole"])
def test_what_follows_from_all_blocks_is_made_again(left: str, tmp_path: Path) -> None:
    expected = make("evaluate", tmp_path / "r").load()
    if left == "damaged":
        flip(chunk_of(tmp_path / "r", "accuracy", 0))
        with pytest.raises(ng.NeuroglotError, match="damaged"):
            ng.load(tmp_path / "r")
    else:
        zarr.open_group(tmp_path / "r", mode="r+").attrs["finished"] = 0
    xr.testing.assert_identical(make("evaluate", tmp_path / "r"), expected)


@KINDS
@pytest.mark.concurrent
def test_a_second_process_is_refused(what: str, tmp_path: Path) -> None:
    with (
        locked(tmp_path / "r"),
        pytest.raises(ng.NeuroglotError, match="another process is writing to"),
    ):
        make(what, tmp_path / "r")
    assert make(what, tmp_path / "r").sizes["item"] == 6


@KINDS
def test_a_full_disk_keeps_what_was_written(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = make(what, None)
    real = LocalStore.set

    async def full(self: LocalStore, key: str, value: Any) -> None:
        if key.startswith(variable_of(what)) and "1" in key.split("/"):
            raise OSError(errno.ENOSPC, "No space left on device")
        await real(self, key, value)

    monkeypatch.setattr(LocalStore, "set", full)
    with pytest.raises(ng.NeuroglotError, match=r"cannot write to .* No space left .* are kept"):
        make(what, tmp_path / "r")
    monkeypatch.setattr(LocalStore, "set", real)
    assert killing.n_done(tmp_path / "r") == 2
    xr.testing.assert_equal(make(what, tmp_path / "r").drop_attrs(), expected.drop_attrs())


@pytest.mark.concurrent
def test_a_folder_that_may_not_be_written() -> None:
    """In a process of its own, which may give up being root."""
    with tempfile.TemporaryDirectory() as name:  # unlike pytest's, one that others may enter
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "closed").mkdir(mode=0o555)
        code = (
            "from pathlib import Path; from tests import killing; "
            f"killing.make_as_nobody(Path({name!r}), Path({name!r}) / 'closed' / 'r')"
        )
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=killing.ROOT, capture_output=True, text=True,
            check=False, timeout=killing.LONGEST,
        )  # fmt: skip
        assert re.search(r"NeuroglotError: cannot write to '.*/closed/r'.*denied", run.stderr)


@pytest.mark.concurrent
def test_leftovers_of_a_killed_process_are_cleared_up(tmp_path: Path) -> None:
    expected = make("record", tmp_path / "r").load()
    (tmp_path / "r" / "active" / "c" / f"0.{'0a' * 16}.partial").write_text("half")
    (tmp_path / "r" / "mine.partial").write_text("whole")
    (tmp_path / f".r.{NEW}").mkdir()
    (tmp_path / f".r.{NEW}" / "zarr.json").write_text("half")
    # Killed while one took the place of the other.
    (tmp_path / "r").rename(tmp_path / f".r.{OLD}")
    xr.testing.assert_identical(make("record", tmp_path / "r"), expected)
    assert {p.name for p in tmp_path.iterdir()} == {"r", ".r.lock"}
    assert [path.name for path in (tmp_path / "r").rglob("*.partial")] == ["mine.partial"]


@KINDS
@pytest.mark.parametrize("kind", [NEW, OLD, GONE])
def test_leftovers_beside_a_finished_result_go_when_it_is_opened(
    what: str, kind: str, tmp_path: Path
) -> None:
    expected = make(what, tmp_path / "r").load()
    (tmp_path / f".r.{kind}" / "active").mkdir(parents=True)
    (tmp_path / f".r.{kind}" / "zarr.json").write_text("half")
    xr.testing.assert_identical(make(what, tmp_path / "r"), expected)
    assert {p.name for p in tmp_path.iterdir()} == {"r", ".r.lock"}


def test_half_of_what_was_replaced_does_not_come_back(tmp_path: Path) -> None:
    expected = make("record", tmp_path / "r").load()
    (tmp_path / "r").rename(tmp_path / f".r.{GONE}")
    (tmp_path / f".r.{GONE}" / "active" / "zarr.json").unlink()
    xr.testing.assert_identical(make("record", tmp_path / "r"), expected)
    assert {p.name for p in tmp_path.iterdir()} == {"r", ".r.lock"}


def test_folders_of_the_user_are_not_touched(tmp_path: Path) -> None:
    for name in ("r.new", "r.old", ".r.new", ".r.old", ".r.gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("dear")
    for overwrite in (False, False, True):
        make("record", tmp_path / "r", overwrite=overwrite)
    assert len(list(tmp_path.glob("*/mine"))) == len(list(tmp_path.glob("*.[nog]*"))) == 5


def test_where_the_new_one_cannot_take_its_place_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, real = make("record", tmp_path / "r").load(), Path.rename

    def full(self: Path, target: Path) -> Path:
        if self.name.endswith(NEW):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", full)
        with pytest.raises(ng.NeuroglotError, match="No space left"):
            make("record", tmp_path / "r", overwrite=True)
    found = ng.load(tmp_path / "r")
    assert isinstance(found, ng.Recording)
    xr.testing.assert_identical(found.dataset, old)
    assert {p.name for p in tmp_path.iterdir()} == {"r", ".r.lock"}


class Killed(BaseException):
    """Stands for a kill where nothing would be cleared up after it."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.concurrent
def test_killed_in_its_last_step_it_goes_on(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, real = make("evaluate", tmp_path / "u").load(), blockwise.write_whole

    def killed(data: xr.Dataset, path: Path) -> None:
        if "accuracy" in data and when == "before":
            raise Killed
        real(data, path)
        if "accuracy" in data:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(blockwise, "write_whole", killed)
        with pytest.raises(Killed):
            make("evaluate", tmp_path / "r")
    with pytest.raises(ng.NeuroglotError, match=r"unfinished evaluation \(6 of 6 items\)"):
        ng.load(tmp_path / "r")
    xr.testing.assert_identical(make("evaluate", tmp_path / "r"), expected)


@pytest.mark.concurrent
def test_killed_while_what_is_damaged_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = make("evaluate", tmp_path / "r").load()
    flip(chunk_of(tmp_path / "r", "accuracy", 0))

    def killed(folder: Path) -> None:
        (folder / "zarr.json").unlink()
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("neuroglot.store.blockwise.shutil.rmtree", killed)
        with pytest.raises(Killed):
            make("evaluate", tmp_path / "r")
    assert not (tmp_path / "r" / "accuracy" / "zarr.json").exists()
    xr.testing.assert_identical(make("evaluate", tmp_path / "r"), expected)


def test_what_follows_from_a_recording_is_kept_damaged_or_of_other_settings_replaced(
    tmp_path: Path,
) -> None:
    model, task, out = tiny_model("llama"), small_task(6), tmp_path / "r"

    def run() -> None:
        ng.run(model, task, out=out, scores=())

    def written() -> dict[Path, int]:
        files = [path for name in ("sharing", "thresholds") for path in (out / name).rglob("*")]
        return {path: path.stat().st_ino for path in files if path.is_file()}

    run()
    sound, before = killing.files_of(out), written()
    run()
    assert written() == before, "nothing was written again"
    flip(chunk_of(out / "sharing", "fraction", 0))
    chunk_of(out / "thresholds", "fraction", 0).unlink()
    run()
    assert killing.files_of(out) == sound
    # Killed with other settings after the recording was replaced, and before what follows was.
    other = ng.classify(ng.record(model, small_task(6, seed=1)))
    ng.save(other, out / "sharing", overwrite=True)
    run()
    assert killing.files_of(out) == sound


def test_what_was_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    old = make("record", tmp_path / "r").load()
    bad = xr.Dataset({"x": ("y", np.array([object()]))}, attrs={"kind": "recording"})
    with pytest.raises(Exception, match="object"):
        ng.save(bad, tmp_path / "r", overwrite=True)
    found = ng.load(tmp_path / "r")
    assert isinstance(found, ng.Recording)
    xr.testing.assert_identical(found.dataset, old)


def test_variables_have_one_order_however_the_folder_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("evaluate", tmp_path / "r")
    real, orders = os.listdir, []
    for backwards in (False, True):

        def listed(path: Any, backwards: bool = backwards) -> Any:
            return sorted(real(path), reverse=backwards)

        with monkeypatch.context() as patched:
            patched.setattr(os, "listdir", listed)
            found = ng.load(tmp_path / "r")
        assert isinstance(found, xr.Dataset)
        orders.append(list(found.variables))
    assert orders[0] == orders[1]


@KINDS
def test_the_same_run_gives_the_same_bits(what: str) -> None:
    one, other = make(what, None), make(what, None)
    assert killing.checksum(one) == killing.checksum(other)
    assert one.attrs["deterministic"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_neurons": 200}, "do not hold 200 neurons"),
        ({"n_neurons": "many"}, "do not hold 'many' neurons"),
    ],
)
def test_a_recording_that_lies_about_its_sizes(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    data = make("record", None).assign_attrs(change)
    ng.save(ng.Recording(data), tmp_path / "r")
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.load(tmp_path / "r")
