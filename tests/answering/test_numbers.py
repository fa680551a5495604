"""Numbers are read as people write them, in each of the languages of MGSM."""

from __future__ import annotations

import unicodedata
from decimal import Decimal
from typing import Literal

import pytest
from babel.numbers import (
    format_compact_decimal,
    format_currency,
    format_decimal,
    format_percent,
    get_decimal_symbol,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from neuroglot.answering.answer_texts import exact_match, first_number
from neuroglot.answering.numbers import canonical

LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
# The zero of each script; the other digits follow it.
ZEROS = {"bn": "০", "te": "౦", "th": "๐", "ja": "０", "zh": "０", "ar": "٠", "fa": "۰", "hi": "०"}
NUMBERS = st.decimals(-(10**12), 10**12, places=3)
PROPERTY = settings(deadline=None, derandomize=True, max_examples=300, database=None)


def in_native_digits(text: str, language: str) -> str:
    zero = ord(ZEROS.get(language, "0"))
    return "".join(chr(zero + int(c)) if c in "0123456789" else c for c in text)


def longhand(number: Decimal) -> str:
    """Digits of a number with three decimals, one by one, without zeros at the ends."""
    thousandths = int(number * 1000)
    digits = str(abs(thousandths)).rjust(4, "0")
    whole, decimals = digits[:-3], digits[-3:]
    while decimals.endswith("0"):
        decimals = decimals[:-1]
    text = whole + ("." + decimals if decimals else "")
    return "-" + text if thousandths < 0 else text


@PROPERTY
@given(NUMBERS, st.sampled_from(LANGUAGES), st.booleans(), st.sampled_from("-\u2212\u2013"))
def test_what_babel_writes_is_read_back(
    number: Decimal, language: str, native: bool, minus: str
) -> None:
    text = format_decimal(number, format=None, locale=language, decimal_quantization=False)
    text = text.replace("-", minus)
    if native:
        text = in_native_digits(text, language)
    for said in (text, f"= {text}.", f"\\boxed{{{text}}}", f"**{text}**", f"({text})"):
        assert first_number(said, language) == longhand(number), said
    assert exact_match(text, longhand(number).replace(".", separator(language)), "number", language)


def separator(language: str) -> str:
    return str(get_decimal_symbol(language))


@PROPERTY
@given(
    st.decimals(-(10**9), 10**9, places=2),
    st.sampled_from(LANGUAGES),
    st.sampled_from(["USD", "EUR", "CHF", "JPY", "BDT", "INR", "RUB", "THB", "TZS", "CNY"]),
)
def test_amounts_of_money_are_read_back(number: Decimal, language: str, currency: str) -> None:
    text = format_currency(number, currency, locale=language, currency_digits=False, format=None)
    assert first_number(text, language) == longhand(number), text


@PROPERTY
@given(st.integers(-(10**7), 10**7), st.sampled_from(LANGUAGES))
def test_percents_are_read_back(number: int, language: str) -> None:
    text = format_percent(Decimal(number) / 100, locale=language)
    assert first_number(text, language) == str(number), text


@PROPERTY
@given(
    st.integers(1, 999),
    st.integers(3, 11),
    # Babel 2.18 writes ten times the number in Swahili, whose patterns have a part for negatives.
    st.sampled_from([language for language in LANGUAGES if language != "sw"]),
)
def test_words_that_multiply_are_read_back(number: int, zeros: int, language: str) -> None:
    whole = number * 10**zeros
    # Chinese and Japanese have short ones only.
    width: Literal["long", "short"] = "short" if language in ("ja", "zh") else "long"
    text = format_compact_decimal(whole, format_type=width, locale=language, fraction_digits=6)
    assume(text != "mille")  # a word without digits
    assert first_number(text, language) == str(whole), text


@PROPERTY
@given(st.integers(0, 10**10), st.sampled_from([*LANGUAGES, None, "xx"]))
def test_plain_digits_are_the_number(number: int, language: str | None) -> None:
    assert first_number(str(number), language) == str(number)
    assert canonical(Decimal(number)) == str(number)


@PROPERTY
@given(st.text(max_size=40), st.sampled_from([*LANGUAGES, None]))
def test_any_text_gives_a_number_or_none(text: str, language: str | None) -> None:
    found = first_number(text, language)
    if found:
        Decimal(found)
        assert found.isascii()
        assert first_number(found, "en") == found
    elif any(unicodedata.category(c) == "Nd" for c in text):
        pytest.fail(f"{text!r} holds a digit")


@PROPERTY
@given(
    st.lists(st.integers(0, 99), min_size=3, max_size=6),
    st.sampled_from([",", ", ", "،", "，", "、", ".", "; "]),
    st.sampled_from([*LANGUAGES, None]),
)
def test_a_list_is_no_number(numbers: list[int], between: str, language: str | None) -> None:
    """In India, groups of two come before a last one of three, which no number here has."""
    assert first_number(between.join(map(str, numbers)), language) == str(numbers[0])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *((f"1{space}000", "1000") for space in " \u00a0\u2007\u2009\u202f"),
        *((f"1{mark}000", "1000") for mark in "'\u2019\u02bc\uff07,\uff0c\u060c\u066c"),
        *((f"12{mark}345.50", "12345.5") for mark in ("'", ",", " ", "{,}", "\\,", ",\\!")),
        ("\uff11\uff0c\uff10\uff10\uff10", "1000"),
        ("\u0661\u060c\u0660\u0660\u0660", "1000"),
        ("2\u066b5", "2.5"),
        ("\u0661\u066c\u0662\u0663\u0664\u066b\u0665", "1234.5"),
        ("12,34,567.89", "1234567.89"),
        ("1,00,000", "100000"),
        ("1,00,00", "1"),
        ("1.234.567,89", "1234567.89"),
        ("1,234,567.89", "1234567.89"),
        ("1 234 567,89", "1234567.89"),
        ("1.50", "1.5"),
        ("007", "7"),
        ("0.500", "0.5"),
        ("0,125", "0.125"),
        ("-0.0", "0"),
        ("1234.567", "1234.567"),
        ("1,2,3", "1"),
        ("1, 2, 3", "1"),
        ("1.2.3", "1"),
        ("12.05.2024", "12"),
        ("10 000 20", "10000"),
        ("2024 100", "2024"),
        ("0 500", "0"),
        ("5'11", "5"),
        ("-5", "-5"),
        ("\u22125", "-5"),
        ("\u20135", "-5"),
        ("\uff0d5", "-5"),
        ("- 5", "5"),
        ("\u2013 5 яблок", "5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("\\$-5.00", "-5"),
        ("3-5", "3"),
        ("COVID-19", "19"),
        (".5", "0.5"),
        ("... 5", "5"),
        ("end.5", "5"),
        ("50%", "50"),
        ("50\u00a0%", "50"),
        ("\\(18\\%\\)", "18"),
        ("US$18", "18"),
        ("১৮৳", "18"),
        ("$\\boxed{18}$", "18"),
        ("3 bags of 6 are \\boxed{1{,}800}", "1800"),
        ("1\u200b000", "1000"),
        ("\u200e-5", "-5"),
        ("18\u20e3", "18"),
        ("3万", "30000"),
        ("1万2,000円", "12000"),
        ("1億2千万", "120000000"),
        ("3.5亿", "350000000"),
        ("1万5千亿", "1500000000000"),
        ("5千克", "5"),
        ("5千円", "5000"),
        ("十八", "18"),
        ("答案是三百二十。", "320"),
        ("一千零五", "1005"),
        ("一共十八个", "18"),
        ("一共", ""),
        ("八个", "8"),
        ("万一", ""),
        ("二〇二四", "2024"),
        ("none", ""),
    ],
)
def test_ways_of_writing(text: str, number: str) -> None:
    assert first_number(text) == number


@pytest.mark.parametrize(
    ("text", "by_language"),
    [
        ("1.234", {"en": "1.234", "de": "1234", "es": "1234", "ja": "1.234", None: "1234"}),
        ("1,234", {"en": "1234", "de": "1.234", "fr": "1.234", "bn": "1234", None: "1234"}),
        ("1.234", {"de-CH": "1.234", "es_MX": "1.234", "deu_Latn": "1234", "xx": "1234"}),
        ("12.50", {"en": "12.5", "de": "12.5"}),
        ("12,50", {"en": "12.5", "de": "12.5"}),
        ("1,234.5", {"en": "1234.5", "de": "1234.5"}),
        ("1.234,5", {"en": "1234.5", "de": "1234.5"}),
        ("2 million", {"en": "2000000", "fr": "2000000", None: "2"}),
        ("2 Mio. €", {"de": "2000000"}),
        ("3,5 тыс. рублей", {"ru": "3500"}),
        ("5 ล้านบาท", {"th": "5000000"}),
        ("5 พันธุ์", {"th": "5"}),
        ("5 millet", {"en": "5"}),
        ("elfu 5", {"sw": "5000", "en": "5"}),
        ("shilingi milioni 2.5", {"sw": "2500000"}),
        ("一百二", {"zh": "120", "ja": "102"}),
        ("三万五", {"zh": "35000", "ja": "30005"}),
        ("三万零五", {"zh": "30005", "ja": "30005"}),
    ],
)
def test_the_language_decides(text: str, by_language: dict[str | None, str]) -> None:
    for language, number in by_language.items():
        assert first_number(text, language) == number, language


def test_what_has_no_number_is_never_right() -> None:
    assert not exact_match("none", "no number", "number")
    assert exact_match("1.50", "1.5", "number")
    assert not exact_match("1.05", "1.5", "number")
    assert exact_match("it is 7", ["6", "7"], "number")
