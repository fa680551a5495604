"""Commands go on in a folder of fewer items or languages, and run nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import neuroglot as ng
from neuroglot.answering import evaluation
from neuroglot.recording import recorder
from tests.cli.conftest import Cli
from tests.killing import files_of, opened


def test_a_run_grows(
    cli: Cli, tiny: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = tiny
    command = ("run", model, task, "--scores", "contribution", "--json")
    grown, at_once = (*command, "--out", tmp_path / "grown"), (*command, "--out", tmp_path / "o")
    recorded: list[tuple[str, str]] = []
    answered: list[tuple[str, str]] = []
    for module, name, seen in (
        (recorder, "record_block", recorded),
        (evaluation, "_answers", answered),
    ):
        monkeypatch.setattr(module, name, seeing(getattr(module, name), seen))
    assert cli(*grown, "--limit", "12", "--languages", "en,de")[0] == 0
    code, _, err = cli(*grown, "--limit", "20", "--languages", "en,de")
    assert code == 0
    assert "12 of 20 items are there in 2 of 2 languages; 16 prompts are added." in err
    assert cli(*grown, "--limit", "20", "--languages", "en,de,th")[0] == 0
    for seen in (recorded, answered):
        assert len(seen) == len(set(seen)) == 60, "each prompt is run once"
    code, out, _ = cli(*at_once, "--limit", "20")
    assert code == 0
    _, again, _ = cli(*grown, "--limit", "20")
    assert json.loads(again)["results"] == json.loads(out)["results"]
    table = "predictions.csv"
    assert (tmp_path / "grown" / table).read_text() == (tmp_path / "o" / table).read_text()
    for name in ("recording", "sharing", "thresholds", "answers", "attribution"):
        mine, wanted = (values_of(tmp_path / folder / name) for folder in ("grown", "o"))
        assert mine.attrs == wanted.attrs
        xr.testing.assert_allclose(mine, wanted, atol=1e-4)
    code, _, err = cli(*grown, "--limit", "12")
    assert code == 2
    assert "other settings" in err


def values_of(folder: Path) -> xr.Dataset | xr.DataArray:
    found = ng.load(folder)
    return found.dataset if isinstance(found, ng.Recording) else found


def seeing(real: Callable[..., Any], seen: list[tuple[str, str]]) -> Callable[..., Any]:
    """Keeps the prompts of the task that a function is given."""

    def see(model: Any, task: ng.ParallelTask, *rest: Any) -> Any:
        seen.extend((item["id"], x) for item in task.items for x in task.languages)
        return real(model, task, *rest)

    return see


@pytest.mark.parametrize("step", ["record", "evaluate"])
def test_a_step_grows(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path, step: str) -> None:
    command = (step, *tiny, "--out", tmp_path / "r")
    assert cli(*command, "--limit", "5", "--languages", "en,de")[0] == 0
    code, _, err = cli(*command, "--limit", "9")
    assert code == 0
    assert "5 of 9 items are there in 2 of 3 languages; 17 prompts are added." in err
    assert opened(tmp_path / "r").sizes["item"] == 9


def test_what_is_deactivated_does_not_grow(
    cli: Cli, tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    command = ("deactivate", *tiny, "--out", tmp_path / "r", "--categories", "all_shared")
    command = (*command, "--controls", "size", "--draws", "1")
    assert cli(*command, "--limit", "12")[0] == 0
    before = files_of(tmp_path / "r")
    code, _, err = cli(*command, "--limit", "14")
    assert code == 2
    assert "other settings" in err
    assert files_of(tmp_path / "r") == before
