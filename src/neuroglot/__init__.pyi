# The public names, and where each is made; they are imported when they are first used.
from .alignment.align import align
from .alignment.changes import weight_changes
from .alignment.training_settings import Training
from .answering.answering import Answering
from .answering.evaluation import accuracy, evaluate
from .answering.predictions import predictions
from .attribution.agreement import causal_agreement
from .attribution.by_category import attribute, share_of_correct
from .attribution.describe import describe
from .attribution.logit_parts import logit_parts
from .attribution.neuron_scores import neuron_scores
from .comparison.comparison import compare
from .comparison.fragility import fragility
from .errors import NeuroglotError
from .interventions.controls import Controls
from .interventions.edits import Add, MeanAblate, Patch, Scale, SetTo, Zero, edit
from .interventions.effects import effects
from .interventions.intervene import intervene
from .models.loading import load_model
from .models.model import Model, wrap_model
from .models.tokenization import Tokenization
from .neurons.neuron_set import NeuronSet
from .pipeline import load, run
from .recording.reading import Reading
from .recording.recorder import plan_recording, record
from .recording.recording import Recording
from .reporting.gathering import tables
from .reporting.page import report
from .reporting.showing import plot
from .sharing.categories import categories, classify, most_often
from .sharing.flow import category_flow
from .store.results import save
from .tasks.catalogue import list_tasks, load_task
from .tasks.halves import halves
from .tasks.parallel import ParallelTask

__version__: str
__all__ = [
    "Add",
    "Answering",
    "Controls",
    "MeanAblate",
    "Model",
    "NeuroglotError",
    "NeuronSet",
    "ParallelTask",
    "Patch",
    "Reading",
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
    "describe",
    "edit",
    "effects",
    "evaluate",
    "fragility",
    "halves",
    "intervene",
    "list_tasks",
    "load",
    "load_model",
    "load_task",
    "logit_parts",
    "most_often",
    "neuron_scores",
    "plan_recording",
    "plot",
    "predictions",
    "record",
    "report",
    "run",
    "save",
    "share_of_correct",
    "tables",
    "weight_changes",
    "wrap_model",
]
