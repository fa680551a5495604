"""Results of earlier versions, whose attributes had other names, are opened and go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import neuroglot as ng
from neuroglot.store.damage import todays_names
from tests.testing import small_task, tiny_model

OLD = {"kind": "unit", "choice_score": "score", "edit_position": "positions"}


def made_older(path: Path) -> None:
    """Give the attributes of a result the names that they had."""
    file = path / "zarr.json"
    metadata = json.loads(file.read_text())
    attributes = metadata["attributes"]
    metadata["attributes"] = {OLD.get(name, name): value for name, value in attributes.items()}
    assert metadata["attributes"] != attributes
    file.write_text(json.dumps(metadata))


@pytest.mark.parametrize("run", [ng.record, ng.evaluate])
def test_an_older_result_is_opened_and_grows(run: Any, tmp_path: Path) -> None:
    model, task = tiny_model("llama"), small_task(6)
    for name in ("older", "today"):
        run(model, task.first(3), out=tmp_path / name)
    made_older(tmp_path / "older")
    older, today = (ng.load(tmp_path / name) for name in ("older", "today"))
    assert older.attrs == today.attrs
    for name in ("older", "today"):
        run(model, task, out=tmp_path / name)
    older, today = (ng.load(tmp_path / name) for name in ("older", "today"))
    assert older.attrs == today.attrs
    for one in (older, today):
        assert not {"unit", "score"} & set(one.attrs)


def test_an_older_outcome_is_reported(tmp_path: Path) -> None:
    model, task = tiny_model("llama"), small_task(4)
    neurons = ng.NeuronSet.from_category(ng.record(model, task), "all_shared")
    controls = ng.Controls((), draws=1)
    found = ng.intervene(model, task, {"off": ng.Zero(neurons)}, controls=controls)
    ng.save(found, tmp_path / "r")
    made_older(tmp_path / "r")
    older = ng.load(tmp_path / "r")
    assert isinstance(older, xr.Dataset)
    xr.testing.assert_identical(older, found)
    assert [one.cells() for one in ng.tables(older)] == [one.cells() for one in ng.tables(found)]


def test_what_a_user_calls_a_unit_stays() -> None:
    mine = {"kind": "temperature", "unit": "K", "score": 3}
    assert todays_names(mine) == mine
    assert todays_names({"unit": "neuron scores", "score": "effective"}) == {
        "kind": "neuron scores",
        "score": "effective",
    }
