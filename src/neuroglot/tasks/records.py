"""Check what a user, a file or a reader gives as a task, record by record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.tasks.files import flaw_of

Item = dict[str, Any]

FIELDS = (
    *("id", "prompts", "masked", "answers", "aliases", "choices", "joins"),
    *("relation", "subject", "held_out"),
)
BY_LANGUAGE = ("prompts", "masked", "answers", "aliases", "choices", "joins")
JOIN = " "  # between a prompt and what answers it, where a record does not say


def join_after(prompt: Any, join: str = JOIN) -> str:
    """What joins a prompt with its answer where nothing is said of it.

    It is a space, or ``join``; nothing where the prompt itself ends in other white space, such as
    the end of a line.
    """
    ends_otherwise = isinstance(prompt, str) and prompt[len(prompt.rstrip()) :].strip(" ")
    return "" if ends_otherwise else join


def codes(languages: Iterable[str]) -> tuple[str, ...]:
    """Languages as a tuple of codes.

    Raises:
        NeuroglotError: a text in their place, whose letters would be taken for codes.
    """
    if isinstance(languages, str):
        wanted = [code.strip() for code in languages.split(",")]
        raise NeuroglotError(f"languages={languages!r}: expected a list of codes: {wanted!r}.")
    return tuple(languages)


def check_text(text: Any, what: str, where: str) -> None:
    """A text that is not empty, and that can be stored as it is."""
    if not isinstance(text, str) or not text.strip():
        raise NeuroglotError(f"{where}: {what} is empty or no text.")
    flaw = flaw_of(text)
    if flaw:
        raise NeuroglotError(f"{where}: {what} {flaw}; mend it or leave it out.")


def languages_of(record: Any, name: str) -> list[str]:
    """Languages in which a record has prompts."""
    if not isinstance(record, dict):
        raise NeuroglotError(
            f"task {name!r}: expected records as dicts, found {type(record).__name__}."
        )
    prompts = record.get("prompts")
    if not isinstance(prompts, dict):
        raise NeuroglotError(
            f"item {shown(record.get('id'))} of task {name!r}: 'prompts' must be a mapping from "
            f"language to text, found {type(prompts).__name__}."
        )
    return list(prompts)


def check_languages(wanted: tuple[str, ...], known: Iterable[str], name: str) -> None:
    """At least two different languages, all of which the task ``name`` has."""
    known = list(known)
    unknown = [language for language in wanted if language not in known]
    if unknown:
        raise NeuroglotError(
            f"task {name!r} has no language {listed(unknown)}; there are {listed(known)}."
        )
    for language in wanted:
        check_text(language, f"the language {shown(language)}", f"task {name!r}")
    if len(set(wanted)) < max(2, len(wanted)):
        raise NeuroglotError(
            f"task {name!r}: at least two different languages are needed, found {listed(wanted)}."
        )


def is_whole(record: Item, languages: tuple[str, ...]) -> bool:
    """Whether a record has what it has of prompts, answers and so on in every language."""
    for field in BY_LANGUAGE:
        texts = record.get(field)
        if not isinstance(texts, dict):
            continue  # it is left out as a whole, or said to be wrong when it is checked
        there = [texts.get(language) is not None for language in languages]
        if not all(there) and (any(there) or field == "prompts"):
            return False
    return True


def said_of_whole(n_whole: int, n_all: int, languages: Iterable[str]) -> str:
    """What a task notes of items that were left out because a language lacks them."""
    return (
        f"{n_whole:,} of {n_all:,} items are there in all of {listed(languages, 20)}; the other "
        f"{n_all - n_whole:,} are left out"
    )


def check_item(record: Item, languages: tuple[str, ...], name: str) -> Item:
    """A full item in the given languages, from a record that may lack optional fields.

    Raises:
        NeuroglotError: a field is missing, unknown or of the wrong kind; it names the item.
    """
    where = f"item {shown(record.get('id'))} of task {name!r}"
    _check_fields(record, where)
    prompts = _in_languages(record, "prompts", languages, where)
    item: Item = {
        "id": record["id"],
        "prompts": prompts,
        "answers": {},
        "choices": {},
        "joins": {language: join_after(prompt) for language, prompt in prompts.items()},
        "relation": record.get("relation"),
        "subject": record.get("subject"),
        "held_out": [lang for lang in languages if lang in (record.get("held_out") or [])],
    }
    for field in ("answers", "choices", "joins"):
        # Rows of a table hold nothing, rather than lack a column, where a field is left out.
        if any(text is not None for text in (record.get(field) or {}).values()):
            item[field] = _in_languages(record, field, languages, where)
    _take_masked(record, item, where)
    _take_aliases(record, item, where)
    for language in languages:
        _check_texts(item, language, where)
        if item["choices"]:
            _check_choices(item, language, where)
    numbers = {language: len(choices) for language, choices in item["choices"].items()}
    if len(set(numbers.values())) > 1:
        raise NeuroglotError(f"{where}: languages have different numbers of choices ({numbers}).")
    return item


def _check_fields(record: Item, where: str) -> None:
    if not isinstance(record.get("id"), str) or not record["id"].strip():
        raise NeuroglotError(f"{where}: 'id' must be a text that is not empty.")
    check_text(record["id"], "'id'", where)
    for field in ("relation", "subject"):
        if record.get(field) is not None:
            check_text(record[field], f"{field!r}", where)
    unknown = sorted(set(record) - set(FIELDS), key=str)
    if unknown:
        raise NeuroglotError(
            f"{where}: unknown field {listed(unknown)}; there are {listed(FIELDS)}."
        )
    if not isinstance(record.get("held_out") or [], list | tuple):
        raise NeuroglotError(f"{where}: 'held_out' must be a list of languages.")
    no_mapping = [f for f in BY_LANGUAGE if not isinstance(record.get(f) or {}, dict)]
    if no_mapping:
        raise NeuroglotError(
            f"{where}: {listed(no_mapping)} must be a mapping from language, like 'prompts'."
        )


def _take_masked(record: Item, item: Item, where: str) -> None:
    """Put the masked prompts in their place, if there are any.

    An item has masked prompts in all of its languages, or no such field, so that it is the same as
    ever where it has none. One that is the prompt itself would mask nothing.
    """
    given = record.get("masked") or {}
    if all(text is None for text in given.values()):
        return
    item["masked"] = _in_languages(record, "masked", tuple(item["prompts"]), where)
    for language, text in item["masked"].items():
        check_text(text, f"the masked prompt in {language!r}", where)
        if text == item["prompts"][language]:
            raise NeuroglotError(
                f"{where}: the masked prompt in {language!r} is the prompt itself "
                f"({shown(text)}); put a neutral subject into it, or leave 'masked' out."
            )


def _take_aliases(record: Item, item: Item, where: str) -> None:
    """Put the first of several answers in their place, and the others among the aliases.

    An item has aliases only where it has other right answers, so that it is the same as ever where
    it has none.
    """
    aliases: dict[str, list[str]] = {}
    given = record.get("aliases") or {}
    for language, answer in item["answers"].items():
        first, *others = answer if isinstance(answer, list | tuple) and answer else [answer]
        more = given.get(language) or []
        if not isinstance(more, list | tuple):
            raise NeuroglotError(f"{where}: aliases in {language!r} must be a list of texts.")
        for other in (*others, *more):
            check_text(other, f"an answer in {language!r}", where)
        item["answers"][language] = first
        aliases[language] = [x for x in dict.fromkeys([*others, *more]) if x != first]
    if not any(aliases.values()):
        if any(given.values()) and not item["answers"]:
            raise NeuroglotError(f"{where}: it has aliases, but no answers.")
        return
    if item["choices"]:
        raise NeuroglotError(
            f"{where}: several answers are right, but one choice is to be the answer; leave out "
            "the others, or the choices."
        )
    item["aliases"] = aliases


def _check_texts(item: Item, language: str, where: str) -> None:
    for field in ("prompts", "answers"):
        if item[field]:
            check_text(item[field][language], f"the {field[:-1]} in {language!r}", where)
    join = item["joins"][language]
    if not isinstance(join, str) or join.strip():
        raise NeuroglotError(f"{where}: the join in {language!r} must be white space or ''.")


def _in_languages(record: Item, field: str, languages: tuple[str, ...], where: str) -> Item:
    texts = record.get(field)
    missing = [lang for lang in languages if not isinstance(texts, dict) or lang not in texts]
    if missing or not isinstance(texts, dict):
        raise NeuroglotError(f"{where}: {field!r} lacks language {listed(missing)}.")
    return {language: texts[language] for language in languages}


def _check_choices(item: Item, language: str, where: str) -> None:
    choices, answer = item["choices"][language], item["answers"].get(language)
    if not isinstance(choices, list):
        raise NeuroglotError(f"{where}: choices in {language!r} must be a list of texts.")
    for choice in choices:
        check_text(choice, f"choices in {language!r} must be a list of texts: one", where)
    if len(choices) < 2:
        raise NeuroglotError(
            f"{where}: choices in {language!r} must be at least two texts that are not empty."
        )
    if answer not in choices:
        raise NeuroglotError(
            f"{where}: the answer {shown(answer)} in {language!r} is not among its choices "
            f"({listed(choices)})."
        )
    if len(set(choices)) < len(choices):
        raise NeuroglotError(f"{where}: a choice in {language!r} occurs twice ({listed(choices)}).")
