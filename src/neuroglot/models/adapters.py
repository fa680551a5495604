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
    while (file := Path(base) / CONFIG).is_file():
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


def merge_adapters(hf: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """The base model with the adapters of a folder added to its weights, which it changes.

    Raises:
        NeuroglotError: ``peft`` is missing, or the adapters do not fit the model.
    """
    peft: Any = require_peft()
    try:
        with quiet_peft():
            merged: PreTrainedModel = peft.PeftModel.from_pretrained(hf, folder).merge_and_unload()
    except Exception as error:  # configurations and weights can fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise NeuroglotError(f"cannot load the adapters in {str(folder)!r}: {reason}.") from error
    return merged
