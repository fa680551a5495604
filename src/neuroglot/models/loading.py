"""Load a model by the name of an embedded one, a Hub id or a folder."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.adapters import adapted, merge_adapters
from neuroglot.models.finding import refuse_encoder_decoder
from neuroglot.models.lineage import continued, set_lineage
from neuroglot.models.model import Model, wrap_model
from neuroglot.models.sites import FLOATING
from neuroglot.models.tokenization import Tokenization

EMBEDDED = ("embedded/base", "embedded/aligned")


def _embedded_folder(name: str) -> Path:
    if name not in EMBEDDED:
        raise NeuroglotError(f"unknown embedded model {name!r}; there are {listed(EMBEDDED)}.")
    # importlib.resources gives a real folder for every ordinary installation.
    folder = Path(str(resources.files("neuroglot.models"))) / name
    if not (folder / "config.json").exists():
        raise NeuroglotError(
            f"{name} is not in this checkout ({folder}); `make embedded-models` trains it."
        )
    return folder


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype | str:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else "auto"
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    named = getattr(torch, dtype, None)
    if named not in FLOATING:
        raise NeuroglotError(
            f"dtype={dtype!r}: expected 'auto', 'float32', 'bfloat16', 'float16' or 'float64'."
        )
    return cast("torch.dtype", named)


def _device(device: str | torch.device | None) -> torch.device:
    """The device that inputs and weights go to.

    Raises:
        NeuroglotError: there is no such device here.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    here = ["cpu", *([accelerator.type] if accelerator else [])]
    if device is None or device == "auto":
        return torch.device(here[-1])
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in here:
        raise NeuroglotError(
            f"device={str(device)!r}: there is no such device here; expected 'auto' or one of "
            f"{listed(here)}."
        )
    return found


def load_model(
    name: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    sites: str | None = None,
    *,
    tokenization: Tokenization | None = None,
    token: str | None = None,
    allow_pickle: bool = False,
) -> Model:
    """Load a dense decoder with its tokenizer and find its feed-forward neurons.

    Args:
        name: ``"embedded/base"``, ``"embedded/aligned"``, a Hub id, or a folder. A folder of
            adapters (LoRA) is loaded with its base model, and added to its weights.
        device: by default a GPU where there is one, else the CPU. ``"auto"`` spreads the layers
            over all devices (``device_map="auto"`` of Hugging Face; needs Accelerate).
        dtype: ``"float32"``, ``"bfloat16"``, …, or ``"auto"`` for the checkpoint's own type; by
            default float32 on the CPU and the checkpoint's own type elsewhere.
        revision: branch, tag or commit of the Hub.
        sites: path of the down projections with ``{i}`` for the layer, where it is not known.
        tokenization: special tokens, chat template, padding side and truncation; by default as
            the tokenizer does.
        token: for gated models; by default the one of ``hf auth login`` or ``HF_TOKEN``.
        allow_pickle: also read weights that are no safetensors. Pickled weights can run code.

    Raises:
        NeuroglotError: the model cannot be found or read, or has no sites that verify.
    """
    try:
        found = adapted(name)
        embedded = found.base.startswith("embedded/")
        source = _embedded_folder(found.base) if embedded else found.base
        wanted = revision or found.revision
        options = {"revision": wanted, "token": token, "trust_remote_code": False}
        hf, tokenizer = _read(source, device, dtype, options, allow_pickle=allow_pickle)
        commit = getattr(hf.config, "_commit_hash", None) or wanted
        for folder in found.folders:
            line = continued(hf)
            hf = merge_adapters(hf, folder)
            set_lineage(hf, line)
        return wrap_model(
            hf, tokenizer, name=str(name), revision=commit, sites=sites, tokenization=tokenization
        )
    except NeuroglotError:
        raise
    except Exception as error:  # configurations, weights and tokenizers can fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise NeuroglotError(
            f"cannot load model {str(name)!r}: {reason} "
            f"(expected {listed(EMBEDDED)}, a Hub id or a folder with safetensors weights; "
            "allow_pickle=True also reads pickled ones; gated models need a token)"
        ) from error


def _read(
    source: str | Path,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    options: dict[str, Any],
    *,
    allow_pickle: bool,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Weights, on their devices, and tokenizer."""
    spread, where = device == "auto", _device(device)
    config = AutoConfig.from_pretrained(source, **options)
    refuse_encoder_decoder(config)
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    found: Any = AutoModelForCausalLM.from_pretrained(
        source,
        config=config,
        dtype=_dtype(dtype, where),
        use_safetensors=None if allow_pickle else True,
        device_map="auto" if spread else None,
        output_loading_info=True,
        **options,
    )
    hf: PreTrainedModel = found[0]
    loaded: dict[str, Any] = found[1]
    absent = sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"]]))
    if absent:
        # They would be filled with random numbers.
        raise NeuroglotError(f"the checkpoint {str(source)!r} lacks weights: {listed(absent)}.")
    # Quantised weights are where they belong, and refuse to be moved.
    if spread or getattr(hf, "is_quantized", False):
        return hf, tokenizer
    torch.nn.Module.to(hf, device=where)  # transformers' own wrapper hides the types
    return hf, tokenizer
