"""Runs side by side, against longhand and against statsmodels' formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import neuroglot as ng
from neuroglot.answering.observations import Samples
from neuroglot.comparison.association import correctness_on_sharing, rank_correlation
from neuroglot.comparison.runs import places_along
from tests.testing import small_task, tiny_model

Pair = tuple[ng.Recording, xr.Dataset]
N_ITEMS = 24


def run_of(seed: int, architecture: str = "llama", **how: Any) -> Pair:
    """A random model on a small task."""
    model, task = tiny_model(architecture, seed), small_task(N_ITEMS)
    return ng.record(model, task, reading=ng.Reading(**how)), ng.evaluate(model, task)


@pytest.fixture(scope="module")
def runs() -> dict[str, Pair]:
    return {"one": run_of(0), "other": run_of(1)}


def test_levels_and_changes_longhand(runs: dict[str, Pair]) -> None:
    found = ng.compare(runs)
    sharing = {name: ng.classify(recording) for name, (recording, _) in runs.items()}
    for name, (_, answers) in runs.items():
        here, data = found.sel(run=name), sharing[name]
        np.testing.assert_allclose(here["accuracy"], answers["correct"].mean("item"))
        np.testing.assert_allclose(here["layer_fraction"], data["fraction"].mean("item"))
        np.testing.assert_allclose(here["fraction"], data["fraction"].mean(["item", "layer"]))
        for j in range(3):
            codes = data["fraction"].to_numpy()[..., 3] * 20
            active = data["active"].to_numpy()[..., j] * 20
            expected = np.mean([codes[i].sum() / active[i].sum() for i in range(N_ITEMS)])
            assert float(here["shared_of_active"][j]) == pytest.approx(expected)
        assert float(here["accuracy_overall"]) == pytest.approx(float(answers["correct"].mean()))
    for name in ("accuracy", "layer_fraction", "fraction", "shared_of_active", "accuracy_overall"):
        change = found[name].sel(run="other") - found[name].sel(run="one")
        np.testing.assert_allclose(found[f"{name}_change"].sel(run="other"), change, atol=1e-12)
        low, middle, high = (
            found[f"{name}_change{end}"].sel(run="other").to_numpy()
            for end in ("_low", "", "_high")
        )
        known = ~np.isnan(low)
        assert known.mean() > 0.6, "enough subjects differ for an interval"
        assert (low[known] <= middle[known]).all()
        assert (middle[known] <= high[known]).all()
    assert np.isnan(found["accuracy_change_low"].sel(run="one")).all()
    assert "flow" not in found, "two random models continue nothing"
    assert "flow" in ng.compare(runs, lineage=True)


def test_mid_p_mcnemar_by_language(runs: dict[str, Pair]) -> None:
    found = ng.compare(runs)
    one, other = (answers["correct"].to_numpy() for _, answers in runs.values())
    for j in range(3):
        better = int((other[:, j] & ~one[:, j]).sum())
        n = int((other[:, j] != one[:, j]).sum())
        chances = stats.binom(n, 0.5).pmf(np.arange(n + 1))
        # What is further from the middle, and half of what is as far.
        far = abs(np.arange(n + 1) - n / 2) - abs(better - n / 2)
        expected = chances[far > 1e-9].sum() + chances[abs(far) < 1e-9].sum() / 2 if n else 1.0
        assert float(found["accuracy_p"].sel(run="other")[j]) == pytest.approx(expected, abs=0.01)


def test_held_out_prompts_count_alone_where_the_split_says_so() -> None:
    task = replace(small_task(N_ITEMS), split="held_out")
    models = {str(seed): tiny_model("llama", seed) for seed in (0, 1)}
    pairs = {name: (ng.record(m, task), ng.evaluate(m, task)) for name, m in models.items()}
    found = ng.compare(pairs)
    right = pairs["0"][1]["correct"].to_numpy()
    held = [i for i, item in enumerate(task.items) if item["held_out"]]
    assert float(found["accuracy"].sel(run="0", language="en")) == pytest.approx(
        right[held, 0].mean()
    )
    assert np.isnan(found["accuracy"].sel(run="0", language="de"))


def samples(subjects: np.ndarray, n_languages: int = 4) -> Samples:
    """Every prompt is an observation of its own."""
    own = np.repeat(np.arange(len(subjects))[:, None], n_languages, axis=1)
    return Samples(own, np.unique(subjects, return_inverse=True)[1], None)


def planted(slope: float, seed: int, n: int = 400) -> tuple[Any, ...]:
    """Answers whose log-odds rise by ``slope`` for a tenth more sharing."""
    rng = np.random.default_rng(seed)
    shared = rng.random((n, 4))
    of_item = rng.normal(0, 0.5, (n, 1))
    odds = slope * 10 * (shared - 0.5) + of_item + np.array([-1, 0, 0.5, 1])
    correct = rng.random((n, 4)) < 1 / (1 + np.exp(-odds))
    return correct, shared, np.ones((n, 4), bool), samples(np.arange(n) // 2)


def test_a_planted_slope_is_found_and_none_is_not() -> None:
    covered = 0
    for seed in range(10):
        found = correctness_on_sharing(*planted(0.2, seed))
        covered += found.low < np.exp(0.2) < found.high
        assert found.p < 0.05
    assert covered >= 7, "the item's own share pulls the slope a little towards nothing"
    null = [correctness_on_sharing(*planted(0.0, seed)).p for seed in range(40)]
    assert sum(p < 0.05 for p in null) <= 6


def test_the_regression_is_that_of_statsmodels_formula() -> None:
    correct, shared, counted, clusters = planted(0.3, 5, 80)
    found = correctness_on_sharing(correct, shared, counted, clusters)
    frame = pd.DataFrame(
        [
            {"right": int(correct[i, j]), "shared": 10 * shared[i, j], "language": "abcd"[j],
             "group": int(clusters.subjects[i])}
            for i in range(80) for j in range(4)
        ]
    )  # fmt: skip
    fitted = smf.logit("right ~ shared + C(language)", frame).fit(
        disp=0, cov_type="cluster", cov_kwds={"groups": frame["group"]}
    )
    assert found.odds_ratio == pytest.approx(np.exp(fitted.params["shared"]), rel=1e-5)
    low, high = np.exp(fitted.conf_int().loc["shared"])
    assert (found.low, found.high) == (pytest.approx(low, rel=2e-2), pytest.approx(high, rel=2e-2))
    assert found.prompts == 320


def test_a_language_that_is_always_right_is_left_out() -> None:
    correct, shared, counted, clusters = planted(0.3, 5, 80)
    correct[:, 2] = True
    found = correctness_on_sharing(correct, shared, counted, clusters)
    rest = [0, 1, 3]
    fewer = samples(clusters.subjects, 3)
    alone = correctness_on_sharing(correct[:, rest], shared[:, rest], counted[:, rest], fewer)
    assert found == alone
    assert found.prompts == 240
    nothing = correctness_on_sharing(np.ones((80, 4), bool), shared, counted, clusters)
    assert np.isnan(nothing.odds_ratio)
    assert "all answers are right" in nothing.reason
    separated = correctness_on_sharing(shared > 0.5, shared, counted, clusters)
    assert np.isnan(separated.odds_ratio)
    assert separated.reason
    few = correctness_on_sharing(correct[:9], shared[:9], counted[:9], samples(np.arange(9)))
    assert "fewer than 10" in few.reason
    by_language = np.broadcast_to(np.array([0.1, 0.2, 0.3, 0.4]), shared.shape)
    for alike in (np.full_like(shared, 0.5), by_language):
        same = correctness_on_sharing(correct, alike, counted, clusters)
        assert "the same for all" in same.reason


def test_rank_correlation_by_hand() -> None:
    one, other = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 4, 3, 5])
    r, (low, high) = rank_correlation(one, other)
    assert r == pytest.approx(0.8)  # 1 - 6·4/(5·24)
    half = 1.959964 * ((1 + 0.8**2 / 2) / 2) ** 0.5
    assert low == pytest.approx(np.tanh(np.arctanh(0.8) - half), abs=1e-5)
    assert high == pytest.approx(np.tanh(np.arctanh(0.8) + half), abs=1e-5)
    assert np.isnan(rank_correlation(one[:3], other[:3])[0])
    assert np.isnan(rank_correlation(one, np.ones(5))[0])
    perfect, ends = rank_correlation(one, 2 * one)
    assert perfect == pytest.approx(1)
    assert np.isnan(ends).all()
    with_gap = np.append(one, np.nan), np.append(other, 3.0)
    assert rank_correlation(*with_gap) == (r, (low, high))


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=12, unique=True), st.integers(0, 999))
def test_rank_correlation_is_blind_to_scale(values: list[float], seed: int) -> None:
    one = np.array(values)
    other = np.random.default_rng(seed).permutation(len(one)).astype(float)
    r, ends = rank_correlation(one, other)
    again, same_ends = rank_correlation(np.argsort(np.argsort(one)) * 7.0 - 3, other)
    assert again == pytest.approx(r)
    np.testing.assert_allclose(ends, same_ends)
    if not np.isnan(ends[0]):
        assert -1 <= ends[0] <= r <= ends[1] <= 1


def test_folders_and_a_series(tmp_path: Path) -> None:
    folders = []
    for step in (20, 3, 100):
        model, folder = tiny_model("llama", step), tmp_path / f"step-{step}"
        ng.record(model, small_task(N_ITEMS), out=folder / "recording")
        ng.evaluate(model, small_task(N_ITEMS), out=folder / "answers")
        folders.append(folder)
    assert ng.compare(folders)["run"].to_numpy().tolist() == ["step-20", "step-3", "step-100"]
    found = ng.compare(folders, x="step")
    assert found["step"].to_numpy().tolist() == [3, 20, 100]
    assert found["run"].to_numpy().tolist() == ["step-3", "step-20", "step-100"]
    ng.save(found, tmp_path / "saved")
    xr.testing.assert_identical(ng.load(tmp_path / "saved"), found)


def test_numbers_of_runs() -> None:
    assert places_along("step", ["run 2, step-10", "run 2, step-9"]).tolist() == [10, 9]
    assert places_along("size", ["0.5B", "7B"]).tolist() == [0.5, 7.0]
    with pytest.raises(ng.NeuroglotError, match="'base' holds no number"):
        places_along("step", ["base", "step-1"])
    with pytest.raises(ng.NeuroglotError, match="the same number"):
        places_along("step", ["a-1", "b-1"])


def test_models_of_different_depth_are_compared_over_all_layers(runs: dict[str, Pair]) -> None:
    recording, answers = runs["other"]
    shallow = ng.Recording(recording.dataset.isel(layer=slice(2)))
    both = {"one": runs["one"], "shallow": (shallow, answers)}
    with pytest.raises(ng.NeuroglotError, match="on different layers"):
        ng.compare(both)
    found = ng.compare(both, unrelated=True)
    assert found.attrs["unrelated"] == 1
    assert "layer_fraction" not in found
    assert "fraction_change" in found


@pytest.mark.parametrize(
    "key", ["model_config", "tokenizer_checksum", "prompts_checksum", "dtype", "chat_template"]
)
def test_models_may_differ_in_their_weights_only(runs: dict[str, Pair], key: str) -> None:
    recording, answers = runs["other"]
    assert recording.attrs["model_weights"] != runs["one"][0].attrs["model_weights"]
    changed = ng.Recording(recording.dataset.assign_attrs({key: "x"}))
    both = {"one": runs["one"], "changed": (changed, answers.assign_attrs({key: "x"}))}
    with pytest.raises(ng.NeuroglotError, match=rf"more than the weights.*{key}.*unrelated=True"):
        ng.compare(both)
    assert "fraction_change" in ng.compare(both, unrelated=True)


def test_runs_that_differ_are_refused(runs: dict[str, Pair], tmp_path: Path) -> None:
    recording, answers = runs["other"]

    def with_attrs(**attrs: Any) -> Pair:
        return ng.Recording(recording.dataset.assign_attrs(attrs)), answers

    cases: list[tuple[Any, str]] = [
        (with_attrs(task="facts"), "task: 'small'; 'facts'"),
        (with_attrs(template="shared"), "template"),
        (with_attrs(site="coefficient"), "site"),
        (with_attrs(position="all"), "position"),
        ((recording, answers.assign_attrs(choice_score="mean")), "choice_score: 'sum'; 'mean'"),
        (run_of(1, thresholds=(0.0, 0.5)), r"thresholds: 0\.0; 0\.0, 0\.5"),
        ((recording.select(items=5), answers.isel(item=slice(5))), "items"),
        ((recording.select(items=5), answers), "other items than it has answered"),
        ((recording.select(languages=["en", "de"]), answers), "other languages than"),
        ((runs["one"][0], answers), "other model_weights than"),
        (
            (
                ng.record(
                    tiny_model("llama", 0), small_task(N_ITEMS), reading=ng.Reading(layers=[0])
                ),
                runs["one"][1],
            ),
            "layers: 0, 1, 2; 0",
        ),
        (
            (recording.select(languages=["en", "de"]), answers.sel(language=["en", "de"])),
            "languages: en, de, th; en, de",
        ),
        ((answers, recording), "expected a recording and an evaluation"),
        (tmp_path, "lacks 'recording'"),
    ]
    for other, message in cases:
        with pytest.raises(ng.NeuroglotError, match=message):
            ng.compare({"one": runs["one"], "other": other})
    with pytest.raises(ng.NeuroglotError, match="at least two runs"):
        ng.compare({"one": runs["one"]})
    with pytest.raises(ng.NeuroglotError, match="expected a list"):
        ng.compare(str(tmp_path))
    with pytest.raises(ng.NeuroglotError, match="named twice"):
        ng.compare([tmp_path, tmp_path])
    numbered = {"run 1": runs["one"], "run 2": runs["other"]}
    for taken in ("language", "run", "accuracy", " "):
        with pytest.raises(ng.NeuroglotError, match="the result needs that name"):
            ng.compare(numbered, x=taken)
    with pytest.raises(ng.NeuroglotError, match="seed=-1"):
        ng.compare(runs, seed=-1)
    with pytest.raises(ng.NeuroglotError, match=r"threshold 0\.3 was not recorded"):
        ng.compare(runs, threshold=0.3)
