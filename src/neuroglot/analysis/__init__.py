"""What the recorded activity says: categories, repetition, overlap. Pure functions."""

from neuroglot.analysis.flow import category_flow
from neuroglot.analysis.sharing import categories, classify, compare_tasks, sweep_thresholds

__all__ = ["categories", "category_flow", "classify", "compare_tasks", "sweep_thresholds"]
