"""Make records of tables with one prompt in each row."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from neuroglot.errors import NeuroglotError, listed
from neuroglot.tasks.records import Item, join_after

FIELDS = (
    *("id", "language", "prompt", "masked", "answer", "choices", "join"),
    *("relation", "subject"),
)
NEEDED = FIELDS[:3]
OF_ITEM = ("relation", "subject")  # columns that are equal in all rows of an item
OF_PROMPT = ("prompts", "masked", "answers", "choices", "joins")  # fields by language
OPTION = re.compile(r"choice([1-9][0-9]{0,3})")


def records_from_rows(rows: Iterable[Item]) -> list[Item]:
    """Make records of rows that hold one prompt each.

    Args:
        rows: dicts with ``id``, ``language`` and ``prompt``. They may also have ``masked`` (the
            prompt with a neutral subject), ``answer``, ``choices`` (a list) or ``choice1``,
            ``choice2``, …, ``join`` (the text between prompt and answer, by default as in a
            record), ``relation`` and ``subject``.

    Raises:
        NeuroglotError: a row lacks a field, has an unknown one, or repeats an item's language, or
            rows of one item have different relations or subjects.
    """
    records: dict[str, Item] = {}
    for number, row in enumerate(rows, 1):
        where = f"row {number}"
        _check_columns(row, where)
        given = {key: value for key, value in row.items() if not _is_empty(value)}
        new = {"id": given["id"], **{field: {} for field in OF_PROMPT}}
        of_item = {field: given.get(field) for field in OF_ITEM}
        record = records.setdefault(given["id"], new | of_item)
        language = given["language"]
        if language in record["prompts"]:
            raise NeuroglotError(f"{where}: item {given['id']!r} has {language!r} twice.")
        for field in OF_ITEM:
            if record[field] != of_item[field]:
                raise NeuroglotError(f"{where}: item {given['id']!r} has two {field}s.")
        record["prompts"][language] = given["prompt"]
        record["masked"][language] = given.get("masked")
        record["answers"][language] = given.get("answer")
        record["choices"][language] = given.get("choices") or _options(given, where) or None
        # Unlike other empty cells, an empty join has a meaning.
        join = row.get("join")
        record["joins"][language] = join_after(given["prompt"]) if join is None else join
    return list(records.values())


def _is_empty(value: Any) -> bool:
    """Whether a cell is empty; the value may be an array, whose ``== ""`` has no truth value."""
    return value is None or (isinstance(value, str) and not value)


def _check_columns(row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise NeuroglotError(f"{where}: expected a dict, found {type(row).__name__}.")
    unknown = [
        key
        for key in row
        if not isinstance(key, str) or not (key in FIELDS or OPTION.fullmatch(key))
    ]
    if unknown:
        raise NeuroglotError(
            f"{where}: unknown column {listed(unknown)}; there are {listed(FIELDS)} and choice1, "
            "choice2, …"
        )
    missing = [key for key in NEEDED if not isinstance(row.get(key), str) or not row[key]]
    if missing:
        raise NeuroglotError(f"{where}: {listed(missing)} must be a text that is not empty.")


def _options(given: Item, where: str) -> list[Any]:
    """The values of ``choice1``, ``choice2``, … in the order of their numbers."""
    numbered = {int(match[1]): key for key in given if (match := OPTION.fullmatch(key))}
    missing = sorted(set(range(1, len(numbered) + 1)) - set(numbered))
    if missing:
        raise NeuroglotError(f"{where}: choice{missing[0]} is empty, but a later choice is not.")
    return [given[key] for _, key in sorted(numbered.items())]
