"""Turn prompts into padded batches of a limited number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroglot.errors import NeuroglotError
from neuroglot.models.model import Model
from neuroglot.models.tokenization import PaddingSide, check_lengths, encode, fitted, shown_prompts

RowsAndValues = tuple[list[int], Tensor]
# Tokens of a batch, with padding, if the batch size is "auto". On a CPU the values of a layer
# should fit into the cache; other devices need many tokens to be busy.
AUTO_TOKENS = {"cpu": 640}
AUTO_TOKENS_ELSEWHERE = 16_384


@dataclass(frozen=True)
class Batch:
    """Prompts that go through the model together.

    Attributes:
        rows: the index of each prompt in the sequence that was batched.
        ids: token ids (prompt, position).
        mask: true at real tokens, false at padding (prompt, position).
        added: true at tokens that the tokenizer added (prompt, position), if they were counted.
    """

    rows: list[int]
    ids: Tensor
    mask: Tensor
    added: Tensor | None = None

    @property
    def last(self) -> Tensor:
        """The position of the last real token (prompt,), with padding on either side."""
        positions = torch.arange(self.mask.shape[1], device=self.mask.device)
        return (self.mask * positions).argmax(dim=1)


def tokenize(
    model: Model, texts: Sequence[str], names: Sequence[str], room: int = 0
) -> list[list[int]]:
    """The token ids of each prompt, according to the model's tokenisation.

    Args:
        model: the model whose tokenizer and context length are used.
        texts: the prompts.
        names: the name of each prompt in error messages.
        room: the number of tokens that must fit into the context after each prompt.

    Raises:
        NeuroglotError: a prompt has no tokens, or more than the model's context holds.
    """
    return tokenize_and_count(model, texts, names, room)[0]


def tokenize_and_count(
    model: Model, texts: Sequence[str], names: Sequence[str], room: int = 0
) -> tuple[list[list[int]], list[int]]:
    """As :func:`tokenize`, and how many tokens the tokenizer added before each prompt."""
    chosen = model.tokenization
    shown = shown_prompts(model.tokenizer, chosen, texts)
    check_lengths(model.tokenizer, chosen, shown, names, model.context_length)
    encoded = encode(model.tokenizer, chosen, shown)
    sequences = [
        fitted(tokens, model.context_length, name, room=room, truncate=chosen.truncate)
        for tokens, name in zip(encoded, names, strict=True)
    ]
    return sequences, [tokens.n_special for tokens in encoded]


def by_length(lengths: Sequence[int]) -> list[int]:
    """The rows, from the shortest to the longest."""
    return sorted(range(len(lengths)), key=lambda row: lengths[row])


def batches(model: Model, order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """The rows of each batch, in the given order.

    Args:
        model: the model, whose ``batch_size`` is the largest number of prompts in a batch; with
            ``"auto"`` it depends on the device.
        order: the rows; neighbours should have about the same length.
        lengths: the number of tokens of each row.
    """
    budget = AUTO_TOKENS.get(model.device.type, AUTO_TOKENS_ELSEWHERE)
    batch: list[int] = []
    longest = 1
    for row in order:
        longest = max(longest, lengths[row])
        most = max(1, budget // longest) if model.batch_size == "auto" else model.batch_size
        if len(batch) >= most:
            yield batch
            batch, longest = [], max(1, lengths[row])
        batch.append(row)
    if batch:
        yield batch


def pad(
    model: Model,
    sequences: Sequence[Sequence[int]],
    rows: list[int],
    side: PaddingSide | None = None,
    n_added: Sequence[int] | None = None,
) -> Batch:
    """One batch, on the model's device, of some sequences of tokens.

    Args:
        model: the model that will run the batch.
        sequences: the token ids of all sequences.
        rows: the indices of the sequences in the batch.
        side: the side of the padding; by default that of the model's tokenisation.
        n_added: for each sequence, how many first tokens the tokenizer added; ``None`` leaves the
            batch's ``added`` out.

    Raises:
        NeuroglotError: the model has no embedding for a token.
    """
    side = side or model.padding_side
    width = max(len(sequences[row]) for row in rows)
    largest = max(max(sequences[row], default=0) for row in rows)
    if largest >= model.n_embeddings:
        token = model.tokenizer.convert_ids_to_tokens(largest)
        raise NeuroglotError(
            f"token {largest} ({token!r}) has no embedding in the model, which has "
            f"{model.n_embeddings}: tokenizer and model do not belong together."
        )
    # A tokenizer's padding token may have been added without an embedding; any token will do.
    filler = int(model.tokenizer.pad_token_id or 0)
    ids = torch.full((len(rows), width), filler if filler < model.n_embeddings else 0)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    added = torch.zeros_like(mask)
    for i, row in enumerate(rows):
        n = len(sequences[row])
        start = width - n if side == "left" else 0
        ids[i, start : start + n] = torch.tensor(sequences[row])
        mask[i, start : start + n] = True
        added[i, start : start + (n_added[row] if n_added else 0)] = True
    at = model.device
    return Batch(rows, ids.to(at), mask.to(at), added.to(at) if n_added else None)


def in_halves(run: Callable[[list[int]], Tensor], rows: list[int]) -> Iterator[RowsAndValues]:
    """``run(rows)``, in halves if the device has not enough memory for all rows at once."""
    try:
        yield rows, run(rows)
        return
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
    # Outside the handler, which would keep the tensors that did not fit.
    torch.cuda.empty_cache()
    half = len(rows) // 2
    yield from in_halves(run, rows[:half])
    yield from in_halves(run, rows[half:])
