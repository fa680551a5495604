"""Amplify a category: the factor is chosen on one half of the items and reported on the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import xarray as xr

from neuroglot.errors import NeuroglotError, require_finite
from neuroglot.experiments.differences import EQUIVALENT_WITHIN
from neuroglot.experiments.evaluation import MAX_NEW_TOKENS
from neuroglot.experiments.observations import samples_of
from neuroglot.interventions.conditions import CONTROLS, Variant, check_category
from neuroglot.interventions.job import answering, check_controls, job_of
from neuroglot.interventions.outcome import AMPLIFICATION, answers_under, outcome_of
from neuroglot.models import Model, operation
from neuroglot.neurons.neuron_set import UNION
from neuroglot.recording import Recording
from neuroglot.recording.batching import BatchSize
from neuroglot.recording.store import save
from neuroglot.tasks import ParallelTask

FACTORS = (1.1, 1.25, 1.5, 2.0, 3.0)


@operation
def amplify(  # noqa: PLR0913 (the public contract)
    model: Model,
    task: ParallelTask,
    recording: Recording,
    *,
    category: str = "all_shared",
    factors: Sequence[float] = FACTORS,
    controls: Sequence[str] = CONTROLS,
    draws: int = 5,
    seed: int = 0,
    equivalent_within: float = EQUIVALENT_WITHIN,
    positions: str = "answer",
    threshold: float = 0.0,
    score: str = "sum",
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: BatchSize = "auto",
    out: str | Path | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """Multiply a category's coefficients, and see whether answers get better.

    The factor with the highest accuracy on a development half of the items is taken (of equal ones
    the one nearest to 1); what it does is that of the other half. No subject and no prompt is in
    both halves.

    Args:
        model: the one that was recorded.
        task: the one that was recorded; its items need answers.
        recording: from :func:`neuroglot.record`, of all layers.
        category: see :func:`neuroglot.deactivate`.
        factors: to choose from.
        controls: see :func:`neuroglot.deactivate`; their coefficients get the same factor.
        draws: see :func:`neuroglot.deactivate`.
        seed: see :func:`neuroglot.deactivate`.
        equivalent_within: see :func:`neuroglot.deactivate`.
        positions: see :func:`neuroglot.edit`.
        threshold: a neuron was active where its site value was greater.
        score: see :func:`neuroglot.evaluate`.
        max_new_tokens: see :func:`neuroglot.evaluate`.
        batch_size: prompts in a batch; ``"auto"`` fills a budget of tokens.
        out: folder for the result and what it is made of; finished conditions there are kept.
        overwrite: replace what ``out`` holds.

    Returns:
        What :func:`neuroglot.deactivate` returns, for the chosen factor and the other half; and
        ``development_accuracy`` (chosen_from), for each factor and 1, no edit.

    Raises:
        NeuroglotError: see :func:`neuroglot.deactivate`; or factors that are none.
    """
    category = UNION.join(check_category(category))
    values = _checked(factors)
    job = job_of(
        model,
        task,
        recording,
        controls=check_controls(controls, draws, seed, equivalent_within),
        how=answering(positions, score, max_new_tokens, batch_size),
        threshold=threshold,
        out=out,
        overwrite=overwrite,
    )
    development, test = job.halves()
    alone = replace(development, controls=check_controls((), draws, seed, equivalent_within))
    tried = answers_under(alone, [(category, Variant(factor=factor)) for factor in values])
    accuracies = [_accuracy(tried["correct_no_edit"], tried)]
    accuracies += [_accuracy(tried["correct"][i], tried) for i in range(len(values))]
    given = [1.0, *values]
    best = max(range(1, len(given)), key=lambda i: (accuracies[i], -abs(given[i] - 1)))
    found = outcome_of(test, [(category, Variant(factor=given[best]))], AMPLIFICATION)
    found["development_accuracy"] = xr.DataArray(
        accuracies, dims="chosen_from", coords={"chosen_from": given}
    )
    if job.out is not None:
        save(found, job.out / AMPLIFICATION, overwrite=True)
    return found


def _checked(factors: Sequence[float]) -> list[float]:
    if not isinstance(factors, Iterable):
        raise NeuroglotError(f"factors={factors!r}: expected a list of numbers.")
    for factor in factors:
        require_finite("factors", factor)
    values = [float(factor) for factor in factors]
    if not values or len(set(values)) < len(values) or {0.0, 1.0} & set(values):
        raise NeuroglotError(f"factors={values}: expected different ones, none of 0 or 1.")
    return values


def _accuracy(correct: xr.DataArray, outcome: xr.Dataset) -> float:
    """Over the prompts that count, equal ones once; choosing by it takes no interval or test."""
    counted = outcome["counted"].transpose("item", "language").to_numpy()
    right = correct.transpose("item", "language").to_numpy().astype(float)
    return samples_of(outcome).observed(right, counted).mean
