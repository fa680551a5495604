"""Coefficients of other prompts: patched, or averaged over groups; in every family, longhand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import neuroglot as ng
from neuroglot.answering.answers import right_options
from neuroglot.interventions.contents import Draw
from tests.attribution.models import down, random_model, seeing
from tests.families import by_family
from tests.interventions.longhand import edited_log_probs
from tests.interventions.planted import (
    CONSTANT,
    MAGNITUDE,
    N_ANSWERS,
    always_on_model,
    always_on_task,
)
from tests.testing import small_task, tiny_model, tokenizer


def related_task(n_items: int = 4, languages: str = "en de") -> ng.ParallelTask:
    """Two relations, whose items alternate."""
    records = [
        {**item, "relation": "odd" if i % 2 else "even"}
        for i, item in enumerate(small_task(n_items, languages).items)
    ]
    return ng.ParallelTask.from_records(records, name="related")


def coefficients_of(model: ng.Model, family: str, task: ng.ParallelTask) -> np.ndarray:
    """At each prompt's last token (item, language, layer, neuron), one text at a time."""
    modules = {str(i): down(model.hf, family, i) for i in range(model.n_layers)}

    def of(text: str) -> np.ndarray:
        with seeing(modules) as seen, torch.no_grad():
            model.hf(torch.tensor([tokenizer()(text).input_ids]))
        return np.stack([seen[name][0].numpy() for name in modules])

    return np.array([[of(item["prompts"][code]) for code in task.languages] for item in task.items])


def recorded(model: ng.Model, task: ng.ParallelTask) -> ng.Recording:
    return ng.record(model, task, reading=ng.Reading(site="coefficient", keep_values=True))


def replaced(mask: np.ndarray, values: np.ndarray) -> Any:
    """Give the neurons of a mask (layer, neuron) these values (layer, neuron)."""
    here, new = torch.tensor(mask), torch.tensor(values, dtype=torch.float32)
    return lambda layer, old: torch.where(here[layer], new[layer].to(old.dtype), old)


@pytest.mark.parametrize("family", by_family())
def test_every_edit_in_every_family(family: str) -> None:
    model, task = tiny_model(family), related_task()
    named = replace(model, name=f"tiny-{family}")
    source = recorded(model, task)
    values = coefficients_of(model, family, task)
    rng = np.random.default_rng(0)
    mask = rng.random((model.n_layers, model.n_neurons)) < 0.4
    neurons = ng.NeuronSet(mask)
    added = rng.normal(size=mask.shape).astype(np.float32)
    here = torch.tensor(mask)

    def changed(new: Any) -> Any:
        return lambda *_: lambda layer, old: torch.where(here[layer], new(layer, old), old)

    patch = ng.Patch(neurons, source, "relation", task, seed=1)
    drawn = Draw(source, "relation", task, 1, 1)
    place = {item["id"]: i for i, item in enumerate(task.items)}

    def source_of(i: int, j: int) -> np.ndarray:
        item, language = drawn.source_of((task.items[i]["id"], task.languages[j]))
        assert place[item] % 2 == i % 2
        assert place[item] != i
        assert language == task.languages[j]
        return values[place[item], j]

    cases: dict[str, tuple[Any, Any, str]] = {
        "zero": (ng.Zero(neurons), changed(lambda _, old: old * 0), "answer"),
        "scale": (ng.Scale(neurons, -1.5), changed(lambda _, old: old * -1.5), "answer"),
        "set": (ng.SetTo(neurons, 0.5), changed(lambda _, old: old * 0 + 0.5), "answer"),
        "add": (ng.Add(neurons, 0.3), changed(lambda _, old: old + 0.3), "answer"),
        "add to each": (
            ng.Add(neurons, added),
            changed(lambda layer, old: old + torch.tensor(added[layer]).to(old.dtype)),
            "answer",
        ),
        "mean": (
            ng.MeanAblate(neurons, source),
            lambda *_: replaced(mask, values.mean(axis=(0, 1))),
            "answer",
        ),
        "mean within both": (
            ng.MeanAblate(neurons, source, "both", task),
            lambda i, j: replaced(mask, values[i % 2 :: 2, j].mean(axis=0)),
            "answer",
        ),
        "patch": (patch, lambda i, j: replaced(mask, source_of(i, j)), "last"),
        "patch language": (
            ng.Patch(neurons, source, "de"),
            lambda i, _: replaced(mask, values[i, 1]),
            "last",
        ),
        "patch prompt": (
            ng.Patch(neurons, source, (task.items[2]["id"], "en"), position="answer"),
            lambda i, j: replaced(mask & ((i, j) != (2, 0)), values[2, 0]),
            "answer",
        ),
    }
    for name, (one, change, positions) in cases.items():
        expected = edited_log_probs(named, task, change, positions)
        with ng.edit(model, one):
            found = ng.evaluate(model, task)["log_prob"].values
        np.testing.assert_allclose(found, expected, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("within", ["language", "relation", "both", None])
def test_means_within_groups(within: str | None) -> None:
    """Of a recording of other items and languages than are asked."""
    model = random_model("llama")
    task, wider = related_task(4, "en de"), related_task(9, "en de th")
    values = coefficients_of(model, "llama", wider)
    neurons = ng.NeuronSet(np.ones((model.n_layers, model.n_neurons), bool))
    source = recorded(model, wider)

    def mean(i: int, j: int) -> np.ndarray:
        items = slice(i % 2, None, 2) if within in ("relation", "both") else slice(None)
        languages = slice(j, j + 1) if within in ("language", "both") else slice(None)
        return np.asarray(values[items, languages].mean(axis=(0, 1)))

    expected = edited_log_probs(
        model, task, lambda i, j: replaced(neurons.mask, mean(i, j)), "answer"
    )
    for size in (1, 3, "auto"):
        one = ng.MeanAblate(neurons, source, within, wider if within else None)
        with ng.edit(model, one):
            found = ng.evaluate(model.with_batch_size(size), task)  # type: ignore[arg-type]
        np.testing.assert_allclose(found["log_prob"], expected, atol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_a_prompt_in_its_own_place_changes_no_bit(name: str) -> None:
    model, task = random_model(name), related_task()
    source = recorded(model, task)
    neurons = ng.NeuronSet(np.ones((model.n_layers, model.n_neurons), bool))
    plain = ng.evaluate(model, task)["log_prob"].values
    prompt = (task.items[1]["id"], "de")
    with ng.edit(model, ng.Patch(neurons, source, prompt)):
        found = ng.evaluate(model, task)["log_prob"].values
    np.testing.assert_array_equal(found[1, 1], plain[1, 1])
    assert not np.allclose(found[1, 0], plain[1, 0])
    alone = ng.ParallelTask.from_records([task.items[1]], name="related")
    single = ng.record(model, alone, reading=ng.Reading(site="coefficient", keep_values=True))
    for one in (
        ng.Patch(neurons, source, "de"),
        ng.MeanAblate(neurons, single, "both", task),
        ng.MeanAblate(neurons, single, "language"),
    ):
        with ng.edit(model, one):
            found = ng.evaluate(model, alone)["log_prob"].values
        np.testing.assert_array_equal(found[0, 1], ng.evaluate(model, alone)["log_prob"][0, 1])


def test_draws_differ_and_can_be_repeated() -> None:
    model, task = random_model("llama"), related_task(12)
    source = recorded(model, task)

    def drawn(of: str, seed: int, draw: int) -> list[Any]:
        found = Draw(source, of, task, seed, draw + 1)
        return [found.source_of((item["id"], "de"), draw) for item in task.items]

    for of in ("relation", "task"):
        one = drawn(of, 0, 0)
        assert one == drawn(of, 0, 0)
        assert one != drawn(of, 1, 0)
        assert one != drawn(of, 0, 1)
        assert all(x[0] != item["id"] for x, item in zip(one, task.items, strict=True))
    every = {draw: drawn("relation", 0, draw) for draw in range(60)}
    seen = {sources[0][0] for sources in every.values()}
    assert seen == {item["id"] for item in task.items[2::2]}, "each other item of the relation"


def test_several_draws_are_arms_of_one_condition() -> None:
    """Each as a condition with one draw gives it, their mean in effects, with one beside them."""
    model, task = random_model("llama"), related_task(12)
    source = recorded(model, task)
    some = ng.NeuronSet.from_pairs([(1, 3), (1, 5), (1, 7)], model)
    patch = ng.Patch(some, source, "relation", task, draws=3)
    found = ng.intervene(
        model, task, {"drawn": patch, "off": ng.Zero(some)}, controls=ng.Controls(["size"], draws=4)
    )
    names = ["edit", "edit 1", "edit 2", *(f"size {i}" for i in range(4))]
    assert found["arm"].values.tolist() == names
    drawn = found["log_prob"].sel(condition="drawn")
    assert drawn.notnull().all()
    for draw, arm in enumerate(names[:3]):
        for item in task.items:
            for code in task.languages:
                there = Draw(source, "relation", task, 0, 3).source_of((item["id"], code), draw)
                with ng.edit(model, ng.Patch(some, source, there)):
                    alone = task.part([item], [code])
                    answers = ng.evaluate(model, alone)["log_prob"].values[0, 0]
                expected = answers[right_options(alone)[0]]
                value = float(drawn.sel(arm=arm, item=item["id"], language=code))
                assert value == pytest.approx(float(expected), abs=1e-4)
    assert not np.allclose(drawn.sel(arm="edit"), drawn.sel(arm="edit 1"))
    off = found["log_prob"].sel(condition="off")
    assert off.sel(arm=["edit 1", "edit 2"]).isnull().all()
    effects = ng.effects(found, of="margin")
    own = found["margin"].sel(condition="drawn", arm=names[:3]).mean("arm")
    less = (own - found["margin_no_edit"]).mean()
    assert float(effects["difference"].sel(condition="drawn", against="no_edit")) == pytest.approx(
        float(less), abs=1e-5
    )
    assert int(effects["n_prompts"].sel(condition="off", against="no_edit")) == 24


def test_always_on_neurons_that_carry_an_answer_and_those_that_carry_a_constant() -> None:
    """What each edit finds of neurons that are all active in every prompt."""
    model, task = always_on_model(), always_on_task()
    recording = ng.record(model, task)
    for layer, neuron in (*MAGNITUDE, *CONSTANT):
        active = ng.NeuronSet.active(recording).masks_of(
            [(item["id"], code) for item in task.items for code in task.languages]
        )
        assert active[:, layer, neuron].all()
    source = recorded(model, task)
    conditions = {}
    for name, places in (("magnitude", MAGNITUDE), ("constant", CONSTANT)):
        neurons = ng.NeuronSet.from_pairs(places, model, name=name)
        conditions |= {
            f"{name} patched": ng.Patch(neurons, source, "relation", task),
            f"{name} off": ng.Zero(neurons),
            f"{name} averaged": ng.MeanAblate(neurons, source, "both", task),
        }
    found = ng.intervene(model, task, conditions, controls=ng.Controls(()))
    right = found["correct"].isel(arm=0).mean(("item", "language")).to_series().to_dict()
    assert float(found["correct_no_edit"].mean()) == 1
    chance = 1 / N_ANSWERS
    assert right["magnitude patched"] < chance + 0.1, "another item's answer, mostly"
    assert right["magnitude off"] == pytest.approx(chance, abs=0.01)
    assert right["magnitude averaged"] == pytest.approx(chance, abs=0.01)
    assert right["constant patched"] == 1
    assert right["constant averaged"] == 1
    assert right["constant off"] == pytest.approx(chance, abs=0.01)


def test_what_cannot_be_patched_or_averaged() -> None:
    model, task = random_model("gpt2"), related_task()
    neurons = ng.NeuronSet(np.ones((model.n_layers, model.n_neurons), bool))
    source = recorded(model, task)
    plain = ng.ParallelTask.from_records(
        [{**item, "relation": None} for item in task.items], name="of no relation"
    )
    means = source.values.mean(["item", "language"])
    cases: list[tuple[Any, str]] = [
        (lambda: ng.MeanAblate(neurons, source, "item"), "within='item': there are"),
        (lambda: ng.MeanAblate(neurons, means, "language"), "needs a recording"),
        (lambda: ng.MeanAblate(neurons, source, "both"), "task= is needed"),
        (lambda: ng.Patch(neurons, means), "source is a DataArray"),
        (lambda: ng.Patch(neurons, source), "task= is needed"),
        (lambda: ng.Patch(neurons, source, "fr"), "of='fr': expected"),
        (lambda: ng.Patch(neurons, source, ("no", "de")), "expected 'relation', 'task'"),
        (lambda: ng.Patch(neurons, source, "task", draws=0), "draws=0"),
        (lambda: ng.Patch(neurons, source, "task", seed=0.5), "seed=0.5"),
    ]
    for make, message in cases:
        with pytest.raises(ng.NeuroglotError, match=message):
            make()
    few = task.part(task.items[:2])
    wide = ng.record(
        model, task, reading=ng.Reading(site="coefficient", keep_values=True, position="all")
    )
    runs: list[tuple[Any, ng.ParallelTask, str]] = [
        (ng.MeanAblate(neurons, source, "both", plain), task, "no relation for the item"),
        (ng.Patch(neurons, source.select(items=2), "relation", task), few, "no other item than"),
        (ng.Patch(neurons, source.select(items=2), "de"), task, "source holds no prompt"),
        (ng.Patch(neurons, wide, "task"), task, "position='last'"),
    ]
    for one, asked, message in runs:
        with pytest.raises(ng.NeuroglotError, match=message), ng.edit(model, one):
            ng.evaluate(model, asked)
    for one in (ng.Patch(neurons, source, "task"), ng.MeanAblate(neurons, source, "language")):
        with pytest.raises(ng.NeuroglotError, match="prompts of a task"), ng.edit(model, one):
            ng.neuron_scores(model, ["w5 w6"], score="contribution")
