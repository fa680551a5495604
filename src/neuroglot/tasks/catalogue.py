"""The tasks that can be loaded by name, which ``catalogue.toml`` lists."""

from __future__ import annotations

import hashlib
import json
import lzma
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.tasks.parallel import SPLITS, Match, ParallelTask
from neuroglot.tasks.readers import READERS, Dataset, Source
from neuroglot.tasks.readers.distractors import DISTRACTORS, Distractors
from neuroglot.tasks.readers.mpararel import KEPT, Kept
from neuroglot.tasks.readers.source import no_such_file
from neuroglot.tasks.records import check_languages, codes
from neuroglot.tasks.wording import TEMPLATES, Template, find_wording

AS_GIVEN = "as given"  # the name, in results, of the template of a task from a file
EMBEDDED = Path(str(resources.files("neuroglot.tasks"))) / "embedded"
DRAWINGS: dict[str, tuple[str, ...]] = {"distractors": DISTRACTORS, "relations": KEPT}
FROM_FILE = {".jsonl": ParallelTask.from_jsonl, ".csv": ParallelTask.from_csv}


@dataclass(frozen=True)
class TaskEntry:
    """A task as the catalogue describes it.

    Attributes:
        name: the name by which it is loaded.
        summary: one sentence that says what the task asks.
        reader: the name of the reader that makes its items.
        dataset: the published data that are read; ``None`` for an embedded task.
        told_in: the one language in which an editing task tells its facts, if there is one.
        asked_in: the one language in which an editing task asks its questions, if there is one.
        match: how generated answers are compared with right ones.
    """

    name: str
    summary: str
    reader: str
    dataset: Dataset | None = None
    told_in: str | None = None
    asked_in: str | None = None
    match: Match = "text"

    @property
    def direction(self) -> dict[str, str | None]:
        """The arguments that only readers of editing tasks take."""
        if self.reader not in {"editing", "mzsre"}:
            return {}
        return {"told_in": self.told_in, "asked_in": self.asked_in}


@cache
def catalogue() -> dict[str, TaskEntry]:
    """All entries of the catalogue, by name."""
    text = (resources.files("neuroglot.tasks") / "catalogue.toml").read_text("utf-8")
    listing = tomllib.loads(text)
    datasets = {
        name: Dataset(name=name, languages=tuple(fields.pop("languages")), **fields)
        for name, fields in listing["datasets"].items()
    }
    return {
        name: TaskEntry(name=name, dataset=datasets.get(fields.pop("dataset", "")), **fields)
        for name, fields in listing["tasks"].items()
    }


def list_tasks() -> dict[str, str]:
    """The names of the tasks in the catalogue, each with a sentence that says what it asks.

    Examples:
        >>> import neuroglot as ng
        >>> ng.list_tasks()["facts"]
        'Fact probing: real and invented relations between names, ten choices an item.'
    """
    return {name: entry.summary for name, entry in catalogue().items()}


def load_task(
    name: str,
    *,
    languages: Iterable[str] | None = None,
    limit: int | None = None,
    split: str = "all",
    template: Template = "native",
    path: str | Path | None = None,
    incomplete: bool = False,
    distractors: Distractors | None = None,
    relations: Kept | None = None,
) -> ParallelTask:
    """Load a task from the catalogue, or from a file of your own.

    Args:
        name: a name that :func:`list_tasks` gives, or the path of a ``.jsonl`` file of records or
            of a ``.csv`` file with one prompt in each row.
        languages: the codes of the languages to keep, in this order; by default all languages.
        limit: the number of items to keep. Items are in a fixed random order, so the first ones
            are a sample.
        split: ``"taught"`` keeps the items that the embedded models were taught in all of these
            languages, ``"held_out"`` those that they were not taught in some, and ``"all"`` keeps
            both.
        template: ``"native"`` (all words in the language of the prompt), ``"shared"`` (one English
            instruction around the native sentences, with the same ending in every language), or,
            for a published dataset, your own: a prompt with fields in braces, a ``.toml`` file
            with the layout of those in the package, or prompts by language.
        path: the folder with the published files of a dataset; by default they are read from the
            Hub.
        incomplete: whether languages may lack items. If so, only the items that all of the
            languages have are kept, and the task's ``notes``, which every result repeats, say how
            many. Otherwise a missing item is an error.
        distractors: for ``mpararel``, how the wrong choices are drawn from the objects of a
            relation: ``"proportional"`` (the default) to how often each is right, so that the most
            frequent object is no good guess, or ``"uniform"``. The ``notes`` say which.
        relations: for ``mpararel``, ``"single"`` (the default) leaves out the relations in which
            several objects are often true of one subject, such as the borders of a country;
            ``"all"`` keeps them. The ``notes`` say which are left out.

    Raises:
        NeuroglotError: the name, a language, the split or the template is unknown (the message
            lists the choices); the task does not have an option; there are fewer than two
            languages; a file is not as published (the message names the file, the line and the
            language); the languages do not align; or no item is left.

    Examples:
        >>> import neuroglot as ng
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=100)
        >>> task
        ParallelTask('facts', 100 items, languages en de)
        >>> sorted(task.items[0]["prompts"])
        ['de', 'en']
    """
    if split not in SPLITS:
        raise NeuroglotError(f"unknown split {split!r}; there are {listed(SPLITS)}.")
    languages = None if languages is None else codes(languages)
    entry = catalogue().get(name)
    if entry is None and Path(name).suffix not in FROM_FILE:
        raise NeuroglotError(
            f"unknown task {name!r}; there are {listed(catalogue(), 20)}, or the path of a "
            f"{' or '.join(FROM_FILE)} file."
        )
    drawing = _drawing(entry, name, {"distractors": distractors, "relations": relations})
    if path is not None and (entry is None or entry.dataset is None):
        raise NeuroglotError(f"task {name!r} is read from no folder; leave path (--path) out.")
    if entry is None:
        if template != "native":
            raise NeuroglotError(
                f"a task from a file has its own prompts; {template!r} is not one."
            )
        from_file = FROM_FILE[Path(name).suffix]
        task = from_file(Path(name), languages=languages, incomplete=incomplete)
        task = replace(task, template=AS_GIVEN)
    elif entry.dataset is None:
        task = _embedded(entry, languages, template)
    else:
        folder = Path(path) if path is not None else None
        source = Source(entry.dataset, folder, incomplete)
        task = _published(entry, source, languages, template, drawing)
    task = replace(task, split=split)
    if split != "all":
        task = task.select(lambda item: bool(item["held_out"]) == (split == "held_out"))
    return task.first(limit)


def _drawing(
    entry: TaskEntry | None, name: str, options: Mapping[str, str | None]
) -> dict[str, str]:
    """The options for drawing choices that the user gave, which the reader takes as arguments.

    Raises:
        NeuroglotError: the task draws no choices, or an option has no such value.
    """
    given = {option: value for option, value in options.items() if value is not None}
    if given and (entry is None or entry.reader != "mpararel"):
        flags = listed(f"{option} (--{option})" for option in given)
        raise NeuroglotError(
            f"task {name!r} draws no distractors and leaves out no relations; leave {flags} out."
        )
    for option, value in given.items():
        if value not in DRAWINGS[option]:
            raise NeuroglotError(
                f"unknown {option} {shown(value)}; there are {listed(DRAWINGS[option])}."
            )
    return given


def embedded_file(name: str, template: str) -> Path:
    """The file with the items of an embedded task as lines of JSON, written by ``training``."""
    return EMBEDDED / f"{name}-{template}.jsonl.xz"


def _embedded(
    entry: TaskEntry, languages: Iterable[str] | None, template: Template
) -> ParallelTask:
    if template not in TEMPLATES:
        raise NeuroglotError(
            f"task {entry.name!r} has no template {template!r}; there are {listed(TEMPLATES)}."
        )
    lines = lzma.decompress(embedded_file(entry.name, template).read_bytes()).splitlines()
    items = [json.loads(line) for line in lines]
    task = ParallelTask.from_records(items, name=entry.name, languages=languages)
    return replace(task, template=str(template), asked_in=entry.asked_in)


def _languages_at(reader: Any, source: Source, folder: Path) -> tuple[str, ...]:
    """The languages whose published files a folder has.

    Raises:
        NeuroglotError: it is no folder, or has no file of the dataset.
    """
    try:
        is_folder, wrong = folder.is_dir(), "is a file" if folder.exists() else "does not exist"
    except (OSError, ValueError) as error:  # too long, or with a null character
        is_folder, wrong = False, f"cannot be used ({error})"
    if not is_folder:
        raise NeuroglotError(
            f"path (--path) {str(folder)!r} {wrong}; expected the folder that holds the published "
            f"files of {source.dataset.name} ({source.dataset.files!r})."
        )
    available = tuple(reader.languages_in(source))
    if not available:
        raise no_such_file(source)
    return available


def _published(
    entry: TaskEntry,
    source: Source,
    languages: Iterable[str] | None,
    template: Template,
    drawing: Mapping[str, str],
) -> ParallelTask:
    reader: Any = READERS[entry.reader]
    wording = find_wording(entry.reader, template)
    available = published = source.dataset.languages
    if source.folder is not None:
        available = _languages_at(reader, source, source.folder)
    wanted = tuple(available if languages is None else languages)
    lacking = [code for code in wanted if code in published and code not in available]
    if lacking:
        raise NeuroglotError(
            f"{str(source.folder)!r} has no files of {source.dataset.name} in "
            f"{listed(lacking)}; it has files in {listed(available, 20)}."
        )
    check_languages(wanted, available, entry.name)
    items, notes = reader.items(source, wanted, wording, **entry.direction, **drawing)
    # Items are ordered by a hash of their ids, so that the first ones are a sample, and the same
    # in any set of languages. Items of one group stay together, so that the beginning that their
    # prompts have in common is run once.
    group = {item["id"]: item.pop("group", item["id"]) for item in items}
    items.sort(key=lambda item: (_hash(group[item["id"]]), _hash(item["id"])))
    task = ParallelTask.from_records(items, name=entry.name, languages=wanted)
    return replace(
        task,
        template=wording.name,
        match=entry.match,
        notes=(*source.notes, *notes),
        asked_in=entry.asked_in,
    )


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
