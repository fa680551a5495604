"""Log-probabilities of choices after their prompts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import takewhile

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
        prefix: the tokens before the choices, which all choices have in common.
        choices: the tokens of each choice; all begin at the same character.
        prompt: item and language, which edits may ask for.
        rest: the end of the prompt's text that is not in the prefix but scored with the choices.
    """

    prefix: list[int]
    choices: list[list[int]]
    prompt: Hashable = None
    rest: str = ""

    def cost(self, *, shared: bool, times: int = 1) -> int:
        """The number of tokens by which memory is estimated.

        Args:
            shared: whether the prompt runs once for all its choices. Each choice then still has a
                copy of the prompt's keys and values, eight of which are counted as one token.
            times: how often the same prompt comes; it runs only once.
        """
        n, longest = len(self.choices), max(map(len, self.choices))
        whole = n * (len(self.prefix) + longest)
        runs = -(-len(self.prefix) // times)
        return max(runs, n * longest, whole // 8) if shared else whole


@dataclass(frozen=True)
class Asked:
    """Prompts and their choices as texts.

    Attributes:
        prompts: the text of each prompt.
        choices: the texts of each prompt's choices.
        joins: the text between each prompt and its choices, which a chat template leaves out.
        names: the name of each prompt in error messages.
        keys: the item and language of each prompt.
    """

    prompts: Sequence[str]
    choices: Sequence[Sequence[str]]
    joins: Sequence[str]
    names: Sequence[str]
    keys: Sequence[Hashable]


def questions(model: Model, asked: Asked) -> list[Question]:
    """Tokenise each prompt with its choices.

    Prompt and choice are tokenised together, as in a text. White space at the end of a prompt
    belongs to its choices (:func:`without_spaces`). A choice begins with the first token that ends
    after the prompt. If the tokenizer joins the end of the prompt with the beginning of some
    choice, all choices of the prompt are scored from that token on.

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
    n_choices = map(len, asked.choices)
    names = [name for name, n in zip(asked.names, n_choices, strict=True) for _ in range(n)]
    check_lengths(model.tokenizer, chosen, texts, names, model.context_length)
    # Items of one relation have masked prompts and choices in common.
    distinct = list(dict.fromkeys(texts))
    tokens = encode(model.tokenizer, chosen, distinct, offsets=True)
    tokens_of = dict(zip(distinct, tokens, strict=True))
    encoded = (tokens_of[text] for text in texts)
    return [
        _question(model, [next(encoded) for _ in choices], prompt, choices, name, key)
        for prompt, choices, name, key in zip(
            shown, asked.choices, asked.names, asked.keys, strict=True
        )
    ]


def _question(
    model: Model,
    options: Sequence[Tokens],
    prompt: str,
    choices: Sequence[str],
    name: str,
    key: Hashable,
) -> Question:
    """Split the tokens of a prompt with each of its choices where the prompt ends."""
    firsts = []
    for tokens, choice in zip(options, choices, strict=True):
        first = next((i for i, end in enumerate(tokens.ends) if end > len(prompt)), None)
        if first is None:
            raise NeuroglotError(f"{name}: the choice {choice!r} adds no token to the prompt.")
        firsts.append(first)
    in_common = takewhile(
        lambda ids: len(set(ids)) == 1, zip(*(tokens.ids for tokens in options), strict=False)
    )
    start = min(*firsts, len(list(in_common)))
    if start < 1:
        raise NeuroglotError(f"{name}: there is no token before the choices to predict them from.")
    # At least one token must stay, such as the one with which every text begins.
    before = Tokens(options[0].ids[:start], [], min(options[0].n_special, start - 1))
    after = [tokens.ids[start:] for tokens in options]
    for i, ids in enumerate(after):
        if ids in after[:i]:
            raise NeuroglotError(
                f"{name}: the choices {choices[after.index(ids)]!r} and {choices[i]!r} are the "
                "same tokens, so the model cannot tell them apart."
            )
    room, truncate = max(map(len, after)), model.tokenization.truncate
    prefix = fitted(before, model.context_length, name, room=room, truncate=truncate)
    return Question(prefix, after, key, prompt[options[0].ends[start - 1] :])


@dataclass(frozen=True)
class Options:
    """The choices of several questions, one after another.

    Attributes:
        owner: the index of the question to which each choice belongs.
        option: the place of each choice among those of its question.
        tokens: the tokens of each choice.
    """

    owner: list[int]
    option: list[int]
    tokens: list[list[int]]


def options_of(asked: Sequence[Question]) -> Options:
    """The choices of all questions, in their order."""
    listing = [
        (i, j, ids) for i, question in enumerate(asked) for j, ids in enumerate(question.choices)
    ]
    owner, option, tokens = zip(*listing, strict=True)
    return Options(list(owner), list(option), list(tokens))


@torch.inference_mode()
def _score(model: Model, asked: Sequence[Question], widest: int, *, same: bool) -> Tensor:
    """The log-probability of each choice (question, option); NaN beyond a question's choices."""
    options = options_of(asked)
    scores = torch.full((len(asked), widest), torch.nan, dtype=torch.float32)
    if model.shares_cache:
        log_prob = _from_shared_prefixes(model, asked, options, same=same)
    else:
        log_prob = _from_whole_texts(model, asked, options)
    scores[torch.tensor(options.owner), torch.tensor(options.option)] = log_prob.cpu()
    return scores


def _from_whole_texts(model: Model, asked: Sequence[Question], options: Options) -> Tensor:
    """The log-probability of each choice (choice,), each of which runs with its prompt."""
    owners = [asked[i] for i in options.owner]
    texts = [owner.prefix + ids for owner, ids in zip(owners, options.tokens, strict=True)]
    batch = pad(model, texts, list(range(len(texts))), side="left")
    longest = max(map(len, options.tokens))
    with asking(model, owners):
        logits = run_logits(model.hf, batch.ids, batch.mask, batch.ids.shape[1] - longest - 1)
    # With padding on the left, all choices end at the last position.
    ids = batch.ids[:, -longest:]
    lengths = torch.tensor([len(tokens) for tokens in options.tokens], device=ids.device)
    places = torch.arange(longest, 0, -1, device=ids.device)
    return _picked(logits[:, :-1], ids, places[None] <= lengths[:, None])


def asking(model: Model, asked: Sequence[Question]) -> AbstractContextManager[None]:
    """Within the context, edits know the item and language of each row that runs."""
    lengths = torch.tensor([len(question.prefix) for question in asked], device=model.device)
    return model.asking([question.prompt for question in asked], lengths)


def _from_shared_prefixes(
    model: Model, asked: Sequence[Question], options: Options, *, same: bool
) -> Tensor:
    """The log-probability of each choice (choice,), where a prompt runs once for its choices."""
    before = pad(model, [one.prefix for one in asked], list(range(len(asked))), side="left")
    if same:
        last, cache = _after_same_beginnings(model, asked, before)
    else:
        with asking(model, asked):
            last, cache = run_prefixes(model.hf, before.ids, before.mask)

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
    """The log-probability of each choice (choice,), after the prompts have run.

    Args:
        model: the model that answers.
        asked: the questions.
        options: the choices of the questions.
        before: the prompts of the questions.
        last: the logits after each prompt (question, token).
        run: a function that gives the logits of choices (choice, position, token), from their ids,
            their mask and the indices of their questions.
    """
    first = last.float().log_softmax(dim=-1)
    owner = torch.tensor(options.owner, device=first.device)
    totals = first[owner, torch.tensor([ids[0] for ids in options.tokens], device=first.device)]
    # The last token of a choice need not run, since nothing after it is scored.
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


def _after_same_beginnings(
    model: Model, asked: Sequence[Question], before: Batch
) -> tuple[Tensor, Cache]:
    """The logits (question, token) after each prefix, and the keys and values of all.

    Edits begin at the last token of the prefix, so the tokens before it run once for all questions
    with the same prefix.
    """
    rows: dict[tuple[int, ...], int] = {}
    owner = [rows.setdefault(tuple(question.prefix), len(rows)) for question in asked]
    first = [owner.index(i) for i in range(len(rows))]
    owners = torch.tensor(owner, device=before.ids.device)
    with asking(model, [asked[row] for row in first]):
        cache = run_body_prefixes(model.hf, before.ids[first, :-1], before.mask[first, :-1])
    with asking(model, asked):
        logits = run_continuations(model.hf, before.ids[:, -1:], before.mask, cache, owners)
    return logits[:, -1], cache


def _picked(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The sum of the log-probabilities (row,) of ``ids`` (row, position) where ``mask`` is true."""
    ids, mask = ids.to(logits.device), mask.to(logits.device)
    log_prob = logits.float().log_softmax(dim=-1).gather(2, ids[..., None])[..., 0]
    return log_prob.masked_fill(~mask, 0.0).sum(dim=1)


def log_probs(
    model: Model,
    asked: Sequence[Question],
    widest: int,
    *,
    times: int = 1,
) -> Iterator[RowsAndValues]:
    """Rows of ``asked`` and the log-probabilities of their choices, batch by batch.

    If the model allows it, each prompt runs once, and its choices share its keys and values.

    Args:
        model: the model that answers.
        asked: from :func:`questions`.
        widest: the largest number of choices of a prompt.
        times: how often each prompt comes, in neighbouring rows of ``asked``, under edits that
            begin at its last token; the tokens before that then run once.
    """
    # A prefix of one token has no tokens before its last.
    same = times > 1 and model.shares_cache and min(len(one.prefix) for one in asked) > 1

    def run(rows: list[int]) -> Tensor:
        return _score(model, [asked[row] for row in rows], widest, same=same)

    costs = [
        question.cost(shared=model.shares_cache, times=times if same else 1) for question in asked
    ]
    for rows in batches(model, by_length(costs), costs):
        yield from in_halves(run, rows)
