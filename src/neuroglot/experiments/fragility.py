"""Record the same prompts with other batches and in another number type, and compare."""

from __future__ import annotations

import torch
import xarray as xr

from neuroglot.analysis.fragility import compare_values
from neuroglot.errors import NeuroglotError
from neuroglot.models import Model, operation
from neuroglot.models.convert import in_dtype
from neuroglot.recording import Recording, record
from neuroglot.tasks import ParallelTask

FULL, HALF = torch.float32, torch.bfloat16
OTHER_BATCH = 8  # prompts, whatever their length: by a budget of tokens, long ones would run alone


@operation
def fragility(
    model: Model,
    task: ParallelTask,
    *,
    site: str = "gate",
    position: str = "last",
    threshold: float = 0.0,
) -> xr.Dataset:
    """How many categories depend on rounding: on the batch size, and on the number type.

    The reference is one prompt at a time, the other batch size eight. Values of all prompts are
    kept in memory, and for a while a second copy of the model, so take some tens of items.

    What is counted is what happened to these prompts, with neither an interval nor a test for
    others; so an equal prompt is another run, and counts.

    Args:
        model: in float32 or bfloat16; it is compared with itself in the other of the two.
        task: whose prompts are recorded.
        site: as in :func:`neuroglot.record`.
        position: as in :func:`neuroglot.record`.
        threshold: a neuron is active where its site value is greater.

    Returns:
        See :func:`neuroglot.analysis.fragility.compare_values`.

    Raises:
        NeuroglotError: the model is in another number type, offloaded, quantised or being edited.
    """
    model.require_unedited()
    if model.hf.dtype not in {FULL, HALF}:
        raise NeuroglotError(
            f"the model is in {model.dtype}; load it with dtype='float32' or 'bfloat16'."
        )

    def values(of: Model, batch_size: int) -> Recording:
        return record(
            of,
            task,
            site=site,
            position=position,
            thresholds=threshold,
            keep_values=True,
            batch_size=batch_size,
        )

    reference = values(model, 1)
    others = {"other batch size": values(model, OTHER_BATCH)}
    converted = in_dtype(model, HALF if model.hf.dtype == FULL else FULL)
    others[converted.dtype] = values(converted, 1)
    return compare_values(reference, others, threshold)
