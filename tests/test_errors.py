"""Messages are one line of bounded length, whatever they quote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import neuroglot as ng
from neuroglot.errors import listed, plain, shown
from tests.testing import tiny_model

MEGABYTE = "w2 " * 350_000


def test_a_message_is_one_line_and_its_end_stays() -> None:
    message = str(ng.NeuroglotError(f"bad {MEGABYTE}\n\x1b[31m\ud800\u202e; do this."))
    assert len(message) < 2000
    assert message.startswith("bad w2")
    assert message.endswith("\\n\\x1b[31m\\ud800\\u202e; do this.")
    assert "characters left out" in message
    assert str(ng.NeuroglotError("short")) == "short"


def test_what_letters_need_is_not_touched() -> None:
    for text in ("می‌خواهم", "क्‍ष", "\u200fעברית", "ไทย", "a\u00a0b", "👩‍👩‍👧"):
        assert plain(text) == text


def test_values_and_names_are_cut() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert len(shown(deep)) < 50
    assert len(shown(MEGABYTE)) < 300
    assert shown("a") == "'a'"
    assert len(listed([MEGABYTE] * 20)) < 3000
    assert listed(range(14)).endswith("11 and 2 more")


def task_of(**fields: Any) -> ng.ParallelTask:
    record = {
        "id": "a",
        "prompts": {"en": "w2", "de": "w3"},
        "choices": {"en": ["w4", "w5"], "de": ["w4", "w5"]},
        "answers": {"en": "w4", "de": "w5"},
    }
    return ng.ParallelTask.from_records([record | fields], name="t")


@pytest.mark.parametrize("act", [ng.record, ng.evaluate, ng.plan_recording])
@pytest.mark.parametrize("field", ["prompts", "choices"])
def test_a_megabyte_is_refused(act: Callable[..., Any], field: str) -> None:
    if field == "choices" and act is not ng.evaluate:
        pytest.skip("prompts only are recorded")
    long = ["w4", MEGABYTE, "w5"] if field == "choices" else MEGABYTE
    one = task_of(**{field: {"en": long, "de": long}})
    items = [{**one.items[0], "id": f"i{i}"} for i in range(64)]
    task = ng.ParallelTask.from_records(items, name="t")
    model = tiny_model("gpt2")
    with pytest.raises(ng.NeuroglotError, match=r"item 'i0' in '(en|de)' has .* context holds"):
        act(model, task)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"prompts": {"en": "w2", "de": "a\ud800"}},
            r"item 'a' .* the prompt in 'de' holds half a",
        ),
        ({"answers": {"en": "\udfff", "de": "w5"}}, r"item 'a' .* the answer in 'en' holds half a"),
        ({"prompts": {"en": "w\0", "de": "w"}}, r"item 'a' .* prompt in 'en' holds a null char"),
        ({"choices": {"en": ["w4", "w5"], "de": ["w5", "\ud800"]}}, r"item 'a' .* in 'de' .* half"),
        ({"id": "b\0"}, "'id' holds a null character"),
        ({"id": "\ud800"}, "'id' holds half a surrogate pair"),
        ({"relation": ["x"]}, "'relation' is empty"),
        ({"prompts": {"en": "w2", "\ud800": "w"}}, "the language .* holds half a surrogate pair"),
        ({"prompts": {"en": "w2", 5: "w"}}, "the language 5 is empty"),
    ],
)
def test_text_that_cannot_be_kept(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ng.NeuroglotError, match=message):
        task_of(**fields)
