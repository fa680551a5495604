"""Which checkpoints a model continues, so that its neurons are the same as theirs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from transformers import PreTrainedModel

FINGERPRINT_SAMPLE = 256  # values of each parameter
KEY = "neuroglot_lineage"  # in the configuration, which is saved with the weights


def fingerprint(hf: PreTrainedModel) -> str:
    """Checksum over a sample of every weight."""
    digest = hashlib.sha256()
    for parameter in hf.parameters():
        if parameter.is_meta:  # offloaded to the disk
            continue
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, len(flat) // FINGERPRINT_SAMPLE)]
        digest.update(sample.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def lineage(hf: PreTrainedModel) -> tuple[str, ...]:
    """What the configuration says of the checkpoints before this one, the oldest first."""
    found = getattr(hf.config, KEY, ())
    return tuple(map(str, found)) if isinstance(found, list | tuple) else ()


def continued(hf: PreTrainedModel) -> tuple[str, ...]:
    """The lineage of what is trained from this model."""
    return (*lineage(hf), fingerprint(hf))


def set_lineage(hf: PreTrainedModel, checkpoints: Sequence[str]) -> None:
    """Have the configuration say which checkpoints the model continues; nothing for none."""
    if checkpoints:
        setattr(hf.config, KEY, list(checkpoints))
    elif hasattr(hf.config, KEY):
        delattr(hf.config, KEY)
