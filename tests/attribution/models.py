"""Tiny models with their weights all random, and what they compute, written out longhand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

import neuroglot as ng
from tests.families import FAMILIES, N_LAYERS, build
from tests.testing import tokenizer

# Learned, shifted and rotary positions; gated and not; Conv1D; flattened positions; LayerNorm and
# RMSNorm; norms after the FFN; logit scales, bounds and residual multipliers.
NAMES = (
    "gpt2",
    "bloom",
    "llama",
    "opt",
    "gemma2",
    "gemma3",
    "olmo2",
    "glm4",
    "cohere",
    "granite",
    "nemotron",
)
# The part of a layer that adds what attention has to say, its output as it is added.
ATTENTION = {
    "gpt2": "transformer.h.{i}.attn",
    "bloom": "transformer.h.{i}.self_attention.dense",
    "llama": "model.layers.{i}.self_attn",
    "opt": "model.decoder.layers.{i}.self_attn",
    "gemma2": "model.layers.{i}.post_attention_layernorm",
}
FINAL_NORM = {
    "gpt2": "transformer.ln_f", "bloom": "transformer.ln_f", "llama": "model.norm",
    "opt": "model.decoder.final_layer_norm", "gemma2": "model.norm",
}  # fmt: skip


@cache
def random_hf(name: str, *, double: bool = False) -> PreTrainedModel:
    """A tiny model; norms and biases are random as well."""
    hf = build(FAMILIES[name].architecture, FAMILIES[name].config)
    generator = torch.Generator().manual_seed(7)
    for parameter in hf.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return hf.double() if double else hf


@cache
def random_model(name: str) -> ng.Model:
    return ng.wrap_model(random_hf(name), tokenizer(), name=f"random-{name}")


def down(hf: PreTrainedModel, name: str, layer: int) -> torch.nn.Module:
    return hf.get_submodule(FAMILIES[name].down.replace("{i}", str(layer)))


def value_vectors(hf: PreTrainedModel, name: str, layer: int) -> np.ndarray:
    """Rows of the down projection (neuron, d_model)."""
    weight = down(hf, name, layer).get_parameter("weight").detach()
    return (weight if name == "gpt2" else weight.T).double().cpu().numpy()


def ids_of(text: str) -> Tensor:
    return torch.tensor([tokenizer()(text).input_ids])


@contextmanager
def seeing(modules: dict[str, torch.nn.Module]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Last positions of what goes into and comes out of modules (d,), by name."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: Any, inputs: Any, kwargs: Any, output: Any) -> None:
            given = inputs[0] if inputs else next(iter(kwargs.values()))
            out = output if isinstance(output, Tensor) else output[0]
            seen[name] = tuple(x.reshape(-1, x.shape[-1])[-1].double() for x in (given, out))

        return hook

    with ExitStack() as stack:
        for name, module in modules.items():
            handle = module.register_forward_hook(keep(name), with_kwargs=True)
            stack.callback(handle.remove)
        yield seen


def coefficients(hf: PreTrainedModel, name: str, text: str) -> np.ndarray:
    """Coefficients (layer, neuron) at the last token of one prompt."""
    modules = {str(i): down(hf, name, i) for i in range(N_LAYERS)}
    with seeing(modules) as seen, torch.no_grad():
        hf(input_ids=ids_of(text).to(hf.device))
    return np.stack([seen[str(i)][0].cpu().numpy() for i in range(N_LAYERS)])


def log_prob_with(
    hf: PreTrainedModel, name: str, ids: Tensor, token: int, change: Callable[[int, Tensor], Tensor]
) -> Tensor:
    """Log-probability of a token after whole prompts (prompt,), with coefficients changed.

    ``change(layer, values)`` gets the values (prompt, neuron) at the last position.
    """

    def hook(layer: int) -> Callable[..., Any]:
        def changed(_module: Any, inputs: Any) -> Any:
            values = inputs[0].clone()
            shaped = values.reshape(len(ids), -1, values.shape[-1])  # OPT flattens positions
            shaped[:, -1] = change(layer, shaped[:, -1])
            return (shaped.reshape(values.shape), *inputs[1:])

        return changed

    with ExitStack() as stack:
        for i in range(N_LAYERS):
            stack.callback(down(hf, name, i).register_forward_pre_hook(hook(i)).remove)
        logits = hf(input_ids=ids.to(hf.device)).logits[:, -1]
    return logits.log_softmax(dim=-1)[:, token]
