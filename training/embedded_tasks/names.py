"""Names of territories, languages, currencies and time zones in ten languages, from Unicode CLDR.

All names come through Babel; nothing is stored in the project.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

from babel import Locale
from babel.core import get_global

LANGUAGES = ("en", "de", "es", "fr", "ru", "th", "tr", "vi", "zh", "pt")

Kind = Literal["territory", "language", "currency", "time_zone"]


class Entity(NamedTuple):
    """Something that has a name in every language, by its CLDR code."""

    kind: Kind
    code: str


@cache
def _locale(language: str) -> Locale:
    return Locale.parse(language)


@cache
def name(entity: Entity, language: str) -> str:
    """Name of ``entity`` in ``language``.

    Raises:
        KeyError: CLDR has no such name.
    """
    locale = _locale(language)
    match entity.kind:
        case "territory":
            return str(locale.territories[entity.code])
        case "language":
            return str(locale.languages[entity.code])
        case "currency":
            return str(locale.currencies[entity.code])
        case "time_zone":
            return str(locale.meta_zones[entity.code]["long"]["standard"])


def has_all_names(entity: Entity) -> bool:
    """Whether ``entity`` is named in every one of the ten languages."""
    try:
        return all(name(entity, language) for language in LANGUAGES)
    except KeyError:
        return False


@cache
def territories() -> tuple[Entity, ...]:
    """Places with a two-letter code and a currency, named in all ten languages, by code."""
    coded = (Entity("territory", code) for code in sorted(get_global("territory_currencies")))
    # "EU" is a union of territories, not one of them.
    return tuple(t for t in coded if len(t.code) == 2 and t.code != "EU" and has_all_names(t))
