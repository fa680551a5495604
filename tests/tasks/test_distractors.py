"""Wrong choices of facts: how often each object is one, and what never is."""

from __future__ import annotations

from collections import Counter

import pytest

from neuroglot.tasks.readers import distractors
from neuroglot.tasks.readers.distractors import Distractors, draw_choices, right_objects
from neuroglot.tasks.readers.source import Row, Table


def fact(number: int, relation: str, subject_uri: str, object_uri: str, **names: str) -> Row:
    """A row as the reader makes it; names are made of the URIs unless others are given."""
    return {
        "id": f"{relation}:{number}",
        "relation": relation,
        "subject_uri": subject_uri,
        "object_uri": object_uri,
        "subject": f"name of {subject_uri}",
        "object": f"name of {object_uri}",
        **names,
    }


def table(*rows: Row) -> Table:
    return {row["id"]: row for row in rows}


def objects_of(chosen: list[str], rows: Table) -> set[str]:
    return {rows[row_id]["object_uri"] for row_id in chosen}


def drawn(rows: Table, how: Distractors, *more: Table) -> dict[str, set[str]]:
    """The objects that are choices, by fact, where one language is asked in."""
    tables = {"en": rows, **{f"language {i}": other for i, other in enumerate(more)}}
    facts = {row_id: {"en": row} for row_id, row in rows.items()}
    chosen = draw_choices(facts, tables, how)
    assert all(row_id in ids for row_id, ids in chosen.items())
    assert chosen == draw_choices(facts, tables, how), "seeded by the id"
    return {row_id: objects_of(ids, rows) for row_id, ids in chosen.items()}


# B, C and D are right 5, 3 and 2 times as often as E, in a relation of which A is asked: the
# probability of each to be one of two, drawn one after the other.
ONE_BY_ONE = {
    "B": 5 / 10 + 3 / 10 * 5 / 7 + 2 / 10 * 5 / 8,
    "C": 3 / 10 + 5 / 10 * 3 / 5 + 2 / 10 * 3 / 8,
    "D": 2 / 10 + 5 / 10 * 2 / 5 + 3 / 10 * 2 / 7,
}


@pytest.mark.parametrize(
    ("how", "expected"),
    [("proportional", ONE_BY_ONE), ("uniform", dict.fromkeys("BCD", 2 / 3))],
)
def test_how_often_an_object_is_a_wrong_choice(
    how: Distractors, expected: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distractors, "N_CHOICES", 3)
    assert sum(expected.values()) == pytest.approx(2)
    answers = "A" * 3000 + "B" * 500 + "C" * 300 + "D" * 200
    rows = table(*(fact(i, "P19", f"S{i}", answer) for i, answer in enumerate(answers)))
    found = drawn(rows, how)
    about_a = [found[row_id] for row_id, row in rows.items() if row["object_uri"] == "A"]
    times = Counter(choice for choices in about_a for choice in choices - {"A"})
    for choice, share in expected.items():
        error = (share * (1 - share) / len(about_a)) ** 0.5
        assert abs(times[choice] / len(about_a) - share) < 4 * error, choice


def test_there_are_ten_choices_at_most_and_all_where_there_are_fewer() -> None:
    many = table(*(fact(i, "P19", f"S{i}", f"O{i % 15}") for i in range(60)))
    assert {len(choices) for choices in drawn(many, "proportional").values()} == {10}
    few = table(*(fact(i, "P19", f"S{i}", f"O{i % 4}") for i in range(60)))
    assert all(x == {"O0", "O1", "O2", "O3"} for x in drawn(few, "proportional").values())


OTHERS = [fact(10 + i, "P19", f"S{10 + i}", f"O{10 + i}") for i in range(3)]


@pytest.mark.parametrize(
    ("rows", "more"),
    [
        # Right for the same subject.
        ([fact(0, "P19", "S", "O0"), fact(1, "P19", "S", "O1")], []),
        # So says another language alone.
        ([fact(0, "P19", "S", "O0"), fact(1, "P19", "T", "O1")], [fact(2, "P19", "S", "O1")]),
        # Right for another subject of the same name: the prompts are the same.
        (
            [
                fact(0, "P19", "S", "O0", subject="Georgia"),
                fact(1, "P19", "T", "O1", subject="georgia"),
            ],
            [],
        ),
        # Another object of the same name as one that is right, which is not the answer.
        (
            [
                fact(0, "P19", "S", "O0"),
                fact(2, "P19", "S", "O2", object="New York"),
                fact(1, "P19", "T", "O1", object="new york"),
            ],
            [],
        ),
    ],
)
def test_what_is_right_too_is_no_wrong_choice(rows: list[Row], more: list[Row]) -> None:
    found = drawn(table(*rows, *OTHERS), "proportional", table(*more))
    assert "O1" not in found["P19:0"]
    assert {"O10", "O11", "O12"} <= found["P19:0"]


def test_facts_read_the_other_way_round() -> None:
    """France borders Spain, so Spain borders France; a capital is that of its country."""
    borders = table(
        fact(0, "P47", "Spain", "Portugal"),
        fact(1, "P47", "France", "Spain"),
        fact(2, "P47", "Norway", "France"),
        fact(3, "P47", "Poland", "Ukraine"),
    )
    assert drawn(borders, "proportional")["P47:0"] == {"Portugal", "Spain", "Ukraine"}
    assert "France" in drawn(borders, "uniform")["P47:0"], "as in earlier versions"
    capitals = table(fact(0, "P1376", "Rome", "Papal States"), fact(1, "P36", "Italy", "Rome"))
    right = right_objects({"en": capitals})
    assert right["P1376", "Rome"] == {"Papal States", "Italy"}
    assert right["P36", "Italy"] == {"Rome"}
    assert right["P36", "en name of papal states"] == {"en name of rome"}
    one_way = right_objects({"en": table(fact(0, "P19", "Ann", "Rome"))})
    assert ("P19", "Rome") not in one_way


def test_what_follows_over_several_steps() -> None:
    """A bun is bread, bread is food; chains that lead back end."""
    kinds = table(
        fact(0, "P279", "bun", "bread"),
        fact(1, "P279", "bread", "food"),
        fact(2, "P279", "food", "thing"),
        fact(3, "P279", "thing", "food"),
        fact(4, "P279", "cat", "animal"),
    )
    right = right_objects({"en": kinds})
    assert right["P279", "bun"] == {"bread", "food", "thing"}
    assert drawn(kinds, "proportional")["P279:0"] == {"bread", "animal"}
    twins = right_objects({"en": table(*(row | {"relation": "P190"} for row in kinds.values()))})
    assert twins["P190", "bun"] == {"bread"}


def test_choices_have_different_names_in_every_language() -> None:
    rows = [fact(i, "P19", f"S{i}", f"O{i}", object=f"{'same' if i < 5 else i}") for i in range(12)]
    other = [row | {"object": "alike" if 6 <= i < 9 else str(i)} for i, row in enumerate(rows)]
    tables = {"en": table(*rows), "de": table(*other)}
    facts = {row_id: {x: tables[x][row_id] for x in tables} for row_id in tables["en"]}
    for ids in draw_choices(facts, tables, "proportional").values():
        for language, found in tables.items():
            assert len({found[row_id]["object"] for row_id in ids}) == len(ids), language
        assert len(ids) == 6
