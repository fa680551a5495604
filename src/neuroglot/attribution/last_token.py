"""Run the last token of some prompts repeatedly, while everything before it stays the same."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from neuroglot.errors import NeuroglotError
from neuroglot.models.finite import why_not_finite
from neuroglot.models.forward import (
    run_body_prefixes,
    run_continuations,
    run_logits,
)
from neuroglot.models.model import Model
from neuroglot.running.batching import pad


class LastTokens:
    """Some prompts up to their last token, at which coefficients may be edited.

    An edit of the last token does not reach the tokens before it. Their keys and values are
    therefore computed only once if the model can reuse them; otherwise the whole prompts run each
    time. In both cases the last token is at the last position, ``[:, -1]``, where the edit belongs.
    """

    def __init__(
        self,
        model: Model,
        sequences: Sequence[Sequence[int]],
        n_fed: Sequence[int],
        names: Sequence[str],
    ) -> None:
        """Run everything before the last token.

        Args:
            model: the model to run.
            sequences: token ids of each prompt.
            n_fed: how many tokens at the end of each prompt belong to the answer.
            names: names of the prompts, for error messages.
        """
        self.model, self.sequences, self.names = model, sequences, names
        lengths = [len(ids) - n for ids, n in zip(sequences, n_fed, strict=True)]
        self.lengths = torch.tensor(lengths, device=model.device)
        self.batch = pad(model, sequences, list(range(len(sequences))), side="left")
        self.cache = None
        # A prompt of one token has nothing before it.
        if model.shares_cache and min(map(len, sequences)) > 1:
            ids, mask = self.batch.ids[:, :-1], self.batch.mask[:, :-1]
            # Unlike tensors made in inference mode, these may become part of a graph later.
            with torch.no_grad(), model.asking(lengths=self.lengths):
                self.cache = run_body_prefixes(model.hf, ids, mask)

    def logits(self, rows: Tensor | None = None) -> Tensor:
        """Logits (row, token) after the last token, in float32.

        Args:
            rows: indices of the prompts to run, possibly with repetitions (row,); by default each
                prompt once.

        Raises:
            NeuroglotError: the logits are NaN or infinite; the message names the prompt.
        """
        if rows is None:
            rows = torch.arange(len(self.batch.ids), device=self.batch.ids.device)
        ids, mask, hf = self.batch.ids, self.batch.mask[rows], self.model.hf
        with self.model.asking(lengths=self.lengths[rows]):
            if self.cache is None:
                logits = run_logits(hf, ids[rows], mask, ids.shape[1] - 1)
            else:
                cache = copy.deepcopy(self.cache)  # a run changes it
                logits = run_continuations(hf, ids[rows, -1:], mask, cache, rows)
        logits = logits[:, -1].float()
        finite = torch.isfinite(logits.detach()).all(dim=-1)
        if not bool(finite.all()):
            row = int(rows[int(torch.nonzero(~finite)[0, 0])])
            reason = why_not_finite(self.model.hf, self.sequences[row], self.model.running.edits)
            name = self.names[row] or "one of the prompts"
            raise NeuroglotError(f"{name}: the logits are NaN or infinite: {reason}")
        return logits


def cost_of_last(model: Model, length: int, times: int) -> int:
    """Tokens that run at once if the last token of a prompt runs a number of times in one batch.

    Each run holds a copy of the keys and values before the last token; eight of these count as one
    token. If the model cannot reuse keys and values, the whole prompt runs each time.

    Args:
        model: the model to run.
        length: tokens of the prompt.
        times: how often its last token runs.
    """
    whole = length * times
    return max(length, times, whole // 8) if model.shares_cache else whole
