"""The earlier checkpoints that a model was trained from; their neurons correspond to its own."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from neuroglot.models.identity import weights_checksum

KEY = "neuroglot_lineage"  # in the configuration, which is saved with the weights


def lineage(hf: PreTrainedModel) -> tuple[str, ...]:
    """Checksums of the earlier checkpoints in the configuration, the oldest first."""
    checkpoints = getattr(hf.config, KEY, ())
    return tuple(map(str, checkpoints)) if isinstance(checkpoints, list | tuple) else ()


def continued(hf: PreTrainedModel) -> tuple[str, ...]:
    """The lineage of a model that is trained from this one."""
    return (*lineage(hf), weights_checksum(hf))


def set_lineage(hf: PreTrainedModel, checkpoints: Sequence[str]) -> None:
    """Record the earlier checkpoints in the configuration; without any, remove the entry."""
    if checkpoints:
        setattr(hf.config, KEY, list(checkpoints))
    elif hasattr(hf.config, KEY):
        delattr(hf.config, KEY)
