"""Adapters (LoRA): weights that are added to those of a base model; needs ``peft``."""

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
PREFIX = "base_model.model."  # of every name in a file of adapters


def require_peft() -> ModuleType:
    """The library that trains and loads adapters.

    Raises:
        NeuroglotError: it is not installed.
    """
    try:
        import peft  # noqa: PLC0415  # optional
    except ImportError as error:
        raise NeuroglotError("LoRA needs the package peft: pip install peft.") from error
    return peft


@dataclass(frozen=True)
class Adapted:
    """A model that adapters belong to.

    Attributes:
        base: its name.
        revision: its revision, where it has one.
        folders: of the adapters, in the order in which they are added to it.
    """

    base: str
    revision: str | None
    folders: tuple[Path, ...]


def adapted(name: str | Path) -> Adapted:
    """What a name stands for: a model, or folders of adapters, one on the other, with their base.

    Raises:
        NeuroglotError: an adapter folder does not say what it belongs to.
    """
    base, revision = str(name), None
    folders: list[Path] = []
    while (file := Path(base) / ADAPTERS).is_file():
        if file.parent in folders:
            raise NeuroglotError(f"the adapters in {str(file.parent)!r} belong to themselves.")
        folders.append(file.parent)
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
            found, revision = config.get(BASE), config.get("revision")
        except (OSError, ValueError, AttributeError) as error:
            raise NeuroglotError(f"cannot read {str(file)!r}: {error}.") from error
        if not isinstance(found, str) or not found:
            raise NeuroglotError(
                f"{str(file)!r}: {BASE!r} is {shown(found)}, expected a model's name."
            )
        base = found
    return Adapted(base, revision, tuple(folders[::-1]))


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Within the block, what ``peft`` itself calls by an old name is not the user's concern."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*gradient_checkpoint")
        yield


def check_adapters(folder: Path, *, allow_pickle: bool) -> None:
    """Refuse adapters that could not be used, before their weights are read.

    Args:
        folder: of the adapters.
        allow_pickle: whether pickled weights are read, too.

    Raises:
        NeuroglotError: there are no weights; they are pickled and that is not allowed, or an index
            leads out of the folder; or the adapters are of a kind that is not added to weights.
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
    config = _config(folder)
    # The latter name other adapters, which are read with them.
    if config.is_prompt_learning or str(config.peft_type.value) in ("XLORA", "ADAPTION_PROMPT"):
        raise NeuroglotError(
            f"the adapters in {str(folder)!r} are of type {config.peft_type.value}, which are not "
            "added to the weights of a model; expected ones that are, such as LORA."
        )


def _config(folder: Path) -> Any:
    peft: Any = require_peft()
    try:
        return peft.PeftConfig.from_pretrained(folder)
    except Exception as error:  # configurations can fail in any way
        reason = in_one_line(error)
        raise NeuroglotError(f"cannot read {str(folder / ADAPTERS)!r}: {reason}.") from error


def merge_adapters(hf: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """The base model with the adapters of a folder added to its weights, which it changes.

    Where the folder holds embeddings for another number of tokens, the model has as many then.

    Raises:
        NeuroglotError: ``peft`` is missing, or the adapters do not fit the model.
    """
    peft: Any = require_peft()
    try:
        with quiet_peft():
            weights = peft.load_peft_weights(str(folder), device="cpu")
            n_tokens = _n_tokens(hf, weights)
            if n_tokens is not None:
                _resize(hf, n_tokens)
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
    elsewhere = tuple(PREFIX + path for path in (*left_out(hf), *_tied_head(hf)))
    wrapped = peft.PeftModel.from_pretrained(hf, folder)
    # Only this says what did not fit; from_pretrained leaves it out.
    report = wrapped.load_adapter(folder, wrapped.active_adapter)
    unused = [
        name
        for name in report.unexpected_keys
        if not name.startswith(elsewhere) and _other_name(name) not in weights
    ]
    if unused or report.missing_keys:
        found = f"there is no place in it for {listed(unused, 3)}"
        lacking = f"there are none for {listed(report.missing_keys, 3)}"
        raise NeuroglotError(
            f"the adapters in {str(folder)!r} do not fit their base model: "
            f"{found if unused else lacking}."
        )
    merged: PreTrainedModel = wrapped.merge_and_unload()
    return merged


def _other_name(name: str) -> str | None:
    """Embeddings that are trained whole are written under two names, and read under this one."""
    mark = ".modules_to_save."
    return name.replace(mark, ".") if mark in name else None


def _tied_head(hf: Any) -> list[str]:
    """The path of an LM head, with a dot at its end, that takes its weights from the embeddings."""
    first, last = hf.get_input_embeddings(), hf.get_output_embeddings()
    if last is None or last.weight is not first.weight:
        return []
    return [f"{name}." for name, module in hf.named_modules() if module is last]


def _embedding_layers(hf: Any) -> list[nn.Module]:
    """What turns tokens into vectors, and vectors into logits."""
    layers = (hf.get_input_embeddings(), hf.get_output_embeddings())
    return [layer for layer in layers if layer is not None]


def _embeddings(hf: PreTrainedModel) -> list[Tensor]:
    """Weights with one row for each token."""
    return [part for layer in _embedding_layers(hf) for part in layer.parameters()]


def _n_tokens(hf: PreTrainedModel, weights: dict[str, Tensor]) -> int | None:
    """How many tokens adapters are for, where that is not what the model has."""
    names = {module: name for name, module in hf.named_modules()}
    before = len(_embeddings(hf)[0])
    beginnings = tuple(f"{PREFIX}{names[layer]}." for layer in _embedding_layers(hf))
    rows = {
        len(values)
        for name, values in weights.items()
        if name.startswith(beginnings) and name.endswith("weight") and ".lora_" not in name
    }
    found = max(rows, default=before)
    return None if found == before else found


@torch.no_grad()
def _resize(hf: PreTrainedModel, n_tokens: int) -> None:
    """Make room for tokens. New rows are NaN until the adapters bring theirs."""
    before = len(_embeddings(hf)[0])
    hf.resize_token_embeddings(n_tokens, mean_resizing=False)
    for part in _embeddings(hf):
        part[before:] = torch.nan
