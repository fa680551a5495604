"""The rows of a published dataset, read from its files in a folder or from the Hub, and checked."""

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
"""Pairs of the place of a row, as errors name it, and the row itself."""

Table = dict[str, Row]
"""The rows of one language by id."""


@dataclass(frozen=True)
class Dataset:
    """A published dataset, as the catalogue describes it.

    Attributes:
        name: the name of the dataset in the catalogue.
        languages: the codes of all languages that the dataset has.
        files: the name of a file in a local folder, with fields such as ``{language}`` in braces.
        hub: the arguments for :func:`datasets.load_dataset`. A dataset whose published files are
            loaded by their address has that address, with fields in braces, as ``address``.
        revision: the branch or commit that is loaded from the Hub or the address.
        licence: the licence, as the authors state it.
        citation: the publication to cite.
        folders: the folders below a local folder in which the authors publish the files, with
            fields in braces. They are tried in this order.
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
    """The place from which a dataset is read.

    Attributes:
        dataset: the dataset.
        folder: the local folder with the published files; ``None`` reads from the Hub.
        incomplete: whether items that some language lacks are left out rather than an error.
        notes: remarks about what was read, which the task and its results repeat.
    """

    dataset: Dataset
    folder: Path | None
    incomplete: bool = False
    notes: list[str] = field_of(default_factory=list, compare=False)

    def file(self, **fields: str) -> Path:
        """The path of a local file."""
        return self.place(self.dataset.files.format(**fields), **fields)

    def place(self, name: str, **fields: str) -> Path:
        """The path of a published file or folder, in the first of the folders that has it."""
        assert self.folder is not None
        places = [self.folder / below.format(**fields) / name for below in self.dataset.folders]
        return next((place for place in places if place.exists()), places[0])

    def has(self, **fields: str) -> bool:
        """Whether the file exists locally; files on the Hub are assumed to exist."""
        return self.folder is None or self.file(**fields).exists()

    def rows(
        self, read_file: Callable[[Path, str], Iterable[tuple[str, Row]]], **fields: str
    ) -> Rows:
        """The rows of one published file, from the local folder or from the Hub.

        Args:
            read_file: reads the rows from the path of a local file, given its language.
            fields: the fields in the names of files, among them ``language``.
        """
        if self.folder is None:
            yield from self.hub_rows(**fields)
        else:
            yield from read_file(self.file(**fields), fields["language"])

    def hub_rows(self, **fields: str) -> Rows:
        """The rows on the Hub or at the published address, each with its number as ``row``."""
        options, revision = dict(self.dataset.hub), self.dataset.revision
        address = options.pop("address", None)
        if address is None:
            options = {key: text.format_map(fields) for key, text in options.items()}
            options |= {"revision": revision}
        else:
            files = address.format(file=self.dataset.files.format(**fields), revision=revision)
            options |= {"data_files": files, "split": "train"}
        where = options.get("data_files", f"{options['path']} {options.get('name', '')}".strip())
        for number, row in enumerate(load_rows(options), 1):
            yield f"{where}, row {number} ({fields['language']})", row | {"row": number}


def need(where: str, row: Row, *fields: str) -> None:
    """Check that a row has these fields, whatever their values.

    Raises:
        NeuroglotError: fields are missing; the message names them.
    """
    missing = [field for field in fields if field not in row]
    if missing:
        raise NeuroglotError(f"{where}: {listed(missing)} is missing.")


def table_of(rows: Rows, needed: Sequence[str], what: str) -> Table:
    """The rows by id, checked and with white space stripped from their texts.

    Args:
        rows: the rows, each with an ``id``.
        needed: the fields that must hold texts that are not empty.
        what: a name for all the rows, for error messages.

    Raises:
        NeuroglotError: a needed field is empty or no text, an id occurs twice, or there are no
            rows.
    """
    table: Table = {}
    for where, row in rows:
        for field in ("id", *needed):
            if not isinstance(row.get(field), str) or not row[field].strip():
                raise NeuroglotError(f"{where}: {field!r} is empty, missing or not a text.")
            if flaw := flaw_of(row[field]):
                raise NeuroglotError(f"{where}: {field!r} {flaw}.")
        if row["id"] in table:
            raise NeuroglotError(f"{where}: id {row['id']!r} occurs twice.")
        table[row["id"]] = {k: v.strip() if isinstance(v, str) else v for k, v in row.items()}
    if not table:
        raise NeuroglotError(f"{what}: no rows were found.")
    return table


def languages_with_file(source: Source) -> list[str]:
    """The languages whose file is in the folder, for datasets with one file per language."""
    return [language for language in source.dataset.languages if source.has(language=language)]


def aligned(
    source: Source,
    languages: Iterable[str],
    read: Callable[[Source, str], Table],
    **agree: str,
) -> dict[str, Table]:
    """The table of each language; all tables have the same ids.

    From an incomplete source, only the ids that all languages have are kept.

    Args:
        source: the place from which the tables are read.
        languages: the languages.
        read: reads the table of a language.
        agree: fields whose values must be the same in all languages, and their names in errors.

    Raises:
        NeuroglotError: the languages do not align (:func:`must_align`, :func:`must_agree`), or
            have no id in common.
    """
    tables = {language: read(source, language) for language in languages}
    if source.incomplete:
        tables = _whole(source, tables)
    else:
        must_align(source, tables)
    for field, what in agree.items():
        must_agree(tables, field, what)
    return tables


def _whole(source: Source, tables: Mapping[str, Table]) -> dict[str, Table]:
    """The rows that all languages have, with a note on the others."""
    all_ids = list(dict.fromkeys(row_id for table in tables.values() for row_id in table))
    whole = [row_id for row_id in all_ids if all(row_id in table for table in tables.values())]
    if not whole:
        raise NeuroglotError(
            f"{source.dataset.name}: no id is in all of {listed(tables, 20)}; choose fewer "
            "languages."
        )
    if len(whole) < len(all_ids):
        source.notes.append(said_of_whole(len(whole), len(all_ids), tables))
    return {
        language: {row_id: table[row_id] for row_id in whole} for language, table in tables.items()
    }


def rows_by_id(tables: Mapping[str, Table]) -> Iterator[tuple[str, dict[str, Row]]]:
    """Each id of aligned tables, with its rows by language."""
    for row_id in next(iter(tables.values())):
        yield row_id, {language: table[row_id] for language, table in tables.items()}


def must_align(source: Source, tables: Mapping[str, Table]) -> None:
    """Check that all languages have the same ids.

    Raises:
        NeuroglotError: a language lacks ids that another has; the message names both languages.
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
    """Check that aligned tables have the same value of a field in all languages.

    Raises:
        NeuroglotError: values differ; the message names the first such id and the two languages.
    """
    first, *others = tables
    for row_id, row in tables[first].items():
        for other in others:
            value = tables[other][row_id][field]
            if value != row[field]:
                raise NeuroglotError(
                    f"{what} of {row_id!r} is {shown(row[field])} in {first!r}, but "
                    f"{shown(value)} in {other!r}; the languages do not align."
                )


def no_such_file(source: Source) -> NeuroglotError:
    """The error for a folder that has none of the dataset's files."""
    return NeuroglotError(
        f"no file {source.dataset.files!r} in {str(source.folder)!r}; expected the published files "
        f"of {source.dataset.name}."
    )
