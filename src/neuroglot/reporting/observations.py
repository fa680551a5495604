"""What a page and a terminal say of equal prompts, and of intervals that there are not."""

from __future__ import annotations

import xarray as xr

from neuroglot.answering.observations import said_of_samples
from neuroglot.reporting.results import Sorted


def said_of(result: xr.Dataset) -> list[str]:
    """Sentences on a result with intervals: which prompts count once, and what has no interval."""
    if "observations" in result.attrs:
        return [text for text in [str(result.attrs["observations"])] if text]
    if not {"item", "language"} <= set(result.dims):
        return []
    return said_of_samples(result, result.get("counted"))


def sample_notes(found: Sorted) -> list[str]:
    """The same for all results, each sentence once for a run, with the run's name before it."""
    kinds = [found.evaluations, *found.interventions.values(), found.alignments]
    kinds += [found.agreements, found.run_comparisons]
    said = [
        f"{run}: {text}"
        for kind in kinds
        for run, result in kind.items()
        for text in said_of(result)
    ]
    return list(dict.fromkeys(said))
