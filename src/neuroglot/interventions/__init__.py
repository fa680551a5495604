"""Change what neurons do, beside controls, and measure the answers."""

from neuroglot.interventions.amplify import amplify
from neuroglot.interventions.conditions import Variant
from neuroglot.interventions.deactivate import deactivate, doses, layer_bands
from neuroglot.interventions.edits import MeanAblate, Scale, SetTo, Zero, edit

__all__ = [
    "MeanAblate",
    "Scale",
    "SetTo",
    "Variant",
    "Zero",
    "amplify",
    "deactivate",
    "doses",
    "edit",
    "layer_bands",
]
