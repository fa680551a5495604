"""Damage elsewhere than in the blocks of a result is mended by the command that made it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

import neuroglot as ng
from neuroglot.answering import evaluation
from neuroglot.recording import recorder
from neuroglot.store import mending
from tests.killing import files_of
from tests.store.test_growing import Make, evaluate, record
from tests.testing import small_task

TASK = small_task(6)
LABELS = {
    record: ["item", "language", "asked"],
    evaluate: ["item", "language", "relation", "subject", "same_tokens_as", "asked"],
}
VALUES = {record: ["active", "values", "done"], evaluate: ["log_prob", "answer", "accuracy"]}

Harm = Callable[[Path], object]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "BLOCK", 2)
    monkeypatch.setattr(evaluation, "ITEMS_AT_ONCE", 2)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Items of the blocks that are made."""
    made: list[int] = []
    for module, name in ((recorder, "record_block"), (evaluation, "_answers")):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, real=real: (made.append(len(a[1])), real(*a))[1]
        )
    return made


def chunk_cut(folder: Path) -> None:
    chunk = next(path for path in (folder / "c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])


def chunk_lost(folder: Path) -> None:
    next(path for path in (folder / "c").rglob("*") if path.is_file()).unlink()


def metadata_cut(folder: Path) -> None:
    (folder / "zarr.json").write_bytes((folder / "zarr.json").read_bytes()[:-9])


def metadata_lost(folder: Path) -> None:
    (folder / "zarr.json").unlink()


@pytest.mark.parametrize(
    ("make", "name"), [(make, name) for make, names in LABELS.items() for name in names]
)
@pytest.mark.parametrize("harm", [chunk_cut, metadata_lost])
def test_labels_are_written_again_and_nothing_is_run(
    make: Make, name: str, harm: Harm, tmp_path: Path, blocks: list[int]
) -> None:
    whole = make(TASK, tmp_path / "r")
    before = files_of(tmp_path / "r")
    harm(tmp_path / "r" / name)
    blocks.clear()
    with pytest.warns(UserWarning, match=rf"{name}.*what labels its values is made again"):
        xr.testing.assert_identical(make(TASK, tmp_path / "r"), whole)
    assert files_of(tmp_path / "r") == before
    assert not blocks
    assert {path.name for path in tmp_path.iterdir()} == {"r", ".r.lock"}


@pytest.mark.parametrize(
    ("make", "name"), [(make, name) for make, names in VALUES.items() for name in names]
)
def test_values_of_which_it_is_not_known_how_they_are_kept_are_made_again(
    make: Make, name: str, tmp_path: Path, blocks: list[int]
) -> None:
    whole = make(TASK, tmp_path / "r")
    before = files_of(tmp_path / "r")
    metadata_cut(tmp_path / "r" / name)
    with pytest.raises(ng.NeuroglotError, match="Make it again with the same settings"):
        ng.load(tmp_path / "r")
    blocks.clear()
    with pytest.warns(UserWarning, match=rf"{name}.*all of it is made again"):
        xr.testing.assert_identical(make(TASK, tmp_path / "r"), whole)
    assert files_of(tmp_path / "r") == before
    assert sum(blocks) == len(TASK)


def test_what_may_be_of_other_settings_is_not_mended(tmp_path: Path) -> None:
    record(TASK, tmp_path / "r")
    metadata_cut(tmp_path / "r" / "threshold")
    before = files_of(tmp_path / "r")
    with pytest.raises(ng.NeuroglotError, match=r"not known whether its thresholds .*--overwrite"):
        record(TASK, tmp_path / "r")
    metadata_cut(tmp_path / "r" / "item")
    with pytest.raises(ng.NeuroglotError, match="damaged"):
        record(small_task(7), tmp_path / "r")
    with pytest.raises(ng.NeuroglotError, match="damaged"):
        record(TASK, tmp_path / "r", reading=ng.Reading(site="coefficient"))
    assert files_of(tmp_path / "r").keys() == before.keys()
    record(TASK, tmp_path / "r", overwrite=True)
    ng.load(tmp_path / "r")


def test_mending_that_is_stopped_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(TASK, tmp_path / "r")
    before = files_of(tmp_path / "r")
    chunk_lost(tmp_path / "r" / "relation")
    with monkeypatch.context() as patch:
        patch.setattr(mending, "layout_of", lambda _path: 1 / 0)
        with pytest.warns(UserWarning, match="made again"), pytest.raises(ng.NeuroglotError):
            evaluate(TASK, tmp_path / "r")
    with pytest.warns(UserWarning, match="made again"):
        xr.testing.assert_identical(evaluate(TASK, tmp_path / "r"), whole)
    assert files_of(tmp_path / "r") == before


@pytest.mark.parametrize("make", [record, evaluate])
def test_of_damaged_settings_it_is_said_what_to_do(make: Make, tmp_path: Path) -> None:
    make(TASK, tmp_path / "r")
    metadata_cut(tmp_path / "r")
    before = files_of(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(ng.NeuroglotError, match="settings are not known: remove the folder"):
            make(TASK, tmp_path / "r", overwrite=overwrite)
    assert files_of(tmp_path) == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(ng.NeuroglotError, match=r"name another folder\.$"):
        make(TASK, tmp_path / "notes")
