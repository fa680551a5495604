"""Write docs/tasks.md: ``python -m docs.make_tasks FOLDER`` with the published data in FOLDER."""

from __future__ import annotations

import string
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroglot.tasks.catalogue import TaskEntry, catalogue
from neuroglot.tasks.guessing import majority
from neuroglot.tasks.parallel import ParallelTask
from neuroglot.tasks.readers import Dataset, Source, mpararel
from neuroglot.tasks.readers.source import Table
from neuroglot.tasks.records import Item
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

`neuroglot tasks` lists them; `ng.load_task(name)` loads one, with `languages`, `limit`, `split`,
`template` and `path` as keywords; `distractors` and `relations` are options of `mpararel`,
[below](#what-remains-of-mpararel).
Published datasets are read from a folder with their published files (`path=`, `--path`) or,
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
- **XNLI.** The native verdicts are words of unequal length. `--choice-score sum`, the default,
  favours those with fewer tokens; `--choice-score mean`, by token, is the alternative.
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
  objects of the relation, without those that are also right for the subject: as any of the chosen
  languages says of the subject or of another one of the same name, as facts of the relation (or of
  its converse) say when they are read the other way round, or as a chain of them says where the
  relation is transitive. How they are drawn, and which relations are left out, is said
  [below](#what-remains-of-mpararel).
- **Masked prompts.** Items of `mpararel` and `facts` have each prompt once more without its
  subject (`masked`), so that what the wording alone is worth to a model can be subtracted. In
  mParaRel a neutral word stands in its place (`neutral_subject` in `prompts/mpararel.toml`; a
  template of your own may have such a table too, or the word beside the prompt of a language), in
  `facts` a question mark (`Territory: ?. Currency:`), since the embedded models were trained on
  few other words. The other tasks have no masked prompts: the prompts of editing tell the answer,
  and the others are about no single subject.
- **Editing.** `mzsre` tells the new fact in English and asks in each language, `mzsre_xx_en` the
  other way round, `mzsre_xx_xx` stays in one language.
- **Written answers** are compared by their first line, after the model's thoughts: exact match and
  token F1 as by the published scoring of SQuAD (no case, no punctuation, no articles where English
  is asked in), or the first number (`mgsm`); [the method](method.md#written-answers) says how. Of
  several right answers the best counts (`xquad`, where a question has them). In scripts without
  spaces F1 counts characters, of which wrong answers share many: compare F1 within a language only.

"""

MPARAREL = """## What remains of mParaRel

Left out are relations in which other objects are often true of a subject too, by what the property
means in Wikidata; `relations="all"` (`--relations all`) keeps them.

| relation | why other objects are often true |
|---|---|
{several}

| languages | facts shared | relations | items | which relations | left out | of relations |
|---|---|---|---|---|---|---|
{coverage}

### What a guesser knows

In per cent: **chance**, what blind choosing gets right; **majority**, what somebody gets right who
does not see the subject and takes the choice that is most often right in its relation
(`neuroglot.tasks.guessing.majority`, counted over the same items). **As before** is
`distractors="uniform", relations="all"`.

| languages | guesser | items | {header} |
|---|---|---|{rule}
{guesses}

**What was wrong.** Wrong choices were drawn uniformly from the objects of a relation, while right
answers are distributed very unequally: an object that is right in a third of a relation's facts
was a wrong choice no more often than one that is right once. So the commonest choice was a good
guess, far above the chance of one in ten that accuracies stood beside, and a model that knew
nothing but how common names are looked as if it knew facts. In some relations, moreover, true
answers counted as wrong: most countries have diplomatic relations with most others (`P530`).

**What is right now.** Objects are drawn in proportion to how often each is right in its relation,
so that a common object is common among the wrong choices too, and the relations of the first table
are left out. Results say so in their notes. `distractors="uniform"` (`--distractors uniform`) with
`relations="all"` gives the choices of before.

**What remains.** The guess is still better than chance. An object that is right in a good part of a
relation is among the choices of nearly every item, once each, so the guess is right about as often
as that object is; in relations with ten objects or fewer (the continent of a place, `P30`) all
objects are choices however they are drawn. In small relations the guesser also profits from
counting the item that it is asked. So no accuracy on mParaRel means much without the majority guess
beside it. And only what the published facts say is known to be true: a wrong choice may still be
true of a subject where they do not say so, above all in relations with several values for some
subjects (official languages, `P37`) and where places lie in one another.
"""

OWN = """
## Your own

`neuroglot run MODEL my-task.jsonl` reads one record a line, as in
[CONTRIBUTING](../CONTRIBUTING.md#add-a-task). A `.csv` file has one prompt a row: columns `id`,
`language`, `prompt` and, where there are any, `masked` (the prompt with a neutral subject in place
of its own; all languages of an item have one, or none), `answer`, `choice1`, `choice2`, …,
`relation` and `subject`. An answer of a record (or a row of `datasets`) that is written may be a
list of texts, each of which is right.
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
    words = find_wording(reader, "shared").of("en")
    others = [
        f"`{word}`" + (f" with {_fields(words, word)}" if _fields(words, word) else "")
        for word in words
        if word != "prompt"
    ]
    return f"| {' '.join(tasks)} | {_fields(words, 'prompt')} | {', '.join(others) or '–'} |"


def _fields(words: Words, word: str) -> str:
    parts = string.Formatter().parse(words[word])
    return " ".join(f"`{{{field}}}`" for _, field, _, _ in parts if field)


@dataclass(frozen=True)
class Choices:
    """mParaRel in the languages of some tables, as it is by default and as it was before."""

    facts: int
    now: ParallelTask
    before: ParallelTask


def read_choices(source: Source, tables: Mapping[str, Table]) -> Choices:
    """Make the items both ways."""
    wording, languages = find_wording("mpararel", "native"), tuple(tables)
    now, _ = mpararel.items_of(source, tables, wording)
    before, _ = mpararel.items_of(source, tables, wording, distractors="uniform", relations="all")
    return Choices(
        len(mpararel.shared_facts(tables)),
        ParallelTask.from_records(now, name="now", languages=languages),
        ParallelTask.from_records(before, name="before", languages=languages),
    )


def coverage_row(found: Choices) -> str:
    """A line that says what remains of mParaRel."""
    lost = [item for item in found.before.items if item["relation"] in mpararel.SEVERAL]
    kept = _relations(found.now.items)
    return (
        f"| {' '.join(found.now.languages)} | {found.facts:,} | {len(kept)} | {len(found.now):,} | "
        f"{' '.join(kept)} | {len(lost):,} | {' '.join(_relations(lost)) or '–'} |"
    )


def _relations(items: Iterable[Item]) -> list[str]:
    return sorted({item["relation"] for item in items}, key=lambda name: int(name[1:]))


def guess_rows(found: Choices, languages: Sequence[str]) -> list[str]:
    """Lines that say what a guesser gets right in each language, those that are not there too."""
    guesses = {
        "chance": (found.now, chance(found.now)),
        "majority": (found.now, majority(found.now)),
        "majority, as before": (found.before, majority(found.before)),
    }
    rows = []
    for who, (task, right) in guesses.items():
        share = dict(zip(task.languages, 100 * right.mean(axis=0), strict=True))
        cells = [f"{share[x]:.1f}" if x in share else "–" for x in languages]
        rows.append(f"| {' '.join(task.languages)} | {who} | {len(task):,} | {' | '.join(cells)} |")
    return rows


def chance(task: ParallelTask) -> np.ndarray:
    """The probability that a blind choice is right (item, language)."""
    return np.array([[1 / len(item["choices"][x]) for x in task.languages] for item in task.items])


def mpararel_part(dataset: Dataset, folder: Path) -> str:
    """What is said of mParaRel, with its tables."""
    source = Source(dataset, folder)
    tables = {language: mpararel.read(source, language) for language in dataset.languages}
    found = [
        read_choices(source, {language: tables[language] for language in languages})
        for languages in LANGUAGE_SETS
    ]
    return MPARAREL.format(
        several="\n".join(f"| `{name}` | {why} |" for name, why in mpararel.SEVERAL.items()),
        coverage="\n".join(map(coverage_row, found)),
        header=" | ".join(dataset.languages),
        rule="---|" * len(dataset.languages),
        guesses="\n".join(row for one in found for row in guess_rows(one, dataset.languages)),
    )


def page(data: Path) -> str:
    """The whole text."""
    tasks = "\n".join(task_row(entry) for entry in catalogue().values())
    readers = dict.fromkeys(x.reader for x in catalogue().values() if x.dataset is not None)
    fields = "\n".join(fields_row(reader) for reader in readers)
    dataset = catalogue()["mpararel"].dataset
    assert dataset is not None
    part = mpararel_part(dataset, data / "mpararel")
    return f"{HEAD}{tasks}\n{FIELDS}{fields}\n{TEXT}{part}{OWN}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m docs.make_tasks FOLDER")
    Path(__file__).with_name("tasks.md").write_text(page(Path(sys.argv[1])), encoding="utf-8")
