"""The words of prompts: a table for each task, by template and language."""

from __future__ import annotations

import string
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as field_of
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.tasks.files import flaw_of, read_text
from neuroglot.tasks.records import check_text, join_after

Words = Mapping[str, str]
Template = str | Path | Mapping[str, Any]
"""Name of a template, a prompt with fields in braces, a ``.toml`` file, or prompts by language."""

TEMPLATES = ("native", "shared")
NEUTRAL = "neutral_subject"  # the word that replaces the subject in masked prompts
BY_LANGUAGE = "the user's, by language"  # the name, in results, of prompts by language


@dataclass(frozen=True)
class Wording:
    """The words of a template in each language.

    Attributes:
        name: the name of the template in results.
        table: words by language; those under ``"*"`` are for every other language.
        neutral: ``neutral_subject`` by language, if the task masks subjects. A word of that name
            in ``table`` goes before it.
    """

    name: str
    table: Mapping[str, Words]
    neutral: Words = field_of(default_factory=dict)

    def of(self, language: str) -> Words:
        """The words in a language: ``prompt``, ``join`` and others that the task needs.

        Raises:
            NeuroglotError: the template has no words in this language.
        """
        words = self.table.get(language, self.table.get("*"))
        if words is None:
            raise NeuroglotError(
                f"template {self.name!r} has no prompt in {language!r}; there are "
                f"{listed(self.table)}."
            )
        return {NEUTRAL: self.neutral[language], **words} if language in self.neutral else words


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Fill in the fields of a template, which stand in braces.

    Raises:
        NeuroglotError: the template has a field that the task does not have, or a lone brace.
    """
    try:
        # Names alone: a width could ask for gigabytes, and an attribute for anything.
        for _, field, width, conversion in string.Formatter().parse(template):
            if field is not None and (field not in fields or width or conversion):
                raise ValueError(f"{shown(field)} is not a field, or has something after its name")
        return template.format_map(fields)
    except ValueError as error:
        raise NeuroglotError(
            f"template {shown(template)}: {error}; its fields may be "
            f"{listed(f'{{{field}}}' for field in fields)}, and other braces are doubled."
        ) from error


def asked(
    words: Mapping[str, Words], fields: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """The ``prompts`` and ``joins`` of a record, by language.

    Args:
        words: ``prompt`` and ``join`` by language.
        fields: the values of the fields of the prompt, by language.

    Raises:
        NeuroglotError: see :func:`fill`.
    """
    return {
        "prompts": {code: fill(words[code]["prompt"], fields[code]) for code in words},
        "joins": {code: words[code]["join"] for code in words},
    }


@cache
def _packaged(task: str) -> tuple[dict[str, dict[str, dict[str, str]]], dict[str, str]]:
    """The package's words by template and language, and its neutral subjects by language."""
    text = (resources.files("neuroglot.tasks") / "prompts" / f"{task}.toml").read_text("utf-8")
    tables = tomllib.loads(text)
    neutral = tables.pop(NEUTRAL, {})
    return {name: _by_language(table) for name, table in tables.items()}, neutral


def _by_language(table: Mapping[str, Any], name: str = "") -> dict[str, dict[str, str]]:
    """The words by language; a table that holds a prompt itself is for every language.

    Raises:
        NeuroglotError: the value for a language is neither a text nor a table.
    """
    for language, words in table.items():
        if not isinstance(words, str | Mapping):
            raise NeuroglotError(
                f"template {name!r}: expected a prompt, or a table of words, for "
                f"{shown(language)}; found {shown(words)}."
            )
    if "prompt" in table:
        return {"*": dict(table)}
    return {
        language: {"prompt": words} if isinstance(words, str) else dict(words)
        for language, words in table.items()
    }


def find_wording(task: str, template: Template) -> Wording:
    """The words of a task in a template of the package or of the user.

    Words that a user's template leaves out, such as the verdicts, are taken from ``shared``, or
    from ``native`` if the template is by language. A table ``neutral_subject`` beside the prompts
    holds, by language, the words that replace the subject in masked prompts.

    Args:
        task: the name of the task's table of prompts.
        template: ``"native"``, ``"shared"``, a prompt with fields in braces, the path of a
            ``.toml`` file, or prompts (or tables of words) by language.

    Raises:
        NeuroglotError: there is no such template.
    """
    packaged, neutral = _packaged(task)
    if isinstance(template, Mapping):
        return _of_user(task, BY_LANGUAGE, template)
    template = str(template)
    if template in packaged:
        return Wording(template, packaged[template], neutral)
    if template.endswith(".toml"):
        return _of_user(task, template, _read_table(Path(template)))
    if "{" in template:
        return _of_user(task, template, {"prompt": template})
    raise NeuroglotError(
        f"task {task!r} has no template {template!r}; there are {listed(packaged)}, or give a "
        "prompt with fields in braces, or the path of a .toml file."
    )


def _of_user(task: str, name: str, given: Mapping[str, Any]) -> Wording:
    """The words of a user's template, completed with those of the package."""
    packaged, neutral = _packaged(task)
    shared = packaged["shared"]["*"]
    whole, known = {}, [*shared, *([NEUTRAL] if neutral else [])]
    table = dict(given)
    if isinstance(table.get(NEUTRAL), Mapping):
        neutral = {**neutral, **_checked_neutral(table.pop(NEUTRAL), name, known)}
    for language, words in _by_language(table, name).items():
        if not all(isinstance(text, str) for text in words.values()) or not words.get("prompt"):
            raise NeuroglotError(f"template {name!r}: {language!r} needs a text for 'prompt'.")
        flaws = [f"{word!r} {flaw}" for word, text in words.items() if (flaw := flaw_of(text))]
        if flaws:
            raise NeuroglotError(f"template {name!r}, {language!r}: {flaws[0]}.")
        if NEUTRAL in words:
            _checked_neutral({language: words[NEUTRAL]}, name, known)
        if unknown := set(words) - set(known):
            raise NeuroglotError(
                f"template {name!r}: {language!r} has unknown words "
                f"{listed(sorted(unknown, key=str))}; there are {listed(known)}."
            )
        if not _has_field(words["prompt"]):
            raise NeuroglotError(
                f"template {name!r}: its prompt has no field in braces, so items would be alike."
            )
        native = {} if language == "*" else packaged["native"]
        inherited = native.get(language, native.get("*", shared))
        whole[language] = {**inherited, **words}
        if "join" in inherited and "join" not in words:
            whole[language]["join"] = join_after(words["prompt"], inherited["join"])
    return Wording(name, whole, neutral)


def _checked_neutral(words: Mapping[str, Any], name: str, known: Iterable[str]) -> Words:
    """The neutral subjects of a user's template, by language, checked.

    Raises:
        NeuroglotError: one is empty, no text or cannot be stored, or the task masks no subject.
    """
    if NEUTRAL not in known:
        raise NeuroglotError(
            f"template {name!r}: it has a {NEUTRAL!r}, but this task masks no subject; leave it "
            "out."
        )
    for language, word in words.items():
        check_text(word, f"{NEUTRAL!r} in {language!r}", f"template {name!r}")
    return words


def _has_field(prompt: str) -> bool:
    try:
        return any(field is not None for _, field, _, _ in string.Formatter().parse(prompt))
    except ValueError:
        return True  # fill then says what is wrong with the prompt


def _read_table(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, deep nesting
        if isinstance(error, NeuroglotError):
            raise
        raise NeuroglotError(f"{path}: not valid TOML ({error}).") from error
    # A file of the user may leave out the names of templates that those of the package have.
    words: dict[str, Any] = table.get("native") or table.get("shared") or table
    if not isinstance(words, dict):
        raise NeuroglotError(
            f"{path}: expected a table under 'native' or 'shared', found {shown(words)}."
        )
    return {NEUTRAL: table[NEUTRAL], **words} if NEUTRAL in table else words
