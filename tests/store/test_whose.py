"""Folders that are a user's own: refused in one line, and left as they are."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr
import zarr

import neuroglot as ng
from neuroglot.interventions.presets import deactivate
from neuroglot.store.folders import NEW, is_result
from neuroglot.store.whose import folder_for_results
from tests.testing import small_task, tiny_model


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


def foreign_zarr(out: Path) -> None:
    """Whose attributes happen to have names that results have."""
    group = zarr.open_group(out, mode="w")
    group.attrs.update({"kind": "K", "layout": "rows", "task": "weather"})
    group.create_array("t", data=xr.DataArray([1.0, 2.0]).to_numpy())


def repository(out: Path) -> None:
    out.mkdir()
    subprocess.run(["git", "init", "-q", str(out)], check=True, timeout=60)


def notes(out: Path) -> None:
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "notes.txt").write_text("mine")


THEIRS = pytest.mark.parametrize("theirs", [foreign_zarr, repository, notes])


@THEIRS
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_the_user_is_refused(
    theirs: Callable[[Path], None], overwrite: bool, tmp_path: Path
) -> None:
    model, task = tiny_model("llama"), small_task(3)
    out = tmp_path / "r.new"
    theirs(out)
    assert not is_result(out)
    before = files_of(out)
    for make in (ng.record, ng.fragility, ng.causal_agreement):
        with pytest.raises(ng.NeuroglotError, match="holds no result"):
            make(model, task, out=out, overwrite=overwrite)  # type: ignore[operator]
    with pytest.raises(ng.NeuroglotError, match="holds no result"):
        ng.evaluate(model, task, out=out, overwrite=overwrite)
    recording = ng.record(model, task)
    with pytest.raises(ng.NeuroglotError, match="holds no results"):
        deactivate(model, task, recording, out=out, overwrite=overwrite)
    with pytest.raises(ng.NeuroglotError, match="holds no results"):
        ng.align(model, task, method="sharing", out=out, overwrite=overwrite)
    with pytest.raises(ng.NeuroglotError, match="holds no result"):
        ng.save(recording, out, overwrite=overwrite)
    assert files_of(out) == before
    assert {p.name for p in tmp_path.iterdir()} <= {"r.new", ".r.new.lock"}


def test_a_result_that_an_earlier_version_wrote_is_one(tmp_path: Path) -> None:
    ng.record(tiny_model("llama"), small_task(2), out=tmp_path / "r")
    group = zarr.open_group(tmp_path / "r", mode="r+")
    del group.attrs["layout"]
    assert is_result(tmp_path / "r")


def test_a_single_result_is_no_folder_for_several(tmp_path: Path) -> None:
    ng.save(ng.classify(ng.record(tiny_model("llama"), small_task(3))), tmp_path / "sharing")
    before = files_of(tmp_path)
    with pytest.raises(ng.NeuroglotError, match="is a single result"):
        folder_for_results(tmp_path / "sharing")
    assert files_of(tmp_path) == before
    assert folder_for_results(tmp_path) == tmp_path


def test_what_may_be_in_a_folder_for_results(tmp_path: Path) -> None:
    """Whatever a stopped command leaves there, the same command goes on."""
    for name in ("empty", "stopped", "half", "report"):
        (tmp_path / name).mkdir()
    (tmp_path / "stopped" / ".recording.lock").write_text("")
    (tmp_path / "stopped" / f".recording.{NEW}").mkdir()
    (tmp_path / "stopped" / f".recording.{NEW}" / "zarr.json").write_text("{")
    (tmp_path / "stopped" / "development" / "conditions").mkdir(parents=True)
    deep = tmp_path / "half" / "test" / "conditions" / "all_shared"
    ng.record(tiny_model("llama"), small_task(2), out=deep)
    (tmp_path / "half" / "notes.txt").write_text("mine, but beside results")
    (tmp_path / "report" / "report.items.csv").write_text("")
    (tmp_path / "link").symlink_to("empty")
    for name in ("empty", "stopped", "half", "report", "nowhere"):
        assert folder_for_results(tmp_path / name) == tmp_path / name
    assert folder_for_results(tmp_path / "link") == tmp_path / "empty"


def test_results_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "r").symlink_to("disk")
    model, task = tiny_model("llama"), small_task(2)
    for _ in range(2):
        ng.record(model, task, out=tmp_path / "r")
        ng.evaluate(model, task, out=tmp_path / "disk" / ".." / "e")
    ng.record(model, task.first(1), out=tmp_path / "r", overwrite=True)
    assert (tmp_path / "r").is_symlink()
    assert len(ng.load(tmp_path / "disk")) == 1
    names = {p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")}
    assert names == {"disk", "r", "e"}


def test_an_array_of_a_result_is_no_result(tmp_path: Path) -> None:
    result = xr.Dataset(
        {"share": ("item", [0.5, 0.25])}, attrs={"kind": "share", "neuroglot_version": "0.1.0"}
    )
    result["share"].attrs |= result.attrs
    ng.save(result, tmp_path / "r")
    assert is_result(tmp_path / "r")
    assert not is_result(tmp_path / "r" / "share")
    with pytest.raises(ng.NeuroglotError, match="holds no result"):
        ng.load(tmp_path / "r" / "share")
