"""Which checkpoints a model continues, so that its neurons are the same as theirs."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from neuroglot.models.identity import weights_checksum

KEY = "neuroglot_lineage"  # in the configuration, which is saved with the weights


def lineage(hf: PreTrainedModel) -> tuple[str, ...]:
    """What the configuration says of the checkpoints before this one, the oldest first."""
    found = getattr(hf.config, KEY, ())
    return tuple(map(str, found)) if isinstance(found, list | tuple) else ()


def continued(hf: PreTrainedModel) -> tuple[str, ...]:
    """The lineage of what is trained from this model."""
    return (*lineage(hf), weights_checksum(hf))


def set_lineage(hf: PreTrainedModel, checkpoints: Sequence[str]) -> None:
    """Have the configuration say which checkpoints the model continues; nothing for none."""
    if checkpoints:
        setattr(hf.config, KEY, list(checkpoints))
    elif hasattr(hf.config, KEY):
        delattr(hf.config, KEY)
