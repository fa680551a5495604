"""Which feed-forward neurons do languages share, and what do they do?

The public names; see the README for a tour.
"""

from neuroglot.alignment import Training, align, weight_changes
from neuroglot.analysis import categories, category_flow, classify, compare_tasks, sweep_thresholds
from neuroglot.attribution import (
    Activity,
    Description,
    attribute,
    causal_agreement,
    describe,
    logit_parts,
    neuron_scores,
    share_of_correct,
)
from neuroglot.errors import NeuroglotError
from neuroglot.experiments import accuracy, compare, evaluate, fragility, halves, predictions
from neuroglot.interventions import (
    Add,
    Answering,
    Controls,
    MeanAblate,
    Patch,
    Scale,
    SetTo,
    Zero,
    edit,
    effects,
    intervene,
)
from neuroglot.models import Model, Tokenization, load_model, wrap_model
from neuroglot.neurons import NeuronSet
from neuroglot.recording import BatchSize, Recording, plan_recording, record, save
from neuroglot.recording import open_result as open  # noqa: A004
from neuroglot.report import report
from neuroglot.tasks import ParallelTask, load_task, tasks

__version__ = "0.1.0"

__all__ = [
    "Activity",
    "Add",
    "Answering",
    "BatchSize",
    "Controls",
    "Description",
    "MeanAblate",
    "Model",
    "NeuroglotError",
    "NeuronSet",
    "ParallelTask",
    "Patch",
    "Recording",
    "Scale",
    "SetTo",
    "Tokenization",
    "Training",
    "Zero",
    "accuracy",
    "align",
    "attribute",
    "categories",
    "category_flow",
    "causal_agreement",
    "classify",
    "compare",
    "compare_tasks",
    "describe",
    "edit",
    "effects",
    "evaluate",
    "fragility",
    "halves",
    "intervene",
    "load_model",
    "load_task",
    "logit_parts",
    "neuron_scores",
    "open",
    "plan_recording",
    "predictions",
    "record",
    "report",
    "save",
    "share_of_correct",
    "sweep_thresholds",
    "tasks",
    "weight_changes",
    "wrap_model",
]


_REMOVED = {
    "PromptSets": "NeuronSet, which is fixed or has a set for each prompt",
    "Variant": "NeuronSet.layers, .strongest and ~, with ng.Zero or ng.Scale, in ng.intervene",
    "amplify": "intervene with ng.Scale, or neuroglot.interventions.presets.amplify",
    "deactivate": "intervene with ng.Zero, or neuroglot.interventions.presets.deactivate",
    "doses": "NeuronSet.strongest(share), one condition for each share, in ng.intervene",
    "layer_bands": "NeuronSet.layers(0, 1, ...), one condition for each band, in ng.intervene",
}


def __getattr__(name: str) -> object:
    if name in _REMOVED:
        raise AttributeError(f"neuroglot.{name} is gone; use {_REMOVED[name]}.")
    raise AttributeError(f"module 'neuroglot' has no attribute {name!r}")
