"""Data sets in which nothing is to be found, and what the tests find in them.

A prompt is right with a probability that depends on its subject, its relation, its language and
chance. Under the condition, under every draw of the control and without an edit that probability is
the same on average, so that a test that is worth its name finds a difference in one of twenty data
sets. It may be another for each subject, or for each relation, as if edits helped some and harmed
others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.answering.observations import SAME, samples_of
from neuroglot.answering.statistics import accuracy_interval
from neuroglot.comparison.association import correctness_on_sharing
from neuroglot.interventions.effects import effects

LEVEL = BOUND = 0.05
SEED = 18

Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Scenario:
    """What the data sets of a kind are like.

    Attributes:
        name: for people.
        subjects: how many.
        items: of each subject.
        languages: how many.
        accuracy: of a prompt, about.
        draws: of the control.
        copies: how often each item stands in the task.
        relations: how many; 0 for items without.
        dominant: share of the subjects that are of one relation.
        by_subject: how much the condition differs from its control by subject, on the scale of
            log-odds; nothing on average.
        by_relation: the same by relation.
        alike: how much the draws of the control resemble each other, from 0 to 1.
    """

    name: str
    subjects: int = 30
    items: int = 2
    languages: int = 3
    accuracy: float = 0.5
    draws: int = 5
    copies: int = 1
    relations: int = 0
    dominant: float = 0.0
    by_subject: float = 0.5
    by_relation: float = 0.0
    alike: float = 0.0


PLAIN = Scenario("30 subjects of two items")
SCENARIOS = (
    PLAIN,
    replace(PLAIN, name="20 subjects of two items", subjects=20),
    replace(PLAIN, name="20 subjects of one item in one language", subjects=20, items=1,
            languages=1),
    replace(PLAIN, name="100 subjects of one item", subjects=100, items=1),
    replace(PLAIN, name="each item fourfold", copies=4),
    replace(PLAIN, name="24 relations, half of the subjects of one of them", subjects=96, items=1,
            relations=24, dominant=0.5),
    replace(PLAIN, name="the same, and edits help some relations and harm others", subjects=96,
            items=1, relations=24, dominant=0.5, by_relation=0.5),
    replace(PLAIN, name="accuracy about 3 %", subjects=60, accuracy=0.03),
    replace(PLAIN, name="accuracy about 97 %", subjects=60, accuracy=0.97),
    replace(PLAIN, name="draws that resemble each other", alike=0.8),
    replace(PLAIN, name="a single draw", draws=1),
    replace(PLAIN, name="12 subjects of two items", subjects=12),
)  # fmt: skip
SMALL = frozenset({"12 subjects of two items"})  # fewer than twenty clusters


def _odds(share: Numbers | float) -> Numbers:
    odds: Numbers = np.log(share) - np.log1p(-np.asarray(share))
    return odds


def _share(odds: Numbers) -> Numbers:
    return 1 / (1 + np.exp(-odds))


@dataclass(frozen=True)
class Drawn:
    """One data set.

    Attributes:
        outcome: as :func:`neuroglot.interventions.effects.effects` takes it.
        shared: how much of the neurons is shared (item, language), whatever the answer is.
        truth: probability of a right answer (item, language), without an edit.
    """

    outcome: xr.Dataset
    shared: Numbers
    truth: Numbers


def drawn(scenario: Scenario, rng: np.random.Generator, shift: float = 0.0) -> Drawn:
    """Draw a data set.

    Args:
        scenario: what it is like.
        rng: draws.
        shift: what the condition adds to the probability of a right answer, of all prompts.
    """
    n = scenario.subjects * scenario.items
    subject = np.repeat(np.arange(scenario.subjects), scenario.items)
    relation_of = rng.integers(0, max(scenario.relations, 1), scenario.subjects)
    relation_of[rng.random(scenario.subjects) < scenario.dominant] = 0
    relation = relation_of[subject]

    def normal(size: int, groups: Numbers) -> Numbers:
        return rng.normal(size=size)[groups]

    odds = _odds(scenario.accuracy) + normal(scenario.subjects, subject)
    odds = odds + 0.5 * normal(max(scenario.relations, 1), relation) * bool(scenario.relations)
    odds = odds[:, None] + rng.normal(size=(n, scenario.languages))
    moved = scenario.by_subject * normal(scenario.subjects, subject)
    moved = moved + scenario.by_relation * normal(max(scenario.relations, 1), relation)
    # What a subject gains from the condition, others lose: half of it on either side.
    plain, edited = _share(odds - moved[:, None] / 2), _share(odds + moved[:, None] / 2)
    correct = rng.random(plain.shape) < edited + shift
    drawn_for = rng.random((scenario.draws, *plain.shape))
    same = rng.random(drawn_for.shape) < scenario.alike
    drawn_for = np.where(same, drawn_for[:1], drawn_for)
    repeated = np.repeat(np.arange(n), scenario.copies)
    same_as = np.searchsorted(repeated, repeated)
    names = np.array([f"{i // scenario.items}" for i in range(n)])
    outcome = xr.Dataset(
        {
            "correct": (
                ("condition", "arm", "item", "language"),
                np.concatenate([correct[None], drawn_for < plain])[None][:, :, repeated],
            ),
            "correct_no_edit": (
                ("item", "language"),
                (rng.random(plain.shape) < plain)[repeated],
            ),
            "counted": (("item", "language"), np.ones((len(repeated), scenario.languages), bool)),
        },
        coords={
            "condition": ["all_shared"],
            "control": ("arm", ["", *["active"] * scenario.draws]),
            "draw": ("arm", [-1, *range(scenario.draws)]),
            "language": [f"l{j}" for j in range(scenario.languages)],
            # Copies are items of other subjects: only their prompts tell that they are the same.
            "subject": (
                "item",
                [f"{names[i]}.{k % scenario.copies}" for k, i in enumerate(repeated)],
            ),
            "relation": (
                "item",
                [f"r{relation[i]}" if scenario.relations else "" for i in repeated],
            ),
            SAME: (
                ("item", "language"),
                np.repeat(same_as[:, None], scenario.languages, axis=1),
            ),
        },
    )
    noise = normal(scenario.subjects, subject)[:, None] + rng.normal(size=plain.shape)
    return Drawn(outcome, (0.3 + 0.02 * noise)[repeated], plain[repeated])


NO_EDIT, CONTROL, LANGUAGE = "against no edit", "against a control", "in one language"
RELATIONS, PLACEBO, SLOPE = "over relations", "placebo", "odds of sharing"
CORRECTED, BY_LANGUAGE = "both, corrected", "by language, corrected"
MISSED = "interval of accuracy"
TESTS = (NO_EDIT, CONTROL, LANGUAGE, RELATIONS, PLACEBO, SLOPE, CORRECTED, BY_LANGUAGE, MISSED)


def found(scenario: Scenario, seeds: range, *, told: bool = True) -> dict[str, Numbers]:
    """Whether each test finds something in the data set of each seed (seed,).

    The interval of the accuracy without an edit "finds" something where it misses the accuracy
    that prompts of that kind have on average. What cannot be tested is left out.

    Args:
        scenario: what the data sets are like.
        seeds: of the data sets.
        told: whether the tests know which prompts are equal.
    """
    sets = [drawn(scenario, np.random.default_rng([SEED, i])) for i in seeds]
    if not told:
        sets = [replace(one, outcome=one.outcome.drop_vars(SAME)) for one in sets]
    rows = [_p_values(one, i) for i, one in zip(seeds, sets, strict=True)]
    hits = {name: np.array([row[name] < LEVEL for row in rows]) for name in rows[0]}
    truth = _accuracy_of(scenario)
    ends = np.array([_interval(one, i) for i, one in zip(seeds, sets, strict=True)])
    return hits | {MISSED: ~((ends[:, 0] <= truth) & (truth <= ends[:, 1]))}


@cache
def _accuracy_of(scenario: Scenario) -> float:
    """What prompts of this kind have on average, from many of them."""
    many = replace(
        scenario, subjects=20_000, relations=20_000 * bool(scenario.relations), dominant=0, copies=1
    )
    return float(drawn(many, np.random.default_rng(SEED)).truth.mean())


def _p_values(data: Drawn, seed: int) -> dict[str, float]:
    outcome = data.outcome
    tested = effects(outcome, equivalent_within=BOUND, seed=seed).isel(condition=0)
    against, control = tested["against"].to_numpy()
    together = tested["p"].sel(against=against), tested["p"].sel(against=control)
    one = tested["p_by_language"].isel(language=0).sel(against=against)
    samples = samples_of(outcome)
    slope = correctness_on_sharing(
        outcome["correct_no_edit"].to_numpy().astype(float),
        data.shared,
        outcome["counted"].to_numpy(),
        samples,
    )
    p: dict[str, Any] = {NO_EDIT: together[0], CONTROL: together[1]}
    p |= {LANGUAGE: one, CORRECTED: tested["p_holm"].min()}
    p |= {BY_LANGUAGE: tested["p_holm_by_language"].min()}
    if "p_over_relations" in tested:
        p[RELATIONS] = tested["p_over_relations"].sel(against=control)
    if outcome.sizes["arm"] > 2:
        p[PLACEBO] = tested["placebo_p"].isel(kind=0)
    return {name: float(value) for name, value in (p | {SLOPE: slope.p}).items()}


def _interval(data: Drawn, seed: int) -> tuple[float, float]:
    """Of the accuracy without an edit; over relations, where there are enough."""
    right, counted = data.outcome["correct_no_edit"], data.outcome["counted"]
    samples = samples_of(data.outcome)
    observed = samples.observed(right.to_numpy().astype(float), counted.to_numpy())
    clusters = observed.subjects if observed.relations is None else observed.relations
    return accuracy_interval(observed.numbers, clusters, seed)


def called_equivalent(scenario: Scenario, seeds: range) -> Numbers:
    """Whether a condition is called equivalent that differs by the bound itself (seed,)."""
    hits = []
    for i in seeds:
        data = drawn(scenario, np.random.default_rng([SEED, i]), shift=BOUND)
        tested = effects(data.outcome, equivalent_within=BOUND, seed=i).isel(condition=0)
        hits.append(float(tested["p_equivalent"][0]) < LEVEL)
    return np.array(hits)
