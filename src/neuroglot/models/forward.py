"""Run a batch through a decoder so that padding does not affect the result."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast
from weakref import WeakKeyDictionary

from torch import LongTensor, Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from neuroglot.errors import NeuroglotError

# The current name of keys and values in transformers, and that of earlier versions.
CACHES = ("cache", "past_key_values")
# Names that configurations use for the largest number of positions.
CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len")
_FIRST_POSITIONS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def parameters_of(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    """Parameters of a module's class, even if the module's own ``forward`` has been wrapped."""
    return inspect.signature(type(module).forward).parameters


def context_sizes(hf: PreTrainedModel) -> list[int]:
    """The numbers of positions in a configuration, under each of the names for it."""
    config = hf.config.get_text_config()
    sizes = (getattr(config, name, None) for name in CONTEXT_FIELDS)
    return [size for size in sizes if size is not None]


def first_position(module: nn.Module) -> int:
    """The number of the first position of a text, for position embeddings.

    It is usually 0. If one of these embeddings is reserved for padding, as in RoBERTa and related
    models, texts begin after it.
    """
    if module in _FIRST_POSITIONS:
        return _FIRST_POSITIONS[module]
    first = 0
    if isinstance(module, PreTrainedModel):
        sizes, tokens = context_sizes(module), module.get_input_embeddings()
        reserved = (
            part.padding_idx + 1
            for part in module.modules()
            if isinstance(part, nn.Embedding) and part is not tokens
            if part.num_embeddings in sizes and part.padding_idx is not None
        )
        first = next(reserved, 0)
    _FIRST_POSITIONS[module] = first
    return first


def _inputs(
    module: nn.Module, ids: Tensor, mask: Tensor, keep: int | None = None
) -> dict[str, Any]:
    """The arguments for a call of the module, as far as it takes them.

    Args:
        module: the model or its body.
        ids: token ids (row, position).
        mask: true at real tokens, including cached ones (row, position).
        keep: for how many of the last positions logits are wanted; by default all.
    """
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long()}
    parameters = parameters_of(module)
    if keep is not None and "logits_to_keep" in parameters:
        inputs["logits_to_keep"] = keep
    if "position_ids" in parameters:
        # Positions are counted over real tokens, so that left padding does not shift them.
        places = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        # The mask also covers tokens that are cached before these.
        inputs["position_ids"] = places[:, -ids.shape[1] :] + first_position(module)
    return inputs


def run_body(hf: PreTrainedModel, ids: Tensor, mask: Tensor) -> None:
    """Run a forward pass without the LM head; its values are read by hooks."""
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
    """As :func:`run_continuations`, but without the LM head; values are read by hooks."""
    _continue(hf.base_model, ids, mask, cache, rows)


def _given(module: nn.Module, cache: Cache) -> dict[str, Cache]:
    """Keys and values under the name of the module's parameter for them.

    If no parameter has such a name, it is the name that outputs use in this version.
    """
    names = [*parameters_of(module), *CausalLMOutputWithPast.__dataclass_fields__]
    return {next(name for name in names if name in CACHES): cache}


def _continue(module: nn.Module, ids: Tensor, mask: Tensor, cache: Cache, rows: Tensor) -> Any:
    """The module's output for continuations of cached prompts; see :func:`run_continuations`."""
    # As in beam search, each row of the cache is repeated once per continuation.
    cache.reorder_cache(cast("LongTensor", rows))
    return module(**_inputs(module, ids, mask), **_given(module, cache), use_cache=True)


def _cache_of(output: Any) -> Cache:
    """The keys and values of an output.

    Raises:
        AttributeError: the output has none.
    """
    # The new name is tried first: accessing the old one when both exist is deprecated.
    for name in CACHES:
        cache: Cache | None = getattr(output, name, None)
        if cache is not None:
            return cache
    raise AttributeError(f"{type(output).__name__} has no keys and values")


def run_logits(hf: PreTrainedModel, ids: Tensor, mask: Tensor, first: int = 0) -> Tensor:
    """Logits (prompt, position, token) from position ``first`` on.

    If the model can, it runs the LM head for these positions only, because logits take much memory.
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
        ids: tokens of the continuations (continuation, position), padded on the right.
        mask: true at real tokens of prompt and continuation (continuation, prompt and position).
        cache: keys and values of the prompts; changed by the run.
        rows: index of the prompt that each continuation follows (continuation,).
    """
    logits: Tensor = _continue(hf, ids, mask, cache, rows).logits
    return logits
