"""MzsRE (Wang et al. 2024): a new fact in one language, and a question about it in another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuroglot.errors import NeuroglotError, listed
from neuroglot.tasks.files import parse_json, read_text
from neuroglot.tasks.readers.source import (
    Row,
    Rows,
    Source,
    Table,
    aligned,
    languages_with_file,
    rows_by_id,
    table_of,
)
from neuroglot.tasks.records import Item
from neuroglot.tasks.wording import Wording, asked, fill

ENGLISH = "en"  # every published file pairs English with one other language


def languages_in(source: Source) -> list[str]:
    """English, and the languages whose published file is in the folder."""
    others = [code for code in languages_with_file(source) if code != ENGLISH]
    return [ENGLISH, *others] if others else []


def _file_rows(path: Path, language: str) -> Rows:
    rows = parse_json(read_text(path, language), f"{path} ({language})")
    if not isinstance(rows, list):
        raise NeuroglotError(f"{path} ({language}): expected a JSON list.")
    for number, row in enumerate(rows, 1):
        yield f"{path}, entry {number} ({language})", row


def _rows(source: Source, pair: str, language: str) -> Rows:
    """Questions and answers in ``language``, from the file that pairs English with ``pair``."""
    for number, (where, row) in enumerate(source.rows(_file_rows, language=pair), 1):
        try:
            told, english = row[language], row[ENGLISH]
            yield (
                where,
                {
                    "id": str(number),
                    "question": told["src"],
                    "answer": told["alt"],
                    # Rows have no id, but each repeats the English question and answer.
                    "english": english["src"],
                    "english_answer": english["alt"],
                    "subject": _subject(english),
                },
            )
        except (KeyError, TypeError) as error:
            raise NeuroglotError(
                f"{where}: expected 'src' and 'alt' under {listed([ENGLISH, pair])}; {error} is "
                "missing."
            ) from error


def _subject(english: Row) -> str | None:
    """The subject of the question, if the row names one."""
    subject = english.get("subject")
    return subject if isinstance(subject, str) and subject.strip() else None


def read(source: Source, language: str) -> Table:
    """The question, the new answer and their English originals, by the row's place in the file."""
    pairs = languages_in(source)[1:] if language == ENGLISH else [language]
    if not pairs:
        raise NeuroglotError(
            f"no file {source.dataset.files!r} in {str(source.folder)!r}; English is read from "
            "any of them."
        )
    return table_of(
        _rows(source, pairs[0], language), ("question", "answer", "english"), f"mzsre ({language})"
    )


def items(
    source: Source,
    languages: Sequence[str],
    wording: Wording,
    told_in: str | None = None,
    asked_in: str | None = None,
) -> tuple[list[Item], list[str]]:
    """One item for each fact, and no notes.

    Args:
        source: the place from which the facts are read.
        languages: the languages under which the prompts are listed.
        wording: the words of the template.
        told_in: the language of the fact; ``None`` is the one under which the prompt is listed.
        asked_in: the language of the question and its answer; ``None`` as for ``told_in``.
    """
    needed = dict.fromkeys([*languages, *(code for code in (told_in, asked_in) if code)])
    agree = {"english": "the English question", "english_answer": "the English answer"}
    tables = aligned(source, needed, read, **agree)
    words = {language: wording.of(language) for language in needed}
    target = {language: asked_in or language for language in languages}
    records: list[Item] = []
    for row_id, rows in rows_by_id(tables):
        fields = {
            language: {
                # The new fact, in the words of the language in which it is told.
                "fact": fill(
                    words[told_in or language]["fact"],
                    {field: rows[told_in or language][field] for field in ("question", "answer")},
                ),
                "question": rows[target[language]]["question"],
            }
            for language in languages
        }
        records.append(
            {
                "id": f"mzsre:{row_id}",
                **asked({code: words[target[code]] for code in languages}, fields),
                "answers": {code: rows[target[code]]["answer"] for code in languages},
                "subject": rows[languages[0]]["subject"],
            }
        )
    return records, []
