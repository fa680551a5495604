"""Turn prompts into padded batches within a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroglot.errors import NeuroglotError
from neuroglot.models.model import Model
from neuroglot.models.tokenization import PaddingSide, check_lengths, encode, fitted, shown_prompts

RowsAndValues = tuple[list[int], Tensor]
# Tokens of a batch, padding included, where its size is chosen for the user. On a CPU what a layer
# computes should stay in the cache; elsewhere many tokens keep the device busy.
AUTO_TOKENS = {"cpu": 640}
AUTO_TOKENS_ELSEWHERE = 16_384


@dataclass(frozen=True)
class Batch:
    """Prompts that go through the model together.

    Attributes:
        rows: index of each prompt in the sequence that was batched.
        ids: token ids (prompt, position).
        mask: true at real tokens (prompt, position).
        added: true at those that the tokenizer added (prompt, position), where it was asked for.
    """

    rows: list[int]
    ids: Tensor
    mask: Tensor
    added: Tensor | None = None

    @property
    def last(self) -> Tensor:
        """Position of the last real token (prompt,), on whichever side the padding is."""
        positions = torch.arange(self.mask.shape[1], device=self.mask.device)
        return (self.mask * positions).argmax(dim=1)


def tokenize(
    model: Model, texts: Sequence[str], names: Sequence[str], room: int = 0
) -> list[list[int]]:
    """Token ids of each prompt, as the model's tokenisation says.

    Args:
        model: whose tokenizer and context length count.
        texts: what to tokenise.
        names: what to call each text in an error.
        room: tokens that must fit into the context after each.

    Raises:
        NeuroglotError: a text has no tokens, or more than the model's context holds.
    """
    return tokenize_and_count(model, texts, names, room)[0]


def tokenize_and_count(
    model: Model, texts: Sequence[str], names: Sequence[str], room: int = 0
) -> tuple[list[list[int]], list[int]]:
    """The same, and how many of each prompt's first tokens the tokenizer added."""
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
    """Rows, the shortest first."""
    return sorted(range(len(lengths)), key=lambda row: lengths[row])


def batches(model: Model, order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows of each batch, in the order that they are given in.

    Args:
        model: says how many prompts a batch holds; with ``"auto"`` that depends on its device.
        order: rows; neighbours should be about as long.
        lengths: number of tokens of each row.
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
    """The given rows as one batch on the model's device.

    Args:
        model: which will run.
        sequences: token ids.
        rows: which of them.
        side: where to pad; by default where the model's tokenisation says.
        n_added: how many first tokens of each sequence the tokenizer added, where it matters.

    Raises:
        NeuroglotError: a token for which the model has no embedding.
    """
    side = side or model.padding_side
    width = max(len(sequences[row]) for row in rows)
    known = model.n_embeddings
    largest = max(max(sequences[row], default=0) for row in rows)
    if largest >= known:
        token = model.tokenizer.convert_ids_to_tokens(largest)
        raise NeuroglotError(
            f"token {largest} ({token!r}) has no embedding in the model, which has {known}: "
            "tokenizer and model do not belong together."
        )
    # Any token can stand where nothing is looked at; a padding token may have been added since.
    filler = int(model.tokenizer.pad_token_id or 0)
    ids = torch.full((len(rows), width), filler if filler < known else 0)
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
    """``run(rows)``, in halves where memory does not suffice for all rows at once."""
    try:
        yield rows, run(rows)
        return
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
    # Outside the handler, which would hold on to what did not fit.
    torch.cuda.empty_cache()
    half = len(rows) // 2
    yield from in_halves(run, rows[:half])
    yield from in_halves(run, rows[half:])
