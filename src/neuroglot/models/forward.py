"""Run a batch through a decoder so that padding does not show in the result."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast
from weakref import WeakKeyDictionary

from torch import LongTensor, Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from neuroglot.errors import NeuroglotError

# Keys and values by the name that transformers gives them now, and by that of earlier versions.
CACHES = ("cache", "past_key_values")
# What configurations call the most positions that there are.
CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len")
_FIRST_POSITIONS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def parameters_of(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    """What the code of a module takes, also where a function stands before it and passes it on."""
    return inspect.signature(type(module).forward).parameters


def context_sizes(hf: PreTrainedModel) -> list[int]:
    """How many positions a configuration says that there are, under each of the names for it."""
    config = hf.config.get_text_config()
    named = (getattr(config, name, None) for name in CONTEXT_FIELDS)
    return [size for size in named if size is not None]


def first_position(module: nn.Module) -> int:
    """The number of the first position of a text, for the embeddings of positions.

    It is 0, but where one of these embeddings is kept for padding: then texts begin after it, as in
    RoBERTa and its kin.
    """
    if module not in _FIRST_POSITIONS:
        _FIRST_POSITIONS[module] = _found_first_position(module)
    return _FIRST_POSITIONS[module]


def _found_first_position(module: nn.Module) -> int:
    if not isinstance(module, PreTrainedModel):
        return 0
    sizes = context_sizes(module)
    for part in module.modules():
        if not isinstance(part, nn.Embedding) or part is module.get_input_embeddings():
            continue
        if part.num_embeddings in sizes and part.padding_idx is not None:
            return part.padding_idx + 1
    return 0


def _inputs(
    module: nn.Module, ids: Tensor, mask: Tensor, keep: int | None = None
) -> dict[str, Any]:
    """What the module takes of these; ``keep`` is for how many last positions logits are wanted."""
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long()}
    known = parameters_of(module)
    if keep is not None and "logits_to_keep" in known:
        inputs["logits_to_keep"] = keep
    if "position_ids" in known:
        # Counted over real tokens, so that left padding does not shift learned positions.
        places = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        # The mask also covers what is cached before these tokens.
        inputs["position_ids"] = places[:, -ids.shape[1] :] + first_position(module)
    return inputs


def run_body(hf: PreTrainedModel, ids: Tensor, mask: Tensor) -> None:
    """Forward pass without the LM head, for what the hooks see of it."""
    body = hf.base_model
    body(**_inputs(body, ids, mask), use_cache=False)


def run_body_prefixes(hf: PreTrainedModel, ids: Tensor, mask: Tensor) -> Cache:
    """Cached keys and values of prompts, without the LM head.

    The prompts must be padded on the left, so that what follows stands next to them.
    """
    body = hf.base_model
    return _cache_of(body(**_inputs(body, ids, mask), use_cache=True))


def run_body_continuations(
    hf: PreTrainedModel, ids: Tensor, mask: Tensor, cache: Cache, rows: Tensor
) -> None:
    """As :func:`run_continuations`, but without the LM head, for what the hooks see of it."""
    body = hf.base_model
    _repeat(cache, rows)
    body(**_inputs(body, ids, mask), **_given(body, cache), use_cache=True)


def _given(module: nn.Module, cache: Cache) -> dict[str, Cache]:
    """Keys and values under the name that the module takes them by.

    One that does not say it takes them by the name that outputs have in this version.
    """
    known = [*parameters_of(module), *CausalLMOutputWithPast.__dataclass_fields__]
    return {next(name for name in known if name in CACHES): cache}


def _cache_of(output: Any) -> Cache:
    """The keys and values of an output.

    Raises:
        AttributeError: it has none.
    """
    # One name at a time, since asking for the old one where both are there is deprecated.
    for name in CACHES:
        cache: Cache | None = getattr(output, name, None)
        if cache is not None:
            return cache
    raise AttributeError(f"{type(output).__name__} has no keys and values")


def _repeat(cache: Cache, rows: Tensor) -> None:
    """Make the cache one of other rows, as beam search does: some several times, some never."""
    cache.reorder_cache(cast("LongTensor", rows))


def run_logits(hf: PreTrainedModel, ids: Tensor, mask: Tensor, first: int = 0) -> Tensor:
    """Logits (prompt, position, token) from position ``first`` on.

    Where the model can, the LM head runs for these only: the vocabulary is the widest dimension
    there is.
    """
    keep = ids.shape[1] - first
    output = hf(**_inputs(hf, ids, mask, keep), use_cache=False)
    if not hasattr(output, "logits"):
        raise NeuroglotError(
            f"{type(hf).__name__} gives no logits; expected a model with an LM head, such as one "
            "of AutoModelForCausalLM."
        )
    logits: Tensor = output.logits
    return logits[:, -keep:]


def run_prefixes(hf: PreTrainedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, Cache]:
    """Logits (prompt, token) after the last position, and the cached keys and values.

    The prompts must be padded on the left, so that the last position is each one's last token.
    """
    output = hf(**_inputs(hf, ids, mask, keep=1), use_cache=True)
    return output.logits[:, -1], _cache_of(output)


def run_continuations(
    hf: PreTrainedModel, ids: Tensor, mask: Tensor, cache: Cache, rows: Tensor
) -> Tensor:
    """Logits (continuation, position, token) of texts that go on from cached prompts.

    Args:
        hf: the model.
        ids: of the continuations (continuation, position), padded on the right.
        mask: true at real tokens of prompt and continuation (continuation, prompt and position).
        cache: of the prompts; used up by this.
        rows: prompt that each continuation follows (continuation,).
    """
    _repeat(cache, rows)
    logits: Tensor = hf(**_inputs(hf, ids, mask), **_given(hf, cache), use_cache=True).logits
    return logits
