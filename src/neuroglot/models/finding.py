"""Find a model's feed-forward networks by a table of paths, or by the structure of its layers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.probing import (
    ROUNDING,
    Trial,
    not_feed_forward,
    relative_change,
    run_trials,
)
from neuroglot.models.sites import FFNSite, FoundBy, widths
from neuroglot.models.structure import activation, layer_paths
from neuroglot.models.verify import expected_widths

# Paths of the down projection inside a layer. Nothing else about a family is hard-coded: the
# activation of a gated network is found beside its projections, and everything is verified.
LEAF_PATHS = (
    "mlp.down_proj",  # Llama, Mistral, Qwen, Gemma, Phi-3, StableLM, Cohere, OLMo 2, GLM-4, Granite
    "mlp.c_proj",  # GPT-2, StarCoder 2
    "mlp.dense_4h_to_h",  # BLOOM, GPT-NeoX, Falcon
    "mlp.fc_out",  # GPT-J
    "mlp.fc2",  # Phi
    "fc2",  # OPT, XGLM
    "ffn.down_proj",  # MPT
)


def refuse_encoder_decoder(config: object) -> None:
    """Refuse a configuration with an encoder, before weights are read.

    Raises:
        NeuroglotError: the configuration describes an encoder-decoder.
    """
    text = config.get_text_config() if isinstance(config, PreTrainedConfig) else config
    if any(getattr(part, "is_encoder_decoder", False) for part in (config, text)):
        raise NeuroglotError(
            f"{type(config).__name__} describes an encoder-decoder, which is unsupported: its "
            "prompts go into the encoder and its answers into the decoder, so no single stack of "
            "layers sees both. Expected a decoder-only model."
        )


def _pattern(name: str) -> str:
    return re.sub(r"\b\d+\b", "{i}", name)


def _refuse_experts(hf: nn.Module) -> None:
    experts = {
        _pattern(name)
        for name, module in hf.named_modules()
        if name.endswith(".experts") or re.search("Experts|MoE", type(module).__name__)
    }
    if experts:
        raise NeuroglotError(
            f"{type(hf).__name__} is a mixture of experts ({listed(sorted(experts), 3)}), which "
            "is unsupported: a router sends each token to a few of the experts, so a layer has no "
            "single feed-forward network whose neurons could be compared across prompts. "
            "Expected a dense decoder."
        )


def _n_layers(hf: PreTrainedModel, layers: Iterable[int]) -> int:
    """Number of layers by the configuration; if it names none, by the layers that were seen."""
    named = getattr(hf.config.get_text_config(), "num_hidden_layers", None)
    return int(named) if named else 1 + max(layers, default=-1)


def _is_complete(hf: PreTrainedModel, layers: list[int]) -> bool:
    return sorted(layers) == list(range(_n_layers(hf, layers)))


def _bare_site(hf: nn.Module, pattern: str, layer: int, found_by: FoundBy) -> FFNSite:
    """The site at a path, before its activation has been looked for."""
    path = pattern.replace("{i}", str(layer))
    block = hf.get_submodule(pattern.partition("{i}")[0] + str(layer))
    return FFNSite(layer, path, hf.get_submodule(path), None, block, found_by)


def _sites(
    hf: nn.Module, pattern: str, layers: Iterable[int], found_by: FoundBy
) -> tuple[FFNSite, ...]:
    """The sites of the given layers, with their activations."""
    bare = (_bare_site(hf, pattern, layer, found_by) for layer in sorted(layers))
    return tuple(replace(s, activation=activation(hf, s.path, s.block)) for s in bare)


def sites_at(hf: PreTrainedModel, path: str, found_by: FoundBy) -> tuple[FFNSite, ...]:
    """The FFN of every layer, in order, at a path in which ``{i}`` stands for the layer.

    Raises:
        NeuroglotError: the path does not contain ``{i}`` once, or layers have no module there.
    """
    if path.count("{i}") != 1:
        raise NeuroglotError(
            f"down_projection={path!r} must hold '{{i}}' once, in place of the layer number, for "
            "example 'model.layers.{i}.mlp.down_proj'."
        )
    pattern = re.compile(r"(\d+)".join(map(re.escape, path.split("{i}"))))
    matches = (pattern.fullmatch(name) for name, _ in hf.named_modules())
    layers = sorted(int(match[1]) for match in matches if match)
    if not layers:
        raise NeuroglotError(f"nothing in {type(hf).__name__} is called {path!r}; {_linear(hf)}")
    if not _is_complete(hf, layers):
        raise NeuroglotError(
            f"down_projection={path!r} is in the layers {listed(layers)}, expected 0 to "
            f"{_n_layers(hf, layers) - 1}: models with a feed-forward network in some layers only "
            "are unsupported."
        )
    return _sites(hf, path, layers, found_by)


def _candidates(hf: PreTrainedModel, paths: dict[str, list[int]]) -> dict[str, str | None]:
    """Paths of linear maps to ``d_model`` in every layer; why each is not an FFN, or ``None``."""
    d_model = getattr(hf.config.get_text_config(), "hidden_size", None)
    expected = expected_widths(hf)
    objections: dict[str, str | None] = {}
    for path, layers in paths.items():
        if not _is_complete(hf, layers):
            continue
        shapes = {widths(hf.get_submodule(path.replace("{i}", str(i)))) for i in layers}
        shape = shapes.pop()
        if shapes or shape is None or shape[1] != d_model:
            continue
        fits = not expected or shape[0] in expected
        reason = f"{shape[0]} wide, but the configuration says {expected[0]}" if not fits else None
        objections[path] = reason
    # Only the first layer is tried here; every layer is verified later.
    tried = {
        path: _bare_site(hf, path, 0, "structure")
        for path, objection in objections.items()
        if objection is None
    }
    if not tried:
        return objections
    trials = [Trial(), *(Trial("other input", site) for site in tried.values())]
    alone, *before = run_trials(hf, (), [trial.undone for trial in trials])
    beside, *after = run_trials(hf, (), trials)
    # Changes in a row in which nothing is tried are rounding.
    tolerance = max(ROUNDING, 3 * relative_change(alone.logits, beside.logits))
    for (path, site), plain, changed in zip(tried.items(), before, after, strict=True):
        objections[path] = not_feed_forward(hf, site, plain, changed, tolerance)
    return objections


def find_sites(hf: PreTrainedModel, path: str | None = None) -> tuple[FFNSite, ...]:
    """The FFN of every layer, in order; not yet verified (see :mod:`.verify`).

    It is looked for at the user's path, otherwise at the paths of the table, otherwise by
    structure: it must be the only linear map to ``d_model`` that is in every layer and is fed by
    another linear map, position by position.

    Args:
        hf: a Hugging Face decoder.
        path: the user's path of the down projections, with ``{i}`` for the layer.

    Raises:
        NeuroglotError: no path fits, more than one does, layers are missing, or the model is a
            mixture of experts.
    """
    _refuse_experts(hf)
    if path is not None:
        return sites_at(hf, path, "path")
    paths = layer_paths(hf)
    in_table = [
        name for name in paths if any(name.endswith(f"{{i}}.{leaf}") for leaf in LEAF_PATHS)
    ]
    complete = {name: paths[name] for name in in_table if _is_complete(hf, paths[name])}
    if len(complete) == 1:
        return _sites(hf, *complete.popitem(), "table")
    # Several paths are complete if a vision tower has as many layers as the text model.
    found_by: FoundBy = "table" if complete else "structure"
    objections: dict[str, str | None] = {
        name: f"only in the layers {listed(paths[name])}"
        for name in in_table
        if name not in complete
    }
    objections |= _candidates(hf, complete or paths)
    fitting = [name for name, objection in objections.items() if objection is None]
    if len(fitting) == 1:
        return _sites(hf, fitting[0], paths[fitting[0]], found_by)
    candidates = [f"{name} ({why or 'possible'})" for name, why in objections.items()]
    raise NeuroglotError(
        f"{'more than one' if fitting else 'no'} feed-forward down projection found in "
        f"{type(hf).__name__}: looked for {listed(LEAF_PATHS)}, and for a linear map to d_model in "
        f"each of its {_n_layers(hf, ())} layers; saw {listed(candidates) or 'none'}. "
        f"Name it with down_projection='…{{i}}…'; {_linear(hf)}"
    )


def _linear(hf: nn.Module) -> str:
    linear = {_pattern(name) for name, module in hf.named_modules() if widths(module)}
    return f"its linear modules are {listed(sorted(linear))}."
