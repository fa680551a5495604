"""What models answer, with and without edits, and how sure that is."""

from neuroglot.experiments.comparison import compare
from neuroglot.experiments.evaluation import accuracy, evaluate
from neuroglot.experiments.fragility import fragility
from neuroglot.experiments.halves import halves
from neuroglot.experiments.predictions import predictions

__all__ = ["accuracy", "compare", "evaluate", "fragility", "halves", "predictions"]
