"""Where the rows of a dataset come from: published files in a folder, or the Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as field_of
from pathlib import Path
from typing import Any

from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.tasks.files import flaw_of
from neuroglot.tasks.readers.hub import load_rows
from neuroglot.tasks.records import said_of_whole

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]
"""What errors call each row, and the row: its ``id`` and what the task needs of it."""

Table = dict[str, Row]
"""Rows of one language by id."""


@dataclass(frozen=True)
class Dataset:
    """What the catalogue knows of a published dataset.

    Attributes:
        name: its name in the catalogue.
        languages: all it has.
        files: name of a file in a local folder, with fields in braces.
        hub: what :func:`datasets.load_dataset` is given; ``address`` stands for files by address.
        revision: branch or commit.
        licence: as its authors state it.
        citation: whom to cite.
        folders: where the files may lie below a local folder, as their authors publish them, with
            fields in braces; the first that has a file counts.
    """

    name: str
    languages: tuple[str, ...]
    files: str
    hub: Mapping[str, str]
    revision: str
    licence: str
    citation: str
    folders: Sequence[str] = ("",)


@dataclass(frozen=True)
class Source:
    """Where a dataset is read from.

    Attributes:
        dataset: which.
        folder: the local one that holds its published files, or none for the Hub.
        incomplete: whether languages may lack items, which are then left out.
        notes: what reading found that results should say.
    """

    dataset: Dataset
    folder: Path | None
    incomplete: bool = False
    notes: list[str] = field_of(default_factory=list, compare=False)

    def file(self, **fields: str) -> Path:
        """The path of a local file."""
        return self.place(self.dataset.files.format(**fields), **fields)

    def place(self, name: str, **fields: str) -> Path:
        """The path of something that is published, by its name beside the dataset's files."""
        assert self.folder is not None
        places = [self.folder / below.format(**fields) / name for below in self.dataset.folders]
        return next((place for place in places if place.exists()), places[0])

    def has(self, **fields: str) -> bool:
        """Whether there is such a file; of the Hub it is taken for granted."""
        return self.folder is None or self.file(**fields).exists()

    def hub_rows(self, **fields: str) -> Rows:
        """Rows of the Hub, or of a published file by address, as they are there."""
        options, language = self._hub(fields), fields["language"]
        where = options.get("data_files", f"{options['path']} {options.get('name', '')}".strip())
        for number, row in enumerate(load_rows(options), 1):
            yield f"{where}, row {number} ({language})", row | {"row": number}

    def _hub(self, fields: Mapping[str, str]) -> dict[str, str]:
        options = dict(self.dataset.hub)
        address = options.pop("address", None)
        if address is None:
            named = {key: text.format_map(fields) for key, text in options.items()}
            return named | {"revision": self.dataset.revision}
        file = self.dataset.files.format(**fields)
        files = address.format(file=file, revision=self.dataset.revision)
        return options | {"data_files": files, "split": "train"}


def need(where: str, row: Row, *fields: str) -> None:
    """Check that a row has fields, whatever is in them.

    Raises:
        NeuroglotError: naming those that are missing.
    """
    missing = [field for field in fields if field not in row]
    if missing:
        raise NeuroglotError(f"{where}: {listed(missing)} is missing.")


def table_of(rows: Rows, needed: Sequence[str], what: str) -> Table:
    """Rows by id, checked.

    Args:
        rows: with an ``id``.
        needed: fields that must be texts that are not empty.
        what: what an error calls all the rows.

    Raises:
        NeuroglotError: a field that is empty or no text, an id that occurs twice, or no rows.
    """
    table: Table = {}
    for where, row in rows:
        for field in ("id", *needed):
            if not isinstance(row.get(field), str) or not row[field].strip():
                raise NeuroglotError(f"{where}: {field!r} is empty, missing or no text.")
            flaw = flaw_of(row[field])
            if flaw:
                raise NeuroglotError(f"{where}: {field!r} {flaw}.")
        if row["id"] in table:
            raise NeuroglotError(f"{where}: id {row['id']!r} occurs twice.")
        table[row["id"]] = {k: v.strip() if isinstance(v, str) else v for k, v in row.items()}
    if not table:
        raise NeuroglotError(f"{what}: no rows were found.")
    return table


def languages_with_file(source: Source) -> list[str]:
    """Languages whose published file is in the folder, where each has a file of its own."""
    return [language for language in source.dataset.languages if source.has(language=language)]


def aligned(
    source: Source, languages: Iterable[str], read: Callable[[Source, str], Table]
) -> dict[str, Table]:
    """The table of each language, if all have the same ids.

    Of an incomplete source, each table has the ids that all have.

    Raises:
        NeuroglotError: see :func:`must_align`.
    """
    tables = {language: read(source, language) for language in languages}
    if not source.incomplete:
        must_align(source, tables)
        return tables
    known = list(dict.fromkeys(row_id for table in tables.values() for row_id in table))
    whole = [row_id for row_id in known if all(row_id in table for table in tables.values())]
    if not whole:
        raise NeuroglotError(
            f"{source.dataset.name}: no id is in all of {listed(tables, 20)}; choose fewer "
            "languages."
        )
    if len(whole) < len(known):
        source.notes.append(said_of_whole(len(whole), len(known), tables))
    return {
        language: {row_id: table[row_id] for row_id in whole} for language, table in tables.items()
    }


def rows_by_id(tables: Mapping[str, Table]) -> Iterator[tuple[str, dict[str, Row]]]:
    """The ids of aligned tables, and with each its row in every language."""
    for row_id in next(iter(tables.values())):
        yield row_id, {language: table[row_id] for language, table in tables.items()}


def must_align(source: Source, tables: Mapping[str, Table]) -> None:
    """Languages must have the same ids.

    Raises:
        NeuroglotError: ids that one language has and another lacks; it names both.
    """
    first = next(iter(tables))
    for language in tables:
        for one, other in ((first, language), (language, first)):
            lacking = [row for row in tables[one] if row not in tables[other]]
            if lacking:
                raise NeuroglotError(
                    f"{source.dataset.name}: {len(lacking)} of {len(tables[one])} ids in {one!r} "
                    f"are missing in {other!r} ({listed(lacking, 3)}); the languages do not align."
                )


def must_agree(tables: Mapping[str, Table], field: str, what: str) -> None:
    """Languages of aligned tables must have the same value in a field.

    Raises:
        NeuroglotError: naming the first id and the languages that differ.
    """
    first, *others = tables
    for row_id, row in tables[first].items():
        for other in others:
            found = tables[other][row_id][field]
            if found != row[field]:
                raise NeuroglotError(
                    f"{what} of {row_id!r} is {shown(row[field])} in {first!r}, but "
                    f"{shown(found)} in {other!r}; the languages do not align."
                )


def no_such_file(source: Source) -> NeuroglotError:
    """The error for a folder in which none of the dataset's files is."""
    return NeuroglotError(
        f"no file {source.dataset.files!r} in {str(source.folder)!r}; expected the published files "
        f"of {source.dataset.name}."
    )
