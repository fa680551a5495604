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
from neuroglot.experiments import accuracy, compare, evaluate, fragility, predictions
from neuroglot.interventions import (
    MeanAblate,
    Scale,
    SetTo,
    Variant,
    Zero,
    amplify,
    deactivate,
    doses,
    edit,
    layer_bands,
)
from neuroglot.models import Model, Tokenization, load_model, wrap_model
from neuroglot.neurons import NeuronSet, PromptSets
from neuroglot.recording import BatchSize, Recording, plan_recording, record, save
from neuroglot.recording import open_result as open  # noqa: A004
from neuroglot.report import report
from neuroglot.tasks import ParallelTask, load_task, tasks

__version__ = "0.1.0"

__all__ = [
    "Activity",
    "BatchSize",
    "Description",
    "MeanAblate",
    "Model",
    "NeuroglotError",
    "NeuronSet",
    "ParallelTask",
    "PromptSets",
    "Recording",
    "Scale",
    "SetTo",
    "Tokenization",
    "Training",
    "Variant",
    "Zero",
    "accuracy",
    "align",
    "amplify",
    "attribute",
    "categories",
    "category_flow",
    "causal_agreement",
    "classify",
    "compare",
    "compare_tasks",
    "deactivate",
    "describe",
    "doses",
    "edit",
    "evaluate",
    "fragility",
    "layer_bands",
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
