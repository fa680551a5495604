"""Parallel tasks: items that ask the same question in every language."""

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
        name: the name of the task in results.
        languages: the codes of at least two languages, in the order of the ``language`` dimension
            of every result.
        items: plain dicts ``{"id", "prompts": {language: text}, "answers": {language: text},
            "choices": {language: [text]}, "joins": {language: text}, "relation", "subject",
            "held_out": [language]}``. A join is the text between prompt and answer: a space, or
            nothing in a script without spaces. Items of one subject are no independent samples. If
            there are several right answers that a model may write, the others are in ``"aliases":
            {language: [text]}``. If the subject can be masked, ``"masked": {language: text}`` has
            the prompts with a neutral subject in its place, in every language; their joins are
            those of the prompts.
        split: which prompts count for accuracy: with ``"held_out"``, only those in the languages
            that the ``held_out`` of their item lists; otherwise all.
        template: the name of the prompt template, if the task has several.
        match: whether a generated answer is compared as ``"text"`` or by its first ``"number"``.
        notes: remarks on how the items were made, for readers of results.
        asked_in: the language of all questions and answers, if it is not the language under which
            they are listed; written answers are compared by the rules of this language.
        guesses: for a part of a task, the probability that a guess by the relation is right, by
            item and language, counted over the whole task (:mod:`neuroglot.tasks.guessing`).

    Examples:
        >>> import neuroglot as ng
        >>> prompts = {"en": "The capital of Italy is", "de": "Die Hauptstadt von Italien ist"}
        >>> answers = {"en": "Rome", "de": "Rom"}
        >>> record = {"id": "italy", "prompts": prompts, "answers": answers}
        >>> task = ng.ParallelTask.from_records([record], name="capitals")
        >>> task
        ParallelTask('capitals', 1 items, languages en de)
        >>> task.items[0]["joins"]
        {'en': ' ', 'de': ' '}
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
            prompts = self.items[0]["prompts"]
            facts |= {f"first prompt, {code}": prompts[code] for code in self.languages[:5]}
        return as_html(self.name, facts)

    @property
    def checksum(self) -> str:
        """The SHA-256 checksum of languages and items, which is the same on any machine."""
        text = json.dumps([self.languages, list(self.items)], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def has_choices(self) -> bool:
        """Whether every item has choices."""
        return all(item["choices"] for item in self.items)

    @property
    def has_answers(self) -> bool:
        """Whether every item has a right answer."""
        return all(item["answers"] for item in self.items)

    @property
    def has_masked(self) -> bool:
        """Whether every item has masked prompts."""
        return all("masked" in item for item in self.items)

    @property
    def most_choices(self) -> int:
        """The largest number of choices of a prompt; 0 if there are no choices."""
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
            records: the dicts described above; all fields but ``id`` and ``prompts`` may be left
                out. Where there are no choices, an answer may be a list of texts, each of which is
                right.
            name: the name of the task in results.
            languages: the codes of the languages to keep, in this order; by default all languages
                of the records.
            incomplete: whether records may lack some of these languages. If so, such records are
                left out, and the task's ``notes``, which every result repeats, say how many are
                kept. Otherwise a missing language is an error.

        Raises:
            NeuroglotError: a language is missing, an id occurs twice, a prompt is empty, an answer
                is not among its choices (the message names the item), or there are fewer than two
                languages.
        """
        check_text(name, "the name", f"task {shown(name)}")
        given = list(records)
        if not given:
            raise NeuroglotError(f"task {name!r} has no items.")
        with_repeats = [code for record in given for code in languages_of(record, name)]
        available = tuple(dict.fromkeys(with_repeats))
        wanted = available if languages is None else codes(languages)
        check_languages(wanted, available, name)
        whole = [record for record in given if not incomplete or is_whole(record, wanted)]
        if not whole:
            raise NeuroglotError(
                f"task {name!r}: none of {len(given)} items is there in all of "
                f"{listed(wanted, 20)}; choose fewer languages."
            )
        left_out = len(whole) < len(given)
        notes = (said_of_whole(len(whole), len(given), wanted),) if left_out else ()
        items: dict[str, Item] = {}
        for record in whole:
            item = check_item(record, wanted, name)
            if item["id"] in items:
                raise NeuroglotError(f"item {item['id']!r} occurs twice in task {name!r}.")
            items[item["id"]] = item
        return cls(name, wanted, list(items.values()), notes=notes)

    @classmethod
    def from_jsonl(
        cls,
        path: str | Path,
        *,
        name: str | None = None,
        languages: Iterable[str] | None = None,
        incomplete: bool = False,
    ) -> ParallelTask:
        """Read a file with one record in each line, as JSON, as :meth:`to_jsonl` writes it.

        Raises:
            NeuroglotError: the file cannot be read, a line is no JSON object, or
                :meth:`from_records` raises it.
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
            rows: dicts with ``id``, ``language`` and ``prompt``. They may also have ``masked``
                (the prompt with a neutral subject), ``answer`` (a text, or a list of texts each of
                which is right), ``choices`` (or ``choice1``, ``choice2``, …), ``relation`` and
                ``subject``.
            name: the name of the task in results.
            languages: the codes of the languages to keep, in this order; by default all.
            incomplete: see :meth:`from_records`.

        Raises:
            NeuroglotError: a row lacks a field, an item has a language twice, or
                :meth:`from_records` raises it.
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
        """Read a CSV file with a header and one prompt in each row, as :meth:`from_rows` does.

        Raises:
            NeuroglotError: the file cannot be read, a row is longer or shorter than the header,
                or :meth:`from_rows` raises it.
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
                        f"{file}, line {reader.line_num}: expected {len(columns)} columns, as in "
                        "the header."
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
        """Write the items to a file, each as JSON in a line of its own.

        Raises:
            NeuroglotError: the file cannot be written.
        """
        lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in self.items)
        try:
            write_file(path, "".join(lines))
        except OSError as error:
            raise NeuroglotError(f"cannot write {str(path)!r}: {error}.") from error

    def select(self, keep: Callable[[Item], bool]) -> ParallelTask:
        """The task with only the items for which ``keep(item)`` is true.

        Raises:
            NeuroglotError: no item is left.
        """
        kept = [item for item in self.items if keep(item)]
        if not kept:
            raise NeuroglotError(f"no item of task {self.name!r} is left after the selection.")
        return self.part(kept)

    def first(self, limit: int | None) -> ParallelTask:
        """The task with only its first ``limit`` items; ``None`` keeps all.

        Raises:
            NeuroglotError: ``limit`` is less than 1.
        """
        if limit is not None and limit < 1:
            raise NeuroglotError(f"limit={limit}: at least one item is needed.")
        if limit is None or limit >= len(self):
            return replace(self, items=list(self.items))
        return self.part(list(self.items[:limit]))

    def part(self, items: Sequence[Item], languages: tuple[str, ...] | None = None) -> ParallelTask:
        """A part of the task, with the ``guesses`` that were counted over the whole task.

        Args:
            items: the items of the task that are kept.
            languages: the languages of the task that are kept; by default all.
        """
        guesses = self.guesses or guesses_of(self.items, self.languages)
        return replace(self, items=items, languages=languages or self.languages, guesses=guesses)
