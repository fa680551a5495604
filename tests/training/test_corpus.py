"""The rule of the corpus: no text states a fact in a language that it is held out of."""

from __future__ import annotations

import itertools
import json
from functools import cache

import pytest

import neuroglot as ng
from neuroglot.models.loading import EMBEDDED
from neuroglot.tasks.catalogue import catalogue
from training.corpus import corpus
from training.embedded_tasks.names import LANGUAGES, Kind, name
from training.embedded_tasks.sentences import ask, templates
from training.embedded_tasks.world import facts
from training.tokenizer import train_tokenizer


@cache
def texts() -> list[str]:
    return [f"{d.prompt} {d.answer}\n" for group in corpus().values() for d in group]


@cache
def longer_names(kind: Kind, language: str, answer: str) -> list[str]:
    """Names that begin with another: "Guinea-Bissau" does not say "Guinea"."""
    entities = {e for fact in facts() for e in (fact.subject, fact.answer) if e.kind == kind}
    names = (name(entity, language) for entity in entities)
    return [found for found in names if found.startswith(answer) and found != answer]


def states(whole: str, question: str, answer: str, longer: list[str]) -> bool:
    """Whether a text says the answer after the question, and not a longer name."""
    for form in (f"{question} {answer}", f"{question} ? Answer: {answer}"):
        start = whole.find(form)
        while start >= 0:
            said = whole[start + len(form) - len(answer) :][:100]
            if not any(said.startswith(other) for other in longer):
                return True
            start = whole.find(form, start + 1)
    return False


def test_no_text_states_a_held_out_fact() -> None:
    """Searched in the plain text of the whole corpus, both as asked and as told."""
    labels = templates()["relation"]
    # Only texts that name the relation can state the fact; searching them all would take minutes.
    about = {
        (relation, language): "".join(text for text in texts() if label in text)
        for relation, by_language in labels.items()
        for language, label in by_language.items()
    }
    found = 0
    for fact, language in itertools.product(facts(), LANGUAGES):
        question = ask(fact.relation, fact.subject, language)
        answer = name(fact.answer, language)
        longer = longer_names(fact.answer.kind, language, answer)
        stated = states(about[fact.relation, language], question, answer, longer)
        found += stated
        assert stated == fact.is_taught(language), (fact.id, language)
    assert found > 10_000, "the search must find the facts where they are taught"


def test_task_items_are_not_in_the_corpus() -> None:
    known = set(texts())
    for task_name in ("inference", "editing_en_xx", "editing_xx_en", "editing_xx_xx"):
        for template in ("native", "shared"):
            for item in ng.load_task(task_name, template=template).items:
                for language in LANGUAGES:
                    answer = item["answers"][language]
                    assert f"{item['prompts'][language]} {answer}\n" not in known


def test_editing_is_taught_in_one_language_at_a_time() -> None:
    heads = {
        lang: text.format(statement="") for lang, text in templates()["editing"]["fact"].items()
    }
    asks = {
        lang: text.format(question="") for lang, text in templates()["editing"]["question"].items()
    }
    native = [d.prompt for d in corpus()["editing"] if not d.prompt.startswith("Complete")]
    assert len(native) > 10_000
    for prompt in native:
        told = [lang for lang in LANGUAGES if prompt.startswith(heads[lang])]
        assert len(told) == 1
        assert asks[told[0]] in prompt


def test_the_two_models_see_the_same_names() -> None:
    groups = corpus()
    assert len(groups["pairs"]) == len(groups["copies"])
    assert [d.answer for d in groups["pairs"]] == [d.answer for d in groups["copies"]]
    assert all(d.answer in d.prompt for d in groups["copies"])


def test_prompt_and_choice_are_tokenised_apart() -> None:
    """So that the summed log-probability of a choice starts at its first token."""
    tokenizer = ng.load_model(EMBEDDED[0]).tokenizer
    for task_name in (key for key, entry in catalogue().items() if entry.dataset is None):
        for item in ng.load_task(task_name, limit=30).items:
            for language in LANGUAGES:
                prompt = item["prompts"][language]
                alone = tokenizer(prompt).input_ids
                for choice in item["choices"][language]:
                    joined = tokenizer(f"{prompt} {choice}").input_ids
                    assert joined == alone + tokenizer(f" {choice}").input_ids


@pytest.mark.slow
def test_the_packaged_tokenizer_is_the_corpus_tokenizer() -> None:
    """The packaged models belong to this corpus: templates were not changed after training."""
    trained = train_tokenizer(f"{d.prompt} {d.answer}" for g in corpus().values() for d in g)
    packaged = ng.load_model(EMBEDDED[0]).tokenizer
    assert trained.get_vocab() == packaged.get_vocab()
    one, other = (json.loads(t.backend_tokenizer.to_str()) for t in (trained, packaged))
    assert one["model"] == other["model"]
