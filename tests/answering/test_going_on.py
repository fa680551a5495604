"""Agreement and fragility: stopped at any block, the same call goes on to the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import neuroglot as ng
from neuroglot.attribution import agreement
from tests import killing
from tests.testing import small_task, tiny_model

fragility = import_module("neuroglot.comparison.fragility")

Make = Callable[..., xr.Dataset]


def agree(out: Path | None, n_items: int = 10, **options: Any) -> xr.Dataset:
    how = {"n_neurons": 5, "scores": ("effective", "contribution")} | options
    return ng.causal_agreement(tiny_model("llama"), small_task(n_items), out=out, **how)


def round_otherwise(out: Path | None, n_items: int = 10, **options: Any) -> xr.Dataset:
    return ng.fragility(tiny_model("llama"), small_task(n_items), out=out, **options)


BOTH = pytest.mark.parametrize("make", [agree, round_otherwise])


def files_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def break_after(make: Make, n: int, patch: pytest.MonkeyPatch) -> None:
    """Let the part of the work after the first ``n`` fail."""
    module, name = (agreement, "_effects") if make is agree else (fragility, "record")
    real, done = getattr(module, name), []

    def breaking(*args: Any, **options: Any) -> Any:
        if len(done) == n:
            raise KeyboardInterrupt
        done.append(1)
        return real(*args, **options)

    patch.setattr(module, name, breaking)


@BOTH
def test_in_a_folder_as_in_memory(make: Make, tmp_path: Path) -> None:
    found = make(tmp_path / "r")
    xr.testing.assert_identical(found, ng.load(tmp_path / "r"))
    memory = make(None)
    assert set(found.variables) == set(memory.variables)
    xr.testing.assert_identical(found, memory[list(found)].assign_coords(found.coords))
    assert {path.name for path in tmp_path.iterdir()} == {"r", ".r.lock"}


@BOTH
@pytest.mark.parametrize("n", [1, 2])
def test_what_was_done_is_not_done_again(
    make: Make, n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "u")
    with pytest.MonkeyPatch.context() as patch:
        break_after(make, n, patch)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "r")
    made: list[Any] = []
    if make is agree:
        real = agreement._effects
        seen = lambda *a: (made.append(len(a[1])), real(*a))[1]  # noqa: E731
        monkeypatch.setattr(agreement, "_effects", seen)
    else:
        from neuroglot.recording import recorder  # noqa: PLC0415

        block = recorder.record_block
        seen = lambda *a: (made.append(a[0].batch_size), block(*a))[1]  # noqa: E731
        monkeypatch.setattr(recorder, "record_block", seen)
    make(tmp_path / "r")
    assert files_of(tmp_path / "r") == files_of(tmp_path / "u")
    if make is agree:
        assert sum(made) == 3 * (10 - n * agreement.ITEMS_AT_ONCE)
    else:
        assert made == [1, 8, 1][n:]
    made.clear()
    make(tmp_path / "r")
    assert not made, "a finished one is opened"
    names = {path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")}
    assert names == {"r", "u"}


KILLED = """
import os, signal, sys
from tests.answering import test_going_on as t
from tests.testing import tiny_model
counted = 0
def counting(real):
    def call(*args, **options):
        global counted
        counted += 1
        if counted > int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)
    return call
for name in ("mkdir", "replace", "rename", "rmdir", "unlink"):
    setattr(os, name, counting(getattr(os, name)))
getattr(t, sys.argv[1])(t.Path(sys.argv[2]), n_items=5)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_operations"),
    [("agree", 20), ("agree", 60), ("round_otherwise", 30), ("round_otherwise", 75)],
)
@pytest.mark.concurrent
def test_killed_it_ends_as_if_undisturbed(name: str, n_operations: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, name, str(tmp_path / "r"), str(n_operations)]
    run = subprocess.run(
        command, cwd=killing.ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    make = agree if name == "agree" else round_otherwise
    make(tmp_path / "r", n_items=5)
    make(tmp_path / "u", n_items=5)
    assert files_of(tmp_path / "r") == files_of(tmp_path / "u")
    names = {path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")}
    assert names == {"r", "u"}


@BOTH
def test_other_settings_are_refused(make: Make, tmp_path: Path) -> None:
    others: dict[str, Any] = {"n_items": 9}
    others |= (
        {"seed": 1, "n_neurons": 4} if make is agree else {"reading": ng.Reading(thresholds=0.1)}
    )
    make(tmp_path / "r")
    before = files_of(tmp_path / "r")
    for key in others.keys() - {"site"}:
        with pytest.raises(ng.NeuroglotError, match="was made with other settings"):
            make(tmp_path / "r", **{key: others[key]})
    assert files_of(tmp_path / "r") == before
    fewer = make(tmp_path / "r", n_items=9, overwrite=True)
    assert fewer.attrs["task_checksum"] != ng.load(tmp_path / "r").attrs.get("x")
    xr.testing.assert_identical(fewer, ng.load(tmp_path / "r"))


@BOTH
def test_damage_is_mended(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "r")
    before = files_of(tmp_path / "r")
    variable = tmp_path / "r" / ("effect" if make is agree else "category_flips") / "c"
    chunk = next(path for path in sorted(variable.rglob("*")) if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(ng.NeuroglotError, match="damaged"):
        ng.load(tmp_path / "r").load()
    with pytest.warns(UserWarning, match="damaged .*made again"):
        make(tmp_path / "r")
    assert files_of(tmp_path / "r") == before


def test_recordings_of_the_user_beside_it_stay(tmp_path: Path) -> None:
    (tmp_path / ".r.recordings").mkdir()
    (tmp_path / ".r.recordings" / "notes.txt").write_text("mine")
    round_otherwise(tmp_path / "r", n_items=3)
    assert os.listdir(tmp_path / ".r.recordings") == ["notes.txt"]  # noqa: PTH208
