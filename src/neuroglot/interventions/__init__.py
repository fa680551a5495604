"""Change what neurons do, beside controls, and measure the answers."""

from neuroglot.interventions.edits import MeanAblate, Scale, SetTo, Zero, edit

__all__ = ["MeanAblate", "Scale", "SetTo", "Zero", "edit"]
