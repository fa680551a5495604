"""MzsRE (Wang et al. 2024): a new fact in one language, the question in another."""

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
    must_agree,
    rows_by_id,
    table_of,
)
from neuroglot.tasks.records import Item
from neuroglot.tasks.wording import Wording, Words, asked, fill

ENGLISH = "en"  # every published file pairs it with one other language


def languages_in(source: Source) -> list[str]:
    """English, and the languages whose published file is in the folder."""
    others = [x for x in languages_with_file(source) if x != ENGLISH]
    return [ENGLISH, *others] if others else []


def _file_rows(path: Path, language: str) -> Rows:
    rows = parse_json(read_text(path, language), f"{path} ({language})")
    if not isinstance(rows, list):
        raise NeuroglotError(f"{path} ({language}): expected a JSON list.")
    for number, row in enumerate(rows, 1):
        yield f"{path}, entry {number} ({language})", row


def _rows(source: Source, pair: str, language: str) -> Rows:
    """Question and answer in ``language``, from the file that pairs English with ``pair``."""
    if source.folder is None:
        found = source.hub_rows(language=pair)
    else:
        found = _file_rows(source.file(language=pair), pair)
    for number, (where, row) in enumerate(found, 1):
        try:
            told, english = row[language], row[ENGLISH]
            yield (
                where,
                {
                    "id": str(number),
                    "question": told["src"],
                    "answer": told["alt"],
                    # What ties the languages together: the row has no id of its own.
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
    """What the question is about, where the row says so."""
    subject = english.get("subject")
    return subject if isinstance(subject, str) and subject.strip() else None


def read(source: Source, language: str) -> Table:
    """Question, new answer and the question in English, by place in the file."""
    pair = language
    if language == ENGLISH:
        others = [x for x in languages_in(source) if x != ENGLISH]
        if not others:
            raise NeuroglotError(
                f"no file {source.dataset.files!r} in {str(source.folder)!r}; English is read from "
                "any of them."
            )
        pair = others[0]
    return table_of(
        _rows(source, pair, language), ("question", "answer", "english"), f"mzsre ({language})"
    )


def items(
    source: Source,
    languages: Sequence[str],
    wording: Wording,
    told_in: str | None = None,
    asked_in: str | None = None,
) -> tuple[list[Item], list[str]]:
    """One item a fact; ``None`` stands for the language under which the prompt is listed."""
    needed = dict.fromkeys([*languages, *(x for x in (told_in, asked_in) if x)])
    tables = aligned(source, needed, read)
    must_agree(tables, "english", "the English question")
    must_agree(tables, "english_answer", "the English answer")
    words = {language: wording.of(language) for language in needed}
    target = {language: asked_in or language for language in languages}
    found: list[Item] = []
    for row_id, rows in rows_by_id(tables):
        facts = {x: _fact(rows[told_in or x], words[told_in or x]) for x in languages}
        fields = {x: {"fact": facts[x], "question": rows[target[x]]["question"]} for x in languages}
        found.append(
            {
                "id": f"mzsre:{row_id}",
                **asked({x: words[target[x]] for x in languages}, fields),
                "answers": {x: rows[target[x]]["answer"] for x in languages},
                "subject": rows[languages[0]]["subject"],
            }
        )
    return found, []


def _fact(row: Row, words: Words) -> str:
    """The new fact, in the words of the language that it is told in."""
    return fill(words["fact"], {field: row[field] for field in ("question", "answer")})
