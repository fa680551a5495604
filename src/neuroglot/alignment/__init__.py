"""Fine-tune a model on parallel texts, and see what becomes of sharing and of its answers."""

from neuroglot.alignment.align import align
from neuroglot.alignment.changes import weight_changes
from neuroglot.alignment.settings import Training

__all__ = ["Training", "align", "weight_changes"]
