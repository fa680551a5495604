"""Texts to train on, as tokens, and which of these are predicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroglot.alignment.schedule import Pair, Split
from neuroglot.alignment.training_settings import Method
from neuroglot.errors import NeuroglotError
from neuroglot.models.model import Model
from neuroglot.models.tokenization import between, without_spaces
from neuroglot.running.batching import pad, tokenize
from neuroglot.running.choices import Asked, questions
from neuroglot.tasks.records import Item

IGNORED = -100  # what torch's cross-entropy leaves out
BETWEEN = "\n"  # a text and its translation


@dataclass(frozen=True)
class Text:
    """One text as tokens.

    Attributes:
        ids: its tokens, with the one that ends it.
        first: the first token that is predicted.
        last: the last token of the prompt, from which the answer is predicted.
    """

    ids: list[int]
    first: int
    last: int


def training_texts(
    model: Model, chosen: Split, pairs: Sequence[Pair], method: Method, *, mismatched: bool
) -> list[tuple[Text, ...]]:
    """The texts of every pair: one where it is translated, else one in each language.

    Args:
        model: whose tokens they are made of.
        chosen: what is trained.
        pairs: from :func:`schedule`.
        method: what is predicted: a translation, the answer, or the whole text.
        mismatched: put another item in the source's place.

    Raises:
        NeuroglotError: a text does not fit into the model's context, or the method needs answers.
    """
    items = chosen.trained.items
    if method == "instruction" and not chosen.trained.has_answers:
        raise NeuroglotError(
            f"task {chosen.trained.name!r} has items without answers, which 'instruction' trains."
        )
    if method == "translation":
        return [(text,) for text in _translations(model, items, pairs, mismatched=mismatched)]
    sources = [(p.other if mismatched else p.item, p.source) for p in pairs]
    targets = [(p.item, p.target) for p in pairs]
    wanted = list(dict.fromkeys([*sources, *targets]))
    whole = method != "instruction"
    found = dict(zip(wanted, _single(model, items, wanted, whole=whole), strict=True))
    return [(found[a], found[b]) for a, b in zip(sources, targets, strict=True)]


def _text_of(item: Item, language: str) -> str:
    """Prompt and answer, where there is one."""
    prompt, spaces = without_spaces(str(item["prompts"][language]))
    if not item["answers"]:
        return prompt
    return f"{prompt}{between(spaces, item['joins'][language])}{item['answers'][language]}"


def _translations(
    model: Model, items: Sequence[Item], pairs: Sequence[Pair], *, mismatched: bool
) -> Iterator[Text]:
    sources = [items[p.other if mismatched else p.item] for p in pairs]
    asked = Asked(
        prompts=[_text_of(item, p.source) for item, p in zip(sources, pairs, strict=True)],
        choices=[[_text_of(items[p.item], p.target)] for p in pairs],
        joins=[BETWEEN] * len(pairs),
        names=[f"item {items[p.item]['id']!r} in {p.source!r} and {p.target!r}" for p in pairs],
        keys=[None] * len(pairs),
    )
    for question in questions(model, asked):
        ids = question.prefix + question.choices[0]
        yield _ended(model, ids, len(question.prefix), len(question.prefix) - 1)


def _single(
    model: Model, items: Sequence[Item], wanted: Sequence[tuple[int, str]], *, whole: bool
) -> Iterator[Text]:
    """Texts of one item in one language; with ``whole``, the prompt is predicted too."""
    prompts = [items[i]["prompts"][language] for i, language in wanted]
    names = [f"item {items[i]['id']!r} in {language!r}" for i, language in wanted]
    if not items[0]["answers"]:
        for ids in tokenize(model, prompts, names):
            yield _ended(model, ids, 1, len(ids) - 1)
        return
    asked = Asked(
        prompts=prompts,
        choices=[[items[i]["answers"][language]] for i, language in wanted],
        joins=[items[i]["joins"][language] for i, language in wanted],
        names=names,
        keys=[None] * len(wanted),
    )
    for question in questions(model, asked):
        n = len(question.prefix)
        yield _ended(model, question.prefix + question.choices[0], 1 if whole else n, n - 1)


def _ended(model: Model, ids: list[int], first: int, last: int) -> Text:
    """The text with its end token, where the model has one and there is room for it."""
    end, room = model.tokenizer.eos_token_id, model.context_length
    ends = end is not None and (room is None or len(ids) < room)
    return Text([*ids, int(end)] if ends else ids, first, last)


def collate(model: Model, samples: Sequence[tuple[Text, ...]]) -> dict[str, Tensor]:
    """A step's texts as one batch, those in the source language before those in the target's.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels`` (text, position), padded on the right;
        ``last`` (text,), the place of the last prompt token.
    """
    texts = [sample[k] for k in range(len(samples[0])) for sample in samples]
    batch = pad(model, [text.ids for text in texts], list(range(len(texts))), side="right")
    labels = batch.ids.masked_fill(~batch.mask, IGNORED)
    for row, text in enumerate(texts):
        labels[row, : text.first] = IGNORED
    return {
        "input_ids": batch.ids,
        "attention_mask": batch.mask.long(),
        "labels": labels,
        "last": torch.tensor([text.last for text in texts], device=batch.ids.device),
    }
