"""Files that are written whole or not at all, and places that nothing can be written to."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import neuroglot as ng
from neuroglot.answering.spreadsheet import save_table
from neuroglot.models import remembered
from neuroglot.models.verify import Verified
from neuroglot.outputs import OURS, TRIAL, check_writable, real_path, write_file
from tests.faults import REFUSED, Faulty, in_child
from tests.testing import small_task


@contextmanager
def room_for(n_bytes: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize(
    ("owner", "name"), [(os, "fsync"), (shutil, "copymode"), (Path, "replace")]
)
@pytest.mark.concurrent
def test_a_kill_leaves_the_old_file_and_nothing_after_the_next_write(
    owner: object, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    file.write_text("old")
    (tmp_path / f"{OURS}mine").write_text("of the user")

    def write() -> None:
        setattr(owner, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        write_file(file, "new" * 100000)

    assert in_child(write, Faulty(tmp_path)).code == -signal.SIGKILL
    assert file.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 3  # with what the killed process left
    write_file(file, "new")
    assert file.read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", f"{OURS}mine"}


@pytest.mark.concurrent
def test_what_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    write_file(tmp_path / "a", "1")
    seen: list[str] = []

    def look(handle: int, real: object = os.fsync) -> None:
        seen.extend(path.name for path in tmp_path.glob(f"{OURS}*"))
        real(handle)  # type: ignore[operator]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", look)
        write_file(tmp_path / "a", "2")
    (name,) = seen
    earlier = name.split("-")  # of this number, as each may have in a container
    (tmp_path / "-".join([*earlier[:3], "0" * 8, earlier[4]])).write_text("killed")
    running = tmp_path / name
    running.write_text("of a process that runs")
    write_file(tmp_path / "a", "3")
    assert running.exists()
    assert len(list(tmp_path.iterdir())) == 2
    running.rename(tmp_path / name.replace(f"-{os.getpid()}-", "-999999999-"))
    write_file(tmp_path / "b", "another file")
    assert len(list(tmp_path.iterdir())) == 3
    write_file(tmp_path / "a", "4")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def write_neurons(file: Path) -> None:
    ng.NeuronSet(np.array([[True, False], [True, True]]), "some").save(file, overwrite=True)


def write_task(file: Path) -> None:
    small_task(2).to_jsonl(file)


def write_table(file: Path) -> None:
    save_table(pd.DataFrame({"a": [1, 2]}), file)


@pytest.mark.parametrize("write", [write_neurons, write_task, write_table])
def test_a_kill_at_any_operation_leaves_nothing_after_the_next_write(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / f"{OURS}mine").write_text("of the user")
    operations = in_child(lambda: write(place / "f"), Faulty(place)).seen
    assert len(operations) >= 3
    expected = (place / "f").read_bytes()
    for number in range(len(operations)):
        (place / "f").unlink(missing_ok=True)
        ended = in_child(lambda: write(place / "f"), Faulty(place, number))
        assert ended.code == -signal.SIGKILL
        write(place / "f")
        assert (place / "f").read_bytes() == expected
        assert {path.name for path in place.iterdir()} == {"f", f"{OURS}mine"}


def test_a_kill_leaves_nothing_in_the_cache_after_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(remembered.FOLDER, str(tmp_path))
    found = remembered.Remembered("layers.{i}", "path", Verified(False, True, None, 0.0))

    def write() -> None:
        remembered.remember({"weights": "w"}, found)

    operations = in_child(write, Faulty(tmp_path)).seen
    expected = [path.name for path in (tmp_path / "verified").iterdir()]
    for number in range(len(operations)):
        shutil.rmtree(tmp_path / "verified", ignore_errors=True)
        assert in_child(write, Faulty(tmp_path, number)).code == -signal.SIGKILL
        assert remembered.recall({"weights": "w"}) in (None, found)
        write()
        assert remembered.recall({"weights": "w"}) == found
        assert [path.name for path in (tmp_path / "verified").iterdir()] == expected


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    write_file(file, "old")
    with room_for(1000), pytest.raises(OSError, match="large"):
        write_file(file, "new" * 1000)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_permissions_stay_and_are_those_of_new_files(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_file(tmp_path / "new", "x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "new").chmod(0o640)
    write_file(tmp_path / "new", "y")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_file_that_may_not_be_written_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write all
    with pytest.raises(PermissionError):
        write_file(tmp_path / "t", "new")
    assert (tmp_path / "t").read_text() == "old"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "t").write_text("old")
    (tmp_path / "link").symlink_to(Path("there", "t"))
    write_file(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "t").read_text() == "new"
    assert len(list(tmp_path.rglob("*"))) == 3


@pytest.mark.concurrent
def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(tmp_path / "pipe", "new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    write_file("/dev/null", "x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_name_of_any_length_that_a_file_may_have(tmp_path: Path) -> None:
    write_file(tmp_path / ("x" * 255), "new")
    assert (tmp_path / ("x" * 255)).read_text() == "new"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/", "root of the file system"),
        ("/..", "root of the file system"),
        ("loop", "leads back to itself"),
        ("loop/r", "leads back to itself"),
        ("dangling", "is a link to 'nowhere', which is not there"),
        ("dangling/r", "is a link to 'nowhere', which is not there"),
        ("there/../dangling", "is a link to 'nowhere', which is not there"),
        ("chain", "is a link to 'dangling', which is not there"),
        ("file/r", "file' is a file"),
        ("file/r/s", "file' is a file"),
        ("a\0b", "null"),
        ("x" * 300, "File name too long"),
    ],
)
def test_places_that_cannot_be(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("file").write_text("")
    Path("dangling").symlink_to("nowhere")
    Path("chain").symlink_to("dangling")
    Path("loop").symlink_to("pool")
    Path("pool").symlink_to("loop")
    before = sorted(tmp_path.rglob("*"))
    for write in (real_path, lambda place: write_file(place, "x")):
        with pytest.raises(ng.NeuroglotError, match=message):
            write(path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("inside", [False, True])
def test_to_look_whether_a_place_can_be_written_leaves_nothing(
    inside: bool, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").write_text("mine")
    tried = [place, *(place / name for name in ("new", "a/b/new", "x" * 220))]
    tried += [] if inside else [place / "file"]
    for path in tried:
        check_writable(path, inside=inside)
        assert [path.name for path in tmp_path.rglob("*")] == ["place", "file"]
        look = Faulty(tmp_path)
        seen = in_child(lambda path=path, look=look: check_writable(path, inside=inside), look).seen  # type: ignore[misc]
        assert [operation.split()[0] for operation in seen] == ["open", "remove"]
        full = Faulty(tmp_path, 0, "full")
        ended = in_child(lambda path=path: check_writable(path, inside=inside), full)  # type: ignore[misc]
        assert (ended.code, "No space left" in ended.said) == (REFUSED, True)
        killed = in_child(
            lambda path=path: check_writable(path, inside=inside),  # type: ignore[misc]
            Faulty(tmp_path, 1),
        )
        assert killed.code == -signal.SIGKILL
        assert len(list(tmp_path.rglob(f"*{TRIAL}"))) == 1
        check_writable(path, inside=inside)
    (place / f".r.{TRIAL}").write_text("mine")
    check_writable(place / "r", inside=inside)
    assert (place / f".r.{TRIAL}").read_text() == "mine"


def test_a_device_is_written_to_as_it_is() -> None:
    devices = Faulty(Path("/dev"))
    assert in_child(lambda: check_writable("/dev/null"), devices).seen == []


def test_places_where_no_file_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/proc/x", "/proc/x/y", tmp_path / ("x" * 250)):
        with pytest.raises(ng.NeuroglotError, match="cannot write to"):
            check_writable(path)
    (tmp_path / "t").write_text("")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write all
    with pytest.raises(ng.NeuroglotError, match="Permission denied"):
        check_writable(tmp_path / "t")
