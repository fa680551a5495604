"""The categories of neurons as presets: planted ones, parts of them, halves, amplification."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import neuroglot as ng
from neuroglot.interventions.controls import CONTROLS, OWN
from neuroglot.interventions.effects import by_control
from neuroglot.interventions.presets import Parts, amplify, deactivate
from neuroglot.reporting.kinds.outcome_rows import group_of
from neuroglot.sharing.categories import categories
from tests import killing
from tests.interventions.longhand import edited_log_probs, zeroed
from tests.interventions.planted import (
    PLANTED,
    PLANTED_LAYER,
    planted_model,
    planted_task,
)
from tests.interventions.test_intervene import (
    CODES,
    NONE,
    check_choices,
    contributions,
    spied,
    with_subjects,
)
from tests.testing import longhand_categories, longhand_values, small_task, tiny_model


def test_planted_neurons_are_found_and_controls_do_nothing() -> None:
    model, task = planted_model(), planted_task()
    recording = ng.record(model, task)
    for i, item in enumerate(task.items):
        codes = categories(recording).values[i, PLANTED_LAYER, list(PLANTED)]
        assert [code == CODES["all_shared"] for code in codes] == [
            item["answers"]["en"].endswith(str(56 + neuron)) for neuron in PLANTED
        ]
    found = deactivate(
        model, task, recording, categories=["all_shared"], controls=ng.Controls(draws=4)
    )
    own, controls = found["correct"].sel(arm=OWN), by_control(found["correct"])
    assert float(found["correct_no_edit"].mean()) == 1
    assert float(own.mean()) == 0.25  # chance: one of four
    assert controls.notnull().mean() > 0.8
    for kind in CONTROLS:
        assert float(controls.sel(kind=kind).mean()) == 1
    # Where some prompts have no control, the rest may be a little easier or harder.
    np.testing.assert_allclose(found["difference"], -0.75, atol=0.05)
    assert (found["difference_high"] < -0.4).all()
    assert (found["p_holm"] < 0.01).all()
    assert 0 < int(found["n_neurons"].min()) <= int(found["n_neurons"].max()) < 160
    for category in ("specific", "non_activated"):
        other = deactivate(
            model, task, recording, categories=[category], controls=ng.Controls(draws=1)
        )
        np.testing.assert_array_equal(other["correct"].sel(condition=category, arm=OWN), 1)
    kept = deactivate(
        model, task, recording, categories=["all_shared"], controls=ng.Controls(draws=2),
        parts=Parts(keep_only=True),
    )  # fmt: skip
    assert float(kept["correct"].sel(arm=OWN).mean()) == 1
    assert float(by_control(kept["correct"]).sel(kind="size").mean()) == 0.25
    assert (kept["difference"].sel(against=list(CONTROLS)) > 0.6).all()


@pytest.mark.parametrize("positions", ["answer", "last", "all"])
def test_conditions_are_edits_of_the_category(positions: Any) -> None:
    """The category's own arm is what an edit of the same neurons gives."""
    model, task = tiny_model("llama"), small_task(6)
    recording = ng.record(model, task)
    found = deactivate(
        model, task, recording, categories=["specific"], controls=NONE,
        position=positions,
    )  # fmt: skip
    specific = ng.NeuronSet.from_category(recording, "specific")
    with ng.edit(model, ng.Zero(specific), position=positions):
        expected = ng.evaluate(model, task)
    own = found.sel(condition="specific", arm=OWN)
    np.testing.assert_array_equal(own["correct"], expected["correct"])
    np.testing.assert_allclose(own["margin"], expected["margin"], atol=1e-4)
    codes = longhand_categories(model, task, "gate")
    longhand = edited_log_probs(
        model, task, lambda i, _: zeroed(codes[i] == CODES["specific"]), positions
    )
    np.testing.assert_allclose(expected["log_prob"], longhand, atol=1e-3)
    assert found.attrs["edit_position"] == positions


def masks_of(
    category: str, model: ng.Model, task: ng.ParallelTask, parts: Parts | None = None
) -> np.ndarray:
    """Edited neurons (item, language, layer, neuron) of a condition."""
    recording = ng.record(model, task)
    with pytest.MonkeyPatch.context() as patch:
        seen = spied(patch)
        deactivate(model, task, recording, categories=[category], controls=NONE, parts=parts)
    masks = np.concatenate([one.edits[0][1] for one in seen])[:, 0]
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
    layered = masks_of("non_activated", model, task, Parts(bands=[(0, 2)]))
    np.testing.assert_array_equal(layered[:, 0, [0, 2]], none[:, [0, 2]])
    assert not layered[:, :, 1].any()
    inverted = masks_of("non_activated", model, task, Parts(keep_only=True, bands=[(1,)]))
    np.testing.assert_array_equal(inverted[:, 1, 1], ~none[:, 1])
    assert not inverted[:, :, [0, 2]].any()
    top = masks_of("non_activated", model, task, Parts([0.3]))
    kept = masks_of("non_activated", model, task, Parts([0.3], keep_only=True))
    np.testing.assert_array_equal(kept, ~top)
    for i, item in enumerate(task.items):
        for j, language in enumerate(task.languages):
            score = contributions(model, item["prompts"][language])
            for layer in range(model.n_layers):
                members = np.flatnonzero(none[i, layer])
                order = np.argsort(-score[layer, members])
                expected = members[order[: int(np.ceil(0.3 * len(members)))]]
                assert set(np.flatnonzero(top[i, j, layer])) == set(expected)


def test_a_factor_multiplies_and_controls_keep_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every arm: what a factor does, and what is kept where only a category is."""
    model, task = tiny_model("llama"), small_task(4, "en de")
    recording = ng.record(model, task)
    known: dict[str, Any] = {
        "categories": ["all_shared"], "controls": ng.Controls(["size", "active"], draws=2)
    }  # fmt: skip
    seen = spied(monkeypatch)
    scaled = deactivate(model, task, recording, **known, parts=Parts(factor=-2))
    assert scaled["condition"].values.tolist() == ["all_shared, times -2"]
    (edit,) = (edit for edit, _ in seen[0].edits)
    assert isinstance(edit, ng.Scale)
    assert edit.factor == -2
    kept = deactivate(
        model, task, recording, **known, parts=Parts(bands=[None, (0, 2)], keep_only=True)
    )
    shared = longhand_categories(model, task, "gate") == CODES["all_shared"]
    for one, layers in zip(seen[1:], ((0, 1, 2), (0, 2)), strict=True):
        ((edit, masks),) = one.edits
        assert isinstance(edit, ng.Zero)
        others = [layer for layer in range(3) if layer not in layers]
        assert not masks[:, :, others].any()
        for row, arm in np.argwhere(one.there).tolist():
            text = task.items[row // 2]["prompts"][task.languages[row % 2]]
            active = longhand_values(model, text, "gate")[:, -1] > 0
            for layer in layers:
                member, left = shared[row // 2, layer], ~masks[row, arm, layer]
                assert left.sum() == member.sum()
                if arm == 0:
                    assert left.tolist() == member.tolist()
                else:
                    assert not (left & member).any()
                    assert arm < 3 or not (left & ~active[layer]).any()
    for one in seen:
        check_choices(model, one)
    counts = shared.sum(axis=2)
    for condition, layers in enumerate(((0, 1, 2), (0, 2))):
        expected = counts[:, layers].sum(axis=1)
        for language in task.languages:
            found = kept["n_neurons"].isel(condition=condition).sel(language=language)
            np.testing.assert_array_equal(found, expected)


def test_fixed_sets_and_rankings_by_answer_come_from_the_other_half() -> None:
    model, task = tiny_model("llama"), with_subjects(12)
    recording = ng.record(model, task)
    fixed = deactivate(
        model, task, recording, categories=["all_shared"], controls=NONE,
        parts=Parts(membership=0.4),
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
    own = fixed.isel(condition=0).sel(arm=OWN)
    np.testing.assert_array_equal(own["correct"], expected["correct"])
    np.testing.assert_allclose(own["margin"], expected["margin"], atol=1e-4)
    assert fixed["condition"].values.tolist() == ["all_shared, membership 0.4"]
    assert group_of(fixed) == "fixed-sets"
    ranked = deactivate(
        model, task, recording, categories=["all_shared"], controls=NONE,
        parts=Parts([0.5], rank_by="effective"),
    )  # fmt: skip
    assert ranked["item"].values.tolist() == test
    assert group_of(ranked) == "dose-response-by-answer"
    assert fixed.attrs["chosen_on"] == ranked.attrs["chosen_on"] == 6
    with pytest.raises(ng.NeuroglotError, match="depends on the language"):
        deactivate(
            model, task, recording, categories=["specific_here"], parts=Parts(membership=0.4)
        )


def test_amplification_is_chosen_on_one_half_and_reported_on_the_other(tmp_path: Path) -> None:
    model, task = tiny_model("llama"), with_subjects(24)
    recording = ng.record(model, task)
    found = amplify(
        model, task, recording, category="partial_shared", factors=(0.5, 4.0, 30.0),
        controls=ng.Controls(draws=1), out=tmp_path / "out",
    )  # fmt: skip
    accuracies = found["development_accuracy"]
    chosen = found["factor"].item()
    assert chosen in (0.5, 4.0, 30.0)
    assert float(accuracies.sel(chosen_from=chosen)) == float(accuracies[1:].max())
    test = found["item"].values.tolist()
    sets = ng.NeuronSet.from_category(recording, "partial_shared")
    own = found["correct"].sel(arm=OWN)
    for items, expected in (
        ([x["id"] for x in task.items if x["id"] not in test], accuracies.sel(chosen_from=chosen)),
        (test, own.mean()),
    ):
        half = ng.ParallelTask.from_records(
            [item for item in task.items if item["id"] in items], name="half"
        )
        with ng.edit(model, ng.Scale(sets, chosen)):
            assert float(ng.evaluate(model, half)["correct"].mean()) == pytest.approx(
                float(expected)
            )
    assert group_of(found) == "amplification"
    xr.testing.assert_identical(ng.load(tmp_path / "out" / "test" / "outcome"), found)
    for bad in ((), (1.0, 2.0), (2.0, 2.0), (0.0,), (float("nan"),), ("a",), 2.0):
        with pytest.raises(ng.NeuroglotError, match="factors"):
            amplify(model, task, recording, factors=bad)  # type: ignore[arg-type]


def test_finished_conditions_of_the_other_half_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task, out = tiny_model("llama"), with_subjects(12), tmp_path / "out"
    recording = ng.record(model, task)
    known: dict[str, Any] = {
        "categories": ["all_shared"], "controls": ng.Controls(draws=2), "out": out,
        "parts": Parts([0.5], rank_by="effective"),
    }  # fmt: skip
    first = deactivate(model, task, recording, **known)
    xr.testing.assert_identical(ng.load(out / "test" / "outcome"), first)
    seen = spied(monkeypatch)
    again = deactivate(model, task, recording, **known)
    assert not seen
    xr.testing.assert_identical(again, first)
    more = {"categories": ["all_shared", "specific"], "parts": Parts([0.5, 1], rank_by="effective")}
    found = deactivate(model, task, recording, **known | more)
    assert len(seen) == 3
    assert found["item"].equals(first["item"])
    np.testing.assert_array_equal(found["margin"][0], first["margin"][0])


def test_parts_that_mean_the_same_are_the_same() -> None:
    model, task = tiny_model("llama"), small_task(3)
    recording = ng.record(model, task)

    def conditions(parts: Parts) -> xr.Dataset:
        found = deactivate(
            model, task, recording, categories=["specific"], controls=NONE, parts=parts
        )
        return found[["margin", "n_neurons"]]

    usual = conditions(Parts())
    assert usual["condition"].values.tolist() == ["specific"]
    xr.testing.assert_identical(conditions(Parts([1], rank_by="effective")), usual)
    assert Parts(bands=[[1, 0]]).bands == Parts(bands=[(0, 1)]).bands
    assert Parts(bands=[2]).bands == Parts(bands=[(2,)]).bands  # type: ignore[list-item]
    doses = conditions(Parts([0.1, 0.1 + 1e-15]))["condition"].values.tolist()
    assert len(set(doses)) == 2
    bands = conditions(Parts(bands=[(2, 0), (0, 1, 2), None]))
    names = ["specific, layers 0,2", "specific, layers 0-2", "specific"]
    assert bands["condition"].values.tolist() == names
    assert bands["layers"].values.tolist() == ["0,2", "0-2", "all"]


def test_a_recording_of_all_tokens_is_warned_of() -> None:
    model, task = tiny_model("llama"), small_task(3)
    recording = ng.record(model, task, reading=ng.Reading(position="all"))
    with pytest.warns(UserWarning, match="categories are not those of the tokens"):
        deactivate(model, task, recording, categories=["specific"], controls=NONE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        deactivate(
            model, task, recording, categories=["specific"], controls=NONE,
            position="all",
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.concurrent
def test_killed_again_and_again_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    n_items = killing.N_ITEMS // 2
    part = "test/conditions/all_shared-top-0.5-by-effective"
    done = killing.kill_at_random("deactivate", tmp_path / "r", 3, watched=(part, n_items))
    assert any(0 < n < n_items for n in done), "some kill in the middle"
    killing.finish("deactivate", tmp_path / "r")
    killing.finish("deactivate", tmp_path / "u")
    result = "test/outcome"
    killed, expected = (killing.opened(tmp_path / name / result) for name in "ru")
    assert killing.checksum(killed) == killing.checksum(expected)
    xr.testing.assert_identical(killed, expected)


def test_bad_input_is_refused() -> None:
    model, task = tiny_model("llama"), small_task(3)
    recording = ng.record(model, task)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"categories": "all_shared"}, "expected a list of names"),
        ({"categories": None}, "expected a list of names"),
        ({"categories": ["specific+all_shared", "all_shared+specific"]}, "expected different"),
        ({"categories": []}, "expected different ones"),
        ({"categories": ["shared"]}, "category 'shared': expected one of"),
        ({"categories": ["specific+specific"]}, "several different ones"),
        ({"controls": ng.Controls(threshold=0.3)}, r"threshold 0\.3 was not recorded"),
        ({"parts": Parts(bands=[(7,)])}, "from 0 to 2"),
    ]
    for settings, message in cases:
        with pytest.raises(ng.NeuroglotError, match=message):
            deactivate(model, task, recording, **settings)
    parts: list[tuple[dict[str, Any], str]] = [
        ({"doses": []}, "at least one"),
        ({"doses": [1.0, 1.0]}, "each once"),
        ({"doses": [0]}, r"top=0\.0: expected above 0"),
        ({"doses": ["0.5"]}, "finite"),
        ({"bands": [None, None]}, "each once"),
        ({"bands": [(1, 0), (0, 1)]}, "each once"),
        ({"bands": [()]}, "different whole numbers from 0"),
        ({"bands": [(0, 0)]}, "different whole numbers from 0"),
        ({"bands": ["all"]}, "different whole numbers from 0"),
        ({"bands": [(-1,)]}, "different whole numbers from 0"),
        ({"membership": 1.2}, r"membership=1\.2"),
        ({"membership": "0.5"}, "finite"),
        ({"keep_only": True, "factor": 2}, "leave factor= at 0"),
        ({"factor": float("nan")}, "finite"),
        ({"factor": None}, "finite"),
        ({"rank_by": "size"}, "rank_by='size'"),
    ]
    for settings, message in parts:
        with pytest.raises(ng.NeuroglotError, match=message):
            Parts(**settings)
    for some in (None, Parts(membership=0.5)):
        with pytest.raises(ng.NeuroglotError, match="recording is a str"):
            deactivate(model, task, "recording", parts=some)  # type: ignore[arg-type]
        with pytest.raises(ng.NeuroglotError, match="task_checksum"):
            deactivate(model, small_task(3, seed=5), recording, parts=some)
    with (
        pytest.warns(UserWarning, match="nothing was edited"),
        ng.edit(model, ng.Zero(ng.NeuronSet.from_category(recording, "all_shared"))),
        pytest.raises(ng.NeuroglotError, match="being edited"),
    ):
        deactivate(model, task, recording)
