"""The kinds of results that a report shows, one file for each; :data:`KINDS` lists them."""

from __future__ import annotations

from neuroglot.reporting.kind import Kind
from neuroglot.reporting.kinds.agreement import AGREEMENT
from neuroglot.reporting.kinds.alignment import ALIGNMENT
from neuroglot.reporting.kinds.answers import ANSWERS
from neuroglot.reporting.kinds.attribution import ATTRIBUTION
from neuroglot.reporting.kinds.comparison import COMPARISON
from neuroglot.reporting.kinds.fragility import FRAGILITY
from neuroglot.reporting.kinds.outcome import OUTCOME
from neuroglot.reporting.kinds.sharing import SHARING
from neuroglot.reporting.kinds.task_comparison import TASK_COMPARISON
from neuroglot.reporting.kinds.thresholds import THRESHOLDS

KINDS: tuple[Kind, ...] = (
    *(ANSWERS, SHARING, THRESHOLDS, ATTRIBUTION, AGREEMENT, OUTCOME, ALIGNMENT, COMPARISON),
    *(TASK_COMPARISON, FRAGILITY),
)
"""The kinds, in the order of the page."""
