"""The part of a task that a recording holds."""

from __future__ import annotations

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.model import Model
from neuroglot.recording.recording import Recording
from neuroglot.store.joining import require_alike, require_of_model
from neuroglot.store.provenance import checksum_of_prompts
from neuroglot.tasks.parallel import ParallelTask


def require_all_layers(recording: Recording, model: Model, what: str) -> None:
    """Check that a recording holds all layers of a model.

    Raises:
        NeuroglotError: layers are missing; the message lists those that it has.
    """
    if recording.layers != tuple(range(model.n_layers)):
        raise NeuroglotError(
            f"{what} holds the layers {listed(recording.layers)}, expected all {model.n_layers}."
        )


def recorded_part(model: Model, task: ParallelTask, recording: Recording) -> ParallelTask:
    """The items and languages of a task that a recording holds.

    Raises:
        NeuroglotError: the recording is of another model, task or prompts, or not of all layers.
    """
    what = "the recording"
    require_of_model(recording.attrs, model, what)
    require_alike(recording.attrs, {"task_checksum": task.checksum}, what, "task")
    # After the task, since the prompts of another task differ too.
    prompts = {"prompts_checksum": checksum_of_prompts(model, task)}
    require_alike(recording.attrs, prompts, what, "task")
    require_all_layers(recording, model, what)
    by_id = {item["id"]: item for item in task.items}
    return task.part([by_id[item] for item in recording.items], recording.languages)
