"""Edits in batches, with caches and padding, against one text at a time."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import neuroglot as ng
from neuroglot.models.forward import CACHES, _cache_of
from tests.attribution.models import NAMES, down, random_model, seeing
from tests.families import FAMILIES, N_LAYERS
from tests.interventions.longhand import (
    changed,
    edited_log_probs,
    first_and_last,
    written,
    zeroed,
)
from tests.testing import longhand_values, small_task, tiny_model, tokenizer

POSITIONS = ("answer", "last", "all")


def shape_of(model: ng.Model) -> tuple[int, int]:
    return model.n_layers, model.n_neurons


def random_set(model: ng.Model, seed: int = 0) -> ng.NeuronSet:
    mask = np.random.default_rng(seed).random(shape_of(model)) < 0.4
    return ng.NeuronSet(mask, f"random {seed}")


def sets_for(model: ng.Model, task: ng.ParallelTask, seed: int = 0) -> ng.NeuronSet:
    """A random set for each prompt."""
    prompts = [(item["id"], language) for item in task.items for language in task.languages]
    masks = np.random.default_rng(seed).random((len(prompts), *shape_of(model))) < 0.4
    return ng.NeuronSet.of_prompts(dict(zip(prompts, masks, strict=True)), "each its own")


def mask_of(sets: ng.NeuronSet, task: ng.ParallelTask, item: int, language: int) -> np.ndarray:
    prompt = (task.items[item]["id"], task.languages[language])
    return np.array(sets.masks_of([prompt])[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("positions", POSITIONS)
def test_one_set_for_all_prompts(name: str, positions: str) -> None:
    model, task = random_model(name), small_task(3, "en de")
    neurons = random_set(model)
    expected = edited_log_probs(model, task, lambda *_: zeroed(neurons.mask), positions)
    for shared, batch_size in itertools.product((True, False), (3, "auto")):
        with ng.edit(
            replace(model, shares_cache=shared), ng.Zero(neurons), position=positions
        ) as edited:
            found = ng.evaluate(edited.with_batch_size(batch_size), task)
        np.testing.assert_allclose(found["log_prob"], expected, atol=1e-3)
    assert found.attrs["edits"] == f"zero random 0 ({neurons.checksum}) at {positions}"


@pytest.mark.parametrize("name", ["gpt2", "bloom", "llama", "opt", "gemma2"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_a_set_for_each_prompt_in_one_batch(name: str, positions: str) -> None:
    model, task = random_model(name), small_task(4, "en de th", seed=3)
    sets = sets_for(model, task)
    expected = edited_log_probs(
        model, task, lambda i, j: zeroed(mask_of(sets, task, i, j)), positions
    )
    for side, shared, batch_size in itertools.product(
        ("left", "right"), (True, False), (1, 5, "auto")
    ):
        padded = copy.copy(tokenizer())
        padded.padding_side = side
        other = replace(ng.wrap_model(model.hf, padded, name=model.name), shares_cache=shared)
        with ng.edit(other, ng.Zero(sets), position=positions):
            found = ng.evaluate(other.with_batch_size(batch_size), task)
        np.testing.assert_allclose(found["log_prob"], expected, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_edited_at_the_answer(family: str) -> None:
    """One text by hand, in every family, in a batch with others."""
    model, task = tiny_model(family), small_task(2, "en de")
    neurons = random_set(model)
    with ng.edit(model, ng.Zero(neurons)):
        found = ng.evaluate(model, task)
        alone = ng.evaluate(model.with_batch_size(1), task.first(1))
    np.testing.assert_allclose(found["log_prob"][:1], alone["log_prob"], atol=1e-3)
    expected = edited_log_probs(
        replace(model, name=f"tiny-{family}"), task, lambda *_: zeroed(neurons.mask), "answer"
    )
    np.testing.assert_allclose(found["log_prob"], expected, atol=1e-3)
    assert not np.allclose(found["log_prob"], ng.evaluate(model, task)["log_prob"], atol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("cached", [True, False])
def test_what_is_written_under_an_edit(name: str, positions: str, cached: bool) -> None:
    model, sets_task = random_model(name), small_task(3, "en de")
    records = [
        {**item, "choices": {}, "answers": dict(item["prompts"])} for item in sets_task.items
    ]
    task = ng.ParallelTask.from_records(records, name="written")
    sets = sets_for(model, task, seed=5)
    before = model.hf.config.use_cache
    model.hf.config.use_cache = cached
    try:
        with ng.edit(model, ng.Zero(sets), position=positions):
            found = ng.evaluate(
                model.with_batch_size(3), task, answering=ng.Answering(max_new_tokens=4)
            )
    finally:
        model.hf.config.use_cache = before
    for i, item in enumerate(task.items):
        for j, language in enumerate(task.languages):
            change = zeroed(mask_of(sets, task, i, j))
            expected = written(model, item["prompts"][language], 4, change, positions)
            assert found["text"].values[i, j] == expected


EDITS: dict[str, tuple[Callable[[ng.NeuronSet], object], Callable[..., torch.Tensor]]] = {
    "scale": (lambda s: ng.Scale(s, 2.5), lambda _layer, values: values * 2.5),
    "weaken": (lambda s: ng.Scale(s, -0.5), lambda _layer, values: values * -0.5),
    "set": (lambda s: ng.SetTo(s, 0.75), lambda _layer, values: torch.full_like(values, 0.75)),
}


@pytest.mark.parametrize("kind", EDITS)
def test_other_edits(kind: str) -> None:
    model, task = random_model("gemma2"), small_task(3, "en de")
    neurons = random_set(model, 2)
    make, new = EDITS[kind]
    mask = torch.tensor(neurons.mask)

    def change(layer: int, values: torch.Tensor) -> torch.Tensor:
        return torch.where(mask[layer], new(layer, values), values)

    with ng.edit(model, make(neurons)):  # type: ignore[arg-type]
        found = ng.evaluate(model, task)
    expected = edited_log_probs(model, task, lambda *_: change, "answer")
    np.testing.assert_allclose(found["log_prob"], expected, atol=1e-3)


def test_mean_ablation_takes_the_mean_of_a_reference() -> None:
    model, task = random_model("llama"), small_task(3, "en de")
    neurons = random_set(model, 3)
    other = small_task(6, "en de th", seed=9)
    reference = ng.record(model, other, reading=ng.Reading(site="coefficient", keep_values=True))
    values = [
        longhand_values(model, item["prompts"][language], "coefficient")[:, -1]
        for item in other.items
        for language in other.languages
    ]
    means = torch.from_numpy(np.mean(values, axis=0))
    mask = torch.tensor(neurons.mask)
    expected = edited_log_probs(
        model,
        task,
        lambda *_: lambda layer, values: torch.where(mask[layer], means[layer], values),
        "answer",
    )
    averaged = reference.values.mean(["item", "language"])
    for given in (reference, averaged, averaged.values):
        with ng.edit(model, ng.MeanAblate(neurons, given)):
            found = ng.evaluate(model, task)
        np.testing.assert_allclose(found["log_prob"], expected, atol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "bloom", "llama", "opt", "gemma2"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_scale_by_one_changes_no_bit_and_by_zero_is_zero(name: str, positions: str) -> None:
    model, task = random_model(name), small_task()
    neurons = random_set(model, 1)
    plain = ng.evaluate(model, task)["log_prob"].values
    with ng.edit(model, ng.Scale(neurons, 1), position=positions):
        np.testing.assert_array_equal(ng.evaluate(model, task)["log_prob"], plain)
    with ng.edit(model, ng.Scale(neurons, 0), position=positions):
        by_zero = ng.evaluate(model, task)["log_prob"].values
    with ng.edit(model, ng.Zero(neurons), position=positions):
        np.testing.assert_array_equal(ng.evaluate(model, task)["log_prob"], by_zero)
    assert not np.array_equal(by_zero, plain)
    np.testing.assert_array_equal(ng.evaluate(model, task)["log_prob"], plain)


def test_leaving_the_block_restores_the_model_bit_for_bit() -> None:
    model, task = random_model("llama"), small_task()
    weights = {key: value.clone() for key, value in model.hf.state_dict().items()}
    plain = ng.evaluate(model, task)["log_prob"].values

    def fail() -> None:
        with ng.edit(
            model, [ng.Zero(random_set(model)), ng.SetTo(random_set(model, 1), 3)], position="all"
        ):
            assert len(model.running.edits) == 2
            assert not np.array_equal(ng.evaluate(model, task)["log_prob"], plain)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert model.running.edits == []
    np.testing.assert_array_equal(ng.evaluate(model, task)["log_prob"], plain)
    for key, value in model.hf.state_dict().items():
        assert torch.equal(value, weights[key])
    for module in model.hf.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks


def test_edits_compose_in_order() -> None:
    model, task = random_model("gpt2"), small_task(3)
    first, second = random_set(model, 1), random_set(model, 2)
    with ng.edit(model, ng.SetTo(first, 2)), ng.edit(model, ng.Scale(second, 3)):
        nested = ng.evaluate(model, task)
    with ng.edit(model, [ng.SetTo(first, 2), ng.Scale(second, 3)]):
        listed = ng.evaluate(model, task)
    np.testing.assert_array_equal(nested["log_prob"], listed["log_prob"])
    assert nested.attrs["edits"] == listed.attrs["edits"]
    one, two = (torch.tensor(s.mask) for s in (first, second))

    def both(layer: int, values: torch.Tensor) -> torch.Tensor:
        values = torch.where(one[layer], 2.0, values)
        return torch.where(two[layer], values * 3, values)

    expected = edited_log_probs(model, task, lambda *_: both, "answer")
    np.testing.assert_allclose(listed["log_prob"], expected, atol=1e-3)
    with ng.edit(model, [ng.Zero(first), ng.Zero(second)]):
        apart = ng.evaluate(model, task)
    with ng.edit(model, ng.Zero(first | second)):
        joined = ng.evaluate(model, task)
    np.testing.assert_array_equal(apart["log_prob"], joined["log_prob"])


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_recording_under_an_edit(name: str, positions: str) -> None:
    """What later layers do once earlier ones are edited; prompts share beginnings."""
    model = random_model(name)
    texts = [f"w5 w6 w7 w8 w9 w{10 + i}" + " w3" * (i % 3) for i in range(8)]
    records = [{"id": str(i), "prompts": {"en": x, "de": x + " w4"}} for i, x in enumerate(texts)]
    task = ng.ParallelTask.from_records(records, name="shared beginnings")
    sets = sets_for(model, task, seed=8)
    with ng.edit(model, ng.Zero(sets), position=positions):
        found = ng.record(model, task, reading=ng.Reading(site="coefficient", keep_values=True))
    assert positions in found.attrs["edits"]
    for i, item in enumerate(task.items):
        for j, language in enumerate(task.languages):
            ids = tokenizer()(item["prompts"][language]).input_ids
            where = first_and_last(positions, len(ids), len(ids))
            with changed(model.hf, name, where, zeroed(mask_of(sets, task, i, j))):
                # The last hook in place sees what the edit leaves.
                expected = _last_coefficients(model, name, ids)
            np.testing.assert_allclose(found.values[i, j], expected, atol=1e-3)


def _last_coefficients(model: ng.Model, name: str, ids: list[int]) -> np.ndarray:
    modules = {str(i): down(model.hf, name, i) for i in range(N_LAYERS)}
    with seeing(modules) as seen, torch.no_grad():
        model.hf(torch.tensor([ids]))
    return np.stack([seen[str(i)][0].numpy() for i in range(N_LAYERS)])


def test_calling_the_model_itself() -> None:
    """Nobody says what runs: without a cache rows are prompts, with one they go on."""
    model = random_model("llama")
    neurons = random_set(model, 4)
    ids = torch.tensor([tokenizer()("w5 w6 w7").input_ids])
    with torch.no_grad():
        for positions in POSITIONS:
            where = first_and_last(positions, 3, 3)
            with changed(model.hf, "llama", where, zeroed(neurons.mask)):
                expected = model.hf(ids).logits
            with ng.edit(model, ng.Zero(neurons), position=positions):
                found = model.hf(ids).logits
            torch.testing.assert_close(found, expected)
        cache, alone = _cache_of(model.hf(ids, use_cache=True)), model.hf(ids[:, :2]).logits
        # Those of the names that this version of transformers knows; others have no effect.
        known = [
            name
            for name in CACHES
            if not torch.equal(model.hf(ids[:, :2], **{name: copy.deepcopy(cache)}).logits, alone)
        ]
        assert known
        for name in known:
            with ng.edit(model, ng.Zero(neurons), position="answer"):
                after = model.hf(ids[:, :2], **{name: copy.deepcopy(cache)}).logits
            with ng.edit(model, ng.Zero(neurons), position="all"):
                expected = model.hf(ids[:, :2], **{name: copy.deepcopy(cache)}).logits
            torch.testing.assert_close(after, expected)
            with ng.edit(model, ng.Zero(neurons), position="last"):
                untouched = model.hf(ids[:, :2], **{name: copy.deepcopy(cache)}).logits
            assert not torch.equal(untouched, expected)


def test_scores_under_an_edit_see_it() -> None:
    model, task = random_model("gpt2"), small_task(2, "en de")
    neurons = random_set(model, 6)
    for score in ("contribution", "gradient_x_activation"):
        with ng.edit(model, ng.Zero(neurons)):
            found = ng.neuron_scores(model, task, score=score)
        assert np.all(found.values[:, neurons.mask] == 0)
        assert found.attrs["edits"].startswith("zero")
        assert np.any(found.values[:, ~neurons.mask] != 0)


def test_an_edited_evaluation_goes_on_only_under_the_same_edit(tmp_path: object) -> None:
    model, task, out = random_model("gpt2"), small_task(3), f"{tmp_path}/answers"
    with ng.edit(model, ng.Zero(random_set(model, 1))):
        first = ng.evaluate(model, task, out=out)
        assert ng.evaluate(model, task, out=out).equals(first)
    for other in (ng.Zero(random_set(model, 2)), ng.Scale(random_set(model, 1), 2)):
        with (
            pytest.raises(ng.NeuroglotError, match="edits"),
            ng.edit(model, other),
        ):
            ng.evaluate(model, task, out=out)
    with pytest.raises(ng.NeuroglotError, match="edits"):
        ng.evaluate(model, task, out=out)


def test_a_recording_under_an_edit_is_another_models() -> None:
    model, task = random_model("gpt2"), small_task(3)
    with ng.edit(model, ng.Zero(random_set(model, 1))):
        recording = ng.record(model, task)
        ng.attribute(model, task, recording=recording)
    with pytest.raises(ng.NeuroglotError, match="edits"):
        ng.attribute(model, task, recording=recording)


def test_bad_edits_are_refused() -> None:
    model, task = random_model("gpt2"), small_task(2)
    neurons = random_set(model)
    other = ng.NeuronSet(np.ones((2, 5), bool), "other")
    recording = ng.record(model, task, reading=ng.Reading(keep_values=True))
    cases = [
        (ng.Zero(other), "answer", "2 layers of 5 ffn neurons"),
        (ng.Zero("all"), "answer", "found str"),  # type: ignore[arg-type]
        (neurons, "answer", "NeuronSet is not an edit"),
        (ng.Zero(neurons, position="first"), "answer", "unknown position 'first'"),  # type: ignore[arg-type]
        (ng.Add(neurons, np.ones((2, 3))), "answer", "value= is of shape"),
        (ng.Patch(neurons, recording, "task"), "answer", "expected those of 'coefficient'"),
        (ng.Zero(neurons), "first", "unknown position 'first'"),
        (ng.MeanAblate(neurons, recording), "answer", "expected those of 'coefficient'"),
        (ng.MeanAblate(neurons, recording.values.mean("item")), "answer", "means of shape"),
        (ng.Zero(sets_for(model, small_task(1))), "answer", "no set for the prompt"),
    ]
    for edit, positions, message in cases:
        with (
            pytest.raises(ng.NeuroglotError, match=message),
            ng.edit(model, edit, position=positions),  # type: ignore[arg-type]
        ):
            ng.evaluate(model, task)
    assert str(ng.Scale(neurons, np.float32(2))) == str(ng.Scale(neurons, 2))
    elsewhere = ng.record(
        tiny_model("gpt2"), task, reading=ng.Reading(site="coefficient", keep_values=True)
    )
    with (
        pytest.raises(ng.NeuroglotError, match="with other weights"),
        ng.edit(model, ng.MeanAblate(neurons, elsewhere)),
    ):
        pass
    for factor in (float("nan"), float("inf"), "2", True):
        with pytest.raises(ng.NeuroglotError, match="finite"):
            ng.Scale(neurons, factor)  # type: ignore[arg-type]
    with (
        pytest.raises(ng.NeuroglotError, match="no prompts of a task"),
        ng.edit(model, ng.Zero(sets_for(model, task))),
    ):
        ng.neuron_scores(model, ["w5 w6"], score="contribution")
    assert model.running.edits == []
    for value in (float("nan"), np.full((3, 3), np.inf)):
        with pytest.raises(ng.NeuroglotError, match="not finite"):
            ng.Add(neurons, value)
