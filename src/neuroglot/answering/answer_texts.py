"""Whether what was written is the answer: the same words, or the same number.

Words are compared as by the published scoring of SQuAD (Rajpurkar et al. 2016), in its form for
other languages (MLQA, Lewis et al. 2020): without case, punctuation and more than one space.
Articles (a, an, the) are left out where the question is in English, as the former does it. MLQA has
lists of its own for German, Spanish, Vietnamese and Arabic; articles of these languages count here.
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
# Scripts that set no spaces between words; each of their characters is a token of the F1 score, as
# Lewis et al. 2020 (MLQA) do it for Chinese.
UNSPACED = re.compile(
    r"[\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
GREEK = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]")
GREEK_MARKS = re.compile(r"(?<=[\u0370-\u03ff])[\u0300\u0301\u0308\u0313\u0314\u0342]+")
NON_JOINER, JOINER = "\u200c", "\u200d"
VIRAMA = 9  # combining class
NEAR = 16  # characters before a joiner among which the letter is that it joins, marks included
# Arabic letters that join no letter after them.
UNJOINED = "ءآأؤإاةدذرزوٱڈډڊڋڌڍڎڏڑڒړڔڕږڗژڙۀۃۄۅۆۇۈۉۊۋۍۏےۓە"
Answers = str | Sequence[str]
"""The right answer, or several of which each is right."""


def exact_match(written: str, answers: Answers, match: str, language: str | None = None) -> bool:
    """Whether what was written is an answer: the same words, or the same first number.

    Args:
        written: by a model; thoughts in it are left out.
        answers: the right one, or several.
        match: ``"text"`` or ``"number"``.
        language: code of the language that is asked in.
    """
    if match == "number":
        number = first_number(written, language)
        return number != "" and number in [first_number(one, language) for one in _each(answers)]
    return any(one == other for one, other in _words_of(written, answers, language))


def token_f1(written: str, answers: Answers, language: str | None = None) -> float:
    """Harmonic mean of precision and recall of an answer's words; of several, the best."""
    return max(_f1(one, other) for one, other in _words_of(written, answers, language))


def first_number(text: str, language: str | None = None) -> str:
    """The first number after the thoughts; see :func:`numbers.number_in`."""
    return number_in(answer_in(text), language)


def answer_of(text: str) -> str:
    """What LaTeX puts into a box, else the first line that is not empty, after the thoughts."""
    said = answer_in(text)
    boxed = BOXED.search(said)
    lines = (boxed[1] if boxed else said).splitlines()
    return next((line.strip() for line in lines if line.strip()), "")


def words(text: str, language: str | None = None, *, accents: bool = True) -> list[str]:
    """Words of a text for comparison; characters where none are spaced.

    Args:
        text: to take apart.
        language: code of its language.
        accents: whether those of Greek letters count.
    """
    base = base_of(language)
    folded = _folded(without_invisible(text), base)
    if not accents:
        bare = GREEK_MARKS.sub("", unicodedata.normalize("NFD", folded))
        folded = unicodedata.normalize("NFC", bare)
    plain = "".join(c for c in folded if not _is_punctuation(c))
    found = UNSPACED.sub(lambda c: f" {c[0]} ", plain).split()
    # An answer may be nothing but signs, or nothing but an article.
    kept = [word for word in found if base != "en" or word not in ARTICLES]
    return kept or found or without_invisible(text).split()


def _each(answers: Answers) -> Sequence[str]:
    return [answers] if isinstance(answers, str) else answers


def _words_of(
    written: str, answers: Answers, language: str | None
) -> list[tuple[list[str], list[str]]]:
    """Words of what was written, and of each answer.

    Greek capitals are written without accents, so these do not count where either is in capitals.
    """
    said = answer_of(written)
    pairs = []
    for answer in _each(answers):
        accents = not (_is_greek_capitals(said) or _is_greek_capitals(answer))
        one, other = (words(text, language, accents=accents) for text in (said, answer))
        pairs.append((one, other))
    return pairs


def _f1(found: list[str], expected: list[str]) -> float:
    common = sum((Counter(found) & Counter(expected)).values())
    if not common:
        return 0.0
    precision, recall = common / len(found), common / len(expected)
    return 2 * precision * recall / (precision + recall)


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character)[0] == "P"


def _is_greek_capitals(text: str) -> bool:
    letters = GREEK.findall(text)
    return any(c.isupper() for c in letters) and not any(c.islower() for c in letters)


def _folded(text: str, base: str) -> str:
    """A text without case, normalised (NFKC)."""
    plain = unicodedata.normalize("NFKC", text)
    if base in DOTTED:
        plain = plain.replace("I", "ı").replace("İ", "i").replace("i\u0307", "i")
    return unicodedata.normalize("NFKC", plain.casefold())


def without_invisible(text: str) -> str:
    """A text without characters that show nothing, but for joiners that change its letters."""
    kept = (
        c
        for i, c in enumerate(text)
        if unicodedata.category(c) != "Cf" or (c in NON_JOINER + JOINER and _joins(text, i))
    )
    return re.sub(f"[{FILLERS}]", "", "".join(kept))


def _joins(text: str, place: int) -> bool:
    """Whether a joiner matters where it stands (UAX #31, rules A1, A2 and B).

    It does after a virama, and as a non-joiner between two Arabic letters that would join.
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
