"""The embedded tasks: parallel, balanced, partly held out, and honest about what is invented."""

from __future__ import annotations

import json
import lzma
from collections import Counter

import pytest

import neuroglot as ng
from neuroglot.tasks.catalogue import EMBEDDED, catalogue, embedded_file
from training.embedded_tasks import inference, world
from training.embedded_tasks.names import LANGUAGES, name
from training.embedded_tasks.sentences import templates
from training.embedded_tasks.write import embedded, made

NAMES = [name for name, entry in catalogue().items() if entry.dataset is None]


@pytest.mark.parametrize("task_name", NAMES)
@pytest.mark.parametrize("template", ["native", "shared"])
def test_every_task_loads(task_name: str, template: str) -> None:
    task = ng.load_task(task_name, template=template)
    assert task.languages == LANGUAGES
    assert task.has_choices
    assert len(task) > 500
    for item in task.items:
        for prompt in item["prompts"].values():
            assert prompt == prompt.strip()
            assert "{" not in prompt
            assert ".." not in prompt
            assert "  " not in prompt
    again = ng.load_task(task_name, template=template)
    assert again.checksum == task.checksum


def test_what_is_shipped_is_what_is_defined() -> None:
    n = 0
    for entry, template in embedded():
        defined = json.loads(json.dumps(made(entry, template)))
        lines = lzma.decompress(embedded_file(entry.name, template).read_bytes()).splitlines()
        assert [json.loads(line) for line in lines] == defined, (
            "python -m training.embedded_tasks.write"
        )
        n += 1
    assert n == len(list(EMBEDDED.iterdir())) == 10


def test_shared_prompts_end_alike_and_native_ones_do_not() -> None:
    for task_name in NAMES:
        shared = ng.load_task(task_name, template="shared", limit=3)
        for item in shared.items:
            assert all(prompt.endswith(" Answer:") for prompt in item["prompts"].values())
    native = ng.load_task("facts", limit=3)
    for item in native.items:
        assert len({prompt.split()[-1] for prompt in item["prompts"].values()}) > 5


def test_relations_have_the_facts_they_should() -> None:
    facts = world.facts()
    counts = Counter(fact.relation for fact in facts)
    answers = {r: {f.answer for f in facts if f.relation == r} for r in counts}
    assert counts["currency"] == 252
    assert len(answers["currency"]) == 149
    assert counts["official_language"] == 163
    assert counts["home_territory"] == 232
    assert counts["time_zone"] == 211
    invented = [relation for relation in counts if relation.startswith("invented_")]
    assert len(invented) == 4
    for relation in invented:
        per_answer = Counter(f.answer for f in facts if f.relation == relation)
        assert set(per_answer.values()) == {4}, "balanced"
        assert not any(f.answer == f.subject for f in facts if f.relation == relation)
    known = {(f.relation, f.subject.code): f.answer.code for f in facts}
    assert known["currency", "JP"] == "JPY"
    assert known["official_language", "BR"] == "pt"
    assert known["home_territory", "th"] == "TH"
    assert known["time_zone", "DE"] == "Europe_Central"


def test_facts_have_ten_different_choices_in_every_language() -> None:
    for item in ng.load_task("facts").items:
        for language in LANGUAGES:
            assert len(set(item["choices"][language])) == 10
            assert item["answers"][language] in item["choices"][language]


@pytest.mark.parametrize("template", ["native", "shared"])
def test_masked_facts_name_no_subject(template: str) -> None:
    """Put together another way: by cutting the name of the subject out of the prompt."""
    facts = {fact.id: fact for fact in world.facts()}
    task = ng.load_task("facts", template=template)
    assert task.has_masked
    for item in task.items:
        for language in LANGUAGES:
            named = name(facts[item["id"]].subject, language)
            head, _, tail = item["prompts"][language].partition(f" {named}")
            if named.endswith(".") and not tail.startswith("."):
                tail = f".{tail}"
            assert item["masked"][language] == f"{head} ?{tail}"
    others = [x for x in NAMES if x != "facts"]
    assert not any(ng.load_task(x, limit=5).has_masked for x in others)


def test_masked_facts_have_tokens_that_the_models_were_trained_on() -> None:
    tokenizer = ng.load_model("embedded/base").tokenizer
    native, shared = (ng.load_task("facts", template=x) for x in ("native", "shared"))

    def tokens(task: ng.ParallelTask, field: str) -> set[int]:
        texts = [text for item in task.items for text in item[field].values()]
        return {token for ids in tokenizer(texts)["input_ids"] for token in ids}

    masked = tokens(native, "masked") | tokens(shared, "masked")
    assert masked <= tokens(native, "prompts") | tokens(shared, "prompts")


def test_a_third_of_the_facts_is_held_out_in_half_of_the_languages() -> None:
    facts = world.facts()
    held = [fact for fact in facts if fact.held_out]
    assert 0.3 < len(held) / len(facts) < 0.37
    assert all(len(fact.held_out) == 5 for fact in held)
    by_language = Counter(language for fact in held for language in fact.held_out)
    assert min(by_language.values()) > 0.8 * max(by_language.values())


def test_splits() -> None:
    every = ng.load_task("facts")
    taught, held = (ng.load_task("facts", split=split) for split in ("taught", "held_out"))
    assert len(taught) + len(held) == len(every)
    assert not any(item["held_out"] for item in taught.items)
    assert all(item["held_out"] for item in held.items)
    two = ng.load_task("facts", languages=["en", "th"], split="held_out")
    assert all(set(item["held_out"]) <= {"en", "th"} and item["held_out"] for item in two.items)


def test_inference_is_balanced_and_neither_part_gives_the_label_away() -> None:
    items = [case for case, _ in zip(inference.cases(), range(inference.N_ITEMS), strict=False)]
    truth = {(f.relation, f.subject): f.answer for f in world.facts()}
    assert set(Counter(case.label for case in items).values()) == {len(items) // 3}
    for part in ("premise", "hypothesis"):
        for label in inference.LABELS:
            stated = [getattr(case, part) for case in items if case.label == label]
            true = sum(truth[s.relation, s.subject] == s.answer for s in stated) / len(stated)
            assert 0.4 < true < 0.6, (part, label, true)
    for case in items:
        same_question = case.premise[:2] == case.hypothesis[:2]
        agree = case.premise == case.hypothesis
        assert case.label == ("true" if agree else "false" if same_question else "inconclusive")


@pytest.mark.parametrize(
    ("task_name", "told", "asked"),
    [("editing_en_xx", "en", None), ("editing_xx_en", None, "en"), ("editing_xx_xx", None, None)],
)
def test_editing_is_counterfactual_and_in_the_right_languages(
    task_name: str, told: str | None, asked: str | None
) -> None:
    facts = {f"edit:{fact.id}": fact for fact in world.facts()}
    for item in ng.load_task(task_name, limit=40).items:
        fact = facts[item["id"]]
        for language in LANGUAGES:
            answer = item["answers"][language]
            assert answer != name(fact.answer, asked or language)
            labels = templates()["relation"][fact.relation]
            assert labels[told or language] in item["prompts"][language]
            assert item["prompts"][language].rstrip(" :").endswith(labels[asked or language])


def test_invented_relations_are_labelled_in_every_language() -> None:
    words = {
        "en": "Fictional", "de": "Fiktive", "es": "fictici", "fr": "ficti", "ru": "ымышленн",
        "th": "สมมติ", "tr": "Kurgusal", "vi": "hư cấu", "zh": "虚构", "pt": "fictíci",
    }  # fmt: skip
    for relation, labels in templates()["relation"].items():
        if relation.startswith("invented_"):
            assert all(words[language] in labels[language] for language in LANGUAGES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "fact"}, "unknown task 'fact'; there are facts, inference, editing_en_xx"),
        ({"name": "facts", "languages": ["en", "xx"]}, "no language xx; there are en, de, es"),
        ({"name": "facts", "languages": ["en"]}, "at least two"),
        ({"name": "facts", "split": "test"}, "unknown split 'test'; there are all, taught"),
        ({"name": "facts", "template": "x"}, "no template 'x'; there are native, shared"),
        ({"name": "facts", "limit": 0}, "limit=0"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.load_task(**arguments)
