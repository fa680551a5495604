"""Readers take published files, and the Hub's rows, to the same items; nothing shifts silently."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import neuroglot as ng
from docs.make_tasks import fields_row
from neuroglot.tasks.readers import READERS
from tests.tasks.published import LANGUAGES, read_items, source, write_hub, write_published
from tests.testing import tiny_model

DATASETS = tuple(LANGUAGES)


@pytest.fixture(params=DATASETS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(name: str, tmp_path: Path) -> Path:
    write_published(name, tmp_path / "files")
    return tmp_path / "files"


def test_every_language_is_there_and_alike(name: str, folder: Path) -> None:
    task = ng.load_task(name, path=folder)
    assert sorted(task.languages) == sorted(LANGUAGES[name])
    assert len({item["id"] for item in task.items}) == len(task)
    assert task.has_answers
    for item in task.items:
        assert item["joins"]["zh"] == ""
        assert all(item["joins"][lang] == " " for lang in task.languages if lang != "zh")


# Where the files lie in the archives and repositories of their authors, below a folder that holds
# them as the tests write them: that folder, and the name of a file there.
LAYOUTS = {
    "xnli": ("XNLI-1.0/{file}", "{file}"),
    "mpararel": ("data/mpararel_reviewed/{file}", "{file}"),
    "mzsre": ("data/MzsRE/{file}", "{file}"),
    "xcopa": ("data/{language}/{file}", "{language}/{file}", "{file}"),
    "xquad": ("{file}",),
    "mgsm": ("mgsm/{file}", "{file}"),
}


@pytest.mark.parametrize(
    ("name", "layout"), [(name, layout) for name in LAYOUTS for layout in LAYOUTS[name]]
)
def test_files_may_lie_as_their_authors_publish_them(
    name: str, layout: str, tmp_path: Path
) -> None:
    write_published(name, tmp_path / "flat")
    for file in filter(Path.is_file, (tmp_path / "flat").rglob("*")):
        below = str(file.relative_to(tmp_path / "flat"))
        language = file.stem.rpartition(".")[2]
        moved = tmp_path / "published" / layout.format(file=below, language=language)
        moved.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, moved)
    assert ng.load_task(name, path=tmp_path / "published") == ng.load_task(
        name, path=tmp_path / "flat"
    )


def together(name: str, row_id: str) -> str:
    """What items that stay together have in common; three pairs of XNLI have one premise."""
    if name != "xnli":
        return row_id
    return f"premise {(int(row_id.removeprefix('xnli:')) + 2) // 3}"


def test_the_order_is_a_sample_that_languages_do_not_change(name: str, folder: Path) -> None:
    order = {}
    for languages in (LANGUAGES[name], LANGUAGES[name][1:]):
        task = ng.load_task(name, languages=languages, path=folder)
        assert task.languages == languages
        order[languages] = [item["id"] for item in task.items]
        hashes = [
            [hashlib.sha256(text.encode()).hexdigest() for text in (together(name, row_id), row_id)]
            for row_id in order[languages]
        ]
        assert hashes == sorted(hashes)
    # Of mParaRel fewer languages may share more facts.
    every, fewer = order.values()
    assert [row_id for row_id in fewer if row_id in every] == every


def test_folder_and_hub_give_identical_items(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if name in {"mzsre", "mpararel"}:
        if name == "mpararel":
            monkeypatch.setattr(READERS["mpararel"], "RELATIONS", ("P36", "P31", "P47"))
        hub = {"address": str(folder / "{file}")}
    else:
        write_hub(name, tmp_path / "hub")
        hub = {"path": str(tmp_path / "hub")}
    found = read_items(source(name, None, hub))
    assert found == read_items(source(name, folder))
    assert len(found) >= 3


def test_the_hub_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ng.NeuroglotError, match=r"pip install datasets .*'\.\[datasets\]'.*--path"):
        ng.load_task("xnli")


def test_the_hub_out_of_reach(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(ng.NeuroglotError, match=r"cannot load .*nowhere.*--path"):
        read_items(source("mgsm", None, {"path": str(tmp_path / "nowhere")}))


def test_xnli_items(tmp_path: Path) -> None:
    write_published("xnli", tmp_path)
    items = {item["id"]: item for item in ng.load_task("xnli", path=tmp_path).items}
    assert len(items) == 7
    item = items["xnli:3"]
    assert 'en: the "cat 2\n' in item["prompts"]["en"]
    assert item["answers"] == {"en": "false", "sw": "uongo", "zh": "错误"}
    assert item["choices"]["zh"] == ["正确", "不确定", "错误"]
    shared = ng.load_task("xnli", path=tmp_path, template="shared").items[0]
    endings = {prompt[-30:] for prompt in shared["prompts"].values()}
    assert len(endings) == 1
    assert shared["joins"] == {"en": " ", "sw": " ", "zh": " "}


def test_mgsm_items(tmp_path: Path) -> None:
    write_published("mgsm", tmp_path)
    task = ng.load_task("mgsm", path=tmp_path)
    assert task.match == "number"
    assert {item["id"]: item["answers"]["de"] for item in task.items}["mgsm:2"] == "2000"


def test_mzsre_directions(tmp_path: Path) -> None:
    write_published("mzsre", tmp_path)
    prompts = {
        name: {item["id"]: item for item in ng.load_task(name, path=tmp_path).items}["mzsre:1"]
        for name in ("mzsre", "mzsre_xx_en", "mzsre_xx_xx")
    }
    into, out_of, control = (prompts[name]["prompts"]["de"] for name in prompts)
    assert "en: who made S0? en maker 0" in into
    assert "Frage: de: who made S0?" in into
    assert "de: who made S0? de maker 0" in out_of
    assert "Question: en: who made S0?" in out_of
    assert "de: who made S0? de maker 0\nFrage: de: who made S0?" in control
    answers = [prompts[name]["answers"]["de"] for name in prompts]
    assert answers == ["de maker 0", "en maker 0", "de maker 0"]
    assert prompts["mzsre_xx_en"]["joins"]["zh"] == " "  # asked in English


def test_xcopa_takes_the_direction_from_a_sound_file(tmp_path: Path) -> None:
    write_published("xcopa", tmp_path)
    task = ng.load_task("xcopa", languages=["it", "th"], path=tmp_path)
    assert task.notes == (
        "cause or effect is that of the file in 'zh'; in the files of other languages it differs, "
        "in so many of the dataset's 6 items: th 3",
    )
    items = {item["id"]: item for item in task.items}
    assert items["xcopa:0"]["answers"] == {"it": "it first 0", "th": "th first 0"}
    assert items["xcopa:1"]["answers"] == {"it": "it second 1", "th": "th second 1"}
    assert "สาเหตุ" in items["xcopa:0"]["prompts"]["th"]
    assert "ผลที่ตามมา" in items["xcopa:1"]["prompts"]["th"]
    (tmp_path / "test.zh.jsonl").unlink()
    with pytest.raises(ng.NeuroglotError, match="the direction of '0' is 'cause' in 'it'"):
        ng.load_task("xcopa", languages=["it", "th"], path=tmp_path)


def test_mpararel_patterns_and_choices(tmp_path: Path) -> None:
    write_published("mpararel", tmp_path)
    task = ng.load_task("mpararel", path=tmp_path)
    items = {item["id"]: item for item in task.items}
    # Fact 3 is missing in German, and P47 ends in its object in no Chinese pattern.
    assert sorted(items) == [f"mpararel:P36:{i}" for i in (0, 1, 2, 4, 5)]
    assert task.notes[0].startswith("5 of the 15 facts that en, de, zh share, in 1 of 3 relations")
    item = items["mpararel:P36:0"]
    # The checked pattern, though a machine's comes first.
    assert item["prompts"]["en"] == "en: en S0's seat is"
    assert item["joins"] == {"en": " ", "de": " ", "zh": ""}
    # Fact 4 is about the same subject: its object is right too, so it is no choice.
    assert sorted(item["choices"]["en"]) == ["en O0", "en O1", "en O2", "en O5"]
    assert [c.replace("en", "de") for c in item["choices"]["en"]] == item["choices"]["de"]
    # The place of the answer must not give it away.
    assert len({item["choices"]["en"].index(item["answers"]["en"]) for item in task.items}) > 1
    both = ng.load_task("mpararel", languages=["en", "de"], path=tmp_path, relations="all")
    assert {item["relation"] for item in both.items} == {"P36", "P47"}
    for file in (tmp_path / "patterns" / "de").iterdir():
        file.write_text('{"pattern": "[Y] of [X]"}\n')
    with pytest.raises(ng.NeuroglotError, match="no relation has a pattern that ends"):
        ng.load_task("mpararel", languages=["en", "de"], path=tmp_path)


# Of the items of the small files, before wrong choices could be drawn otherwise.
CHOICES_BEFORE = {
    ("en", "de", "zh"): "0975ae56aff831f2a272a53c63320cb4b3a93ab0ae5791c28bf86247684802c3",
    ("en", "de"): "5499de5e95831c77e894e521e20599402ab7ca7445625e79ac9554038f509602",
}


@pytest.mark.parametrize("languages", CHOICES_BEFORE)
def test_mpararel_as_it_was_before(languages: tuple[str, ...], tmp_path: Path) -> None:
    write_published("mpararel", tmp_path)
    task = ng.load_task(
        "mpararel", languages=languages, path=tmp_path, distractors="uniform", relations="all"
    )
    assert task.has_masked
    items = [{k: v for k, v in item.items() if k != "masked"} for item in task.items]
    assert replace(task, items=items).checksum == CHOICES_BEFORE[languages]


def test_mpararel_masks_its_subjects(tmp_path: Path) -> None:
    write_published("mpararel", tmp_path)
    for item in ng.load_task("mpararel", languages=["de", "zh"], path=tmp_path).items:
        assert item["masked"] == {"de": "de: dies's seat is", "zh": "zh: 这个's seat is"}


def test_mpararel_says_how_it_chose(tmp_path: Path) -> None:
    """What is drawn how, what is left out, and how many items that cost."""
    write_published("mpararel", tmp_path)
    load = partial(ng.load_task, "mpararel", languages=["en", "de"], path=tmp_path)
    default = load()
    assert default == load(distractors="proportional", relations="single")
    assert {item["relation"] for item in default.items} == {"P36"}
    assert len(load(relations="all")) - len(default) == 5
    assert default.notes[1:] == (
        "5 items of P47 are left out, since other objects of these relations are often true too; "
        "relations='all' keeps them",
        "wrong choices are drawn in proportion to how often an object is right in its relation "
        "(distractors='proportional')",
    )
    uniform = load(distractors="uniform", relations="all").notes[1:]
    assert uniform == (
        "wrong choices are drawn uniformly from the objects of the relation, so that the commonest "
        "object is right more often than its chance (distractors='uniform')",
    )
    assert (
        "(distractors='proportional')"
        in ng.record(tiny_model("llama"), default).attrs["task_notes"]
    )


def test_mpararel_with_nothing_but_relations_that_are_left_out(tmp_path: Path) -> None:
    write_published("mpararel", tmp_path)
    for file in tmp_path.glob("patterns/*/P36.jsonl"):
        file.write_text('{"pattern": "[Y] of [X]"}\n')
    message = (
        r"no item is left in en, de; .* several objects are often true \(P47\).*--relations all"
    )
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.load_task("mpararel", languages=["en", "de"], path=tmp_path)
    assert (
        len(ng.load_task("mpararel", languages=["en", "de"], path=tmp_path, relations="all")) == 5
    )


@pytest.mark.parametrize("name", ["facts", "xnli", "mgsm", "own.jsonl"])
def test_tasks_that_draw_nothing_refuse_to_be_told_how(name: str) -> None:
    for options, flags in (
        ({"distractors": "uniform"}, "distractors (--distractors)"),
        ({"distractors": "proportional"}, "distractors (--distractors)"),
        ({"relations": "all"}, "relations (--relations)"),
    ):
        with pytest.raises(ng.NeuroglotError) as error:
            ng.load_task(name, **options)
        assert str(error.value) == (
            f"task {name!r} draws no distractors and leaves out no relations; leave {flags} out."
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distractors": "even"}, "unknown distractors 'even'; there are proportional, uniform."),
        ({"relations": ["P36"]}, r"unknown relations \['P36'\]; there are single, all."),
    ],
)
def test_unknown_ways_to_draw(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.load_task("mpararel", path=tmp_path, **options)


def test_a_name_that_is_no_task_is_said_to_be_none() -> None:
    for options in ({"path": "folder"}, {"distractors": "uniform"}):
        with pytest.raises(ng.NeuroglotError, match="unknown task 'mpararell'; there are facts"):
            ng.load_task("mpararell", **options)


def edit(file: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / file
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8", newline="")

    return apply


def cut_last_line(text: str) -> str:
    return "\n".join(text.split("\n")[:-2]) + "\n"


@pytest.mark.parametrize(
    ("dataset", "spoil", "message"),
    [
        ("xnli", edit("xnli.test.tsv", cut_last_line), "1 of 7 ids in 'en' are missing in 'zh'"),
        (
            "xnli",
            edit("xnli.test.tsv", lambda t: t.replace("sw: an animal 3\t", "sw: an animal 3 ")),
            r"xnli.test.tsv, line 12 \(sw\): 18 columns, expected 19",
        ),
        (
            "xnli",
            edit("xnli.test.tsv", lambda t: t.replace("sw\tneutral", "sw\t-", 1)),
            r"xnli.test.tsv, line 10 \(sw\): label '-' .*entailment",
        ),
        (
            "xnli",
            edit("xnli.test.tsv", lambda t: t.replace("sw\tneutral", "sw\tcontradiction", 1)),
            "the label of '2' is 'neutral' in 'en', but 'contradiction' in 'sw'",
        ),
        (
            "xnli",
            edit("xnli.test.tsv", lambda t: t.replace("sw: an animal 3", " ")),
            r"line 12 \(sw\): 'hypothesis' is empty",
        ),
        (
            "xnli",
            edit("xnli.test.tsv", lambda t: t.partition("\n")[2]),
            "line 1: expected the header of the published table",
        ),
        (
            "xcopa",
            edit("test.it.jsonl", lambda t: t.replace('"label": 1', '"label": 2')),
            r"test.it.jsonl, line 2 \(it\): label 2, expected 0 or 1",
        ),
        (
            "xcopa",
            edit("test.it.jsonl", lambda t: t.replace('"label": 1', '"label": 0')),
            "the label of '1' is 0 in 'it', but 1 in 'th'",
        ),
        (
            "xcopa",
            edit("test.it.jsonl", lambda t: t.replace('"cause"', '"why"')),
            r"line 1 \(it\): question 'why' .*cause, effect",
        ),
        (
            "xcopa",
            edit("test.it.jsonl", lambda t: t.replace('"premise"', '"text"')),
            r"line 1 \(it\): premise is missing",
        ),
        ("xcopa", edit("test.th.jsonl", cut_last_line), "'it' are missing in 'th'"),
        (
            "xcopa",
            edit("test.th.jsonl", lambda t: t + t.partition("\n")[0]),
            r"line 7 \(th\): id '0' occurs twice",
        ),
        (
            "xcopa",
            edit("test.th.jsonl", lambda t: t[:-5]),
            r"test.th.jsonl, line 6 \(th\): .*JSON",
        ),
        (
            "mgsm",
            edit("mgsm_de.tsv", lambda t: t.replace("2,000", "zwei")),
            r"mgsm_de.tsv, line 2 \(de\): answer 'zwei'",
        ),
        (
            "mgsm",
            edit("mgsm_de.tsv", lambda t: t.replace("\t2,000", "")),
            r"mgsm_de.tsv, line 2 \(de\): 1 columns, expected 2",
        ),
        (
            "mgsm",
            edit("mgsm_de.tsv", lambda t: t.partition("\n")[2]),
            "1 of 5 ids in 'en' are missing in 'de'",
        ),
        (
            "mgsm",
            edit("mgsm_de.tsv", lambda t: t.replace("2,000", "2,001")),
            "the answer of '2' is '2000' in 'en', but '2001' in 'de'",
        ),
        (
            "mzsre",
            edit("mzsre_test_duplicate_ende.json", lambda t: t.replace('"alt"', '"new"', 2)),
            r"ende.json, entry 1 \(de\): expected 'src' and 'alt'",
        ),
        (
            "mzsre",
            edit("mzsre_test_duplicate_enzh.json", lambda t: json.dumps(json.loads(t)[::-1])),
            "the English question of '1'",
        ),
        (
            "xquad",
            edit("xquad.de.json", lambda t: t.replace('"answer_start": 2', '"answer_start": 1')),
            r"xquad.de.json \(de\), question 'q0': the answer 'word0' is not at character",
        ),
        (
            "xquad",
            edit("xquad.de.json", lambda t: t.replace('"qas"', '"questions"')),
            "not in the layout of SQuAD 1.1",
        ),
        (
            "xquad",
            edit("xquad.de.json", lambda t: t.replace('"q1"', '"q9"')),
            "1 of 3 ids in 'en' are missing in 'de'",
        ),
        ("xnli", edit("xnli.test.tsv", lambda t: ""), r"xnli.test.tsv: expected the header"),
        (
            "xnli",
            edit("xnli.test.tsv", lambda t: t.replace("pairID", "pair")),
            "among them .*pairID.*; found 19 columns",
        ),
        (
            "xcopa",
            edit("test.it.jsonl", lambda t: t.replace('"it premise 0"', '["it"]')),
            r"line 1 \(it\): 'premise' is empty",
        ),
        (
            "mzsre",
            edit("mzsre_test_duplicate_ende.json", lambda t: t.replace("en maker", "EN maker")),
            "the English answer of '1'",
        ),
        ("mzsre", edit("mzsre_test_duplicate_ende.json", lambda t: "[]"), r"mzsre \(en\): no rows"),
        (
            "xquad",
            edit("xquad.de.json", lambda t: t.replace('"word0"', "7")),
            r"\(de\), question 'q0': the answer 7 is not at character",
        ),
        (
            "mpararel",
            lambda folder: (folder / "tuples" / "de" / "P36.jsonl").unlink(),
            "cannot read .*tuples/de/P36.jsonl",
        ),
        (
            "mpararel",
            lambda folder: (folder / "patterns" / "de" / "P36.jsonl").unlink(),
            "cannot read .*patterns/de/P36.jsonl",
        ),
        (
            "mpararel",
            edit("tuples/de/P36.jsonl", lambda t: ""),
            r"tuples of P36 \(de\): no rows were found",
        ),
        (
            "mpararel",
            edit("tuples/de/P36.jsonl", lambda t: t.replace('"Q5"', '"Q6"')),
            "fact 'P36:5' is about .* in 'en', but about .* in 'de'",
        ),
        (
            "mpararel",
            edit("tuples/de/P36.jsonl", lambda t: t.replace('"obj_label"', '"object"')),
            r"P36.jsonl, line 1 \(de\): obj_label is missing",
        ),
    ],
)
def test_malformed_files_name_file_line_and_language(
    dataset: str, spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    write_published(dataset, tmp_path)
    spoil(tmp_path)
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.load_task(dataset, languages=LANGUAGES[dataset], path=tmp_path)


def test_mark_and_line_ends_of_windows_change_nothing(name: str, folder: Path) -> None:
    before = ng.load_task(name, path=folder).checksum
    for file in folder.rglob("*.*"):
        text = file.read_text(encoding="utf-8").replace("\n", "\r\n")
        file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert ng.load_task(name, path=folder).checksum == before


def test_another_encoding_is_refused(name: str, folder: Path) -> None:
    for file in folder.rglob("*.*"):
        file.write_bytes(file.read_text(encoding="utf-8").encode("utf-16"))
    with pytest.raises(ng.NeuroglotError, match=r"files.*line 1.*UTF-8.*convert the file"):
        ng.load_task(name, path=folder)


def test_missing_files_and_languages(name: str, folder: Path, tmp_path: Path) -> None:
    has = ", ".join(ng.load_task(name, path=folder).languages)
    (tmp_path / "empty").mkdir()
    a_file = next(file for file in folder.rglob("*.*") if file.is_file())
    lacking = "vi"  # each dataset has it but for MGSM, none of the folders
    for arguments, message in (
        ((None, tmp_path / "empty"), "expected the published files of"),
        ((None, tmp_path / "none"), f"path (--path) {str(tmp_path / 'none')!r} does not exist"),
        ((None, a_file), f"path (--path) {str(a_file)!r} is a file; expected the folder that"),
        ((["zh", "xx"], folder), f"task {name!r} has no language xx; there are {has}."),
        ((["zh"], folder), "at least two different languages are needed, found zh."),
        (("zh,de", folder), "languages='zh,de': expected a list of codes: ['zh', 'de']."),
        (
            (["zh", lacking if name != "mgsm" else "bn"], folder),
            f"{str(folder)!r} has no files of {name} in {lacking if name != 'mgsm' else 'bn'}; "
            f"it has files in {has}.",
        ),
    ):
        languages, path = arguments
        with pytest.raises(ng.NeuroglotError) as error:
            ng.load_task(name, languages=languages, path=path)
        assert message in str(error.value)
    with pytest.raises(ng.NeuroglotError, match="read from no folder"):
        ng.load_task("facts", path=folder)


def test_the_page_names_the_fields_that_a_template_takes(name: str, folder: Path) -> None:
    with pytest.raises(ng.NeuroglotError, match="its fields may be") as error:
        ng.load_task(name, path=folder, template="{nonsense}")
    taken = str(error.value).partition("its fields may be ")[2].partition(", and")[0]
    named = fields_row(name).split("|")[2]
    assert re.findall(r"\{\w+\}", named) == taken.split(", ")


def test_items_say_what_they_are_about(name: str, folder: Path) -> None:
    """Items of one subject are no independent samples; XCOPA and MGSM name none."""
    items = ng.load_task(name, path=folder).items
    subjects = {item["subject"] for item in items}
    if name in ("xcopa", "mgsm"):
        assert subjects == {None}
        return
    assert all(subjects)
    if name == "xnli":
        assert all(item["subject"] == together(name, item["id"]) for item in items)
    if name == "mzsre":
        assert all(item["subject"] in item["prompts"]["en"] for item in items)


@pytest.mark.parametrize("name", ["xcopa", "xquad", "xnli"])
def test_ids_that_a_language_lacks_are_left_out_where_it_is_asked(name: str, folder: Path) -> None:
    whole = ng.load_task(name, path=folder)
    file = {
        "xcopa": folder / "test.th.jsonl",
        "xnli": folder / "xnli.test.tsv",
        "xquad": folder / "xquad.de.json",
    }[name]
    text = file.read_text(encoding="utf-8")
    if name == "xquad":
        data = json.loads(text)
        lost = data["data"][-1]["paragraphs"][-1]["qas"].pop()["id"]
        file.write_text(json.dumps(data), encoding="utf-8")
    else:
        file.write_text(cut_last_line(text), encoding="utf-8")
        lost = whole_ids(whole)[-1]
    with pytest.raises(ng.NeuroglotError, match="do not align"):
        ng.load_task(name, path=folder)
    found = ng.load_task(name, path=folder, incomplete=True)
    assert found.items == [item for item in whole.items if not item["id"].endswith(f":{lost}")]
    assert len(found) == len(whole) - 1
    assert found.notes[0].startswith(f"{len(found)} of {len(whole)} items are there in all of")


def whole_ids(task: ng.ParallelTask) -> list[str]:
    return sorted((item["id"].partition(":")[2] for item in task.items), key=int)


def test_every_answer_of_xquad_is_kept(tmp_path: Path) -> None:
    write_published("xquad", tmp_path)
    plain = ng.load_task("xquad", path=tmp_path)
    assert all("aliases" not in item for item in plain.items)
    file = tmp_path / "xquad.de.json"
    published = json.loads(file.read_text())
    paragraph = published["data"][0]["paragraphs"][0]
    place = paragraph["context"].index("ends in word0")
    paragraph["qas"][0]["answers"] += [
        {"answer_start": place, "text": "ends in word0"},
        paragraph["qas"][0]["answers"][0],
    ]
    file.write_text(json.dumps(published))
    task = ng.load_task("xquad", path=tmp_path)
    by_id = {item["id"]: item for item in task.items}
    found = by_id["xquad:q0"]
    assert found["answers"]["de"] == "word0"
    assert found["aliases"] == {"en": [], "de": ["ends in word0"], "zh": []}
    assert [item for item in task.items if item is not found] == [
        item for item in plain.items if item["id"] != "xquad:q0"
    ]


def test_the_language_that_is_asked_in(tmp_path: Path) -> None:
    write_published("mzsre", tmp_path)
    assert ng.load_task("mzsre_xx_en", path=tmp_path).asked_in == "en"
    assert ng.load_task("mzsre", path=tmp_path).asked_in is None
    assert ng.load_task("editing_xx_en", limit=1).asked_in == "en"
