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
    """The languages of the published file."""
    if not source.has():
        return []
    first_cells = {line.partition("\t")[0] for _, line in lines_of(source.file())}
    languages = [code for code in source.dataset.languages if code in first_cells]
    # Where no line begins with a language, reading the file says what is wrong with it.
    return languages or list(source.dataset.languages)


def _file_rows(path: Path, language: str) -> Rows:
    """The rows of one language in the published table, in which quotation marks quote nothing."""
    lines = lines_of(path)  # the file holds all languages
    where, header = next(lines, (str(path), ""))
    columns = header.split("\t")
    if len(columns) != N_COLUMNS or columns[0] != "language" or not set(columns) >= NEEDED:
        raise NeuroglotError(
            f"{where}: expected the header of the published table with {N_COLUMNS} columns, "
            f"beginning with 'language', among them {listed(sorted(NEEDED))}; found "
            f"{len(columns)} columns ({listed(columns)})."
        )
    for where, line in lines:
        cells = line.split("\t")
        if len(cells) != N_COLUMNS:
            raise NeuroglotError(
                f"{where} ({cells[0]}): {len(cells)} columns, expected {N_COLUMNS} as in the "
                "header."
            )
        if cells[0] == language:
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
        label = row["label"]
        is_number = isinstance(label, int) and label in range(len(VERDICTS))
        yield (
            where,
            {
                "id": str(row["row"]),
                "premise": row["premise"],
                "hypothesis": row["hypothesis"],
                "verdict": VERDICTS[label] if is_number else label,
            },
        )


def _checked(rows: Rows) -> Rows:
    for where, row in rows:
        if row["verdict"] not in VERDICTS:
            raise NeuroglotError(
                f"{where}: label {shown(row['verdict'])} is not one of {listed(VERDICTS)}."
            )
        yield where, row


def read(source: Source, language: str) -> Table:
    """The premise, the hypothesis and the verdict of each pair, by the id of the pair."""
    local = source.folder is not None
    rows = _file_rows(source.file(), language) if local else _hub_rows(source, language)
    return table_of(_checked(rows), ("premise", "hypothesis"), f"xnli ({language})")


def _premise(row_id: str) -> str:
    """The number of a pair's premise: three pairs in a row have one premise."""
    return str((int(row_id) - 1) // 3 + 1) if row_id.isdecimal() else row_id


def items(
    source: Source, languages: Sequence[str], wording: Wording
) -> tuple[list[Item], list[str]]:
    """One item for each pair, with the three verdicts as its choices, and no notes."""
    tables = aligned(source, languages, read, verdict="the label")
    words = {language: wording.of(language) for language in languages}
    records: list[Item] = []
    for row_id, rows in rows_by_id(tables):
        verdict, premise = rows[languages[0]]["verdict"], f"premise {_premise(row_id)}"
        fields = {
            code: {f: row[f] for f in ("premise", "hypothesis")} for code, row in rows.items()
        }
        records.append(
            {
                "id": f"xnli:{row_id}",
                "group": premise,
                **asked(words, fields),
                "answers": {code: words[code][verdict] for code in words},
                "choices": {code: [words[code][label] for label in VERDICTS] for code in words},
                "relation": verdict,
                "subject": premise,
            }
        )
    return records, []
