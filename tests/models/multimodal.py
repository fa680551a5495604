"""Tiny random models that take pictures beside text, by family, written out by hand."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from tests.families import GROUPED, SIZES, TOKENS, build

TEXT: dict[str, Any] = SIZES | GROUPED | TOKENS
# As many layers as the text part has, so that the paths alone do not tell them apart.
EYES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
QWEN_EYES: dict[str, Any] = {
    "depth": 3, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
    "hidden_size": 16,
}  # fmt: skip
QWEN_TEXT: dict[str, Any] = TEXT | {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
}
QWEN_TOKENS = {
    "image_token_id": 62, "video_token_id": 61, "vision_start_token_id": 60,
    "vision_end_token_id": 59,
}  # fmt: skip
LLAMA, HEADS = TEXT | {"model_type": "llama"}, {"head_dim": 8}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        {"text_config": TEXT | HEADS | {"sliding_window": 4}, "mm_tokens_per_image": 4,
         "vision_config": EYES | {"model_type": "siglip_vision_model"}, "image_token_index": 62},
    ),
    "mistral3": (
        "Mistral3ForConditionalGeneration",
        {"text_config": TEXT | HEADS | {"model_type": "mistral"}, "image_token_index": 62,
         "vision_config": EYES | HEADS | {"model_type": "pixtral"}},
    ),
    "qwen2-vl": (
        "Qwen2VLForConditionalGeneration",
        QWEN_TOKENS | {"text_config": QWEN_TEXT,
                       "vision_config": QWEN_EYES | {"embed_dim": 16, "mlp_ratio": 1}},
    ),
    "qwen2.5-vl": (
        "Qwen2_5_VLForConditionalGeneration",
        QWEN_TOKENS | {"text_config": QWEN_TEXT,
                       "vision_config": QWEN_EYES | {"out_hidden_size": 16,
                                                     "intermediate_size": 24}},
    ),
    "qwen3-vl": (
        "Qwen3VLForConditionalGeneration",
        QWEN_TOKENS | {"text_config": QWEN_TEXT | HEADS,
                       "vision_config": QWEN_EYES | {"out_hidden_size": 16, "intermediate_size": 24,
                                                     "num_position_embeddings": 16,
                                                     "deepstack_visual_indexes": [0]}},
    ),
    "llava": (
        "LlavaForConditionalGeneration",
        {"text_config": LLAMA, "image_token_index": 62,
         "vision_config": EYES | {"model_type": "clip_vision_model", "projection_dim": 16}},
    ),
    "idefics3": (
        "Idefics3ForConditionalGeneration",
        {"text_config": LLAMA, "vision_config": EYES, "image_token_id": 62, "scale_factor": 2},
    ),
    "smolvlm": (
        "SmolVLMForConditionalGeneration",
        {"text_config": LLAMA, "vision_config": EYES, "image_token_id": 62, "scale_factor": 2},
    ),
    "internvl": (
        "InternVLForConditionalGeneration",
        {"text_config": TEXT | {"model_type": "qwen2"}, "image_token_id": 62,
         "vision_config": EYES | {"image_size": [28, 28], "patch_size": [14, 14]}},
    ),
    "aya-vision": (
        "AyaVisionForConditionalGeneration",
        {"text_config": TEXT | HEADS | {"model_type": "cohere2", "sliding_window": 4},
         "vision_config": EYES | {"model_type": "siglip_vision_model"}, "image_token_index": 62,
         "downsample_factor": 2},
    ),
}  # fmt: skip


def multimodal_hf(family: str) -> PreTrainedModel:
    """The whole model, eyes and all."""
    return build(*FAMILIES[family])
