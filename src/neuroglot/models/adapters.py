"""Adapters (LoRA): weights that are added to those of a base model; needs ``peft``."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError, shown

CONFIG = "adapter_config.json"
BASE = "base_model_name_or_path"


def require_peft() -> ModuleType:
    """The library that trains and loads adapters.

    Raises:
        NeuroglotError: it is not installed.
    """
    try:
        import peft  # noqa: PLC0415  # optional
    except ImportError as error:
        raise NeuroglotError("LoRA needs peft: pip install 'neuroglot[lora]'.") from error
    return peft


def base_of(folder: str | Path) -> str | None:
    """Name of the model that an adapter folder belongs to; ``None`` if it is no such folder.

    Raises:
        NeuroglotError: the folder does not say.
    """
    file = Path(folder) / CONFIG
    try:
        if not file.is_file():
            return None
        found = json.loads(file.read_text(encoding="utf-8")).get(BASE)
    except (OSError, ValueError, AttributeError) as error:
        raise NeuroglotError(f"cannot read {str(file)!r}: {error}.") from error
    if not isinstance(found, str) or not found:
        raise NeuroglotError(f"{str(file)!r}: {BASE!r} is {shown(found)}, expected a model's name.")
    return found


def merge_adapters(hf: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """The base model with the adapters of a folder added to its weights, which it changes.

    Raises:
        NeuroglotError: ``peft`` is missing, or the adapters do not fit the model.
    """
    peft: Any = require_peft()
    try:
        merged: PreTrainedModel = peft.PeftModel.from_pretrained(hf, folder).merge_and_unload()
    except Exception as error:  # configurations and weights can fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise NeuroglotError(f"cannot load the adapters in {str(folder)!r}: {reason}.") from error
    return merged
