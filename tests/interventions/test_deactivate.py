"""What deactivation reports: planted and null effects, each arm longhand, resumption, errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import neuroglot as ng
from neuroglot.analysis import categories
from neuroglot.experiments.differences import difference as difference_of
from neuroglot.experiments.observations import samples_of
from neuroglot.experiments.statistics import holm
from neuroglot.interventions import arms
from neuroglot.interventions.conditions import CONTROLS, Variant, deciles
from neuroglot.tasks.guessing import majority
from tests import killing
from tests.attribution.models import random_model
from tests.interventions.longhand import edited_log_prob, edited_log_probs, zeroed
from tests.interventions.planted import (
    PLANTED,
    PLANTED_LAYER,
    planted_model,
    planted_task,
)
from tests.testing import longhand_categories, longhand_values, small_task, tiny_model

CODES = {"non_activated": 0, "specific": 1, "partial_shared": 2, "all_shared": 3}


def test_planted_neurons_are_found_and_controls_do_nothing() -> None:
    model, task = planted_model(), planted_task()
    recording = ng.record(model, task)
    for i, item in enumerate(task.items):
        codes = categories(recording).values[i, PLANTED_LAYER, list(PLANTED)]
        assert [code == CODES["all_shared"] for code in codes] == [
            item["answers"]["en"].endswith(str(56 + neuron)) for neuron in PLANTED
        ]
    found = ng.deactivate(model, task, recording, categories=["all_shared"], draws=4)
    assert float(found["correct_no_edit"].mean()) == 1
    assert float(found["correct"].mean()) == 0.25  # chance: one of four
    assert found["correct_control"].notnull().mean() > 0.8
    for control in CONTROLS:
        values = found["correct_control"].sel(control=control)
        assert float(values.mean()) == 1
    # Where some prompts have no control, the rest may be a little easier or harder.
    np.testing.assert_allclose(found["difference"], -0.75, atol=0.05)
    assert (found["difference_high"] < -0.4).all()
    assert (found["p_holm"] < 0.01).all()
    assert 0 < int(found["n_neurons"].min()) <= int(found["n_neurons"].max()) < 160
    for category in ("specific", "non_activated"):
        other = ng.deactivate(model, task, recording, categories=[category], draws=1)
        np.testing.assert_array_equal(other["correct"].sel(condition=category), True)
    kept = ng.deactivate(
        model, task, recording, categories=["all_shared"], draws=2,
        variants=[Variant(keep_only=True)],
    )  # fmt: skip
    assert float(kept["correct"].mean()) == 1
    assert float(kept["correct_control"].sel(control="size").mean()) == 0.25
    assert (kept["difference"].sel(against=list(CONTROLS)) > 0.6).all()


@pytest.fixture(scope="module")
def real_outcome() -> xr.Dataset:
    """Turning all-shared neurons around changes many answers."""
    model = ng.load_model("embedded/base")
    task = ng.load_task("editing_en_xx", limit=40, languages=["en", "de", "th"])
    recording = ng.record(model, task)
    return ng.deactivate(
        model, task, recording, categories=["all_shared", "specific"], draws=2,
        variants=[Variant(factor=-3.0)],
    )  # fmt: skip


def test_a_null_effect_is_significant_as_often_as_it_should(real_outcome: xr.Dataset) -> None:
    """Condition and control, swapped at random within items, 200 times."""
    here = real_outcome.isel(condition=0)
    correct = here["correct"].values.astype(float)
    control = here["correct_control"].sel(control="size").mean("draw").values
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
    found = real_outcome
    counted = found["counted"].values
    for condition in found["condition"].values:
        one = found.sel(condition=condition)
        correct = one["correct"].values.astype(float)
        for against in found["against"].values:
            draws = found["correct_no_edit"].values.astype(float)[None]
            if against != "no_edit":
                draws = one["correct_control"].sel(control=against).transpose("draw", ...).values
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
            moved = correct[:, j] - found["correct_no_edit"].values[:, j]
            p = difference_of(np.stack([moved, 0 * moved]), found["subject"].values, 0.05, 0).p
            assert float(by_language["p_by_language"].sel(against="no_edit")) == pytest.approx(p)
    np.testing.assert_allclose(found["p_holm"], holm(found["p"].values))
    np.testing.assert_allclose(found["p_holm_by_language"], holm(found["p_by_language"].values))


def capture(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray, Any]]:
    """Sets that are answered under, and what came of it: (sets, correct, task), block by block."""
    seen: list[tuple[np.ndarray, np.ndarray, Any]] = []
    real = arms.correct_under

    def spy(model: Any, task: Any, sets: Any, there: Any, how: Any) -> Any:
        correct = real(model, task, sets, there, how)
        seen.append((sets, correct, task))
        return correct

    monkeypatch.setattr(arms, "correct_under", spy)
    return seen


def right_by_hand(model: ng.Model, task: ng.ParallelTask, i: int, code: str, mask: Any) -> bool:
    item = task.items[i]
    scores = [
        edited_log_prob(model, item["prompts"][code], choice, zeroed(mask), "answer")
        for choice in item["choices"][code]
    ]
    return item["choices"][code][int(np.argmax(scores))] == item["answers"][code]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("shared", [True, False])
def test_every_arm_against_one_prompt_at_a_time(
    name: str, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = replace(random_model(name), shares_cache=shared), small_task(3, "en de", seed=2)
    recording = ng.record(model, task)
    seen = capture(monkeypatch)
    found = ng.deactivate(model, task, recording, categories=["partial_shared", "all_shared"])
    codes = longhand_categories(model, task, "gate")
    norms = np.stack([site.value_vectors().norm(dim=1).numpy() for site in model.sites])
    for (sets, correct, _), category in zip(seen, ["partial_shared", "all_shared"], strict=True):
        if category == "partial_shared":  # of two languages, none is
            assert not sets.any()
            continue
        masks = np.unpackbits(sets, axis=-1, count=model.n_neurons).astype(bool)
        shares = np.zeros(masks.shape[:2])
        for i, item in enumerate(task.items):
            members = codes[i] == CODES[category]
            for j, language in enumerate(task.languages):
                row = i * 2 + j
                text = item["prompts"][language]
                active = longhand_values(model, text, "gate")[:, -1] > 0
                values = longhand_values(model, text, "coefficient")[:, -1]
                contribution = np.abs(values) * norms
                np.testing.assert_array_equal(masks[row, 0], members)
                shares[row] = [contribution[x].sum() / contribution.sum() for x in masks[row]]
                _check_controls(masks[row], correct[row], members, active, deciles(contribution))
                for arm in range(masks.shape[1]):
                    if not np.isnan(correct[row, arm]):
                        by_hand = right_by_hand(model, task, i, language, masks[row, arm])
                        assert bool(correct[row, arm]) == by_hand
        by_arm = correct.reshape(3, 2, -1)
        one = found.sel(condition=category)
        np.testing.assert_array_equal(one["correct"], by_arm[..., 0])
        controls = one["correct_control"].transpose("item", "language", "control", "draw")
        np.testing.assert_array_equal(controls.values.reshape(3, 2, -1), by_arm[..., 1:])
        np.testing.assert_array_equal(one["n_neurons"], masks[:, 0].sum((1, 2)).reshape(3, 2))
        own, other = np.array(shares[:, 0]), shares[:, 6:11].mean(axis=1)  # of "active"
        there = ~np.isnan(correct[:, 6])
        assert float(one["share"]) == pytest.approx(own.mean())
        active = one.sel(control="active")
        assert float(active["share_beside"]) == pytest.approx(own[there].mean())
        assert float(active["control_share"]) == pytest.approx(other[there].mean())


def _check_controls(
    masks: np.ndarray, correct: np.ndarray, members: Any, active: Any, decile: Any
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
        drawn = masks[1 + 5 * k : 6 + 5 * k]
        assert np.isnan(correct[1 + 5 * k : 6 + 5 * k]).all() == (not enough)
        for mask in drawn if enough else []:
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


@pytest.mark.parametrize("positions", ["answer", "last", "all"])
def test_conditions_are_edits_of_the_category(positions: str) -> None:
    """The category's own arm is what an edit of the same neurons gives."""
    model, task = tiny_model("llama"), small_task(6)
    recording = ng.record(model, task)
    found = ng.deactivate(
        model, task, recording, categories=["specific"], controls=(), positions=positions
    )
    with ng.edit(model, ng.Zero(ng.PromptSets.from_category(recording, "specific")), positions):
        expected = ng.evaluate(model, task)
    np.testing.assert_array_equal(found["correct"].sel(condition="specific"), expected["correct"])
    codes = longhand_categories(model, task, "gate")
    longhand = edited_log_probs(
        model, task, lambda i, _: zeroed(codes[i] == CODES["specific"]), positions
    )
    np.testing.assert_allclose(expected["log_prob"], longhand, atol=1e-3)
    assert found.attrs["positions"] == positions


def masks_of(category: str, model: ng.Model, task: ng.ParallelTask, **variant: Any) -> np.ndarray:
    """Edited neurons (item, language, layer, neuron) of a condition."""
    recording = ng.record(model, task)
    patch = pytest.MonkeyPatch()
    with patch.context():
        seen = capture(patch)
        ng.deactivate(
            model, task, recording, categories=[category], controls=(),
            variants=[Variant(**variant)],
        )  # fmt: skip
        patch.undo()
    sets = np.concatenate([sets for sets, _, _ in seen])[:, 0]
    masks = np.unpackbits(sets, axis=-1, count=model.n_neurons).astype(bool)
    return masks.reshape(-1, len(task.languages), *masks.shape[1:])


def test_unions_and_specific_here() -> None:
    model, task = tiny_model("bloom"), small_task(4)
    codes = longhand_categories(model, task, "gate")
    specific = codes == CODES["specific"]
    union = masks_of("specific + all_shared", model, task)
    here = masks_of("specific_here", model, task)
    for j, language in enumerate(task.languages):
        np.testing.assert_array_equal(union[:, j], specific | (codes == CODES["all_shared"]))
        for i, item in enumerate(task.items):
            active = longhand_values(model, item["prompts"][language], "gate")[:, -1] > 0
            np.testing.assert_array_equal(here[i, j], specific[i] & active)


def test_parts_of_a_category() -> None:
    model, task = tiny_model("llama"), small_task(4)
    codes = longhand_categories(model, task, "gate")
    none = codes == CODES["non_activated"]
    layered = masks_of("non_activated", model, task, layers=(0, 2))
    np.testing.assert_array_equal(layered[:, 0, [0, 2]], none[:, [0, 2]])
    assert not layered[:, :, 1].any()
    inverted = masks_of("non_activated", model, task, keep_only=True, layers=(1,))
    np.testing.assert_array_equal(inverted[:, 1, 1], ~none[:, 1])
    assert not inverted[:, :, [0, 2]].any()
    top = masks_of("non_activated", model, task, top=0.3)
    norms = np.stack([site.value_vectors().norm(dim=1).numpy() for site in model.sites])
    for i, item in enumerate(task.items):
        for j, language in enumerate(task.languages):
            values = longhand_values(model, item["prompts"][language], "coefficient")[:, -1]
            for layer in range(model.n_layers):
                members = np.flatnonzero(none[i, layer])
                score = (np.abs(values) * norms)[layer, members]
                kept = members[np.argsort(-score)[: int(np.ceil(0.3 * len(members)))]]
                assert set(np.flatnonzero(top[i, j, layer])) == set(kept)


def with_subjects(n_items: int) -> ng.ParallelTask:
    records = [
        {**item, "subject": f"s{i // 2}"} for i, item in enumerate(small_task(n_items).items)
    ]
    return ng.ParallelTask.from_records(records, name="subjects")


def test_fixed_sets_and_rankings_by_answer_come_from_the_other_half() -> None:
    model, task = tiny_model("llama"), with_subjects(12)
    recording = ng.record(model, task)
    fixed = ng.deactivate(
        model, task, recording, categories=["all_shared"], controls=(),
        variants=[Variant(membership=0.4)],
    )  # fmt: skip
    test = [str(item) for item in fixed["item"].values]
    development = [item["id"] for item in task.items if item["id"] not in test]
    assert len(test) == len(development) == 6
    subject = {item["id"]: item["subject"] for item in task.items}
    assert not {subject[x] for x in test} & {subject[x] for x in development}
    chosen = ng.NeuronSet.from_category(recording.select(items=development), "all_shared", 0.4)
    np.testing.assert_array_equal(fixed["n_neurons"], len(chosen))
    few = ng.ParallelTask.from_records(
        [item for item in task.items if item["id"] in test], name="test half"
    )
    with ng.edit(model, ng.Zero(chosen)):
        expected = ng.evaluate(model, few)
    np.testing.assert_array_equal(fixed["correct"][0], expected["correct"])
    assert fixed["condition"].values.tolist() == ["all_shared, membership 0.4"]
    ranked = ng.deactivate(
        model, task, recording, categories=["all_shared"], controls=(),
        variants=ng.doses(0.5, rank_by="effective"),
    )  # fmt: skip
    assert ranked["item"].values.tolist() == test
    assert ranked.attrs["unit"] == "dose-response-by-answer"
    with pytest.raises(ng.NeuroglotError, match="depends on the language"):
        ng.deactivate(
            model, task, recording, categories=["specific_here"],
            variants=[Variant(membership=0.4)],
        )  # fmt: skip


def test_where_a_pool_is_too_small_there_is_no_value_but_a_reason() -> None:
    model, task, union = tiny_model("llama"), with_subjects(24), "all_shared+partial_shared"
    recording = ng.record(model, task)
    found = ng.deactivate(model, task, recording, categories=[union], draws=1).isel(condition=0)
    codes = longhand_categories(model, task, "gate")
    n_too_small = 0
    for i, item in enumerate(task.items):
        members = codes[i] >= CODES["partial_shared"]
        for language in task.languages:
            active = longhand_values(model, item["prompts"][language], "gate")[:, -1] > 0
            too_small = ((active & ~members).sum(axis=1) < members.sum(axis=1)).any()
            here = found["correct_control"].sel(
                control="active", item=item["id"], language=language
            )
            assert bool(here.isnull().all()) == too_small
            n_too_small += too_small
    assert n_too_small > 60
    reason = str(found["reason"].sel(against="active").values)
    assert reason.startswith(f"the pool was too small for {n_too_small} of 72 prompts")
    assert reason.endswith("fewer than ten subjects are left")
    assert str(found["reason"].sel(against="no_edit").values) == ""
    assert np.isnan(float(found["difference"].sel(against="active")))
    assert int(found["n_prompts"].sel(against="active")) == 72 - n_too_small


def test_results_do_not_depend_on_batches_blocks_or_other_conditions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, task = tiny_model("llama"), small_task(7)
    recording = ng.record(model, task)
    whole = ng.deactivate(model, task, recording, draws=2)
    monkeypatch.setattr(arms, "ITEMS_AT_ONCE", 2)
    apart = ng.deactivate(
        model, task, recording, categories=["specific", "all_shared"], draws=2, batch_size=3
    )
    for name in ("correct", "correct_control", "share", "n_neurons"):
        xr.testing.assert_allclose(
            apart[name].drop_attrs(), whole[name].sel(condition=apart["condition"]).drop_attrs()
        )
    other = ng.deactivate(model, task, recording, draws=2, seed=1)
    assert not other["control_share"].equals(whole["control_share"])


def test_written_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    plain = [{**item, "choices": {}} for item in small_task(4).items]
    texts = ng.evaluate(model, ng.ParallelTask.from_records(plain, name="w"), max_new_tokens=2)[
        "text"
    ].values
    records = [
        {**item, "answers": dict(zip(item["prompts"], [x or "-" for x in texts[i]], strict=True))}
        for i, item in enumerate(plain)
    ]
    task = ng.ParallelTask.from_records(records, name="w")
    recording = ng.record(model, task)
    found = ng.deactivate(
        model, task, recording, categories=["all_shared"], draws=1, max_new_tokens=2
    )
    np.testing.assert_array_equal(found["correct_no_edit"], texts != "")
    sets = ng.PromptSets.from_category(recording, "all_shared")
    with ng.edit(model, ng.Zero(sets)):
        expected = ng.evaluate(model, task, max_new_tokens=2)["correct"]
    np.testing.assert_array_equal(found["correct"][0], expected)
    assert not bool(expected.all())


def test_amplification_is_chosen_on_one_half_and_reported_on_the_other(tmp_path: Path) -> None:
    model, task = tiny_model("llama"), with_subjects(24)
    recording = ng.record(model, task)
    found = ng.amplify(
        model, task, recording, category="partial_shared", factors=(0.5, 4.0, 30.0), draws=1,
        out=tmp_path / "out",
    )  # fmt: skip
    accuracies = found["development_accuracy"]
    chosen = found["factor"].item()
    assert chosen in (0.5, 4.0, 30.0)
    assert float(accuracies.sel(chosen_from=chosen)) == float(accuracies[1:].max())
    test = found["item"].values.tolist()
    sets = ng.PromptSets.from_category(recording, "partial_shared")
    for items, expected in (
        ([x["id"] for x in task.items if x["id"] not in test], accuracies.sel(chosen_from=chosen)),
        (test, found["correct"].mean()),
    ):
        half = ng.ParallelTask.from_records(
            [item for item in task.items if item["id"] in items], name="half"
        )
        with ng.edit(model, ng.Scale(sets, chosen)):
            assert float(ng.evaluate(model, half)["correct"].mean()) == pytest.approx(
                float(expected)
            )
    xr.testing.assert_identical(ng.open(tmp_path / "out" / "amplification"), found)
    for bad in ((), (1.0, 2.0), (2.0, 2.0), (0.0,), (float("nan"),), ("a",), 2.0):
        with pytest.raises(ng.NeuroglotError, match="factors"):
            ng.amplify(model, task, recording, factors=bad)  # type: ignore[arg-type]


def test_results_are_kept_and_finished_conditions_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task, out = tiny_model("llama"), small_task(5), tmp_path / "out"
    recording = ng.record(model, task)
    first = ng.deactivate(model, task, recording, categories=["all_shared"], draws=2, out=out)
    xr.testing.assert_identical(ng.open(out / "deactivation"), first)
    seen = capture(monkeypatch)
    again = ng.deactivate(model, task, recording, categories=["all_shared"], draws=2, out=out)
    assert not seen
    xr.testing.assert_identical(again, first)
    more = ng.deactivate(
        model, task, recording, categories=["all_shared", "specific"], draws=2, out=out
    )
    assert len(seen) == 1
    np.testing.assert_array_equal(more["correct"][0], first["correct"][0])
    for settings in ({"draws": 3}, {"seed": 1}, {"positions": "all"}, {"controls": ["size"]}):
        with pytest.raises(ng.NeuroglotError, match="overwrite"):
            ng.deactivate(
                model, task, recording, categories=["all_shared"], out=out,
                **({"draws": 2} | settings),
            )  # type: ignore[arg-type]  # fmt: skip
    ng.deactivate(
        model, task, recording, categories=["all_shared"], draws=3, out=out, overwrite=True
    )


def test_variants_that_mean_the_same_are_the_same() -> None:
    assert Variant(layers=[1, 0]) == Variant(layers=(0, 1))  # type: ignore[arg-type]
    assert Variant(layers=2) == Variant(layers=(2,))  # type: ignore[arg-type]
    assert Variant(top=1, rank_by="effective") == Variant()
    assert str(Variant(top=0.1)) != str(Variant(top=0.1 + 1e-15))
    assert str(Variant(layers=(0, 2))) != str(Variant(layers=(0, 1, 2)))


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_an_edit_that_changes_nothing_changes_no_answer(name: str) -> None:
    """Conditions run in other steps than a plain evaluation, and answer the same."""
    model, task = random_model(name), small_task(8)
    recording = ng.record(model, task)
    found = ng.deactivate(
        model, task, recording, categories=["all_shared"], controls=["size"], draws=3,
        variants=[Variant(factor=1.0)],
    )  # fmt: skip
    np.testing.assert_array_equal(found["correct"][0], found["correct_no_edit"])
    there = found["correct_control"].notnull()
    expected = found["correct_no_edit"].broadcast_like(found["correct_control"])
    assert bool(there.any())
    assert bool((found["correct_control"] == expected).where(there, other=True).all())


def test_a_recording_of_all_tokens_is_warned_of() -> None:
    model, task = tiny_model("llama"), small_task(3)
    recording = ng.record(model, task, position="all")
    with pytest.warns(UserWarning, match="categories are not those of the tokens"):
        ng.deactivate(model, task, recording, categories=["specific"], controls=())


@pytest.mark.slow
@pytest.mark.concurrent
def test_killed_again_and_again_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    n_items = killing.N_ITEMS // 2
    part = "test/conditions/all_shared-top-0.5-by-effective"
    done = killing.kill_at_random("deactivate", tmp_path / "r", 3, watched=(part, n_items))
    assert any(0 < n < n_items for n in done), "some kill in the middle"
    killing.finish("deactivate", tmp_path / "r")
    killing.finish("deactivate", tmp_path / "u")
    result = "dose-response-by-answer"
    killed, expected = (killing.opened(tmp_path / name / result) for name in "ru")
    assert killing.checksum(killed) == killing.checksum(expected)
    xr.testing.assert_identical(killed, expected)


def test_bad_input_is_refused() -> None:
    model, task = tiny_model("llama"), small_task(3)
    recording = ng.record(model, task)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"categories": "all_shared"}, "expected a list of names"),
        ({"categories": None}, "expected a list of names"),
        ({"controls": None}, "expected a list of names"),
        ({"controls": "size"}, "expected a list of names"),
        ({"variants": Variant()}, "expected a list of ng.Variant"),
        ({"categories": ["specific+all_shared", "all_shared+specific"]}, "expected different"),
        ({"categories": []}, "expected different ones"),
        ({"categories": ["shared"]}, "category 'shared': expected one of"),
        ({"categories": ["specific+specific"]}, "several different ones"),
        ({"controls": ["random"]}, "controls=random"),
        ({"draws": 0}, "draws=0"),
        ({"draws": True}, "draws=True"),
        ({"seed": -1}, "seed=-1"),
        ({"positions": "first"}, "unknown positions"),
        ({"threshold": 0.3}, r"threshold 0\.3 was not recorded"),
        ({"score": "max"}, "unknown score"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"variants": []}, "at least one"),
        ({"variants": [Variant(), Variant()]}, "each once"),
        ({"variants": ["all"]}, "expected a list of ng.Variant"),
        ({"variants": [Variant(layers=(7,))]}, "from 0 to 2"),
        ({"variants": [Variant(top=0)]}, "top=0.0: expected above 0"),
        ({"variants": [Variant(membership=1.2)]}, r"membership=1\.2"),
        ({"variants": [Variant(keep_only=True, factor=2)]}, "leave factor= at 0"),
    ]
    for settings, message in cases:
        with pytest.raises(ng.NeuroglotError, match=message):
            ng.deactivate(model, task, recording, **settings)
    variants: list[tuple[dict[str, Any], str]] = [
        ({"layers": ()}, "different whole numbers from 0"),
        ({"layers": (0, 0)}, "different whole numbers from 0"),
        ({"layers": "all"}, "different whole numbers from 0"),
        ({"layers": (-1,)}, "different whole numbers from 0"),
        ({"factor": float("nan")}, "finite"),
        ({"factor": None}, "finite"),
        ({"rank_by": "size"}, "rank_by='size'"),
        ({"top": "0.5"}, "finite"),
        ({"membership": "0.5"}, "finite"),
    ]
    for settings, message in variants:
        with pytest.raises(ng.NeuroglotError, match=message):
            Variant(**settings)
    with pytest.raises(ng.NeuroglotError, match="recording is a str"):
        ng.deactivate(model, task, "recording")  # type: ignore[arg-type]
    with pytest.raises(ng.NeuroglotError, match="task_checksum"):
        ng.deactivate(model, small_task(3, seed=5), recording)
    for n_bands in (0, 4, 1.5):
        with pytest.raises(ng.NeuroglotError, match="from 1 to 3"):
            ng.layer_bands(model, n_bands)  # type: ignore[arg-type]
    with (
        ng.edit(model, ng.Zero(ng.NeuronSet.from_category(recording, "all_shared"))),
        pytest.raises(ng.NeuroglotError, match="being edited"),
    ):
        ng.deactivate(model, task, recording)


def test_layer_bands_cover_all_layers_once() -> None:
    model = tiny_model("llama")
    for n_bands in (1, 2, 3):
        bands = [variant.layers for variant in ng.layer_bands(model, n_bands)]
        assert sorted(sum(bands, ())) == [0, 1, 2]  # type: ignore[arg-type]


def test_a_part_of_a_part_in_other_languages_is_answered(tmp_path: Path) -> None:
    """The guesser's counts are of the whole task, and are looked up by language."""
    model, task = tiny_model("llama"), small_task(16, "en de th")
    some = task.first(12)
    recording = ng.record(model, some).select(languages=["th", "en"])
    ng.deactivate(
        model, some, recording, categories=["specific"], controls=[], out=tmp_path / "off"
    )
    found = ng.open(tmp_path / "off" / "answers")
    expected = majority(task)[:12, [2, 0]]
    np.testing.assert_array_equal(found["majority"], expected)
