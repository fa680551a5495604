"""What counts as one observation of a task's prompts, and which observations belong together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.answering.answers import asked_of, by_prompt
from neuroglot.answering.locales import locale_of
from neuroglot.answering.statistics import LEAST_CLUSTERS, Interval, clustered_interval
from neuroglot.errors import listed
from neuroglot.models.model import Model
from neuroglot.recording.blocks import prompt_names
from neuroglot.running.batching import tokenize
from neuroglot.running.choices import Question, questions
from neuroglot.tasks.equal_prompts import Indices, clusters_of, first_equal
from neuroglot.tasks.parallel import ParallelTask

SAME = "same_tokens_as"
MOST_NAMED = 10  # languages in a sentence
ITEMS_AT_ONCE = 256  # whose tokens are in memory together
ENDS = ("", "_low", "_high")
OVER_RELATIONS = ("_low_over_relations", "_high_over_relations")

Values = np.ndarray[Any, Any]
Estimate = tuple[float, float, float, float, float]


def same_tokens(
    model: Model,
    task: ParallelTask,
    max_new_tokens: int,
    keep: Callable[[Sequence[Question]], object] | None = None,
) -> Indices:
    """Which prompts are the same tokens, as they run when they are answered.

    Two prompts of a language are the same if what runs before their choices is the same tokens:
    in the chat template, with special tokens, cut where they are too long. Prompts that are the
    same text are the same also where their choices change how the text is cut or tokenised.

    Args:
        model: which answers.
        task: its prompts.
        max_new_tokens: for which there must be room after a prompt, where answers are written.
        keep: takes the questions of prompts with choices, item by item and language by language,
            so that whoever answers them need not make them again.

    Returns:
        Index of the first item with the same prompt (item, language); an item's own index where
        none before it has it.

    Raises:
        NeuroglotError: a prompt does not fit into the context.
    """
    of_text: dict[str, Hashable] = {}
    keys = [
        of_text.setdefault(text, tokens)
        for text, tokens in zip(
            by_prompt(task, "prompts"), _tokens(model, task, max_new_tokens, keep), strict=True
        )
    ]
    n = len(task.languages)
    return first_equal([keys[start : start + n] for start in range(0, len(keys), n)])


def _tokens(
    model: Model,
    task: ParallelTask,
    max_new_tokens: int,
    keep: Callable[[Sequence[Question]], object] | None,
) -> Iterator[Hashable]:
    """Tokens of each prompt, item by item and language by language."""
    for start in range(0, len(task), ITEMS_AT_ONCE):
        some = replace(task, items=task.items[start : start + ITEMS_AT_ONCE])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # prompts that are cut are named when they run
            if task.has_choices:
                asked = questions(model, asked_of(some, by_prompt(some, "choices")))
                if keep is not None:
                    keep(asked)
                # What of a prompt is scored with its choices tells prompts apart too.
                yield from ((tuple(one.prefix), one.rest) for one in asked)
            else:
                texts, names = by_prompt(some, "prompts"), prompt_names(some)
                yield from map(tuple, tokenize(model, texts, names, room=max_new_tokens))


@dataclass(frozen=True)
class Observed:
    """Values that enter a statistic, each once.

    Attributes:
        numbers: the values (observation,).
        subjects: cluster of each by subject (observation,).
        relations: cluster of each by relation (observation,); ``None`` where there are too few.
    """

    numbers: Values
    subjects: Values
    relations: Values | None

    @property
    def mean(self) -> float:
        """Of the values; NaN of none."""
        return float(self.numbers.mean()) if len(self.numbers) else np.nan

    def estimate(
        self, seed: int, interval: Callable[[Values, Values, int], Interval] = clustered_interval
    ) -> Estimate:
        """Mean, and the ends of its intervals over subjects and over relations; NaN of none."""
        over = [
            (np.nan, np.nan)
            if clusters is None or not len(self.numbers)
            else interval(self.numbers, clusters, seed)
            for clusters in (self.subjects, self.relations)
        ]
        return (self.mean, *over[0], *over[1])


@dataclass(frozen=True)
class Samples:
    """Which prompts are one observation, and which items are no independent samples.

    Attributes:
        same: group of each prompt (item, language); prompts of a language in one group are equal.
        subjects: cluster of each item (item,), by subject and equal prompts.
        relations: cluster of each item (item,), by relation and equal prompts; ``None`` where an
            item has no relation, or there are fewer than ten clusters.
    """

    same: Indices
    subjects: Indices
    relations: Indices | None

    @property
    def ends(self) -> tuple[str, ...]:
        """Suffixes of what an estimate is kept as, without those of relations if there are none."""
        return ENDS if self.relations is None else (*ENDS, *OVER_RELATIONS)

    def observed(self, values: Values, kept: Values) -> Observed:
        """The observations among some prompts: equal prompts are averaged, and enter once.

        Args:
            values: of each prompt (item, language).
            kept: which prompts are meant (item, language).
        """
        items, columns = np.nonzero(kept)
        group = self.same[items, columns] * kept.shape[1] + columns
        _, first, place = np.unique(group, return_index=True, return_inverse=True)
        sums, sizes = np.bincount(place, values[items, columns]), np.bincount(place)
        of = items[first]
        relations = None if self.relations is None else self.relations[of]
        return Observed(sums / sizes, self.subjects[of], relations)

    def weights(self, kept: Values) -> Values:
        """What each prompt (item, language) weighs, so that equal ones together weigh one."""
        found = np.zeros(kept.shape)
        items, columns = np.nonzero(kept)
        group = self.same[items, columns] * kept.shape[1] + columns
        _, place = np.unique(group, return_inverse=True)
        found[items, columns] = 1 / np.bincount(place)[place] if len(place) else 0
        return found

    def of_items(self) -> Samples:
        """The same for values of items (item, 1), which are equal if all their prompts are."""
        whole = first_equal([[tuple(row)] for row in self.same.tolist()])
        return replace(self, same=whole)


def column(kept: Values, j: int) -> Values:
    """Which prompts (item, language) are kept, without those of other languages than one."""
    found = np.zeros_like(kept)
    found[:, j] = kept[:, j]
    return found


def samples_of(data: xr.Dataset | xr.DataArray, *others: xr.Dataset | xr.DataArray) -> Samples:
    """Observations and clusters of results with coordinates of ``item`` and ``language``.

    Prompts are one observation if they are equal in all results, and their items one cluster if
    they are equal in any. In a result of before equal prompts were looked for, each counts.

    Args:
        data: with ``subject``, ``relation`` and ``same_tokens_as``, as far as it has them.
        others: results of the same items and languages.
    """
    n, languages = data.sizes["item"], data.sizes["language"]
    known = [_same(one) for one in (data, *others)]
    found = [same for same in known if same is not None]
    own = np.repeat(np.arange(n)[:, None], languages, axis=1)
    if len(found) < len(known):
        same = own
    elif len(found) == 1:
        same = found[0]
    else:
        stacked = np.stack(found, axis=-1)
        same = first_equal([[tuple(cell) for cell in row] for row in stacked.tolist()])
    subjects = data["subject" if "subject" in data.coords else "item"].to_numpy()
    relations = data["relation"].to_numpy().astype(str) if "relation" in data.coords else None
    wider = None
    if relations is not None and (relations != "").all():
        wider = _numbered(clusters_of(relations, *found))
    return Samples(
        same,
        _numbered(clusters_of(subjects, *found)),
        None if wider is None or wider.max() + 1 < LEAST_CLUSTERS else wider,
    )


def _same(data: xr.Dataset | xr.DataArray) -> Indices | None:
    if SAME not in data.coords:
        return None
    return np.asarray(data[SAME].transpose("item", "language").to_numpy(), np.int64)


def _numbered(labels: Values) -> Indices:
    """Clusters as numbers, in the order of their names, so that the order of items is no matter."""
    return np.asarray(np.unique(labels, return_inverse=True)[1], np.int64)


def weights_of(data: xr.Dataset, counted: xr.DataArray) -> xr.DataArray:
    """What each prompt (item, language) weighs in a mean over observations.

    Args:
        data: see :func:`samples_of`.
        counted: which prompts count (item, language); the others weigh nothing.
    """
    counted = counted.transpose("item", "language")
    return counted.copy(data=samples_of(data).weights(counted.to_numpy().astype(bool)))


def said_of_samples(data: xr.Dataset, counted: xr.DataArray | None = None) -> list[str]:
    """Sentences on prompts that count once, and on intervals that there are not.

    Args:
        data: a result with coordinates of ``item`` and ``language``.
        counted: which prompts count (item, language); by default all.
    """
    if counted is None:
        counted = xr.DataArray(
            np.ones((data.sizes["item"], data.sizes["language"]), bool), dims=("item", "language")
        )
    kept = counted.transpose("item", "language").to_numpy().astype(bool)
    samples = samples_of(data)
    said = []
    if SAME not in data.coords:
        said.append(
            "This result is of before equal prompts were looked for: each prompt counts, and "
            "intervals may be too narrow."
        )
    else:
        repeated = [
            f"{n - distinct:,} of {n:,} prompts in {_language(str(language))}"
            for j, language in enumerate(data["language"].to_numpy())
            for n, distinct in [(int(kept[:, j].sum()), _n_distinct(samples, kept, j))]
            if distinct < n
        ]
        if repeated:
            said.append(f"{listed(repeated, MOST_NAMED)} repeat an earlier one and count once.")
    n_subjects = len(np.unique(samples.subjects[kept.any(axis=1)]))
    if n_subjects < LEAST_CLUSTERS:
        subjects = "one subject" if n_subjects == 1 else f"{n_subjects} subjects"
        said.append(
            f"There is no interval: the prompts are of {subjects}, and at least {LEAST_CLUSTERS} "
            "are needed."
        )
    return said


def _n_distinct(samples: Samples, kept: Values, j: int) -> int:
    return len(np.unique(samples.same[kept[:, j], j]))


def _language(code: str) -> str:
    """The English name of a language, or its code if it has none."""
    locale = locale_of(code)
    return str(locale.get_display_name("en")) if locale is not None else code
