"""A task: items that ask the same question in every language."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.notebook import as_html
from neuroglot.outputs import write_file
from neuroglot.tasks.files import json_objects, read_text
from neuroglot.tasks.guessing import Guesses, guesses_of
from neuroglot.tasks.records import (
    Item,
    check_item,
    check_languages,
    check_text,
    codes,
    is_whole,
    languages_of,
    said_of_whole,
)
from neuroglot.tasks.rows import records_from_rows

Split = Literal["all", "taught", "held_out"]
Match = Literal["text", "number"]
SPLITS: tuple[Split, ...] = ("all", "taught", "held_out")


@dataclass(frozen=True)
class ParallelTask:
    """Items aligned across languages by id.

    Attributes:
        name: what results call it.
        languages: codes, in the order of every result's ``language`` dimension; at least two.
        items: plain dicts ``{"id", "prompts": {language: text}, "answers": {language: text},
            "choices": {language: [text]}, "joins": {language: text}, "relation", "subject",
            "held_out": [language]}``. A join stands between prompt and answer: a space, or nothing
            in a script that sets none. Items of one subject are no independent samples. Where a
            written answer may be one of several, the others are in ``"aliases": {language:
            [text]}``. Where the subject can be masked, the prompts with a neutral subject in its
            place are in ``"masked": {language: text}``, in every language and never the prompt
            itself; they are joined with answers as the prompts are.
        split: which prompts count for accuracy; ``"held_out"``: only those in the languages that
            an item's ``held_out`` lists.
        template: name of the prompt template, where the task has several.
        match: how a generated answer is compared: as ``"text"``, or by its first ``"number"``.
        notes: what a reader of results should know of how the items were made.
        asked_in: the language of all questions and answers, where it is not the one that they are
            listed under; written answers are compared by its rules.
        guesses: of a part of a task, how probably a guess by the relation is right in each item
            and language, as counted over the whole task (:mod:`neuroglot.tasks.guessing`).
    """

    name: str
    languages: tuple[str, ...]
    items: Sequence[Item]
    split: Split = "all"
    template: str | None = None
    match: Match = "text"
    notes: tuple[str, ...] = ()
    asked_in: str | None = None
    guesses: Guesses = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        languages = " ".join(self.languages)
        return f"ParallelTask({self.name!r}, {len(self)} items, languages {languages})"

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {"items": len(self), "languages": " ".join(self.languages)}
        answered = "choosing" if self.has_choices else "writing" if self.has_answers else ""
        facts |= {"answered_by": answered, "template": self.template}
        if self.items:
            facts |= {f"first prompt, {x}": self.items[0]["prompts"][x] for x in self.languages[:5]}
        return as_html(self.name, facts)

    @property
    def checksum(self) -> str:
        """SHA-256 of the items: equal for equal tasks, on any machine."""
        text = json.dumps([self.languages, list(self.items)], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def has_choices(self) -> bool:
        """Whether every item can be answered by choosing."""
        return all(item["choices"] for item in self.items)

    @property
    def has_answers(self) -> bool:
        """Whether every item says what the right answer is."""
        return all(item["answers"] for item in self.items)

    @property
    def has_masked(self) -> bool:
        """Whether every item has prompts in which its subject is masked."""
        return all("masked" in item for item in self.items)

    @property
    def most_choices(self) -> int:
        """The most choices that a prompt has; 0 where there are none."""
        return max(len(given) for item in self.items for given in [[], *item["choices"].values()])

    @classmethod
    def from_records(
        cls,
        records: Iterable[Item],
        *,
        name: str,
        languages: Iterable[str] | None = None,
        incomplete: bool = False,
    ) -> ParallelTask:
        """Check records and make a task of them.

        Args:
            records: the dicts described above; all but ``id`` and ``prompts`` may be left out. An
                answer may be a list of texts, each of which is right, where there are no choices.
            name: what results call the task.
            languages: which to keep, in this order; by default all that any record has.
            incomplete: whether records may lack some of these languages; they are then left out,
                and ``notes``, which every result repeats, say how many are whole. Otherwise a
                missing language is an error.

        Raises:
            NeuroglotError: a missing language, a duplicate id, an empty prompt, an answer that is
                not among its choices, or fewer than two languages; it names the item.
        """
        check_text(name, "the name", f"task {shown(name)}")
        found = list(records)
        if not found:
            raise NeuroglotError(f"task {name!r} has no items.")
        known = list(dict.fromkeys(c for record in found for c in languages_of(record, name)))
        wanted = codes(languages) if languages is not None else tuple(known)
        check_languages(wanted, known, name)
        items, seen = [], set()
        notes: tuple[str, ...] = ()
        if incomplete:
            whole = [record for record in found if is_whole(record, wanted)]
            if not whole:
                raise NeuroglotError(
                    f"task {name!r}: none of {len(found)} items is there in all of "
                    f"{listed(wanted, 20)}; choose fewer languages."
                )
            if len(whole) < len(found):
                notes = (said_of_whole(len(whole), len(found), wanted),)
            found = whole
        for record in found:
            item = check_item(record, wanted, name)
            if item["id"] in seen:
                raise NeuroglotError(f"item {item['id']!r} occurs twice in task {name!r}.")
            seen.add(item["id"])
            items.append(item)
        return cls(name, wanted, items, notes=notes)

    @classmethod
    def from_jsonl(
        cls,
        path: str | Path,
        *,
        name: str | None = None,
        languages: Iterable[str] | None = None,
        incomplete: bool = False,
    ) -> ParallelTask:
        """Read a file of records, one JSON object a line, as :meth:`to_jsonl` writes it.

        Raises:
            NeuroglotError: the file cannot be read, a line is no JSON object, or see
                :meth:`from_records`.
        """
        file = Path(path)
        records = [record for _, record in json_objects(file)]
        return cls.from_records(
            records, name=name or file.stem, languages=languages, incomplete=incomplete
        )

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Item],
        *,
        name: str,
        languages: Iterable[str] | None = None,
        incomplete: bool = False,
    ) -> ParallelTask:
        """Make a task of rows with one prompt each, such as those of a table or of ``datasets``.

        Args:
            rows: dicts with ``id``, ``language``, ``prompt`` and, where there are any, ``masked``
                (the prompt with a neutral subject), ``answer`` (a text, or a list of texts each of
                which is right), ``choices`` (or ``choice1``, ``choice2``, …), ``relation`` and
                ``subject``.
            name: what results call the task.
            languages: which to keep, in this order; by default all.
            incomplete: see :meth:`from_records`.

        Raises:
            NeuroglotError: a row lacks a field or repeats one, or see :meth:`from_records`.
        """
        records = records_from_rows(rows)
        return cls.from_records(records, name=name, languages=languages, incomplete=incomplete)

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        *,
        name: str | None = None,
        languages: Iterable[str] | None = None,
        incomplete: bool = False,
    ) -> ParallelTask:
        """Read a CSV file with a header and one prompt a row, as :meth:`from_rows` takes them.

        Raises:
            NeuroglotError: the file cannot be read, a row is longer or shorter than the header,
                or see :meth:`from_rows`.
        """
        file = Path(path)
        text = io.StringIO(read_text(file), newline="")
        try:
            reader = csv.DictReader(text, strict=True)
            columns = list(reader.fieldnames or ())
            if len(set(columns)) < len(columns):
                raise NeuroglotError(f"{file}, line 1: a column occurs twice ({listed(columns)}).")
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise NeuroglotError(
                        f"{file}, line {reader.line_num}: expected "
                        f"{len(reader.fieldnames or ())} columns, as in the header."
                    )
                rows.append(row)
        except csv.Error as error:
            raise NeuroglotError(f"{file}, after line {reader.line_num}: {error}.") from error
        try:
            return cls.from_rows(
                rows, name=name or file.stem, languages=languages, incomplete=incomplete
            )
        except NeuroglotError as error:
            raise NeuroglotError(f"{file}: {error}") from error

    def to_jsonl(self, path: str | Path) -> None:
        """Write the items, one JSON object a line.

        Raises:
            NeuroglotError: the file cannot be written.
        """
        lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in self.items)
        try:
            write_file(path, "".join(lines))
        except OSError as error:
            raise NeuroglotError(f"cannot write {str(path)!r}: {error}.") from error

    def select(self, keep: Callable[[Item], bool]) -> ParallelTask:
        """The task with the items for which ``keep(item)`` is true.

        Raises:
            NeuroglotError: no item is left.
        """
        kept = [item for item in self.items if keep(item)]
        if not kept:
            raise NeuroglotError(f"no item of task {self.name!r} is left after the selection.")
        return self.part(kept)

    def first(self, limit: int | None) -> ParallelTask:
        """The first ``limit`` items, or all for ``None``.

        Raises:
            NeuroglotError: ``limit`` is less than 1.
        """
        if limit is not None and limit < 1:
            raise NeuroglotError(f"limit={limit}: at least one item is needed.")
        if limit is None or limit >= len(self):
            return replace(self, items=list(self.items))
        return self.part(list(self.items[:limit]))

    def part(self, items: Sequence[Item], languages: tuple[str, ...] | None = None) -> ParallelTask:
        """The task with some of its items, which knows what was counted over all of them.

        Args:
            items: of the task.
            languages: of the task; by default all.
        """
        guesses = self.guesses or guesses_of(self.items, self.languages)
        return replace(self, items=items, languages=languages or self.languages, guesses=guesses)
