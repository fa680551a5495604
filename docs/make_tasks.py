"""Write docs/tasks.md: ``python -m docs.make_tasks FOLDER`` with the published data in FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import neuroglot as ng
from neuroglot.tasks.catalogue import TaskEntry, catalogue

LANGUAGE_SETS = (
    ("en", "de", "es", "fr", "pt", "ru", "th", "tr", "vi", "zh"),
    ("en", "de", "es", "fr", "pt", "ru", "th", "vi", "zh"),
    ("en", "de", "es", "fr", "pt", "ru", "th", "vi"),
    ("en", "de", "es", "fr", "ru", "zh"),
    ("en", "es", "fr", "pt"),
    ("en", "zh"),
    ("en", "tr"),
)

HEAD = """# Tasks

Made by `python -m docs.make_tasks FOLDER`; a test holds it against the code and the data.

`neuroglot tasks` lists them; `ng.load_task(name, languages, limit, split, template, path)` loads
one. Published datasets are read from a folder with their published files (`path=`, `--path`) or,
with `pip install 'neuroglot[datasets]'`, from the Hub or the address that the table names; both
give the same items. None of their sentences is part of this package.

| task | what it asks | answered by | data (licence) |
|---|---|---|---|
"""

TEXT = """
- **Templates.** `native` has all words in the language, `shared` puts one English instruction
  around the native sentences. Both are in this project's own words
  (`src/neuroglot/tasks/prompts/`). To reproduce a paper's prompt exactly, pass it:
  `template="{premise} … {hypothesis} …"`, prompts by language, or a `.toml` file laid out as those
  of the package. What it leaves out, such as the verdicts, is that of `shared`, or of `native`
  where it is by language. Our native words were translated back once by another reader; no native
  speaker has seen them, and the Quechua, Haitian and Swahili ones are the least sure.
- **Order.** Items are ordered by a hash of their id, so the first ones are a sample, and the same
  ones in any set of languages.
- **Alignment.** Ids, labels and answers must agree between languages; a short row, a bad label or
  another encoding is an error that names file, line and language.
- **XCOPA.** In the published test files of some languages `cause` and `effect` are mixed up (in
  Thai, all 500 are effects). The direction is therefore taken from the Chinese, Vietnamese or Tamil
  file, which agree; a note says for how many items others differ.
- **mParaRel.** A decoder can answer only where the pattern ends in the object, and each language
  has its own pattern, one that a person has checked if there is any. The choices are up to ten
  objects of the relation, without those that are also right for the subject.
- **Editing.** `mzsre` tells the new fact in English and asks in each language, `mzsre_xx_en` the
  other way round, `mzsre_xx_xx` stays in one language.
- **Written answers** are compared by their first line: exact match and token F1 after case and
  punctuation are taken off, or the first number (`mgsm`). In scripts without spaces F1 counts
  characters, of which wrong answers share many: compare F1 within a language only.

## What remains of mParaRel

| languages | facts shared | relations | items | which relations |
|---|---|---|---|---|
"""

OWN = """
## Your own

`neuroglot run MODEL my-task.jsonl` reads one record a line, as in
[CONTRIBUTING](../CONTRIBUTING.md#add-a-task). A `.csv` file has one prompt a row: columns `id`,
`language`, `prompt` and, where there are any, `answer`, `choice1`, `choice2`, … and `relation`.
Rows of `datasets` go into `ng.ParallelTask.from_rows` (one prompt a row) or `from_records`.
"""


def task_row(entry: TaskEntry) -> str:
    """A line of the table of tasks."""
    answered = "writing a number" if entry.match == "number" else "writing"
    if entry.dataset is None or entry.name in {"xnli", "xcopa", "mpararel"}:
        answered = "choosing"
    data = "embedded, ten languages"
    if entry.dataset is not None:
        where = entry.dataset.hub.get("address", entry.dataset.hub["path"])
        where = where.partition("/{revision}")[0]
        data = (
            f"{entry.dataset.citation} ({entry.dataset.licence}); `{where}` at "
            f"`{entry.dataset.revision[:12]}`; {' '.join(entry.dataset.languages)}"
        )
    return f"| `{entry.name}` | {entry.summary} | {answered} | {data} |"


def coverage_row(folder: Path, languages: tuple[str, ...]) -> str:
    """A line that says what remains of mParaRel in some languages."""
    task = ng.load_task("mpararel", languages, path=folder)
    shared = task.notes[0].partition(" of the ")[2].partition(" facts")[0]
    relations = sorted({item["relation"] for item in task.items}, key=lambda name: int(name[1:]))
    return (
        f"| {' '.join(languages)} | {shared} | {len(relations)} | {len(task):,} | "
        f"{' '.join(relations)} |"
    )


def page(data: Path) -> str:
    """The whole text."""
    tasks = "\n".join(task_row(entry) for entry in catalogue().values())
    coverage = "\n".join(coverage_row(data / "mpararel", codes) for codes in LANGUAGE_SETS)
    return f"{HEAD}{tasks}\n{TEXT}{coverage}\n{OWN}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m docs.make_tasks FOLDER")
    Path(__file__).with_name("tasks.md").write_text(page(Path(sys.argv[1])), encoding="utf-8")
