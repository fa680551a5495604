"""Observations and clusters: which prompts count once, and which belong to one subject."""

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
MOST_NAMED = 10  # languages that a sentence names
ITEMS_AT_ONCE = 256  # items whose tokens are in memory at the same time
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
    """Find the prompts that are the same tokens when they are answered.

    Two prompts of a language are the same if the same tokens run before their choices: in the chat
    template, with special tokens, and cut if they are too long. Two prompts of the same text are
    always the same, even if their choices change how the text is cut or tokenised.

    Args:
        model: the model that answers.
        task: the task.
        max_new_tokens: the number of tokens for which there must be room after a prompt, if answers
            are written.
        keep: a function that gets the questions of prompts with choices, item by item and language
            by language, so that they need not be tokenised again.

    Returns:
        The place of the first item with the same prompt (item, language); the item's own place if
        no item before it has the same.

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
    """The tokens of each prompt, item by item and language by language."""
    for start in range(0, len(task), ITEMS_AT_ONCE):
        part = replace(task, items=task.items[start : start + ITEMS_AT_ONCE])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there is a warning about cut prompts when they run
            if task.has_choices:
                asked = questions(model, asked_of(part, by_prompt(part, "choices")))
                if keep is not None:
                    keep(asked)
                # The end of a prompt that is scored with its choices also tells prompts apart.
                yield from ((tuple(question.prefix), question.rest) for question in asked)
            else:
                texts, names = by_prompt(part, "prompts"), prompt_names(part)
                yield from map(tuple, tokenize(model, texts, names, room=max_new_tokens))


@dataclass(frozen=True)
class Observed:
    """The values from which a statistic is computed, one for each observation.

    Attributes:
        numbers: the values (observation,).
        subjects: the cluster of each by subject (observation,).
        relations: the cluster of each by relation (observation,); ``None`` if there are too few.
    """

    numbers: Values
    subjects: Values
    relations: Values | None

    @property
    def mean(self) -> float:
        """The mean of the values; NaN if there is none."""
        return float(self.numbers.mean()) if len(self.numbers) else np.nan

    def estimate(
        self, seed: int, interval: Callable[[Values, Values, int], Interval] = clustered_interval
    ) -> Estimate:
        """The mean, and the ends of its intervals over subjects and over relations.

        Args:
            seed: the seed of the intervals.
            interval: computes an interval from values, their clusters and the seed.

        Returns:
            The five numbers; those that are not known are NaN.
        """
        over_subjects, over_relations = (
            (np.nan, np.nan)
            if clusters is None or not len(self.numbers)
            else interval(self.numbers, clusters, seed)
            for clusters in (self.subjects, self.relations)
        )
        return (self.mean, *over_subjects, *over_relations)


@dataclass(frozen=True)
class Samples:
    """Which prompts are one observation, and which items are one cluster.

    Attributes:
        same: the group of each prompt (item, language); the prompts of a language that are in one
            group are equal, and are one observation.
        subjects: the cluster of each item (item,): items of one subject, or with equal prompts.
        relations: the cluster of each item (item,): items of one relation, or with equal prompts;
            ``None`` if an item has no relation, or there are fewer than ten clusters.
    """

    same: Indices
    subjects: Indices
    relations: Indices | None

    @property
    def ends(self) -> tuple[str, ...]:
        """The suffixes for the numbers of an estimate; none for relations if there are too few."""
        return ENDS if self.relations is None else (*ENDS, *OVER_RELATIONS)

    def observed(self, values: Values, kept: Values) -> Observed:
        """The observations among prompts; the values of equal prompts are averaged.

        Args:
            values: the value of each prompt (item, language).
            kept: whether each prompt is used (item, language).
        """
        items, columns = np.nonzero(kept)
        first, place = self._grouped(items, columns)
        sums, sizes = np.bincount(place, values[items, columns]), np.bincount(place)
        of = items[first]
        relations = None if self.relations is None else self.relations[of]
        return Observed(sums / sizes, self.subjects[of], relations)

    def weights(self, kept: Values) -> Values:
        """The weight of each prompt (item, language); those of equal prompts add up to one."""
        weights = np.zeros(kept.shape)
        items, columns = np.nonzero(kept)
        _, place = self._grouped(items, columns)
        weights[items, columns] = 1 / np.bincount(place)[place]
        return weights

    def _grouped(self, items: Indices, columns: Indices) -> tuple[Indices, Indices]:
        """The place of the first prompt of each observation, and the observation of each prompt."""
        group = self.same[items, columns] * self.same.shape[1] + columns
        _, first, place = np.unique(group, return_index=True, return_inverse=True)
        return first, place

    def of_items(self) -> Samples:
        """The same for values of items (item, 1); items are equal if all their prompts are."""
        return replace(self, same=first_equal([[tuple(row)] for row in self.same.tolist()]))


def column(kept: Values, j: int) -> Values:
    """The prompts that are kept (item, language), but only those of the language at a place."""
    return np.asarray(kept * (np.arange(kept.shape[1]) == j))


def samples_of(data: xr.Dataset | xr.DataArray, *others: xr.Dataset | xr.DataArray) -> Samples:
    """The observations and clusters of results with the coordinates ``item`` and ``language``.

    Prompts are one observation if they are equal in all results, and their items are one cluster if
    they are equal in any. In results of versions that did not look for equal prompts, each prompt
    is an observation.

    Args:
        data: a result with ``subject``, ``relation`` and ``same_tokens_as``, or some of these.
        others: further results of the same items and languages.
    """
    results = (data, *others)
    of_results = [
        np.asarray(one[SAME].transpose("item", "language").to_numpy(), np.int64)
        for one in results
        if SAME in one.coords
    ]
    if len(of_results) < len(results):
        same = np.repeat(np.arange(data.sizes["item"])[:, None], data.sizes["language"], axis=1)
    elif len(of_results) == 1:
        same = of_results[0]
    else:
        stacked = np.stack(of_results, axis=-1)
        same = first_equal([[tuple(cell) for cell in row] for row in stacked.tolist()])
    subjects = data["subject" if "subject" in data.coords else "item"].to_numpy()
    relations = data["relation"].to_numpy().astype(str) if "relation" in data.coords else None
    wider = None
    if relations is not None and (relations != "").all():
        wider = _numbered(clusters_of(relations, *of_results))
    return Samples(
        same,
        _numbered(clusters_of(subjects, *of_results)),
        None if wider is None or wider.max() + 1 < LEAST_CLUSTERS else wider,
    )


def _numbered(labels: Values) -> Indices:
    """Clusters as numbers, in the order of their names and so not in that of the items."""
    return np.asarray(np.unique(labels, return_inverse=True)[1], np.int64)


def weights_of(data: xr.Dataset, counted: xr.DataArray) -> xr.DataArray:
    """The weight of each prompt in a mean over observations (item, language).

    Args:
        data: a result, see :func:`samples_of`.
        counted: whether each prompt counts (item, language); if not, its weight is zero.
    """
    counted = counted.transpose("item", "language")
    return counted.copy(data=samples_of(data).weights(counted.to_numpy().astype(bool)))


def said_of_samples(data: xr.Dataset, counted: xr.DataArray | None = None) -> list[str]:
    """Sentences about prompts that repeat others, and about intervals that are missing.

    Args:
        data: a result with the coordinates ``item`` and ``language``.
        counted: whether each prompt counts (item, language); by default all do.
    """
    shape = (data.sizes["item"], data.sizes["language"])
    kept = np.ones(shape, bool)
    if counted is not None:
        kept = counted.transpose("item", "language").to_numpy().astype(bool)
    samples = samples_of(data)
    sentences = []
    if SAME not in data.coords:
        sentences.append(
            "This result was made by a version that did not look for equal prompts: each prompt "
            "counts, and intervals may be too narrow."
        )
    repeated = []
    for j, code in enumerate(data["language"].to_numpy().tolist()):
        n, locale = int(kept[:, j].sum()), locale_of(code)
        n_repeated = n - len(np.unique(samples.same[kept[:, j], j]))
        if n_repeated:
            name = code if locale is None else locale.get_display_name("en")
            repeated.append(f"{n_repeated:,} of {n:,} prompts in {name}")
    if repeated:
        sentences.append(f"{listed(repeated, MOST_NAMED)} repeat an earlier one and count once.")
    n_subjects = len(np.unique(samples.subjects[kept.any(axis=1)]))
    if n_subjects < LEAST_CLUSTERS:
        subjects = "one subject" if n_subjects == 1 else f"{n_subjects} subjects"
        sentences.append(
            f"There is no interval: the prompts are of {subjects}, and at least {LEAST_CLUSTERS} "
            "are needed."
        )
    return sentences
