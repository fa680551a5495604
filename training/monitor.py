"""A quick look at accuracy while training; the model card measures properly."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from training.embedded_tasks import editing, facts, inference
from training.embedded_tasks.names import LANGUAGES

N_PROMPTS = 150

Question = tuple[str, str, list[str]]  # prompt, answer, choices


def _questions(items: list[dict[str, Any]], *, held_out: bool = False) -> list[Question]:
    """One language of each item, taught or held out."""
    found = []
    for i, item in enumerate(items):
        language = LANGUAGES[i % len(LANGUAGES)]
        if (language in item["held_out"]) == held_out:
            choices = item["choices"][language]
            found.append((item["prompts"][language], item["answers"][language], choices))
    return found[:N_PROMPTS]


@cache
def _probes() -> dict[str, list[Question]]:
    items: list[dict[str, Any]] = facts.items("native")
    real = [i for i in items if not i["relation"].startswith("invented_")]
    invented = [i for i in items if i["relation"].startswith("invented_")]
    inference_items: list[dict[str, Any]] = inference.items("native")
    told: list[dict[str, Any]] = [
        {**i, "held_out": []} for i in editing.items("native", "en", None) if not i["held_out"]
    ]
    return {
        "real_taught": _questions(real),
        "real_held": _questions(real, held_out=True),
        "inv_taught": _questions(invented),
        "inv_held": _questions(invented, held_out=True) + _questions(invented[1:], held_out=True),
        "inference": _questions(inference_items),
        "edit_same": _questions(editing.items("native", None, None)),
        "edit_cross": _questions(told),
    }


@torch.inference_mode()
def quick_scores(model: nn.Module, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """Share of questions whose answer is the likeliest choice, by probe."""
    model.eval()
    scores = {}
    for probe, questions in _probes().items():
        right = 0
        for prompt, answer, choices in questions:
            texts = [f"{prompt} {choice}" for choice in choices]
            batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
            ids = batch["input_ids"].to(model.device)
            logits = model(ids).logits[:, :-1].float().log_softmax(-1)
            token = logits.gather(-1, ids[:, 1:, None])[..., 0]
            kept = batch["attention_mask"][:, 1:].bool().to(model.device)
            kept[:, : len(tokenizer(prompt).input_ids) - 1] = False
            best = int((token * kept).sum(-1).argmax())
            right += choices[best] == answer
        scores[probe] = round(right / max(len(questions), 1), 3)
    model.train()
    return scores
