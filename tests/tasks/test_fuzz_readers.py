"""Whatever a file holds: sound items, or an error that a user can mend."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neuroglot as ng
from neuroglot.errors import UNSEEN
from neuroglot.tasks.readers import READERS
from neuroglot.tasks.readers import source as readers_source
from tests import mutations
from tests.tasks.published import LANGUAGES, source, write_published
from tests.testing import small_task

FUZZED = settings(deadline=None, derandomize=True, max_examples=300, database=None)
TEMPLATE = '[native]\nprompt = "{question} ="\njoin = " "\n\n[native.de]\nprompt = "{question}?"\n'
CSV = "id,language,prompt,answer,choice1,choice2\n" + "".join(
    f"{i},{language},What is {i}?,yes,yes,no\n" for i in range(3) for language in ("en", "de")
)


def sound_or_refused(load: Callable[[], ng.ParallelTask]) -> None:
    """Either a task that keeps its promises, or an error that can be printed on a line."""
    try:
        task = load()
    except ng.NeuroglotError as error:
        message = str(error)
        assert not UNSEEN.search(message)
        assert 10 < len(message) < 3000
        message.encode()
        return
    assert len(task) > 0
    assert len({item["id"] for item in task.items}) == len(task)
    for item in task.items:
        assert isinstance(item["id"], str)
        assert item["id"].strip()
        assert tuple(item["prompts"]) == task.languages
        masked = item.get("masked", {})
        for texts in (item["answers"], item["choices"], masked):
            assert not texts or tuple(texts) == task.languages
        assert not any(masked[x] == item["prompts"][x] for x in masked)
        texts = [*item["prompts"].values(), *masked.values(), *item["answers"].values()]
        texts += [choice for given in item["choices"].values() for choice in given]
        for text in texts:
            assert isinstance(text, str)
            assert text.strip()
            assert "\x00" not in text
            text.encode()
    assert len(task.checksum) == 64


@cache
def published(name: str) -> dict[str, bytes]:
    """The published files of a dataset by path."""
    with tempfile.TemporaryDirectory() as folder:
        write_published(name, Path(folder))
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
        }


def put(folder: Path, path: str, data: bytes | None) -> None:
    """Write a file, or a folder in its place."""
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        place.mkdir()
    else:
        place.write_bytes(data)


def fuzz(draw: st.DrawFn, path: str, data: bytes) -> bytes | None:
    """A file of a dataset, damaged as its format allows."""
    ways = [*mutations.BYTES, mutations.missing]
    if path.endswith(("json", "jsonl")) and data:
        ways += [mutations.in_json] * 8
    if path.endswith(("tsv", "csv")):
        ways += [mutations.in_table] * 8
    return draw(st.sampled_from(ways))(draw, data)


@pytest.mark.parametrize("name", list(READERS))
@FUZZED
@given(data=st.data())
def test_published_files(name: str, data: st.DataObject) -> None:
    files: dict[str, bytes | None] = dict(published(name))
    path = data.draw(st.sampled_from(sorted(files)))
    files[path] = fuzz(data.draw, path, files[path] or b"")
    with tempfile.TemporaryDirectory() as folder:
        for place, content in files.items():
            put(Path(folder), place, content)
        languages = data.draw(st.sampled_from([LANGUAGES[name], None]))
        sound_or_refused(lambda: ng.load_task(name, languages=languages, path=folder))


@pytest.mark.parametrize("name", ["xnli", "xcopa", "xquad", "mgsm", "mzsre", "mpararel"])
@FUZZED
@given(data=st.data())
def test_rows_of_the_hub(name: str, data: st.DataObject) -> None:
    """Rows of any shape, with the names of columns that the readers look for."""
    columns = "id premise hypothesis label choice1 choice2 question idx answer answer_number "
    columns += "context answers en de zh pattern lineid sub_uri obj_uri sub_label obj_label"
    inner = st.dictionaries(st.sampled_from(["src", "alt", "text", "answer_start"]), VALUE)
    rows = st.lists(
        st.dictionaries(st.sampled_from(columns.split()), VALUE | inner, min_size=2), max_size=2
    )
    drawn = data.draw(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers_source, "load_rows", lambda options: drawn)
        where = source(name, None)
        for language in LANGUAGES[name][:2]:
            try:
                table = READERS[name].read(where, language)
            except ng.NeuroglotError:
                continue
            assert all(isinstance(row_id, str) and row_id for row_id in table)


VALUE = st.sampled_from([0, 1, 1.0, "a", "b", "1", "cause", "[X] is [Y]", "\ud800"]) | (
    mutations.VALUES
)


def load_file(name: str, data: bytes | None) -> ng.ParallelTask:
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder), name, data)
        return ng.load_task(str(Path(folder) / name))


def as_jsonl() -> bytes:
    lines = [json.dumps(item) for item in small_task(3).items]
    return ("\n".join(lines) + "\n").encode()


@pytest.mark.parametrize("path", ["own.jsonl", "own.csv"])
@FUZZED
@given(data=st.data())
def test_files_of_ones_own(path: str, data: st.DataObject) -> None:
    content = as_jsonl() if path.endswith("jsonl") else CSV.encode()
    damaged = fuzz(data.draw, path, content)
    sound_or_refused(lambda: load_file(path, damaged))


@FUZZED
@given(data=st.data())
def test_records_and_rows(data: st.DataObject) -> None:
    """Given from Python, where keys need not be texts."""
    fields = ["id", "prompts", "masked", "answers", "choices", "joins"]
    fields += ["relation", "subject", "held_out"]
    keys = st.sampled_from(fields)
    by_language = st.dictionaries(st.sampled_from(["en", "de", "", 1, "\x00"]), VALUE)
    record = st.dictionaries(keys | st.integers(), VALUE | by_language)
    records = [
        {"id": "a", "prompts": {"en": "x", "de": "y"}} | data.draw(record),
        data.draw(record | VALUE),
    ]
    kept = data.draw(st.integers(1, 2))
    sound_or_refused(lambda: ng.ParallelTask.from_records(records[:kept], name="own"))
    columns = ["id", "language", "prompt", "masked", "answer", "choices", "join"]
    columns += ["relation", "subject"]
    columns += ["choice1", "choice2", "choice01", "choice" + "9" * 5000, "choice²", "choice١"]
    row = st.dictionaries(st.sampled_from(columns) | st.integers(), VALUE)
    rows: list[Any] = [
        {"id": "a", "language": "en", "prompt": "x"} | data.draw(row),
        {"id": "a", "language": "de", "prompt": "y"} | data.draw(row),
        data.draw(row | VALUE),
    ]
    kept = data.draw(st.integers(2, 3))
    sound_or_refused(lambda: ng.ParallelTask.from_rows(rows[:kept], name="own"))


@FUZZED
@given(data=st.data())
def test_templates(data: st.DataObject) -> None:
    lines = data.draw(st.lists(st.sampled_from(TOML_LINES), max_size=5))
    written = data.draw(st.sampled_from([TEMPLATE, "\n".join(lines), "[" * 100_000]))
    damaged: bytes | None = written.encode("utf-8", "surrogatepass")
    if data.draw(st.booleans()):
        damaged = fuzz(data.draw, "own.toml", written.encode("utf-8", "surrogatepass"))
    with tempfile.TemporaryDirectory() as folder:
        for place, content in published("mgsm").items():
            put(Path(folder), place, content)
        put(Path(folder), "own.toml", damaged)
        template = str(Path(folder) / "own.toml")
        sound_or_refused(lambda: ng.load_task("mgsm", path=folder, template=template))
    keys = st.sampled_from(["en", "de", "*", "prompt", "neutral_subject"])
    given_as = data.draw(st.dictionaries(keys, VALUE))
    load = partial(ng.load_task, languages=("en", "de"))
    with tempfile.TemporaryDirectory() as folder:
        for place, content in (published("mgsm") | published("mpararel")).items():
            put(Path(folder), place, content)
        sound_or_refused(lambda: load("mgsm", path=folder, template=given_as))
        whole = {"prompt": "{cloze}"} | given_as
        sound_or_refused(lambda: load("mpararel", path=folder, template=whole))


TOML_LINES = [
    *("[neutral_subject]", "neutral_subject = 5"),
    *("native = 5", 'native = "x"', "native = [1]", "[native]", "[native.de]", "[shared]", "[x]"),
    *('prompt = "{question}"', "prompt = 5", 'prompt = ""', "join = 1979-05-27", 'join = "x"'),
    *('prompt = "{question.__class__}"', 'prompt = "{question!r}"', 'prompt = "{question"'),
    *('prompt = "{question:>99999999999}"', 'prompt = "{0}{question}"', "native = []"),
    *("en = 5", "en = 1979-05-27", "de = {prompt = 5}", f"x = {'9' * 5000}", "y = " + "[" * 9999),
]


@pytest.mark.parametrize("name", list(READERS))
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_another_encoding_names_file_and_language(name: str, encoding: str, tmp_path: Path) -> None:
    write_published(name, tmp_path)
    language = LANGUAGES[name][1]
    paths = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    of_language = [p for p in paths if language in str(p.relative_to(tmp_path))]
    path = [*paths[:1], *of_language][-1]
    text = path.read_text(encoding="utf-8").replace(f"{language} ", f"{language} é")
    text = text.replace(f"{language}: ", f"{language}: é")
    path.write_bytes(text.encode(encoding, errors="replace"))
    with pytest.raises(ng.NeuroglotError, match=r"UTF-8") as caught:
        ng.load_task(name, languages=LANGUAGES[name], path=tmp_path)
    assert path.name in str(caught.value)
    if name != "xnli":  # one table of all languages
        assert f"({language})" in str(caught.value)
