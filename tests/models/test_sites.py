"""Sites are named or found, verified, and refused with what was seen where they do not hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3Config, PreTrainedModel

import neuroglot as ng
from tests.families import FAMILIES, GROUPED, N_LAYERS, SIZES, TOKENS, VOCABULARY, build
from tests.testing import tiny_hf, tokenizer


def test_a_user_names_the_path() -> None:
    hf = tiny_hf("llama")
    model = ng.wrap_model(hf, tokenizer(), down_projection="model.layers.{i}.mlp.down_proj")
    assert [site.path for site in model.sites] == [
        f"model.layers.{i}.mlp.down_proj" for i in range(3)
    ]
    assert model.sites[0].activation is hf.model.layers[0].mlp.act_fn
    assert model.describe()["found_by"] == "path"
    with pytest.raises(ng.NeuroglotError, match=r"must hold '\{i\}' once"):
        ng.wrap_model(hf, tokenizer(), down_projection="model.layers.0.mlp.down_proj")
    with pytest.raises(ng.NeuroglotError, match="its linear modules are"):
        ng.wrap_model(hf, tokenizer(), down_projection="model.layers.{i}.mlp.nothing")
    with pytest.raises(ng.NeuroglotError, match=r"LlamaMLP .*torch\.nn\.Linear"):
        ng.wrap_model(hf, tokenizer(), down_projection="model.layers.{i}.mlp")


def test_verification_catches_wrong_sites() -> None:
    hf = tiny_hf("llama")
    with pytest.raises(ng.NeuroglotError, match=r"16 wide, but .* are 20 wide"):
        ng.wrap_model(hf, tokenizer(), down_projection="model.layers.{i}.self_attn.o_proj")
    hf.model.layers[1].mlp.forward = lambda x: x * 0.5
    with pytest.raises(ng.NeuroglotError, match=r"layers.1.*fired 0 times"):
        ng.wrap_model(hf, tokenizer())
    hf = tiny_hf("llama")
    torch.nn.init.zeros_(hf.model.layers[2].mlp.down_proj.weight)
    with pytest.raises(ng.NeuroglotError, match=r"zeroing model.layers.2"):
        ng.wrap_model(hf, tokenizer())


def test_attention_of_the_same_width_mixes_positions() -> None:
    sizes = SIZES | TOKENS | {"intermediate_size": 16}
    for heads, message in (
        (1, "o_proj .* mixes positions"),
        (2, r"activation module; .* has none"),
    ):
        hf = build("LlamaForCausalLM", sizes | {"num_key_value_heads": heads})
        assert ng.wrap_model(hf, tokenizer()).sites[0].path == "model.layers.0.mlp.down_proj"
        with pytest.raises(ng.NeuroglotError, match=message):
            ng.wrap_model(hf, tokenizer(), down_projection="model.layers.{i}.self_attn.o_proj")


def _added(mlp: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) + mlp.up_proj(x))


def _turned(mlp: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        x = x.transpose(0, 1)
        return mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)).transpose(0, 1)

    return forward


def _elsewhere(mlp: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: mlp.down_proj(mlp.act_fn(x.repeat(1, 1, 2)[..., :20]) * 0.5)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (_added, r"with it at zero its coefficients reach .* not what they are multiplied by"),
        (_turned, r"saw shape \(4, 9, 20\), expected \(9, 4, 20\)"),
        (_elsewhere, "the linear maps beside it do not feed it"),
    ],
)
def test_layers_that_compute_something_else_are_refused(forward: Any, message: str) -> None:
    hf = tiny_hf("llama")
    for layer in hf.model.layers:
        layer.mlp.forward = forward(layer.mlp)
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.wrap_model(hf, tokenizer())


def test_two_activation_modules_are_not_guessed_between() -> None:
    hf = tiny_hf("llama")
    hf.model.layers[0].mlp.other = torch.nn.SiLU()
    with pytest.raises(ng.NeuroglotError, match="has more than one: act_fn, other"):
        ng.wrap_model(hf, tokenizer())


def test_bloom_that_bypasses_its_module_is_refused() -> None:
    hf = tiny_hf("bloom")
    for block in hf.transformer.h:
        block.mlp.slow_but_exact, block.mlp.pretraining_tp = True, 2
    with pytest.raises(ng.NeuroglotError, match="slow_but_exact"):
        ng.wrap_model(hf, tokenizer())


def test_broken_weights_are_named() -> None:
    hf = tiny_hf("gpt2")
    torch.nn.init.constant_(hf.transformer.ln_f.weight, float("nan"))
    with pytest.raises(ng.NeuroglotError, match="logits are NaN or infinite"):
        ng.wrap_model(hf, tokenizer())


def test_a_vision_tower_of_as_many_layers_is_not_the_text_model() -> None:
    vision = {
        "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = Gemma3Config(
        text_config=FAMILIES["gemma3"].config, vision_config=vision, mm_tokens_per_image=1
    )
    torch.manual_seed(0)
    model = ng.wrap_model(AutoModelForCausalLM.from_config(config), tokenizer())
    assert model.describe()["down_projection"] == "model.language_model.layers.0.mlp.down_proj"
    assert model.context_length == 48


def forward_passes(hf: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often the model runs while it is wrapped."""
    passes, forward = [], type(hf).forward

    @wraps(forward)
    def counted(*args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        return forward(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(hf), "forward", counted)
        ng.wrap_model(hf, tokenizer())
    return len(passes)


@pytest.mark.parametrize("name", FAMILIES)
def test_verification_takes_few_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most ten, also where the neurons have to be found by the structure of the layers."""
    family = FAMILIES[name]
    hf = build(family.architecture, family.config)
    assert forward_passes(hf, monkeypatch) <= 10


def test_more_layers_take_no_more_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = FAMILIES["llama"].config
    few, many = (
        forward_passes(build("LlamaForCausalLM", sizes | {"num_hidden_layers": n}), monkeypatch)
        for n in (2, 9)
    )
    assert few == many


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "opt-350m", "bert-decoder"])
def test_half_precision_is_verified_too(name: str, dtype: torch.dtype) -> None:
    family = FAMILIES[name]
    hf = build(family.architecture, family.config).to(dtype)
    model = ng.wrap_model(hf, tokenizer())
    assert model.norm_after_ffn is family.norm_after
    assert model.sites[0].value_vectors().dtype is dtype


@pytest.mark.parametrize(
    ("name", "size"), [("llama", 30), ("llama", 3000), ("gemma2", 30), ("opt-350m", 30)]
)
def test_the_norm_is_seen_past_a_large_residual_stream(name: str, size: float) -> None:
    family = FAMILIES[name]
    hf = build(family.architecture, family.config)
    with torch.no_grad():
        hf.get_input_embeddings().weight *= size
        for i in range(N_LAYERS):
            hf.get_submodule(family.down.format(i=i)).weight *= 0.1
    assert ng.wrap_model(hf, tokenizer()).norm_after_ffn is family.norm_after


MOE = SIZES | TOKENS | {
    "num_key_value_heads": 2, "moe_intermediate_size": 20, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 20,
}  # fmt: skip
# The first layer is dense, and called as in Llama.
DEEPSEEK = MOE | {
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "kv_lora_rank": 8, "q_lora_rank": 8,
    "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4,
}  # fmt: skip
MAMBA = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": N_LAYERS, "state_size": 4,
    "time_step_rank": 4,
}  # fmt: skip
RWKV = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": N_LAYERS,
    "attention_hidden_size": 16, "intermediate_size": 20, "context_length": 48,
}  # fmt: skip
GRIFFIN = SIZES | TOKENS | GROUPED | {
    "intermediate_size": 40, "lru_width": 20, "head_dim": 8, "attention_window_size": 8,
}  # fmt: skip
LFM2 = SIZES | TOKENS | GROUPED | {
    "layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False,
}  # fmt: skip
T5 = {
    "vocab_size": VOCABULARY, "d_model": 16, "d_ff": 20, "num_layers": 2, "num_heads": 2, "d_kv": 8,
}  # fmt: skip
ENCODER = SIZES | {"pad_token_id": 0}


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("MixtralForCausalLM", MOE, r"mixture of experts \(model.layers.\{i\}.mlp.experts\)"),
        ("Qwen2MoeForCausalLM", MOE, "mixture of experts"),
        ("Qwen3MoeForCausalLM", MOE, "mixture of experts"),
        ("GraniteMoeForCausalLM", MOE, "mixture of experts .*block_sparse_moe"),
        ("DeepseekV3ForCausalLM", DEEPSEEK, "mixture of experts"),
        ("MambaForCausalLM", MAMBA, r"no feed-forward .*\{i\}.mixer.out_proj \(it mixes positions"),
        ("RwkvForCausalLM", RWKV, "padding on the left changes the logits of RwkvForCausalLM"),
        ("RecurrentGemmaForCausalLM", GRIFFIN, "padding on the left changes the logits"),
        ("Lfm2ForCausalLM", LFM2, r"feed_forward.w2 is unsupported.* has none \(its parts: w1, w3"),
        ("T5ForConditionalGeneration", T5, "T5Config describes an encoder-decoder"),
        ("BertLMHeadModel", ENCODER, "not causal: another last token .*is_decoder=True"),
        ("RobertaForCausalLM", ENCODER, "not causal"),
    ],
)
def test_unsupported_kinds_are_refused_with_the_reason(
    architecture: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.wrap_model(build(architecture, config), tokenizer())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("std", [0.05, 0.1])
@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("BertLMHeadModel", ENCODER, "not causal"),
        ("RobertaForCausalLM", ENCODER, "not causal"),
        ("RwkvForCausalLM", RWKV, "padding on the left"),
        ("RecurrentGemmaForCausalLM", GRIFFIN, "padding on the left"),
    ],
)
def test_small_weights_and_few_digits_hide_nothing(
    architecture: str, config: dict[str, Any], message: str, std: float, dtype: torch.dtype
) -> None:
    hf = build(architecture, config)
    for parameter in hf.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=std)
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.wrap_model(hf.to(dtype), tokenizer())


def test_padding_on_the_right_that_shows_is_refused() -> None:
    """Which token pads shows in the logits, if it comes last."""
    hf = tiny_hf("gpt2")
    run = hf.forward

    def forward(
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        **options: Any,
    ) -> Any:
        output = run(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **options,
        )
        ends_in_padding = (attention_mask[:, -1] == 0)[:, None, None]
        output.logits = output.logits + ends_in_padding * input_ids[:, -1:, None]
        return output

    hf.forward = forward
    with pytest.raises(ng.NeuroglotError, match="padding on the right changes the logits"):
        ng.wrap_model(hf, tokenizer())


def test_a_model_that_other_prompts_disturb_is_refused() -> None:
    hf = tiny_hf("gpt2")
    norm = hf.transformer.ln_f.forward
    hf.transformer.ln_f.forward = lambda x: norm(x) + norm(x).mean(dim=0)
    with pytest.raises(ng.NeuroglotError, match="other prompts in its batch change the logits"):
        ng.wrap_model(hf, tokenizer())


def test_every_kind_of_layer_is_looked_at() -> None:
    """The second layer alone mixes positions, or has a norm after its network."""
    hf = tiny_hf("llama")
    mlp = hf.model.layers[1].mlp
    mlp.mixing = torch.nn.Identity()
    mlp.forward = lambda x: mlp.down_proj(
        mlp.act_fn(mlp.gate_proj(x)).cumsum(dim=1) * mlp.up_proj(x)
    )
    with pytest.raises(ng.NeuroglotError, match=r"layers.1.* it mixes positions"):
        ng.wrap_model(hf, tokenizer())
    hf = tiny_hf("llama")
    block = hf.model.layers[1]
    block.after = torch.nn.LayerNorm(16)
    run = block.mlp.forward
    block.mlp.forward = lambda x: block.after(run(x))
    assert ng.wrap_model(hf, tokenizer()).norm_after_ffn


def test_structure_refuses_what_it_cannot_tell_apart() -> None:
    """Two feed-forward networks a layer: none is chosen, and a user can name one."""
    family = FAMILIES["ctrl"]
    hf = build(family.architecture, family.config)
    for block in hf.transformer.h:
        block.second = torch.nn.Sequential(torch.nn.Linear(16, 20), torch.nn.Linear(20, 16))
        block.second.register_forward_pre_hook(lambda *_: None)
        run = block.ffn.forward
        block.ffn.forward = lambda x, run=run, second=block.second: run(x) + second(x)
    with pytest.raises(ng.NeuroglotError) as caught:
        ng.wrap_model(hf, tokenizer())
    for path in ("transformer.h.{i}.ffn.2", "transformer.h.{i}.second.1"):
        assert f"{path} (possible)" in str(caught.value)
    assert "more than one feed-forward down projection" in str(caught.value)
    named = ng.wrap_model(hf, tokenizer(), down_projection="transformer.h.{i}.ffn.2")
    assert named.sites[2].path == "transformer.h.2.ffn.2"


def test_a_network_in_some_layers_only_is_refused() -> None:
    hf = tiny_hf("llama")
    hf.model.layers[1].mlp = torch.nn.Identity()
    with pytest.raises(ng.NeuroglotError, match=r"mlp.down_proj \(only in the layers 0, 2\)"):
        ng.wrap_model(hf, tokenizer())
    with pytest.raises(ng.NeuroglotError, match="in the layers 0, 2, expected 0 to 2"):
        ng.wrap_model(hf, tokenizer(), down_projection="model.layers.{i}.mlp.down_proj")
