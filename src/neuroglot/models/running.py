"""What a forward pass runs: whose prompt each row is, and where the prompt ends."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from neuroglot.errors import NeuroglotError, listed

EditPosition = Literal["answer", "last", "all"]
EDIT_POSITIONS: tuple[EditPosition, ...] = ("answer", "last", "all")


@dataclass
class Running:
    """What a model runs at the moment.

    Whoever knows says so with :meth:`these`. Else, as where a user calls the model, a pass without
    cached tokens before it is taken for whole prompts, and one with them for the answer's tokens.

    Attributes:
        prompts: whose prompt each row is (row,), where it was said.
        lengths: tokens of each row's prompt (row,), where it was said.
        index: place of every token in its text (row, position), padding being -1.
        is_begun: whether tokens ran before those of this pass.
        n_passes: how many passes ran under edits of tokens.
    """

    prompts: Sequence[Hashable] | None = None
    lengths: Tensor | None = None
    index: Tensor | None = None
    is_begun: bool = False
    n_passes: int = 0
    _edits: dict[object, str] = field(default_factory=dict)

    @property
    def edits(self) -> list[str]:
        """What edits are in force, for provenance."""
        return list(self._edits.values())

    @contextmanager
    def edited(self, what: str) -> Iterator[None]:
        """Within the block, an edit is in force. Blocks may end in any order."""
        key = object()
        self._edits[key] = what
        try:
            yield
        finally:
            del self._edits[key]

    @contextmanager
    def these(self, prompts: Sequence[Hashable] | None, lengths: Tensor | None) -> Iterator[None]:
        """Within the block, forward passes run these prompts, one a row.

        Args:
            prompts: what tells them apart, such as item and language.
            lengths: tokens of each prompt, the answer's not counted (row,).
        """
        before = self.prompts, self.lengths
        self.prompts, self.lengths = prompts, lengths
        try:
            yield
        finally:
            self.prompts, self.lengths = before

    def see(self, ids: Tensor, mask: Tensor | None, n_before: int) -> None:
        """Note the inputs of a pass: ids (row, position, …), mask and number of cached tokens."""
        n_rows, n_new = ids.shape[:2]
        if mask is None:
            mask = torch.ones((n_rows, n_before + n_new), dtype=torch.bool, device=ids.device)
        if mask.ndim != 2:
            raise NeuroglotError(
                f"an edit needs an attention mask (row, position), found shape {tuple(mask.shape)}."
            )
        self.n_passes += 1
        real = mask.bool()
        self.is_begun = mask.shape[1] > n_new
        self.index = torch.where(real, real.long().cumsum(dim=1) - 1, -1)[:, -n_new:]

    def tokens(self, position: EditPosition) -> Tensor:
        """Which tokens of the pass are meant (row, position), as true and false.

        ``"last"`` is the last prompt token, ``"answer"`` that one and those of the answer, and
        ``"all"`` every one but padding.
        """
        index = self.index
        assert index is not None  # a pass begins before its layers fire
        if position == "all":
            return index >= 0
        last = self._last(index)
        return index == last if position == "last" else (index >= last) & (index >= 0)

    def _last(self, index: Tensor) -> Tensor | int:
        """Place of the last prompt token (row, 1)."""
        if self.lengths is not None:
            if len(self.lengths) != len(index):
                raise NeuroglotError(
                    f"a pass has {len(index)} rows, but {len(self.lengths)} prompts were said to "
                    "run."
                )
            return (self.lengths.to(index.device) - 1)[:, None]
        # Of what is cached, nobody says which tokens were the prompt's; all that follows answers.
        return -2 if self.is_begun else index.max(dim=1, keepdim=True).values


def check_edit_position(position: str) -> EditPosition:
    """The position, if there are such.

    Raises:
        NeuroglotError: it lists those that there are.
    """
    if position not in EDIT_POSITIONS:
        raise NeuroglotError(f"unknown position {position!r}; there are {listed(EDIT_POSITIONS)}.")
    return position
