"""Checksums of what the prompts of a task ask, by which a result recognises prompts it holds."""

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

    It covers the text of the prompt and the tokens that the model receives. With ``others``, a
    space and a checksum of these fields of the item follow. It does not depend on other items.

    Args:
        model: the model whose tokenizer and chat template render the prompts.
        task: the task of the prompts.
        others: fields of the items with a value for each language, such as ``"choices"``; for
            ``"held_out"``, the value is whether the item was held out of training in the language.
    """
    run = ["prompts", *(field for field in others if field == "masked")]
    texts = {
        item[field][language]: None
        for item in task.items
        for field in run
        if field in item
        for language in task.languages
    }
    checksums = checksum_of_each(model.tokenizer, model.tokenization, list(texts))
    tokens = dict(zip(texts, checksums, strict=True))

    def checksum(item: Item, language: str, fields: Sequence[str]) -> str:
        values = {field: _value(item, field, language) for field in fields}
        rendered = [tokens[values[field]] for field in run if values.get(field) is not None]
        text = json.dumps([values, rendered], ensure_ascii=False)
        return xxhash.xxh3_128(text.encode("utf-8", "surrogatepass")).hexdigest()

    asked = np.empty((len(task), len(task.languages)), object)
    for i, item in enumerate(task.items):
        for j, language in enumerate(task.languages):
            asked[i, j] = " ".join(
                checksum(item, language, fields) for fields in (["prompts"], others) if fields
            )
    return asked


def prompts_only(asked: Checksums) -> Checksums:
    """The checksums without those of other fields (item, language)."""
    first = np.vectorize(lambda checksums: str(checksums).partition(" ")[0], otypes=[object])
    of_prompts: Checksums = first(asked)
    return of_prompts


def _value(item: Item, field: str, language: str) -> Any:
    """The value of a field of an item in a language; ``None`` if it has none."""
    if field == "held_out":
        return language in item[field]
    return (item.get(field) or {}).get(language)
