"""Compare a written answer with the right one: the same words, or the same number.

Words are compared as in the published scoring of SQuAD (Rajpurkar et al. 2016), in its form for
other languages (MLQA, Lewis et al. 2020): case, punctuation and repeated spaces do not matter.
English articles (a, an, the) are left out if the question is in English, as SQuAD does. MLQA also
leaves out articles of German, Spanish, Vietnamese and Arabic; here they count.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from neuroglot.answering.locales import FILLERS, base_of
from neuroglot.answering.numbers import BOXED, number_in
from neuroglot.running.thoughts import answer_in

ARTICLES = ("a", "an", "the")
DOTTED = ("tr", "az")  # languages in which I is the capital of ı, and İ of i
# Scripts without spaces between words: each of their characters is a token of the F1 score, as in
# MLQA for Chinese (Lewis et al. 2020).
UNSPACED = re.compile(
    r"[\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
GREEK = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]")
GREEK_MARKS = re.compile(r"(?<=[\u0370-\u03ff])[\u0300\u0301\u0308\u0313\u0314\u0342]+")
NON_JOINER, JOINER = "\u200c", "\u200d"
VIRAMA = 9  # the combining class of viramas
NEAR = 16  # the letter before a joiner is looked for in so many characters, which may be marks
# Arabic letters that do not join the letter after them.
UNJOINED = "ءآأؤإاةدذرزوٱڈډڊڋڌڍڎڏڑڒړڔڕږڗژڙۀۃۄۅۆۇۈۉۊۋۍۏےۓە"
Answers = str | Sequence[str]
"""The right answer, or several right answers."""


def exact_match(written: str, answers: Answers, match: str, language: str | None = None) -> bool:
    """Whether a text is a right answer: it has the same words, or the same first number.

    Args:
        written: the text that the model wrote; thoughts in it are left out.
        answers: the right answer, or several.
        match: what has to be the same, ``"text"`` or ``"number"``.
        language: the code of the language in which the question is asked.
    """
    if match == "number":
        number = first_number(written, language)
        expected = [first_number(answer, language) for answer in _each(answers)]
        return number != "" and number in expected
    return any(ours == right for ours, right in _words_of(written, answers, language))


def token_f1(written: str, answers: Answers, language: str | None = None) -> float:
    """The harmonic mean of precision and recall of an answer's words; of several, the best.

    See :func:`exact_match` for the arguments.
    """
    return max(_f1(ours, right) for ours, right in _words_of(written, answers, language))


def first_number(text: str, language: str | None = None) -> str:
    """The first number of a text after its thoughts; see :func:`numbers.number_in`."""
    return number_in(answer_in(text), language)


def answer_of(text: str) -> str:
    """The first line of a text that is not empty, after its thoughts and in its LaTeX box."""
    answer = answer_in(text)
    boxed = BOXED.search(answer)
    lines = (boxed[1] if boxed else answer).splitlines()
    return next((line.strip() for line in lines if line.strip()), "")


def words(text: str, language: str | None = None, *, accents: bool = True) -> list[str]:
    """The words of a text, for comparison; its characters in scripts without spaces.

    Args:
        text: the text.
        language: the code of its language.
        accents: whether the accents of Greek letters count.
    """
    base = base_of(language)
    folded = _folded(without_invisible(text), base)
    if not accents:
        bare = GREEK_MARKS.sub("", unicodedata.normalize("NFD", folded))
        folded = unicodedata.normalize("NFC", bare)
    plain = "".join(c for c in folded if not _is_punctuation(c))
    every = UNSPACED.sub(lambda c: f" {c[0]} ", plain).split()
    # An answer may consist of nothing but punctuation, or of an article alone.
    kept = [word for word in every if base != "en" or word not in ARTICLES]
    return kept or every or without_invisible(text).split()


def _each(answers: Answers) -> Sequence[str]:
    return [answers] if isinstance(answers, str) else answers


def _words_of(
    written: str, answers: Answers, language: str | None
) -> list[tuple[list[str], list[str]]]:
    """The words of the written answer, paired with those of each right answer.

    Greek capitals are written without accents, so accents do not count if either is in capitals.
    """
    ours = answer_of(written)
    pairs = []
    for right in _each(answers):
        accents = not (_is_greek_capitals(ours) or _is_greek_capitals(right))
        compared = (words(ours, language, accents=accents), words(right, language, accents=accents))
        pairs.append(compared)
    return pairs


def _f1(ours: list[str], right: list[str]) -> float:
    common = sum((Counter(ours) & Counter(right)).values())
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(right)
    return 2 * precision * recall / (precision + recall)


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character)[0] == "P"


def _is_greek_capitals(text: str) -> bool:
    letters = GREEK.findall(text)
    return any(c.isupper() for c in letters) and not any(c.islower() for c in letters)


def _folded(text: str, base: str) -> str:
    """A text in lower case (case-folded) and normalised (NFKC)."""
    plain = unicodedata.normalize("NFKC", text)
    if base in DOTTED:
        plain = plain.replace("I", "ı").replace("İ", "i").replace("i\u0307", "i")
    return unicodedata.normalize("NFKC", plain.casefold())


def without_invisible(text: str) -> str:
    """A text without invisible characters, except for joiners that change its letters."""
    kept = (
        c
        for i, c in enumerate(text)
        if unicodedata.category(c) != "Cf" or (c in NON_JOINER + JOINER and _joins(text, i))
    )
    return re.sub(f"[{FILLERS}]", "", "".join(kept))


def _joins(text: str, place: int) -> bool:
    """Whether a joiner changes the letters around it (UAX #31, rules A1, A2 and B).

    It does after a virama; a non-joiner also does between two Arabic letters that would join.
    """
    near = text[max(0, place - NEAR) : place]
    before, after = near.rstrip(NON_JOINER + JOINER), text[place + 1 : place + 2]
    if not before or not after.isalpha():
        return False
    if unicodedata.combining(before[-1]) == VIRAMA:
        return True
    bare = re.sub(r"[\u0610-\u061a\u064b-\u065f\u0670]+$", "", before)
    arabic = all(unicodedata.name(c, "").startswith("ARABIC") for c in (bare[-1:], after) if c)
    return text[place] == NON_JOINER and bool(bare) and arabic and bare[-1] not in UNJOINED
