"""MGSM (Shi et al. 2023): word problems with a number as the answer, aligned by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuroglot.errors import NeuroglotError, shown
from neuroglot.tasks.files import lines_of
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
    for number, (where, line) in enumerate(lines_of(path, language), 1):
        cells = line.split("\t")
        if len(cells) != 2:
            raise NeuroglotError(f"{where}: {len(cells)} columns, expected 2 (question, answer).")
        yield where, {"row": number, "question": cells[0], "answer": cells[1]}


def _rows(source: Source, language: str) -> Rows:
    for where, row in source.rows(_file_rows, language=language):
        need(where, row, "question", "answer")
        given = row.get("answer_number", row["answer"])
        answer = str(given).replace(",", "").strip() if isinstance(given, str | int) else ""
        if not answer.removeprefix("-").isdecimal():
            raise NeuroglotError(f"{where}: answer {shown(given)} is not a whole number.")
        yield where, {"id": str(row["row"]), "question": row["question"], "answer": answer}


def read(source: Source, language: str) -> Table:
    """The question and the answer of each problem, by the number of its row."""
    return table_of(_rows(source, language), ("question", "answer"), f"mgsm ({language})")


def items(
    source: Source, languages: Sequence[str], wording: Wording
) -> tuple[list[Item], list[str]]:
    """One item for each problem, without choices, and no notes."""
    tables = aligned(source, languages, read, answer="the answer")
    words = {language: wording.of(language) for language in languages}
    return [
        {
            "id": f"mgsm:{row_id}",
            **asked(words, {code: {"question": row["question"]} for code, row in rows.items()}),
            "answers": {code: row["answer"] for code, row in rows.items()},
        }
        for row_id, rows in rows_by_id(tables)
    ], []
