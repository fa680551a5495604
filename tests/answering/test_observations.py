"""Equal prompts count once; intervals and tests are over subjects, and over relations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import neuroglot as ng
from neuroglot.answering import evaluation
from neuroglot.answering.differences import difference
from neuroglot.answering.evaluation import accuracy
from neuroglot.answering.observations import SAME, Samples, said_of_samples, same_tokens, samples_of
from neuroglot.answering.statistics import clustered_interval
from neuroglot.comparison.association import correctness_on_sharing
from neuroglot.interventions.effects import effects
from neuroglot.models.tokenization import encode
from neuroglot.running import choices as scoring
from neuroglot.tasks.equal_prompts import clusters_of, first_equal
from neuroglot.tasks.halves import halves, parts_of
from tests.testing import small_task, tiny_model

TRUNCATED = ng.Tokenization(truncate=True)


def task_of(prompts: list[list[str]], **fields: Any) -> ng.ParallelTask:
    """Items with these prompts in English and German, three choices and the first answer."""
    choices = {code: ["w20", "w21 w22", "w23"] for code in ("en", "de")}
    records = [
        {
            "id": f"item{i}",
            "prompts": dict(zip(("en", "de"), texts, strict=True)),
            "choices": choices,
            "answers": {code: given[0] for code, given in choices.items()},
            **{name: values[i] for name, values in fields.items()},
        }
        for i, texts in enumerate(prompts)
    ]
    return ng.ParallelTask.from_records(records, name="asked")


# The tokenizer knows neither "hm" nor "ah", so that the two become the same token.
REPEATING = [["w2 hm", "w3"], ["w4", "w5"], ["w2 ah", "w6"], ["w2 hm", "w5 "], ["w2", "w3 w3"]]
EXPECTED = [[0, 0], [1, 1], [0, 2], [0, 1], [4, 4]]


@pytest.mark.parametrize("by", ["choosing", "writing"])
def test_prompts_that_are_the_same_tokens_are_found_by_language(by: str, tmp_path: Path) -> None:
    model, task = tiny_model("llama"), task_of(REPEATING)
    if by == "writing":
        task = replace(task, items=[{**item, "choices": {}} for item in task.items])
    found = ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=2), out=tmp_path / "a")
    assert found[SAME].to_numpy().tolist() == EXPECTED
    assert found[SAME].dims == ("item", "language")
    xr.testing.assert_identical(ng.load(tmp_path / "a"), found)
    xr.testing.assert_identical(
        ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=2), out=tmp_path / "a"),
        found,
    )
    said = said_of_samples(found, found["counted"])
    assert said[0] == (
        "2 of 5 prompts in English, 1 of 5 prompts in German repeat an earlier one and count once."
    )
    # Items 0, 2 and 3 are one cluster by English, 1 and 3 by German; 4 is alone.
    assert "the prompts are of 2 subjects, and at least 10 are needed" in said[1]


def test_prompts_that_truncation_makes_equal() -> None:
    model = tiny_model("gpt2")
    n = model.context_length
    ends = " ".join(["w7"] * n)
    task = task_of([[f"w2 {ends}", "w3"], [f"w4 {ends}", "w4"], ["w5", f"w6 {ends}"]])
    with pytest.raises(ng.NeuroglotError, match="context"):
        same_tokens(model, task, 4)
    cut = replace(model, tokenization=TRUNCATED)
    assert same_tokens(cut, task, 4).tolist() == [[0, 0], [0, 1], [2, 2]]


def test_what_is_scored_with_the_choices_tells_prompts_apart() -> None:
    """Without a join "w1" and "0" are "w10": "w2" alone runs before the choices of both."""
    task = task_of([["w2 w1", "w2 w2"], ["w2 w2", "w2 w3"], ["w2 w1", "w3 w2"]])
    digits = {code: ["0", "1"] for code in ("en", "de")}
    records = [
        {
            **item,
            "choices": digits,
            "answers": {"en": "0", "de": "1"},
            "joins": {"en": "", "de": ""},
        }
        for item in task.items
    ]
    task = ng.ParallelTask.from_records(records, name="digits")
    assert same_tokens(tiny_model("llama"), task, 4).tolist() == [[0, 0], [1, 1], [0, 2]]


def test_equal_prompts_with_other_answers_are_one_observation_between_them() -> None:
    """Asked twice, with another right answer each time, a prompt is right half of the time."""
    prompts = [["w2 w9", f"w{i + 2}"] for i in range(2)] + [
        [f"w{i + 2} w3 w{i + 30}", f"w{i + 5} w2"] for i in range(14)
    ]
    task = task_of(prompts)
    model = tiny_model("llama")
    likeliest = int(ng.evaluate(model, task)["choice"][0, 0])
    items = [dict(item) for item in task.items]
    options = items[0]["choices"]["en"]
    for item, right in zip(items, (options[likeliest], options[likeliest - 1]), strict=False):
        item["answers"] = {"en": right, "de": item["answers"]["de"]}
    found = ng.evaluate(model, replace(task, items=items))
    right = found["correct"].sel(language="en").to_numpy().astype(float)
    assert right[:2].tolist() == [1, 0]
    assert float(found["accuracy"].sel(language="en")) == pytest.approx(np.mean([0.5, *right[2:]]))
    values, clusters = np.array([0.5, *right[2:]]), np.arange(15)
    ends = [float(found[f"accuracy_{end}"].sel(language="en")) for end in ("low", "high")]
    same_order = np.argsort([f"item{i}" for i in (0, *range(2, 16))])
    expected = clustered_interval(values[same_order], clusters, 0)
    np.testing.assert_allclose(ends, expected)


def longhand_clusters(names: list[str], same: np.ndarray) -> list[str]:
    """Merged pair by pair until nothing changes; called by the first name in order."""
    found = list(names)
    while True:
        before = list(found)
        for i in range(len(names)):
            for k in range(len(names)):
                alike = names[i] == names[k] or bool((same[i] == same[k]).any())
                if alike:
                    found[i] = found[k] = min(found[i], found[k])
        if found == before:
            return found


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_clusters_are_connected_components(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"s{k}" for k in rng.integers(0, n + 2, n)]
    same = first_equal(rng.integers(0, 2 * n, (n, 2)).tolist())
    assert clusters_of(names, same).tolist() == longhand_clusters(names, same)
    assert clusters_of(names).tolist() == names
    # Indices are labels: without the first items they still say what is equal.
    some = clusters_of(names[1:], same[1:]).tolist()
    assert some == longhand_clusters(names[1:], same[1:])


def answers_of(
    right: np.ndarray, subjects: list[str], relations: list[str], same: np.ndarray
) -> xr.Dataset:
    n, languages = right.shape
    return xr.Dataset(
        {
            "correct": (("item", "language"), right),
            "counted": (("item", "language"), np.ones(right.shape, bool)),
        },
        coords={
            "item": [f"i{i}" for i in range(n)],
            "language": ["en", "de", "th"][:languages],
            "subject": ("item", subjects),
            "relation": ("item", relations),
            SAME: (("item", "language"), same),
        },
    )


def own(n: int, languages: int = 1) -> np.ndarray:
    return np.repeat(np.arange(n)[:, None], languages, axis=1)


def coverage(of: str, n_runs: int = 300) -> tuple[float, float]:
    """Of how many runs the interval holds the truth, over clusters and over items.

    Each of forty clusters is right with a chance of its own, .5 on average. A cluster is of eight
    items of a subject, or of one prompt that is asked eight times.
    """
    n_clusters, size = 40, 8
    cluster = np.repeat(np.arange(n_clusters), size)
    hits = np.zeros(2)
    for seed in range(n_runs):
        rng = np.random.default_rng(seed)
        chance = rng.beta(0.7, 0.7, n_clusters)
        right = rng.random(len(cluster)) < chance[cluster]
        subjects = [f"s{k}" for k in (cluster if of == "subject" else range(len(cluster)))]
        same = own(len(cluster))
        if of == "prompt":
            same = np.repeat(np.arange(n_clusters) * size, size)[:, None]
            right = np.repeat(right[::size], size)  # equal prompts have equal answers
        data = answers_of(right[:, None], subjects, [""] * len(cluster), same)
        found = accuracy(data["correct"], data["counted"], seed=seed)
        low, high = float(found["accuracy_low"][0]), float(found["accuracy_high"][0])
        naive = clustered_interval(right.astype(float), np.arange(len(right)), seed)
        hits += [low <= 0.5 <= high, naive[0] <= 0.5 <= naive[1]]
    return tuple(hits / n_runs)


@pytest.mark.parametrize("of", ["subject", "prompt"])
def test_intervals_cover_what_they_should_and_those_over_items_do_not(of: str) -> None:
    clustered, naive = coverage(of)
    assert 0.91 <= clustered <= 0.98
    assert naive < 0.75


@pytest.mark.parametrize(("n_subjects", "known"), [(1, False), (9, False), (10, True)])
def test_few_subjects_have_no_interval(n_subjects: int, known: bool) -> None:
    rng = np.random.default_rng(0)
    right = rng.random((60, 1)) < 0.6
    subjects = [f"s{i % n_subjects}" for i in range(60)]
    data = answers_of(right, subjects, [""] * 60, own(60))
    found = accuracy(data["correct"], data["counted"])
    assert float(found["accuracy"][0]) == pytest.approx(right.mean())
    assert bool(found["accuracy_low"].notnull()[0]) == known
    said = " ".join(said_of_samples(data))
    assert ("There is no interval" in said) == (not known)
    assert ("of one subject," in said) == (n_subjects == 1)
    # All right is no exception.
    found = accuracy(xr.ones_like(data["correct"]), data["counted"])
    assert bool(found["accuracy_low"].notnull()[0]) == known


def test_a_second_interval_over_relations_is_the_wider_claim() -> None:
    rng = np.random.default_rng(1)
    relation = np.repeat(np.arange(12), 20)
    right = rng.random(240) < rng.beta(1, 1, 12)[relation]
    names = [f"r{k:02}" for k in relation]
    subjects = [f"s{i % 80}" for i in range(240)]  # a subject is in several relations
    data = answers_of(right[:, None], subjects, names, own(240))
    found = accuracy(data["correct"], data["counted"])
    ends = [float(found[f"accuracy_{x}_over_relations"][0]) for x in ("low", "high")]
    means = [right[relation == k].mean() for k in range(12)]
    drawn = [np.mean(rng.choice(means, 12)) for _ in range(4000)]
    outside = 1.078  # percent: what is beyond Student's 2.201 times the root of 12/11
    np.testing.assert_allclose(ends, np.percentile(drawn, [outside, 100 - outside]), atol=0.02)
    narrow = float(found["accuracy_high"][0] - found["accuracy_low"][0])
    assert ends[1] - ends[0] > 1.5 * narrow
    # Too few, or an item without: there is none.
    for others in ([f"r{k % 9}" for k in relation], ["", *names[1:]]):
        fewer = answers_of(right[:, None], subjects, others, own(240))
        assert set(accuracy(fewer["correct"], fewer["counted"])) == {
            "accuracy", "accuracy_low", "accuracy_high",
        }  # fmt: skip


def test_relations_with_an_equal_prompt_are_one() -> None:
    names = [f"r{i // 2}" for i in range(22)]
    same = own(22)
    data = answers_of(np.ones((22, 1), bool), [f"s{i}" for i in range(22)], names, same)
    assert samples_of(data).relations.max() + 1 == 11
    same[2], same[6] = 0, 0
    tied = data.assign_coords({SAME: (("item", "language"), same)})
    assert samples_of(tied).relations is None


def outcome_of(seed: int, n: int = 60) -> xr.Dataset:
    """Made-up answers under two conditions and a control of two draws, some of them missing."""
    rng = np.random.default_rng(seed)
    dims = ("item", "language")
    control = (rng.random((2, 2, n, 2)) < 0.6).astype(np.float32)
    control[:, :, rng.random((n, 2)) < 0.1] = np.nan
    # A tenth of the prompts are equal to others from the beginning.
    keys = np.where(rng.random((n, 2)) < 0.1, rng.integers(0, 6, (n, 2)), 10 + own(n, 2))
    same = first_equal(keys.tolist())
    own_arm = rng.random((2, 1, n, 2)) < 0.5
    return xr.Dataset(
        {
            "correct": (("condition", "arm", *dims), np.concatenate([own_arm, control], axis=1)),
            "correct_no_edit": (dims, rng.random((n, 2)) < 0.7),
            "counted": (dims, rng.random((n, 2)) < 0.9),
        },
        coords={
            "condition": ["a", "b"],
            "arm": ["edit", "size 0", "size 1"],
            "control": ("arm", ["", "size", "size"]),
            "draw": ("arm", [-1, 0, 1]),
            "item": [f"i{i:02}" for i in range(n)],
            "language": ["en", "de"],
            "subject": ("item", [f"s{k:02}" for k in rng.integers(0, 40, n)]),
            "relation": ("item", [f"r{k:02}" for k in rng.integers(0, 30, n)]),
            SAME: (dims, same),
        },
    )


def again(data: xr.Dataset, order: np.ndarray) -> xr.Dataset:
    """Items in another order, or several times, as if their prompts were looked up anew."""
    found = data.isel(item=order)
    seen: dict[str, int] = {}
    names = []
    for name in found["item"].to_numpy().tolist():
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name} again {seen[name]}")
    same = first_equal(found[SAME].to_numpy().tolist())
    return found.assign_coords({"item": names, SAME: (("item", "language"), same)})


def orders(n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    twice = np.repeat(np.arange(n), 2)
    thrice = np.concatenate([np.arange(n), rng.permutation(n), np.arange(n)])
    return {"permuted": rng.permutation(n), "twice": twice, "thrice": thrice}


COUNTS = ("n_prompts", "n_prompts_by_language", "reason")  # that says of how many prompts


@settings(deadline=None, max_examples=2)
@given(st.integers(0, 10_000))
def test_effects_are_blind_to_the_order_of_items_and_to_repeated_ones(seed: int) -> None:
    data = outcome_of(seed)
    expected = effects(data, equivalent_within=0.05)
    assert expected["p"].notnull().any()
    for how, order in orders(data.sizes["item"], seed).items():
        found = effects(again(data, order), equivalent_within=0.05)
        assert set(found) == set(expected)
        several = () if how == "permuted" else COUNTS
        xr.testing.assert_allclose(found.drop_vars(several), expected.drop_vars(several), atol=1e-9)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000))
def test_accuracy_is_blind_to_them_too(seed: int) -> None:
    data = outcome_of(seed)

    def of(some: xr.Dataset) -> xr.Dataset:
        return xr.Dataset(accuracy(some["correct_no_edit"], some["counted"]))

    for order in orders(data.sizes["item"], seed).values():
        xr.testing.assert_allclose(of(again(data, order)), of(data), atol=1e-9)
    # Repeated items of other subjects are no other samples either: the prompts are the same.
    copied = again(data, np.tile(np.arange(data.sizes["item"]), 2))
    subjects = [f"{s}{i // data.sizes['item'] or ''}" for i, s in enumerate(copied["subject"].data)]
    xr.testing.assert_allclose(
        of(copied.assign_coords(subject=("item", subjects))), of(data), atol=1e-9
    )


def test_effects_with_equal_prompts_longhand() -> None:
    data = outcome_of(3)
    found = effects(data, equivalent_within=0.05)
    same, counted = data[SAME].to_numpy(), data["counted"].to_numpy()
    moved = (data["correct"][0, 0].astype(float) - data["correct_no_edit"].astype(float)).to_numpy()
    cluster = longhand_clusters(data["subject"].to_numpy().tolist(), same)
    groups: dict[tuple[int, int], list[float]] = {}
    of_group: dict[tuple[int, int], str] = {}
    for i, j in np.argwhere(counted):
        groups.setdefault((same[i, j], j), []).append(moved[i, j])
        of_group[same[i, j], j] = cluster[i]
    assert len(groups) < counted.sum(), "some prompts are equal"
    values = np.array([np.mean(values) for values in groups.values()])
    clusters = np.array([of_group[key] for key in groups])
    here = found.isel(condition=0).sel(against="no_edit")
    assert float(here["difference"]) == pytest.approx(values.mean())
    assert int(here["n_subjects"]) == len(set(clusters))
    expected = difference(np.stack([values, 0 * values]), clusters, 0.05, 0)
    assert float(here["p"]) == pytest.approx(expected.p)
    ends = [float(here[f"difference_{end}"]) for end in ("low", "high")]
    np.testing.assert_allclose(ends, (expected.low, expected.high), atol=1e-8)
    assert np.isfinite(here["difference_low_over_relations"])


def test_the_regression_is_blind_to_repeated_items() -> None:
    rng = np.random.default_rng(0)
    n = 60
    shared, counted = rng.random((n, 3)), np.ones((n, 3), bool)
    correct = rng.random((n, 3)) < 0.3 + 0.4 * shared
    samples = Samples(own(n, 3), np.arange(n) // 2, None)
    once = correctness_on_sharing(correct, shared, counted, samples)
    twice = Samples(np.tile(samples.same, (2, 1)), np.tile(samples.subjects, 2), None)
    both = [np.concatenate([x, x]) for x in (correct, shared, counted)]
    found = correctness_on_sharing(*both, twice)
    assert found.prompts == once.prompts == 3 * n
    for name in ("odds_ratio", "low", "high", "p"):
        assert getattr(found, name) == pytest.approx(getattr(once, name))


def repeated(task: ng.ParallelTask) -> ng.ParallelTask:
    """Every item a second time, under another id."""
    copies = [{**item, "id": f"{item['id']} again"} for item in task.items]
    return replace(task, items=[*task.items, *copies])


def test_a_comparison_is_blind_to_repeated_items() -> None:
    def compared(task: ng.ParallelTask) -> xr.Dataset:
        models = {str(seed): tiny_model("llama", seed) for seed in (0, 1)}
        return ng.compare(
            {k: (ng.record(m, task), ng.evaluate(m, task)) for k, m in models.items()}
        )

    once, twice = compared(small_task(16)), compared(repeated(small_task(16)))
    names = [n for n in once if "shuffled" not in str(n)]
    xr.testing.assert_allclose(once[names], twice[names], atol=1e-6)
    assert np.isfinite(once["accuracy_overall_change_low"][1])
    assert "16 of 32 prompts in English" in twice.attrs["observations"]


def test_causal_agreement_is_blind_to_repeated_items() -> None:
    model, task = tiny_model("llama"), small_task(12, "en de")
    names = [f"{size}agreement{end}" for size in ("", "size_") for end in ("", "_low", "_high")]
    once, twice = (
        ng.causal_agreement(model, x, scores=("effective",), n_neurons=4)
        for x in (task, repeated(task))
    )
    xr.testing.assert_allclose(once[names], twice[names], atol=1e-4)
    assert once["agreement_low"].notnull().all()
    values = longhand_correlations(once)
    for layer in range(model.n_layers):
        here = once.sel(layer=layer, score="effective")
        known = values[:, :, layer][~np.isnan(values[:, :, layer])]
        assert float(here["agreement"]) == pytest.approx(known.mean())
    few = ng.causal_agreement(model, small_task(4), scores=("effective",), n_neurons=4)
    assert few["agreement_low"].isnull().all()
    assert few["agreement"].notnull().all()


def longhand_correlations(found: xr.Dataset) -> np.ndarray:
    """Spearman's correlation of each prompt and layer (item, language, layer), by pandas."""
    shape = [found.sizes[dim] for dim in ("item", "language", "layer")]
    values = np.full(shape, np.nan)
    for place in np.ndindex(*shape):
        where = dict(zip(("item", "language", "layer"), place, strict=True))
        one = found["value"].isel(score=0, **where).to_series()
        values[place] = one.corr(found["effect"].isel(where).to_series(), method="spearman")
    return values


def test_results_of_before_open_and_say_that_nothing_is_collapsed(tmp_path: Path) -> None:
    model, task = tiny_model("llama"), repeated(small_task(12))
    found = ng.evaluate(model, task)
    old = found.drop_vars(SAME)
    ng.save(old, tmp_path / "old")
    opened = ng.load(tmp_path / "old")
    again = ng.evaluate(model, task, out=tmp_path / "new")
    assert said_of_samples(again)[0].startswith("12 of 24 prompts in English")
    assert said_of_samples(opened)[0].endswith("intervals may be too narrow.")
    naive = accuracy(opened["correct"], opened["counted"])
    wide = found["accuracy_high"] - found["accuracy_low"]
    assert (naive["accuracy_high"] - naive["accuracy_low"] < wide).all()
    recording = ng.record(model, task)
    both = ng.compare({"new": (recording, found), "old": (recording, old)}, lineage=True)
    assert "did not look for equal prompts" in both.attrs["observations"]


def test_an_unfinished_result_of_before_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    """Its folder says nothing of equal prompts, so neither does the result."""
    model, task = tiny_model("llama"), small_task(40)
    with monkeypatch.context() as patch:
        patch.setattr("neuroglot.answering.evaluation._with_same", lambda head, *_: head)
        patch.setattr("neuroglot.answering.evaluation._accuracy_of", _stop)
        with pytest.raises(RuntimeError, match="stopped"):
            ng.evaluate(model, task, out=tmp_path / "a")
    found = ng.evaluate(model, task, out=tmp_path / "a")
    assert SAME not in found.coords
    whole = ng.evaluate(model, task)["correct"].drop_vars(SAME)
    xr.testing.assert_equal(found["correct"], whole)


def _stop(_: xr.Dataset) -> xr.Dataset:
    raise RuntimeError("stopped")


def test_no_prompt_is_in_both_halves() -> None:
    prompts = [[f"w{i + 2} w{i % 7 + 2}", f"w{i // 2 + 2} w3"] for i in range(24)]
    task = task_of(prompts)  # items 2k and 2k + 1 are asked alike in German
    for seed in range(5):
        parts = ({x["id"] for x in half.items} for half in halves(task, seed=seed))
        one, other = ({int(x[4:]) // 2 for x in part} for part in parts)
        assert not one & other
    # As tokens, prompts may be equal whose texts are not.
    task = task_of([[f"w{i + 2}", f"w3 w{i + 2} {'hm' if i % 2 else 'ah'}"] for i in range(20)])
    same = same_tokens(tiny_model("llama"), task, 4)
    same[1::2, 1] = same[::2, 1]
    one, other = ({int(x[4:]) // 2 for x in part} for part in parts_of(task, 0.5, 0, same))
    assert not one & other
    with pytest.raises(ng.NeuroglotError, match="equal prompts"):
        halves(task_of([["w2", "w3"], ["w2", "w4"], ["w5", "w4"]]))


@pytest.mark.parametrize("most", [evaluation.MOST_KEPT, 12, 0])
def test_each_text_is_tokenised_once(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is kept; the rest is tokenised again where it is answered, to the same numbers."""
    model, task = tiny_model("llama"), small_task(40)
    expected = ng.evaluate(model, task)
    n_texts: list[int] = []

    def counted(*given: Any, **how: Any) -> Any:
        n_texts.append(len(given[2]))
        return encode(*given, **how)

    monkeypatch.setattr(scoring, "encode", counted)
    monkeypatch.setattr(evaluation, "MOST_KEPT", most)
    xr.testing.assert_identical(ng.evaluate(model, task), expected)
    choices = {
        (item["prompts"][x], choice)
        for item in task.items
        for x in task.languages
        for choice in item["choices"][x]
    }
    assert sum(n_texts) == len(choices) if most > 1000 else sum(n_texts) > len(choices)
