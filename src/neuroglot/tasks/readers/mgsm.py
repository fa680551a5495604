"""MGSM (Shi et al. 2023): word problems with a number as the answer, aligned by row."""

from __future__ import annotations

from collections.abc import Sequence

from neuroglot.errors import NeuroglotError
from neuroglot.tasks.files import lines_of
from neuroglot.tasks.readers.source import Rows, Source, Table, aligned, must_agree, table_of
from neuroglot.tasks.records import Item
from neuroglot.tasks.wording import Wording, fill


def languages_in(source: Source) -> list[str]:
    """Languages whose published file is in the folder."""
    return [language for language in source.dataset.languages if source.has(language=language)]


def _file_rows(source: Source, language: str) -> Rows:
    path = source.file(language=language)
    for number, (where, line) in enumerate(lines_of(path), 1):
        cells = line.split("\t")
        if len(cells) != 2:
            raise NeuroglotError(
                f"{where} ({language}): {len(cells)} columns, expected 2 (question, answer)."
            )
        yield f"{where} ({language})", {"row": number, "question": cells[0], "answer": cells[1]}


def _rows(source: Source, language: str) -> Rows:
    local = source.folder is not None
    for where, row in _file_rows(source, language) if local else source.hub_rows(language=language):
        answer = str(row.get("answer_number", row["answer"])).replace(",", "").strip()
        if not answer.removeprefix("-").isdecimal():
            raise NeuroglotError(f"{where}: answer {answer!r} is no whole number.")
        yield where, {"id": str(row["row"]), "question": row["question"], "answer": answer}


def read(source: Source, language: str) -> Table:
    """Question and answer by number of the row."""
    return table_of(_rows(source, language), ("question", "answer"), f"mgsm ({language})")


def items(
    source: Source, languages: Sequence[str], wording: Wording
) -> tuple[list[Item], list[str]]:
    """One item a problem."""
    tables = aligned(source, languages, read)
    must_agree(tables, "answer", "the answer")
    words = {language: wording.of(language) for language in languages}
    found = [
        {
            "id": f"mgsm:{row_id}",
            "prompts": {
                x: fill(words[x]["prompt"], {"question": tables[x][row_id]["question"]})
                for x in languages
            },
            "answers": dict.fromkeys(languages, row["answer"]),
            "joins": {x: words[x]["join"] for x in languages},
        }
        for row_id, row in next(iter(tables.values())).items()
    ]
    return found, []
