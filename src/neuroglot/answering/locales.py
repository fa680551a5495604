"""What is known of a language by its code: its base language, and its locale in the CLDR."""

from __future__ import annotations

import re
from functools import cache

from babel import Locale, UnknownLocaleError

# Characters that show nothing and are no joiners: variation selectors, a combining joiner and
# fillers. All others of the kind are in the category Cf.
FILLERS = "\u034f\u115f\u1160\u3164\uffa0\ufe00-\ufe0f"


@cache
def locale_of(language: str | None) -> Locale | None:
    """The locale of a code such as ``tr``, ``tur_Latn`` or ``de-CH``; ``None`` if there is none."""
    try:
        return Locale.parse(re.sub("-", "_", language or ""))
    except (UnknownLocaleError, ValueError):
        return None


def base_of(language: str | None) -> str:
    """The language of a code without territory and script; ``""`` if there is none."""
    locale = locale_of(language)
    return locale.language if locale is not None else (language or "")
