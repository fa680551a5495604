"""Small files in the layouts of the published datasets, with invented sentences."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from neuroglot.tasks.catalogue import catalogue
from neuroglot.tasks.readers import READERS, Source
from neuroglot.tasks.records import Item
from neuroglot.tasks.wording import find_wording

XNLI_COLUMNS = (
    *("language", "gold_label", "sentence1_binary_parse", "sentence2_binary_parse"),
    *("sentence1_parse", "sentence2_parse", "sentence1", "sentence2", "promptID", "pairID"),
    *("genre", "label1", "label2", "label3", "label4", "label5"),
    *("sentence1_tokenized", "sentence2_tokenized", "match"),
)
VERDICTS = ("entailment", "neutral", "contradiction")
LANGUAGES = {
    "xnli": ("en", "sw", "zh"),
    "mpararel": ("en", "de", "zh"),
    "mzsre": ("en", "de", "zh"),
    "xcopa": ("it", "th", "zh"),
    "xquad": ("en", "de", "zh"),
    "mgsm": ("en", "de", "zh"),
}


def xnli_rows(language: str) -> list[dict[str, Any]]:
    """As the Hub has them; the premise holds a quotation mark that opens and never closes."""
    return [
        {
            "premise": f'{language}: the "cat {i}',
            "hypothesis": f"{language}: an animal {i}",
            "label": i % 3,
        }
        for i in range(7)
    ]


def xcopa_rows(language: str) -> list[dict[str, Any]]:
    """As published; in Thai all are effects, though half of them are causes."""
    return [
        {
            "premise": f"{language} premise {i}",
            "choice1": f"{language} first {i}",
            "choice2": f"{language} second {i}",
            "question": "effect" if language == "th" or i % 2 else "cause",
            "label": i % 2,
            "idx": i,
            "changed": False,
        }
        for i in range(6)
    ]


def mgsm_rows(language: str) -> list[dict[str, Any]]:
    """As the Hub has them."""
    return [
        {
            "question": f'{language}: what is {i} "thousand?',
            "answer": None,
            "answer_number": 1000 * i,
            "equation_solution": None,
        }
        for i in range(1, 6)
    ]


def mzsre_rows(language: str) -> list[dict[str, Any]]:
    """As published: English with one other language."""
    return [
        {
            code: {"subject": f"S{i}", "src": f"{code}: who made S{i}?", "alt": f"{code} maker {i}"}
            for code in ("en", language)
        }
        for i in range(5)
    ]


def xquad_file(language: str) -> dict[str, Any]:
    """As published: SQuAD 1.1."""
    paragraphs = []
    for i in range(3):
        context = f"{language} paragraph {i}. It ends in word{i}."
        answer = {"answer_start": context.index("word"), "text": f"word{i}"}
        question = {"id": f"q{i}", "question": f"{language}: how? {i}", "answers": [answer]}
        paragraphs.append({"context": context, "qas": [question]})
    return {"version": "1.1", "data": [{"paragraphs": paragraphs}]}


def xquad_rows(language: str) -> list[dict[str, Any]]:
    """As the Hub has them."""
    return [
        {
            "id": question["id"],
            "context": paragraph["context"],
            "question": question["question"],
            "answers": {
                "text": [answer["text"] for answer in question["answers"]],
                "answer_start": [answer["answer_start"] for answer in question["answers"]],
            },
        }
        for paragraph in xquad_file(language)["data"][0]["paragraphs"]
        for question in paragraph["qas"]
    ]


def mpararel_files(language: str) -> dict[str, list[dict[str, Any]]]:
    """As published, by file: P36 can be asked in all languages, P47 not in Chinese, P31 in none."""
    folder = {"zh": "zh-hans"}.get(language, language)
    space = "" if language == "zh" else " "
    patterns = {
        "P36": [
            {"pattern": "[Y] is of [X]", "checked-by-human": True},
            {"pattern": f"machine {language}: [X] has [Y].", "checked-by-human": False},
            {"pattern": f"{language}: [X]'s seat is{space}[Y].", "checked-by-human": True},
        ],
        "P31": [],
        "P47": [{"pattern": "[X] borders [Y]" if language != "zh" else "[X][Y]相邻"}],
    }
    missing = {"de": 3}.get(language)
    files = {}
    for relation, kept in patterns.items():
        facts = [
            {
                "sub_uri": f"Q{relation}{i % 4}",
                "obj_uri": f"Q{i}",
                "sub_label": f"{language} S{i % 4}",
                "obj_label": f"{language} O{i}",
                "lineid": i,
            }
            for i in range(6)
            if i != missing
        ]
        files[f"patterns/{folder}/{relation}.jsonl"] = kept
        files[f"tuples/{folder}/{relation}.jsonl"] = facts
    return files


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _xnli_table(languages: Iterable[str]) -> str:
    lines = ["\t".join(XNLI_COLUMNS)]
    for language in languages:
        for number, row in enumerate(xnli_rows(language), 1):
            cells = dict.fromkeys(XNLI_COLUMNS, "")
            cells |= {"language": language, "gold_label": VERDICTS[row["label"]]}
            cells |= {"sentence1": row["premise"], "sentence2": row["hypothesis"]}
            cells |= {"pairID": str(number), "match": "True"}
            lines.append("\t".join(cells.values()))
    return "\n".join(lines) + "\n"


def write_published(name: str, folder: Path) -> None:
    """Write the files of a dataset into a folder."""
    files: dict[str, str] = {}
    for language in LANGUAGES[name]:
        if name == "xnli":
            files["xnli.test.tsv"] = _xnli_table(LANGUAGES[name])
        elif name == "xcopa":
            files[f"test.{language}.jsonl"] = _lines(xcopa_rows(language))
        elif name == "mgsm":
            rows = [f"{r['question']}\t{r['answer_number']:,}" for r in mgsm_rows(language)]
            files[f"mgsm_{language}.tsv"] = "\n".join(rows) + "\n"
        elif name == "xquad":
            files[f"xquad.{language}.json"] = json.dumps(xquad_file(language))
        elif name == "mzsre" and language != "en":
            files[f"mzsre_test_duplicate_en{language}.json"] = json.dumps(mzsre_rows(language))
        elif name == "mpararel":
            files |= {path: _lines(rows) for path, rows in mpararel_files(language).items()}
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def write_hub(name: str, folder: Path) -> None:
    """Write a dataset as a repository of the Hub would hold it, with a configuration a language."""
    rows = {"xnli": xnli_rows, "xcopa": xcopa_rows, "mgsm": mgsm_rows, "xquad": xquad_rows}[name]
    folder.mkdir(parents=True)
    hub = dict(catalogue()[name].dataset.hub)  # type: ignore[union-attr]
    configurations = ""
    for language in LANGUAGES[name]:
        (folder / f"{language}.jsonl").write_text(_lines(rows(language)), encoding="utf-8")
        configurations += f"- config_name: {hub['name'].format(language=language)}\n"
        configurations += f"  data_files: [{{split: {hub['split']}, path: {language}.jsonl}}]\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{configurations}---\n")


def source(name: str, folder: Path | None, hub: dict[str, str] | None = None) -> Source:
    """Where a reader reads from: a folder, or what stands in for the Hub."""
    dataset = catalogue()[name].dataset
    assert dataset is not None
    return Source(replace(dataset, hub={**dataset.hub, **(hub or {})}), folder)


def read_items(where: Source, template: str = "native") -> list[Item]:
    """What the reader of a dataset makes of it, in the languages of :data:`LANGUAGES`."""
    name = where.dataset.name
    items, _ = READERS[name].items(where, LANGUAGES[name], find_wording(name, template))
    return items
