"""Write docs/tasks.md: ``python -m docs.make_tasks FOLDER`` with the published data in FOLDER."""

from __future__ import annotations

import string
import sys
from collections.abc import Mapping
from pathlib import Path

from neuroglot.tasks.catalogue import TaskEntry, catalogue
from neuroglot.tasks.readers import Source, mpararel
from neuroglot.tasks.readers.source import Table
from neuroglot.tasks.wording import Words, find_wording

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
with `pip install '.[datasets]'` in this folder, from the Hub or the address that the table names;
both give the same items. The folder may be what the authors publish, as unpacked or cloned (for
XCOPA, `LANG/test.LANG.jsonl` in `data`), or hold the files themselves. None of their sentences is
part of this package.

| task | what it asks | answered by | data (licence) |
|---|---|---|---|
"""

FIELDS = """
## Templates

`template=` (`--template`) is `native`, `shared`, a prompt of your own with these fields, prompts by
language, or a `.toml` file laid out as those of the package. Words are what a table of a language
may hold beside its `prompt`.

| task | fields of the prompt | words |
|---|---|---|
"""

TEXT = """
## What to know of them

- **Templates.** `native` has all words in the language, `shared` puts one English instruction
  around the native sentences. Both are in this project's own words
  (`src/neuroglot/tasks/prompts/`). To reproduce a paper's prompt exactly, pass it:
  `template="{premise} … {hypothesis} …"`, prompts by language, or a `.toml` file laid out as those
  of the package. What it leaves out, such as the verdicts, is that of `shared`, or of `native`
  where it is by language. Our native words were translated back once by another reader; no native
  speaker has seen them, and the Quechua, Haitian and Swahili ones are the least sure.
- **Joins.** A space stands between prompt and answer, or nothing in Chinese and Japanese. Thai sets
  no spaces between words, but does between phrases and sentences, so its templates join with a
  space. Those of mParaRel are the patterns' own. A prompt that ends in a line end or a tab is
  joined by nothing more, unless a join is given; spaces at the end of a prompt
  [move to the answer](method.md#tokens).
- **XNLI.** The native verdicts are words of unequal length. `--score sum`, the default, favours
  those with fewer tokens; `--score mean`, by token, is the alternative.
- **Order.** Items are ordered by a hash of their id, so the first ones are a sample, and the same
  ones in any set of languages.
- **Alignment.** Ids, labels and answers must agree between languages; a short row, a bad label or
  another encoding is an error that names file, line and language.
- **Missing translations** are errors, unless `incomplete=True` (`--incomplete`) says there may be
  some: only items that are there in all chosen languages count then, and a note that every result
  repeats says how many of how many they are.
- **XCOPA.** In the published test files of some languages `cause` and `effect` are mixed up (in
  Thai, all 500 are effects). The direction is therefore taken from the Chinese, Vietnamese or Tamil
  file, which agree; a note says for how many items others differ.
- **mParaRel.** A decoder can answer only where the pattern ends in the object, and each language
  has its own pattern, one that a person has checked if there is any. The choices are up to ten
  objects of the relation, without those that are also right for the subject.
- **Editing.** `mzsre` tells the new fact in English and asks in each language, `mzsre_xx_en` the
  other way round, `mzsre_xx_xx` stays in one language.
- **Written answers** are compared by their first line, after the model's thoughts: exact match and
  token F1 as by the published scoring of SQuAD (no case, no punctuation, no articles where English
  is asked in), or the first number (`mgsm`); [the method](method.md#written-answers) says how. Of
  several right answers the best counts (`xquad`, where a question has them). In scripts without
  spaces F1 counts characters, of which wrong answers share many: compare F1 within a language only.

## What remains of mParaRel

| languages | facts shared | relations | items | which relations |
|---|---|---|---|---|
"""

OWN = """
## Your own

`neuroglot run MODEL my-task.jsonl` reads one record a line, as in
[CONTRIBUTING](../CONTRIBUTING.md#add-a-task). A `.csv` file has one prompt a row: columns `id`,
`language`, `prompt` and, where there are any, `answer`, `choice1`, `choice2`, …, `relation` and
`subject`. An answer of a record (or a row of `datasets`) that is written may be a list of texts,
each of which is right.
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


def fields_row(reader: str) -> str:
    """A line that says what a template of the tasks of a reader may hold."""
    tasks = [f"`{name}`" for name, entry in catalogue().items() if entry.reader == reader]
    words = find_wording(reader, "shared").table["*"]
    others = [
        f"`{word}`" + (f" with {_fields(words, word)}" if _fields(words, word) else "")
        for word in words
        if word != "prompt"
    ]
    return f"| {' '.join(tasks)} | {_fields(words, 'prompt')} | {', '.join(others) or '–'} |"


def _fields(words: Words, word: str) -> str:
    parts = string.Formatter().parse(words[word])
    return " ".join(f"`{{{field}}}`" for _, field, _, _ in parts if field)


def coverage_row(source: Source, tables: Mapping[str, Table]) -> str:
    """A line that says what remains of mParaRel in the languages of some tables."""
    items, _ = mpararel.items_of(source, tables, find_wording("mpararel", "native"))
    relations = sorted({item["relation"] for item in items}, key=lambda name: int(name[1:]))
    return (
        f"| {' '.join(tables)} | {len(mpararel.shared_facts(tables)):,} | {len(relations)} | "
        f"{len(items):,} | {' '.join(relations)} |"
    )


def page(data: Path) -> str:
    """The whole text."""
    tasks = "\n".join(task_row(entry) for entry in catalogue().values())
    readers = dict.fromkeys(x.reader for x in catalogue().values() if x.dataset is not None)
    fields = "\n".join(fields_row(reader) for reader in readers)
    dataset = catalogue()["mpararel"].dataset
    assert dataset is not None
    source = Source(dataset, data / "mpararel")
    tables = {language: mpararel.read(source, language) for language in dataset.languages}
    coverage = "\n".join(
        coverage_row(source, {language: tables[language] for language in languages})
        for languages in LANGUAGE_SETS
    )
    return f"{HEAD}{tasks}\n{FIELDS}{fields}\n{TEXT}{coverage}\n{OWN}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m docs.make_tasks FOLDER")
    Path(__file__).with_name("tasks.md").write_text(page(Path(sys.argv[1])), encoding="utf-8")
