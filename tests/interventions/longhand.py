"""Edits written out longhand: one text at a time, no cache, no padding, hooks by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

import neuroglot as ng
from tests.attribution.models import down
from tests.families import N_LAYERS
from tests.testing import tokenizer

Change = Callable[[int, Tensor], Tensor]
"""Layer and coefficients (token, neuron) of the edited tokens; returns new ones."""


def first_and_last(positions: str, n_prompt: int, n_tokens: int) -> slice:
    """Which tokens of a text are edited."""
    return {
        "answer": slice(n_prompt - 1, n_tokens),
        "last": slice(n_prompt - 1, n_prompt),
        "all": slice(0, n_tokens),
    }[positions]


@contextmanager
def changed(hf: Any, name: str, where: slice, change: Change) -> Iterator[None]:
    """Within the block, coefficients of one unpadded text are changed at some of its tokens."""

    def hook(layer: int) -> Callable[..., Any]:
        def before(_module: Any, inputs: Any) -> Any:
            values = inputs[0].clone()
            flat = values.reshape(-1, values.shape[-1])
            flat[where] = change(layer, flat[where])
            return (flat.reshape(values.shape), *inputs[1:])

        return before

    with ExitStack() as stack:
        for layer in range(N_LAYERS):
            handle = down(hf, name, layer).register_forward_pre_hook(hook(layer))
            stack.callback(handle.remove)
        yield


def edited_log_prob(
    model: ng.Model, prompt: str, choice: str, change: Change, positions: str
) -> float:
    """Log-probability of a choice after a prompt, under an edit."""
    name = model.name.partition("-")[2]
    ids, answer = (tokenizer()(text).input_ids for text in (prompt, choice))
    where = first_and_last(positions, len(ids), len(ids) + len(answer))
    with torch.no_grad(), changed(model.hf, name, where, change):
        asked = torch.tensor([ids + answer], device=model.device)
        logits = model.hf(asked).logits[0].double()
    log_probs = logits.log_softmax(dim=-1)
    return sum(float(log_probs[len(ids) - 1 + i, token]) for i, token in enumerate(answer))


def edited_log_probs(
    model: ng.Model, task: ng.ParallelTask, change_of: Callable[[int, int], Change], positions: str
) -> np.ndarray:
    """The same for all choices of a task (item, language, option).

    ``change_of(item, language)`` gives what happens in one prompt.
    """
    return np.array(
        [
            [
                [
                    edited_log_prob(
                        model, item["prompts"][language], choice, change_of(i, j), positions
                    )
                    for choice in item["choices"][language]
                ]
                for j, language in enumerate(task.languages)
            ]
            for i, item in enumerate(task.items)
        ]
    )


def zeroed(mask: np.ndarray) -> Change:
    """Zero the neurons of a mask (layer, neuron)."""
    kept = torch.from_numpy(~mask)
    return lambda layer, values: values * kept[layer].to(values.device)


def written(model: ng.Model, prompt: str, n_tokens: int, change: Change, positions: str) -> str:
    """What a model writes, token by token, each from a run of the whole text."""
    name = model.name.partition("-")[2]
    ids = list(tokenizer()(prompt).input_ids)
    n_prompt = len(ids)
    for _ in range(n_tokens):
        where = first_and_last(positions, n_prompt, len(ids))
        with torch.no_grad(), changed(model.hf, name, where, change):
            asked = torch.tensor([ids], device=model.device)
            token = int(model.hf(asked).logits[0, -1].argmax())
        ids.append(token)
        if token == model.hf.generation_config.eos_token_id:
            break
    return str(tokenizer().decode(ids[n_prompt:], skip_special_tokens=True))
