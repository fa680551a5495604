"""Random models of a given shape, and tasks of random prompts, for timing only."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BloomConfig, BloomForCausalLM, PreTrainedTokenizerFast

import neuroglot as ng

VOCABULARY = 50_000
LANGUAGES = ("en", "de", "es", "fr", "ru", "th", "tr", "vi", "zh", "pt")


def bloom(
    width: int,
    layers: int,
    heads: int,
    device: str = "cpu",
    dtype: str = "float32",
    words: int = VOCABULARY,
) -> ng.Model:
    """A random BLOOM with a vocabulary of so many words between spaces."""
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=words, hidden_size=width, n_layer=layers, n_head=heads)
    with torch.device(device):
        hf = BloomForCausalLM(config).to(getattr(torch, dtype))
    vocabulary = {"<end>": 0, "<unk>": 1} | {f"w{i}": i for i in range(2, words)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    make: Any = PreTrainedTokenizerFast
    tokenizer = make(tokenizer_object=inner, eos_token="<end>", pad_token="<end>")
    return ng.wrap_model(hf, tokenizer, name=f"random-bloom-{width}x{layers}")


def _text(rng: np.random.Generator, length: int, words: int = VOCABULARY) -> str:
    return " ".join(f"w{i}" for i in rng.integers(2, words, size=length))


def prompts_of(
    n_items: int,
    lengths: tuple[int, int],
    *,
    shared: int = 0,
    n_choices: int = 0,
    words: int = VOCABULARY,
) -> ng.ParallelTask:
    """Items of random words in ten languages.

    Args:
        n_items: how many.
        lengths: least and most words of a prompt.
        shared: how many of the first words the prompts of an item share, as the fact does in
            editing.
        n_choices: choices of each prompt, of one to four words; 0 for none.
        words: of the model's vocabulary.
    """
    rng = np.random.default_rng(0)
    records = []
    for i in range(n_items):
        begin = _text(rng, shared, words)
        record: dict[str, Any] = {"id": str(i), "prompts": {}}
        for language in LANGUAGES:
            length = int(rng.integers(lengths[0], lengths[1] + 1)) - shared
            record["prompts"][language] = f"{begin} {_text(rng, length, words)}".strip()
        if n_choices:
            record["choices"] = {
                language: [_text(rng, int(rng.integers(1, 5)), words) for _ in range(n_choices)]
                for language in LANGUAGES
            }
            record["answers"] = {code: found[0] for code, found in record["choices"].items()}
        records.append(record)
    return ng.ParallelTask.from_records(records, name="random")
