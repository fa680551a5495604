"""Readers of published datasets: plain functions that make items of the published rows."""

from __future__ import annotations

from types import ModuleType

from neuroglot.tasks.readers import mgsm, mpararel, mzsre, xcopa, xnli, xquad
from neuroglot.tasks.readers.source import Dataset, Source

# Each module has `languages_in(source)` and `items(source, languages, wording)`.
READERS: dict[str, ModuleType] = {
    "mgsm": mgsm,
    "mpararel": mpararel,
    "mzsre": mzsre,
    "xcopa": xcopa,
    "xnli": xnli,
    "xquad": xquad,
}

__all__ = ["READERS", "Dataset", "Source"]
