"""Adapters (LoRA): weights that are added to those of a base model. They need ``peft``."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError, in_one_line, listed, shown
from neuroglot.models.checkpoint import ADAPTERS, check_index
from neuroglot.models.multimodal import left_out

BASE = "base_model_name_or_path"
SAFE_WEIGHTS, PICKLED_WEIGHTS = "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."  # beginning of every name in a file of adapters


def require_peft() -> ModuleType:
    """The library that trains and loads adapters.

    Raises:
        NeuroglotError: ``peft`` is not installed.
    """
    try:
        import peft  # noqa: PLC0415  # optional
    except ImportError as error:
        raise NeuroglotError("LoRA needs the package peft: pip install peft.") from error
    return peft


@dataclass(frozen=True)
class Adapted:
    """A base model and the adapters that are to be merged into it.

    Attributes:
        base: name of the base model.
        revision: its revision, if the adapters name one.
        folders: folders of the adapters, in the order in which they are merged.
    """

    base: str
    revision: str | None
    folders: tuple[Path, ...]


def adapted(name: str | Path) -> Adapted:
    """The base model and the adapters that a name stands for.

    A folder of adapters may name another folder of adapters as its base model.

    Raises:
        NeuroglotError: a folder of adapters does not name its base model.
    """
    base, revision = str(name), None
    folders: list[Path] = []
    while (file := Path(base) / ADAPTERS).is_file():
        if file.parent in folders:
            raise NeuroglotError(f"the adapters in {str(file.parent)!r} belong to themselves.")
        folders.append(file.parent)
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
            named, revision = config.get(BASE), config.get("revision")
        except (OSError, ValueError, AttributeError) as error:
            raise NeuroglotError(f"cannot read {str(file)!r}: {error}.") from error
        if not isinstance(named, str) or not named:
            raise NeuroglotError(
                f"{str(file)!r}: {BASE!r} is {shown(named)}, expected a model's name."
            )
        base = named
    return Adapted(base, revision, tuple(folders[::-1]))


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Within the block, hide warnings about deprecated names that ``peft`` itself uses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*gradient_checkpoint")
        yield


def check_adapters(folder: Path, *, allow_pickle: bool) -> None:
    """Refuse adapters that cannot be used, before their weights are read.

    Args:
        folder: folder of the adapters.
        allow_pickle: whether pickled weights may be read.

    Raises:
        NeuroglotError: there are no weights, they are pickled although that is not allowed, an
            index names files outside of the folder, or the adapters are of a kind that cannot be
            merged into weights.
    """
    for index in folder.glob("*.index*.json"):
        check_index(index, allow_pickle=allow_pickle)
    if not (folder / SAFE_WEIGHTS).is_file():
        if not (folder / PICKLED_WEIGHTS).is_file():
            raise NeuroglotError(
                f"the adapters in {str(folder)!r} have no weights: expected {SAFE_WEIGHTS}."
            )
        if not allow_pickle:
            raise NeuroglotError(
                f"the adapters in {str(folder)!r} are pickled ({PICKLED_WEIGHTS}), which can run "
                f"code: save them as {SAFE_WEIGHTS}, or load them with allow_pickle=True."
            )
    peft: Any = require_peft()
    try:
        config = peft.PeftConfig.from_pretrained(folder)
    except Exception as error:  # configurations can fail in any way
        reason = in_one_line(error)
        raise NeuroglotError(f"cannot read {str(folder / ADAPTERS)!r}: {reason}.") from error
    # X-LoRA would also read further adapters that its configuration names.
    if config.is_prompt_learning or str(config.peft_type.value) in ("XLORA", "ADAPTION_PROMPT"):
        raise NeuroglotError(
            f"the adapters in {str(folder)!r} are of type {config.peft_type.value}, which are not "
            "added to the weights of a model; expected a type that is, such as LORA."
        )


def merge_adapters(hf: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """The base model, changed in place, with the adapters of a folder added to its weights.

    If the folder holds embeddings for another number of tokens, the model is resized to it.

    Raises:
        NeuroglotError: ``peft`` is missing, or the adapters do not fit the model.
    """
    peft: Any = require_peft()
    try:
        with quiet_peft():
            weights = peft.load_peft_weights(str(folder), device="cpu")
            n_tokens = _n_tokens(hf, weights)
            if n_tokens is not None:
                n_before = len(_embeddings(hf)[0])
                hf.resize_token_embeddings(n_tokens, mean_resizing=False)
                for part in _embeddings(hf):
                    part.data[n_before:] = torch.nan  # until the adapters bring their own rows
            merged = _merged(peft, hf, folder, weights)
    except NeuroglotError:
        raise
    except Exception as error:  # configurations and weights can fail in any way
        reason = in_one_line(error)
        raise NeuroglotError(f"cannot load the adapters in {str(folder)!r}: {reason}.") from error
    if n_tokens is not None and any(bool(part.isnan().any()) for part in _embeddings(merged)):
        raise NeuroglotError(
            f"the adapters in {str(folder)!r} are for {n_tokens} tokens, but hold no embeddings "
            "for some that their base model does not have; save both its input and its output "
            "embeddings with them (modules_to_save)."
        )
    return merged


def _merged(
    peft: Any, hf: PreTrainedModel, folder: str | Path, weights: dict[str, Tensor]
) -> PreTrainedModel:
    """The model with the adapters in its weights.

    Raises:
        NeuroglotError: adapters have no place in the model, or places in it have no adapters.
    """
    ignored = tuple(PREFIX + path for path in (*left_out(hf), *_tied_head(hf)))
    wrapped = peft.PeftModel.from_pretrained(hf, folder)
    # Loading them once more reports what did not fit, which from_pretrained does not.
    report = wrapped.load_adapter(folder, wrapped.active_adapter)
    # Embeddings that are trained whole are saved under two names, and read under the other one.
    mark = ".modules_to_save."
    unused = [
        name
        for name in report.unexpected_keys
        if not name.startswith(ignored)
        and not (mark in name and name.replace(mark, ".") in weights)
    ]
    if unused or report.missing_keys:
        superfluous = f"there is no place in it for {listed(unused, 3)}"
        lacking = f"there are none for {listed(report.missing_keys, 3)}"
        raise NeuroglotError(
            f"the adapters in {str(folder)!r} do not fit their base model: "
            f"{superfluous if unused else lacking}."
        )
    merged: PreTrainedModel = wrapped.merge_and_unload()
    return merged


def _tied_head(hf: Any) -> list[str]:
    """The path of the LM head, followed by a dot, if it shares its weights with the embeddings."""
    first, last = hf.get_input_embeddings(), hf.get_output_embeddings()
    if last is None or last.weight is not first.weight:
        return []
    return [f"{name}." for name, module in hf.named_modules() if module is last]


def _embedding_layers(hf: Any) -> list[nn.Module]:
    """The input embeddings and the LM head."""
    layers = (hf.get_input_embeddings(), hf.get_output_embeddings())
    return [layer for layer in layers if layer is not None]


def _embeddings(hf: PreTrainedModel) -> list[Tensor]:
    """Weights with one row for each token."""
    return [part for layer in _embedding_layers(hf) for part in layer.parameters()]


def _n_tokens(hf: PreTrainedModel, weights: dict[str, Tensor]) -> int | None:
    """How many tokens the adapters are for; ``None`` if the model has as many."""
    names = {module: name for name, module in hf.named_modules()}
    n_before = len(_embeddings(hf)[0])
    beginnings = tuple(f"{PREFIX}{names[layer]}." for layer in _embedding_layers(hf))
    rows = {
        len(values)
        for name, values in weights.items()
        if name.startswith(beginnings) and name.endswith("weight") and ".lora_" not in name
    }
    n_tokens = max(rows, default=n_before)
    return None if n_tokens == n_before else n_tokens
