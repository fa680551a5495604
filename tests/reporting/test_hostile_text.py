"""Text of data sets in the page and in file names is text, whatever it says."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import neuroglot as ng
from neuroglot.reporting.page import LONGEST_NAME, file_name
from tests.testing import small_task, tiny_model

SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u2028\u2029{{ 7*7 }}"
ODD = "\u202e\u200f\x1b[31m\x07"


class Elements(HTMLParser):
    """Tags of a page, and attributes that would run something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """Results whose items, languages, task, model and notes are all hostile."""
    one, other = f"en{SCRIPT}", f"de{ODD}"
    items = [
        {
            "id": f"{item['id']}{SCRIPT}{ODD}",
            "prompts": dict(zip((one, other), list(item["prompts"].values())[:2], strict=True)),
            "choices": {one: ["w3", "w4"], other: ["w3", "w4"]},
            "answers": {one: "w3", other: "w4"},
        }
        for item in small_task(3).items
    ]
    task = ng.ParallelTask.from_records(items, name=f"task{SCRIPT}{ODD}")
    model = ng.wrap_model(
        tiny_model("llama").hf, tiny_model("llama").tokenizer, name=f"model{SCRIPT}{ODD}"
    )
    recording = ng.record(model, task)
    other_task = ng.Recording(recording.dataset.assign_attrs(task="other"))
    name = SCRIPT.replace("/", "|") + ODD
    return {
        f"{name}/sharing": ng.classify(recording),
        f"{name}/answers": ng.evaluate(model, task),
        f"{name}/thresholds": ng.classify(recording, thresholds=recording.thresholds),
        name: ng.compare([recording, other_task]),
    }


def test_nothing_of_it_is_run(results: dict[str, Any], tmp_path: Path) -> None:
    page = ng.report(results, out=tmp_path / "r.html", figures=tmp_path / "figures")
    html = page.read_text(encoding="utf-8")
    found = Elements()
    found.feed(html)
    assert found.tags.count("script") == 2
    assert "img" not in found.tags
    assert not found.handlers
    beginning, _, rest = html.rpartition("<script>")
    script = rest.partition("</script>")[0]
    assert not re.search("[\u2028\u2029\u202e\x1b\x07]", beginning.partition("<script>")[0])
    assert not re.search("[\u2028\u2029\u202e\x1b\x07<]", script)
    lines = [x for x in script.splitlines() if x.startswith('{"')]
    specifications = [json.loads(line.rstrip(",")) for line in lines]
    assert len(specifications) == 8
    assert "alert(1)" in json.dumps(specifications)  # it is there, as text
    for path in (tmp_path / "figures").glob("*.svg"):
        svg = path.read_text(encoding="utf-8")
        assert "<script" not in svg
        assert "<img" not in svg
    assert len(list((tmp_path / "figures").glob("*.png"))) == 8


@pytest.mark.parametrize(
    "name",
    [
        *("../../x", "/etc/passwd", "..", ".", "", "C:\\x", "a\0b", "x" * 400, "错" * 200, "a/b"),
        *("a:b", "a b.", "nul.txt", "\u202egnp", "\ud800", "a\nb"),
    ],
)
def test_a_figure_is_a_file_in_its_folder(name: str, tmp_path: Path) -> None:
    file = tmp_path / f"{file_name(f'tasks-{name}')}.png"
    file.write_bytes(b"")
    assert file.resolve().parent == tmp_path.resolve()
    assert len(file.name.encode()) < LONGEST_NAME + 30
    assert re.fullmatch(r"tasks-[\w ,()+-]*\.png", file.name)


def test_two_names_are_two_files() -> None:
    assert file_name("tasks-base, native") == "tasks-base, native"
    names = ("a/b", "a:b", "a_b", "x" * 400, "x" * 401)
    assert len({file_name(name) for name in names}) == len(names)


def test_a_page_that_cannot_be_written(results: dict[str, Any], tmp_path: Path) -> None:
    for out in ("a\0b.html", "x" * 300):
        with pytest.raises(ng.NeuroglotError, match=r"cannot write (the report|to .*)"):
            ng.report(results, out=tmp_path / out)
