"""Whatever happens to a file of a result: the same data, or an error that a user can mend."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import neuroglot as ng
from neuroglot.store.damage import LAYOUT
from tests import mutations
from tests.testing import small_task, tiny_model

FUZZED = settings(deadline=None, derandomize=True, max_examples=120, database=None)
KINDS = ("recorded", "saved", "sharing", "thresholds", "evaluated", "written")
HUGE = 10**15
EDITS: list[tuple[str, Any]] = [
    *(("shape", shape) for shape in ([HUGE], [5], [6, 1], [], [-1], [0], [2.5], None)),
    *(("data_type", name) for name in ("int8", "uint64", "float64", "string", "x", {}, None)),
    *(("dimension_names", names) for names in (["x"], ["language", "item"], None, [None], 5)),
    *(("fill_value", value) for value in (1, "x", None, [])),
    ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [HUGE]}}),
    ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [0]}}),
    ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [1]}}),
    ("chunk_key_encoding", {"name": "v2", "configuration": {"separator": "."}}),
    ("codecs", [{"name": "bytes", "configuration": {"endian": "big"}}]),
    ("codecs", [{"name": "bytes"}]),
    *(("codecs", codecs) for codecs in ([], None, [{"name": "x"}], "bytes")),
    *(("attributes", a) for a in ({"scale_factor": 2.0}, {"_FillValue": 0}, {"units": "days"})),
    *(("zarr_format", 2), ("node_type", "group"), ("consolidated_metadata", {"metadata": {}})),
]


@pytest.fixture(scope="module", autouse=True)
def _small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuroglot.recording.recorder.BLOCK", 2)
        patch.setattr("neuroglot.answering.evaluation.ITEMS_AT_ONCE", 2)
        yield


def make(kind: str, out: Path) -> None:
    model, task = tiny_model("llama"), small_task(6)
    if kind == "recorded":
        ng.record(model, task, out=out, reading=ng.Reading(thresholds=(0.0, 0.1), keep_values=True))
    elif kind in {"evaluated", "written"}:
        chosen = kind == "evaluated"
        items = [item if chosen else {**item, "choices": {}} for item in task.items]
        ng.evaluate(model, ng.ParallelTask.from_records(items, name="t"), out=out)
    else:
        recording = ng.record(
            model, task, reading=ng.Reading(thresholds=(0.0, 0.1), keep_values=True)
        )
        made: dict[str, Any] = {"saved": recording, "sharing": ng.classify(recording)}
        ng.save(made.get(kind, ng.classify(recording, thresholds=recording.thresholds)), out)


@cache
def stored(kind: str) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """The files of a sound result by path, and its values by name."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "r"
        make(kind, out)
        files = {
            str(path.relative_to(out)): path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }
        return files, read_everything(out)


def read_everything(path: Path) -> dict[str, np.ndarray]:
    """All that a result gives, in all the ways that it is read."""
    found = ng.load(path)
    if isinstance(found, ng.Recording):
        ng.classify(found)
        bits = [found.bits(threshold) for threshold in found.thresholds]
        np.testing.assert_array_equal(np.stack(bits), found.dataset["active"].to_numpy())
        assert found.values.to_numpy().shape == found.values.shape
        found.values.isel(item=slice(1, 3), layer=[1, 0]).load()
        found = found.dataset.load()
    data = found.to_dataset(name="values") if isinstance(found, xr.DataArray) else found
    values = {str(name): variable.to_numpy() for name, variable in data.variables.items()}
    return {
        "values" if name == "fraction" and len(data) == 1 else name: v for name, v in values.items()
    }


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert set(one) == set(other)
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name, strict=True)


def put(out: Path, files: dict[str, bytes], changed: str, data: bytes | None, how: str) -> None:
    """Write a result with one file that is changed, gone, or a folder."""
    for name, content in {**files, changed: data}.items():
        place = out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            place.write_bytes(content)
        elif how == "folder":
            place.mkdir()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders with sound results, each written once: reading leaves them as they are."""

    @cache
    def written(kind: str) -> Path:
        out = tmp_path_factory.mktemp(kind) / "r"
        put(out, stored(kind)[0], *next(iter(stored(kind)[0].items())), "")
        return out

    return written


@contextmanager
def changed(out: Path, name: str, content: bytes | None, how: str) -> Iterator[None]:
    """Within the block, a file of a result has another content, is gone or is a folder."""
    place = out / name
    before = place.read_bytes()
    place.unlink()
    if content is not None:
        place.write_bytes(content)
    elif how == "folder":
        place.mkdir()
    try:
        yield
    finally:
        if place.is_dir():
            place.rmdir()
        place.write_bytes(before)


def damage(draw: st.DrawFn, name: str, content: bytes) -> bytes | None:
    """Another content of a file; none stands for no file."""
    if not name.endswith("zarr.json"):
        return draw(st.sampled_from([*mutations.BYTES, mutations.missing]))(draw, content)
    what = draw(st.sampled_from(["edit", "edit", "edit", "json", "json", "bytes", "gone"]))
    if what == "edit":
        key, value = draw(st.sampled_from(EDITS))
        return json.dumps(json.loads(content) | {key: value}).encode()
    if what == "json":
        return mutations.in_json(draw, content)
    return draw(st.sampled_from(mutations.BYTES))(draw, content) if what == "bytes" else None


@pytest.mark.parametrize("kind", KINDS)
@FUZZED
@given(data=st.data())
def test_a_changed_file_is_noticed(
    sound: Callable[[str], Path], kind: str, data: st.DataObject
) -> None:
    files, expected = stored(kind)
    # As often a chunk as metadata, of which there are fewer.
    metadata = [name for name in files if name.endswith("zarr.json")]
    chunks = [name for name in files if name not in metadata]
    name = data.draw(st.sampled_from(metadata) | st.sampled_from(chunks))
    content = damage(data.draw, name, files[name])
    how = data.draw(st.sampled_from(["gone", "folder"]))
    with changed(sound(kind), name, content, how), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = read_everything(sound(kind))
        except ng.NeuroglotError:
            return
    same(found, expected)
    assert "/zarr.json" not in name or content == files[name], f"{name}: nobody noticed"


@pytest.mark.parametrize("kind", ["recorded", "evaluated"])
@settings(FUZZED, max_examples=40)
@given(data=st.data())
def test_the_same_call_mends_it_or_says_what_is_wrong(kind: str, data: st.DataObject) -> None:
    files, expected = stored(kind)
    name = data.draw(st.sampled_from(sorted(files)))
    changed = damage(data.draw, name, files[name])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = Path(folder) / "r"
        put(out, files, name, changed, "gone")
        try:
            make(kind, out)
        except ng.NeuroglotError:
            return
        same(read_everything(out), expected)


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("kind", ["recorded", "saved", "sharing", "evaluated"])
def test_huge_shapes_take_no_memory(kind: str, marked: bool, tmp_path: Path) -> None:
    """Also in results made before metadata had a checksum."""
    files, _ = stored(kind)
    if not marked:
        root = json.loads(files["zarr.json"])
        del root["attributes"][LAYOUT]
        files = {**files, "zarr.json": json.dumps(root).encode()}
    arrays = [name for name in files if name.count("/") == 1 and name.endswith("zarr.json")]
    for number, name in enumerate(arrays):
        metadata = json.loads(files[name])
        metadata["shape"] = [HUGE, *metadata["shape"][1:]]
        if name.startswith("done"):
            continue  # of no use once a result is finished
        out = tmp_path / str(number)
        put(out, files, name, json.dumps(metadata).encode(), "")
        tracemalloc.start()
        with pytest.raises(ng.NeuroglotError, match="damaged"):
            read_everything(out)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
        tracemalloc.stop()


def test_an_array_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    """Between the array and its mark: what is there belongs to nobody."""
    files, expected = stored("recorded")
    root = json.loads(files["zarr.json"])
    del root["attributes"]["finished"], root["attributes"][LAYOUT]["values"]
    files = {
        name: data for name, data in files.items() if not name.startswith(("done/c", "values/c"))
    }
    files["values/zarr.json"] = files["values/zarr.json"].replace(b"float32", b"float64")
    put(tmp_path / "r", files, "zarr.json", json.dumps(root).encode(), "")
    with pytest.raises(ng.NeuroglotError, match="0 of 6 items"):
        ng.load(tmp_path / "r")
    make("recorded", tmp_path / "r")
    same(read_everything(tmp_path / "r"), expected)
