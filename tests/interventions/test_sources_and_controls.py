"""What a fresh reviewer found: sources of the same names, sets that look alike, several edits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuroglot as ng
from neuroglot.answering.differences import difference
from neuroglot.interventions.conditions import Condition
from neuroglot.interventions.contents import Draw
from neuroglot.interventions.controls import OfPrompt
from neuroglot.interventions.effects import by_control
from neuroglot.neurons.members import Prompts
from tests.attribution.models import random_model
from tests.testing import small_task

Mask = np.ndarray[Any, np.dtype[np.bool_]]
MODEL = random_model("llama")


def related(n_items: int = 6, seed: int = 0) -> ng.ParallelTask:
    records = [
        {**item, "relation": "odd" if i % 2 else "even"}
        for i, item in enumerate(small_task(n_items, "en de", seed=seed).items)
    ]
    return ng.ParallelTask.from_records(records, name=f"task {seed}")


TASK, OTHER = related(), related(seed=1)


def recorded(task: ng.ParallelTask, **how: Any) -> ng.Recording:
    reading = ng.Reading(site="coefficient", keep_values=True, **how)
    return ng.record(MODEL, task, reading=reading)


def some(rng_seed: int = 0, share: float = 0.4) -> ng.NeuronSet:
    rng = np.random.default_rng(rng_seed)
    return ng.NeuronSet(rng.random((MODEL.n_layers, MODEL.n_neurons)) < share)


def log_prob(edits: Any, task: ng.ParallelTask = TASK, **how: Any) -> np.ndarray[Any, Any]:
    with ng.edit(MODEL, edits, **how):
        return ng.evaluate(MODEL, task, answering=ng.Answering(masked=False))["log_prob"].values


@pytest.mark.parametrize("of", ["en", "prompt"])
def test_a_source_of_other_words_under_the_same_names(of: str) -> None:
    """It is patched in, as if its items had other names; the same words change nothing."""
    assert [item["id"] for item in TASK.items] == [item["id"] for item in OTHER.items]
    which: Any = "en" if of == "en" else (TASK.items[2]["id"], "en")
    renamed = ng.ParallelTask.from_records(
        [{**item, "id": f"other {item['id']}"} for item in OTHER.items], name="renamed"
    )
    neurons, source, plain = some(), recorded(OTHER), log_prob(ng.Scale(some(), 1))
    found = log_prob(ng.Patch(neurons, source, which))
    elsewhere = recorded(renamed)
    for i, item in enumerate(TASK.items):
        if of == "en":
            there: Any = (f"other {item['id']}", "en")
        else:
            there = (f"other {which[0]}", "en")
        expected = log_prob(ng.Patch(neurons, elsewhere, there), TASK.part([item]))
        np.testing.assert_allclose(found[i], expected[0], atol=2e-4)
    assert (abs(found - plain).max(axis=2) > 1e-3).all()
    same = log_prob(ng.Patch(neurons, recorded(TASK), which))
    own = (slice(None), 0) if of == "en" else (2, 0)
    np.testing.assert_array_equal(same[own], plain[own])


def test_means_of_other_words_under_the_same_names() -> None:
    records = [{**item, "relation": item["id"]} for item in OTHER.items]
    alone = ng.ParallelTask.from_records(records, name="alone")
    found = log_prob(ng.MeanAblate(some(), recorded(OTHER), "both", alone), position="last")
    each = [[(item["id"], code) for code in TASK.languages] for item in TASK.items]
    for i, row in enumerate(each):
        for j, prompt in enumerate(row):
            expected = log_prob(ng.Patch(some(), recorded(OTHER), prompt))
            np.testing.assert_allclose(found[i, j], expected[i, j], atol=2e-4)


def test_what_was_switched_off_before_is_patched_back() -> None:
    edits = [ng.Zero(some(), position="last"), ng.Patch(some(), recorded(TASK), "en")]
    plain = log_prob(ng.Scale(some(), 1))
    np.testing.assert_allclose(log_prob(edits)[:, 0], plain[:, 0], atol=2e-4)
    zeroed = log_prob(edits[0])
    assert abs(zeroed[:, 0] - plain[:, 0]).max() > 1e-2


def test_masked_prompts_are_not_their_own_source() -> None:
    records = [
        {**item, "masked": {code: f"{text} ." for code, text in item["prompts"].items()}}
        for item in TASK.items
    ]
    task = ng.ParallelTask.from_records(records, name="with masked ones")
    how = ng.Answering(masked=True)
    patch = ng.Patch(some(), recorded(task), "en")
    found = ng.intervene(
        MODEL, task, {"patched": patch}, controls=ng.Controls(()), answering=how
    ).isel(condition=0, arm=0)
    changed = abs(found["masked_margin"] - found["masked_margin_no_edit"])
    assert bool((changed.sel(language="en") > 1e-4).any())
    np.testing.assert_allclose(
        found["margin"].sel(language="en"), found["margin_no_edit"].sel(language="en"), atol=1e-5
    )


def test_sets_that_differ_have_other_checksums_and_names() -> None:
    base = ng.NeuronSet.active(ng.record(MODEL, TASK))
    alike = [
        (~base).layers(0), ~base.layers(0), ~((~base).layers(0)), base.layers(0),
        (~base).strongest(0.5, by=np.ones((MODEL.n_layers, MODEL.n_neurons))),
        ~base.strongest(0.5, by=np.ones((MODEL.n_layers, MODEL.n_neurons))),
        base, ~base,
    ]  # fmt: skip
    prompts = [(item["id"], "en") for item in TASK.items]
    for i, one in enumerate(alike):
        for other in alike[:i]:
            assert not np.array_equal(one.masks_of(prompts), other.masks_of(prompts))
            assert one.checksum != other.checksum
            assert one.name != other.name
            assert one != other
    assert ~~base == base
    assert (~~base).name == base.name


def test_a_folder_of_another_source_is_not_gone_on_with(tmp_path: Path) -> None:
    source = recorded(TASK)
    others = [
        source.select(items=4),
        recorded(OTHER),
    ]
    first = {"x": ng.Patch(some(), source, "task")}
    ng.intervene(MODEL, TASK, first, controls=ng.Controls(()), out=tmp_path / "r")
    for other in others:
        given = {"x": ng.Patch(some(), other, "task")}
        with pytest.raises(ng.NeuroglotError, match="other settings"):
            ng.intervene(MODEL, TASK, given, controls=ng.Controls(()), out=tmp_path / "r")


def test_sources_that_will_not_do() -> None:
    neurons, task = some(), related()
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: ng.Patch(neurons, recorded(TASK, layers=[1]), "en"), "layers 1, expected"),
        (lambda: ng.Patch(neurons, recorded(TASK, position="all"), "en"), "position='last'"),
        (lambda: ng.MeanAblate(neurons, recorded(TASK, position="all")), "position='last'"),
        (lambda: ng.MeanAblate(neurons, recorded(TASK.part(TASK.items[::2])), "relation", task),
         "no prompt of 'odd'"),
    ]  # fmt: skip
    for make, said in cases:
        with pytest.raises(ng.NeuroglotError, match=said):
            log_prob(make())


def test_no_draw_is_of_the_same_subject() -> None:
    records = [{**item, "subject": f"s{i // 2}"} for i, item in enumerate(TASK.items)]
    task = ng.ParallelTask.from_records(records, name="pairs")
    source = recorded(task)
    subject = {item["id"]: item["subject"] for item in task.items}
    for draw in range(30):
        for item in task.items:
            there = Draw(source, "task", task, 0, 40).source_of((item["id"], "en"), draw)
            assert subject[there[0]] != item["subject"]


def masks_of(condition: Condition) -> list[list[Mask]]:
    """The neurons of each edit in each arm, in the first prompt."""
    contribution = np.random.default_rng(0).random((1, MODEL.n_layers, MODEL.n_neurons))
    prompts = Prompts([(TASK.items[0]["id"], "en")], contribution)
    return [[one.edited[0, arm] for arm in range(len(condition.arms))]
            for one in condition.drawn(prompts, None)]  # fmt: skip


def test_controls_of_several_edits_have_in_common_what_the_edits_have() -> None:
    a, b = some(1, 0.15), some(2, 0.15)
    controls = ng.Controls(["size"], draws=6)
    for edits in (
        (ng.Scale(a, 2), ng.Add(a, 1)),
        (ng.Zero(a), ng.Scale(b, 2)),
        (ng.Zero(a - b), ng.Scale(b - a, 2)),
        (ng.Zero(~a), ng.Scale(a, 2)),
    ):
        one, other = masks_of(Condition("x", edits, controls))
        for arm in range(1, 7):
            for pair in ((one, other), (~np.array(one), other), (one, ~np.array(other))):
                both = [(x & y).sum(axis=1).tolist() for x, y in zip(*pair, strict=True)]
                assert both[arm] == both[0]
        meant = [x.mask for x in (a, b)] if isinstance(edits[1], ng.Scale) else [a.mask]
        union = np.logical_or.reduce(meant)
        if edits[0].neurons.members.kept is None and edits[1].neurons is not a:
            assert not (np.array(other)[1:] & union).any()


def test_parts_keep_their_whole_through_the_algebra() -> None:
    whole, scores = some(3, 0.3), np.random.default_rng(0).random((MODEL.n_layers, MODEL.n_neurons))
    part = whole.strongest(0.25, by=scores)
    every = ng.NeuronSet(np.ones_like(whole.mask))
    for same in (part & every, every & part, part - some(4, 0.01), part | part):
        for arm in masks_of(Condition("x", (ng.Zero(same),), ng.Controls(["size"])))[0][1:]:
            assert arm.any()
            assert not (arm & whole.mask).any()


def test_controls_of_a_user_are_told_apart() -> None:
    def closed_over(value: int) -> Any:
        def other(of: OfPrompt, rng: np.random.Generator) -> Mask | None:
            return of.edited if value and rng.random() < 2 else None

        return other

    def with_a_lambda(of: OfPrompt, _rng: np.random.Generator) -> Mask | None:
        kept = [x + 1 for x in range(2) if x in {0, 1}]
        return next(filter(lambda mask: bool(kept), [of.edited]))

    codes = {ng.Controls([closed_over(value)]).code for value in (0, 1, 2)}
    assert len(codes) == 3
    assert ng.Controls([closed_over(1)]).code == ng.Controls([closed_over(1)]).code
    assert "0x" not in ng.Controls([with_a_lambda]).code
    assert ng.Controls().code == ""


def test_arms_that_are_missing_are_no_other_controls() -> None:
    controls = ng.Controls(["size"], draws=3)
    found = ng.intervene(MODEL, TASK, {"off": ng.Zero(some())}, controls=controls)
    both = found["margin"].assign_coords(
        control=("arm", ["", "one", "one", "two"]), draw=("arm", [0, 0, 1, 0])
    )
    with pytest.raises(ng.NeuroglotError, match="some arms are missing"):
        by_control(both)


@pytest.mark.parametrize(("n_own", "n_other"), [(10, 1), (5, 1), (3, 3), (10, 3), (1, 1)])
def test_draws_of_its_own_find_nothing_in_nothing(n_own: int, n_other: int) -> None:
    """Every arm is the same coin; at most seven of a hundred p-values may be below .05."""
    rng = np.random.default_rng(0)
    n_below = 0
    for _ in range(200):
        values = (rng.random((n_own + n_other, 30)) < 0.95).astype(float)
        n_below += difference(values, np.arange(30), 0.05, 0, n_own).p < 0.05
    assert n_below <= 14


def test_draws_of_its_own_find_what_is_there() -> None:
    rng = np.random.default_rng(0)
    values = (rng.random((8, 60)) < np.array([0.9] * 5 + [0.5] * 3)[:, None]).astype(float)
    found = difference(values, np.arange(60), 0.05, 0, 5)
    assert found.mean == pytest.approx(values[:5].mean() - values[5:].mean())
    assert found.p < 0.001
    assert found.low < found.mean < found.high
    turned = difference(np.concatenate([values[5:], values[:5]]), np.arange(60), 0.05, 0, 3)
    assert turned.mean == pytest.approx(-found.mean)
    assert turned.p < 0.001
