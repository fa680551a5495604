"""What can be guessed without knowing anything: the baselines of the model card.

The guess by the relation alone is :func:`neuroglot.tasks.guessing.majority`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from difflib import SequenceMatcher
from functools import cache

import numpy as np

from neuroglot.tasks.parallel import ParallelTask
from neuroglot.tasks.records import Item
from training.embedded_tasks import inference
from training.embedded_tasks.inference import LABELS, Case
from training.embedded_tasks.names import Entity
from training.embedded_tasks.world import facts

Guesser = Callable[[Item, str], str]


def guesses_right(task: ParallelTask, guess: Guesser) -> np.ndarray:
    """Whether the guess is the answer (item, language)."""
    return np.array(
        [
            [guess(item, lang) == item["answers"][lang] for lang in task.languages]
            for item in task.items
        ]
    )


def overlap_guesser(item: Item, language: str) -> str:
    """The choice that shares the longest run of letters with the prompt."""
    prompt = item["prompts"][language].casefold()

    def shared(choice: str) -> float:
        matcher = SequenceMatcher(None, prompt, choice.casefold(), autojunk=False)
        return matcher.find_longest_match().size

    choices: list[str] = item["choices"][language]
    return max(choices, key=shared)


@cache
def _truth() -> dict[tuple[str, Entity], Entity]:
    return {(fact.relation, fact.subject): fact.answer for fact in facts()}


def _features(case: Case) -> list[tuple[str, object]]:
    said = case.hypothesis
    return [
        ("relation", said.relation),
        ("subject", said.subject),
        ("answer", said.answer),
        ("is true", _truth()[said.relation, said.subject] == said.answer),
    ]


def hypothesis_only_accuracy(n_train: int) -> float:
    """Accuracy of naive Bayes on the hypothesis alone, with access to the truth about the world.

    Trained on the cases that the models were trained on, tested on the task's items.
    """
    stream = list(itertools.islice(inference.cases(), inference.N_ITEMS + n_train))
    items, train = stream[: inference.N_ITEMS], stream[inference.N_ITEMS :]
    counts: dict[str, Counter[tuple[str, object]]] = {label: Counter() for label in LABELS}
    totals = Counter(case.label for case in train)
    for case in train:
        counts[case.label].update(_features(case))

    def score(label: str, case: Case) -> float:
        found = [(counts[label][f] + 0.5) / (totals[label] + 1) for f in _features(case)]
        return float(np.log(found).sum() + np.log(totals[label]))

    right = [max(LABELS, key=lambda x: score(x, case)) == case.label for case in items]
    return float(np.mean(right))
