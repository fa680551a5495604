"""Accuracy for taught and held-out prompts apart, beside what can be had without knowing."""

from __future__ import annotations

import numpy as np
import xarray as xr

from neuroglot.answering.observations import weights_of
from neuroglot.reporting.cells import percent
from neuroglot.reporting.table import Column

KINDS = {"accuracy": "all prompts", "taught": "taught", "held_out": "held out"}
"""Kinds of prompts: all where a task makes no difference, else in languages in which the fact was
taught, and in languages that it was held out of."""


def counted_by_kind(answers: xr.Dataset) -> dict[str, xr.DataArray]:
    """Which prompts count (item, language), by kind."""
    counted, held_out = answers["counted"], answers["held_out"]
    if not held_out.any() and answers.attrs["split"] == "all":
        return {"accuracy": counted}
    return {"taught": counted & ~held_out, "held_out": counted & held_out}


def to_be_compared(answers: xr.Dataset) -> xr.DataArray:
    """The prompts (item, language) of what a guesser knows: held-out ones where there are any."""
    held_out = answers["counted"] & answers["held_out"]
    return held_out if held_out.any() else answers["counted"]


GUESSES = {
    "chance": "chance",
    "majority": "majority",
    "subject_masked": "masked_correct",
    "margin": "margin",
    "margin_beyond_masked": "margin_beyond_masked",
}
"""What stands beside accuracy, and of which variable it is the mean."""


def _masked(share: float, *accuracies: float) -> str:
    """The share; where prompts are answered with their subject only, the word for that."""
    is_answered = not all(np.isnan(accuracies))
    return "none" if is_answered and np.isnan(share) else percent(share)


GUESS_COLUMNS = (
    Column("chance", ("chance",), percent, is_optional=True),
    Column(
        "majority",
        ("majority",),
        percent,
        is_optional=True,
        explained="Majority: what a guesser gets right who knows how often each answer is right in "
        "the relation, but not the subject.",
    ),
    Column(
        "masked",
        ("subject_masked", *KINDS),
        _masked,
        is_optional=True,
        explained="Masked: the model's own accuracy when it is asked of a neutral subject.",
    ),
)
OF_HELD_OUT = (
    "Taught, held out: accuracy on prompts in languages in which the fact was taught to the model, "
    "and in languages in which it never was. Chance and the like are of the held-out prompts, "
    "where there are any."
)


def beside_accuracy(answers: xr.Dataset, counted: xr.DataArray) -> dict[str, xr.DataArray]:
    """What a guesser knows, and margins: values (item, language) of the prompts that count.

    NaN, where results do not hold them: those of before, those without choices, and those of tasks
    without masked prompts.
    """
    unknown = xr.full_like(counted, np.nan, dtype=float)
    return {
        name: answers.get(variable, unknown).where(counted) for name, variable in GUESSES.items()
    }


def mean_of(values: xr.DataArray, answers: xr.Dataset, counted: xr.DataArray) -> float:
    """Mean of values (item, language) over all prompts that count; see :func:`means_of`."""
    return float(means_of(values, answers, counted, None))


def means_of(
    values: xr.DataArray, answers: xr.Dataset, counted: xr.DataArray, dim: str | None = "item"
) -> xr.DataArray:
    """Mean of values (item, language) over the prompts that count, equal ones once.

    Equal prompts of which some have no value, as where not all items have masked prompts, count
    with the mean of the others.

    Args:
        values: of the prompts; NaN where there is none.
        answers: to them.
        counted: which count (item, language).
        dim: over which the mean is; ``None`` for all prompts.
    """
    known = values.astype(float)
    return known.weighted(weights_of(answers, counted & ~np.isnan(known))).mean(dim)


def has_f1(answers: xr.Dataset) -> bool:
    """Whether token F1 says anything: not of choices, nor of numbers."""
    return "f1" in answers and answers.attrs.get("match") != "number"
