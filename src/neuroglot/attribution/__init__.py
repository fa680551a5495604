"""What neurons contribute to the answers: scores, their sum by category, and a causal check."""

from neuroglot.attribution.agreement import causal_agreement
from neuroglot.attribution.by_category import attribute, share_of_correct
from neuroglot.attribution.describe import Activity, Description, describe
from neuroglot.attribution.logit_parts import logit_parts
from neuroglot.attribution.neuron_scores import neuron_scores

__all__ = [
    "Activity",
    "Description",
    "attribute",
    "causal_agreement",
    "describe",
    "logit_parts",
    "neuron_scores",
    "share_of_correct",
]
