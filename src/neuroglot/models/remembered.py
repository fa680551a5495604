"""What verification found, kept in the user's cache, so that a model is verified once.

It is kept for the very weights, configuration, classes, code and versions that it was found with.
What cannot be read counts as not there, and what cannot be written is found out again next time.
Models on an accelerator are not remembered: there the passes take less time than the checksum.
"""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs
import torch
import transformers
import xxhash
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError
from neuroglot.models.identity import (
    attentions,
    computing_checksum,
    is_plainly_coded,
    weights_checksum,
)
from neuroglot.models.sites import FoundBy
from neuroglot.models.verify import Verified
from neuroglot.outputs import write_file

FOLDER = "NEUROGLOT_CACHE"  # the environment variable that says where; if empty, nothing is kept


@dataclass(frozen=True)
class Remembered:
    """What is kept of a model.

    Attributes:
        path: of its down projections, with ``{i}`` for the layer.
        found_by: how they were found.
        verified: what was found out about it.
    """

    path: str
    found_by: FoundBy
    verified: Verified


def _folder() -> Path | None:
    named = os.environ.get(FOLDER)
    if named is None:
        return platformdirs.user_cache_path("neuroglot") / "verified"
    return Path(named) / "verified" if named else None


@cache
def _code() -> str:
    """Checksum of the code that finds and verifies; versions do not tell it from a checkout's."""
    whole = xxhash.xxh3_128()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        whole.update(file.read_bytes())
    return whole.hexdigest()


def key_of(hf: PreTrainedModel, path: str | None) -> dict[str, Any] | None:
    """All that what is remembered depends on; ``None`` where that cannot be told, or takes long."""
    on_cpu = all(p.device.type in ("cpu", "meta") for p in hf.parameters())
    if _folder() is None or not on_cpu or not is_plainly_coded(hf):
        return None
    return {
        "code": _code(),
        "weights": weights_checksum(hf),
        "config": computing_checksum(hf),
        "attention": attentions(hf),
        "class": type(hf).__name__,
        "sites": path,
        "device_map": str(getattr(hf, "hf_device_map", None)),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "processor": platform.machine(),
    }


def _file(folder: Path, key: dict[str, Any]) -> Path:
    text = json.dumps(key, sort_keys=True)
    return folder / f"{xxhash.xxh3_128(text.encode()).hexdigest()}.json"


def recall(key: dict[str, Any] | None) -> Remembered | None:
    """What was kept under a key, if anything that can be read was."""
    folder = _folder()
    if key is None or folder is None:
        return None
    try:
        kept = json.loads(_file(folder, key).read_text("utf-8"))
        if kept["key"] != key:
            return None
        found = kept["found"]
        return Remembered(found["path"], found["found_by"], Verified(**found["verified"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(key: dict[str, Any] | None, found: Remembered) -> None:
    """Keep what was found under a key; a file is there as a whole or not at all."""
    folder = _folder()
    if key is None or folder is None:
        return
    text = json.dumps({"key": key, "found": asdict(found)}, indent=1)
    with suppress(OSError, NeuroglotError):
        folder.mkdir(parents=True, exist_ok=True)
        write_file(_file(folder, key), text)
