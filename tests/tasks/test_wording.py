"""Templates: those of the package are complete, and a user's own reproduces any prompt."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest

import neuroglot as ng
from neuroglot.tasks import wording as wording_module
from neuroglot.tasks.catalogue import catalogue
from neuroglot.tasks.readers import READERS
from neuroglot.tasks.wording import find_wording
from tests.tasks.published import write_published

FIELDS = {
    "xnli": {"premise", "hypothesis"},
    "mzsre": {"fact", "question"},
    "xcopa": {"premise", "question"},
    "xquad": {"context", "question"},
    "mgsm": {"question"},
    "mpararel": {"cloze"},
}
NO_SPACE = {"zh", "ja"}


def fields_of(text: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(text) if field}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("template", ["native", "shared"])
def test_every_language_has_all_words(name: str, template: str) -> None:
    wording = find_wording(name, template)
    dataset = catalogue()[name].dataset
    assert dataset is not None
    known = find_wording(name, "shared").of("en")
    for language in dataset.languages:
        words = wording.of(language)
        assert set(words) == set(known)
        assert fields_of(words["prompt"]) == FIELDS[name]
        if "join" in words:
            native = template == "native" and language in NO_SPACE
            assert words["join"] == ("" if native else " ")
        assert all(text == text.strip() for key, text in words.items() if key != "join")
        if name == "xnli":
            verdicts = [words[key] for key in ("entailment", "neutral", "contradiction")]
            assert len(set(verdicts)) == 3
            assert all(verdict.casefold() in words["prompt"].casefold() for verdict in verdicts)
    if template == "native" and name != "mpararel":
        prompts = [wording.of(language)["prompt"] for language in dataset.languages]
        assert len(set(prompts)) == len(prompts)


@pytest.fixture
def xnli(tmp_path: Path) -> Path:
    write_published("xnli", tmp_path)
    return tmp_path


def test_a_prompt_of_ones_own(xnli: Path) -> None:
    template = "{premise} So {hypothesis}, {{true}} or not?"
    task = ng.load_task("xnli", template=template, path=xnli)
    item = {item["id"]: item for item in task.items}["xnli:1"]
    assert item["prompts"]["sw"] == 'sw: the "cat 0 So sw: an animal 0, {true} or not?'
    assert item["choices"]["sw"] == ["true", "inconclusive", "false"]
    assert task.template == template


@pytest.mark.parametrize("as_file", [False, True])
def test_prompts_of_ones_own_by_language(xnli: Path, as_file: bool) -> None:
    template: Any = {
        "en": "{premise} / {hypothesis}",
        "sw": {"prompt": "{hypothesis} kwa {premise}", "entailment": "ndiyo", "join": ""},
    }
    if as_file:
        template = str(xnli / "mine.toml")
        Path(template).write_text(
            '[en]\nprompt = "{premise} / {hypothesis}"\n[sw]\njoin = ""\n'
            'prompt = "{hypothesis} kwa {premise}"\nentailment = "ndiyo"\n'
        )
    task = ng.load_task("xnli", languages=["en", "sw"], template=template, path=xnli)
    item = {item["id"]: item for item in task.items}["xnli:1"]
    assert item["prompts"] == {
        "en": 'en: the "cat 0 / en: an animal 0',
        "sw": 'sw: an animal 0 kwa sw: the "cat 0',
    }
    assert item["answers"] == {"en": "true", "sw": "ndiyo"}
    assert item["choices"]["sw"] == ["ndiyo", "haijulikani", "uongo"]
    assert item["joins"] == {"en": " ", "sw": ""}
    with pytest.raises(ng.NeuroglotError, match="has no prompt in 'zh'; there are en, sw"):
        ng.load_task("xnli", template=template, path=xnli)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("natve", "no template 'natve'; there are shared, native"),
        (
            "{premise} {question}",
            "'question' is not a field.*; its fields may be {premise}, {hypothesis}",
        ),
        ("{premise} {", "other braces are doubled"),
        ({"en": "{premise}", "sw": "always", "zh": "{premise}"}, "its prompt has no field"),
        ({"en": {"join": ""}}, "'en' needs a text for 'prompt'"),
        ({"en": {"prompt": "{premise}", "entailmnet": "yes"}}, "unknown words entailmnet"),
        ("literal {{only}}", "its prompt has no field"),
        ("{premise[zz]}", "its fields may be"),
        ("nowhere.toml", "cannot read 'nowhere.toml'"),
    ],
)
def test_bad_templates(xnli: Path, template: Any, message: str) -> None:
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.load_task("xnli", template=template, path=xnli)


def test_a_file_laid_out_as_those_of_the_package(xnli: Path) -> None:
    packaged = Path(wording_module.__file__).with_name("prompts") / "xnli.toml"
    (xnli / "mine.toml").write_bytes(packaged.read_bytes())
    mine = ng.load_task("xnli", template=str(xnli / "mine.toml"), path=xnli)
    assert mine.items == ng.load_task("xnli", path=xnli).items


@pytest.fixture
def mpararel(tmp_path: Path) -> Path:
    write_published("mpararel", tmp_path)
    return tmp_path


def masked(folder: Path, template: Any) -> dict[str, str]:
    task = ng.load_task("mpararel", languages=["en", "zh"], template=template, path=folder)
    return dict(next(x for x in task.items if x["id"] == "mpararel:P36:0")["masked"])


def test_a_neutral_subject_of_ones_own(mpararel: Path) -> None:
    """By language beside the prompt, or in a table beside all prompts; else that of the package."""
    ours = {"en": "en: this's seat is", "zh": "zh: 这个's seat is"}
    assert masked(mpararel, "native") == masked(mpararel, "{cloze}") == ours
    shared = {x: f"Complete the sentence.\n{text}" for x, text in ours.items()}
    assert masked(mpararel, "shared") == shared
    mine = {"en": {"prompt": "{cloze}", "neutral_subject": "Foo"}, "zh": "{cloze}"}
    expected = ours | {"en": "en: Foo's seat is"}
    assert masked(mpararel, mine) == expected
    beside = {"neutral_subject": {"en": "Foo"}}
    assert masked(mpararel, {"prompt": "{cloze}"} | beside) == expected
    assert masked(mpararel, {"en": "{cloze}", "zh": "{cloze}"} | beside) == expected
    for text in (
        'prompt = "{cloze}"\n[neutral_subject]\nen = "Foo"\n',
        '[native]\nprompt = "{cloze}"\n[neutral_subject]\nen = "Foo"\n',
    ):
        (mpararel / "mine.toml").write_text(text)
        assert masked(mpararel, str(mpararel / "mine.toml")) == expected


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("mpararel", {"en": " "}, "'neutral_subject' in 'en' is empty"),
        ("mpararel", {"en": 7}, "'neutral_subject' in 'en' is empty"),
        ("mpararel", {"en": "en S0"}, "masked prompt in 'en' is the prompt itself"),
        ("xcopa", {"it": "x"}, "it has a 'neutral_subject', but this task masks no subject"),
    ],
)
def test_bad_neutral_subjects(name: str, table: Any, message: str, tmp_path: Path) -> None:
    write_published(name, tmp_path)
    prompt = "{cloze}" if name == "mpararel" else "{premise} {question}"
    template = {"prompt": prompt, "neutral_subject": table}
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.load_task(name, template=template, path=tmp_path)
    if name == "xcopa":
        by_language = {x: {"prompt": prompt, "neutral_subject": "x"} for x in ("it", "th")}
        with pytest.raises(ng.NeuroglotError, match="masks no subject"):
            ng.load_task(name, languages=["it", "th"], template=by_language, path=tmp_path)


def test_bad_toml(xnli: Path) -> None:
    (xnli / "mine.toml").write_text("prompt = ")
    with pytest.raises(ng.NeuroglotError, match="valid TOML"):
        ng.load_task("xnli", template=str(xnli / "mine.toml"), path=xnli)


def test_a_prompt_of_several_lines_joins_its_answer_without_a_space() -> None:
    for prompt, join in (("{question}\n", ""), ("{question} ", " "), ("{question}", " ")):
        assert find_wording("mgsm", prompt).of("en")["join"] == join
    own = {"en": {"prompt": "{question}\n", "join": " "}, "zh": "{question}"}
    wording = find_wording("mgsm", own)
    assert [wording.of(language)["join"] for language in own] == [" ", ""]
