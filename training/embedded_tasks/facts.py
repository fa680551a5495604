"""The task ``facts``: which name completes a true or invented statement?"""

from __future__ import annotations

from training.embedded_tasks import sentences
from training.embedded_tasks.names import LANGUAGES, name
from training.embedded_tasks.world import Fact, facts, seeded


def prompt(fact: Fact, language: str, template: str, *, masked: bool = False) -> str:
    """The question about ``fact``, ready for the answer after one space.

    Masked, a question mark stands in place of the subject: ``"Territory: ?. Currency:"``.
    """
    native = sentences.ask(fact.relation, fact.subject, language, masked=masked)
    return (
        native if template == "native" else sentences.in_shared_words("facts", {"native": native})
    )


def items(template: str) -> list[dict[str, object]]:
    """All items in a seeded order that mixes the relations, so that any first part is a sample."""
    shuffled = list(facts())
    seeded("order").shuffle(shuffled)
    return [
        {
            "id": fact.id,
            "prompts": {lang: prompt(fact, lang, template) for lang in LANGUAGES},
            "masked": {lang: prompt(fact, lang, template, masked=True) for lang in LANGUAGES},
            "answers": {lang: name(fact.answer, lang) for lang in LANGUAGES},
            "choices": {lang: [name(c, lang) for c in fact.choices] for lang in LANGUAGES},
            "relation": fact.relation,
            "subject": fact.subject.code,
            "held_out": list(fact.held_out),
        }
        for fact in shuffled
    ]
