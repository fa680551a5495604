"""A result grows to more items and languages, and nothing that is there is made again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import neuroglot as ng
from neuroglot.answering import evaluation
from neuroglot.recording import recorder
from neuroglot.store.blockwise import InFolder
from tests.answering.test_masked import masked_task
from tests.killing import files_of
from tests.testing import small_task, tiny_model

WHOLE = small_task(20, "en de fr")
MASKED = masked_task(20, "en de fr")
WRITTEN = ng.ParallelTask.from_records(
    [{**item, "choices": {}} for item in WHOLE.items], name="written"
)
WRITTEN_AS_WHOLE = replace(WRITTEN, name=WHOLE.name)

Prompts = list[tuple[str, str]]
Make = Callable[..., xr.Dataset]


def part(task: ng.ParallelTask, n_items: int, n_languages: int) -> ng.ParallelTask:
    """The first items and languages of a task, as if no others had been loaded."""
    languages = task.languages[:n_languages]
    fields = ("prompts", "choices", "answers", "joins", "masked", "aliases")
    items = [
        item
        | {field: {x: item[field][x] for x in languages} for field in fields if item.get(field)}
        | {"held_out": [x for x in item["held_out"] if x in languages]}
        for item in task.items[:n_items]
    ]
    return ng.ParallelTask.from_records(items, name=task.name)


READING = ng.Reading(keep_values=True, thresholds=(0.0, 0.1))
ANSWERING = ng.Answering(max_new_tokens=2)


def record(task: ng.ParallelTask, out: Path | None, **how: Any) -> xr.Dataset:
    model = how.pop("model", tiny_model("llama"))
    return ng.record(model, task, out=out, **{"reading": READING} | how).dataset.load()


def evaluate(task: ng.ParallelTask, out: Path | None, **how: Any) -> xr.Dataset:
    model = how.pop("model", tiny_model("llama"))
    return ng.evaluate(model, task, out=out, **{"answering": ANSWERING} | how)


OTHERWISE: dict[Any, dict[str, Any]] = {
    record: {"reading": replace(READING, site="coefficient")},
    evaluate: {"answering": replace(ANSWERING, choice_score="mean")},
}


CASES = pytest.mark.parametrize(
    ("make", "task"),
    [(record, WHOLE), (evaluate, WHOLE), (evaluate, MASKED), (evaluate, WRITTEN)],
    ids=["record", "choose", "masked", "write"],
)
BOTH = pytest.mark.parametrize("make", [record, evaluate])


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Prompts:
    """The prompts that were run, in small blocks."""
    monkeypatch.setattr(recorder, "BLOCK", 8)
    monkeypatch.setattr(evaluation, "ITEMS_AT_ONCE", 8)
    found: Prompts = []

    def counting(real: Callable[..., Any], place: int) -> Callable[..., Any]:
        def counted(*given: Any) -> Any:
            task = given[place]
            found.extend((item["id"], x) for item in task.items for x in task.languages)
            return real(*given)

        return counted

    for module, name in ((recorder, "record_block"), (evaluation, "_answers")):
        monkeypatch.setattr(module, name, counting(getattr(module, name), 1))
    return found


def prompts_of(task: ng.ParallelTask) -> set[tuple[str, str]]:
    return {(item["id"], x) for item in task.items for x in task.languages}


def same(found: xr.Dataset, wanted: xr.Dataset) -> None:
    """Bits, answers and texts are equal; numbers may depend on which prompts share a batch."""
    assert set(found.variables) == set(wanted.variables)
    assert found.attrs == wanted.attrs
    for name in wanted.variables:
        if wanted[name].dtype.kind == "f":
            xr.testing.assert_allclose(found[name], wanted[name], atol=1e-5)
        else:
            xr.testing.assert_identical(found[name], wanted[name])


SIZES = {
    "items": [(12, 3), (20, 3)],
    "languages": [(20, 2), (20, 3)],
    "both at once": [(12, 2), (20, 3)],
    "items, then languages": [(5, 2), (20, 2), (20, 3)],
    "languages, then items": [(12, 2), (12, 3), (20, 3)],
    "bit by bit": [(3, 2), (8, 2), (9, 3), (16, 3), (20, 3)],
}


@pytest.mark.parametrize(
    ("make", "task", "way"),
    [
        *((record, WHOLE, way) for way in SIZES),
        *((evaluate, MASKED, way) for way in SIZES),
        *((evaluate, task, "both at once") for task in (WHOLE, WRITTEN)),
    ],
)
def test_it_ends_as_if_made_at_once_and_nothing_is_made_twice(
    make: Make, task: ng.ParallelTask, way: str, tmp_path: Path, made: Prompts
) -> None:
    there: set[tuple[str, str]] = set()
    for size in SIZES[way]:
        made.clear()
        wanted = part(task, *size)
        found = make(wanted, tmp_path / "r")
        assert len(made) == len(set(made))
        assert set(made) == prompts_of(wanted) - there
        there = prompts_of(wanted)
    same(found, make(wanted, None))
    made.clear()
    xr.testing.assert_identical(make(wanted, tmp_path / "r"), found)
    assert not made, "a finished one is opened"
    assert {path.name for path in tmp_path.iterdir()} == {"r", ".r.lock"}
    assert not {"kept"} & {path.name for path in (tmp_path / "r").iterdir()}


def test_masked_prompts_are_asked_with_new_choices_only(
    tmp_path: Path, made: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    real = evaluation.MaskedScores._run
    monkeypatch.setattr(
        evaluation.MaskedScores,
        "_run",
        lambda self, places: (asked.extend(map(tuple, places)), real(self, places))[1],
    )
    evaluate(part(MASKED, 12, 2), tmp_path / "r")
    assert sorted(asked) == list(np.ndindex(12, 2))
    asked.clear()
    evaluate(MASKED, tmp_path / "r")
    assert sorted(asked) == [x for x in np.ndindex(20, 3) if x not in set(np.ndindex(12, 2))]


@CASES
def test_the_order_is_that_of_the_new_task(
    make: Make, task: ng.ParallelTask, tmp_path: Path, made: Prompts
) -> None:
    make(part(task, 12, 2), tmp_path / "r")
    turned = ng.ParallelTask.from_records(
        list(reversed(task.items)), name=task.name, languages=["fr", "de", "en"]
    )
    made.clear()
    found = make(turned, tmp_path / "r")
    assert set(made) == prompts_of(turned) - prompts_of(part(task, 12, 2))
    same(found, make(turned, None))


def guessed(n_items: int, answers: list[str], choices: list[str]) -> list[dict[str, Any]]:
    """Items with the same choices, of which these are right in turn."""
    return [
        item
        | {
            "relation": "one",
            "choices": dict.fromkeys(WHOLE.languages, choices),
            "answers": dict.fromkeys(WHOLE.languages, answers[i % len(answers)]),
        }
        for i, item in enumerate(WHOLE.items[:n_items])
    ]


def test_choices_may_become_more_and_majorities_change(tmp_path: Path, made: Prompts) -> None:
    first = guessed(12, ["w5", "w6", "w5"], ["w5", "w6", "w7"])
    then = guessed(20, ["w6"], ["w5", "w6", "w7", "w8", "w9 w10"])[12:]
    few = ng.ParallelTask.from_records(first, name="guessed")
    all_ = ng.ParallelTask.from_records([*first, *then], name="guessed")
    before = evaluate(few, tmp_path / "r")
    assert before.sizes["option"] == 3
    made.clear()
    found = evaluate(all_, tmp_path / "r")
    assert found.sizes["option"] == 5
    assert len(made) == 24
    same(found, evaluate(all_, None))
    assert not (found["majority"][:12] == before["majority"]).any(), "w6 is right most often now"


@BOTH
def test_an_unfinished_one_grows(
    make: Make, tmp_path: Path, made: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, whole = part(WHOLE, 17, 2), WHOLE
    stopped_after(1, lambda: make(small, tmp_path / "r"))
    made.clear()
    stopped_after(2, lambda: make(whole, tmp_path / "r"))
    with pytest.raises(ng.NeuroglotError, match="unfinished"):
        ng.load(tmp_path / "r")
    found = make(whole, tmp_path / "r")
    assert set(made) == prompts_of(whole) - prompts_of(part(WHOLE, 8, 2))
    same(found, make(whole, None))


def stopped_after(n_blocks: int, make: Callable[[], object]) -> None:
    """Let a run stop once so many blocks are written."""
    with pytest.MonkeyPatch.context() as patch:
        real, written = InFolder.write, []

        def write(self: InFolder, *given: Any, **how: Any) -> None:
            if how.get("is_whole", True) and len(written) == n_blocks:
                raise RuntimeError("stopped")
            real(self, *given, **how)
            # What is taken over is no block that was made.
            if ".neuroglot-new" not in str(self.path):
                written.append(1)

        patch.setattr(InFolder, "write", write)
        with pytest.raises(RuntimeError, match="stopped"):
            make()


def chunks_of(out: Path, name: str) -> list[Path]:
    return [path for path in sorted((out / name / "c").rglob("*")) if path.is_file()]


@pytest.mark.parametrize(("make", "name"), [(record, "values"), (evaluate, "log_prob")])
def test_what_is_damaged_is_not_taken_over(
    make: Make, name: str, tmp_path: Path, made: Prompts
) -> None:
    make(part(WHOLE, 16, 2), tmp_path / "r")
    chunk = chunks_of(tmp_path / "r", name)[1]
    chunk.write_bytes(chunk.read_bytes()[:-1] + bytes([chunk.read_bytes()[-1] ^ 1]))
    made.clear()
    with pytest.warns(UserWarning, match="items 8 to 15 are damaged .* made again"):
        found = make(WHOLE, tmp_path / "r")
    assert set(made) == prompts_of(WHOLE) - prompts_of(part(WHOLE, 8, 2))
    same(found, make(WHOLE, None))


@pytest.mark.parametrize(("make", "name"), [(record, "values"), (evaluate, "log_prob")])
@pytest.mark.parametrize("lost", ["a block", "what is kept"])
def test_what_is_damaged_while_it_grows_is_made_again(
    make: Make, name: str, lost: str, tmp_path: Path, made: Prompts
) -> None:
    make(part(WHOLE, 20, 2), tmp_path / "r")
    stopped_after(1, lambda: make(WHOLE, tmp_path / "r"))
    chunk = chunks_of(tmp_path / "r", name if lost == "a block" else "kept")[-1]
    chunk.write_bytes(chunk.read_bytes()[:-1])
    made.clear()
    with pytest.warns(UserWarning, match=r"damaged .* made again"):
        found = make(WHOLE, tmp_path / "r")
    again = {(item["id"], x) for item in WHOLE.items[8:] for x in WHOLE.languages}
    if lost == "a block":
        again -= {(item["id"], x) for item in WHOLE.items[8:16] for x in ("en", "de")}
    assert set(made) == again
    same(found, make(WHOLE, None))


@pytest.mark.parametrize(
    ("make", "field"),
    [(record, "prompts"), (evaluate, "prompts"), (evaluate, "choices"), (evaluate, "masked")],
)
def test_an_item_that_asks_something_else_is_made_again(
    make: Make, field: str, tmp_path: Path, made: Prompts
) -> None:
    make(part(MASKED, 12, 3), tmp_path / "r")
    items = [dict(item) for item in MASKED.items]
    items[3] = items[3] | {
        field: items[3][field] | {"de": [*items[3]["choices"]["de"][:2], "w2 w3"]}
        if field == "choices"
        else items[3][field] | {"de": "w7 w8 w9"}
    }
    other = ng.ParallelTask.from_records(items, name="masked")
    made.clear()
    with pytest.warns(UserWarning, match=r"^1 prompts ask something else .* 'item3' in 'de'"):
        found = make(other, tmp_path / "r")
    assert set(made) == prompts_of(other) - prompts_of(part(other, 12, 3)) | {("item3", "de")}
    same(found, make(other, None))


def test_a_recording_does_not_depend_on_answers(tmp_path: Path, made: Prompts) -> None:
    record(part(WHOLE, 12, 3), tmp_path / "r")
    made.clear()
    same(record(WRITTEN_AS_WHOLE, tmp_path / "r"), record(WRITTEN_AS_WHOLE, None))
    assert len(made) == 24 + 60


@BOTH
def test_fewer_others_and_other_settings_are_refused(
    make: Make, tmp_path: Path, made: Prompts
) -> None:
    there = part(WHOLE, 12, 2)
    make(there, tmp_path / "r")
    before = files_of(tmp_path / "r")
    made.clear()
    strangers = small_task(20, "en de fr", seed=1)
    renamed = [item | {"id": f"other {item['id']}"} for item in WHOLE.items]
    for task, how in [
        (part(WHOLE, 11, 2), {}),
        (part(WHOLE, 11, 3), {}),
        (ng.ParallelTask.from_records(WHOLE.items, name="small", languages=["en", "fr"]), {}),
        (strangers, {}),
        (ng.ParallelTask.from_records(renamed, name="small"), {}),
        (WHOLE, {"model": tiny_model("llama", seed=1)}),
        (WHOLE, {"grow": False}),
        (WHOLE, OTHERWISE[make]),
    ]:
        with pytest.raises(ng.NeuroglotError, match="was made with other settings"):
            make(task, tmp_path / "r", **how)
    assert not made
    assert files_of(tmp_path / "r") == before


@BOTH
def test_one_of_before_that_does_not_say_what_was_asked_is_refused(
    make: Make, tmp_path: Path
) -> None:
    there = part(WHOLE, 12, 2)
    whole = make(there, tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "asked")
    group = zarr.open_group(tmp_path / "r", mode="r+")
    layout = dict(group.attrs["layout"])  # type: ignore[arg-type]
    del layout["asked"]
    group.attrs["layout"] = layout
    before = files_of(tmp_path / "r")
    with pytest.raises(
        ng.NeuroglotError, match=r"does not say what each prompt asked.*--overwrite"
    ):
        make(WHOLE, tmp_path / "r")
    assert files_of(tmp_path / "r") == before
    xr.testing.assert_identical(make(there, tmp_path / "r"), whole)


def test_it_says_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(part(WHOLE, 12, 2), tmp_path / "r")
    assert "are there" not in capsys.readouterr().err
    record(part(WHOLE, 20, 2), tmp_path / "r")
    said = "record: 12 of 20 items are there in 2 of 2 languages; 16 prompts are added."
    assert said in capsys.readouterr().err
    record(WHOLE, tmp_path / "r")
    said = "record: 20 of 20 items are there in 2 of 3 languages; 20 prompts are added."
    err = capsys.readouterr().err
    assert said in err
    assert "67%" in err, "the bar begins with what is there"
