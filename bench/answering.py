"""Choosing among ten choices, beside one forward pass a prompt and the choices' own tokens."""

from __future__ import annotations

import torch

import neuroglot as ng
from bench.measure import Row, at_most, in_turns
from bench.models import bloom, prompts_of
from bench.recording import BATCH, padded_batches


@torch.inference_mode()
def floor(model: ng.Model, task: ng.ParallelTask) -> None:
    """Run prompts and choices apart, in batches sorted by length; scores could not be had so."""
    prompts = [item["prompts"][language] for item in task.items for language in task.languages]
    for batch in padded_batches(model, prompts, BATCH):
        model.hf(**batch, logits_to_keep=1)
    choices = [
        choice
        for item in task.items
        for language in task.languages
        for choice in item["choices"][language]
    ]
    for batch in padded_batches(model, choices, 10 * BATCH):
        model.hf(**batch)


def rows(n_items: int = 16) -> list[Row]:
    """Lines of the table."""
    model = bloom(512, 8, 8)
    task = prompts_of(n_items, (16, 60), n_choices=10)
    seconds = in_turns(
        {"floor": lambda: floor(model, task), "ours": lambda: ng.evaluate(model, task)}
    )
    note = "prompts and choices run apart, with the head where it is needed"
    return [at_most("evaluate, ten choices", seconds["ours"], seconds["floor"], 1.5, note)]
