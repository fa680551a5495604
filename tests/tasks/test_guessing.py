"""What a guesser by the relation gets right, beside a guesser written longhand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import neuroglot as ng
from neuroglot.tasks.guessing import majority


def chosen(item: str, relation: str | None, answer: str, choices: str) -> dict[str, Any]:
    """An item of which the German choices are the English ones, in other words."""
    return {
        "id": item,
        "prompts": {"en": "?", "de": "?"},
        "answers": {"en": answer, "de": f"das {answer}"},
        "choices": {"en": list(choices), "de": [f"das {choice}" for choice in choices]},
        "relation": relation,
    }


def task_of(*records: dict[str, Any]) -> ng.ParallelTask:
    return ng.ParallelTask.from_records(records, name="t")


def longhand(task: ng.ParallelTask) -> np.ndarray:
    """Every guess is played through: each option that no other beats, one after the other."""
    rows = []
    for item in task.items:
        row = []
        for language in task.languages:
            others = [x for x in task.items if x["relation"] == item["relation"]]

            def is_right(text: str, of: dict[str, Any], language: str = language) -> bool:
                texts = [of["answers"][language], *of.get("aliases", {}).get(language, [])]
                if of["choices"]:
                    return text == texts[0]
                return text.strip().casefold() in [x.strip().casefold() for x in texts]

            options = item["choices"].get(language) or sorted(
                {
                    text.strip().casefold()
                    for x in others
                    for text in (x["answers"][language], *x.get("aliases", {}).get(language, []))
                }
            )
            score = [sum(is_right(option, x) for x in others) for option in options]
            played = [o for o, s in zip(options, score, strict=True) if s == max(score)]
            row.append(np.mean([is_right(option, item) for option in played]))
        rows.append(row)
    return np.array(rows)


def test_the_commonest_choice_of_the_relation() -> None:
    task = task_of(
        chosen("0", "r", "a", "abc"),
        chosen("1", "r", "a", "abc"),
        chosen("2", "r", "b", "abc"),  # a is commoner
        chosen("3", "r", "b", "bcd"),  # a is no choice here
        chosen("4", "s", "d", "abd"),  # in this relation a was never right
        chosen("5", None, "c", "abc"),  # items without a relation are one
        chosen("6", None, "a", "abc"),
    )
    expected = [0.5, 0.5, 0.5, 1, 1, 0.5, 0.5]  # a and b are right twice in r
    assert majority(task).tolist() == [[x, x] for x in expected]
    assert np.array_equal(majority(task), longhand(task))


def test_languages_are_counted_apart() -> None:
    """Two answers have one name in German, and choices that do."""
    records = [chosen(str(i), "r", x, "abc") for i, x in enumerate("aabc")]
    for record in records:
        record["choices"]["de"] = ["y", "z", "x"]
        record["answers"]["de"] = {"a": "x", "b": "y", "c": "y"}[record["answers"]["en"]]
    task = task_of(*records)
    assert majority(task).tolist() == [[1, 0.5], [1, 0.5], [0, 0.5], [0, 0.5]]
    assert np.array_equal(majority(task), longhand(task))


def written(item: str, relation: str, *answers: str) -> dict[str, Any]:
    texts = {language: list(answers) for language in ("en", "de")}
    prompts = {"en": "?", "de": "?"}
    return {"id": item, "prompts": prompts, "answers": texts, "relation": relation}


def test_written_answers_and_their_aliases() -> None:
    task = task_of(
        written("0", "r", "New York", "NYC"),
        written("1", "r", "nyc "),  # the same text as an alias of the first
        written("2", "r", "Boston"),
        written("3", "s", "one", "two"),  # one, two and three are right once each
        written("4", "s", "three"),
        written("5", "q", "STRASSE"),
        written("6", "q", "straße"),
        written("7", "q", "gasse", "Gasse "),  # right once, though said twice
    )
    expected = [1, 1, 0, 2 / 3, 1 / 3, 1, 1, 0]
    assert majority(task)[:, 0].tolist() == pytest.approx(expected)
    assert np.array_equal(majority(task), longhand(task))


@pytest.mark.parametrize("name", ["facts", "inference", "editing_en_xx"])
def test_the_embedded_tasks(name: str) -> None:
    task = replace(ng.load_task(name, languages=["en", "th"], limit=120), guesses={})
    found = majority(task)
    assert found.shape == (120, 2)
    assert found.dtype == float
    assert found == pytest.approx(longhand(task))
    assert 0 < found.mean() < 1


def test_what_no_guess_can_be_held_against() -> None:
    unanswered = [{"id": "a", "prompts": {"en": "?", "de": "?"}}]
    with pytest.raises(ng.NeuroglotError, match=r"task 't' has items without an answer.*give"):
        majority(task_of(*unanswered))
    with pytest.raises(ng.NeuroglotError, match="some items have choices and others have none"):
        majority(task_of(chosen("0", "r", "a", "ab"), written("1", "r", "a")))


def test_a_part_is_guessed_by_the_whole() -> None:
    """What is commonest is not seen in a few items, where every answer is the commonest one."""
    rng = np.random.default_rng(0)
    answers = rng.choice(list("abcdef"), 60, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
    task = task_of(*(chosen(str(i), "r", x, "abcdef") for i, x in enumerate(answers)))
    whole = majority(task)
    for part in (task.first(5), task.first(30).first(5), task.select(lambda x: int(x["id"]) < 5)):
        assert np.array_equal(majority(part), whole[:5])
        assert part.checksum == task_of(*task.items[:5]).checksum
    assert np.array_equal(majority(task.first(60)), whole)
    known = {item["id"]: {"en": 0.25, "de": 0.5} for item in task.items}
    part = replace(task, guesses=known).part(task.items[2:4], ("de", "en"))
    assert majority(part).tolist() == [[0.5, 0.25]] * 2, "languages in another order"
    assert majority(task_of(*task.items[:1])).tolist() == [[1, 1]], "a task of its own"


def test_a_part_of_a_task_without_answers() -> None:
    unanswered = [{"id": str(i), "prompts": {"en": "?", "de": "?"}} for i in range(3)]
    assert len(task_of(*unanswered).first(2)) == 2
    mixed = [chosen("0", "r", "a", "ab"), *unanswered[1:]]
    assert len(task_of(*mixed).first(2)) == 2
