"""The facts behind the embedded tasks: what is true, what is invented, what is held out.

Real relations come from Unicode CLDR through Babel. Invented relations are seeded random maps that
no name gives away, so that answering them in a language where they were never taught is transfer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from babel.core import get_global
from babel.languages import get_official_languages, get_territory_language_info
from babel.numbers import get_territory_currencies

from training.embedded_tasks.names import LANGUAGES, Entity, Kind, has_all_names, territories

SEED = 20240609
N_CHOICES = 10
N_INVENTED_SUBJECTS = 120
N_INVENTED_ANSWERS = 30
HELD_OUT_SHARE = 1 / 3
MAIN_SPEAKERS_PERCENT = 10  # a language that fewer speak, and that is not official, is obscure here


@dataclass(frozen=True)
class Fact:
    """One true (or invented) statement: ``subject`` stands in ``relation`` to ``answer``."""

    relation: str
    subject: Entity
    answer: Entity
    choices: tuple[Entity, ...]
    held_out: tuple[str, ...]

    @property
    def id(self) -> str:
        """``relation:subject``, unique among all facts."""
        return f"{self.relation}:{self.subject.code}"

    def is_taught(self, language: str) -> bool:
        """Whether training texts may state this fact in ``language``."""
        return language not in self.held_out


@dataclass(frozen=True)
class _Claim:
    """A fact before choices are drawn; ``also_true`` may not serve as wrong choices."""

    subject: Entity
    answer: Entity
    also_true: frozenset[Entity] = frozenset()


def seeded(*parts: object) -> random.Random:
    """A random generator that depends on ``parts`` only, the same on every machine."""
    return random.Random(":".join(map(str, (SEED, *parts))))


def _entities(kind: Kind, codes: Collection[str]) -> frozenset[Entity]:
    return frozenset(Entity(kind, code) for code in codes)


def _currency() -> Iterator[_Claim]:
    for territory in territories():
        codes = get_territory_currencies(territory.code)
        if codes and has_all_names(answer := Entity("currency", codes[0])):
            yield _Claim(territory, answer, _entities("currency", codes[1:]))


def _official_language() -> Iterator[_Claim]:
    for territory in territories():
        codes = get_official_languages(territory.code)
        if len(codes) == 1 and has_all_names(answer := Entity("language", codes[0])):
            wider = get_official_languages(territory.code, regional=True, de_facto=True)
            yield _Claim(territory, answer, _entities("language", wider))


def _spoken_in(language: str) -> frozenset[str]:
    """Territories where ``language`` is official or spoken by a good part of the people."""

    def counts(info: Mapping[str, object]) -> bool:
        percent = info["population_percent"]
        assert isinstance(percent, float | int)
        return bool(info["official_status"]) or percent >= MAIN_SPEAKERS_PERCENT

    return frozenset(
        territory
        for territory in get_global("territory_languages")
        if (info := get_territory_language_info(territory).get(language)) and counts(info)
    )


def _home_territory() -> Iterator[_Claim]:
    named = set(territories())
    for code, likely in sorted(get_global("likely_subtags").items()):
        language, home = Entity("language", code), Entity("territory", likely.split("_")[-1])
        if "_" in code or home not in named or not has_all_names(language):
            continue
        spoken = _spoken_in(code)
        if home.code in spoken:
            yield _Claim(language, home, _entities("territory", spoken))


def _time_zone() -> Iterator[_Claim]:
    zones = get_global("territory_zones")
    meta = get_global("meta_zones")  # type: ignore[arg-type]  # missing in the stubs
    for territory in territories():
        names = {meta.get(zone) for zone in zones.get(territory.code, [])}
        code = names.pop() if len(names) == 1 else None
        if code and has_all_names(answer := Entity("time_zone", code)):
            yield _Claim(territory, answer)


def _invented(relation: str, pool: Collection[Entity]) -> Iterator[_Claim]:
    """A balanced map: every answer belongs to equally many subjects."""
    rng = seeded(relation)
    subjects = rng.sample(territories(), N_INVENTED_SUBJECTS)
    answers = rng.sample(sorted(pool), N_INVENTED_ANSWERS)
    repeated = answers * (N_INVENTED_SUBJECTS // N_INVENTED_ANSWERS)
    rng.shuffle(repeated)
    for i, subject in enumerate(subjects):  # nobody is their own twin
        if repeated[i] == subject:
            j = (i + 1) % len(subjects)
            repeated[i], repeated[j] = repeated[j], repeated[i]
    yield from map(_Claim, subjects, repeated)


def _known_languages() -> list[Entity]:
    """Languages that are the answer or the subject of a real relation."""
    return sorted({claim.subject for claim in _home_territory()})


RELATIONS: dict[str, Callable[[], Iterator[_Claim]]] = {
    "currency": _currency,
    "official_language": _official_language,
    "home_territory": _home_territory,
    "time_zone": _time_zone,
    "invented_twin": lambda: _invented("invented_twin", territories()),
    "invented_rival": lambda: _invented("invented_rival", territories()),
    "invented_secret_language": lambda: _invented("invented_secret_language", _known_languages()),
    "invented_school_language": lambda: _invented("invented_school_language", _known_languages()),
}


def _held_out(relation: str, subject: Entity) -> tuple[str, ...]:
    """Languages that never see this fact: half of them, for a third of the facts."""
    rng = seeded("held_out", relation, subject.code)
    if rng.random() >= HELD_OUT_SHARE:
        return ()
    chosen = set(rng.sample(LANGUAGES, len(LANGUAGES) // 2))
    return tuple(language for language in LANGUAGES if language in chosen)


@cache
def facts() -> tuple[Fact, ...]:
    """All facts, in a fixed order by relation and subject code."""
    found = []
    for relation, claims_of in RELATIONS.items():
        claims = sorted(claims_of(), key=lambda claim: claim.subject)
        answers = sorted({claim.answer for claim in claims})
        for claim in claims:
            rng = seeded("choices", relation, claim.subject.code)
            # An invented twin that is the subject itself would be a wasted choice.
            excluded = {claim.answer, claim.subject} | claim.also_true
            wrong = [answer for answer in answers if answer not in excluded]
            choices = [claim.answer, *rng.sample(wrong, N_CHOICES - 1)]
            rng.shuffle(choices)
            held_out = _held_out(relation, claim.subject)
            found.append(Fact(relation, claim.subject, claim.answer, tuple(choices), held_out))
    return tuple(found)
