"""Numbers in Chinese characters: 十八, 三百二十, 1万2000, 3.5亿."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from decimal import Decimal

DIGITS = "〇零一二三四五六七八九两兩壹壱贰貳弐叁參参肆伍陆陸柒捌玖"
SMALL = "十百千拾佰仟"
LARGE = "万萬亿億兆"
# 千克, 千米, 千瓦, 千卡 are units (kilogram and so on), and 百分 is not a hundred.
UNIT = re.compile(rf"\s?([{SMALL}{LARGE}])(?<!千(?=[克米瓦卡赫帕焦]))(?<!百(?=分))")
NUMERAL = re.compile(rf"[{DIGITS}{SMALL}{LARGE}]+")
# Classifiers: pieces, money, people, times and the like.
COUNTERS = (
    "个個只隻本枚台辆輛张張件条條次回天日年岁歳歲分杯瓶名位人匹头頭棵朵颗顆粒周週月时時元円圆圓块塊"
)
ALONE = re.compile(rf"\W*([{DIGITS}十百千])[{COUNTERS}]?\W*")
LARGEST_SMALL = 1000


def _worth(character: str) -> Decimal:
    # 两 is the only one for which Unicode has no number.
    return Decimal(2 if character == "两" else int(unicodedata.numeric(character)))


def value(tokens: Sequence[Decimal | str], *, colloquial: bool) -> Decimal | None:
    """The number that digits and units form together, or ``None`` if they form none.

    Args:
        tokens: numbers, and units as characters.
        colloquial: whether a last digit after a unit counts tenths of the unit: in Chinese 三万五
            is 35,000, in Japanese 30,005.
    """
    total = section = Decimal(0)
    number: Decimal | None = None
    smallest = largest = Decimal("Infinity")
    last = Decimal(1)  # the last unit, unless a zero came after it
    for token in tokens:
        if isinstance(token, Decimal):
            if number is not None and number != 0:
                return None
            last = Decimal(1) if token == 0 else last
            number = token
            continue
        unit = _worth(token)
        if unit <= LARGEST_SMALL:
            if unit >= smallest:
                return None
            section += (number or Decimal(1)) * unit
            smallest = unit
        else:
            section += number or Decimal(0)
            if unit == largest or not (section or unit > largest):
                return None
            # In 1万亿 and 1万5千亿, all that came before counts the larger unit.
            total = (total + section) * unit if unit > largest else total + section * unit
            section, largest, smallest = Decimal(0), unit, Decimal("Infinity")
        number, last = None, unit
    rest = number or Decimal(0)
    if colloquial and last > 10 and rest < 10:
        rest *= last / 10
    return total + section + rest


def _tokens(numeral: str) -> Iterator[Decimal | str]:
    """The digits and units of a numeral; consecutive digits are one number."""
    for part in re.findall(rf"[{SMALL}{LARGE}]|[{DIGITS}]+", numeral):
        if part[0] in SMALL + LARGE:
            yield part
        else:
            # A zero before a digit only says that a unit was left out.
            digits = "".join(str(_worth(c)) for c in part)
            if digits[0] == "0":
                yield Decimal(0)
            yield Decimal(digits)


def in_words(text: str, language: str) -> Decimal | None:
    """The first number in a text that has no other digits.

    A single character is a number only if it is the whole text, perhaps with a classifier (八个):
    一共 and 十分 are words.

    Args:
        text: the text.
        language: its base language; in Chinese 一百二 is 120.
    """
    for numeral in NUMERAL.finditer(text):
        if len(numeral[0]) > 1:
            tokens = list(_tokens(numeral[0]))
            # Consecutive digits without a unit are read one by one: 二〇二四 is 2024.
            number = value(tokens, colloquial=language == "zh" and len(tokens) > 1)
            if number is not None:
                return number
    alone = ALONE.fullmatch(text)
    return _worth(alone[1]) if alone else None
