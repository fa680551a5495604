"""Shared beginnings: found, run once, and without a trace in the results."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import neuroglot as ng
from neuroglot.recording import blocks
from neuroglot.running import prefixes
from neuroglot.running.prefixes import shared_prefixes
from tests.families import FAMILIES, WITHOUT_CACHE
from tests.testing import longhand_values, random_text, tiny_model, tokenizer

prompts = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=7), max_size=7)


def best_saving(sequences: list[list[int]]) -> int:
    """The most tokens that any way of putting sorted prompts into groups saves."""
    ordered = sorted(sequences)
    best = [0]
    for end in range(1, len(ordered) + 1):
        options = [best[end - 1]]
        for start in range(end - 1):
            members = ordered[start:end]
            shared = 0
            while (
                all(len(m) > shared + 1 for m in members) and len({m[shared] for m in members}) == 1
            ):
                shared += 1
            options.append(best[start] + (len(members) - 1) * shared)
        best.append(max(options))
    return best[-1]


@settings(max_examples=500, deadline=None)
@given(prompts)
def test_groups_save_about_as_much_as_can_be_saved(sequences: list[list[int]]) -> None:
    with mock.patch.object(prefixes, "LEAST_SAVED", 0):
        groups = shared_prefixes(sequences)
    assert sorted(row for group in groups for row in group.rows) == list(range(len(sequences)))
    saved = 0
    for group in groups:
        begins = {tuple(sequences[row][: group.n_shared]) for row in group.rows}
        assert len(begins) == 1
        assert all(len(sequences[row]) > group.n_shared for row in group.rows)
        assert group.n_shared == 0 or len(group.rows) > 1
        saved += (len(group.rows) - 1) * group.n_shared
    # The best would look at every stretch of prompts; what is found looks at the longest only.
    assert best_saving(sequences) / 2 <= saved <= best_saving(sequences)


def test_a_few_that_share_much_are_not_put_with_many_that_share_little() -> None:
    few = [[1, 1, *[2] * 20, last] for last in range(3, 6)]
    many = [[1, 1, 9, last] for last in range(10)]
    groups = shared_prefixes(few + many)
    assert [(sorted(g.rows), g.n_shared) for g in groups if len(g.rows) == 3] == [([0, 1, 2], 22)]
    # Thousands of nested prompts are no reason to run out of stack.
    nested = [[1] * n for n in range(1, 1500)]
    assert sum(len(group.rows) for group in shared_prefixes(nested)) == len(nested)


def test_what_saves_little_runs_by_itself() -> None:
    long = [[1, *[n] * 30] for n in range(4)]
    assert {group.n_shared for group in shared_prefixes(long)} == {0}
    assert shared_prefixes([]) == []


def sharing_task() -> ng.ParallelTask:
    """As in editing: the prompts of an item begin with the same fact; some items share more."""
    rng = np.random.default_rng(0)
    records: list[dict[str, Any]] = []
    instruction = random_text(rng, 3)
    for i in range(6):
        fact = f"{instruction} {random_text(rng, 9)} w9 w8"
        prompts = {code: f"{fact} {random_text(rng, 4)}" for code in ("en", "de", "th")}
        records.append({"id": str(i), "prompts": prompts})
    records.append({"id": "other", "prompts": {c: random_text(rng) for c in ("en", "de", "th")}})
    return ng.ParallelTask.from_records(records, name="sharing")


@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_those_of_whole_prompts(family: str) -> None:
    model, task = tiny_model(family), sharing_task()
    assert model.shares_cache or family in WITHOUT_CACHE
    alone = ng.record(model.with_batch_size(1), task, reading=ng.Reading(keep_values=True))
    for batch_size in (2, 5, "auto"):
        found = ng.record(
            model.with_batch_size(batch_size), task, reading=ng.Reading(keep_values=True)
        )
        np.testing.assert_allclose(found.values, alone.values, atol=2e-4)
    if family in ("gpt2", "bloom", "llama"):
        for item in task.items:
            for language in task.languages:
                values = longhand_values(model, item["prompts"][language], "gate")
                found = alone.values.sel(item=item["id"], language=language)
                np.testing.assert_allclose(found, values[:, -1], atol=1e-4)


def test_shared_beginnings_run_once() -> None:
    model, task, seen = tiny_model("gpt2"), sharing_task(), []
    handle = model.hf.transformer.h[0].register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].shape[0] * inputs[0].shape[1])
    )
    texts = [item["prompts"][language] for item in task.items for language in task.languages]
    total = sum(len(tokenizer()(text).input_ids) for text in texts)
    ng.record(model, task)
    assert sum(seen) < 0.75 * total, "padding included"
    seen.clear()
    ng.record(model, task, reading=ng.Reading(position="all"))
    handle.remove()
    assert sum(seen) >= total, "every position of every prompt is looked at"


def test_out_of_memory_halves_groups_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model, task = tiny_model("llama"), sharing_task()
    expected = ng.record(model, task, reading=ng.Reading(keep_values=True))
    real = blocks._values_after

    def small(model: Any, sequences: Any, groups: Any, settings: Any) -> Any:
        if sum(len(group.rows) for group in groups) > 2:
            raise torch.OutOfMemoryError("too many")
        return real(model, sequences, groups, settings)

    monkeypatch.setattr(blocks, "_values_after", small)
    found = ng.record(model, task, reading=ng.Reading(keep_values=True))
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
