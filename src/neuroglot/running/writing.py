"""Let a model write answers."""

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

LONGEST_MARK = 24  # tokens at the end of a prompt that are searched for the mark of a thought


@torch.inference_mode()
def generate(
    model: Model,
    prompts: Sequence[str],
    names: Sequence[str],
    keys: Sequence[Hashable],
    max_new_tokens: int,
) -> Iterator[tuple[list[int], list[Written]]]:
    """Rows of ``prompts`` and what the model writes after them, greedily, batch by batch.

    Thoughts are separated from the answer, also if the prompt ends with the mark that opens a
    thought, as those of some chat templates do.

    Args:
        model: the model that writes.
        prompts: the texts of the prompts.
        names: the name of each prompt in error messages.
        keys: the item and language of each prompt, which edits may ask for.
        max_new_tokens: the largest number of tokens that the model writes.

    Raises:
        NeuroglotError: a prompt leaves too little room in the context, or logits after it are NaN
            or infinite; the message names the prompt.
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
            except _NotFiniteError as error:
                row = rows[error.row]
                tokens = [*sequences[row], *error.written]
                why = why_not_finite(model.hf, tokens, model.running.edits)
                raise NeuroglotError(
                    f"{names[row]}: the logits of what is written next are NaN or infinite: {why}"
                ) from None
            ends = [sequences[row][-LONGEST_MARK:] for row in rows]
            yield rows, _read(model, ends, written[:, batch.ids.shape[1] :])


@contextmanager
def _greedy(model: Model, max_new_tokens: int) -> Iterator[GenerationConfig]:
    """A configuration that takes the likeliest token and stops at the model's end tokens.

    Within the context it is also the model's own configuration, from which ``generate`` would
    otherwise take settings that are not passed, such as penalties and forbidden words.
    """
    hf: Any = model.hf
    own = hf.generation_config
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        # Without this, the whole text runs again for each token.
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
    """The logits of a row of a batch are NaN or infinite after some written tokens."""

    def __init__(self, row: int, written: list[int]) -> None:
        super().__init__()
        self.row, self.written = row, written


class _Finite(LogitsProcessor):
    """Stops writing if logits are NaN or infinite, and have no likeliest token."""

    def __init__(self, start: int, ends: int | list[int] | None) -> None:
        """``start`` is the first written position; ``ends`` are the tokens that end a text."""
        self.start = start
        self.ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Check the logits (row, token), and return them unchanged."""
        broken = ~torch.isfinite(scores).all(dim=-1)
        if bool(broken.any()):
            written = input_ids[:, self.start :]
            # The tokens after the end of a shorter text do not matter.
            ended = torch.isin(written, torch.tensor(self.ends, device=written.device)).any(dim=1)
            rows = torch.nonzero(broken & ~ended.to(broken.device))[:, 0].tolist()
            if rows:
                raise _NotFiniteError(rows[0], written[rows[0]].tolist())
        return scores


def _read(model: Model, prompts: Sequence[list[int]], written: Tensor) -> list[Written]:
    """The written tokens as texts, with thoughts and answer apart.

    Args:
        model: the model that wrote.
        prompts: the last tokens of each row's prompt.
        written: the tokens after the prompts (row, token).
    """
    tokenizer = model.tokenizer
    plain = tokenizer.batch_decode(written, skip_special_tokens=True)
    # Some marks of thoughts are special tokens.
    marked = tokenizer.batch_decode(written, skip_special_tokens=False)
    before = tokenizer.batch_decode(list(prompts), skip_special_tokens=False)
    added = tokenizer.added_tokens_decoder.values()
    special = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
    texts = []
    for text, with_marks, prompt in zip(plain, marked, before, strict=True):
        opened = opened_by(prompt)
        thinks = opened or has_thoughts(with_marks)
        texts.append(split(with_marks, opened, special) if thinks else Written(text))
    return texts
