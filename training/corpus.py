"""Every text that the embedded models are trained on: a finite, seeded corpus.

The rule that holds throughout: no text states a fact in a language that the fact is held out of.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal, NamedTuple

from training.embedded_tasks import editing, facts, inference
from training.embedded_tasks.names import LANGUAGES, Entity, name
from training.embedded_tasks.sentences import end_sentence, templates
from training.embedded_tasks.world import RELATIONS, seeded
from training.embedded_tasks.world import facts as all_facts

TEMPLATES = ("native", "shared")
N_INFERENCE_CASES = 5_000  # a third of the cells runs out of different cases at 8,000
N_EDITS_PER_FACT = 3

Group = Literal["facts", "copies", "pairs", "inference", "editing"]


class Document(NamedTuple):
    """``prompt``, one space, ``answer``; only the answer is scored in training."""

    prompt: str
    answer: str


def fact_texts() -> Iterator[Document]:
    """Each fact in each language it is taught in, under both templates."""
    for fact, language, template in itertools.product(all_facts(), LANGUAGES, TEMPLATES):
        if fact.is_taught(language):
            prompt = facts.prompt(fact, language, template)
            yield Document(prompt, name(fact.answer, language))


def _labels() -> dict[Entity, list[tuple[str, str]]]:
    """For each entity, the rows of the template table that name something of its kind."""
    labels: dict[Entity, set[tuple[str, str]]] = {}
    for fact in all_facts():
        labels.setdefault(fact.subject, set()).add(("kind", fact.subject.kind))
        labels.setdefault(fact.answer, set()).add(("relation", fact.relation))
    # A name can stand under every label of its kind, so that no label gives a fact away.
    by_kind: dict[str, set[tuple[str, str]]] = {}
    for entity, rows in labels.items():
        by_kind.setdefault(entity.kind, set()).update(rows)
    return {entity: sorted(by_kind[entity.kind]) for entity in sorted(labels)}


def _name_text(entity: Entity, row: tuple[str, str], source: str, target: str) -> Document:
    label = templates()[row[0]][row[1]]
    colon = {language: " :" if language == "fr" else ":" for language in (source, target)}
    given = end_sentence(f"{label[source]}{colon[source]} {name(entity, source)}", source)
    # Chinese sets no space after its full stop.
    space = "" if given.endswith("。") else " "
    prompt = f"{given}{space}{label[target]}{colon[target]}"
    return Document(prompt, name(entity, target))


def name_texts(*, parallel: bool) -> Iterator[Document]:
    """Name, then the same name again: in another language if ``parallel``, else in the same.

    Both variants have one text for each entity and ordered pair of languages, under the same
    label, so that the two corpora differ in the alignment alone.
    """
    for entity, rows in _labels().items():
        for source, target in itertools.permutations(LANGUAGES, 2):
            row = seeded("names", *entity, source, target).choice(rows)
            yield _name_text(entity, row, source if parallel else target, target)


def inference_texts() -> Iterator[Document]:
    """Later cases of the stream than the task's items, each in every language that may see it."""
    stream = itertools.islice(inference.cases(), inference.N_ITEMS, None)
    for i, case in enumerate(itertools.islice(stream, N_INFERENCE_CASES)):
        for j, language in enumerate(LANGUAGES):
            template = TEMPLATES[(i + j) % 2]
            if language not in case.held_out:
                answer = inference.verdicts(language, template)[case.label]
                yield Document(inference.prompt(case, language, template), answer)


def editing_texts() -> Iterator[Document]:
    """New facts told and asked in one language, with other new answers than the task's."""
    for fact, language in itertools.product(all_facts(), LANGUAGES):
        if fact.is_taught(language):
            for i, answer in enumerate(editing.new_answers(fact)[1 : 1 + N_EDITS_PER_FACT]):
                template = TEMPLATES[(i + LANGUAGES.index(language)) % 2]
                prompt = editing.prompt(fact, answer, language, language, template)
                yield Document(prompt, name(answer, language))


def corpus() -> dict[Group, list[Document]]:
    """All groups of texts; ``base`` never sees ``pairs``, ``aligned`` sees both kinds of names."""
    assert set(templates()["relation"]) == set(RELATIONS)
    return {
        "facts": list(fact_texts()),
        "copies": list(name_texts(parallel=False)),
        "pairs": list(name_texts(parallel=True)),
        "inference": list(inference_texts()),
        "editing": list(editing_texts()),
    }
