"""The texts to train on, as tokens, and the tokens of them that are predicted."""

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

IGNORED = -100  # the label that torch's cross-entropy leaves out
BETWEEN = "\n"  # stands between a text and its translation


@dataclass(frozen=True)
class Text:
    """One text as tokens.

    Attributes:
        ids: its token ids, with the end token.
        first: the index of the first token that is predicted.
        last: the index of the last token of the prompt, from which the answer is predicted.
    """

    ids: list[int]
    first: int
    last: int


def training_texts(
    model: Model, chosen: Split, pairs: Sequence[Pair], method: Method, *, mismatched: bool
) -> list[tuple[Text, ...]]:
    """The texts of every pair: one text with its translation, or one in each language.

    Args:
        model: the model whose tokenizer is used.
        chosen: the items and languages that are trained.
        pairs: from :func:`neuroglot.alignment.schedule.schedule`.
        method: the method, which decides what is predicted.
        mismatched: whether the source is a text of another item.

    Raises:
        NeuroglotError: a text does not fit into the context of the model, or the method needs
            answers and the task has none.
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
    texts = dict(zip(wanted, _single(model, items, wanted, whole=whole), strict=True))
    return [(texts[a], texts[b]) for a, b in zip(sources, targets, strict=True)]


def _text_of(item: Item, language: str) -> str:
    """The prompt of an item, followed by its answer if it has one."""
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
    """The text of each wanted item and language; with ``whole``, the prompt is predicted too."""
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
    """The text with the end token, if the model has one and the context has room for it."""
    end, room = model.tokenizer.eos_token_id, model.context_length
    ends = end is not None and (room is None or len(ids) < room)
    return Text([*ids, int(end)] if ends else ids, first, last)


def collate(model: Model, samples: Sequence[tuple[Text, ...]]) -> dict[str, Tensor]:
    """The texts of a step as one batch, first those in the source language, then the others.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels`` (text, position), padded on the right, and
        ``last``, the index of the last prompt token (text).
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
