"""The first number of a text, in the ways in which different languages write numbers.

Digits may be of any script. Separators may be points and commas (ASCII, full-width, Arabic), spaces
(also thin and narrow ones), apostrophes, and those of LaTeX. Whether a sign separates thousands or
decimals follows from the number itself where possible: ``1,234.5`` and ``1.234,5`` are the same
number. Only if one point or comma stands before exactly three digits (``1.234``), the language
decides: the sign separates decimals if the language uses it for them (by the CLDR), else thousands,
also if the language is not known.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal, localcontext
from functools import cache

from babel.numbers import get_decimal_symbol

from neuroglot.answering import han
from neuroglot.answering.locales import FILLERS, base_of, locale_of

POINT, COMMA, SPACE, APOSTROPHE = ".", ",", " ", "'"
ARABIC_DECIMAL, ARABIC_THOUSANDS = "\u066b", "\u066c"
SPACES = " \u00a0\u2000-\u200a\u202f\u205f\u3000"
KINDS = {
    POINT: r"\.|．|﹒|\{\.\}",
    COMMA: r",\\!|,|，|﹐|،|\{,\}",
    SPACE: rf"[{SPACES}]|\\[,:; ]",
    APOSTROPHE: r"['’ʼ＇]",
    ARABIC_DECIMAL: ARABIC_DECIMAL,
    ARABIC_THOUSANDS: ARABIC_THOUSANDS,
}
OF_DECIMALS = (POINT, COMMA, ARABIC_DECIMAL)
MINUS = "-−–‐‑﹣－"
CURRENCY = "$¢£¤¥֏؋৲৳૱௹฿៛₠-⃀﷼﹩＄￠￡￥￦元円"
SEPARATOR = "|".join(KINDS.values())
NUMBER = re.compile(
    # A dash after a letter, a digit or a bracket is not a minus sign: COVID-19.
    rf"(?P<sign>(?<![\w)\]])[{MINUS}])?"
    rf"(?:(?:\\?[A-Z]{{0,3}}[{CURRENCY}]|(?<![A-Za-z])[A-Z]{{3}})[{SPACES}]?"
    rf"(?P<inner>[{MINUS}])?)?"
    rf"(?:(?P<digits>\d+(?:(?:{SEPARATOR})\d+)*)|(?<![\w.)\]])[.．{ARABIC_DECIMAL}](?P<part>\d+))"
)
PART = re.compile(rf"(\d+)({SEPARATOR})?")
BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
MOST_GROUPS = 64  # groups of digits that one number may have
NOTHING = "(?!)"  # a pattern that matches no text
UNSPACED = ("th", "lo", "km", "my")  # a letter after a word may begin another word


def visible(text: str) -> str:
    """A text without its invisible characters."""
    return re.sub(f"[{FILLERS}]", "", "".join(c for c in text if unicodedata.category(c) != "Cf"))


def number_in(text: str, language: str | None = None) -> str:
    """The first number in a text, in ASCII digits and without needless zeros; ``""`` if none.

    If the text has a LaTeX box, only its content is read. A minus sign counts; currencies and
    percent signs do not: ``50 %`` is 50. Words and characters that multiply (``2 million``,
    ``3万``) are those of the CLDR for the language. Separators that fit no number, as in
    ``1,2,3``, separate the numbers of a list.

    Args:
        text: the text.
        language: the code of its language.
    """
    text = visible(text)
    boxed = BOXED.search(text)
    text = boxed[1] if boxed else text
    match = NUMBER.search(text)
    if match is None:
        number = han.in_words(text, base_of(language))
        return "" if number is None else canonical(number)
    if match["part"]:
        plain, end = f"0.{_ascii(match['part'])}", match.end()
    else:
        plain, length = _read(match["digits"], _decimal_kind(language))
        end = match.start("digits") + length
    number = _times(Decimal(plain), text, match.start(), end, language)
    return canonical(-number if match["sign"] or match["inner"] else number)


def canonical(number: Decimal) -> str:
    """The shortest way to write a number without an exponent."""
    plain = format(number, "f")
    whole, _, decimals = plain.lstrip("-").partition(".")
    shortest = (whole.lstrip("0") or "0") + f".{decimals.rstrip('0')}".rstrip(".")
    return f"-{shortest}" if number < 0 else shortest


def _ascii(digits: str) -> str:
    return "".join(str(unicodedata.decimal(c)) for c in digits)


@cache
def _decimal_kind(language: str | None) -> str | None:
    """The separator of decimals in the language, if it is known."""
    locale = locale_of(language)
    return None if locale is None else str(get_decimal_symbol(locale))


def _kind(separator: str) -> str:
    return next(kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, separator))


def _read(run: str, decimal: str | None) -> tuple[str, int]:
    """The number with which a run of digits and separators begins, and its length in the run.

    Args:
        run: digits with single separators between them.
        decimal: the separator of decimals in the language.
    """
    parts = list(PART.finditer(run))
    groups = [_ascii(part[1]) for part in parts]
    kinds = [_kind(part[2]) for part in parts[:-1]]
    for n in range(min(len(groups), MOST_GROUPS), 0, -1):
        # A number may end before a space; if it ends before another separator, it is a list.
        if n == len(groups) or kinds[n - 1] == SPACE:
            number = _number(groups[:n], kinds[: n - 1], decimal)
            if number is not None:
                return number, parts[n - 1].end(1)
    return groups[0], parts[0].end(1)


def _number(groups: Sequence[str], kinds: Sequence[str], decimal: str | None) -> str | None:
    """Groups of digits as a plain number, or ``None`` if their separators fit no number."""
    if not kinds:
        return groups[0]
    *before, last = kinds
    if len(set(kinds)) == 1:
        thousands = _are_thousands(groups, last)
        if not before and last in OF_DECIMALS and (not thousands or last == decimal):
            return f"{groups[0]}.{groups[1]}"
        return "".join(groups) if thousands else None
    is_number = last in OF_DECIMALS and last not in before and len(set(before)) == 1
    if is_number and _are_thousands(groups[:-1], before[0]):
        return f"{''.join(groups[:-1])}.{groups[-1]}"
    return None


def _are_thousands(groups: Sequence[str], kind: str) -> bool:
    """Whether groups have three digits each, or as in India two and three (12,34,567)."""
    first, *rest = groups
    if kind == ARABIC_DECIMAL or first[0] == "0" or len(first) > 3 or len(rest[-1]) != 3:
        return False
    sizes = {len(group) for group in rest[:-1]}
    indian = kind in (COMMA, ARABIC_THOUSANDS) and sizes == {2} and len(first) < 3
    return sizes <= {3} or indian


def _times(number: Decimal, text: str, start: int, end: int, language: str | None) -> Decimal:
    """The number, multiplied as the words around it say (``2 million``)."""
    with localcontext() as exact:
        exact.prec = len(text) + 50
        (before, after), (of_before, of_after) = _multipliers(language), _scales(language)
        words = ((after.match(text, end), of_after), (before.search(text, 0, start), of_before))
        for word, factors in words:
            if word is not None:
                return number * factors[word[1].casefold()]
        tokens: list[Decimal | str] = [number]
        while (unit := han.UNIT.match(text, end)) is not None:
            tokens.append(unit[1])
            end = unit.end()
            digits = re.compile(rf"\d+(?:(?:{SEPARATOR})\d+)*").match(text, end)
            if digits is not None:
                plain, length = _read(digits[0], _decimal_kind(language))
                tokens.append(Decimal(plain))
                end += length
        together = han.value(tokens, colloquial=False)
        return number if together is None else together


@cache
def _scales(language: str | None) -> tuple[dict[str, Decimal], dict[str, Decimal]]:
    """The factors of words before and after a number, from the CLDR's compact formats."""
    before: dict[str, Decimal] = {}
    after: dict[str, Decimal] = {}
    locale = locale_of(language)
    formats = {} if locale is None else locale.compact_decimal_formats
    for width in ("short", "long"):
        for patterns in dict(formats.get(width, {})).values():
            for magnitude, pattern in patterns.items():
                zeros = pattern.pattern.split(";")[0].count("0")
                if not zeros or han.NUMERAL.search(pattern.pattern):
                    continue
                factor = Decimal(magnitude) / 10 ** (zeros - 1)
                for words, word in ((before, pattern.prefix[0]), (after, pattern.suffix[0])):
                    name = word.replace("'", "").strip(f"{SPACES} \u00a0\u202f").casefold()
                    # A single letter is usually a unit: 5 m, 18 K.
                    if len(name) > 1:
                        words[name] = factor
    return before, after


@cache
def _multipliers(language: str | None) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of the words before and after a number that multiply it."""
    before, after = (
        "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) or NOTHING
        for words in _scales(language)
    )
    # พันธุ์ (a species) is not a thousand (พัน).
    ends = "(?!ธ)" if base_of(language) in UNSPACED else r"(?![^\W\d_])"
    return (
        re.compile(rf"(?<!\w)({before})[{SPACES}]?$", re.IGNORECASE),
        re.compile(rf"[{SPACES}]?({after}){ends}", re.IGNORECASE),
    )
