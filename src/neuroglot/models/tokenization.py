"""How prompts become tokens: special tokens, chat template, padding side, truncation."""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jinja2.meta
import xxhash
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from neuroglot.errors import NeuroglotError, in_one_line, listed

PaddingSide = Literal["left", "right"]
MOST_CHARACTERS = 64  # assumed maximum per token, which few tokens exceed
AT_ONCE = 1024  # prompts that are tokenised and held in memory together
PADDING_SIDES: tuple[PaddingSide, ...] = ("left", "right")
# White space other than line ends.
SPACES = " \t\x1f\xa0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
# Variables of chat templates that are filled in here, or by parameters of apply_chat_template.
FILLED_IN = {"messages", *inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters}
FILLED_IN -= {"tools", "documents"}


@dataclass(frozen=True, init=False)
class Tokenization:
    """How prompts become tokens.

    With any settings, white space at the end of a prompt is tokenised together with the text that
    follows it.

    Attributes:
        special_tokens: whether the tokenizer adds the special tokens that it puts before a text
            (such as a beginning-of-text token), unless the text already begins with them. Special
            tokens after a text are never added, because the next token must be the answer's.
        chat_template: whether the prompt becomes a user's turn in the tokenizer's chat template,
            which brings its own special tokens.
        padding_side: the side on which batches are padded; by default that of the tokenizer.
            Results do not depend on it.
        truncate: whether the beginning of a prompt that is too long is cut, with a warning;
            otherwise such a prompt is an error.
        template_arguments: further arguments of the chat template, such as ``enable_thinking`` or
            ``date_string``, with values that JSON can hold. They may also be given as keyword
            arguments: ``Tokenization(chat_template=True, enable_thinking=False)``.

    Raises:
        NeuroglotError: ``template_arguments`` is not a mapping, or an argument is given twice.

    Examples:
        >>> import neuroglot as ng
        >>> chosen = ng.Tokenization(chat_template=True, enable_thinking=False)
        >>> chosen.template_arguments
        {'enable_thinking': False}
        >>> plain = ng.Tokenization(special_tokens=False)
        >>> model = ng.load_model("embedded/base", tokenization=plain)
        >>> model.tokenization.special_tokens
        False
    """

    special_tokens: bool = True
    chat_template: bool = False
    padding_side: PaddingSide | None = None
    truncate: bool = False
    template_arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __init__(
        self,
        *,
        special_tokens: bool = True,
        chat_template: bool = False,
        padding_side: PaddingSide | None = None,
        truncate: bool = False,
        template_arguments: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        given = {} if template_arguments is None else template_arguments
        if not isinstance(given, Mapping):
            raise NeuroglotError(
                f"template_arguments={given!r}: expected a mapping from name to value."
            )
        twice = sorted(set(given) & set(more))
        if twice:
            raise NeuroglotError(f"the template argument {listed(twice)} is given twice.")
        vars(self).update(
            special_tokens=special_tokens,
            chat_template=chat_template,
            padding_side=padding_side,
            truncate=truncate,
            template_arguments={**given, **more},
        )


@dataclass(frozen=True)
class Tokens:
    """A text as tokens.

    Attributes:
        ids: their ids.
        ends: where each token ends in the text, in characters; 0 for special tokens.
        n_special: how many tokens at the beginning are special tokens that the tokenizer added, or
            the begin token that a chat template wrote.
    """

    ids: list[int]
    ends: list[int]
    n_special: int


def check_tokenization(tokenizer: PreTrainedTokenizerBase, chosen: Tokenization) -> None:
    """Refuse settings that the tokenizer cannot fulfil.

    Raises:
        NeuroglotError: another type, an unknown padding side, a chat template that does not exist
            or that truncation would cut, or arguments that the template does not use.
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
    _check_arguments(tokenizer, chosen)


def _check_arguments(tokenizer: PreTrainedTokenizerBase, chosen: Tokenization) -> None:
    """Refuse arguments that the chat template does not use, or that cannot be recorded.

    Raises:
        NeuroglotError: there are such arguments; the message lists those that the template uses.
    """
    given = chosen.template_arguments
    if not given:
        return
    if not chosen.chat_template:
        raise NeuroglotError(
            f"{listed(given)}: arguments of a chat template without chat_template=True "
            "(--chat-template)."
        )
    accepted = arguments_of_template(tokenizer, chosen)
    unknown = [name for name in given if name not in accepted]
    if unknown:
        raise NeuroglotError(
            f"the tokenizer's chat template takes no argument {listed(unknown)}; "
            + (f"there are {listed(accepted, 20)}." if accepted else "it takes none.")
        )
    for name, value in given.items():
        try:
            is_kept = json.loads(json.dumps(value, allow_nan=False)) == value
        except (TypeError, ValueError, RecursionError):
            is_kept = False
        if not is_kept:
            raise NeuroglotError(
                f"template argument {name}={value!r:.60}: expected a value that JSON can hold, "
                "such as a text, a number, true or false."
            )


def arguments_of_template(tokenizer: PreTrainedTokenizerBase, chosen: Tokenization) -> list[str]:
    """Names of the arguments that a chat template takes beside turns and special tokens.

    Raises:
        NeuroglotError: there is no such template, or it is invalid.
    """
    try:
        template = tokenizer.get_chat_template(tools=chosen.template_arguments.get("tools"))
        environment: Any = chat_template_utils._compile_jinja_template(template).environment  # noqa: SLF001
        used = jinja2.meta.find_undeclared_variables(environment.parse(template))
    except (jinja2.TemplateError, ValueError) as error:
        raise NeuroglotError(f"the tokenizer's chat template fails: {error}.") from error
    return sorted(used - FILLED_IN - set(environment.globals) - set(tokenizer.special_tokens_map))


def describe_tokenization(
    tokenizer: PreTrainedTokenizerBase, chosen: Tokenization, limit: int | None
) -> dict[str, Any]:
    """The attributes of results that describe the tokenisation.

    Args:
        tokenizer: the model's tokenizer.
        chosen: the settings.
        limit: the most tokens that the model's context holds, to which prompts may be cut.
    """
    template = str(tokenizer.chat_template) if chosen.chat_template else ""
    arguments = json.dumps(dict(chosen.template_arguments), ensure_ascii=False, sort_keys=True)
    return {
        "special_tokens": int(chosen.special_tokens and not chosen.chat_template),
        "chat_template": hashlib.sha256(template.encode()).hexdigest()[:16] if template else "",
        "padding_side": chosen.padding_side or str(tokenizer.padding_side),
        "truncate": (limit or 0) if chosen.truncate else 0,
        "template_arguments": arguments if chosen.template_arguments else "",
    }


def without_spaces(text: str) -> tuple[str, str]:
    """A text without the white space at its end, and that white space.

    Tokenizers join a space with the word after it, so a space at the end of a prompt belongs to the
    text that follows; by itself it would be a token that models rarely see. Line ends stay: they
    are tokens of their own, and tell the model to continue in the next line.
    """
    text_alone = text.rstrip(SPACES)
    return text_alone, text[len(text_alone) :]


def between(spaces: str, join: str) -> str:
    """The white space between a prompt, without white space at its end, and its answer.

    Args:
        spaces: the white space that was at the prompt's end; plain spaces are replaced by ``join``.
        join: the white space that joins a prompt with its answer.
    """
    return join if join and not spaces.strip(" ") else spaces + join


def shown_prompts(
    tokenizer: PreTrainedTokenizerBase, chosen: Tokenization, prompts: Sequence[str]
) -> list[str]:
    """The prompts as the model gets them, without white space at their ends.

    Raises:
        NeuroglotError: the chat template does not take a user's turn, or leaves it out.
    """
    return [without_spaces(text)[0] for text in rendered(tokenizer, chosen, prompts)]


def rendered(
    tokenizer: PreTrainedTokenizerBase, chosen: Tokenization, prompts: Sequence[str]
) -> list[str]:
    """The prompts as they are, or in the chat template if the settings ask for it.

    White space at the end of a user's turn is removed, because no text follows it there.

    Raises:
        NeuroglotError: the chat template does not take a user's turn, or leaves it out.
    """
    if not chosen.chat_template:
        return list(prompts)
    shown = []
    for prompt in prompts:
        turns = [{"role": "user", "content": without_spaces(prompt)[0]}]
        try:
            text = tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=True,
                **chosen.template_arguments,
            )
        except Exception as error:  # a template is foreign code
            reason = in_one_line(error)
            raise NeuroglotError(f"the tokenizer's chat template fails: {reason}.") from error
        # Templates may strip white space around the prompt.
        if prompt.strip() not in str(text):
            raise NeuroglotError("the tokenizer's chat template leaves out the prompt.")
        shown.append(str(text))
    return shown


def _refuse_random(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that splits the same text differently each time, as for training.

    Raises:
        NeuroglotError: tokens are drawn at random; the message says how to stop that.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    dropout = getattr(getattr(backend, "model", None), "dropout", None)
    sampling = getattr(tokenizer, "sp_model_kwargs", None) or {}
    if dropout or sampling.get("enable_sampling"):
        raise NeuroglotError(
            "the tokenizer draws tokens at random (BPE dropout, or sampling), so a text has other "
            "tokens each time; set tokenizer.backend_tokenizer.model.dropout = None, or load "
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

    Special tokens are not put before a text that already begins with them.

    Args:
        tokenizer: the model's tokenizer.
        chosen: the settings.
        shown: the texts.
        offsets: whether to find out where tokens end.

    Raises:
        NeuroglotError: the tokenizer does not provide the offsets that are wanted, or it draws
            tokens at random.
    """
    _refuse_random(tokenizer)
    if offsets and not tokenizer.is_fast:
        raise NeuroglotError(
            f"{type(tokenizer).__name__} does not say where its tokens begin and end, which "
            "scoring needs; load a fast tokenizer."
        )
    # Lengths are checked later, where the message can name the prompt.
    encoded = tokenizer(
        list(shown),
        add_special_tokens=chosen.special_tokens and not chosen.chat_template,
        return_special_tokens_mask=True,
        return_offsets_mapping=offsets,
        verbose=False,
    )
    tokens = []
    for i, ids in enumerate(encoded["input_ids"]):
        mask = encoded["special_tokens_mask"][i]
        n_special = next((n for n, special in enumerate(mask) if not special), len(mask))
        stop = len(ids)
        # Special tokens after a text would come between prompt and answer.
        while stop > n_special and mask[stop - 1]:
            stop -= 1
        ends = [end for _, end in encoded["offset_mapping"][i]] if offsets else []
        is_doubled = ids[:n_special] == ids[n_special : 2 * n_special]
        start = n_special if is_doubled else 0
        if chosen.chat_template:
            n_special = int(stop > 0 and ids[0] == tokenizer.bos_token_id)
        tokens.append(Tokens(list(ids[start:stop]), ends[start:stop], n_special))
    return tokens


def special_tokens_inside(
    tokenizer: PreTrainedTokenizerBase, chosen: Tokenization, texts: Iterable[tuple[str, str]]
) -> tuple[str, list[str]] | None:
    """Find special tokens inside texts.

    A begin token at the beginning of a text does not count, unless a chat template precedes it.

    Args:
        tokenizer: the model's tokenizer.
        chosen: how texts become tokens.
        texts: pairs of a name and a text.

    Returns:
        The name of the first text that contains special tokens, and the special tokens in all
        texts; ``None`` if there are none.
    """
    special, first, inside_any = _special_ids(tokenizer), "", dict[str, None]()
    for name, text in texts:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        begun = not chosen.chat_template and ids[:1] == [tokenizer.bos_token_id]
        inside = [token for token in ids[int(begun) :] if token in special]
        if inside:
            first = first or name
            inside_any |= dict.fromkeys(map(str, tokenizer.convert_ids_to_tokens(inside)))
    return (first, list(inside_any)) if inside_any else None


def token_names(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[int]) -> list[str]:
    """A unique name for each token.

    It is the token's text, if that text becomes this token again. Otherwise it is the token's entry
    in the vocabulary, followed by its number if the entry is also the text of another token:
    several tokens may stand for the same text, or for parts of a letter.
    """
    names = []
    for token in tokens:
        text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
        entry = str(tokenizer.convert_ids_to_tokens(int(token)))
        if _alone(tokenizer, text) == token:
            names.append(text)
        elif _alone(tokenizer, entry) in (token, None):
            names.append(entry)
        else:
            names.append(f"{entry} (token {token})")
    return names


def _alone(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """The token that a text becomes; ``None`` if it becomes no token or several."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return int(ids[0]) if len(ids) == 1 else None


def end_tokens(tokenizer: PreTrainedTokenizerBase, of_generation: Any) -> list[int]:
    """The tokens at which a model stops writing, in ascending order.

    These are the end tokens of the tokenizer and of the model's generation configuration: a
    tokenizer often names only the end of a turn, and a configuration only the end of a text.

    Args:
        tokenizer: the model's tokenizer.
        of_generation: the generation configuration, or ``None``.
    """
    ends: set[int] = set()
    for ids in (tokenizer.eos_token_id, getattr(of_generation, "eos_token_id", None)):
        if ids is not None:
            ends |= set(ids) if isinstance(ids, list | tuple) else {int(ids)}
    return sorted(ends)


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of special tokens, except for the one that stands for unknown words."""
    kinds = ("bos", "eos", "sep", "cls", "mask", "pad")
    ids = (getattr(tokenizer, f"{kind}_token_id", None) for kind in kinds)
    named = {int(token) for token in ids if token is not None}
    marked = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return named | (marked - {tokenizer.unk_token_id})


def prompts_checksum(
    tokenizer: PreTrainedTokenizerBase, chosen: Tokenization, prompts: Sequence[str]
) -> str:
    """Checksum of all prompts as rendered and tokenised, without truncation.

    Raises:
        NeuroglotError: see :func:`shown_prompts`.
    """
    whole = xxhash.xxh3_128()
    for tokens in _tokens_of_each(tokenizer, chosen, prompts):
        whole.update(tokens)
    return whole.hexdigest()


def checksum_of_each(
    tokenizer: PreTrainedTokenizerBase, chosen: Tokenization, prompts: Sequence[str]
) -> list[str]:
    """Checksum of each prompt, as rendered and tokenised.

    Raises:
        NeuroglotError: see :func:`shown_prompts`.
    """
    tokens_of_each = _tokens_of_each(tokenizer, chosen, prompts)
    return [xxhash.xxh3_128(tokens).hexdigest() for tokens in tokens_of_each]


def _tokens_of_each(
    tokenizer: PreTrainedTokenizerBase, chosen: Tokenization, prompts: Sequence[str]
) -> Iterator[bytes]:
    """The token ids of each prompt, as bytes."""
    for start in range(0, len(prompts), AT_ONCE):
        shown = shown_prompts(tokenizer, chosen, prompts[start : start + AT_ONCE])
        for tokens in encode(tokenizer, chosen, shown):
            yield json.dumps(tokens.ids).encode()


def check_lengths(
    tokenizer: PreTrainedTokenizerBase,
    chosen: Tokenization,
    shown: Sequence[str],
    names: Sequence[str],
    limit: int | None,
) -> None:
    """Refuse texts that are far too long, after tokenising their beginnings only.

    Args:
        tokenizer: the model's tokenizer.
        chosen: the settings.
        shown: the texts.
        names: names of the texts, for error messages.
        limit: the most tokens that the model's context holds, or ``None``.

    Raises:
        NeuroglotError: the beginning of a text alone has too many tokens.
    """
    if limit is None or chosen.truncate:
        return
    n_characters = limit * MOST_CHARACTERS
    for text, name in zip(shown, names, strict=True):
        if len(text) <= n_characters:
            continue
        (beginning,) = encode(tokenizer, chosen, [text[:n_characters]])
        if len(beginning.ids) > limit:
            raise NeuroglotError(
                f"{name} has {len(text):,} characters; the first {n_characters:,} alone are "
                f"{len(beginning.ids):,} tokens, but the model's context holds {limit}. Shorten or "
                "leave out this item, or ask for truncation."
            )


def fitted(
    tokens: Tokens, limit: int | None, name: str, *, room: int = 0, truncate: bool = False
) -> list[int]:
    """The ids of a prompt, cut at the beginning if they are too many and truncation is wanted.

    Args:
        tokens: tokens of the prompt.
        limit: the most tokens that the model's context holds, or ``None``.
        name: name of the prompt, for error messages.
        room: number of tokens that must fit in after the prompt.
        truncate: whether to cut a prompt that is too long.

    Raises:
        NeuroglotError: the prompt has no tokens, or too many.
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
