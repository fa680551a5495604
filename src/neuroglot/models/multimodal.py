"""Models that also take images or sound: reduce them to the part that handles text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from neuroglot.errors import NeuroglotError
from neuroglot.models.probing import probe_logits

# The first of these that knows a configuration opens it.
OPENED_BY: tuple[Any, ...] = (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
)


def opened_by(config: PreTrainedConfig) -> Any:
    """The class of transformers that opens checkpoints with this configuration.

    Raises:
        NeuroglotError: no class opens it as a model that writes text.
    """
    for auto in OPENED_BY:
        if type(config) in auto._model_mapping:  # noqa: SLF001  # the only place that says it
            return auto
    raise NeuroglotError(
        f"transformers opens no {type(config).__name__} (model type {config.model_type!r}) as a "
        "model that writes text. If it has a text part, load it yourself and pass that to "
        "neuroglot.wrap_model(model, tokenizer)."
    )


def is_multimodal(config: PreTrainedConfig) -> bool:
    """Whether the configuration contains a separate one for the text part."""
    return config.get_text_config() is not config


@torch.inference_mode()
def keep_text_part(hf: Any) -> None:
    """Remove from a model, in place, the parts that it does not need to continue a text.

    Parts outside of the text decoder and the LM head are removed one at a time, as long as the
    logits of a text stay the same bit for bit.
    """
    kept = [hf.get_decoder(), hf.get_input_embeddings(), hf.get_output_embeddings()]
    before = probe_logits(hf)
    for parent, name in list(_beside(hf, kept)):
        part = getattr(parent, name)
        setattr(parent, name, None)
        if not _gives(hf, before):
            setattr(parent, name, part)


def left_out(hf: nn.Module) -> tuple[str, ...]:
    """Paths of the parts that were removed, each followed by a dot."""
    return tuple(
        f"{path}.{name}.".removeprefix(".")
        for path, module in hf.named_modules()
        for name, child in module._modules.items()  # noqa: SLF001  # others leave out what is None
        if child is None
    )


def _beside(module: nn.Module, kept: list[nn.Module]) -> Iterator[tuple[nn.Module, str]]:
    """Parent and name of the parts that neither belong to the kept modules nor contain them."""
    for name, child in module.named_children():
        if any(child is part for part in kept):
            continue
        if any(part is inner for inner in child.modules() for part in kept):
            yield from _beside(child, kept)
        else:
            yield module, name


def _gives(hf: PreTrainedModel, expected: Tensor) -> bool:
    """Whether the model runs and gives the expected logits."""
    try:
        return torch.equal(probe_logits(hf), expected)
    except (AttributeError, TypeError, RuntimeError):
        return False
