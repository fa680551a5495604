"""Words are compared as published scoring does it, in every language's letters."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroglot.answering.answer_texts import exact_match, token_f1, words

PROPERTY = settings(deadline=None, derandomize=True, max_examples=300, database=None)


def squad(text: str) -> list[str]:
    """The normalisation of the official evaluation script of SQuAD 1.1, line by line."""
    lowered = text.lower()
    without = "".join(c for c in lowered if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", without).split()


@PROPERTY
@given(
    st.lists(
        st.sampled_from(
            ["the", "a", "An", "Paris", "U.S.", "well-known", "$5", "don't", "x!", "o"]
        ),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.sampled_from(["the", "Paris", "us", "wellknown", "5", "o", "don't"]), min_size=1),
)
def test_english_is_compared_as_by_the_script_of_squad(one: list[str], other: list[str]) -> None:
    written, answer = " ".join(one), " ".join(other)
    found, expected = squad(written), squad(answer)
    if not (found and expected):
        return  # the script calls all empty texts equal; here an article alone is a word
    assert exact_match(written, answer, "text", "en") is (found == expected)
    common = sum((Counter(found) & Counter(expected)).values())
    f1 = 2 * common / (len(found) + len(expected))
    assert token_f1(written, answer, "en") == pytest.approx(f1)


@pytest.mark.parametrize(
    ("written", "answer", "language", "right"),
    [
        ("ISPARTA", "isparta", "tr", False),  # I is no capital of i there
        ("ISPARTA", "isparta", "en", True),
        ("IĞDIR", "Iğdır", "tr", True),
        ("IĞDIR", "Iğdır", "tr-TR", True),
        ("IĞDIR", "Iğdır", "tur_Latn", True),
        ("IĞDIR", "Iğdır", "de", False),
        ("İZMİR", "izmir", "tr", True),
        ("i\u0307zmir", "İzmir", "tr", True),
        ("İzmir", "izmir", "en", False),
        ("SIK", "sik", "tr", False),
        ("SIK", "sık", "tr", True),
        ("ΑΘΗΝΑ", "Αθήνα", "el", True),
        ("ΜΑΪΟΣ", "Μάιος", "el", True),
        ("ΠΌΛΗ", "πόλη", "el", True),
        ("Πάτρας", "ΠΑΤΡΑΣ", "el", True),
        ("πότε", "ποτέ", "el", False),
        ("σοφοσ", "σοφος", "el", True),
        ("\u200bParis\ufeff", "Paris", "en", True),
        ("Pa\u00adris", "Paris", "fr", True),
        ("\u200fباريس\u200e", "باريس", "ar", True),
        ("Pa\u200dris", "Paris", "en", True),
        ("نامه\u200cای", "نامهای", "fa", False),
        ("آزاد\u200cراه", "آزادراه", "fa", True),
        ("\u200cکتاب\u200c", "کتاب", "fa", True),
        ("ന\u0d4d\u200dയ", "ന\u0d4dയ", "ml", False),
        ("U.S.", "US", "en", True),
        ("well-known", "well known", "en", False),
        ("«Paris»", "Paris", "fr", True),
        ("the Louvre", "Louvre", "en", True),
        ("the Louvre", "Louvre", "de", False),
        ("die Elbe", "Elbe", "de", False),
        ("A", "a.", "en", True),
        ("", "the", "en", False),
        ("a cat", "A", "en", False),
        ("€5", "5", "de", False),  # as published: no punctuation, unlike $ in ASCII
        ("$5", "5", "de", True),
        ("\\boxed{Paris}", "Paris", "en", True),
        ("<think>\nRome?\n</think>\n\nParis", "Paris", "en", True),
    ],
)
def test_equal_words(written: str, answer: str, language: str, right: bool) -> None:
    assert exact_match(written, answer, "text", language) is right
    assert (token_f1(written, answer, language) == 1) is right


def test_of_several_answers_the_best_counts() -> None:
    answers = ["New York City", "NYC", "New York"]
    assert exact_match("new york", answers, "text", "en")
    assert exact_match("NYC", answers, "text", "en")
    assert not exact_match("York", answers, "text", "en")
    assert token_f1("York", answers, "en") == pytest.approx(2 / 3)
    assert token_f1("York", answers[:1], "en") == pytest.approx(1 / 2)


@PROPERTY
@given(st.text(max_size=20), st.sampled_from(["tr", "en", "el", "de", None]))
def test_a_text_equals_itself_in_other_clothes(text: str, language: str | None) -> None:
    line = " ".join(text.split())
    if not words(line, language):
        return
    for other in (unicodedata.normalize("NFD", line), f"  {line}\u200b"):
        assert words(other, language) == words(line, language)
