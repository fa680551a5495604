"""The part of a task that a recording holds."""

from __future__ import annotations

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.model import Model
from neuroglot.recording.recording import Recording
from neuroglot.store.joining import require_alike, require_of_model
from neuroglot.store.provenance import checksum_of_prompts
from neuroglot.tasks.parallel import ParallelTask


def require_all_layers(recording: Recording, model: Model, what: str) -> None:
    """Refuse a recording of some layers only.

    Raises:
        NeuroglotError: it says which there are.
    """
    if recording.layers != tuple(range(model.n_layers)):
        raise NeuroglotError(
            f"{what} holds the layers {listed(recording.layers)}, expected all {model.n_layers}."
        )


def recorded_part(model: Model, task: ParallelTask, recording: Recording) -> ParallelTask:
    """The items and languages of a task that a recording holds.

    Raises:
        NeuroglotError: it is a recording of another model, task or prompts, or not of all layers.
    """
    what = "the recording"
    require_of_model(recording.attrs, model, what)
    now = {"task_checksum": task.checksum}
    require_alike(recording.attrs, now, what, "task")
    # Only of the right task; else it would be the other prompts that are told of.
    now = {"prompts_checksum": checksum_of_prompts(model, task)}
    require_alike(recording.attrs, now, what, "task")
    require_all_layers(recording, model, what)
    kept = set(recording.items)
    by_id = {item["id"]: item for item in task.items if item["id"] in kept}
    items = [by_id[item] for item in recording.items]
    return task.part(items, recording.languages)
