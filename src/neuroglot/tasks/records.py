"""Check the records of which a task is made, and complete them to items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from neuroglot.errors import NeuroglotError, listed, shown
from neuroglot.tasks.files import flaw_of

Item = dict[str, Any]

FIELDS = (
    *("id", "prompts", "masked", "answers", "aliases", "choices", "joins"),
    *("relation", "subject", "held_out"),
)
BY_LANGUAGE = ("prompts", "masked", "answers", "aliases", "choices", "joins")
JOIN = " "  # what stands between a prompt and its answer by default


def join_after(prompt: Any, join: str = JOIN) -> str:
    """The text that joins a prompt with its answer, where the record does not give it.

    It is ``join``, unless the prompt itself ends in white space other than spaces, such as a line
    end: then it is empty.
    """
    ends_otherwise = isinstance(prompt, str) and prompt[len(prompt.rstrip()) :].strip(" ")
    return "" if ends_otherwise else join


def codes(languages: Iterable[str]) -> tuple[str, ...]:
    """The codes of languages as a tuple.

    Raises:
        NeuroglotError: ``languages`` is one text, whose letters would be taken for codes.
    """
    if isinstance(languages, str):
        wanted = [code.strip() for code in languages.split(",")]
        raise NeuroglotError(f"languages={languages!r}: expected a list of codes: {wanted!r}.")
    return tuple(languages)


def check_text(text: Any, what: str, where: str) -> None:
    """Check that a text is not empty and can be stored.

    Raises:
        NeuroglotError: it is empty, no text, or cannot be stored (:func:`flaw_of`).
    """
    if not isinstance(text, str) or not text.strip():
        raise NeuroglotError(f"{where}: {what} is empty or not a text.")
    if flaw := flaw_of(text):
        raise NeuroglotError(f"{where}: {what} {flaw}; mend it or leave it out.")


def languages_of(record: Any, name: str) -> list[str]:
    """The languages in which a record has prompts."""
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


def check_languages(wanted: tuple[str, ...], available: Sequence[str], name: str) -> None:
    """Check that at least two different languages are wanted, and that the task has them all.

    Raises:
        NeuroglotError: a language is unknown, empty or repeated, or there is only one.
    """
    unknown = [language for language in wanted if language not in available]
    if unknown:
        raise NeuroglotError(
            f"task {name!r} has no language {listed(unknown)}; there are {listed(available)}."
        )
    for language in wanted:
        check_text(language, f"the language {shown(language)}", f"task {name!r}")
    if len(set(wanted)) < max(2, len(wanted)):
        raise NeuroglotError(
            f"task {name!r}: at least two different languages are needed, found {listed(wanted)}."
        )


def is_whole(record: Item, languages: tuple[str, ...]) -> bool:
    """Whether each field by language that a record has is there in all of these languages."""
    for field in BY_LANGUAGE:
        texts = record.get(field)
        if not isinstance(texts, dict):
            continue  # the field is left out, or check_item refuses it
        present = [texts.get(language) is not None for language in languages]
        if not all(present) and (any(present) or field == "prompts"):
            return False
    return True


def said_of_whole(n_whole: int, n_all: int, languages: Iterable[str]) -> str:
    """The note of a task from which items were left out because a language lacks them."""
    return (
        f"{n_whole:,} of {n_all:,} items are there in all of {listed(languages, 20)}; the other "
        f"{n_all - n_whole:,} are left out"
    )


def check_item(record: Item, languages: tuple[str, ...], name: str) -> Item:
    """Make a complete item, in these languages, of a record that may lack optional fields.

    Raises:
        NeuroglotError: a field is missing, unknown or of the wrong kind; the message names the
            item.
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
        # Rows of a table have None where a field is left out.
        if any(text is not None for text in (record.get(field) or {}).values()):
            item[field] = _in_languages(record, field, languages, where)
    _take_masked(record, item, where)
    _take_aliases(record, item, where)
    for language, join in item["joins"].items():
        for field in ("prompts", "answers"):
            if item[field]:
                check_text(item[field][language], f"the {field[:-1]} in {language!r}", where)
        if not isinstance(join, str) or join.strip():
            raise NeuroglotError(f"{where}: the join in {language!r} must be white space or ''.")
        if item["choices"]:
            _check_choices(item, language, where)
    numbers = {language: len(choices) for language, choices in item["choices"].items()}
    if len(set(numbers.values())) > 1:
        raise NeuroglotError(f"{where}: languages have different numbers of choices ({numbers}).")
    return item


def _check_fields(record: Item, where: str) -> None:
    check_text(record.get("id"), "'id'", where)
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
    """Check the masked prompts of a record, if it has any, and put them into the item.

    An item has masked prompts in all of its languages, or no field ``masked`` at all.
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
    """Keep the first of several right answers as the answer, and the others as aliases.

    An item without other right answers has no field ``aliases``.
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
        aliases[language] = [alias for alias in dict.fromkeys([*others, *more]) if alias != first]
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
