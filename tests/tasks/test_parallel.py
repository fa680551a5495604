"""Tasks refuse what is not parallel, and say which item is to blame."""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any

import pytest

import neuroglot as ng
from tests.testing import small_task, tiny_model

RECORDS: list[dict[str, Any]] = [
    {"id": "a", "prompts": {"en": "one", "de": "eins"}},
    {
        "id": "b",
        "prompts": {"en": "two", "de": "zwei"},
        "choices": {"en": ["x", "y"], "de": ["u", "v"]},
        "answers": {"en": "y", "de": "v"},
        "relation": "r",
        "subject": "s",
        "held_out": ["de"],
    },
]


CHECKSUM = "1fb211cee3bdb08e2d6ee8ad0b33a0559c65d110cd1bf048301e248430437a36"


def changed(path: list[Any], value: Any) -> list[dict[str, Any]]:
    records = copy.deepcopy(RECORDS)
    target: Any = records
    for step in path[:-1]:
        target = target[step]
    if value is None:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return records


def test_optional_fields_are_filled() -> None:
    task = ng.ParallelTask.from_records(RECORDS, name="t")
    assert task.languages == ("en", "de")
    assert len(task) == 2
    joins = {"en": " ", "de": " "}
    empty = {"answers": {}, "choices": {}, "joins": joins, "held_out": []}
    empty |= {"relation": None, "subject": None}
    assert task.items[0] == {**RECORDS[0], **empty}
    assert task.items[1] == {**RECORDS[1], "joins": joins}
    assert not task.has_choices


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (changed([1, "prompts", "de"], None), "item 'b'.*'prompts' lacks language de"),
        (changed([0, "prompts", "de"], None), "item 'a'.*'prompts' lacks language de"),
        (changed([0, "prompts", "de"], 7), "item 'a'.*prompt in 'de' is empty"),
        (changed([1, "held_out"], "de"), "item 'b'.*'held_out' must be a list"),
        (changed([1, "choices", "de"], ["v", 3]), "item 'b'.*must be a list of texts"),
        (["one", "two"], "expected records as dicts, found str"),
        (changed([1, "id"], "a"), "item 'a' occurs twice"),
        (changed([1, "prompts", "en"], " \n"), "item 'b'.*prompt in 'en' is empty"),
        (changed([1, "answers", "de"], "w"), "item 'b'.*answer 'w' in 'de' is not among"),
        (changed([1, "answers"], None), "item 'b'.*answer None"),
        (changed([1, "answers", "de"], ""), "item 'b'.*answer in 'de' is empty"),
        (changed([1, "joins"], {"en": " ", "de": "-"}), "item 'b'.*join in 'de' must be white"),
        (changed([1, "choices", "de"], ["v", "w", "x"]), "different numbers of choices .*'de': 3"),
        (changed([1, "choices"], ["v"]), "item 'b'.*choices must be a mapping"),
        (changed([1, "choices", "de"], ["v", "v"]), "item 'b'.*occurs twice"),
        (changed([1, "choices", "de"], ["v"]), "item 'b'.*at least two"),
        (changed([1, "choices", "de"], None), "item 'b'.*'choices' lacks language de"),
        (changed([1, "answers", "de"], ["v", "u"]), "item 'b'.*several answers are right, but one"),
        (changed([0, "answers"], {"en": ["x", ""], "de": "y"}), "item 'a'.*an answer in 'en' is e"),
        (changed([0, "answers"], {"en": [], "de": "y"}), "item 'a'.*answer in 'en' is empty or no"),
        (changed([0, "aliases"], {"en": ["x"]}), "item 'a'.*has aliases, but no answers"),
        (changed([0, "prompts"], "one"), "'prompts' must be a mapping"),
        (changed([0, "masked"], {"en": "it"}), "item 'a'.*'masked' lacks language de"),
        (changed([0, "masked"], {"en": "it", "de": " "}), "item 'a'.*masked prompt in 'de' is emp"),
        (changed([0, "masked"], {"en": "it", "de": None}), "item 'a'.*masked prompt in 'de' is e"),
        (
            changed([0, "masked"], {"en": "it", "de": "eins"}),
            "item 'a'.*masked prompt in 'de' is the prompt itself .'eins'.; put a neutral subject",
        ),
        (changed([0, "masked"], "it"), "item 'a'.*masked must be a mapping from language"),
        ([{"id": "a", "prompts": {"en": "one"}}], "at least two different languages"),
        (changed([0, "id"], 7), "item 7.*'id' is empty"),
        (changed([0, "question"], "?"), "item 'a'.*unknown field question"),
        ([], "has no items"),
    ],
)
def test_bad_records(records: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.ParallelTask.from_records(records, name="t")


def test_several_right_answers(tmp_path: Path) -> None:
    answers = {"en": ["one", "1", "one", "un"], "de": "eins"}
    task = ng.ParallelTask.from_records([RECORDS[0] | {"answers": answers}], name="t")
    assert task.items[0]["answers"] == {"en": "one", "de": "eins"}
    assert task.items[0]["aliases"] == {"en": ["1", "un"], "de": []}
    task.to_jsonl(tmp_path / "t.jsonl")
    assert ng.ParallelTask.from_jsonl(tmp_path / "t.jsonl").checksum == task.checksum
    rows = [
        {"id": "a", "language": x, "prompt": RECORDS[0]["prompts"][x], "answer": answers[x]}
        for x in ("en", "de")
    ]
    assert ng.ParallelTask.from_rows(rows, name="t").items == task.items
    kept = ng.ParallelTask.from_records(
        [RECORDS[0] | {"prompts": dict.fromkeys(("en", "de", "th"), "x")}
         | {"answers": answers | {"th": ["q"]}}],
        name="t", languages=["de", "th"],
    )  # fmt: skip
    assert "aliases" not in kept.items[0]


def test_masked_prompts(tmp_path: Path) -> None:
    """They come through records, lines of JSON, rows and tables, in the chosen languages."""
    masked = {"en": "it", "de": "es"}
    records = [RECORDS[0] | {"masked": masked}, RECORDS[1] | {"masked": dict.fromkeys(masked)}]
    task = ng.ParallelTask.from_records(records, name="t")
    assert task.items[0]["masked"] == masked
    assert task.items[1] == ng.ParallelTask.from_records(RECORDS, name="t").items[1]
    assert not task.has_masked
    assert task.first(1).has_masked
    task.to_jsonl(tmp_path / "t.jsonl")
    assert ng.ParallelTask.from_jsonl(tmp_path / "t.jsonl").checksum == task.checksum
    three = records[0] | {
        "prompts": records[0]["prompts"] | {"th": "x"},
        "masked": masked | {"th": "y"},
    }
    two = ng.ParallelTask.from_records([three], name="t", languages=["th", "en"])
    assert two.items[0]["masked"] == {"th": "y", "en": "it"}
    rows = [row | {"masked": f"{row['language']} it"} for row in ROWS]
    from_rows = ng.ParallelTask.from_rows(rows, name="t")
    assert [item["masked"] for item in from_rows.items] == [{"en": "en it", "de": "de it"}] * 2
    with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert ng.load_task(str(tmp_path / "t.csv")).items == from_rows.items


def test_an_item_that_is_masked_in_one_language_only_is_not_whole() -> None:
    records = [*RECORDS, RECORDS[0] | {"id": "c", "masked": {"en": "it", "de": None}}]
    task = ng.ParallelTask.from_records(records, name="t", incomplete=True)
    assert [item["id"] for item in task.items] == ["a", "b"]


def test_a_task_without_aliases_or_masked_prompts_is_as_ever() -> None:
    """The checksum was taken before answers could be lists, and before prompts were masked."""
    plain = {"en": "one", "de": "eins"}
    for answers in (plain, {"en": ["one"], "de": ["eins", "eins"]}):
        task = ng.ParallelTask.from_records(
            [RECORDS[0] | {"answers": answers}, RECORDS[1]], name="t"
        )
        assert task.checksum == CHECKSUM


def test_languages_are_chosen_and_held_out_follows() -> None:
    records = [{**r, "prompts": {**r["prompts"], "th": "x"}} for r in RECORDS[:1]]
    task = ng.ParallelTask.from_records(records, name="t", languages=["th", "en"])
    assert task.languages == ("th", "en")
    assert list(task.items[0]["prompts"]) == ["th", "en"]
    with pytest.raises(ng.NeuroglotError, match="no language xx; there are en, de, th"):
        ng.ParallelTask.from_records(records, name="t", languages=["en", "xx"])
    with pytest.raises(ng.NeuroglotError, match="two different languages"):
        ng.ParallelTask.from_records(records, name="t", languages=["en", "en"])


def test_languages_in_one_text_are_refused() -> None:
    message = "languages='en,de': expected a list of codes: ['en', 'de']."
    for load in (
        lambda: ng.load_task("facts", languages="en,de"),
        lambda: ng.ParallelTask.from_records(RECORDS, name="t", languages="en,de"),
    ):
        with pytest.raises(ng.NeuroglotError) as error:
            load()
        assert str(error.value) == message


def test_jsonl_round_trip(tmp_path: Path) -> None:
    records = [dict(item) for item in small_task().items]
    records[0]["prompts"] = {**records[0]["prompts"], "en": "a\u2028line\x85break"}
    task = ng.ParallelTask.from_records(records, name="small")
    task.to_jsonl(tmp_path / "small.jsonl")
    read = ng.ParallelTask.from_jsonl(tmp_path / "small.jsonl")
    assert read.items == task.items
    assert read.name == "small"
    assert read.checksum == task.checksum != small_task(seed=1).checksum
    loaded = ng.load_task(str(tmp_path / "small.jsonl"), languages=["th", "de"], limit=2)
    assert loaded.languages == ("th", "de")
    assert len(loaded) == 2


ROWS: list[dict[str, Any]] = [
    {"id": i, "language": lang, "prompt": f"{lang} {i}", "answer": f"{lang}1", "relation": None}
    | {"choice1": f"{lang}1", "choice2": f"{lang}2", "choice3": f"{lang}10"}
    for i in "ab"
    for lang in ("en", "de")
]


def test_rows_of_a_table(tmp_path: Path) -> None:
    task = ng.ParallelTask.from_rows(ROWS, name="t")
    assert len(task) == 2
    assert task.items[1]["prompts"] == {"en": "en b", "de": "de b"}
    assert task.items[1]["choices"]["de"] == ["de1", "de2", "de10"]
    with (tmp_path / "t.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)
    assert ng.load_task(str(tmp_path / "t.csv")).items == task.items
    joined = ng.ParallelTask.from_rows([row | {"join": ""} for row in ROWS], name="t")
    assert joined.items[0]["joins"] == {"en": "", "de": ""}
    without = [{key: row[key] for key in ("id", "language", "prompt", "answer")} for row in ROWS]
    assert ng.ParallelTask.from_rows(without, name="t").has_answers
    with pytest.raises(ng.NeuroglotError, match="its own prompts"):
        ng.load_task(str(tmp_path / "t.csv"), template="shared")


def test_rows_of_datasets() -> None:
    datasets = pytest.importorskip("datasets")
    flat = ng.ParallelTask.from_rows(datasets.Dataset.from_list(ROWS), name="t")
    assert flat.items == ng.ParallelTask.from_rows(ROWS, name="t").items
    # A table fills what a record leaves out with nothing.
    records = RECORDS[::-1]
    nested = ng.ParallelTask.from_records(datasets.Dataset.from_list(records), name="t")
    assert nested.items == ng.ParallelTask.from_records(records, name="t").items


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,language,prompt\na,en\n", "line 2: expected 3 columns"),
        ("id,language,prompt\na,en,x,y\n", "line 2: expected 3 columns"),
        ("id,language,prompt\na,en,x\na,en,y\n", "row 2: item 'a' has 'en' twice"),
        ("id,language,prompt\na,en,\n", "row 1: prompt must be a text"),
        ("id,language,prompt,choice1,choice2,choice3\na,en,x,A,,B\n", "row 1: choice2 is empty"),
        ("id,language,prompt,prompt\na,en,x,y\n", "line 1: a column occurs twice"),
        ("id,language,question\na,en,x\n", "row 1: unknown column question"),
        ("id,language,prompt,relation\na,en,x,r\na,de,y,s\n", "row 2: item 'a' has two relations"),
        ("id,language,prompt,subject\na,en,x,r\na,de,y,s\n", "row 2: item 'a' has two subjects"),
        ('id,language,prompt\na,en,"x\n', "after line 1: unexpected end of data"),
        ("id,language,prompt\na,en,x\nb,de,y\n", "bad.csv: item 'a'.*lacks language de"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.ParallelTask.from_csv(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "line 1: .*JSON"), ("[1]", "line 1: expected a JSON object, found list")],
)
def test_bad_jsonl(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.ParallelTask.from_jsonl(path)
    with pytest.raises(ng.NeuroglotError, match=r"cannot read .*none.jsonl"):
        ng.ParallelTask.from_jsonl(tmp_path / "none.jsonl")


def test_items_that_a_language_lacks_are_left_out_where_it_is_asked(tmp_path: Path) -> None:
    """Only whole items count, and the task says how many were."""
    records = copy.deepcopy(RECORDS)
    records.append({"id": "c", "prompts": {"en": "three"}})
    no_choices = copy.deepcopy(RECORDS[1]) | {"id": "d"}
    del no_choices["choices"]["de"]
    records.append(no_choices)
    with pytest.raises(ng.NeuroglotError, match="lacks language de"):
        ng.ParallelTask.from_records(records, name="t")
    task = ng.ParallelTask.from_records(records, name="t", incomplete=True)
    assert task.items == ng.ParallelTask.from_records(RECORDS, name="t").items
    note = "2 of 4 items are there in all of en, de; the other 2 are left out"
    assert task.notes == (note,)
    assert ng.record(tiny_model("llama"), task).attrs["task_notes"] == note
    assert not ng.ParallelTask.from_records(RECORDS, name="t", incomplete=True).notes
    rows = [
        {"id": item, "language": language, "prompt": f"{item} {language}"}
        for item, languages in (("a", ["en", "de", "th"]), ("b", ["en", "de"]), ("c", ["en"]))
        for language in languages
    ]
    with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "language", "prompt"])
        writer.writeheader()
        writer.writerows(rows)
    for languages, ids in ((None, ["a"]), (["en", "de"], ["a", "b"])):
        kept = ng.load_task(str(tmp_path / "t.csv"), languages=languages, incomplete=True)
        assert [item["id"] for item in kept.items] == ids
    apart = [{"id": "a", "prompts": {"en": "one"}}, {"id": "b", "prompts": {"de": "zwei"}}]
    with pytest.raises(ng.NeuroglotError, match=r"none of 2 items is there in all of en, de"):
        ng.ParallelTask.from_records(apart, name="t", incomplete=True)


def test_what_else_is_wrong_with_whole_items_is_still_refused() -> None:
    records = changed([0, "prompts", "de"], " ")
    with pytest.raises(ng.NeuroglotError, match="the prompt in 'de' is empty"):
        ng.ParallelTask.from_records(records, name="t", incomplete=True)
