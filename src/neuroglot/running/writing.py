"""Answers that a model writes by itself."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from neuroglot.errors import NeuroglotError
from neuroglot.models.finite import why_not_finite
from neuroglot.models.model import Model
from neuroglot.models.tokenization import end_tokens
from neuroglot.running.batching import batches, by_length, pad, tokenize
from neuroglot.running.thoughts import Written, has_thoughts, opened_by, split

LONGEST_MARK = 24  # tokens at the end of a prompt in which one that opens a thought is looked for


@torch.inference_mode()
def generate(
    model: Model,
    prompts: Sequence[str],
    names: Sequence[str],
    keys: Sequence[Hashable],
    max_new_tokens: int,
) -> Iterator[tuple[list[int], list[Written]]]:
    """Rows of ``prompts`` and what the model writes after them, greedily, batch by batch.

    Thoughts are told apart from the answer, also where the prompt ends with the mark that opens
    one, as some chat templates do.

    Args:
        model: which writes.
        prompts: texts.
        names: what errors call each of them.
        keys: item and language of each, for edits that ask for them.
        max_new_tokens: the most tokens that the model writes.

    Raises:
        NeuroglotError: a prompt leaves too little room in the context, or logits after it are NaN
            or infinite; it names the prompt.
    """
    sequences = tokenize(model, prompts, names, room=max_new_tokens)
    hf: Any = model.hf  # its own types miss what a mixin adds
    with _greedy(model, max_new_tokens) as config:
        lengths = [len(ids) + max_new_tokens for ids in sequences]
        for rows in batches(model, by_length(lengths), lengths):
            batch = pad(model, sequences, rows, side="left")
            check = _Finite(batch.ids.shape[1], config.eos_token_id)
            try:
                with model.asking([keys[row] for row in rows], batch.mask.sum(dim=1)):
                    written = hf.generate(
                        input_ids=batch.ids,
                        attention_mask=batch.mask.long(),
                        generation_config=config,
                        logits_processor=LogitsProcessorList([check]),
                    )
            except _NotFiniteError as found:
                tokens = [*sequences[rows[found.row]], *found.written]
                why = why_not_finite(model.hf, tokens, model.running.edits)
                raise NeuroglotError(
                    f"{names[rows[found.row]]}: the logits of what is written next are NaN or "
                    f"infinite: {why}"
                ) from None
            ends = [sequences[row][-LONGEST_MARK:] for row in rows]
            yield rows, _read(model, ends, written[:, batch.ids.shape[1] :])


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
        # Where keys and values are not those of the whole text, it runs whole for each token.
        use_cache=model.shares_cache or model.noise > 0,
        eos_token_id=end_tokens(model.tokenizer, own) or None,
        pad_token_id=model.tokenizer.pad_token_id,
    )
    hf.generation_config = config
    try:
        yield config
    finally:
        hf.generation_config = own


class _NotFiniteError(Exception):
    """Logits of a row of a batch are NaN or infinite, after some written tokens."""

    def __init__(self, row: int, written: list[int]) -> None:
        super().__init__()
        self.row, self.written = row, written


class _Finite(LogitsProcessor):
    """Stops where logits are NaN or infinite; they would be taken for some likeliest token."""

    def __init__(self, start: int, ends: int | list[int] | None) -> None:
        """``start`` is where writing begins, and ``ends`` are the tokens that end a text."""
        self.start = start
        self.ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The logits (row, token) as they are."""
        broken = ~torch.isfinite(scores).all(dim=-1)
        if bool(broken.any()):
            written = input_ids[:, self.start :]
            # What comes after the end of a shorter text is nobody's.
            ended = torch.isin(written, torch.tensor(self.ends, device=written.device)).any(dim=1)
            rows = torch.nonzero(broken & ~ended.to(broken.device))[:, 0].tolist()
            if rows:
                raise _NotFiniteError(rows[0], written[rows[0]].tolist())
        return scores


def _read(model: Model, prompts: Sequence[list[int]], written: Tensor) -> list[Written]:
    """What was written (row, token) as text, with the thoughts told apart.

    Args:
        model: which wrote.
        prompts: the last tokens of each row's prompt.
        written: the tokens after it.
    """
    tokenizer = model.tokenizer
    plain = tokenizer.batch_decode(written, skip_special_tokens=True)
    # Some marks of thoughts are special tokens.
    marked = tokenizer.batch_decode(written, skip_special_tokens=False)
    before = tokenizer.batch_decode(list(prompts), skip_special_tokens=False)
    added = tokenizer.added_tokens_decoder.values()
    special = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
    found = []
    for text, with_marks, prompt in zip(plain, marked, before, strict=True):
        opened = opened_by(prompt)
        thinks = opened or has_thoughts(with_marks)
        found.append(split(with_marks, opened, special) if thinks else Written(text))
    return found
