"""XCOPA (Ponti et al. 2020): which of two sentences is the cause, or the effect, of a premise."""

from __future__ import annotations

from collections.abc import Sequence

from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.tasks.files import json_objects
from neuroglot.tasks.readers.source import (
    Rows,
    Source,
    Table,
    aligned,
    languages_with_file,
    must_agree,
    must_align,
    need,
    rows_by_id,
    table_of,
)
from neuroglot.tasks.records import Item
from neuroglot.tasks.wording import Wording, asked

languages_in = languages_with_file
DIRECTIONS = ("cause", "effect")
FIELDS = ("premise", "choice1", "choice2", "question", "label", "idx")
# In the published files of some languages the direction of many items is wrong (in Thai, all are
# effects). The files of these languages agree with each other, and have as many causes as effects,
# like the English original.
SOUND = ("zh", "vi", "ta")


def _rows(source: Source, language: str) -> Rows:
    for where, row in source.rows(json_objects, language=language):
        need(where, row, *FIELDS)
        if not isinstance(row["label"], int) or row["label"] not in (0, 1):
            raise NeuroglotError(f"{where}: label {shown(row['label'])}, expected 0 or 1.")
        if row["question"] not in DIRECTIONS:
            raise NeuroglotError(
                f"{where}: question {shown(row['question'])} is not one of {listed(DIRECTIONS)}."
            )
        if not isinstance(row["idx"], int | str):
            raise NeuroglotError(f"{where}: idx {shown(row['idx'])} is not a number.")
        yield where, {field: row[field] for field in FIELDS} | {"id": str(row["idx"])}


def read(source: Source, language: str) -> Table:
    """The premise, the two choices, the direction and the label of each item, by id."""
    return table_of(
        _rows(source, language), ("premise", "choice1", "choice2"), f"xcopa ({language})"
    )


def _directions(source: Source, tables: dict[str, Table]) -> tuple[dict[str, str], list[str]]:
    """The direction of each item, from a sound file, and a note on the languages that differ."""
    available = [code for code in SOUND if code in tables or source.has(language=code)]
    if not available:
        must_agree(tables, "question", "the direction")
    reference = available[0] if available else next(iter(tables))
    sound = tables.get(reference) or read(source, reference)
    if source.incomplete:
        wanted = next(iter(tables.values()))
        sound = {row_id: row for row_id, row in sound.items() if row_id in wanted}
    # The language that is read for its directions must have every item, too.
    must_align(source, {**tables, reference: sound})
    directions = {row_id: row["question"] for row_id, row in sound.items()}
    n_differing = {
        language: sum(row["question"] != directions[row_id] for row_id, row in table.items())
        for language, table in tables.items()
    }
    differing = [f"{language} {number}" for language, number in n_differing.items() if number]
    if not differing:
        return directions, []
    return directions, [
        f"cause or effect is that of the file in {reference!r}; in the files of other languages it "
        f"differs, in so many of the dataset's {len(sound):,} items: {listed(differing)}"
    ]


def items(
    source: Source, languages: Sequence[str], wording: Wording
) -> tuple[list[Item], list[str]]:
    """One item for each premise, whose choices are the two sentences, and the notes."""
    tables = aligned(source, languages, read, label="the label")
    directions, notes = _directions(source, tables)
    words = {language: wording.of(language) for language in languages}
    records: list[Item] = []
    for row_id, rows in rows_by_id(tables):
        direction = directions[row_id]
        fields = {
            language: {"premise": row["premise"], "question": words[language][direction]}
            for language, row in rows.items()
        }
        choices = {code: [row["choice1"], row["choice2"]] for code, row in rows.items()}
        records.append(
            {
                "id": f"xcopa:{row_id}",
                **asked(words, fields),
                "answers": {code: choices[code][row["label"]] for code, row in rows.items()},
                "choices": choices,
                "relation": direction,
            }
        )
    return records, notes
