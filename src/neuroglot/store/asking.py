"""What the prompts of a task ask, so that those which a result holds already are known again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash

from neuroglot.models.model import Model
from neuroglot.models.tokenization import checksum_of_each
from neuroglot.tasks.parallel import ParallelTask
from neuroglot.tasks.records import Item

Checksums = np.ndarray[Any, np.dtype[np.object_]]


def asked_by(model: Model, task: ParallelTask, others: Sequence[str] = ()) -> Checksums:
    """A checksum of what each prompt asks (item, language).

    It is that of the prompt, of its text and of the tokens that the model meets; after a space it
    is followed by that of other fields of the item, if there are any. No other item counts.

    Args:
        model: whose tokenizer and chat template render the prompts.
        task: of the prompts.
        others: fields of the items, by language, such as ``"choices"``; ``"held_out"`` is whether
            the language is among those that the item was held out of.
    """
    run = ["prompts", *(field for field in others if field == "masked")]
    texts = {
        item[field][language]: None
        for item in task.items
        for field in run
        if field in item
        for language in task.languages
    }
    known = checksum_of_each(model.tokenizer, model.tokenization, list(texts))
    tokens = dict(zip(texts, known, strict=True))

    def checksum(item: Item, language: str, fields: Sequence[str]) -> str:
        said = {field: _said(item, field, language) for field in fields}
        met = [tokens[said[field]] for field in run if said.get(field) is not None]
        text = json.dumps([said, met], ensure_ascii=False)
        return xxhash.xxh3_128(text.encode("utf-8", "surrogatepass")).hexdigest()

    found = np.empty((len(task), len(task.languages)), object)
    for i, item in enumerate(task.items):
        for j, language in enumerate(task.languages):
            of_fields = [checksum(item, language, x) for x in (["prompts"], others) if x]
            found[i, j] = " ".join(of_fields)
    return found


def prompts_only(asked: Checksums) -> Checksums:
    """The checksums of the prompts alone."""
    first = np.vectorize(lambda one: str(one).partition(" ")[0], otypes=[object])
    found: Checksums = first(asked)
    return found


def _said(item: Item, field: str, language: str) -> Any:
    """What an item has in a field in a language; nothing where it lacks the field."""
    if field == "held_out":
        return language in item[field]
    return (item.get(field) or {}).get(language)
