"""Answers that a model writes by itself, and how they are compared with the right ones."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from neuroglot.models import Model
from neuroglot.models.tokenization import end_tokens
from neuroglot.recording.batching import BatchSize, batches, by_length, pad, tokenize

SEPARATOR = r"[.,\u066c\u202f\u00a0]"
NUMBER = re.compile(rf"-?\d+(?:{SEPARATOR}\d+)*")
# Scripts that set no spaces between words; each of their characters is a token of the F1 score, as
# Lewis et al. 2020 (MLQA) do it for Chinese.
UNSPACED = re.compile(
    r"[\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)


@torch.inference_mode()
def generate(
    model: Model,
    prompts: Sequence[str],
    names: Sequence[str],
    keys: Sequence[Hashable],
    max_new_tokens: int,
    batch_size: BatchSize,
) -> Iterator[tuple[list[int], list[str]]]:
    """Rows of ``prompts`` and what the model writes after them, greedily, batch by batch.

    Args:
        model: which writes.
        prompts: texts.
        names: what errors call each of them.
        keys: item and language of each, for edits that ask for them.
        max_new_tokens: the most tokens that the model writes.
        batch_size: prompts in a batch.

    Raises:
        NeuroglotError: a prompt leaves too little room in the context.
    """
    sequences = tokenize(model, prompts, names, room=max_new_tokens)
    hf: Any = model.hf  # its own types miss what a mixin adds
    with _greedy(model, max_new_tokens) as config:
        lengths = [len(ids) + max_new_tokens for ids in sequences]
        for rows in batches(model, by_length(lengths), lengths, batch_size):
            batch = pad(model, sequences, rows, side="left")
            with model.asking([keys[row] for row in rows], batch.mask.sum(dim=1)):
                written = hf.generate(
                    input_ids=batch.ids, attention_mask=batch.mask.long(), generation_config=config
                )
            texts = model.tokenizer.batch_decode(
                written[:, batch.ids.shape[1] :], skip_special_tokens=True
            )
            yield rows, texts


@contextmanager
def _greedy(model: Model, max_new_tokens: int) -> Iterator[GenerationConfig]:
    """A configuration that takes the likeliest token, and ends where model or tokenizer say.

    For as long as it holds, it is also the model's: what a passed configuration leaves open
    (penalties, forbidden words, …) would be filled in from there.
    """
    hf: Any = model.hf
    own = hf.generation_config
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=end_tokens(model.tokenizer, own) or None,
        pad_token_id=model.tokenizer.pad_token_id,
    )
    hf.generation_config = config
    try:
        yield config
    finally:
        hf.generation_config = own


def answer_of(text: str) -> str:
    """The first line that is not empty: what follows is no longer the answer."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def first_number(text: str) -> str:
    """The first number in a text, without separators of thousands; ``""`` if there is none."""
    found = NUMBER.search(text)
    if found is None:
        return ""
    plain = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in found[0])
    first, *groups = re.split(SEPARATOR, plain)
    # Thousands are set apart by threes, in Bengali and Telugu also by twos before the last three.
    decimals = groups.pop() if groups and len(groups[-1]) != 3 else ""
    whole = first + "".join(groups)
    # Zeros do not make it another number.
    return f"{whole}.{decimals}" if decimals.strip("0") else whole


def words(text: str) -> list[str]:
    """Words of a text for comparison: no case, no punctuation; characters where none are spaced."""
    plain = "".join(
        " " if unicodedata.category(c)[0] in "PS" else c
        for c in unicodedata.normalize("NFKC", text).casefold()
    )
    found = UNSPACED.sub(lambda c: f" {c[0]} ", plain).split()
    # An answer may be nothing but signs.
    return found or text.split()


def exact_match(written: str, answer: str, match: str) -> bool:
    """Whether what was written is the answer: the same words, or the same first number."""
    if match == "number":
        return first_number(written) == first_number(answer)
    return words(answer_of(written)) == words(answer)


def token_f1(written: str, answer: str) -> float:
    """Harmonic mean of precision and recall of the answer's words (Rajpurkar et al. 2016)."""
    found, expected = words(answer_of(written)), words(answer)
    common = sum((Counter(found) & Counter(expected)).values())
    if not common:
        return 0.0
    precision, recall = common / len(found), common / len(expected)
    return 2 * precision * recall / (precision + recall)
