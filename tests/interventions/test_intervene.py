"""What intervening reports: each arm longhand, controls, statistics, resumption, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import neuroglot as ng
from neuroglot.answering.differences import difference as difference_of
from neuroglot.answering.observations import samples_of
from neuroglot.answering.statistics import holm
from neuroglot.interventions import answering as answering_module
from neuroglot.interventions.controls import CONTROLS, OWN, OfPrompt, deciles
from neuroglot.interventions.edits import Edit
from neuroglot.interventions.effects import by_control
from neuroglot.tasks.guessing import majority
from tests.answering.test_masked import masked_task
from tests.attribution.models import random_model
from tests.interventions.longhand import (
    Change,
    changed,
    edited_log_prob,
    first_and_last,
    written,
    zeroed,
)
from tests.testing import (
    longhand_categories,
    longhand_values,
    small_task,
    tiny_model,
    tokenizer,
)

CODES = {"non_activated": 0, "specific": 1, "partial_shared": 2, "all_shared": 3}
MODULE = import_module("neuroglot.interventions.intervene")  # the package names the function so
NONE = ng.Controls(())


def off(recording: ng.Recording, *categories: str) -> dict[str, ng.Zero]:
    """A condition for each category: its neurons are zero."""
    return {name: ng.Zero(ng.NeuronSet.from_category(recording, name)) for name in categories}


def shape_of(model: ng.Model) -> tuple[int, int]:
    return model.n_layers, model.n_neurons


def random_set(model: ng.Model, seed: int = 0, share: float = 0.25) -> ng.NeuronSet:
    mask = np.random.default_rng(seed).random(shape_of(model)) < share
    return ng.NeuronSet(mask, f"random {seed}")


def sets_for(
    model: ng.Model, task: ng.ParallelTask, seed: int = 0, share: float = 0.25
) -> ng.NeuronSet:
    """A random set for each prompt."""
    rng = np.random.default_rng(seed)
    prompts = [(item["id"], code) for item in task.items for code in task.languages]
    return ng.NeuronSet.of_prompts(
        {prompt: rng.random(shape_of(model)) < share for prompt in prompts}, "each its own"
    )


def longer(task: ng.ParallelTask) -> ng.ParallelTask:
    """The same items, with something before the last token of every prompt."""
    records = [
        {**item, "prompts": {code: f"w7 w8 {text}" for code, text in item["prompts"].items()}}
        for item in task.items
    ]
    return ng.ParallelTask.from_records(records, name="longer")


def to_be_written(task: ng.ParallelTask) -> ng.ParallelTask:
    """The same items without choices; the other choices are right as well."""
    records: list[dict[str, Any]] = []
    for item in task.items:
        others = {
            code: [x for x in item["choices"][code] if x != item["answers"][code]]
            for code in task.languages
        }
        records.append({**item, "choices": {}, "aliases": others})
    return ng.ParallelTask.from_records(records, name="written")


@dataclass(frozen=True)
class Answered:
    """What a block of prompts was asked under, and what came of it (prompt, arm)."""

    task: ng.ParallelTask
    edits: Sequence[tuple[Edit, np.ndarray]]
    there: np.ndarray
    found: dict[str, np.ndarray]


def spied(monkeypatch: pytest.MonkeyPatch) -> list[Answered]:
    """What is answered from now on, block by block."""
    seen: list[Answered] = []
    real = MODULE.answers_under

    def spy(model: Any, task: Any, edited: Any, how: Any) -> Any:
        found = real(model, task, edited, how)
        seen.append(Answered(task, edited.edits, edited.there, found))
        return found

    monkeypatch.setattr(MODULE, "answers_under", spy)
    return seen


Done = Sequence[tuple[Change, str]]
"""What happens in one prompt, in order, and at which positions."""


def log_prob_under(model: ng.Model, prompt: str, choice: str, done: Done) -> float:
    """Log-probability of a choice after a prompt, one text at a time."""
    n_prompt, n_choice = (len(tokenizer()(text).input_ids) for text in (prompt, choice))
    *before, (change, positions) = done
    with ExitStack() as stack:
        for other, at in before:
            where = first_and_last(at, n_prompt, n_prompt + n_choice)
            name = model.name.partition("-")[2]
            stack.enter_context(changed(model.hf, name, where, other))
        return edited_log_prob(model, prompt, choice, change, positions)


def change_of(edit: Edit, mask: np.ndarray) -> Change:
    """What an edit does, were it of the neurons of a mask (layer, neuron)."""

    def change(layer: int, values: torch.Tensor) -> torch.Tensor:
        if isinstance(edit, ng.Scale):
            new = values * edit.factor
        elif isinstance(edit, ng.SetTo):
            new = torch.full_like(values, edit.value)
        else:
            assert isinstance(edit, ng.Zero)
            new = torch.zeros_like(values)
        return torch.where(torch.from_numpy(mask[layer]).to(values.device), new, values)

    return change


def done_in(one: Answered, row: int, arm: int, positions: str) -> Done:
    """What happens in an arm of a prompt."""
    return [
        (change_of(edit, masks[row, arm]), edit.position or positions) for edit, masks in one.edits
    ]


def prompt_at(task: ng.ParallelTask, row: int) -> tuple[dict[str, Any], str]:
    """Item and language of a prompt."""
    i, j = divmod(row, len(task.languages))
    return task.items[i], task.languages[j]


def scores_after(model: ng.Model, item: Any, code: str, prompt: str, done: Done) -> np.ndarray:
    """Log-probability of each choice, the right one first."""
    right = item["answers"][code]
    choices = [right, *(choice for choice in item["choices"][code] if choice != right)]
    return np.array([log_prob_under(model, prompt, choice, done) for choice in choices])


def check_choices(model: ng.Model, one: Answered, positions: str = "answer") -> None:
    """Every arm of every prompt against one text at a time."""
    for row, arm in np.argwhere(one.there).tolist():
        item, code = prompt_at(one.task, row)
        done = done_in(one, row, arm, positions)
        scores = scores_after(model, item, code, item["prompts"][code], done)
        found = {name: float(values[row, arm]) for name, values in one.found.items()}
        assert found["correct"] == (scores[0] > scores[1:].max())
        assert found["log_prob"] == pytest.approx(scores[0], abs=1e-3)
        assert found["margin"] == pytest.approx(scores[0] - scores[1:].max(), abs=1e-3)
    for name in ("correct", "log_prob", "margin"):
        assert one.found[name].shape == one.there.shape
        assert np.isnan(one.found[name][~one.there]).all()


def check_reported(found: xr.Dataset, seen: Sequence[Answered], names: Sequence[str]) -> None:
    """An outcome of one condition holds what was answered, in the order of its prompts."""
    by_item = found.transpose("item", "language", "arm", ...)
    for name in names:
        blocks = np.concatenate([one.found[name] for one in seen])
        np.testing.assert_array_equal(by_item[name].to_numpy().reshape(blocks.shape), blocks)


def contributions(model: ng.Model, text: str) -> np.ndarray:
    """``|m|·‖v‖`` (layer, neuron) at the last token of a prompt."""
    norms = np.stack([site.value_vectors().norm(dim=1).numpy() for site in model.sites])
    return np.asarray(np.abs(longhand_values(model, text, "coefficient")[:, -1]) * norms)


@pytest.fixture(scope="module")
def real_outcome() -> xr.Dataset:
    """Turning all-shared neurons around changes many answers."""
    model = ng.load_model("embedded/base")
    task = ng.load_task("editing_en_xx", limit=40, languages=["en", "de", "th"])
    recording = ng.record(model, task)
    conditions = {
        f"{name}, times -3": ng.Scale(ng.NeuronSet.from_category(recording, name), -3.0)
        for name in ("all_shared", "specific")
    }
    return ng.intervene(model, task, conditions, recording=recording, controls=ng.Controls(draws=2))


def test_a_null_effect_is_significant_as_often_as_it_should(real_outcome: xr.Dataset) -> None:
    """Condition and control, swapped at random within items, 200 times."""
    here = real_outcome.isel(condition=0)
    correct = here["correct"].sel(arm=OWN).values.astype(float)
    controls = by_control(real_outcome["correct"]).isel(condition=0)
    control = controls.sel(kind="size").mean("draw").values
    assert (correct != control).any(axis=1).sum() > 12, "enough items that can be swapped"
    counted = here["counted"].values
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(200):
        swapped = rng.random((len(correct), 1)) < 0.5
        one, other = np.where(swapped, control, correct), np.where(swapped, correct, control)
        observed = [samples_of(here).observed(values, counted) for values in (one, other)]
        arms = np.stack([values.numbers for values in observed])
        p_values.append(difference_of(arms, observed[0].subjects, 0.05, 0).p)
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.09


def test_the_statistics_are_of_the_answers(real_outcome: xr.Dataset) -> None:
    found, controls = real_outcome, by_control(real_outcome["correct"])
    counted = found["counted"].values
    for condition in found["condition"].values:
        one = found.sel(condition=condition)
        correct = one["correct"].sel(arm=OWN).values.astype(float)
        for against in found["against"].values:
            draws = found["correct_no_edit"].values.astype(float)[None]
            if against != "no_edit":
                draws = controls.sel(condition=condition, kind=against).values
            other = draws.mean(axis=0)
            kept = counted & ~np.isnan(other)
            here = one.sel(against=against)
            assert int(here["n_prompts"]) == kept.sum()
            subjects = {
                subject
                for subject, row in zip(found["subject"].values, kept, strict=True)
                if row.any()
            }
            assert int(here["n_subjects"]) == len(subjects)
            difference = float(here["difference"])
            assert np.isnan(difference) == (len(subjects) < 10)
            if len(subjects) >= 10:
                assert difference == pytest.approx((correct - other)[kept].mean())
                clusters = np.repeat(found["subject"].values[:, None], kept.shape[1], axis=1)[kept]
                arms = np.stack([correct[kept], *(draw[kept] for draw in draws)])
                expected = difference_of(arms, clusters, 0.05, 0)
                for name, value in (
                    *(("p", expected.p), ("p_equivalent", expected.p_equivalent)),
                    *(("difference_low", expected.low), ("difference_high", expected.high)),
                ):
                    np.testing.assert_allclose(here[name], value, atol=1e-8)
        for j, language in enumerate(found["language"].values):
            by_language = one.sel(language=language)
            assert float(by_language["accuracy"]) == pytest.approx(correct[:, j].mean())
            for kind in found["kind"].values:
                mean = controls.sel(condition=condition, kind=kind).mean("draw", skipna=False)
                of_kind = by_language["accuracy_control"].sel(kind=kind)
                np.testing.assert_allclose(of_kind, mean.isel(language=j).mean("item"))
            moved = correct[:, j] - found["correct_no_edit"].values[:, j]
            p = difference_of(np.stack([moved, 0 * moved]), found["subject"].values, 0.05, 0).p
            assert float(by_language["p_by_language"].sel(against="no_edit")) == pytest.approx(p)
    np.testing.assert_allclose(found["p_holm"], holm(found["p"].values))
    np.testing.assert_allclose(found["p_holm_by_language"], holm(found["p_by_language"].values))


def test_arms_are_named_by_their_control_and_draw() -> None:
    model, task = tiny_model("llama"), small_task(3)
    recording = ng.record(model, task)
    given = {"first": ng.Zero(random_set(model)), "second": ng.Zero(random_set(model, 1))}
    found = ng.intervene(
        model, task, given, recording=recording, controls=ng.Controls(["active", "size"], draws=2),
        coordinates={"dose": [0.5, 1.0], "where": ["here", "there"]},
    )  # fmt: skip
    assert found["condition"].values.tolist() == ["first", "second"]
    assert found["arm"].values.tolist() == ["edit", "active 0", "active 1", "size 0", "size 1"]
    assert found["control"].values.tolist() == ["", "active", "active", "size", "size"]
    assert found["draw"].values.tolist() == [0, 0, 1, 0, 1]
    assert found["against"].values.tolist() == ["no_edit", "active", "size"]
    assert found["dose"].sel(condition="second") == 1.0
    assert found["where"].sel(condition="first") == "here"
    for name in ("correct", "margin", "log_prob", "share"):
        assert found[name].dims == ("condition", "arm", "item", "language")
    assert found["n_neurons"].dims == ("condition", "item", "language")
    by_kind = by_control(found["margin"])
    for kind, draw in (("active", 1), ("size", 0)):
        np.testing.assert_array_equal(
            by_kind.sel(kind=kind).isel(draw=draw), found["margin"].sel(arm=f"{kind} {draw}")
        )
    plain = ng.evaluate(model, task)
    for name in ("correct", "margin"):
        np.testing.assert_array_equal(found[f"{name}_no_edit"], plain[name])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("shared", [True, False])
def test_every_arm_against_one_prompt_at_a_time(
    name: str, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = replace(random_model(name), shares_cache=shared), small_task(3, "en de", seed=2)
    recording = ng.record(model, task)
    paired = ng.NeuronSet.of_prompts(
        {
            (item["id"], code): _with_partners(model, item["prompts"][code])
            for item in task.items
            for code in task.languages
        },
    )
    seen = spied(monkeypatch)
    given = off(recording, "partial_shared", "all_shared") | {"paired": ng.Zero(paired)}
    found = ng.intervene(model, task, given, recording=recording)
    codes = longhand_categories(model, task, "gate")
    for one, category in zip(seen, given, strict=True):
        ((_, masks),) = one.edits
        if category == "partial_shared":  # of two languages, none is
            assert not masks.any()
            continue
        shares = np.zeros(masks.shape[:2])
        for row in range(len(masks)):
            item, language = prompt_at(task, row)
            text = item["prompts"][language]
            if category == "paired":
                members = _with_partners(model, text)
            else:
                members = codes[row // 2] == CODES[category]
            active = longhand_values(model, text, "gate")[:, -1] > 0
            contribution = contributions(model, text)
            np.testing.assert_array_equal(masks[row, 0], members)
            shares[row] = [contribution[x].sum() / contribution.sum() for x in masks[row]]
            there = one.there[row]
            _check_controls(masks[row], there, members, active, deciles(contribution))
        check_choices(model, one)
        here = found.sel(condition=category)
        check_reported(here, [one], ("correct", "log_prob", "margin"))
        by_arm = here["share"].transpose("item", "language", "arm").values.reshape(shares.shape)
        np.testing.assert_allclose(by_arm, np.where(one.there, shares, np.nan), rtol=1e-4)
        counts = masks[:, 0].sum((1, 2)).reshape(3, 2)
        np.testing.assert_array_equal(here["n_neurons"].transpose("item", "language"), counts)
    assert seen[-1].there.all(), "every arm is looked at"


def _with_partners(model: ng.Model, text: str) -> np.ndarray:
    """Of each decile of contributions the first neuron, where another one of it is active."""
    active = longhand_values(model, text, "gate")[:, -1] > 0
    strata = deciles(contributions(model, text))
    found = np.zeros_like(active)
    for layer, decile in np.ndindex(len(active), 10):
        here = np.flatnonzero(strata[layer] == decile)
        found[layer, here[:1]] = active[layer, here[1:]].any()
    return found


def _check_controls(
    masks: np.ndarray, there: np.ndarray, members: Any, active: Any, decile: Any
) -> None:
    for k, control in enumerate(CONTROLS):
        pool = ~members if control == "size" else ~members & active
        strata = decile if control == "contribution" else np.zeros_like(decile)
        enough = all(
            (members[layer] & (strata[layer] == s)).sum()
            <= (pool[layer] & (strata[layer] == s)).sum()
            for layer in range(len(members))
            for s in range(10)
        )
        drawn = slice(1 + 5 * k, 6 + 5 * k)
        assert there[drawn].tolist() == [enough] * 5
        for mask in masks[drawn] if enough else []:
            assert not (mask & ~pool).any()
            for layer in range(len(members)):
                for s in range(10):
                    here = strata[layer] == s
                    assert (mask[layer] & here).sum() == (members[layer] & here).sum()


def test_deciles_by_hand() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((2, 40))
    found = deciles(values)
    for layer in range(2):
        order = np.argsort(values[layer])
        np.testing.assert_array_equal(found[layer][order], np.repeat(np.arange(10), 4))
    ties = np.array([[0.0] * 30 + list(range(1, 11))])
    assert len(set(deciles(ties)[0, :30].tolist())) == 1


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("positions", ["answer", "last", "all"])
@pytest.mark.parametrize("shared", [True, False])
def test_several_edits_in_one_condition(
    name: str, positions: str, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each at positions of its own, in order, and in the controls as in the condition."""
    model = replace(random_model(name), shares_cache=shared)
    task = longer(small_task(3, "en de", seed=4))
    fixed, each = random_set(model, 1), sets_for(model, task, 3, share=0.2)
    assert (fixed.mask & each.masks_of([("item0", "en")])[0]).any(), "the order matters"
    conditions: dict[str, Any] = {
        "both": [ng.Scale(fixed, 2), ng.Zero(each)],
        "apart": [ng.SetTo(fixed, 0.5, position="last"), ng.Scale(each, 3, position="all")],
        "around": (ng.Zero(each, position="all"), ng.SetTo(fixed, -1)),
        "alone": ng.Scale(each, -1, position="last"),
    }
    seen = spied(monkeypatch)
    found = ng.intervene(
        model, task, conditions, controls=ng.Controls(["size"], draws=2), position=positions
    )
    assert found["condition"].values.tolist() == list(conditions)
    for one, (condition, given) in zip(seen, conditions.items(), strict=True):
        edits = given if isinstance(given, Sequence) else [given]
        assert [edit for edit, _ in one.edits] == list(edits)
        assert one.there.all()
        check_choices(model, one, positions)
        here = found.sel(condition=condition)
        check_reported(here, [one], ("correct", "log_prob", "margin"))
        for edit, masks in one.edits:
            prompts = [(item["id"], code) for item in task.items for code in task.languages]
            own = edit.neurons.masks_of(prompts)
            np.testing.assert_array_equal(masks[:, 0], own)
            for arm in (1, 2):
                assert not (masks[:, arm] & own).any()
                np.testing.assert_array_equal(masks[:, arm].sum(-1), own.sum(-1))
        union = np.logical_or.reduce([masks for _, masks in one.edits])
        counts = union[:, 0].sum((1, 2)).reshape(3, 2)
        np.testing.assert_array_equal(here["n_neurons"], counts)
        for row, arm in np.ndindex(union.shape[:2]):
            item, code = prompt_at(task, row)
            contribution = contributions(model, item["prompts"][code])
            expected = contribution[union[row, arm]].sum() / contribution.sum()
            share = here["share"].sel(item=item["id"], language=code).isel(arm=arm)
            assert float(share) == pytest.approx(expected, rel=1e-4)


def test_a_control_of_your_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model, task = tiny_model("llama"), small_task(6)
    recording = ng.record(model, task)
    asked: list[OfPrompt] = []

    def first_others(of: OfPrompt, rng: np.random.Generator) -> np.ndarray | None:
        """The first others of each layer; none in every fifth prompt."""
        asked.append(of)
        assert isinstance(rng, np.random.Generator)
        if len(asked) % 5 == 0:
            return None
        found = np.zeros_like(of.edited)
        for layer, n in enumerate(of.edited.sum(axis=1)):
            found[layer, np.flatnonzero(~of.whole[layer])[:n]] = True
        return found

    seen = spied(monkeypatch)
    tenth = ng.NeuronSet.from_category(recording, "non_activated").strongest(0.1)
    found = ng.intervene(
        model, task, {"tenth": ng.Zero(tenth)}, recording=recording,
        controls=ng.Controls(kinds=["size", first_others], draws=1),
    )  # fmt: skip
    assert found["arm"].values.tolist() == ["edit", "size 0", "first_others 0"]
    assert found["against"].values.tolist() == ["no_edit", "size", "first_others"]
    assert found.attrs["controls"] == "size,first_others"
    (one,) = seen
    masks = one.edits[0][1]
    codes = longhand_categories(model, task, "gate")
    none = codes == CODES["non_activated"]
    for row, of in enumerate(asked):
        item, code = prompt_at(task, row)
        text = item["prompts"][code]
        np.testing.assert_array_equal(of.whole, none[row // 3])
        assert not (of.edited & ~of.whole).any()
        np.testing.assert_array_equal(
            of.edited.sum(axis=1), np.ceil(0.1 * none[row // 3].sum(axis=1) - 1e-9)
        )
        active = longhand_values(model, text, "gate")[:, -1] > 0
        np.testing.assert_array_equal(of.active, active)
        np.testing.assert_allclose(of.contribution, contributions(model, text), rtol=1e-3)
        here = found["correct"].sel(item=item["id"], language=code, condition="tenth")
        assert bool(here.sel(arm="first_others 0").isnull()) == (row % 5 == 4)
        if row % 5 != 4:
            for layer, n in enumerate(of.edited.sum(axis=1)):
                others = np.flatnonzero(~of.whole[layer])[:n].tolist()
                assert np.flatnonzero(masks[row, 2, layer]).tolist() == others
    assert len(asked) == len(one.there) == 18
    assert not one.there[4::5, 2].any()
    reason = str(found["reason"].sel(against="first_others", condition="tenth").values)
    assert reason.startswith("the pool was too small for 3 of 18 prompts")
    check_choices(model, one)


def with_subjects(n_items: int) -> ng.ParallelTask:
    records = [
        {**item, "subject": f"s{i // 2}"} for i, item in enumerate(small_task(n_items).items)
    ]
    return ng.ParallelTask.from_records(records, name="subjects")


def test_where_a_pool_is_too_small_there_is_no_value_but_a_reason() -> None:
    model, task = tiny_model("llama"), with_subjects(24)
    recording = ng.record(model, task)
    shared = ng.NeuronSet.from_category(recording, "all_shared")
    union = shared | ng.NeuronSet.from_category(recording, "partial_shared")
    found = ng.intervene(
        model, task, {"shared": ng.Zero(union)}, recording=recording,
        controls=ng.Controls(draws=1),
    ).isel(condition=0)  # fmt: skip
    codes = longhand_categories(model, task, "gate")
    n_too_small = 0
    for i, item in enumerate(task.items):
        members = codes[i] >= CODES["partial_shared"]
        for language in task.languages:
            active = longhand_values(model, item["prompts"][language], "gate")[:, -1] > 0
            too_small = ((active & ~members).sum(axis=1) < members.sum(axis=1)).any()
            here = found.sel(arm="active 0", item=item["id"], language=language)
            for name in ("correct", "margin", "log_prob", "share"):
                assert bool(here[name].isnull()) == too_small
            n_too_small += too_small
    assert n_too_small > 60
    reason = str(found["reason"].sel(against="active").values)
    assert reason.startswith(f"the pool was too small for {n_too_small} of 72 prompts")
    assert reason.endswith("fewer than ten subjects are left")
    assert str(found["reason"].sel(against="no_edit").values) == ""
    assert np.isnan(float(found["difference"].sel(against="active")))
    assert int(found["n_prompts"].sel(against="active")) == 72 - n_too_small


ANSWERS = ("correct", "margin", "log_prob", "share", "n_neurons")


def test_results_do_not_depend_on_batches_blocks_or_other_conditions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, task = tiny_model("llama"), small_task(7)
    recording = ng.record(model, task)
    two = ng.Controls(draws=2)
    given = off(recording, "all_shared", "partial_shared", "specific", "non_activated")
    given["strongest"] = ng.Zero(given["all_shared"].neurons.strongest(0.5))
    whole = ng.intervene(model, task, given, recording=recording, controls=two)
    seen = spied(monkeypatch)
    monkeypatch.setattr(MODULE, "ITEMS_AT_ONCE", 2)
    some = {name: given[name] for name in ("specific", "strongest", "all_shared")}
    apart = ng.intervene(
        model.with_batch_size(3), task, some, recording=recording, controls=two,
    )  # fmt: skip
    assert [len(one.task) for one in seen] == [2, 2, 2, 1] * 3
    for name in ANSWERS:
        xr.testing.assert_allclose(
            apart[name].drop_attrs(),
            whole[name].sel(condition=apart["condition"]).drop_attrs(),
            atol=1e-4,
        )
    other = ng.intervene(model, task, some, recording=recording, controls=ng.Controls(seed=1))
    one, another = (by_control(found["share"]).mean("draw") for found in (apart, other))
    assert not np.allclose(one, another, equal_nan=True)


@pytest.mark.parametrize("kind", ["chosen", "written"])
def test_in_memory_and_in_a_folder_a_result_is_the_same(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with texts of other lengths in other blocks."""
    model, task = tiny_model("llama"), masked_task(7)
    if kind == "written":
        task = to_be_written(task)
    recording = ng.record(model, task)
    given: dict[str, Any] = {
        **off(recording, "specific"),
        "both": [ng.Scale(random_set(model), 2), ng.Zero(random_set(model, 1), position="all")],
    }
    known: dict[str, Any] = {
        "recording": recording,
        "controls": ng.Controls(draws=2),
        "answering": ng.Answering(max_new_tokens=3, masked=kind == "chosen"),
        "coordinates": {"dose": [0.5, 1.0], "where": ["here", "elsewhere"]},
    }
    monkeypatch.setattr(MODULE, "ITEMS_AT_ONCE", 2)
    in_memory = ng.intervene(model, task, given, **known)
    in_folder = ng.intervene(model, task, given, **known, out=tmp_path / "out")
    xr.testing.assert_identical(in_folder, in_memory)
    xr.testing.assert_identical(ng.load(tmp_path / "out" / "outcome"), in_folder)
    assert ("text" if kind == "written" else "masked_margin") in in_memory
    again = ng.intervene(model, task, given, **known, out=tmp_path / "out")
    xr.testing.assert_identical(again, in_folder)


def test_results_are_kept_and_finished_conditions_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task, out = tiny_model("llama"), small_task(5), tmp_path / "out"
    recording = ng.record(model, task)
    given = off(recording, "all_shared", "specific")
    one = {"all_shared": given["all_shared"]}
    known: dict[str, Any] = {"recording": recording, "controls": ng.Controls(draws=2), "out": out}
    first = ng.intervene(model, task, one, **known)
    xr.testing.assert_identical(ng.load(out / "outcome"), first)
    seen = spied(monkeypatch)
    again = ng.intervene(model, task, one, **known)
    assert not seen
    xr.testing.assert_identical(again, first)
    more = ng.intervene(model, task, given, **known)
    assert len(seen) == 1
    for name in ANSWERS:
        np.testing.assert_array_equal(more[name][0], first[name][0])
    changes: list[dict[str, Any]] = [
        {"controls": ng.Controls(draws=3)},
        {"controls": ng.Controls(draws=2, seed=1)},
        {"controls": ng.Controls(["size"], draws=2)},
        {"position": "all"},
        {"recording": None, "controls": ng.Controls(["size"], draws=2)},
    ]
    for change in changes:
        with pytest.raises(ng.NeuroglotError, match="overwrite"):
            ng.intervene(model, task, one, **known | change)
    neurons = given["all_shared"].neurons
    others: list[Any] = [
        ng.Scale(neurons, 2), ng.Zero(neurons, position="all"), ng.Zero(~neurons),
        [ng.Zero(neurons), ng.Zero(neurons)], given["specific"],
    ]  # fmt: skip
    for other in others:
        with pytest.raises(ng.NeuroglotError, match="overwrite"):
            ng.intervene(model, task, {"all_shared": other}, **known)
    xr.testing.assert_identical(ng.intervene(model, task, given, **known), more)
    ng.intervene(model, task, one, **known | {"controls": ng.Controls(draws=3)}, overwrite=True)


def test_an_unfinished_condition_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = tiny_model("llama"), small_task(7)
    recording = ng.record(model, task)
    monkeypatch.setattr(MODULE, "ITEMS_AT_ONCE", 2)
    given = off(recording, "all_shared", "specific")
    known: dict[str, Any] = {"recording": recording, "controls": ng.Controls(draws=2)}
    undisturbed = ng.intervene(model, task, given, **known, out=tmp_path / "u")
    seen = spied(monkeypatch)
    real = MODULE.answers_under

    def stops(*given: Any) -> Any:
        if len(seen) in (2, 5):
            seen.append(seen[-1])
            raise RuntimeError("stopped")
        return real(*given)

    monkeypatch.setattr(MODULE, "answers_under", stops)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="stopped"):
            ng.intervene(model, task, given, **known, out=tmp_path / "r")
    found = ng.intervene(model, task, given, **known, out=tmp_path / "r")
    assert len(seen) == 8 + 2, "no block but the two that stopped was answered twice"
    xr.testing.assert_identical(found, undisturbed)


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_an_edit_that_changes_nothing_changes_no_answer(name: str) -> None:
    """Conditions run in other steps than a plain evaluation, and answer the same."""
    model, task = random_model(name), small_task(8)
    recording = ng.record(model, task)
    same = ng.Scale(ng.NeuronSet.from_category(recording, "all_shared"), 1.0)
    found = ng.intervene(
        model, task, {"as it is": same}, recording=recording,
        controls=ng.Controls(["size"], draws=3),
    ).isel(condition=0)  # fmt: skip
    own = found.sel(arm=OWN)
    np.testing.assert_array_equal(own["correct"], found["correct_no_edit"])
    for kind in ("margin", "log_prob"):
        np.testing.assert_allclose(own[kind], found[f"{kind}_no_edit"], atol=1e-4)
    controls = found["correct"].isel(arm=slice(1, None))
    there = controls.notnull()
    expected = found["correct_no_edit"].broadcast_like(controls)
    assert bool(there.any())
    assert bool((controls == expected).where(there, other=True).all())


def test_written_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    plain = [{**item, "choices": {}} for item in small_task(4).items]
    texts = ng.evaluate(
        model,
        ng.ParallelTask.from_records(plain, name="w"),
        answering=ng.Answering(max_new_tokens=2),
    )["text"].values
    records = [
        {**item, "answers": dict(zip(item["prompts"], [x or "-" for x in texts[i]], strict=True))}
        for i, item in enumerate(plain)
    ]
    task = ng.ParallelTask.from_records(records, name="w")
    recording = ng.record(model, task)
    given = off(recording, "all_shared")
    found = ng.intervene(
        model, task, given, recording=recording, controls=ng.Controls(draws=1),
        answering=ng.Answering(max_new_tokens=2),
    )  # fmt: skip
    np.testing.assert_array_equal(found["correct_no_edit"], texts != "")
    np.testing.assert_array_equal(found["text_no_edit"], texts)
    with ng.edit(model, given["all_shared"]):
        expected = ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=2))
    own = found.sel(condition="all_shared", arm=OWN)
    for name in ("correct", "text"):
        np.testing.assert_array_equal(own[name], expected[name])
    assert not bool(expected["correct"].all())
    assert "margin" not in found


@pytest.mark.parametrize("positions", ["answer", "last", "all"])
def test_what_is_written_and_the_likeliest_right_answer_longhand(
    positions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = random_model("llama"), to_be_written(longer(small_task(4, "en de")))
    each = sets_for(model, task, share=0.4)

    def halves_only(of: OfPrompt, rng: np.random.Generator) -> np.ndarray | None:
        """Others, where the first layer has as many."""
        others = ~of.whole
        return None if of.edited[0].sum() > others[0].sum() - 9 else others

    seen = spied(monkeypatch)
    found = ng.intervene(
        model, task, {"off": ng.Zero(each)},
        controls=ng.Controls([halves_only], draws=1),
        position=positions, answering=ng.Answering(max_new_tokens=3),
    )  # fmt: skip
    (one,) = seen
    assert one.there[:, 0].all()
    assert 0 < one.there[:, 1].sum() < len(one.there)
    check_reported(found.isel(condition=0), [one], ("correct", "log_prob", "text"))
    best: set[int] = set()
    for row, arm in np.ndindex(one.there.shape):
        item, code = prompt_at(task, row)
        here = found.isel(condition=0, arm=arm).sel(item=item["id"], language=code)
        if not one.there[row, arm]:
            assert str(here["text"].values) == ""
            assert np.isnan(here["log_prob"])
            assert np.isnan(here["correct"])
            continue
        prompt, mask = item["prompts"][code], one.edits[0][1][row, arm]
        text = written(model, prompt, 3, zeroed(mask), positions)
        assert str(here["text"].values) == text
        right = [item["answers"][code], *item["aliases"][code]]
        scores = [log_prob_under(model, prompt, x, [(zeroed(mask), positions)]) for x in right]
        best.add(int(np.argmax(scores)))
        assert float(here["log_prob"]) == pytest.approx(max(scores), abs=1e-3)
    assert len(best) == 3, "not always the first of the right ones"
    for item, code in (prompt_at(task, row) for row in range(len(one.there))):
        right = [item["answers"][code], *item["aliases"][code]]
        plain = [(lambda _, old: old, positions)]
        likeliest = max(log_prob_under(model, item["prompts"][code], x, plain) for x in right)
        unedited = found["log_prob_no_edit"].sel(item=item["id"], language=code)
        assert float(unedited) == pytest.approx(likeliest, abs=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("positions", ["answer", "last", "all"])
def test_margins_with_the_subject_masked_longhand(
    name: str, positions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A masked prompt has the neurons edited that its item's own prompt has."""
    model, some = random_model(name), [dict(item) for item in masked_task(5).items]
    del some[1]["masked"]
    task = ng.ParallelTask.from_records(some, name="part")
    seen = spied(monkeypatch)
    fixed = ng.Scale(random_set(model), 2, position="last")
    given = [ng.Zero(sets_for(model, task, share=0.1)), fixed]
    how = ng.Answering(masked=True)
    found = ng.intervene(
        model,
        task,
        {"both": given},
        controls=ng.Controls(["size"], draws=2),
        position=positions,
        answering=how,
    )
    (one,) = seen
    check_choices(model, one, positions)
    check_reported(found.isel(condition=0), [one], ("margin", "masked_margin"))
    for row, arm in np.ndindex(one.there.shape):
        item, code = prompt_at(task, row)
        margin = float(one.found["masked_margin"][row, arm])
        if "masked" not in item:
            assert np.isnan(margin)
            continue
        done = done_in(one, row, arm, positions)
        scores = scores_after(model, item, code, item["masked"][code], done)
        assert margin == pytest.approx(scores[0] - scores[1:].max(), abs=1e-3)
    plain = ng.evaluate(model, task)
    np.testing.assert_array_equal(found["masked_margin_no_edit"], plain["masked_margin"])
    assert found.attrs["masked"] == 1
    left_out = ng.intervene(model, task, {"both": given}, controls=NONE)
    assert not {"masked_margin", "masked_margin_no_edit"} & set(left_out)


def test_neurons_chosen_by_answers_are_not_measured_by_them() -> None:
    model, task = tiny_model("llama"), with_subjects(12)
    recording = ng.record(model, task)
    development, test = ng.halves(task)
    ids = [item["id"] for item in development.items]
    scores = np.random.default_rng(0).random(shape_of(model))
    chosen = ng.NeuronSet.top(scores, 20, chosen_on=ids)
    free = ng.NeuronSet.from_category(recording, "specific")
    derived = {
        "alone": chosen,
        "or": chosen | free,
        "or the other way": free | chosen,
        "and": chosen & free,
        "and the other way": free & chosen,
        "but not": chosen - free,
        "not but": free - chosen,
        "others": ~chosen,
        "layers": chosen.layers(0, 2),
        "strongest": chosen.strongest(0.5),
        "ranked": chosen.strongest(0.5, by=scores),
        "ranked by answers": free.strongest(0.5, by=scores, chosen_on=ids),
        "one random": chosen.sample_like(0),
        "all of it": (~(chosen | free)).layers(0).strongest(0.5) - random_set(model),
        "one item": ng.NeuronSet(chosen.mask, "one item", chosen_on=ids[:1]),
    }
    for name, neurons in derived.items():
        for asked in (task, development):
            with pytest.raises(ng.NeuroglotError) as error:
                ng.intervene(model, asked, {"free": ng.Zero(free), name: ng.Zero(neurons)})
            assert f"the neurons of {name!r} were chosen by the answers" in str(error.value)
            assert "neuroglot.halves" in str(error.value)
            assert "\n" not in str(error.value)
    with pytest.raises(ng.NeuroglotError, match=r"of 'both' .* of 6 of the items"):
        ng.intervene(model, task, {"both": [ng.Zero(free), ng.Scale(chosen, 2)]})
    conditions = {name: ng.Zero(neurons) for name, neurons in derived.items()}
    found = ng.intervene(model, test, conditions, controls=NONE)
    assert found["item"].values.tolist() == [item["id"] for item in test.items]
    assert found.attrs["chosen_on"] == len(ids)
    # What is asked is what was recorded, be it a part of the task.
    part = recording.select(items=[item["id"] for item in test.items])
    again = ng.intervene(model, task, conditions, recording=part, controls=NONE)
    np.testing.assert_allclose(again["margin"], found["margin"], atol=1e-4)
    with pytest.raises(ng.NeuroglotError, match=r"neuroglot\.halves"):
        ng.intervene(model, task, conditions, recording=recording, controls=NONE)
    free_of = ng.intervene(model, task, {"free": ng.Zero(free)}, controls=NONE)
    assert free_of.attrs["chosen_on"] == 0


def test_a_pool_that_was_chosen_by_answers_is_remembered() -> None:
    model, task = tiny_model("llama"), small_task(4)
    pool = ng.NeuronSet(~random_set(model).mask, "pool", chosen_on=["item1"])
    drawn = random_set(model, 1, 0.1).sample_like(0, pool)
    with pytest.raises(ng.NeuroglotError, match=r"neuroglot\.halves"):
        ng.intervene(model, task, {"drawn": ng.Zero(drawn)}, controls=NONE)


def test_without_a_recording(tmp_path: Path) -> None:
    """Controls of any neurons need none, and are the same as with one."""
    model, task = tiny_model("llama"), small_task(5)
    recording = ng.record(model, task)
    given = {"fixed": ng.Zero(random_set(model)), "each": ng.Zero(sets_for(model, task))}
    given |= off(recording, "all_shared")
    size = ng.Controls(["size"], draws=2)
    found = ng.intervene(model, task, given, controls=size, out=tmp_path / "out")
    expected = ng.intervene(model, task, given, recording=recording, controls=size)
    for name in (*ANSWERS, "difference", "correct_no_edit"):
        np.testing.assert_array_equal(found[name], expected[name])
    for name in ("task_checksum", "prompts_checksum", "model_weights"):
        assert found.attrs[name] == recording.attrs[name]
    xr.testing.assert_identical(ng.load(tmp_path / "out" / "outcome"), found)
    for kind in ("active", "contribution"):
        with pytest.raises(ng.NeuroglotError, match="controls of active neurons need recording="):
            ng.intervene(model, task, given, controls=ng.Controls([kind]))
    with pytest.raises(ng.NeuroglotError, match="need recording="):
        ng.intervene(model, task, given)


def test_a_part_of_a_part_in_other_languages_is_answered(tmp_path: Path) -> None:
    """The guesser's counts are of the whole task, and are looked up by language."""
    model, task = tiny_model("llama"), small_task(16, "en de th")
    some = task.first(12)
    recording = ng.record(model, some).select(languages=["th", "en"])
    given = off(recording, "specific")
    ng.intervene(model, some, given, recording=recording, controls=NONE, out=tmp_path / "off")
    found = ng.load(tmp_path / "off" / "answers")
    assert isinstance(found, xr.Dataset)
    expected = majority(task)[:12, [2, 0]]
    np.testing.assert_array_equal(found["majority"], expected)


def test_bad_input_is_refused() -> None:
    model, task = tiny_model("llama"), small_task(3)
    recording = ng.record(model, task)
    neurons = random_set(model)
    zero = ng.Zero(neurons)
    cases: list[tuple[Any, str]] = [
        ({}, "expected edits by name"),
        (zero, "expected edits by name"),
        ([zero], "expected edits by name"),
        (None, "expected edits by name"),
        ({"A b": zero, "a b": zero}, "conditions A b, a b: expected names that differ more"),
        ({"a, b": zero, "a-b": zero}, "expected names that differ more"),
        ({"none": []}, "condition 'none' has no edit"),
        ({"set": neurons}, "NeuronSet is not an edit; there are Zero, Scale"),
        ({"text": "zero"}, "str is not an edit"),
        ({"both": [zero, None]}, "NoneType is not an edit"),
        ({"mask": ng.Zero(neurons.mask)}, "an edit needs a NeuronSet, found ndarray"),  # type: ignore[arg-type]
        ({"small": ng.Zero(ng.NeuronSet(np.ones((2, 5), bool)))}, "2 layers of 5 ffn neurons"),
        ({"first": ng.Zero(neurons, position="first")}, "unknown position"),  # type: ignore[arg-type]
    ]
    for conditions, message in cases:
        with pytest.raises(ng.NeuroglotError, match=message):
            ng.intervene(model, task, conditions, recording=recording)
    others: list[tuple[dict[str, Any], str]] = [
        ({"coordinates": {"dose": [1.0, 2.0]}}, "'dose': expected one value for each of the 1"),
        ({"coordinates": {"dose": []}}, "expected one value for each"),
        ({"coordinates": {"where": "x"}}, "expected one value for each"),
        ({"controls": ng.Controls(threshold=0.3)}, r"threshold 0\.3 was not recorded"),
        ({"recording": "recording"}, "recording is a str"),
        ({"equivalent_within": 0}, "equivalent_within"),
    ]
    for settings, message in others:
        with pytest.raises(ng.NeuroglotError, match=message):
            ng.intervene(model, task, {"off": zero}, **{"recording": recording} | settings)
    with pytest.raises(ng.NeuroglotError, match="task_checksum"):
        ng.intervene(model, small_task(3, seed=5), {"off": zero}, recording=recording)
    with pytest.raises(ng.NeuroglotError, match="no set for the prompt"):
        ng.intervene(model, task, {"few": ng.Zero(sets_for(model, task.first(2)))}, controls=NONE)
    with (
        pytest.warns(UserWarning, match="nothing was edited"),
        ng.edit(model, zero),
        pytest.raises(ng.NeuroglotError, match="being edited"),
    ):
        ng.intervene(model, task, {"off": zero}, recording=recording)


def test_bad_settings_are_refused() -> None:
    def size(of: OfPrompt, rng: np.random.Generator) -> np.ndarray | None:
        return of.edited

    controls: list[tuple[dict[str, Any], str]] = [
        ({"kinds": None}, "expected a list of names"),
        ({"kinds": "size"}, "expected a list of names"),
        ({"kinds": ["random"]}, "controls=random"),
        ({"kinds": ["size", "size"]}, "expected different ones"),
        ({"kinds": ["size", size]}, "functions that have names, other than"),
        ({"kinds": [3]}, "controls=3"),
        ({"draws": 0}, "draws=0"),
        ({"draws": True}, "draws=True"),
        ({"seed": -1}, "seed=-1"),
    ]
    for settings, message in controls:
        with pytest.raises(ng.NeuroglotError, match=message):
            ng.Controls(**settings)
    answering: list[tuple[dict[str, Any], str]] = [
        ({"choice_score": "max"}, "unknown choice_score"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ]
    for settings, message in answering:
        with pytest.raises(ng.NeuroglotError, match=message):
            ng.Answering(**settings)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom", "gemma2"])
def test_first_layers_run_once_where_no_arm_edits_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as every arm by itself, with arms that some prompts do not have."""
    model, task = random_model(name), longer(masked_task(6))
    recording = ng.record(model, task)
    source = ng.record(model, task, reading=ng.Reading(site="coefficient", keep_values=True))
    shared = ng.NeuronSet.from_category(recording, "all_shared").layers(1, 2)
    active = ng.NeuronSet.active(recording).layers(2)
    conditions = {
        "off": ng.Zero(shared),
        "two": [ng.Scale(shared, 2), ng.Zero(active, position="last")],
        "patched": ng.Patch(active, source, "task"),
    }
    found = {}
    for worth in (0.0, np.inf):
        monkeypatch.setattr(answering_module, "WORTH", worth)
        calls: list[object] = []
        real = answering_module.log_probs_of_arms
        with monkeypatch.context() as patch:
            patch.setattr(
                answering_module,
                "log_probs_of_arms",
                lambda *given: (calls.append(given), real(*given))[1],  # noqa: B023
            )
            found[worth] = ng.intervene(
                model, task, conditions, recording=recording,
                controls=ng.Controls(draws=2), answering=ng.Answering(masked=True),
            )  # fmt: skip
        assert bool(calls) == (worth > 0)
    for measure in ("correct", "margin", "masked_margin", "log_prob"):
        np.testing.assert_allclose(found[0.0][measure], found[np.inf][measure], atol=1e-3)
    assert found[0.0]["margin"].isnull().any(), "some prompts lack some arms"


def test_a_model_that_looks_back_in_a_way_of_its_own_runs_each_arm_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where running together gives something else, it is not believed."""
    model, task = random_model("llama"), longer(masked_task(3))
    recording = ng.record(model, task)
    conditions = {"off": ng.Zero(ng.NeuronSet.active(recording).layers(2))}
    given: dict[str, Any] = {"recording": recording, "controls": ng.Controls(("size",), draws=2)}
    expected = ng.intervene(model, task, conditions, **given)
    real = answering_module.log_probs_of_arms
    monkeypatch.setattr(answering_module, "WORTH", np.inf)
    monkeypatch.setattr(
        answering_module,
        "log_probs_of_arms",
        lambda *rest: ((rows, values + 0.01) for rows, values in real(*rest)),
    )
    found = ng.intervene(model, task, conditions, **given)
    np.testing.assert_allclose(found["log_prob"], expected["log_prob"], atol=1e-4)


@pytest.mark.parametrize("at_once", [1, 32])
def test_blocks_of_items_without_masked_prompts_or_without_any_arm(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block holds the same variables, whatever its items have."""
    monkeypatch.setattr(MODULE, "ITEMS_AT_ONCE", at_once)
    records = [
        {**item, "relation": relation}
        for item, relation in zip(masked_task(4).items, "aaab", strict=True)
    ]
    for field in ("masked", "joins"):
        records[1].pop(field)
    model, task = tiny_model("llama"), ng.ParallelTask.from_records(records, name="mixed")
    source = ng.record(model, task, reading=ng.Reading(site="coefficient", keep_values=True))
    neurons = ng.NeuronSet(np.ones((model.n_layers, model.n_neurons), bool))
    found = ng.intervene(
        model, task, {"patched": ng.Patch(neurons, source, "relation", task)},
        controls=ng.Controls(()), answering=ng.Answering(masked=True), out=tmp_path / "r",
    )  # fmt: skip
    alone = {item["id"]: item["relation"] == "b" for item in task.items}
    missing = found["correct"].isel(condition=0, arm=0, language=0).isnull()
    assert dict(zip(found["item"].values.tolist(), missing.values.tolist(), strict=True)) == alone
    lacks = found["masked_margin"].isel(condition=0, arm=0).isnull().all("language").values
    assert lacks.tolist() == [False, True, False, True]
    written = to_be_written(task)
    texts = ng.intervene(
        model, written, {"patched": ng.Patch(neurons, source, "relation", written)},
        controls=ng.Controls(()), answering=ng.Answering(max_new_tokens=2), out=tmp_path / "w",
    )  # fmt: skip
    assert (texts["text"].isel(condition=0, arm=0, item=3) == "").all()
    assert texts["log_prob"].isel(condition=0, arm=0, item=3).isnull().all()
    assert texts["log_prob"].isel(condition=0, arm=0, item=0).notnull().all()
