"""Log-probabilities of choices, given their prompts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import Cache

from neuroglot.errors import NeuroglotError
from neuroglot.models.forward import (
    run_body_prefixes,
    run_continuations,
    run_logits,
    run_prefixes,
)
from neuroglot.models.model import Model
from neuroglot.models.tokenization import (
    Tokens,
    between,
    check_lengths,
    encode,
    fitted,
    rendered,
    without_spaces,
)
from neuroglot.running.batching import (
    Batch,
    RowsAndValues,
    batches,
    by_length,
    in_halves,
    pad,
)


@dataclass(frozen=True)
class Question:
    """A prompt and its choices as tokens.

    Attributes:
        prefix: tokens before the choices, the same for all of them.
        choices: tokens of each choice; all begin at the same character.
        prompt: item and language, for edits that ask for them.
        rest: what of the prompt's text comes after the prefix, and is scored with the choices.
    """

    prefix: list[int]
    choices: list[list[int]]
    prompt: Hashable = None
    rest: str = ""

    def cost(self, *, shared: bool, times: int = 1) -> int:
        """Tokens that run at once.

        Where the prompt is shared by its choices, each of them still holds a copy of its keys and
        values, eight of which count as a token. A prompt that comes so many ``times`` runs once.
        """
        n, longest = len(self.choices), max(map(len, self.choices))
        whole = n * (len(self.prefix) + longest)
        runs = -(-len(self.prefix) // times)
        return max(runs, n * longest, whole // 8) if shared else whole


@dataclass(frozen=True)
class Asked:
    """What is asked of a model: prompts with choices, and what joins the two.

    Attributes:
        prompts: one text each.
        choices: texts of each prompt.
        joins: text between each prompt and its choices; left out in a chat template.
        names: what errors call each prompt.
        keys: item and language of each prompt.
    """

    prompts: Sequence[str]
    choices: Sequence[Sequence[str]]
    joins: Sequence[str]
    names: Sequence[str]
    keys: Sequence[Hashable]


def questions(model: Model, asked: Asked) -> list[Question]:
    """Tokens of each prompt and its choices.

    Prompt and choice are tokenised together, as the model would meet them. White space at the end
    of a prompt belongs to its choices (:func:`without_spaces`). A choice begins with
    the first token that ends after the prompt does; where a tokenizer joins the end of the prompt
    with the beginning of some choice, all choices of the prompt are scored from there.

    Raises:
        NeuroglotError: a text does not fit into the context, or a choice adds no token.
    """
    chosen = model.tokenization
    whole = rendered(model.tokenizer, chosen, asked.prompts)
    shown, spaces = zip(*map(without_spaces, whole), strict=True) if whole else ((), ())
    joins = ["" if chosen.chat_template else join for join in asked.joins]
    texts = [
        f"{prompt}{between(after, join)}{choice}"
        for prompt, after, join, choices in zip(shown, spaces, joins, asked.choices, strict=True)
        for choice in choices
    ]
    of_texts = [x for x, given in zip(asked.names, asked.choices, strict=True) for _ in given]
    check_lengths(model.tokenizer, chosen, texts, of_texts, model.context_length)
    # Items of a relation share masked prompts and choices.
    different = list(dict.fromkeys(texts))
    tokens_of = dict(
        zip(different, encode(model.tokenizer, chosen, different, offsets=True), strict=True)
    )
    encoded = (tokens_of[text] for text in texts)
    found = []
    for prompt, choices, name, key in zip(
        shown, asked.choices, asked.names, asked.keys, strict=True
    ):
        options = [next(encoded) for _ in choices]
        question = _question(model, options, prompt, list(choices), name)
        found.append(replace(question, prompt=key))
    return found


def _question(
    model: Model, options: Sequence[Tokens], prompt: str, choices: list[str], name: str
) -> Question:
    """Split the tokens of one prompt with each of its choices, where the prompt ends."""
    firsts = []
    for tokens, choice in zip(options, choices, strict=True):
        first = next((i for i, end in enumerate(tokens.ends) if end > len(prompt)), None)
        if first is None:
            raise NeuroglotError(f"{name}: the choice {choice!r} adds no token to the prompt.")
        firsts.append(first)
    start = min(*firsts, _common_prefix([tokens.ids for tokens in options]))
    if start < 1:
        raise NeuroglotError(f"{name}: there is no token before the choices to predict them from.")
    # One token must stay, if only the one that begins every text.
    before = Tokens(options[0].ids[:start], [], min(options[0].n_special, start - 1))
    after = [tokens.ids[start:] for tokens in options]
    for i, one in enumerate(after):
        if one in after[:i]:
            raise NeuroglotError(
                f"{name}: the choices {choices[after.index(one)]!r} and {choices[i]!r} are the "
                "same tokens, so the model cannot tell them apart."
            )
    room, truncate = max(map(len, after)), model.tokenization.truncate
    prefix = fitted(before, model.context_length, name, room=room, truncate=truncate)
    return Question(prefix, after, rest=prompt[options[0].ends[start - 1] :])


def _common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many first tokens all sequences share."""
    n = 0
    for tokens in zip(*sequences, strict=False):
        if len(set(tokens)) > 1:
            break
        n += 1
    return n


@dataclass(frozen=True)
class Options:
    """Choices of several questions, one after another.

    Attributes:
        owner: which of the questions each belongs to.
        option: its place among that question's choices.
        tokens: of each.
    """

    owner: list[int]
    option: list[int]
    tokens: list[list[int]]


def options_of(asked: Sequence[Question]) -> Options:
    """The choices of all questions, in their order."""
    listing = [
        (i, j, x) for i, question in enumerate(asked) for j, x in enumerate(question.choices)
    ]
    owner, option, tokens = zip(*listing, strict=True)
    return Options(list(owner), list(option), list(tokens))


@torch.inference_mode()
def _score(model: Model, asked: Sequence[Question], widest: int, *, same: bool) -> Tensor:
    """Summed log-probabilities (prompt, option) of some questions; NaN beyond their choices."""
    options = options_of(asked)
    scores = torch.full((len(asked), widest), torch.nan, dtype=torch.float32)
    if model.shares_cache:
        found = _from_shared_prefixes(model, asked, options, same=same)
    else:
        found = _from_whole_texts(model, asked, options)
    scores[torch.tensor(options.owner), torch.tensor(options.option)] = found.cpu()
    return scores


def _from_whole_texts(model: Model, asked: Sequence[Question], options: Options) -> Tensor:
    """Log-probability (choice,) of each choice, each run with its prompt."""
    owners = [asked[i] for i in options.owner]
    texts = [one.prefix + tokens for one, tokens in zip(owners, options.tokens, strict=True)]
    batch = pad(model, texts, list(range(len(texts))), side="left")
    longest = max(map(len, options.tokens))
    with asking(model, owners):
        logits = run_logits(model.hf, batch.ids, batch.mask, batch.ids.shape[1] - longest - 1)
    # Each choice ends where all texts end.
    ids = batch.ids[:, -longest:]
    lengths = torch.tensor([len(tokens) for tokens in options.tokens], device=ids.device)
    places = torch.arange(longest, 0, -1, device=ids.device)
    return _picked(logits[:, :-1], ids, places[None] <= lengths[:, None])


def asking(model: Model, asked: Sequence[Question]) -> AbstractContextManager[None]:
    """Tells edits whose prompt each row of what runs is."""
    lengths = torch.tensor([len(one.prefix) for one in asked], device=model.device)
    return model.asking([one.prompt for one in asked], lengths)


def _from_shared_prefixes(
    model: Model, asked: Sequence[Question], options: Options, *, same: bool
) -> Tensor:
    """Log-probability (choice,) of each choice, where a prompt runs once for all its choices."""
    before = pad(model, [one.prefix for one in asked], list(range(len(asked))), side="left")
    last, cache = (_after_same_beginnings if same else _after_prefixes)(model, asked, before)

    def run(ids: Tensor, mask: Tensor, owners: Tensor) -> Tensor:
        return run_continuations(model.hf, ids, mask, cache, owners)

    return after_prompts(model, asked, options, before, last, run)


def after_prompts(
    model: Model,
    asked: Sequence[Question],
    options: Options,
    before: Batch,
    last: Tensor,
    run: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """Log-probability (choice,) of each choice, from what the model says after the prompts.

    Args:
        model: which answers.
        asked: the questions.
        options: their choices.
        before: their prompts.
        last: logits (question, token) after each prompt.
        run: gives logits (choice, position, token) of the ids and under the mask of choices, from
            the prompts that they belong to.
    """
    begun = last.float().log_softmax(dim=-1)
    owner = torch.tensor(options.owner, device=begun.device)
    totals = begun[owner, torch.tensor([t[0] for t in options.tokens], device=begun.device)]
    # The last token of a choice predicts nothing that is scored; a single one needs no more.
    longer = [i for i, tokens in enumerate(options.tokens) if len(tokens) > 1]
    if longer:
        heads = pad(model, [tokens[:-1] for tokens in options.tokens], longer, side="right")
        tails = pad(model, [tokens[1:] for tokens in options.tokens], longer, side="right")
        owners = owner[longer].to(heads.ids.device)
        mask = torch.cat([before.mask[owners], heads.mask], dim=1)
        with asking(model, [asked[options.owner[i]] for i in longer]):
            logits = run(heads.ids, mask, owners)
        picked = _picked(logits, tails.ids, tails.mask)
        totals = totals.index_add(0, torch.tensor(longer, device=totals.device), picked)
    return totals


def _after_prefixes(model: Model, asked: Sequence[Question], before: Batch) -> tuple[Tensor, Cache]:
    """Logits (question, token) after each prefix, and the keys and values of all."""
    with asking(model, asked):
        return run_prefixes(model.hf, before.ids, before.mask)


def _after_same_beginnings(
    model: Model, asked: Sequence[Question], before: Batch
) -> tuple[Tensor, Cache]:
    """The same, where what edits do begins at the last token of the prefix.

    What stands before it then runs once for all questions that have it in common.
    """
    rows: dict[tuple[int, ...], int] = {}
    owner = [rows.setdefault(tuple(one.prefix), len(rows)) for one in asked]
    first = [owner.index(i) for i in range(len(rows))]
    owners = torch.tensor(owner, device=before.ids.device)
    with asking(model, [asked[row] for row in first]):
        cache = run_body_prefixes(model.hf, before.ids[first, :-1], before.mask[first, :-1])
    with asking(model, asked):
        logits = run_continuations(model.hf, before.ids[:, -1:], before.mask, cache, owners)
    return logits[:, -1], cache


def _picked(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Sum of the log-probabilities (row,) of the tokens ``ids`` (row, position) under ``mask``."""
    ids, mask = ids.to(logits.device), mask.to(logits.device)
    found = logits.float().log_softmax(dim=-1).gather(2, ids[..., None])[..., 0]
    return found.masked_fill(~mask, 0.0).sum(dim=1)


def log_probs(
    model: Model,
    found: Sequence[Question],
    widest: int,
    *,
    times: int = 1,
) -> Iterator[RowsAndValues]:
    """Rows of ``found`` and the log-probabilities of their choices, batch by batch.

    Each prompt runs once, and its keys and values are shared by its choices, where the model can.

    Args:
        model: which answers.
        found: from :func:`questions`.
        widest: the most choices that a prompt has.
        times: how often each prompt comes, as neighbours in ``found``, under edits that begin at
            its last token: what stands before that then runs once.
    """
    # A prefix of one token has no beginning.
    same = times > 1 and model.shares_cache and min(len(x.prefix) for x in found) > 1

    def run(rows: list[int]) -> Tensor:
        return _score(model, [found[row] for row in rows], widest, same=same)

    costs = [
        question.cost(shared=model.shares_cache, times=times if same else 1) for question in found
    ]
    for wanted in batches(model, by_length(costs), costs):
        yield from in_halves(run, wanted)
