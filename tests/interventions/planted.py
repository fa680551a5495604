"""A tiny model in which a few neurons, wired by hand, carry the answer and all others noise."""

from __future__ import annotations

import copy
from functools import cache

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import neuroglot as ng
from tests.families import CONTEXT, TOKENS, VOCABULARY
from tests.testing import tokenizer

LANGUAGES = ("en", "de", "th")
N_SUBJECTS, N_ANSWERS = 16, 4
FIRST_SUBJECT, FIRST_ANSWER = 2, 56  # words; a subject has one in each language
N_WORDS = N_SUBJECTS * len(LANGUAGES)
ANSWER_DIM, NOISE_DIM, WIDTH = N_WORDS, N_WORDS + N_ANSWERS, N_WORDS + N_ANSWERS + 12
N_NEURONS, PLANTED_LAYER = 240, 0
PLANTED = tuple(range(N_ANSWERS))  # neuron i raises answer i


def answer_of(subject: int) -> int:
    return subject % N_ANSWERS


@cache
def planted_model() -> ng.Model:
    """Words are one-hot; neurons that are not planted fire at random and write into noise."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=N_NEURONS, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=CONTEXT, hidden_act="relu",
        tie_word_embeddings=False, **TOKENS,
    )  # fmt: skip
    hf = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        embeddings = hf.model.embed_tokens.weight
        embeddings.zero_()
        embeddings[:, NOISE_DIM:] = 0.05 * torch.randn(VOCABULARY, WIDTH - NOISE_DIM)
        for word in range(N_WORDS):
            embeddings[FIRST_SUBJECT + word, word] = 1
        head = hf.lm_head.weight
        head.zero_()
        head[:, NOISE_DIM:] = 0.05 * torch.randn(VOCABULARY, WIDTH - NOISE_DIM)
        for answer in range(N_ANSWERS):
            # Noise must not choose among the answers.
            head[FIRST_ANSWER + answer] = 0
            head[FIRST_ANSWER + answer, ANSWER_DIM + answer] = 1
        for layer, block in enumerate(hf.model.layers):
            block.self_attn.o_proj.weight.mul_(0.02)
            block.self_attn.o_proj.weight[:NOISE_DIM] = 0
            _wire(block.mlp, planted=layer == PLANTED_LAYER)
    return ng.wrap_model(hf, tokenizer(), name="planted")


def _wire(mlp: torch.nn.Module, *, planted: bool) -> None:
    gate, up, down = (mlp.get_submodule(f"{x}_proj").weight for x in ("gate", "up", "down"))  # type: ignore[union-attr]
    gate.zero_(), up.zero_(), down.zero_()
    # Each neuron fires for half of the words, with a strength of its own.
    gate[:, :N_WORDS] = torch.randint(0, 2, (N_NEURONS, N_WORDS)) * 2.0 - 1
    up[:, :N_WORDS] = 0.5 + torch.rand(N_NEURONS, 1)
    noise = torch.randn(WIDTH - NOISE_DIM, N_NEURONS)
    down[NOISE_DIM:] = 0.1 * noise / noise.norm(dim=0)
    if planted:
        for neuron in PLANTED:
            for word in range(N_WORDS):
                right = answer_of(word // len(LANGUAGES)) == neuron
                gate[neuron, word] = 1.0 if right else -1.0
            up[neuron, :N_WORDS] = 1.0
            down[:, neuron] = 0
            down[ANSWER_DIM + neuron, neuron] = 0.1


def planted_task() -> ng.ParallelTask:
    """One item a subject; without knowledge the first choice wins, which is right once in four."""
    records = []
    for subject in range(N_SUBJECTS):
        shift = subject // N_ANSWERS
        words = [f"w{FIRST_ANSWER + (shift + i) % N_ANSWERS}" for i in range(N_ANSWERS)]
        prompts = {
            code: f"w55 w54 w{FIRST_SUBJECT + subject * len(LANGUAGES) + i}"
            for i, code in enumerate(LANGUAGES)
        }
        records.append(
            {
                "id": f"subject {subject}",
                "prompts": prompts,
                "choices": dict.fromkeys(LANGUAGES, words),
                "answers": dict.fromkeys(LANGUAGES, f"w{FIRST_ANSWER + answer_of(subject)}"),
            }
        )
    return ng.ParallelTask.from_records(records, name="planted")


MAGNITUDE = tuple((PLANTED_LAYER, neuron) for neuron in PLANTED)
CONSTANT = ((PLANTED_LAYER, N_ANSWERS),)
LEANING = 0.5  # towards the first answer, which the constant neuron takes back


@cache
def always_on_model() -> ng.Model:
    """Neurons that are always on: some carry the answer in their magnitude, one is constant.

    Embeddings lean towards the first answer, and the constant neuron takes that back.
    """
    model = planted_model()
    hf = copy.deepcopy(model.hf)
    with torch.no_grad():
        mlp = hf.model.layers[PLANTED_LAYER].mlp
        gate, up, down = (mlp.get_submodule(f"{x}_proj").weight for x in ("gate", "up", "down"))
        for neuron in PLANTED:
            for word in range(N_WORDS):
                right = answer_of(word // len(LANGUAGES)) == neuron
                gate[neuron, word] = 2.0 if right else 1.0
            down[:, neuron] *= 0.04  # less than what the embeddings lean
        (constant,) = (neuron for _, neuron in CONSTANT)
        gate[constant], up[constant], down[:, constant] = 0, 0, 0
        gate[constant, :N_WORDS], up[constant, :N_WORDS] = 1.0, 1.0
        # So that the constant neuron takes back what the embeddings lean, for about every word.
        words = hf.model.embed_tokens.weight[FIRST_SUBJECT : FIRST_SUBJECT + N_WORDS]
        words[:, ANSWER_DIM] += LEANING
        hidden = words[0]
        normed = hf.model.layers[PLANTED_LAYER].post_attention_layernorm(hidden)
        strength = float((gate[constant] @ normed).relu() * (up[constant] @ normed))
        down[ANSWER_DIM, constant] = -LEANING / strength
    return ng.wrap_model(hf, tokenizer(), name="always on")


def always_on_task() -> ng.ParallelTask:
    """The same items, of one relation."""
    records = [{**item, "relation": "planted"} for item in planted_task().items]
    return ng.ParallelTask.from_records(records, name="always on")
