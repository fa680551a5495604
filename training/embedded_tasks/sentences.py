"""Facts put into words: the one place where names meet templates."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from training.embedded_tasks.names import Entity, name

# What stands for a subject that is not named, in every language: a token that the models were
# trained on, unlike those of most words.
UNNAMED = "?"


class Statement(NamedTuple):
    """``subject`` stands in ``relation`` to ``answer``; whether it is true is not said."""

    relation: str
    subject: Entity
    answer: Entity


@cache
def templates() -> dict[str, Any]:
    """The table of ``templates.toml``."""
    text = resources.files(__package__).joinpath("templates.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def end_sentence(text: str, language: str) -> str:
    """``text`` with the language's full stop, unless a name already ends in one."""
    stop: str = templates()["stop"][language]
    return text if text.endswith(".") else text + stop


def ask(relation: str, subject: Entity, language: str, *, masked: bool = False) -> str:
    """The question whose answer completes the statement: ``"Territory: Japan. Currency:"``.

    Masked, it has :data:`UNNAMED` in place of the subject.
    """
    table = templates()
    words = {
        "kind": table["kind"][subject.kind][language],
        "subject": UNNAMED if masked else name(subject, language),
        "relation": table["relation"][relation][language],
    }
    # Some abbreviated names end in a full stop of their own.
    return str(table["facts"]["native"][language]).format(**words).replace("..", ".")


def tell(statement: Statement, language: str) -> str:
    """The statement as a sentence: ``"Territory: Japan. Currency: Japanese Yen."``."""
    question = ask(statement.relation, statement.subject, language)
    return end_sentence(f"{question} {name(statement.answer, language)}", language)


def in_shared_words(task: str, parts: Mapping[str, str]) -> str:
    """The English instruction of ``task`` around native ``parts``, alike in every language."""
    return str(templates()[task]["shared"]["all"]).format_map(parts)
