"""Change what neurons do, beside controls, and measure the answers."""

from neuroglot.interventions.answering import Answering
from neuroglot.interventions.conditions import Controls
from neuroglot.interventions.edits import Add, MeanAblate, Patch, Scale, SetTo, Zero, edit
from neuroglot.interventions.effects import effects
from neuroglot.interventions.intervene import intervene

__all__ = [
    "Add",
    "Answering",
    "Controls",
    "MeanAblate",
    "Patch",
    "Scale",
    "SetTo",
    "Zero",
    "edit",
    "effects",
    "intervene",
]
