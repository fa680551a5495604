"""The tasks that can be loaded by name; ``catalogue.toml`` lists them."""

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

AS_GIVEN = "as given"  # what results call the template of a task from a file
EMBEDDED = Path(str(resources.files("neuroglot.tasks"))) / "embedded"
DRAWINGS: dict[str, tuple[str, ...]] = {"distractors": DISTRACTORS, "relations": KEPT}
FROM_FILE = {".jsonl": ParallelTask.from_jsonl, ".csv": ParallelTask.from_csv}


@dataclass(frozen=True)
class TaskEntry:
    """What the catalogue knows of a task.

    Attributes:
        name: by which it is loaded.
        summary: one sentence.
        reader: what makes its items.
        dataset: the published data behind it; none for an embedded task.
        told_in: of editing, the one language that facts are told in.
        asked_in: of editing, the one language that is asked in.
        match: how a generated answer is compared.
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
        """What the reader of an editing task is told beside the rest."""
        if self.reader not in {"editing", "mzsre"}:
            return {}
        return {"told_in": self.told_in, "asked_in": self.asked_in}


@cache
def catalogue() -> dict[str, TaskEntry]:
    """Every entry by name."""
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
    """Names of the tasks in the catalogue, each with a sentence that says what it asks."""
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
        name: one of :func:`list_tasks`, or the path of a ``.jsonl`` file of records or of a
            ``.csv`` file with one prompt a row.
        languages: which to keep, in this order; by default all there are.
        limit: how many items to keep; their order is seeded, so the first ones are a sample.
        split: ``"taught"`` or ``"held_out"`` keep the items without or with languages in which
            the fact was never taught to the embedded models (among those kept); ``"all"``.
        template: ``"native"`` (all words in the language), ``"shared"`` (one English
            instruction around the native sentences, ending alike in every language), or your
            own for a published dataset: a prompt with fields in braces, a ``.toml`` file laid out
            as those of the package, or prompts by language.
        path: folder with the published files of a dataset; without it, the Hub is asked.
        incomplete: whether languages may lack items. Only items that are there in all of the
            chosen languages are then kept, and ``notes``, which every result repeats, say how
            many. Otherwise an item that a language lacks is an error.
        distractors: of ``mpararel``, how wrong choices are drawn from the objects of a relation:
            ``"proportional"`` (the default: in proportion to how often each is right, so that the
            commonest is no good guess) or ``"uniform"``, as in earlier versions. ``notes`` say
            which.
        relations: of ``mpararel``, ``"single"`` (the default) leaves out the relations in which
            other objects are often true of a subject too, such as the borders of a country;
            ``"all"`` keeps them. ``notes`` say which were left out.

    Raises:
        NeuroglotError: unknown name, language, split or template (it lists the choices), an option
            that the task does not have, fewer than two languages, a file that is not as published
            (it names the file, the line and the language), languages that do not align, or no item
            left.
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
        task = _from_file(name, languages, template, incomplete=incomplete)
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
    """What the reader of a task is told of the choices that it draws, where something is said.

    Raises:
        NeuroglotError: the task's choices are given, or an option has no such value.
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


def _from_file(
    name: str, languages: Iterable[str] | None, template: Template, *, incomplete: bool
) -> ParallelTask:
    read = FROM_FILE[Path(name).suffix]
    if template != "native":
        raise NeuroglotError(f"a task from a file has its own prompts; {template!r} is not one.")
    task = read(Path(name), languages=languages, incomplete=incomplete)
    return replace(task, template=AS_GIVEN)


def embedded_file(name: str, template: str) -> Path:
    """The items of an embedded task: a line of JSON each, which `training` defines."""
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
    """The languages for which a folder has the published files."""
    try:
        is_folder, wrong = folder.is_dir(), "is a file" if folder.exists() else "does not exist"
    except (OSError, ValueError) as error:  # too long, or with a null character
        is_folder, wrong = False, f"cannot be used ({error})"
    if not is_folder:
        raise NeuroglotError(
            f"path (--path) {str(folder)!r} {wrong}; expected the folder that holds the published "
            f"files of {source.dataset.name} ({source.dataset.files!r})."
        )
    known = tuple(reader.languages_in(source))
    if not known:
        raise no_such_file(source)
    return known


def _published(
    entry: TaskEntry,
    source: Source,
    languages: Iterable[str] | None,
    template: Template,
    drawing: Mapping[str, str],
) -> ParallelTask:
    reader: Any = READERS[entry.reader]
    wording = find_wording(entry.reader, template)
    known = source.dataset.languages
    wanted = tuple(known if languages is None else languages)
    if source.folder is not None:
        known = _languages_at(reader, source, source.folder)
        lacking = [x for x in wanted if x in source.dataset.languages and x not in known]
        if languages is None:
            wanted = known
        elif lacking:
            raise NeuroglotError(
                f"{str(source.folder)!r} has no files of {source.dataset.name} in "
                f"{listed(lacking)}; it has files in {listed(known, 20)}."
            )
    check_languages(wanted, known, entry.name)
    items, notes = reader.items(source, wanted, wording, **entry.direction, **drawing)
    # By a hash, so that the first items are a sample, and the same ones in any set of languages.
    # Items of one group stay together, so that what their prompts share runs once.
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
