"""Log-probabilities of choices under many edits that leave the first layers unchanged.

These layers then run once for all edits, as do all tokens before a prompt's last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache

from neuroglot.models.forward import run_body_prefixes, run_continuations
from neuroglot.models.model import Model
from neuroglot.models.replaying import Replayed, can_be_copied, copied
from neuroglot.running.batching import batches, by_length, in_halves, pad
from neuroglot.running.choices import (
    Question,
    after_prompts,
    asking,
    options_of,
)

Arm = Callable[[], AbstractContextManager[None]]
"""Makes a context in which a model is edited, from some layer on and at prompts' last tokens."""


@dataclass(frozen=True)
class Arms:
    """Edits that are made one at a time.

    Attributes:
        edits: the edits.
        first_layer: the first layer that any of them changes.
    """

    edits: Sequence[Arm]
    first_layer: int


@torch.inference_mode()
def can_replay(model: Model, asked: Sequence[Question]) -> bool:
    """Whether the parts that edits do not change can run once for all of them.

    Each prompt must have a token before its last one, and the model's state after it must be keys
    and values of each layer: states of other kinds are changed in place.
    """
    if not model.shares_cache or min(len(question.prefix) for question in asked) < 2:
        return False
    batch = pad(model, [asked[0].prefix], [0], side="left")
    with asking(model, asked[:1]):
        return can_be_copied(run_body_prefixes(model.hf, batch.ids, batch.mask), model.n_layers)


@torch.inference_mode()
def scores_of_arms(model: Model, asked: Sequence[Question], arms: Arms, widest: int) -> Tensor:
    """The log-probability of each choice (arm, question, option); NaN beyond its choices.

    Args:
        model: a model for which :func:`can_replay` is true.
        asked: the questions.
        arms: the edits.
        widest: the largest number of choices of a prompt.
    """
    options = options_of(asked)
    before = pad(model, [one.prefix for one in asked], list(range(len(asked))), side="left")
    rows = torch.arange(len(asked), device=before.ids.device)
    with asking(model, asked):
        before_last = run_body_prefixes(model.hf, before.ids[:, :-1], before.mask[:, :-1])
    unchanged = [site.block for site in model.sites[: arms.first_layer]]
    of_last, of_choices = Replayed(unchanged), Replayed(unchanged)
    after_last: Cache | None = None  # keys and values under the first edit

    def answer() -> Tensor:
        """The log-probability of each choice (choice,) under the present edit."""
        nonlocal after_last
        cache = copied(before_last)
        with asking(model, asked), of_last.running():
            logits = run_continuations(model.hf, before.ids[:, -1:], before.mask, cache, rows)
        if after_last is None:
            after_last = copied(cache)
        # The first layers ran for the last token under the first edit only.
        cache = copied(cache, after_last, len(unchanged))

        def run(ids: Tensor, mask: Tensor, owners: Tensor) -> Tensor:
            with of_choices.running():
                return run_continuations(model.hf, ids, mask, cache, owners)

        return after_prompts(model, asked, options, before, logits[:, -1], run)

    scores = torch.full((len(arms.edits), len(asked), widest), torch.nan, dtype=torch.float32)
    owner, option = torch.tensor(options.owner), torch.tensor(options.option)
    for number, edit in enumerate(arms.edits):
        with edit():
            scores[number, owner, option] = answer().cpu()
    return scores


def log_probs_of_arms(
    model: Model,
    asked: Sequence[Question],
    widest: int,
    arms: Arms,
) -> Iterator[tuple[list[int], Tensor]]:
    """Rows of ``asked`` and the log-probabilities of their choices in each arm, batch by batch.

    Args:
        model: the model that answers.
        asked: from :func:`neuroglot.running.choices.questions`.
        widest: the largest number of choices of a prompt.
        arms: edits that begin at the last token of prompts.
    """

    def run(rows: list[int]) -> Tensor:
        scores = scores_of_arms(model, [asked[row] for row in rows], arms, widest)
        return scores.transpose(0, 1)  # questions first, like the rows

    costs = [question.cost(shared=True) for question in asked]
    for rows in batches(model, by_length(costs), costs):
        yield from in_halves(run, rows)
