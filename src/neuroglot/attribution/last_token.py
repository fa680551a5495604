"""The last token of some prompts, run again and again while what comes before it stays."""

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

    An edit of the last token does not reach those before it. Where the model can, their keys and
    values are therefore computed once; else the whole prompts run each time. Either way, what an
    edit changes must be at the last position, ``[:, -1]``.
    """

    def __init__(
        self,
        model: Model,
        sequences: Sequence[Sequence[int]],
        n_fed: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Run what comes before the last token.

        Args:
            model: which runs.
            sequences: tokens of each prompt.
            n_fed: how many of each are the answer's first tokens; by default none.
            names: what errors call each prompt.
        """
        self.model, self.sequences, self.names = model, sequences, names
        fed = [0] * len(sequences) if n_fed is None else n_fed
        lengths = [len(ids) - n for ids, n in zip(sequences, fed, strict=True)]
        self.lengths = torch.tensor(lengths, device=model.device)
        self.batch = pad(model, sequences, list(range(len(sequences))), side="left")
        self.cache = None
        # A prompt of one token has nothing before it.
        if model.shares_cache and min(map(len, sequences)) > 1:
            ids, mask = self.batch.ids[:, :-1], self.batch.mask[:, :-1]
            # Unlike those of inference mode, these may be part of a graph later.
            with torch.no_grad(), model.asking(lengths=self.lengths):
                self.cache = run_body_prefixes(model.hf, ids, mask)

    def logits(self, rows: Tensor | None = None) -> Tensor:
        """Logits (row, token) after the last token, in float32.

        Args:
            rows: which prompts run, some perhaps several times (row,); by default each once.

        Raises:
            NeuroglotError: they are NaN or infinite; it names the prompt.
        """
        if rows is None:
            rows = torch.arange(len(self.batch.ids), device=self.batch.ids.device)
        logits = self._run(rows)
        finite = torch.isfinite(logits.detach()).all(dim=-1)
        if not bool(finite.all()):
            row = int(rows[int(torch.nonzero(~finite)[0, 0])])
            name = self.names[row] if self.names and self.names[row] else "one of the prompts"
            why = why_not_finite(self.model.hf, self.sequences[row], self.model.running.edits)
            raise NeuroglotError(f"{name}: the logits are NaN or infinite: {why}")
        return logits

    def _run(self, rows: Tensor) -> Tensor:
        """Logits (row, token) of some prompts, whatever they are."""
        ids, mask, hf = self.batch.ids, self.batch.mask, self.model.hf
        with self.model.asking(lengths=self.lengths[rows]):
            if self.cache is None:
                return run_logits(hf, ids[rows], mask[rows], ids.shape[1] - 1)[:, -1].float()
            # It is used up by a run.
            cache = copy.deepcopy(self.cache)
            return run_continuations(hf, ids[rows, -1:], mask[rows], cache, rows)[:, -1].float()


def cost_of_last(model: Model, length: int, times: int) -> int:
    """Tokens that run at once where a prompt's last token runs so many times.

    Each time holds a copy of the keys and values before it, eight of which count as a token;
    without them the whole prompt runs each time.
    """
    whole = length * times
    return max(length, times, whole // 8) if model.shares_cache else whole
