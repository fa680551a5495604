"""What the prompts of a task ask, so that those which a result holds already are known again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash

from neuroglot.models import Model
from neuroglot.models.tokenization import checksum_of_each
from neuroglot.tasks import ParallelTask

Checksums = np.ndarray[Any, np.dtype[np.object_]]

RUN = ("prompts", "masked")  # texts of an item that the model meets, as the tokenizer renders them


def asked_by(model: Model, task: ParallelTask, fields: Sequence[str]) -> Checksums:
    """A checksum of what each prompt asks (item, language).

    Two prompts with the same checksum have the same texts in these fields, and the model meets the
    same tokens for their prompts. Nothing else of an item, and no other item, counts.

    Args:
        model: whose tokenizer and chat template render the prompts.
        task: of the prompts.
        fields: of the items, by language, such as ``"prompts"``; ``"held_out"`` is whether the
            language is among those that the item was held out of.
    """
    run = [field for field in RUN if field in fields]
    texts = {
        item[field][language]: None
        for item in task.items
        for field in run
        if field in item
        for language in task.languages
    }
    known = checksum_of_each(model.tokenizer, model.tokenization, list(texts))
    tokens = dict(zip(texts, known, strict=True))
    found = np.empty((len(task), len(task.languages)), object)
    for i, item in enumerate(task.items):
        for j, language in enumerate(task.languages):
            said = {field: _said(item, field, language) for field in fields}
            met = [tokens[said[field]] for field in run if said[field] is not None]
            text = json.dumps([said, met], ensure_ascii=False, sort_keys=True)
            found[i, j] = xxhash.xxh3_128(text.encode("utf-8", "surrogatepass")).hexdigest()
    return found


def _said(item: dict[str, Any], field: str, language: str) -> Any:
    """What an item has in a field in a language; nothing where it lacks the field."""
    if field == "held_out":
        return language in item[field]
    return (item.get(field) or {}).get(language)
