"""What a forward pass runs: which prompt each row is, and where the prompt ends."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.temporarily import temporarily

EditPosition = Literal["answer", "last", "all"]
EDIT_POSITIONS: tuple[EditPosition, ...] = ("answer", "last", "all")


@dataclass
class Running:
    """What a model runs at the moment.

    Functions of neuroglot declare the prompts with :meth:`these`. If nothing was declared, because
    a user calls the model, a pass without cached tokens is taken to run whole prompts, and a pass
    with cached tokens to run tokens of the answers.

    Attributes:
        prompts: the prompt of each row (row,), if declared.
        lengths: tokens of each row's prompt (row,), if declared.
        index: position of every token in its text (row, position); -1 for padding.
        is_begun: whether tokens were cached before this pass.
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
        """Descriptions of the edits in force, for provenance."""
        return list(self._edits.values())

    @contextmanager
    def edited(self, description: str) -> Iterator[None]:
        """Within the block, an edit is in force. Blocks may end in any order."""
        key = object()
        self._edits[key] = description
        try:
            yield
        finally:
            del self._edits[key]

    def these(
        self, prompts: Sequence[Hashable] | None, lengths: Tensor | None
    ) -> AbstractContextManager[None]:
        """Within the block, forward passes run these prompts, one per row.

        Args:
            prompts: an identifier of each prompt, such as item and language.
            lengths: tokens of each prompt, without its answer (row,).
        """
        return temporarily([(self, "prompts", prompts), (self, "lengths", lengths)])

    def see(self, ids: Tensor, mask: Tensor | None, n_before: int) -> None:
        """Note the inputs of a pass.

        Args:
            ids: token ids (row, position), or embeddings (row, position, d_model).
            mask: true at real tokens, including cached ones (row, position).
            n_before: number of cached tokens.

        Raises:
            NeuroglotError: the mask has another shape.
        """
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
        """Mask of the tokens of this pass that are at a position (row, position).

        ``"last"`` is the last prompt token, ``"answer"`` the last prompt token and the tokens of
        the answer, and ``"all"`` every token but padding.

        Raises:
            NeuroglotError: the pass has more or fewer rows than prompts were declared.
        """
        index = self.index
        assert index is not None  # a pass begins before its layers fire
        if position == "all":
            return index >= 0
        last: Tensor | int
        if self.lengths is None:
            # Without declared lengths, all tokens after cached ones are taken to be answers.
            last = -2 if self.is_begun else index.max(dim=1, keepdim=True).values
        elif len(self.lengths) == len(index):
            last = (self.lengths.to(index.device) - 1)[:, None]
        else:
            raise NeuroglotError(
                f"a pass has {len(index)} rows, but {len(self.lengths)} prompts were declared."
            )
        return index == last if position == "last" else (index >= last) & (index >= 0)


def check_edit_position(position: str) -> EditPosition:
    """The position, if it is a known one.

    Raises:
        NeuroglotError: the position is unknown; the message lists the choices.
    """
    if position not in EDIT_POSITIONS:
        raise NeuroglotError(f"unknown position {position!r}; there are {listed(EDIT_POSITIONS)}.")
    return position
