"""The base language and the CLDR locale of a language code."""

from __future__ import annotations

from functools import cache

from babel import Locale, UnknownLocaleError

# Invisible characters that are not in the category Cf: variation selectors, a combining joiner and
# fillers.
FILLERS = "\u034f\u115f\u1160\u3164\uffa0\ufe00-\ufe0f"


@cache
def locale_of(language: str | None) -> Locale | None:
    """The locale of a code such as ``tr``, ``tur_Latn`` or ``de-CH``; ``None`` if it has none."""
    try:
        return Locale.parse((language or "").replace("-", "_"))
    except (UnknownLocaleError, ValueError):
        return None


def base_of(language: str | None) -> str:
    """The language of a code, without territory and script; ``""`` if there is none."""
    locale = locale_of(language)
    return locale.language if locale is not None else (language or "")
