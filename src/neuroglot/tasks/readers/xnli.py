"""XNLI (Conneau et al. 2018): three hypotheses for each premise, in up to 15 languages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.tasks.files import lines_of
from neuroglot.tasks.readers.source import (
    Rows,
    Source,
    Table,
    aligned,
    must_agree,
    need,
    rows_by_id,
    table_of,
)
from neuroglot.tasks.records import Item
from neuroglot.tasks.wording import Wording, asked

VERDICTS = ("entailment", "neutral", "contradiction")  # as the Hub numbers them
N_COLUMNS = 19
NEEDED = {"language", "gold_label", "sentence1", "sentence2", "pairID"}


def languages_in(source: Source) -> list[str]:
    """Languages that the published file holds."""
    if not source.has():
        return []
    found = {line.partition("\t")[0] for _, line in lines_of(source.file())}
    # A file without any is read, for the sake of the error that says what is wrong with it.
    known = [language for language in source.dataset.languages if language in found]
    return known or list(source.dataset.languages)


def _file_rows(path: Path, language: str) -> Rows:
    """Rows of one language in the published table, where a quotation mark is a mere character."""
    lines = lines_of(path)  # of all languages
    where, header = next(lines, (str(path), ""))
    columns = header.split("\t")
    if len(columns) != N_COLUMNS or columns[0] != "language" or not set(columns) >= NEEDED:
        raise NeuroglotError(
            f"{where}: expected the header of the published table with {N_COLUMNS} columns, "
            f"beginning with 'language', among them {listed(sorted(NEEDED))}; found "
            f"{len(columns)} columns ({listed(columns)})."
        )
    for where, line in lines:
        code, _, _ = line.partition("\t")
        cells = line.split("\t")
        if len(cells) != N_COLUMNS:
            raise NeuroglotError(
                f"{where} ({code}): {len(cells)} columns, expected {N_COLUMNS} as in the header."
            )
        if code == language:
            row = dict(zip(columns, cells, strict=True))
            yield (
                f"{where} ({language})",
                {
                    "id": row["pairID"],
                    "premise": row["sentence1"],
                    "hypothesis": row["sentence2"],
                    "verdict": row["gold_label"],
                },
            )


def _hub_rows(source: Source, language: str) -> Rows:
    for where, row in source.hub_rows(language=language):
        # The published pairs are numbered from 1, in the order that the Hub keeps.
        need(where, row, "premise", "hypothesis", "label")
        known = isinstance(row["label"], int) and row["label"] in range(len(VERDICTS))
        yield (
            where,
            {
                "id": str(row["row"]),
                "premise": row["premise"],
                "hypothesis": row["hypothesis"],
                "verdict": VERDICTS[row["label"]] if known else row["label"],
            },
        )


def _checked(rows: Rows) -> Rows:
    for where, row in rows:
        if row["verdict"] not in VERDICTS:
            raise NeuroglotError(
                f"{where}: label {shown(row['verdict'])} is none of {listed(VERDICTS)}."
            )
        yield where, row


def read(source: Source, language: str) -> Table:
    """Premise, hypothesis and verdict by pair."""
    if source.folder is None:
        rows = _hub_rows(source, language)
    else:
        rows = _file_rows(source.file(), language)
    return table_of(_checked(rows), ("premise", "hypothesis"), f"xnli ({language})")


def _premise(row_id: str) -> str:
    """Number of the premise: the pairs come in threes, one premise with three hypotheses."""
    return str((int(row_id) - 1) // 3 + 1) if row_id.isdecimal() else row_id


def items(
    source: Source, languages: Sequence[str], wording: Wording
) -> tuple[list[Item], list[str]]:
    """One item a pair; the choices are the three verdicts. Pairs of one premise are a group."""
    tables = aligned(source, languages, read)
    must_agree(tables, "verdict", "the label")
    words = {language: wording.of(language) for language in languages}
    found: list[Item] = []
    for row_id, rows in rows_by_id(tables):
        verdict = rows[languages[0]]["verdict"]
        fields = {x: {f: row[f] for f in ("premise", "hypothesis")} for x, row in rows.items()}
        found.append(
            {
                "id": f"xnli:{row_id}",
                "group": f"premise {_premise(row_id)}",
                **asked(words, fields),
                "answers": {x: words[x][verdict] for x in words},
                "choices": {x: [words[x][label] for label in VERDICTS] for x in words},
                "relation": verdict,
                "subject": f"premise {_premise(row_id)}",
            }
        )
    return found, []
