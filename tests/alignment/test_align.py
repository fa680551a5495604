"""Fine-tuning: what is trained, measured, saved and refused."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import neuroglot as ng
from neuroglot.alignment import checks
from neuroglot.alignment.schedule import split
from neuroglot.alignment.trainer import STATE, last_checkpoint
from neuroglot.answering import evaluation
from neuroglot.answering.observations import SAME
from neuroglot.models.training import neuron_weights
from neuroglot.store.folders import GONE, NEW
from tests import killing
from tests.killing import files_of
from tests.testing import ARCHITECTURES, small_task, tiny_hf, tiny_model, tokenizer

# The function has the name of its module.
align_module = importlib.import_module("neuroglot.alignment.align")
SHORT = ng.Training(steps=6, pairs=4, learning_rate=1e-2, checks=2)
METHODS = ("translation", "instruction", "sharing", "unpaired")


def weights(model: ng.Model) -> dict[str, torch.Tensor]:
    return {name: p.detach().cpu().clone() for name, p in model.hf.named_parameters()}


def loaded(out: Path, device: torch.device | None = None) -> ng.Model:
    return ng.load_model(out / "model", device=device)


@pytest.mark.parametrize(
    ("architecture", "method"),
    [("gpt2", "translation"), ("llama", "instruction"), ("bloom", "unpaired"),
     ("gpt2", "sharing"), ("bloom", "sharing"), ("llama", "sharing")],
)  # fmt: skip
def test_every_method_trains_a_copy(architecture: str, method: str, tmp_path: Path) -> None:
    model, task = tiny_model(architecture), small_task(24)
    before = weights(model)
    found = ng.align(model, task, method=method, out=tmp_path / "a", training=SHORT)
    assert all(torch.equal(p, before[name]) for name, p in weights(model).items())
    saved = weights(loaded(tmp_path / "a"))
    differ = {name: int((saved[name] != before[name]).sum()) for name in before}
    assert found["changed"].to_series().to_dict() == differ
    assert sum(differ.values()) > 0
    assert found["step"].to_numpy().tolist() == [1, 2, 3, 4, 5, 6]
    assert found["check"].to_numpy().tolist() == [0, 3, 6]
    assert ("disagreement" in found) == (method == "sharing")
    assert found.attrs["training_method"] == method
    xr.testing.assert_identical(found, ng.load(tmp_path / "a" / "alignment"))


@pytest.mark.parametrize("method", METHODS)
def test_loss_falls(method: str, tmp_path: Path) -> None:
    training = ng.Training(steps=40, pairs=8, learning_rate=1e-2, checks=1)
    found = ng.align(
        tiny_model("llama"), small_task(24), method=method, out=tmp_path / "a", training=training
    )
    loss = found["loss"].to_numpy()
    assert loss[-5:].mean() < 0.8 * loss[:5].mean()


@pytest.mark.parametrize("bf16", [False, True])
def test_what_was_measured_is_what_the_saved_model_does(bf16: bool, tmp_path: Path) -> None:
    model, task = tiny_model("llama"), small_task(24)
    training = replace(SHORT, bf16=bf16)
    found = ng.align(model, task, method="sharing", out=tmp_path / "a", training=training)
    # Categories are equal to the last neuron only where sums are rounded alike.
    after = loaded(tmp_path / "a", model.device)
    measured = ng.load(tmp_path / "a" / "runs" / "step-000006" / "answers")
    ours = ng.evaluate(after, task.select(lambda item: item["id"] in measured["item"].values))
    torch.testing.assert_close(
        *(torch.tensor(x["log_prob"].sortby("item").to_numpy()) for x in (measured, ours)),
        equal_nan=True,
        rtol=1e-5,
        atol=1e-4,
    )
    part = split(task, SHORT).part(task)
    right = ng.evaluate(after, task)["correct"]
    ids = [str(item) for item in found["item"].to_numpy()]
    # What is measured is a part of the task, so its items have other indices.
    expected = right.sel(item=ids).assign_coords(check=6, part_of=found["part_of"])
    assert found["correct"].sel(check=6).drop_vars(SAME).equals(expected.drop_vars(SAME))
    for name in found["part"].to_numpy():
        expected = right.to_numpy()[part == name].mean()
        assert float(found["accuracy"].sel(check=6, part=name)) == pytest.approx(expected)
    held_out = [item["id"] for item in split(task, SHORT).held_out.items]
    sharing = ng.classify(ng.record(after, task).select(items=held_out))
    np.testing.assert_allclose(
        found["fraction"].sel(check=6, items="held_out"), sharing["fraction"].mean("item")
    )


def test_what_is_measured_is_not_asked_without_the_subject(tmp_path: Path) -> None:
    """Nothing that is said of training rests on it."""
    items = [
        {**item, "masked": dict.fromkeys(("en", "de"), "w9")}
        for item in small_task(4, "en de").items
    ]
    task = ng.ParallelTask.from_records(items, name="masked")
    measured = checks.Checks(task, split(task, SHORT), tmp_path, 0)
    measured.measure(tiny_model("llama"), 1)
    answers = ng.load(measured.run_folder(1) / "answers")
    assert answers.attrs["masked"] == "left out"
    assert "masked_correct" not in answers


def test_accuracy_by_part_counts_equal_prompts_once(tmp_path: Path) -> None:
    once = small_task(60)
    copies = [{**item, "id": f"{item['id']} again"} for item in once.items]
    found = []
    for task in (once, replace(once, items=[*once.items, *copies])):
        chosen = split(task, replace(SHORT, held_out=0.5))
        measured = checks.Checks(task, chosen, tmp_path, 0)
        found.append(measured._accuracy([ng.evaluate(tiny_model("llama"), task)]))
    names = ["accuracy", "accuracy_low", "accuracy_high"]
    xr.testing.assert_allclose(found[0][names], found[1][names], atol=1e-9)
    assert found[0]["accuracy_low"].notnull().sum() >= 2
    assert found[1]["prompts"].equals(2 * found[0]["prompts"])
    assert (found[1][SAME][60:] == found[0][SAME].to_numpy()).all()


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "phi3"])
def test_a_mask_leaves_all_else_as_it_was(architecture: str, tmp_path: Path) -> None:
    model, task = tiny_folder(tmp_path / "base", architecture), small_task(24)
    mask = ng.NeuronSet(np.random.default_rng(0).random((model.n_layers, model.n_neurons)) < 0.2)
    ng.align(model, task, method="sharing", out=tmp_path / "a", mask=mask, training=SHORT)
    before, after = weights(model), weights(loaded(tmp_path / "a"))
    own = {
        weight.name: weight.spread(torch.tensor(mask.mask[layer]), before[weight.name].shape)
        for layer, found in neuron_weights(model.hf, model.sites).items()
        for weight in found
    }  # fmt: skip
    for name, value in before.items():
        same = value == after[name]
        assert same[~own.get(name, torch.zeros_like(same))].all(), name
    assert any((before[name] != after[name]).any() for name in own)


def tiny_folder(folder: Path, architecture: str = "gpt2", device: str | None = None) -> ng.Model:
    tiny_hf(architecture).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return ng.load_model(folder, device=device)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lora_writes_an_ordinary_adapter_folder(architecture: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model, task = tiny_folder(tmp_path / "base", architecture), small_task(24)
    before = weights(model)
    found = ng.align(
        model, task, method="translation", out=tmp_path / "a", lora=True, training=SHORT
    )
    after = weights(model)
    assert list(after) == list(before), "no adapter is left in the model"
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(p.requires_grad for p in model.hf.parameters())
    folder = tmp_path / "a" / "model"
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        p.name for p in folder.iterdir()
    }
    assert 0 < int(found["changed"].sum()) <= int(found["weights"].sum())
    opened = loaded(tmp_path / "a")
    right = ng.evaluate(opened, task)["correct"].sel(item=found["item"].to_numpy())
    assert (found["correct"].sel(check=6).to_numpy() == right.to_numpy()).all()
    assert opened.lineage == (model.identity.weights,)
    # As anybody else would load it.
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(folder).to(opened.device)
    ids = torch.arange(2, 9, device=opened.device)[None]
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, opened.hf(ids).logits)


def test_lora_without_peft_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ng.NeuroglotError, match="pip install"):
        ng.align(tiny_model("llama"), small_task(24), method="translation", out=tmp_path / "a",
                 lora=True, training=SHORT)  # fmt: skip


def test_a_model_that_stays_as_it_was_is_an_error(tmp_path: Path) -> None:
    training = ng.Training(steps=2, pairs=4, learning_rate=0.0, checks=1)
    with pytest.raises(ng.NeuroglotError, match=r"none of its [\d,]+ weights has changed"):
        ng.align(tiny_model("llama"), small_task(24), method="unpaired", out=tmp_path / "a",
                 training=training)  # fmt: skip


def test_weight_changes_longhand(tmp_path: Path) -> None:
    base, other = tiny_folder(tmp_path / "base"), ng.load_model(tmp_path / "base")
    name = "transformer.h.1.mlp.c_fc.weight"
    with torch.no_grad():
        other.hf.get_parameter(name)[0, :3] += 1
    found = ng.weight_changes(base, other)
    assert found["changed"].sel(parameter=name) == 3
    assert int(found["changed"].sum()) == 3
    assert found["of_layer"].sel(parameter=name) == 1
    assert found["kind"].sel(parameter=name) == "mlp.c_fc.weight"
    expected = 3**0.5 / float(base.hf.get_parameter(name).norm())
    assert float(found["relative_change"].sel(parameter=name)) == pytest.approx(expected)
    with pytest.raises(ng.NeuroglotError, match="different weights"):
        ng.weight_changes(base, tiny_model("llama"))


def test_an_aligned_model_says_what_it_continues(tmp_path: Path) -> None:
    model, task = tiny_folder(tmp_path / "base"), small_task(24)
    ng.align(model, task, method="unpaired", out=tmp_path / "a", training=SHORT)
    first = loaded(tmp_path / "a")
    assert first.lineage == (model.identity.weights,)
    ng.align(first, task, method="unpaired", out=tmp_path / "b", training=SHORT)
    second = loaded(tmp_path / "b")
    assert second.lineage == (model.identity.weights, first.identity.weights)
    assert model.lineage == ()
    flow = ng.category_flow(ng.record(model, task), ng.record(second, task))
    assert float(flow.sum(["category", "category_after"]).mean()) == pytest.approx(1)


def test_a_finished_one_is_opened_and_other_settings_are_refused(tmp_path: Path) -> None:
    model, task = tiny_model("llama"), small_task(24)

    def run(out: str = "a", **other: Any) -> xr.Dataset:
        asked = {"method": "unpaired", "training": SHORT} | other
        return ng.align(model, task, out=tmp_path / out, **asked)

    found = run()
    assert not (tmp_path / "a" / "training" / "checkpoints").exists()
    changed = (tmp_path / "a" / "model" / "model.safetensors").stat().st_mtime_ns
    xr.testing.assert_identical(found, run())
    assert (tmp_path / "a" / "model" / "model.safetensors").stat().st_mtime_ns == changed
    with pytest.raises(ng.NeuroglotError, match="training_method: there 'unpaired', now 'sharing'"):
        run(method="sharing")
    assert run(method="sharing", overwrite=True).attrs["training_method"] == "sharing"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ng.NeuroglotError, match="holds no results of neuroglot"):
            run("mine", overwrite=overwrite)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.concurrent
def test_killed_again_and_again_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    watched = ("training/checkpoints", killing.STEPS)
    done = killing.kill_at_random(
        "align", tmp_path / "r", 3, watched=watched, progress=killing.n_steps
    )
    assert any(0 < n < killing.STEPS for n in done), "some kill in the middle"
    killing.finish("align", tmp_path / "r")
    killing.finish("align", tmp_path / "u")
    killed, expected = (killing.opened(tmp_path / name / "alignment") for name in "ru")
    assert killing.checksum(killed) == killing.checksum(expected)
    models = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "ru"]
    assert models[0] == models[1]


@pytest.mark.concurrent
def test_killed_after_the_last_step_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = tiny_model("llama"), small_task(24)

    def run(out: str) -> xr.Dataset:
        return ng.align(model, task, method="unpaired", out=tmp_path / out, training=SHORT)

    expected = run("u")
    with monkeypatch.context() as patched:

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(align_module, "require_change", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("r")
    xr.testing.assert_identical(run("r"), expected)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mask": {"mask": ng.NeuronSet(np.arange(60).reshape(3, 20) % 4 == 0)},
    "lora": {"lora": True},
}


@pytest.mark.parametrize(("kind", "step"), [("plain", 0), ("lora", 2), ("mask", 4)])
@pytest.mark.concurrent
def test_interrupted_while_it_is_measured_it_goes_on(
    kind: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a GPU two equal trainings may differ in their last bits.
    model, task = tiny_folder(tmp_path / "base", "llama", "cpu"), small_task(24)
    training = ng.Training(steps=6, pairs=4, learning_rate=1e-2, checks=3)

    def run(out: str) -> xr.Dataset:
        return ng.align(model, task, method="sharing", out=tmp_path / out, training=training,
                        **KINDS[kind])  # fmt: skip

    def killed(asked: ng.Model, task: ng.ParallelTask, **how: Any) -> xr.Dataset:
        if asked.name.endswith(f"step {step}"):
            with monkeypatch.context() as patched:
                patched.setattr(evaluation, "ITEMS_AT_ONCE", 2)
                patched.setattr(evaluation, "choose", interrupted)
                return ng.evaluate(asked, task, **how)
        return ng.evaluate(asked, task, **how)

    real, calls = evaluation.choose, iter(range(99))

    def interrupted(*asked: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*asked)

    expected = run("u")
    with monkeypatch.context() as patched:
        patched.setattr(checks, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            run("r")
    assert all(p.requires_grad for p in model.hf.parameters())
    xr.testing.assert_identical(run("r"), expected)


def test_what_a_kill_or_damage_left_is_finished(tmp_path: Path) -> None:
    model, task, out = (
        tiny_folder(tmp_path / "base", "llama", "cpu"),
        small_task(24),
        tmp_path / "r",
    )

    def run() -> xr.Dataset:
        return ng.align(model, task, method="unpaired", out=out, training=SHORT)

    expected, files = run(), files_of(out)
    # Killed after the result was written, and before what it no longer needs was removed.
    (out / "training" / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (out / f".alignment.{GONE}").mkdir()
    xr.testing.assert_identical(run(), expected)
    assert files_of(out) == files
    # Killed while the model was written, which was not taken up again before.
    shutil.rmtree(out / "alignment")
    (out / f".model.{NEW}").mkdir()
    xr.testing.assert_identical(run(), expected)
    assert files_of(out) == files
    (chunk,) = (path for path in (out / "alignment" / "loss" / "c").rglob("*") if path.is_file())
    chunk.unlink()
    with pytest.warns(UserWarning, match=r"is damaged .*'loss' are missing.*; it is made again"):
        xr.testing.assert_identical(run(), expected)
    assert files_of(out) == files


def test_no_room_for_a_checkpoint_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = tiny_folder(tmp_path / "base", "llama", "cpu"), small_task(24)

    def run() -> xr.Dataset:
        return ng.align(model, task, method="unpaired", out=tmp_path / "r", training=SHORT)

    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data: file write failed")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(ng.NeuroglotError, match=r"cannot write to .*checkpoints'.*goes on\."):
            run()
    run()


def test_nothing_else_is_moved(tmp_path: Path) -> None:
    """Neither the user's random numbers, nor the model's configuration."""
    pytest.importorskip("peft")
    model, task = tiny_folder(tmp_path / "base"), small_task(24)
    config = model.hf.config.to_dict()
    drawn = []
    for out in (None, "full", "lora"):
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        if out:
            ng.align(model, task, method="sharing", out=tmp_path / out, training=SHORT,
                     lora=out == "lora")  # fmt: skip
        drawn.append((float(torch.rand(1)), float(np.random.rand())))  # noqa: NPY002
    assert drawn[0] == drawn[1] == drawn[2]
    assert model.hf.config.to_dict() == config
    saved = loaded(tmp_path / "full").hf.config.to_dict()
    assert saved["use_cache"] == config["use_cache"]


def test_adapters_on_adapters(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model, task = tiny_folder(tmp_path / "base"), small_task(24)
    names = []
    for name in ("first", "second"):
        ng.align(model, task, method="unpaired", out=tmp_path / name, training=SHORT, lora=True)
        names.append(model.identity.weights)
        model = loaded(tmp_path / name)
    assert model.lineage == tuple(names)
    right = ng.load(tmp_path / "second" / "runs" / "step-000006" / "answers")["correct"]
    again = ng.evaluate(model, task)["correct"].sel(item=right["item"].to_numpy())
    assert (again.to_numpy() == right.to_numpy()).all()


def test_sites_that_a_user_named(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "base", "llama")
    model = ng.load_model(tmp_path / "base", down_projection="model.layers.{i}.mlp.down_proj")
    assert model.sites[0].found_by == "path"
    found = ng.align(model, small_task(24), method="unpaired", out=tmp_path / "a", training=SHORT)
    assert int(found["changed"].sum()) > 0


def test_a_loss_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    training = replace(SHORT, learning_rate=1e30)
    with pytest.raises(ng.NeuroglotError, match="lower learning rate"):
        ng.align(tiny_model("llama"), small_task(24), method="unpaired", out=tmp_path / "a",
                 training=replace(training, checks=1))  # fmt: skip


def test_a_model_is_not_replaced_by_what_is_trained_from_it(tmp_path: Path) -> None:
    model, task = tiny_folder(tmp_path / "base"), small_task(24)
    ng.align(model, task, method="unpaired", out=tmp_path / "a", training=SHORT)
    first = loaded(tmp_path / "a")
    with pytest.raises(ng.NeuroglotError, match="would be replaced"):
        ng.align(first, task, method="unpaired", out=tmp_path / "a", training=SHORT, overwrite=True)
    assert loaded(tmp_path / "a").fingerprint == first.fingerprint


def test_half_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    for step, state in ((2, "{}"), (4, "{}"), (10, '{"half'), (12, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / STATE).write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-4"]
    assert last_checkpoint(tmp_path / "none") is None


BAD: list[tuple[dict[str, Any], str]] = [
    ({"method": "distillation"}, "unknown method 'distillation'"),
    ({"training": ng.Training(steps=0)}, "steps=0"),
    ({"training": ng.Training(pairs=1)}, "pairs=1"),
    ({"training": ng.Training(held_out=1.0)}, "held_out=1.0"),
    ({"training": ng.Training(held_out=float("nan"))}, "held_out=nan"),
    ({"training": ng.Training(learning_rate=-1.0)}, "learning_rate=-1.0"),
    ({"training": ng.Training(checks=9, steps=4)}, "checks=9"),
    ({"training": ng.Training(languages=("en", "xx"))}, "languages=en, xx"),
    ({"training": ng.Training(languages=("en",))}, "at least two"),
    ({"training": ng.Training(mismatched=True)}, "pairs no texts"),
    ({"training": {"steps": 3}}, r"ng\.Training"),
    ({"mask": ng.NeuronSet(np.ones((2, 7), bool))}, "2 layers of 7"),
    ({"mask": ng.NeuronSet(np.zeros((3, 20), bool))}, "holds no neurons"),
    ({"mask": np.ones((3, 20), bool)}, "expected a NeuronSet"),
    ({"mask": ng.NeuronSet(np.ones((3, 20), bool), unit="heads")}, "ffn neurons, found heads"),
    ({"mask": ng.NeuronSet(np.ones((3, 20), bool)), "lora": True}, "exclude each other"),
]


@pytest.mark.parametrize(("asked", "message"), BAD)
def test_bad_settings_are_refused_before_anything_is_written(
    asked: dict[str, Any], message: str, tmp_path: Path
) -> None:
    given = {"method": "unpaired"} | asked
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.align(tiny_model("llama"), small_task(24), out=tmp_path / "a", **given)
    assert not (tmp_path / "a").exists()


def test_half_precision_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    tiny_folder(folder)
    model = ng.load_model(folder, dtype="float16")
    with pytest.raises(ng.NeuroglotError, match="gradients vanish"):
        ng.align(model, small_task(24), method="unpaired", out=tmp_path / "a", training=SHORT)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot read"), ("[]", "cannot read"), ('{"r": 8}', "expected a model's name")],
)
def test_broken_adapter_folders(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.load_model(tmp_path)


def test_adapters_of_another_shape_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model = tiny_folder(tmp_path / "base")
    ng.align(model, small_task(24), method="unpaired", out=tmp_path / "a", lora=True,
             training=SHORT)  # fmt: skip
    config = tmp_path / "a" / "model" / "adapter_config.json"
    other = json.loads(config.read_text()) | {"r": 3}
    config.write_text(json.dumps(other))
    with pytest.raises(ng.NeuroglotError, match="cannot load the adapters"):
        loaded(tmp_path / "a")


def test_no_room_for_checkpoints_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by `python -m tests.faults align`: the Trainer makes the folder itself."""
    real = os.mkdir

    def full(path: Any, *rest: Any) -> None:
        if str(path).endswith("checkpoints"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, *rest)

    model, task = tiny_model("llama"), small_task(24)
    training = ng.Training(steps=2, pairs=2, checks=1)
    how: dict[str, Any] = {"method": "sharing", "training": training, "out": tmp_path / "a"}
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", full)
        with pytest.raises(ng.NeuroglotError, match=r"cannot write .*No space left.*goes on"):
            ng.align(model, task, **how)
    assert ng.align(model, task, **how).attrs["kind"] == "alignment"
