"""Log-probabilities of choices under many edits that leave the first layers as they are.

These layers then run once for all edits, and so does all that stands before a prompt's last token.
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
from neuroglot.running.batching import Batch, batches, by_length, in_halves, pad
from neuroglot.running.choices import (
    Options,
    Question,
    after_prompts,
    asking,
    options_of,
)

Arm = Callable[[], AbstractContextManager[None]]
"""Within what it gives, a model is edited, from some layer on and at the last token of prompts."""


@dataclass(frozen=True)
class Arms:
    """Edits, each of which is done by itself.

    Attributes:
        edits: of all.
        first_layer: before which none of them changes anything.
    """

    edits: Sequence[Arm]
    first_layer: int


@torch.inference_mode()
def can_replay(model: Model, asked: Sequence[Question]) -> bool:
    """Whether what runs once may stand for all edits.

    There must be something before the last token of each prompt, and what the model keeps of it
    must be keys and values of each layer; other states are changed in place.
    """
    if not model.shares_cache or min(len(one.prefix) for one in asked) < 2:
        return False
    one = pad(model, [asked[0].prefix], [0], side="left")
    with asking(model, asked[:1]):
        return can_be_copied(run_body_prefixes(model.hf, one.ids, one.mask), model.n_layers)


@torch.inference_mode()
def scores_of_arms(model: Model, asked: Sequence[Question], arms: Arms, widest: int) -> Tensor:
    """Summed log-probabilities (arm, prompt, option) of some questions; NaN beyond their choices.

    Args:
        model: one that :func:`can_replay`.
        asked: the questions.
        arms: the edits.
        widest: the most choices that a prompt has.
    """
    options = options_of(asked)
    before = pad(model, [one.prefix for one in asked], list(range(len(asked))), side="left")
    with asking(model, asked):
        cache = run_body_prefixes(model.hf, before.ids[:, :-1], before.mask[:, :-1])
    first = [site.block for site in model.sites[: arms.first_layer]]
    passes = _Passes(model, asked, options, before, cache, Replayed(first), Replayed(first))
    found = torch.full((len(arms.edits), len(asked), widest), torch.nan, dtype=torch.float32)
    owner, option = torch.tensor(options.owner), torch.tensor(options.option)
    for number, edit in enumerate(arms.edits):
        with edit():
            found[number, owner, option] = passes.run().cpu()
    return found


@dataclass
class _Passes:
    """The passes of some questions: of their last tokens, and of their choices.

    Attributes:
        model: which runs.
        asked: the questions.
        options: their choices.
        before: their prompts.
        cache: keys and values of all before the last token.
        last: what the first layers gave for the last tokens.
        choices: what they gave for the choices.
        begun: keys and values after the last token, of the first edit.
    """

    model: Model
    asked: Sequence[Question]
    options: Options
    before: Batch
    cache: Cache
    last: Replayed
    choices: Replayed
    begun: Cache | None = None

    def run(self) -> Tensor:
        """Log-probability (choice,) of each choice."""
        model, options, before = self.model, self.options, self.before
        rows = torch.arange(len(self.asked), device=before.ids.device)
        cache = copied(self.cache)
        with asking(model, self.asked), self.last.running():
            logits = run_continuations(model.hf, before.ids[:, -1:], before.mask, cache, rows)
        if self.begun is None:
            self.begun = copied(cache)
        # The first layers have not run for the last token, but in the first edit.
        cache = copied(cache, self.begun, len(self.last.layers))

        def run(ids: Tensor, mask: Tensor, owners: Tensor) -> Tensor:
            with self.choices.running():
                return run_continuations(model.hf, ids, mask, cache, owners)

        return after_prompts(model, self.asked, options, before, logits[:, -1], run)


def log_probs_of_arms(
    model: Model,
    asked: Sequence[Question],
    widest: int,
    arms: Arms,
) -> Iterator[tuple[list[int], Tensor]]:
    """Rows of ``asked`` and the log-probabilities of their choices in each arm, batch by batch.

    Args:
        model: which answers.
        asked: from :func:`neuroglot.running.choices.questions`.
        widest: the most choices that a prompt has.
        arms: edits that begin at the last token of prompts.
    """

    def run(rows: list[int]) -> Tensor:
        found = scores_of_arms(model, [asked[row] for row in rows], arms, widest)
        return found.transpose(0, 1)  # prompts first, by which a batch is halved

    costs = [question.cost(shared=True) for question in asked]
    for wanted in batches(model, by_length(costs), costs):
        yield from in_halves(run, wanted)
