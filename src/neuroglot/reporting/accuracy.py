"""Accuracy on taught and on held-out prompts, beside the accuracy of guessers."""

from __future__ import annotations

import numpy as np
import xarray as xr

from neuroglot.answering.observations import weights_of
from neuroglot.reporting.cells import percent
from neuroglot.reporting.table import Column

KINDS_OF_PROMPTS = {"accuracy": "all prompts", "taught": "taught", "held_out": "held out"}
"""Kinds of prompts: all prompts, or prompts in languages in which the fact was taught and in
languages in which it was held out, if the task makes this difference."""


def counted_by_kind(answers: xr.Dataset) -> dict[str, xr.DataArray]:
    """Which prompts count (item, language), by kind."""
    counted, held_out = answers["counted"], answers["held_out"]
    if not held_out.any() and answers.attrs["split"] == "all":
        return {"accuracy": counted}
    return {"taught": counted & ~held_out, "held_out": counted & held_out}


def to_be_compared(answers: xr.Dataset) -> xr.DataArray:
    """The prompts for which guessers are shown: held-out ones if there are any (item, language)."""
    held_out = answers["counted"] & answers["held_out"]
    return held_out if held_out.any() else answers["counted"]


GUESSES = {
    "chance": "chance",
    "majority": "majority",
    "subject_masked": "masked_correct",
    "margin": "margin",
    "margin_beyond_masked": "margin_beyond_masked",
}
"""Names of the numbers beside accuracy, and the variables that they are the means of."""


def _masked(share: float, *accuracies: float) -> str:
    """The share as a text, or ``none`` if no prompt was asked with its subject masked."""
    is_answered = not all(np.isnan(accuracies))
    return "none" if is_answered and np.isnan(share) else percent(share)


GUESS_COLUMNS = (
    Column("chance", ("chance",), percent, is_optional=True),
    Column(
        "majority",
        ("majority",),
        percent,
        is_optional=True,
        explained="Majority: the accuracy of a guesser who knows how often each answer is right in "
        "the relation, but not the subject.",
    ),
    Column(
        "masked",
        ("subject_masked", *KINDS_OF_PROMPTS),
        _masked,
        is_optional=True,
        explained="Masked: the model's own accuracy when it is asked about a neutral subject.",
    ),
)
OF_HELD_OUT = (
    "Taught, held out: accuracy on prompts in languages in which the fact was taught to the model, "
    "and in languages in which it never was. Chance, majority and masked are of the held-out "
    "prompts, if there are any."
)


def beside_accuracy(answers: xr.Dataset, counted: xr.DataArray) -> dict[str, xr.DataArray]:
    """The values of :data:`GUESSES` for the prompts that count, by name (item, language).

    They are NaN if the result lacks them, as results of early versions, results without choices and
    results of tasks without masked prompts do.
    """
    unknown = xr.full_like(counted, np.nan, dtype=float)
    return {
        name: answers.get(variable, unknown).where(counted) for name, variable in GUESSES.items()
    }


def mean_of(values: xr.DataArray, answers: xr.Dataset, counted: xr.DataArray) -> float:
    """The mean of values (item, language) over all prompts that count; see :func:`means_of`."""
    return float(means_of(values, answers, counted, None))


def means_of(
    values: xr.DataArray, answers: xr.Dataset, counted: xr.DataArray, dim: str | None = "item"
) -> xr.DataArray:
    """The mean of values over the prompts that count, in which equal prompts count once.

    Among equal prompts, those without a value are left out of their mean.

    Args:
        values: a value for each prompt, or NaN (item, language).
        answers: the answers to the prompts.
        counted: which prompts count (item, language).
        dim: the dimension of the mean; ``None`` for the mean over all prompts.
    """
    numbers = values.astype(float)
    return numbers.weighted(weights_of(answers, counted & ~np.isnan(numbers))).mean(dim)


def has_f1(answers: xr.Dataset) -> bool:
    """Whether answers have a meaningful token F1: written ones do, unless they are numbers."""
    return "f1" in answers and answers.attrs.get("match") != "number"
