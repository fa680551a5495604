"""The task ``inference``: is a hypothesis true, false or inconclusive, given a premise?

About half of the premises and half of the hypotheses contradict the world, independently of the
label, so that neither alone tells it; nor does it tell whether the two name the same answer.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

from training.embedded_tasks import sentences
from training.embedded_tasks.names import LANGUAGES, Entity
from training.embedded_tasks.sentences import Statement, tell, templates
from training.embedded_tasks.world import Fact, facts, seeded

LABELS = ("true", "false", "inconclusive")
N_ITEMS = 540


@dataclass(frozen=True)
class Case:
    """A premise, a hypothesis and how they relate; ``held_out`` unites that of their facts."""

    premise: Statement
    hypothesis: Statement
    label: str
    held_out: tuple[str, ...]


@cache
def _facts_by(key: str) -> dict[object, list[Fact]]:
    groups: dict[object, list[Fact]] = defaultdict(list)
    for fact in facts():
        groups[getattr(fact, key)].append(fact)
    return groups


def _wrong_answer(fact: Fact, rng: Random) -> Entity:
    return rng.choice([choice for choice in fact.choices if choice != fact.answer])


def _state(fact: Fact, *, truly: bool, rng: Random) -> Statement:
    answer = fact.answer if truly else _wrong_answer(fact, rng)
    return Statement(fact.relation, fact.subject, answer)


def _other_fact(fact: Fact, rng: Random) -> Fact:
    """Another relation of the same subject, or the same relation of another subject."""
    siblings = [other for other in _facts_by("subject")[fact.subject] if other != fact]
    return rng.choice(siblings) if siblings and rng.random() < 0.5 else _cousin(fact, rng)


def _cousin(fact: Fact, rng: Random) -> Fact:
    """The same relation of another subject."""
    return rng.choice([other for other in _facts_by("relation")[fact.relation] if other != fact])


def _same_answer_elsewhere(fact: Fact, *, premise_true: bool, rng: Random) -> tuple[Fact, Entity]:
    """Another subject in the same relation, and an answer to state of both.

    The answer is true of ``fact`` if the premise is to be, and in half of the cases true of the
    other.
    """
    alike = [other for other in _facts_by("answer")[fact.answer] if other.relation == fact.relation]
    alike.remove(fact)
    if premise_true:
        other = rng.choice(alike) if alike and rng.random() < 0.5 else _cousin(fact, rng)
        return other, fact.answer
    other = _cousin(fact, rng)
    wrong = rng.choice([c for c in other.choices if c not in (fact.answer, other.answer)])
    truly = other.answer != fact.answer and rng.random() < 0.5
    return other, other.answer if truly else wrong


def _inconclusive(fact: Fact, *, premise_true: bool, rng: Random) -> tuple[Fact, Entity, Statement]:
    """The fact, the answer of the premise, and a hypothesis on which it says nothing.

    In half of the cases the answer is the premise's own, else it would give the label away.
    """
    if rng.random() < 0.5:
        other, answer = _same_answer_elsewhere(fact, premise_true=premise_true, rng=rng)
        return other, answer, Statement(other.relation, other.subject, answer)
    other = _other_fact(fact, rng)
    answer = _state(fact, truly=premise_true, rng=rng).answer
    return other, answer, _state(other, truly=rng.random() < 0.5, rng=rng)


def _draw(label: str, *, premise_true: bool, rng: Random) -> Case:
    fact = other = rng.choice(facts())
    premise = _state(fact, truly=premise_true, rng=rng)
    if label == "true":
        hypothesis = premise
    elif label == "false":
        # A factual premise is contradicted by a wrong answer, a counterfactual one by the truth.
        hypothesis = _state(fact, truly=not premise_true, rng=rng)
    else:
        other, answer, hypothesis = _inconclusive(fact, premise_true=premise_true, rng=rng)
        premise = Statement(fact.relation, fact.subject, answer)
    both = {*fact.held_out, *other.held_out}
    return Case(premise, hypothesis, label, tuple(lang for lang in LANGUAGES if lang in both))


def cases() -> Iterator[Case]:
    """An endless seeded stream of different cases, in which every 18 are balanced.

    Balanced are: label, truth of the premise, and one in three with held-out languages.
    """
    rng = seeded("inference")
    cells = list(itertools.product(LABELS, (True, False), (True, False, False)))
    seen = set()
    while True:
        rng.shuffle(cells)
        for label, premise_true, is_held_out in cells:
            case = _draw(label, premise_true=premise_true, rng=rng)
            while (
                case in seen
                or bool(case.held_out) != is_held_out
                or len(case.held_out) == len(LANGUAGES)
            ):
                case = _draw(label, premise_true=premise_true, rng=rng)
            seen.add(case)
            yield case


def prompt(case: Case, language: str, template: str) -> str:
    """Premise, hypothesis and the question which of the three holds."""
    parts = {
        "premise": tell(case.premise, language),
        "hypothesis": tell(case.hypothesis, language),
    }
    if template == "shared":
        return sentences.in_shared_words("inference", parts)
    return str(templates()["inference"]["native"][language]).format(**parts)


def verdicts(language: str, template: str) -> dict[str, str]:
    """The words for the three labels; English ones under the English instruction."""
    spoken = language if template == "native" else "en"
    return {label: templates()["inference"]["labels"][label][spoken] for label in LABELS}


def items(template: str) -> list[dict[str, object]]:
    """The first cases of the stream; training uses later ones only."""
    words = {lang: verdicts(lang, template) for lang in LANGUAGES}
    return [
        {
            "id": f"inference:{i}",
            "prompts": {lang: prompt(case, lang, template) for lang in LANGUAGES},
            "answers": {lang: words[lang][case.label] for lang in LANGUAGES},
            "choices": {lang: list(words[lang].values()) for lang in LANGUAGES},
            "relation": case.premise.relation,
            "subject": case.premise.subject.code,
            "held_out": list(case.held_out),
        }
        for i, case in enumerate(itertools.islice(cases(), N_ITEMS))
    ]
