"""Hold a model and a task against a recording of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models import Model
from neuroglot.models.tokenization import describe_tokenization
from neuroglot.recording.recording import Recording
from neuroglot.tasks import ParallelTask


def run_as(model: Model) -> dict[str, Any]:
    """What of a model decides what it does with a prompt: weights, edits, dtype, tokenisation."""
    tokenization = describe_tokenization(model.tokenizer, model.tokenization)
    kept = {key: value for key, value in tokenization.items() if key != "padding_side"}
    edits = "; ".join(model.running.edits)
    return {"model_weights": model.fingerprint, "dtype": model.dtype, "edits": edits, **kept}


def said_of(attrs: Mapping[str, Any], key: str) -> Any:
    """What a result says under a key; of edits only where there are any."""
    return attrs.get(key, "" if key == "edits" else None)


def recorded_part(model: Model, task: ParallelTask, recording: Recording) -> ParallelTask:
    """The items and languages of a task that a recording holds.

    Raises:
        NeuroglotError: it is a recording of another model or task, or not of all layers.
    """
    attrs = recording.attrs
    wanted = {"model_weights": model.fingerprint, "task_checksum": task.checksum}
    for key, value in wanted.items():
        if attrs.get(key) != value:
            what = key.partition("_")[0]
            raise NeuroglotError(
                f"the recording is of {what} {attrs.get(what)!r} ({key} "
                f"{str(attrs.get(key))[:16]}), but the {what} given is another ({value[:16]}). "
                "Give the same one, with the same limit, languages, template and split, or record "
                "this one."
            )
    for key, value in run_as(model).items():
        if said_of(attrs, key) != value:
            raise NeuroglotError(
                f"the recording was made with {key} {said_of(attrs, key)!r}, but the model given "
                f"has {value!r}. Load it as it was when it was recorded, or record again."
            )
    if recording.layers != tuple(range(model.n_layers)):
        raise NeuroglotError(
            f"the recording holds the layers {listed(recording.layers)}, expected all "
            f"{model.n_layers}."
        )
    kept = set(recording.items)
    by_id = {item["id"]: item for item in task.items if item["id"] in kept}
    items = [by_id[item] for item in recording.items]
    return replace(task, items=items, languages=recording.languages)
