"""How prompts become tokens: special tokens, chat template, padding side, truncation."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import xxhash
from transformers import PreTrainedTokenizerBase

from neuroglot.errors import NeuroglotError

PaddingSide = Literal["left", "right"]
MOST_CHARACTERS = 64  # of a token, for all that is likely
AT_ONCE = 1024  # prompts that are tokenised together, and then forgotten
PADDING_SIDES: tuple[PaddingSide, ...] = ("left", "right")


@dataclass(frozen=True)
class Tokenization:
    """What is done to a prompt before the model meets it.

    Attributes:
        special_tokens: whether the tokenizer adds what it puts before a text (such as a
            beginning-of-text token). What it would put after a text is never added: the next
            token must be the answer's.
        chat_template: whether the prompt is put as a user's turn into the tokenizer's chat
            template, which then brings its own special tokens.
        padding_side: where batches are padded; ``None`` leaves it to the tokenizer. Results do not
            depend on it.
        truncate: whether a prompt that is too long loses its beginning, with a warning; else it
            is an error.
    """

    special_tokens: bool = True
    chat_template: bool = False
    padding_side: PaddingSide | None = None
    truncate: bool = False


@dataclass(frozen=True)
class Tokens:
    """A text as tokens.

    Attributes:
        ids: their ids.
        ends: where each ends in the text, in characters; 0 for special tokens.
        n_special: how many of the first are special tokens that the tokenizer added.
    """

    ids: list[int]
    ends: list[int]
    n_special: int


def check_tokenization(tokenizer: PreTrainedTokenizerBase, chosen: Tokenization) -> None:
    """Refuse what the tokenizer cannot do.

    Raises:
        NeuroglotError: another type, an unknown padding side, or a chat template that is not there
            or that truncation would cut.
    """
    if not isinstance(chosen, Tokenization):
        raise NeuroglotError(
            f"tokenization={chosen!r}: expected neuroglot.Tokenization(chat_template=True, …)."
        )
    if chosen.padding_side not in (None, *PADDING_SIDES):
        raise NeuroglotError(
            f"padding_side={chosen.padding_side!r}: expected 'left', 'right' or None."
        )
    if chosen.chat_template and chosen.truncate:
        raise NeuroglotError(
            "truncate (--truncate) would cut the beginning of the chat template; leave one out."
        )
    if chosen.chat_template and not tokenizer.chat_template:
        raise NeuroglotError(
            "the tokenizer has no chat template; leave chat_template (--chat-template) out, or set "
            "tokenizer.chat_template."
        )


def describe_tokenization(
    tokenizer: PreTrainedTokenizerBase, chosen: Tokenization, limit: int | None
) -> dict[str, Any]:
    """What results say of the tokenisation.

    Args:
        tokenizer: of the model.
        chosen: how.
        limit: the most tokens that the model's context holds, to which prompts may be cut.
    """
    template = str(tokenizer.chat_template) if chosen.chat_template else ""
    return {
        "special_tokens": int(chosen.special_tokens and not chosen.chat_template),
        "chat_template": hashlib.sha256(template.encode()).hexdigest()[:16] if template else "",
        "padding_side": chosen.padding_side or str(tokenizer.padding_side),
        "truncate": (limit or 0) if chosen.truncate else 0,
    }


def shown_prompts(
    tokenizer: PreTrainedTokenizerBase, chosen: Tokenization, prompts: Sequence[str]
) -> list[str]:
    """The prompts as texts that the model meets, in the chat template where it is wanted.

    Raises:
        NeuroglotError: the chat template does not take a user's turn, or leaves it out.
    """
    if not chosen.chat_template:
        return list(prompts)
    shown = []
    for prompt in prompts:
        turns = [{"role": "user", "content": prompt}]
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program of somebody else
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise NeuroglotError(f"the tokenizer's chat template fails: {reason}.") from error
        # Templates may strip white space around the prompt.
        if prompt.strip() not in str(text):
            raise NeuroglotError("the tokenizer's chat template leaves out the prompt.")
        shown.append(str(text))
    return shown


def _refuse_random(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that cuts the same text in other ways each time, as for training.

    Raises:
        NeuroglotError: it says how to stop that.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    dropout = getattr(getattr(backend, "model", None), "dropout", None)
    sampling = getattr(tokenizer, "sp_model_kwargs", None) or {}
    if dropout or sampling.get("enable_sampling"):
        raise NeuroglotError(
            "the tokenizer draws tokens at random (BPE dropout, or sampling), so that a text has "
            "other tokens each time; set tokenizer.backend_tokenizer.model.dropout = None, or load "
            "it without enable_sampling."
        )


def encode(
    tokenizer: PreTrainedTokenizerBase,
    chosen: Tokenization,
    shown: Sequence[str],
    *,
    offsets: bool = False,
) -> list[Tokens]:
    """Tokens of texts that went through :func:`shown_prompts`.

    Args:
        tokenizer: of the model.
        chosen: how.
        shown: the texts.
        offsets: whether it must be known where tokens end.

    Raises:
        NeuroglotError: offsets are wanted of a tokenizer that keeps none, or it draws tokens at
            random.
    """
    _refuse_random(tokenizer)
    if offsets and not tokenizer.is_fast:
        raise NeuroglotError(
            f"{type(tokenizer).__name__} does not say where its tokens begin and end, which "
            "scoring needs; load a fast tokenizer."
        )
    # Lengths are checked later, where the message can name the prompt.
    found = tokenizer(
        list(shown),
        add_special_tokens=chosen.special_tokens and not chosen.chat_template,
        return_special_tokens_mask=True,
        return_offsets_mapping=offsets,
        verbose=False,
    )
    tokens = []
    for i, ids in enumerate(found["input_ids"]):
        mask = found["special_tokens_mask"][i]
        n_special = next((n for n, special in enumerate(mask) if not special), len(mask))
        stop = len(ids)
        # What the tokenizer adds after a text would come between prompt and answer.
        while stop > n_special and mask[stop - 1]:
            stop -= 1
        ends = [end for _, end in found["offset_mapping"][i]] if offsets else []
        tokens.append(Tokens(list(ids[:stop]), ends[:stop], n_special))
    return tokens


def prompts_checksum(
    tokenizer: PreTrainedTokenizerBase, chosen: Tokenization, prompts: Sequence[str]
) -> str:
    """Checksum of prompts as rendered and tokenised, whole, however long they are.

    Raises:
        NeuroglotError: see :func:`shown_prompts`.
    """
    whole = xxhash.xxh3_128()
    for start in range(0, len(prompts), AT_ONCE):
        shown = shown_prompts(tokenizer, chosen, prompts[start : start + AT_ONCE])
        for tokens in encode(tokenizer, chosen, shown):
            whole.update(json.dumps(tokens.ids).encode())
    return whole.hexdigest()


def check_lengths(
    tokenizer: PreTrainedTokenizerBase,
    chosen: Tokenization,
    shown: Sequence[str],
    names: Sequence[str],
    limit: int | None,
) -> None:
    """Refuse texts that are far too long by their beginnings, in the time that those take.

    Args:
        tokenizer: of the model.
        chosen: how.
        shown: the texts.
        names: what errors call each.
        limit: the most tokens that the model's context holds, or ``None``.

    Raises:
        NeuroglotError: the beginning of a text alone has too many tokens.
    """
    if limit is None or chosen.truncate:
        return
    looked_at = limit * MOST_CHARACTERS
    for text, name in zip(shown, names, strict=True):
        if len(text) <= looked_at:
            continue
        (begun,) = encode(tokenizer, chosen, [text[:looked_at]])
        if len(begun.ids) > limit:
            raise NeuroglotError(
                f"{name} has {len(text):,} characters; the first {looked_at:,} alone are "
                f"{len(begun.ids):,} tokens, but the model's context holds {limit}. Shorten or "
                "leave out this item, or ask for truncation."
            )


def fitted(
    tokens: Tokens, limit: int | None, name: str, *, room: int = 0, truncate: bool = False
) -> list[int]:
    """The ids, if they fit; else without their beginning where that is wanted.

    Args:
        tokens: of a prompt.
        limit: the most tokens that the model's context holds, or ``None``.
        name: what errors call the prompt.
        room: tokens that must fit in after it.
        truncate: whether to cut.

    Raises:
        NeuroglotError: there are no tokens, or too many.
    """
    if len(tokens.ids) <= tokens.n_special:
        raise NeuroglotError(f"{name} has no tokens.")
    if limit is None or len(tokens.ids) + room <= limit:
        return tokens.ids
    after = f" and {room} after it" if room else ""
    kept = limit - room - tokens.n_special
    if not truncate or kept < 1:
        raise NeuroglotError(
            f"{name} has {len(tokens.ids)} tokens{after}, but the model's context holds {limit}. "
            "Shorten or leave out this item, or ask for truncation."
        )
    warnings.warn(f"{name} has {len(tokens.ids)} tokens; its beginning was cut.", stacklevel=2)
    return tokens.ids[: tokens.n_special] + tokens.ids[-kept:]
