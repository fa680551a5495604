"""Results of verification, stored in the user's cache so that a model is verified only once.

They hold for exactly the same weights, configuration, classes, code and versions of libraries. A
file that cannot be read counts as missing, and a result that cannot be written is computed again
next time. Models on an accelerator are not remembered: verifying them takes less time than the
checksum.
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

FOLDER = "NEUROGLOT_CACHE"  # environment variable with the folder; if empty, nothing is stored


@dataclass(frozen=True)
class Remembered:
    """What is stored for a model.

    Attributes:
        path: path of its down projections, with ``{i}`` for the layer.
        found_by: how they were found.
        verified: the results of its verification.
    """

    path: str
    found_by: FoundBy
    verified: Verified


def _folder() -> Path | None:
    """Where results are stored; ``None`` if they are not stored at all."""
    chosen = os.environ.get(FOLDER)
    if chosen == "":
        return None
    return (Path(chosen) if chosen else platformdirs.user_cache_path("neuroglot")) / "verified"


@cache
def _code() -> str:
    """Checksum of the code that finds and verifies, which may change without a new version."""
    whole = xxhash.xxh3_128()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        whole.update(file.read_bytes())
    return whole.hexdigest()


def key_of(hf: PreTrainedModel, path: str | None) -> dict[str, Any] | None:
    """Everything that verification depends on; ``None`` if that is unknown or takes too long."""
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


def _file(key: dict[str, Any] | None) -> Path | None:
    """The file for a key; ``None`` if nothing is stored."""
    folder = _folder()
    if key is None or folder is None:
        return None
    text = json.dumps(key, sort_keys=True)
    return folder / f"{xxhash.xxh3_128(text.encode()).hexdigest()}.json"


def recall(key: dict[str, Any] | None) -> Remembered | None:
    """What was stored under a key, or ``None`` if there is nothing that can be read."""
    file = _file(key)
    if file is None:
        return None
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(file.read_text("utf-8"))
        if stored["key"] == key:
            model = stored["found"]
            return Remembered(model["path"], model["found_by"], Verified(**model["verified"]))
    return None


def remember(key: dict[str, Any] | None, model: Remembered) -> None:
    """Store the results for a model under a key, as a whole file or not at all."""
    file = _file(key)
    if file is None:
        return
    text = json.dumps({"key": key, "found": asdict(model)}, indent=1)
    with suppress(OSError, NeuroglotError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, text)
