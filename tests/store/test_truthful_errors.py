"""What goes wrong while sound files are read is said as what it is, and nothing is made again."""

from __future__ import annotations

import errno
import json
import os
import resource
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.core import sync

import neuroglot as ng
from neuroglot.store.accumulating import Sums, finished, sums_in_folder
from neuroglot.store.growing import is_whole
from neuroglot.store.results import ITEMS_ADDED
from tests.store import test_fuzz_store as whole
from tests.store.test_fuzz_store import make, put, read_everything, same, stored

KINDS = pytest.mark.parametrize("kind", ["recorded", "evaluated", "written", "saved", "sharing"])
GROWING = pytest.mark.parametrize("kind", ["recorded", "evaluated", "written"])
DATA = {
    **{"recorded": "active", "saved": "active", "evaluated": "log_prob", "written": "text"},
    "sharing": "fraction",
}
NO_THREAD = "can't start new thread"
TROUBLES = pytest.mark.parametrize(
    "trouble",
    [
        MemoryError("no room for 8 GiB"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ESTALE, "Stale file handle"),
        RuntimeError(NO_THREAD),
        AssertionError("a bug of a library"),
        AttributeError("'NoneType' object has no attribute 'read'"),
        TypeError("a bug of ours"),
        ValueError("another"),
        KeyError("fraction"),
        ZeroDivisionError("division by zero"),
        EOFError("pipe"),
        RecursionError("maximum recursion depth exceeded"),
    ],
    ids=repr,
)

_small_blocks = whole._small_blocks


def sound(kind: str, folder: Path) -> Path:
    """A result whose files are as they were written."""
    files, _ = stored(kind)
    put(folder / "r", files, "zarr.json", files["zarr.json"], "")
    return folder / "r"


def content(path: Path) -> dict[str, bytes]:
    return {str(x.relative_to(path)): x.read_bytes() for x in path.rglob("*") if x.is_file()}


@contextmanager
def told(named: str = "") -> Iterator[None]:
    """One line, which names what happened, and does not say that a result is damaged."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*made again")
        with pytest.raises(ng.NeuroglotError) as found:
            yield
    message = str(found.value)
    assert named in message
    assert "\n" not in message
    assert not any(word in message for word in ("damaged", "again", "overwrite", "no result"))


def is_chunk_of(name: str) -> Callable[[Path], bool]:
    return lambda file: f"/{name}/c" in str(file)


FILES: dict[str, Callable[[str], Callable[[Path], bool]]] = {
    "a chunk of data": lambda kind: is_chunk_of(DATA[kind]),
    "labels": lambda kind: is_chunk_of("language"),
    "metadata of an array": lambda kind: lambda file: file.parent.name == DATA[kind],
    "metadata of the result": lambda kind: lambda file: file.parts[-2:] == ("r", "zarr.json"),
}


@contextmanager
def trouble_with(wanted: Callable[[Path], bool], trouble: BaseException) -> Iterator[None]:
    """Reading one of these files raises."""
    real = Path.read_bytes

    def read_bytes(self: Path) -> bytes:
        if wanted(self):
            raise trouble
        return real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_bytes)
        yield


@TROUBLES
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", ["recorded", "evaluated", "sharing"])
def test_trouble_is_named(kind: str, file: str, trouble: Exception, tmp_path: Path) -> None:
    path = sound(kind, tmp_path)
    with trouble_with(FILES[file](kind), trouble), told(type(trouble).__name__):
        read_everything(path)
    same(read_everything(path), stored(kind)[1])
    assert content(path) == stored(kind)[0]


@TROUBLES
@pytest.mark.parametrize("file", FILES)
def test_trouble_makes_nothing_again(file: str, trouble: Exception, tmp_path: Path) -> None:
    """A finished result stays one, and a block that is written is not made a second time."""
    for kind in ("recorded", "evaluated"):
        path = sound(kind, tmp_path / kind)
        with trouble_with(FILES[file](kind), trouble), told(type(trouble).__name__):
            make(kind, path)
        assert content(path) == stored(kind)[0]
        make(kind, path)
        assert content(path) == stored(kind)[0]


@TROUBLES
def test_trouble_with_what_follows_from_all_blocks(trouble: Exception, tmp_path: Path) -> None:
    path = sound("evaluated", tmp_path)
    head = xr.Dataset(attrs=dict(ng.load(path).attrs))
    with trouble_with(is_chunk_of("accuracy"), trouble), told(type(trouble).__name__):
        is_whole(path, head, ())
    assert is_whole(path, head, ())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("file", FILES)
def test_a_stop_is_no_trouble(file: str, stop: type[BaseException], tmp_path: Path) -> None:
    path = sound("recorded", tmp_path)
    with trouble_with(FILES[file]("recorded"), stop()):
        with pytest.raises(stop):
            read_everything(path)
        with pytest.raises(stop):
            make("recorded", path)
    assert content(path) == stored("recorded")[0]


@TROUBLES
def test_trouble_with_sums(trouble: Exception, tmp_path: Path) -> None:
    head = xr.Dataset(coords={"item": ["a", "b"]}, attrs={"kind": "sums"})
    start = xr.Dataset({"total": ("layer", np.arange(3.0))})
    sums = Sums(head, start, tmp_path / "r")
    sums.n_added = 1
    sums.save()
    before = content(tmp_path / "r")
    for wanted in (is_chunk_of("total"), FILES["metadata of the result"]("")):
        with (
            trouble_with(wanted, trouble),
            told(type(trouble).__name__),
            sums_in_folder(tmp_path / "r", head, start, overwrite=False),
        ):
            pass
    with trouble_with(FILES["metadata of the result"](""), trouble), told():
        finished(tmp_path / "r", head)
    assert content(tmp_path / "r") == before
    with sums_in_folder(tmp_path / "r", head, start, overwrite=False) as found:
        assert found.n_added == 1
        assert found.sums["total"].values.tolist() == [0, 1, 2]
    assert not finished(tmp_path / "r", head)


@pytest.mark.parametrize("number", [-1, 3, 1.5, "1", None, True, [1]])
def test_sums_that_lie_about_their_items(number: object, tmp_path: Path) -> None:
    head = xr.Dataset(coords={"item": ["a", "b"]}, attrs={"kind": "sums"})
    start = xr.Dataset({"total": ("layer", np.arange(3.0))})
    Sums(head, start, tmp_path / "r").replace(start.assign_attrs({ITEMS_ADDED: number}))
    with (
        pytest.raises(ng.NeuroglotError, match=r"damaged \('items_added' is "),
        sums_in_folder(tmp_path / "r", head, start, overwrite=False),
    ):
        pass


@contextmanager
def no_threads() -> Iterator[None]:
    """No thread can be started, and Zarr has none yet."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError(NO_THREAD)

    sync.cleanup_resources()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        yield


@KINDS
@pytest.mark.concurrent
def test_what_cannot_be_read_without_threads_is_read_later(kind: str, tmp_path: Path) -> None:
    """Zarr must not wait for the thread that never was."""
    path = sound(kind, tmp_path)
    with no_threads(), told(NO_THREAD):
        read_everything(path)
    same(read_everything(path), stored(kind)[1])
    if kind in {"recorded", "evaluated", "written"}:
        with no_threads(), told(NO_THREAD):
            make(kind, path)
        make(kind, path)
    assert content(path) == stored(kind)[0]


@pytest.mark.parametrize("kind", ["recorded", "saved"])
@pytest.mark.concurrent
def test_what_was_opened_before_is_read_later_too(kind: str, tmp_path: Path) -> None:
    path = sound(kind, tmp_path)
    found = ng.load(path)
    assert isinstance(found, ng.Recording)
    with no_threads(), told(NO_THREAD):
        found.bits()
    np.testing.assert_array_equal(found.values.to_numpy(), stored(kind)[1]["values"])
    assert content(path) == stored(kind)[0]


@GROWING
@pytest.mark.concurrent
def test_what_cannot_be_written_without_threads_is_written_later(kind: str, tmp_path: Path) -> None:
    with no_threads(), told(NO_THREAD):
        make(kind, tmp_path / "r")
    make(kind, tmp_path / "r")  # Zarr must not wait for the thread that never was
    same(read_everything(tmp_path / "r"), stored(kind)[1])


@pytest.mark.concurrent
def test_what_cannot_be_saved_without_threads_leaves_what_was_there(tmp_path: Path) -> None:
    path = sound("sharing", tmp_path)
    found = ng.load(path)
    with no_threads(), told(NO_THREAD):
        ng.save(found * 0, path, overwrite=True)
    assert content(path) == stored("sharing")[0]
    ng.save(found, path, overwrite=True)
    same(read_everything(path), stored("sharing")[1])


@contextmanager
def no_more_files() -> Iterator[None]:
    """As if so many files were open that no other can be."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    unused = os.dup(0)
    os.close(unused)
    resource.setrlimit(resource.RLIMIT_NOFILE, (unused, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@KINDS
def test_too_many_open_files(kind: str, tmp_path: Path) -> None:
    path = sound(kind, tmp_path)
    read_everything(path)
    found: Any = ng.load(path)
    with no_more_files(), told("Too many open files"):
        ng.load(path)
    if isinstance(found, ng.Recording):
        with no_more_files(), told("Too many open files"):
            found.bits()
        found.bits()
    same(read_everything(path), stored(kind)[1])


@pytest.mark.parametrize("closed", ["", "active", "active/c/0"])
def test_a_folder_that_may_not_be_listed(
    closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in it is taken for missing."""
    path, real = sound("recorded", tmp_path), os.scandir

    def scandir(folder: Any = ".") -> Any:
        if Path(folder) == path / closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with told("Permission denied"):
        ng.load(path)
    monkeypatch.setattr(os, "scandir", real)
    same(read_everything(path), stored("recorded")[1])


def test_a_result_that_may_not_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    path = sound("recorded", tmp_path)
    denied = PermissionError(errno.EACCES, "Permission denied")
    with trouble_with(FILES["metadata of the result"](""), denied):
        for overwrite in (False, True):
            with told("Permission denied"):
                ng.save(ng.load(sound("sharing", tmp_path / "other")), path, overwrite=overwrite)
        with told("Permission denied"):
            ng.load(path)
    assert content(path) == stored("recorded")[0]


def flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize("kind", ["recorded", "evaluated", "written", "sharing"])
@pytest.mark.parametrize(
    ("change", "file", "reason"),
    [
        (flipped, "DATA", r"DATA/c/[0-9/]+: "),
        (lambda data: data[:-5], "DATA", r"DATA/c/[0-9/]+: "),
        (lambda data: b"", "DATA", r"DATA/c/[0-9/]+: "),
        (lambda data: None, "DATA", r"1 of \d+ chunks of 'DATA' are missing"),
        (flipped, "language/c", r"language/c/0: "),
        (lambda data: None, "language/c", r"1 of 1 chunks of 'language' are missing"),
        (lambda data: data[:-1], "DATA/zarr.json", r"DATA/zarr.json is (no JSON|not as it was)"),
        (lambda data: b"[]", "DATA/zarr.json", r"DATA/zarr.json (holds \[\]|is not as it was)"),
        (lambda data: None, "DATA/zarr.json", r"DATA/zarr.json is not as it was written"),
    ],
)
def test_damage_is_named_with_its_file(
    kind: str, change: Any, file: str, reason: str, tmp_path: Path
) -> None:
    name, (files, _) = DATA[kind], stored(kind)
    file, reason = (text.replace("DATA", name) for text in (file, reason))
    chosen = next(x for x in files if x.startswith(file) and (file.endswith("n") or "/c" in x))
    put(tmp_path / "r", files, chosen, change(files[chosen]), "gone")
    with pytest.raises(ng.NeuroglotError, match=rf"damaged .*{reason}"):
        read_everything(tmp_path / "r")


@pytest.mark.parametrize(
    ("change", "reason"),
    [(lambda data: None, "no file values/c/1/0/0/0"), (flipped, r"values/c/1/0/0/0: the checksum")],
)
def test_damage_after_opening_is_named(change: Any, reason: str, tmp_path: Path) -> None:
    """Only to those who ask for what is damaged; Zarr would take a missing chunk for zeros."""
    files, expected = stored("recorded")
    found = ng.load(sound("recorded", tmp_path))
    assert isinstance(found, ng.Recording)
    (tmp_path / "r/values/c/1/0/0/0").unlink()
    damaged = change(files["values/c/1/0/0/0"])
    if damaged is not None:
        (tmp_path / "r/values/c/1/0/0/0").write_bytes(damaged)
    for items in (slice(1, 3), slice(None, None, -1), [0, 2], [-3], 2, [2, 2], slice(0, 6, 3)):
        with pytest.raises(ng.NeuroglotError, match=rf"damaged .*{reason}"):
            found.values.isel(item=items).load()
    for items in (slice(0, 2), slice(5, 3, -1), [0, 5], [-1, -5], 4, slice(0, 6, 4), slice(3, 3)):
        np.testing.assert_array_equal(
            found.values.isel(item=items).to_numpy(), expected["values"][items]
        )


@pytest.mark.parametrize("n_done", [0, 2, 4])
@GROWING
def test_blocks_that_are_still_to_be_made_are_not_damage(
    kind: str, n_done: int, tmp_path: Path
) -> None:
    files, expected = stored(kind)
    root = json.loads(files["zarr.json"])
    del root["attributes"]["finished"]
    head = (
        "item/",
        "language/",
        "layer/",
        "threshold/",
        "relation/",
        "subject/",
        "same_tokens_as/",
        "asked/",
    )
    kept = {
        name: data
        for name, data in files.items()
        if name.endswith("zarr.json") or name.startswith(head) or block_of(name) < n_done // 2
    }
    put(tmp_path / "r", kept, "zarr.json", json.dumps(root).encode(), "")
    with pytest.raises(ng.NeuroglotError, match=rf"is an unfinished .* \({n_done} of 6 items\)"):
        ng.load(tmp_path / "r")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*are damaged")
        make(kind, tmp_path / "r")
    same(read_everything(tmp_path / "r"), expected)


def block_of(chunk: str) -> int:
    """The block of items that a chunk belongs to; thresholds come before items."""
    name, _, *place = chunk.split("/")
    return int(place[1 if name == "active" else 0])
