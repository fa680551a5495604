"""Tiny random models of every supported family, and where their neurons are, written out by hand.

Nothing here uses neuroglot: the paths are what the families' own code says, so that tests can hold
what neuroglot finds against them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import PreTrainedModel

VOCABULARY = 64
CONTEXT = 48
N_LAYERS, N_NEURONS = 3, 20

# What most configurations call their sizes.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": N_NEURONS,
    "num_hidden_layers": N_LAYERS, "num_attention_heads": 2, "max_position_embeddings": CONTEXT,
}  # fmt: skip
TOKENS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
GROUPED = {"num_key_value_heads": 1}
LAYERS = "model.layers.{i}."


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        architecture: name of the class in transformers; its configuration belongs to it.
        down: path of the down projection, ``{i}`` for the layer.
        act: path of the module whose output is the gate; ``None`` where there is no such module.
        up: path of the projection that the gate is multiplied with; ``None`` without gating.
        fused: whether ``up`` gives what is activated and what it is multiplied with side by side.
        structural: whether the leaf of ``down`` is in no table.
        norm_after: whether a norm follows the FFN inside its layer.
        config: arguments of the configuration.
    """

    architecture: str
    down: str
    act: str | None
    config: dict[str, Any]
    up: str | None = None
    fused: bool = False
    structural: bool = False
    norm_after: bool = False


def gated(architecture: str, *, norm_after: bool = False, **config: Any) -> Family:
    """A family that calls the parts of its FFN as Llama does."""
    mlp = LAYERS + "mlp."
    sizes = SIZES | GROUPED | TOKENS | config
    return Family(
        architecture, mlp + "down_proj", mlp + "act_fn", sizes, up=mlp + "up_proj",
        norm_after=norm_after,
    )  # fmt: skip


def fused(architecture: str, *, norm_after: bool = False, **config: Any) -> Family:
    """A family that calls the parts of its FFN as Phi-3 does."""
    mlp = LAYERS + "mlp."
    sizes = SIZES | GROUPED | TOKENS | config
    return Family(
        architecture, mlp + "down_proj", mlp + "activation_fn", sizes, up=mlp + "gate_up_proj",
        fused=True, norm_after=norm_after,
    )  # fmt: skip


def plain(architecture: str, down: str, act: str | None, **config: Any) -> Family:
    """A family without gating whose configuration calls the sizes by the usual names."""
    return Family(architecture, down, act, SIZES | TOKENS | config)


def _falcon(**config: Any) -> Family:
    mlp = "transformer.h.{i}.mlp."
    sizes = {name: size for name, size in SIZES.items() if name != "intermediate_size"}
    return Family(
        "FalconForCausalLM", mlp + "dense_4h_to_h", mlp + "act",
        sizes | TOKENS | {"ffn_hidden_size": N_NEURONS} | config,
    )  # fmt: skip


def roberta(architecture: str, base: str, *, norm_after: bool = True, **config: Any) -> Family:
    """A family that numbers positions from the number of the padding token on, as RoBERTa does.

    Two of its positions are never used, and the base model is called differently in each.
    """
    positions = {"max_position_embeddings": CONTEXT + 2, "pad_token_id": 1}
    layer = base + ".encoder.layer.{i}."
    return Family(
        architecture, layer + "output.dense", layer + "intermediate.intermediate_act_fn",
        SIZES | positions | {"is_decoder": True, "bos_token_id": 0, "eos_token_id": 0} | config,
        structural=True, norm_after=norm_after,
    )  # fmt: skip


GPT_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "n_embd": 16, "n_layer": N_LAYERS, "n_head": 2,
    "n_positions": CONTEXT, "n_inner": N_NEURONS, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
OPT_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "ffn_dim": N_NEURONS,
    "num_hidden_layers": N_LAYERS, "num_attention_heads": 2, "max_position_embeddings": CONTEXT,
    "word_embed_proj_dim": 16, **TOKENS,
}  # fmt: skip
XGLM_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 16, "ffn_dim": N_NEURONS, "num_layers": N_LAYERS,
    "attention_heads": 2, "max_position_embeddings": CONTEXT, **TOKENS,
}  # fmt: skip
MPT_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 16, "n_layers": N_LAYERS, "n_heads": 2,
    "max_seq_len": CONTEXT,
}  # fmt: skip
CTRL_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "n_embd": 16, "dff": N_NEURONS, "n_layer": N_LAYERS, "n_head": 2,
    "n_positions": CONTEXT,
}  # fmt: skip
GPT_BLOCK = "transformer.h.{i}.mlp."
OPT_LAYER = "model.decoder.layers.{i}."

FAMILIES: dict[str, Family] = {
    "gpt2": Family("GPT2LMHeadModel", GPT_BLOCK + "c_proj", GPT_BLOCK + "act", GPT_SIZES),
    # BLOOM's FFN is four times as wide as the model.
    "bloom": Family(
        "BloomForCausalLM", GPT_BLOCK + "dense_4h_to_h", None,
        {"vocab_size": VOCABULARY, "hidden_size": 20, "n_layer": N_LAYERS, "n_head": 2},
    ),
    "llama": gated("LlamaForCausalLM"),
    "mistral": gated("MistralForCausalLM", sliding_window=4),
    "qwen2": gated("Qwen2ForCausalLM"),
    "qwen3": gated("Qwen3ForCausalLM", head_dim=12),
    "gemma": gated("GemmaForCausalLM", head_dim=8),
    "gemma2": gated("Gemma2ForCausalLM", norm_after=True, head_dim=8, sliding_window=4),
    "gemma3": gated(
        "Gemma3ForCausalLM", norm_after=True, head_dim=8, sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "xglm": Family("XGLMForCausalLM", LAYERS + "fc2", LAYERS + "activation_fn", XGLM_SIZES),
    "opt": Family("OPTForCausalLM", OPT_LAYER + "fc2", OPT_LAYER + "activation_fn", OPT_SIZES),
    "opt-350m": Family(
        "OPTForCausalLM", OPT_LAYER + "fc2", OPT_LAYER + "activation_fn",
        OPT_SIZES | {"word_embed_proj_dim": 8, "do_layer_norm_before": False}, norm_after=True,
    ),
    "gpt_neox": plain(
        "GPTNeoXForCausalLM", "gpt_neox.layers.{i}.mlp.dense_4h_to_h",
        "gpt_neox.layers.{i}.mlp.act",
    ),
    "gptj": Family(
        "GPTJForCausalLM", GPT_BLOCK + "fc_out", GPT_BLOCK + "act", GPT_SIZES | {"rotary_dim": 4},
    ),
    "falcon": _falcon(),
    "falcon-new": _falcon(new_decoder_architecture=True, num_kv_heads=1),
    "falcon-alibi": _falcon(alibi=True, parallel_attn=False, multi_query=False),
    "phi": plain("PhiForCausalLM", LAYERS + "mlp.fc2", LAYERS + "mlp.activation_fn"),
    "phi3": fused("Phi3ForCausalLM", sliding_window=4),
    "mpt": Family(
        "MptForCausalLM", "transformer.blocks.{i}.ffn.down_proj", "transformer.blocks.{i}.ffn.act",
        MPT_SIZES,
    ),
    "stablelm": gated("StableLmForCausalLM"),
    "cohere": gated("CohereForCausalLM"),
    "olmo2": gated("Olmo2ForCausalLM", norm_after=True),
    "smollm3": gated("SmolLM3ForCausalLM"),
    "glm4": fused("Glm4ForCausalLM", norm_after=True, head_dim=8),
    "granite": gated("GraniteForCausalLM", residual_multiplier=0.5),
    "starcoder2": plain(
        "Starcoder2ForCausalLM", LAYERS + "mlp.c_proj", LAYERS + "mlp.act", sliding_window=4,
        **GROUPED,
    ),
    "nemotron": plain(
        "NemotronForCausalLM", LAYERS + "mlp.down_proj", LAYERS + "mlp.act_fn", **GROUPED,
    ),
    "gpt_neo": Family(
        "GPTNeoForCausalLM", GPT_BLOCK + "c_proj", GPT_BLOCK + "act",
        {name: size for name, size in SIZES.items() if name != "num_hidden_layers"} | TOKENS
        | {"num_layers": N_LAYERS, "window_size": 4,
           "attention_types": [[["global", "local", "global"], 1]]},
    ),
    "codegen": Family(
        "CodeGenForCausalLM", GPT_BLOCK + "fc_out", GPT_BLOCK + "act",
        GPT_SIZES | {"rotary_dim": 4, "n_head": 4},
    ),
    "cohere2": gated("Cohere2ForCausalLM", sliding_window=4),
    "olmo3": gated("Olmo3ForCausalLM", norm_after=True, sliding_window=4),
    "ctrl": Family(
        "CTRLLMHeadModel", "transformer.h.{i}.ffn.2", "transformer.h.{i}.ffn.1", CTRL_SIZES,
        structural=True,
    ),
    "modernbert-decoder": Family(
        "ModernBertDecoderForCausalLM", LAYERS + "mlp.Wo", LAYERS + "mlp.act",
        SIZES | TOKENS | {"local_attention": 8, "cls_token_id": 0, "sep_token_id": 0},
        up=LAYERS + "mlp.Wi", fused=True, structural=True,
    ),
    # Attention and a state-space layer side by side, then the FFN.
    "falcon-h1": Family(
        "FalconH1ForCausalLM", LAYERS + "feed_forward.down_proj", LAYERS + "feed_forward.act_fn",
        SIZES | GROUPED | TOKENS | {
            "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1,
            "mamba_d_state": 4, "mamba_chunk_size": 8,  # to which prompts are padded
        },
        up=LAYERS + "feed_forward.up_proj", structural=True,
    ),
    "bert-decoder": Family(
        "BertLMHeadModel", "bert.encoder.layer.{i}.output.dense",
        "bert.encoder.layer.{i}.intermediate.intermediate_act_fn",
        SIZES | {"is_decoder": True, "pad_token_id": 0}, structural=True, norm_after=True,
    ),
    "roberta-decoder": roberta("RobertaForCausalLM", "roberta"),
    "xlm-roberta-decoder": roberta("XLMRobertaForCausalLM", "roberta"),
    "xlm-roberta-xl-decoder": roberta("XLMRobertaXLForCausalLM", "roberta", norm_after=False),
    "camembert-decoder": roberta("CamembertForCausalLM", "roberta"),
    "data2vec-decoder": roberta("Data2VecTextForCausalLM", "data2vec_text"),
    "roberta-prelayernorm-decoder": roberta(
        "RobertaPreLayerNormForCausalLM", "roberta_prelayernorm", norm_after=False,
    ),
    "xmod-decoder": roberta(
        "XmodForCausalLM", "roberta", languages=["en_XX"], default_language="en_XX",
    ),
}  # fmt: skip

# Those whose code returns a cache only from a version on; before it, prompts run whole.
WITHOUT_CACHE = {"falcon-h1"} if Version(transformers.__version__) < Version("5.5") else set()


def build(architecture: str, config: dict[str, Any], seed: int = 0) -> PreTrainedModel:
    """A random model whose weights are large enough for its neurons to disagree."""
    torch.manual_seed(seed)
    kind: Any = getattr(transformers, architecture)
    hf: PreTrainedModel = kind(kind.config_class(**config))
    for parameter in hf.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return hf.eval()


@cache
def family_hf(name: str, seed: int = 0) -> PreTrainedModel:
    """The tiny model of one family; shared between tests, which leave it as it is."""
    return build(FAMILIES[name].architecture, FAMILIES[name].config, seed)


OFTEN = ("gpt2", "bloom", "llama", "opt", "gemma2", "gemma3", "falcon-alibi", "falcon-h1")
"""Families on which long tests run by default; on all others they are slow."""


def by_family() -> list[Any]:
    """All families, as parameters of a long test."""
    return [
        pytest.param(name, marks=[] if name in OFTEN else [pytest.mark.slow]) for name in FAMILIES
    ]
