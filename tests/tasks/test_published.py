"""The published data themselves: how many items they hold, and that they align.

The data are no part of this project; without them these tests are skipped.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import neuroglot as ng
from docs.make_tasks import page
from neuroglot.tasks.catalogue import catalogue
from neuroglot.tasks.guessing import majority
from neuroglot.tasks.readers import Source, mpararel

DATA = Path(__file__).parents[3] / "shared" / "data"
TEN = ("en", "de", "es", "fr", "pt", "ru", "th", "tr", "vi", "zh")


def folder(name: str) -> Path:
    path = DATA / name
    if not path.is_dir():
        pytest.skip(f"the published files of {name} are not at {path}")
    return path


@pytest.mark.parametrize(
    ("name", "dataset", "languages", "n_items"),
    [
        ("xnli", "xnli", ("en", "sw", "ur"), 1500),
        ("mzsre", "mzsre", TEN, 743),
        ("mzsre_xx_en", "mzsre", TEN, 743),
        ("mzsre_xx_xx", "mzsre", TEN, 743),
        ("xcopa", "xcopa", ("id", "it", "sw", "ta", "th", "tr", "vi", "zh"), 500),
        ("xquad", "xquad", ("en", "de", "es", "ru", "th", "tr", "vi", "zh"), 1190),
        ("mgsm", "mgsm", ("en", "bn", "de", "es", "fr", "ja", "ru", "sw", "te", "th", "zh"), 250),
    ],
)
@pytest.mark.parametrize("template", ["native", "shared"])
def test_counts(
    name: str, dataset: str, languages: tuple[str, ...], n_items: int, template: str
) -> None:
    task = ng.load_task(name, template=template, path=folder(dataset))
    assert task.languages == languages
    assert len(task) == n_items


def test_xnli_verdicts_are_balanced() -> None:
    task = ng.load_task("xnli", path=folder("xnli"))
    for language in task.languages:
        answers = [item["answers"][language] for item in task.items]
        assert [answers.count(answer) for answer in set(answers)] == [500, 500, 500]


def test_mpararel_facts_before_the_choice_of_patterns() -> None:
    dataset = catalogue()["mpararel"].dataset
    assert dataset is not None
    source = Source(dataset, folder("mpararel"))
    tables = {language: mpararel.read(source, language) for language in TEN}
    facts = mpararel.shared_facts(tables)
    assert len(facts) == 5113
    assert len({row_id.partition(":")[0] for row_id in facts}) == 41


@pytest.mark.parametrize(
    ("languages", "n_relations", "n_items"),
    [(TEN, 7, 506), (("en", "de", "es", "fr", "ru", "vi"), 36, 9418), (("en", "zh"), 24, 5130)],
)
def test_mpararel_with_all_relations(
    languages: tuple[str, ...], n_relations: int, n_items: int
) -> None:
    task = ng.load_task("mpararel", languages=languages, path=folder("mpararel"), relations="all")
    assert len({item["relation"] for item in task.items}) == n_relations
    assert len(task) == n_items


# Checksums of before wrong choices could be drawn otherwise.
@pytest.mark.parametrize(
    ("languages", "checksum"),
    [
        (TEN, "831f1424f3b300931b46c03f654cddfe7a531beb83441cfbc06c64e059ee3230"),
        (("en", "zh"), "420011d3b2c0bdcc42d5326fef3c7b2dbe1e91955a9aa5374e304dff7f186a79"),
    ],
)
def test_mpararel_as_it_was_before(languages: tuple[str, ...], checksum: str) -> None:
    task = ng.load_task(
        "mpararel",
        languages=languages,
        path=folder("mpararel"),
        distractors="uniform",
        relations="all",
    )
    items = [{k: v for k, v in item.items() if k != "masked"} for item in task.items]
    assert replace(task, items=items).checksum == checksum


@pytest.mark.parametrize("languages", [TEN, ("en", "zh")])
def test_mpararel_tells_a_guesser_less(languages: tuple[str, ...]) -> None:
    load = partial(ng.load_task, "mpararel", languages=languages, path=folder("mpararel"))
    now, before = load(), load(distractors="uniform", relations="all")
    assert now.has_masked
    fewer = majority(before).mean(axis=0) - majority(now).mean(axis=0)
    assert np.all(fewer > 0.15)
    for item in now.items:
        assert item["relation"] not in mpararel.SEVERAL
        for choices in item["choices"].values():
            assert len({choice.casefold() for choice in choices}) == len(choices)


@pytest.mark.parametrize(
    ("languages", "n_relations", "n_items"),
    [(TEN, 4, 416), (("en", "zh"), 17, 4133)],
)
def test_mpararel_says_what_remains(
    languages: tuple[str, ...], n_relations: int, n_items: int
) -> None:
    task = ng.load_task("mpararel", languages=languages, path=folder("mpararel"))
    relations = {item["relation"] for item in task.items}
    assert len(relations) == n_relations
    assert len(task) == n_items
    assert task.notes[0].startswith(f"{len(task):,} of the ")
    assert all(relation in task.notes[0] for relation in relations)
    for item in task.items:
        assert 2 <= len(item["choices"]["en"]) <= 10


def test_published_sentences_are_taken_as_they_are() -> None:
    """Read another way: the first item of each, longhand."""
    rows = json.loads((folder("mzsre") / "mzsre_test_duplicate_enth.json").read_text("utf-8"))
    items = {item["id"]: item for item in ng.load_task("mzsre", path=DATA / "mzsre").items}
    for i, row in enumerate(rows, 1):
        prompt = items[f"mzsre:{i}"]["prompts"]["th"]
        assert prompt.startswith(
            f"New fact: {row['en']['src'].strip()} {row['en']['alt'].strip()}\n"
        )
        assert row["th"]["src"].strip() in prompt
        assert items[f"mzsre:{i}"]["answers"]["th"] == row["th"]["alt"].strip()


@pytest.mark.slow
def test_the_page_about_tasks_says_what_is() -> None:
    written = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    folder("mpararel")
    assert written == page(DATA), "run python -m docs.make_tasks"
