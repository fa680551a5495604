"""Tiny models built from configs, small tasks, and a longhand oracle."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import neuroglot as ng
from tests.families import FAMILIES, VOCABULARY, build

# The shapes that tests of all else run on; all families are in tests/models/test_families.py.
ARCHITECTURES = ("gpt2", "bloom", "llama")


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Words ``w2`` to ``w63`` between spaces; no special tokens are added."""
    vocabulary = {"<end>": 0, "<unk>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", pad_token="<end>")


def tiny_hf(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A random model whose weights are large enough for its neurons to disagree."""
    family = FAMILIES[architecture]
    return build(family.architecture, family.config, seed)


@cache
def tiny_model(architecture: str, seed: int = 0) -> ng.Model:
    return ng.wrap_model(tiny_hf(architecture, seed), tokenizer(), name=f"tiny-{architecture}")


def random_text(rng: np.random.Generator, longest: int = 9) -> str:
    words = rng.integers(2, VOCABULARY, size=rng.integers(1, longest + 1))
    return " ".join(f"w{word}" for word in words)


def small_task(n_items: int = 5, languages: str = "en de th", seed: int = 0) -> ng.ParallelTask:
    """Random prompts of ragged lengths with three choices of one to three words."""
    rng = np.random.default_rng(seed)
    records: list[dict[str, Any]] = []
    for i in range(n_items):
        codes = languages.split()
        choices = {}
        for code in codes:
            choices[code] = [f"w{10 * k + 2 + i % 5} " + random_text(rng, 2) for k in range(3)]
        records.append(
            {
                "id": f"item{i}",
                "prompts": {code: random_text(rng) for code in codes},
                "choices": choices,
                "answers": {code: choices[code][i % 3] for code in codes},
                "relation": "odd" if i % 2 else "even",
                "held_out": codes[:1] if i % 3 == 0 else [],
            }
        )
    return ng.ParallelTask.from_records(records, name="small")


def longhand_values(model: ng.Model, text: str, site: str) -> np.ndarray:
    """Site values (layer, token, neuron) of one prompt, by hooks written out for each family."""
    seen: list[torch.Tensor] = []
    hf: Any = model.hf
    family = hf.config.model_type
    if family == "gpt2":
        watched = [(block.mlp.act, "output") for block in hf.transformer.h]
    elif family == "bloom":
        watched = [(block.mlp.dense_4h_to_h, "input") for block in hf.transformer.h]
    elif site == "gate":
        watched = [(layer.mlp.act_fn, "output") for layer in hf.model.layers]
    else:
        watched = [(layer.mlp.down_proj, "input") for layer in hf.model.layers]

    def keep(which: str) -> Callable[..., None]:
        def hook(_module: Any, inputs: Any, output: torch.Tensor) -> None:
            seen.append(output[0] if which == "output" else inputs[0][0])

        return hook

    handles = [module.register_forward_hook(keep(which)) for module, which in watched]
    try:
        with torch.no_grad():
            hf(torch.tensor([tokenizer()(text).input_ids], device=model.device))
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(seen).cpu().numpy()


def longhand_categories(
    model: ng.Model, task: ng.ParallelTask, site: str, position: str = "last", tau: float = 0.0
) -> np.ndarray:
    """Category codes (item, layer, neuron), one prompt and one set of neurons at a time."""
    codes = np.zeros((len(task), model.n_layers, model.n_neurons), dtype=np.uint8)
    for i, item in enumerate(task.items):
        active: dict[str, set[tuple[int, int]]] = {}
        for language in task.languages:
            values = longhand_values(model, item["prompts"][language], site)
            values = values[:, -1:] if position == "last" else values
            hits = {
                (layer, neuron)
                for layer in range(values.shape[0])
                for neuron in range(values.shape[2])
                if any(values[layer, t, neuron] > tau for t in range(values.shape[1]))
            }
            active[language] = hits
        for layer in range(model.n_layers):
            for neuron in range(model.n_neurons):
                k = sum((layer, neuron) in hits for hits in active.values())
                codes[i, layer, neuron] = (
                    0 if k == 0 else 1 if k == 1 else 3 if k == len(active) else 2
                )
    return codes
