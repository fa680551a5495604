"""The tasks ``editing_*``: answer by a new, counterfactual fact that the context states.

``editing_en_xx`` tells the fact in English and asks in each language, ``editing_xx_en`` the other
way round, and ``editing_xx_xx`` stays in one language (the control that the models were taught).
"""

from __future__ import annotations

from training.embedded_tasks import sentences
from training.embedded_tasks.names import LANGUAGES, Entity, name
from training.embedded_tasks.sentences import Statement, ask, tell, templates
from training.embedded_tasks.world import Fact, facts, seeded


def new_answers(fact: Fact) -> list[Entity]:
    """Counterfactual answers of ``fact``: the first is the task's, training uses the others."""
    wrong = [choice for choice in fact.choices if choice != fact.answer]
    seeded("editing", fact.id).shuffle(wrong)
    return wrong


def prompt(fact: Fact, answer: Entity, told_in: str, asked_in: str, template: str) -> str:
    """The new fact in one language, then the question in the other."""
    statement = tell(Statement(fact.relation, fact.subject, answer), told_in)
    question = ask(fact.relation, fact.subject, asked_in)
    if template == "shared":
        return sentences.in_shared_words("editing", {"statement": statement, "question": question})
    table = templates()["editing"]
    context = table["fact"][told_in].format(statement=statement)
    # Chinese sets no space after its full stop.
    space = "" if context.endswith("。") else " "
    return str(context + space + table["question"][asked_in].format(question=question))


def items(template: str, told_in: str | None, asked_in: str | None) -> list[dict[str, object]]:
    """One item a fact; ``None`` stands for the language under which the prompt is listed."""
    shuffled = list(facts())
    seeded("order").shuffle(shuffled)
    found: list[dict[str, object]] = []
    for fact in shuffled:
        answer = new_answers(fact)[0]
        asked = {lang: asked_in or lang for lang in LANGUAGES}
        prompts = {
            lang: prompt(fact, answer, told_in or lang, asked[lang], template) for lang in LANGUAGES
        }
        found.append(
            {
                "id": f"edit:{fact.id}",
                "prompts": prompts,
                "answers": {lang: name(answer, asked[lang]) for lang in LANGUAGES},
                "choices": {
                    lang: [name(choice, asked[lang]) for choice in fact.choices]
                    for lang in LANGUAGES
                },
                "relation": fact.relation,
                "subject": fact.subject.code,
                "held_out": list(fact.held_out),
            }
        )
    return found
