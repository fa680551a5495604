"""What every result says of where it comes from."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch

from neuroglot.models import Model
from neuroglot.models.tokenization import describe_tokenization
from neuroglot.tasks import ParallelTask

PACKAGES = ("neuroglot", "torch", "transformers")


def versions() -> dict[str, str]:
    """Versions of neuroglot and of what decides its numbers."""
    return {f"{package}_version": version(package) for package in PACKAGES}


def model_provenance(model: Model) -> dict[str, Any]:
    """Name, revision, checksum, number type and place of a model, its edits and tokenisation."""
    edits = {"edits": "; ".join(model.running.edits)} if model.running.edits else {}
    lineage = {"model_lineage": " ".join(model.lineage)} if model.lineage else {}
    return {
        **edits,
        **lineage,
        "model": model.name,
        "model_revision": model.revision or "",
        "model_weights": model.fingerprint,
        "dtype": model.dtype,
        "device": str(model.device),
        # On a GPU the order of sums may differ from run to run.
        "deterministic": int(
            model.device.type == "cpu" or torch.are_deterministic_algorithms_enabled()
        ),
        **describe_tokenization(model.tokenizer, model.tokenization),
    }


def task_provenance(task: ParallelTask) -> dict[str, Any]:
    """Name, template, split, notes and checksum of a task."""
    return {
        "task": task.name,
        "template": task.template or "",
        "split": task.split,
        "match": task.match,
        "task_notes": "; ".join(task.notes),
        "task_checksum": task.checksum,
    }
