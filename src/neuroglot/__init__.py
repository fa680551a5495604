"""Which feed-forward neurons do languages share, and what do they do?

The public names; see the README for a tour.
"""

from neuroglot.analysis import categories, classify, compare_tasks, sweep_thresholds
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
from neuroglot.experiments import accuracy, evaluate, fragility, predictions
from neuroglot.models import Model, Tokenization, load_model, wrap_model
from neuroglot.recording import BatchSize, Recording, plan_recording, record, save
from neuroglot.recording import open_result as open  # noqa: A004
from neuroglot.report import report
from neuroglot.tasks import ParallelTask, load_task, tasks

__version__ = "0.1.0"

__all__ = [
    "Activity",
    "BatchSize",
    "Description",
    "Model",
    "NeuroglotError",
    "ParallelTask",
    "Recording",
    "Tokenization",
    "accuracy",
    "attribute",
    "categories",
    "causal_agreement",
    "classify",
    "compare_tasks",
    "describe",
    "evaluate",
    "fragility",
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
    "wrap_model",
]
