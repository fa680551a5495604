"""Recordings: resumed, refused, reloaded, and never wrong about padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import neuroglot as ng
from neuroglot.recording import blocks, recorder
from neuroglot.store import blockwise
from tests.testing import longhand_values, random_text, small_task, tiny_hf, tiny_model, tokenizer


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroglot.recording.recorder.BLOCK", 2)


def same(one: ng.Recording, other: ng.Recording) -> bool:
    return bool(one.dataset.drop_attrs().equals(other.dataset.drop_attrs()))


def test_disk_equals_memory_and_reloads(tmp_path: Path) -> None:
    model, task = tiny_model("llama"), small_task()
    options: dict[str, Any] = {"thresholds": (0.0, 0.3), "keep_values": True, "layers": [0, 2]}
    memory = ng.record(model, task, reading=ng.Reading(**options))
    disk = ng.record(model, task, out=tmp_path / "r", reading=ng.Reading(**options))
    assert same(memory, disk)
    reloaded = ng.load(tmp_path / "r")
    assert isinstance(reloaded, ng.Recording)
    xr.testing.assert_identical(reloaded.dataset, disk.dataset)
    ng.save(memory, tmp_path / "copy")
    copy = ng.load(tmp_path / "copy")
    assert isinstance(copy, ng.Recording)
    xr.testing.assert_identical(copy.dataset, memory.dataset)
    assert memory.layers == (0, 2)


@pytest.mark.parametrize("position", ["last", "all"])
def test_kept_values_are_the_models(position: str) -> None:
    model, task = tiny_model("llama"), small_task(3)
    recording = ng.record(model, task, reading=ng.Reading(keep_values=True, position=position))
    for item in task.items:
        for language in task.languages:
            values = longhand_values(model, item["prompts"][language], "gate")
            expected = values[:, -1] if position == "last" else values.max(axis=1)
            found = recording.values.sel(item=item["id"], language=language)
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.concurrent
def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, task = tiny_model("bloom"), small_task(7)
    whole = ng.record(model, task)
    real, written = blockwise.InFolder.write, []

    def dies(self: Any, block: slice, part: xr.Dataset) -> None:
        if len(written) == 2:
            self.arrays["active"][:, block] = 255  # data written, the mark of the block not
            raise KeyboardInterrupt
        written.append(block)
        real(self, block, part)

    monkeypatch.setattr(blockwise.InFolder, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        ng.record(model, task, out=tmp_path / "r")
    monkeypatch.setattr(blockwise.InFolder, "write", real)
    with pytest.raises(ng.NeuroglotError, match="unfinished recording \\(4 of 7 items\\)"):
        ng.load(tmp_path / "r")
    passes = []
    real_block = recorder.record_block

    def counted(*args: Any) -> Any:
        passes.append([item["id"] for item in args[1].items[args[2]]])
        return real_block(*args)

    monkeypatch.setattr(recorder, "record_block", counted)
    assert same(ng.record(model, task, out=tmp_path / "r"), whole)
    assert passes == [["item4", "item5"], ["item6"]]
    assert same(ng.record(model, task, out=tmp_path / "r"), whole)
    assert len(passes) == 2, "a finished recording is opened, not made again"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site": "coefficient"}, "site: there 'gate', now 'coefficient'"),
        ({"position": "all"}, "position: there 'last', now 'all'"),
        ({"thresholds": (0.0, 1.0)}, "thresholds: there 0.0, now 0.0, 1.0"),
        ({"layers": [1]}, "layers: there 0, 1, 2, now 1"),
        ({"keep_values": True}, "keep_values: there 0, now 1"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    model, task = tiny_model("llama"), small_task()
    before = ng.record(model, task)
    ng.record(model, task, out=tmp_path / "r")
    with pytest.raises(ng.NeuroglotError) as caught:
        ng.record(model, task, out=tmp_path / "r", reading=ng.Reading(**change))
    assert message in str(caught.value)
    assert same(before, ng.record(model.with_batch_size(2), task, out=tmp_path / "r"))
    changed = ng.record(
        model, task, out=tmp_path / "r", overwrite=True, reading=ng.Reading(**change)
    )
    assert not same(before, changed)


def test_other_model_or_task_is_refused(tmp_path: Path) -> None:
    ng.record(tiny_model("llama"), small_task(), out=tmp_path / "r")
    with pytest.raises(ng.NeuroglotError, match="model_weights"):
        ng.record(tiny_model("llama", seed=1), small_task(), out=tmp_path / "r")
    with pytest.raises(ng.NeuroglotError, match="task_checksum"):
        ng.record(tiny_model("llama"), small_task(seed=1), out=tmp_path / "r")


def test_nothing_foreign_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(ng.NeuroglotError, match="holds no result of neuroglot"):
            ng.record(
                tiny_model("llama"), small_task(), out=tmp_path / "notes", overwrite=overwrite
            )
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "precious"
    with pytest.raises(ng.NeuroglotError, match="is a file"):
        ng.record(tiny_model("llama"), small_task(), out=tmp_path / "notes" / "thesis.txt")
    with pytest.raises(ng.NeuroglotError, match="holds no result"):
        ng.load(tmp_path / "notes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "neuron"}, "unknown site 'neuron'; there are gate, coefficient"),
        ({"position": "first"}, "unknown position 'first'; there are last, all"),
        ({"thresholds": ()}, "different finite numbers"),
        ({"thresholds": (0.0, float("nan"))}, "different finite numbers"),
        ({"layers": [3]}, "different numbers from 0 to 2"),
        ({"layers": []}, "different numbers from 0 to 2"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.record(tiny_model("llama"), small_task(), reading=ng.Reading(**options))


@pytest.mark.parametrize("size", [0, -1, 2.5, "all", True])
def test_a_batch_holds_at_least_a_prompt(size: Any) -> None:
    model = tiny_model("llama")
    for make in (model.with_batch_size, lambda size: ng.load_model("x", batch_size=size)):
        with pytest.raises(ng.NeuroglotError, match="expected 'auto' or a number from 1"):
            make(size)


def test_a_prompt_that_does_not_fit_is_named_before_the_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = list(small_task().items)
    long = " ".join(random_text(rng) for _ in range(40))
    records[4] = {**records[4], "prompts": {**records[4]["prompts"], "th": long}}
    task = ng.ParallelTask.from_records(records, name="long")
    with pytest.raises(ng.NeuroglotError, match=r"item 'item4' in 'th' has \d+ tokens.*holds 48"):
        ng.record(tiny_model("llama"), task, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("position", ["last", "all"])
def test_nan_and_infinity_are_named(bad: float, position: str, tmp_path: Path) -> None:
    hf = tiny_hf("llama")
    model = ng.wrap_model(hf, tokenizer())
    word = small_task().items[3]["prompts"]["de"].split()[-1]
    with torch.no_grad():
        hf.model.embed_tokens.weight[int(word[1:])] = bad
    with pytest.raises(ng.NeuroglotError, match=r"layer \d has NaN or infinite activations"):
        ng.record(model, small_task(), out=tmp_path / "r", reading=ng.Reading(position=position))
    assert (tmp_path / "r").exists(), "the blocks before are kept"


def test_memory_that_runs_out_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, task = tiny_model("llama"), small_task()
    whole = ng.record(model, task)
    real, sizes = blocks.site_values, []

    def scarce(model: ng.Model, batch: Any, *rest: Any) -> torch.Tensor:
        sizes.append(len(batch.rows))
        if len(batch.rows) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(model, batch, *rest)

    monkeypatch.setattr(blocks, "site_values", scarce)
    assert same(ng.record(model, task), whole)
    assert max(sizes) > 1


def test_select_and_unknown_threshold() -> None:
    recording = ng.record(tiny_model("llama"), small_task())
    chosen = recording.select(languages=["th", "en"], items=2)
    assert chosen.languages == ("th", "en")
    assert chosen.items == ("item0", "item1")
    with pytest.raises(ng.NeuroglotError, match="no language xx; there are en, de, th"):
        recording.select(languages=["en", "xx"])
    with pytest.raises(ng.NeuroglotError, match="no item zzz"):
        recording.select(items=["zzz"])
    with pytest.raises(ng.NeuroglotError, match="at least two languages"):
        recording.select(languages=["en"])
    with pytest.raises(ng.NeuroglotError, match="selected twice"):
        recording.select(languages=["en", "de", "en"])
    with pytest.raises(ng.NeuroglotError, match=r"threshold 0.5 was not recorded; there are 0.0"):
        ng.classify(recording, threshold=0.5)
    with pytest.raises(ng.NeuroglotError, match="keep_values=True"):
        _ = recording.values


def test_the_plan_counts_what_there_is() -> None:
    model, task = tiny_model("bloom"), small_task()
    reading = ng.Reading(thresholds=(0.0, 0.1), keep_values=True)
    plan = ng.plan_recording(model, task, reading=reading)
    texts = [text for item in task.items for text in item["prompts"].values()]
    assert plan.prompts == 15
    assert plan.tokens == sum(len(text.split()) for text in texts)
    assert plan.stored_bytes == 15 * 3 * (2 * 10 + 4 * 80)
    assert plan.seconds > 0


def test_results_reload_equal(tmp_path: Path) -> None:
    recording = ng.record(
        tiny_model("llama"), small_task(24), reading=ng.Reading(thresholds=(0.0, 0.1))
    )
    renamed = ng.Recording(recording.dataset.assign_attrs(task="other"))
    results = {
        "categories": ng.categories(recording),
        "sweep": ng.classify(recording, thresholds=recording.thresholds),
        "sharing": ng.classify(recording),
        "answers": ng.evaluate(tiny_model("llama"), small_task()),
        "compared": ng.compare([recording, renamed]),
    }
    for name, result in results.items():
        ng.save(result, tmp_path / name)
        xr.testing.assert_identical(ng.load(tmp_path / name), result)
        with pytest.raises(ng.NeuroglotError, match="already holds a result"):
            ng.save(result, tmp_path / name)
        ng.save(result, tmp_path / name, overwrite=True)


def test_a_saved_recording_counts_as_finished(tmp_path: Path) -> None:
    model, task = tiny_model("llama"), small_task()
    memory = ng.record(model, task)
    ng.save(memory, tmp_path / "r")
    assert same(ng.record(model, task, out=tmp_path / "r"), memory)


def test_the_lm_head_is_not_run() -> None:
    hf = tiny_hf("llama")
    model = ng.wrap_model(hf, tokenizer())

    def refuse(*_: Any) -> None:
        raise AssertionError("the LM head ran")

    hf.lm_head.forward = refuse
    ng.record(model, small_task())
    with pytest.raises(AssertionError, match="LM head ran"):
        ng.evaluate(model, small_task())


def test_only_results_of_neuroglot_are_replaced(tmp_path: Path) -> None:
    xr.Dataset({"mine": ("x", [1, 2])}).to_zarr(tmp_path / "foreign", consolidated=False)
    with pytest.raises(ng.NeuroglotError, match="holds no result of neuroglot"):
        ng.record(tiny_model("llama"), small_task(), out=tmp_path / "foreign", overwrite=True)
    assert (tmp_path / "foreign" / "mine").exists()
