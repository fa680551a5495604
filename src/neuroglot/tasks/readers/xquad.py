"""XQuAD (Artetxe et al. 2020): questions whose answers are words of a paragraph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuroglot.errors import NeuroglotError, shown
from neuroglot.tasks.files import parse_object, read_text
from neuroglot.tasks.readers.source import (
    Rows,
    Source,
    Table,
    aligned,
    languages_with_file,
    need,
    rows_by_id,
    table_of,
)
from neuroglot.tasks.records import Item
from neuroglot.tasks.wording import Wording, asked

languages_in = languages_with_file


def _file_rows(path: Path, language: str) -> Rows:
    """The questions of a file in the layout of SQuAD 1.1."""
    where = f"{path} ({language})"
    articles = parse_object(read_text(path, language), where)
    try:
        for paragraph in (p for article in articles["data"] for p in article["paragraphs"]):
            for question in paragraph["qas"]:
                yield (
                    f"{where}, question {shown(question.get('id'))}",
                    {
                        "id": question["id"],
                        "context": paragraph["context"],
                        "question": question["question"],
                        "answers": {
                            "text": [answer["text"] for answer in question["answers"]],
                            "answer_start": [a["answer_start"] for a in question["answers"]],
                        },
                    },
                )
    except (KeyError, TypeError, AttributeError) as error:
        raise NeuroglotError(f"{where}: not in the layout of SQuAD 1.1 ({error}).") from error


def _rows(source: Source, language: str) -> Rows:
    for where, row in source.rows(_file_rows, language=language):
        need(where, row, "id", "context", "question", "answers")
        texts, starts = _answers(row["answers"], where)
        context = row["context"]
        if not texts or not isinstance(context, str):
            raise NeuroglotError(f"{where}: there is no answer, or no paragraph.")
        for text, start in zip(texts, starts, strict=True):
            has_place = isinstance(text, str) and isinstance(start, int) and start >= 0
            if not has_place or context[start : start + len(text)] != text:
                raise NeuroglotError(
                    f"{where}: the answer {shown(text)} is not at character {shown(start)} of the "
                    "paragraph."
                )
        kept = {field: row[field] for field in ("id", "context", "question")}
        others = [text.strip() for text in texts[1:] if text.strip()]
        yield where, kept | {"answer": texts[0], "others": others}


def _answers(answers: Any, where: str) -> tuple[list[Any], list[Any]]:
    """The texts of a question's answers, and the characters at which they begin."""
    by_field = answers if isinstance(answers, dict) else {}
    texts, starts = by_field.get("text"), by_field.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise NeuroglotError(
            f"{where}: expected answers with as many of 'text' as of 'answer_start', found "
            f"{shown(answers)}."
        )
    return texts, starts


def read(source: Source, language: str) -> Table:
    """The paragraph, the question and the answers of each question, by id."""
    return table_of(
        _rows(source, language), ("context", "question", "answer"), f"xquad ({language})"
    )


def items(
    source: Source, languages: Sequence[str], wording: Wording
) -> tuple[list[Item], list[str]]:
    """One item for each question, whose subject is its paragraph, and no notes."""
    tables = aligned(source, languages, read)
    words = {language: wording.of(language) for language in languages}
    paragraphs: dict[str, int] = {}
    records: list[Item] = []
    for row_id, rows in rows_by_id(tables):
        fields = {code: {f: row[f] for f in ("context", "question")} for code, row in rows.items()}
        number = paragraphs.setdefault(rows[languages[0]]["context"], len(paragraphs) + 1)
        records.append(
            {
                "id": f"xquad:{row_id}",
                **asked(words, fields),
                "answers": {code: [row["answer"], *row["others"]] for code, row in rows.items()},
                "subject": f"paragraph {number}",
            }
        )
    return records, []
