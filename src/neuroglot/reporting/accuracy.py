"""Accuracy apart for taught and held-out prompts, beside what can be had without knowing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.answering.evaluation import accuracy
from neuroglot.answering.observations import OVER_RELATIONS, weights_of

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
IN_NATS = ("margin", "margin_beyond_masked")


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


def accuracy_frame(answers: xr.Dataset) -> pd.DataFrame:
    """One row a kind of prompts and language: accuracy, its interval, :data:`GUESSES`, number."""
    parts = []
    for kind, counted in counted_by_kind(answers).items():
        found = accuracy(answers["correct"], counted, seed=answers.attrs["seed"])
        beside = beside_accuracy(answers, counted)
        table = xr.Dataset(
            {
                "accuracy": found["accuracy"],
                # Ends of intervals, "low" and those over relations if there are any.
                **{name.removeprefix("accuracy_"): found[name] for name in list(found)[1:]},
                **{name: means_of(x, answers, counted) for name, x in beside.items()},
                "prompts": counted.sum("item"),
            }
        )
        parts.append(table.to_dataframe().reset_index().assign(kind=kind))
    return pd.concat(parts, ignore_index=True)


def accuracy_rows(answers: xr.Dataset) -> list[dict[str, Any]]:
    """One row a language: accuracy with its interval by kind, :data:`GUESSES` and token F1.

    What a guesser knows, and margins, are those of the held-out prompts, where a language has any.
    """
    frame = accuracy_frame(answers)
    asked = frame.groupby("kind")["prompts"].transform("sum") > 0
    rows = []
    for language in answers["language"].to_numpy():
        row: dict[str, Any] = {"language": str(language), **dict.fromkeys(GUESSES, np.nan)}
        for one in frame[asked & (frame["language"] == language)].to_dict("records"):
            kind = str(one["kind"])
            row |= {kind: one["accuracy"], f"{kind}_low": one["low"], f"{kind}_high": one["high"]}
            row |= {f"{kind}{end}": one[end[1:]] for end in OVER_RELATIONS if end[1:] in one}
            row |= {f"{kind}_prompts": one["prompts"]}
            if one["prompts"]:
                row |= {key: one[key] for key in GUESSES}
        rows.append(row)
    if has_f1(answers):
        f1 = means_of(answers["f1"], answers, answers["counted"])
        for row in rows:
            row["token_f1"] = float(f1.sel(language=row["language"]))
    return rows


def accuracy_cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of :func:`accuracy_rows`, each interval beside its share.

    Columns of which nothing is known in any language are left out.
    """
    kinds = [kind for kind in KINDS if kind in rows[0]]
    others = [
        key
        for key in (*GUESSES, "token_f1")
        if key in rows[0] and not all(np.isnan(row[key]) for row in rows)
    ]
    wider = [kind for kind in kinds if f"{kind}{OVER_RELATIONS[0]}" in rows[0]]
    named = ("language", *kinds, *(f"{kind} over relations" for kind in wider), *others)
    headings = [HEADINGS.get(x, x.replace("_", " ")) for x in named]
    return [*headings, "prompts"], [_cells(row, kinds, wider, others) for row in rows]


def has_wider(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether there are intervals over relations."""
    return any(f"{kind}{OVER_RELATIONS[0]}" in row for row in rows for kind in KINDS)


WIDER = "Over relations: 95 % intervals of the wider claim, for other relations."
HEADINGS = {"subject_masked": "masked", "margin_beyond_masked": "beyond masked"}


def _cells(
    row: dict[str, Any], kinds: Sequence[str], wider: Sequence[str], others: Sequence[str]
) -> list[str]:
    cells = [row["language"]]
    for kind in kinds:
        ends = _ends(row, f"{kind}_low", f"{kind}_high")
        cells.append(percent(row[kind]) + (f" ({ends})" if ends else ""))
    cells += [_ends(row, *(f"{kind}{end}" for end in OVER_RELATIONS)) or "–" for kind in wider]
    cells += [nats(row[key]) if key in IN_NATS else percent(row[key]) for key in others]
    return [*cells, " + ".join(str(row[f"{kind}_prompts"]) for kind in kinds)]


def _ends(row: dict[str, Any], low: str, high: str) -> str:
    """The ends of an interval in per cent; nothing of none."""
    known = not np.isnan(row[low])
    return f"{100 * row[low]:.1f}–{100 * row[high]:.1f}" if known else ""


def percent(share: float, digits: int = 1) -> str:
    """``12.3%``; a dash for what is not known, and never ``-0.0%``."""
    if np.isnan(share):
        return "–"
    return f"{round(100 * share, digits) + 0.0:.{digits}f}%"  # adding 0.0 takes the sign off -0.0


def nats(margin: float) -> str:
    """``+1.23``; a dash for what is not known, and never ``-0.00``."""
    return "–" if np.isnan(margin) else f"{round(margin, 2) + 0.0:+.2f}"


def what_is_missing(answers: xr.Dataset) -> list[str]:
    """Sentences that say what is not known of some answers, and why."""
    old = [] if "majority" in answers else ["An earlier version kept no majority and no margins."]
    return [sentence for sentence in (*old, why_not_masked(answers)) if sentence]


def why_not_masked(answers: xr.Dataset) -> str:
    """In words, why nothing is known of the model with the subject masked; empty where it is.

    Where some items have masked prompts and others do not, it says how many have.
    """
    if "masked_correct" in answers:
        counted = to_be_compared(answers)
        n_there = int(answers["masked_correct"].where(counted).count())
        n_all = int(counted.sum())
        return "" if n_there == n_all else f"{n_there:,} of {n_all:,} prompts have a masked form."
    if answers.attrs.get("masked") == "left out":
        return "The subject was not masked in this run, although the task has masked prompts."
    if "text" in answers:
        return "The subject was not masked: only choices are asked for without it."
    return "The subject was not masked: the task has no masked prompts."


def guesses_explained(results: Iterable[xr.Dataset], *, margins: bool = True) -> list[str]:
    """Sentences that say what stands beside the accuracy of some answers, margins or not."""
    found = list(results)
    shown = [name for name in GUESSES if margins or name not in IN_NATS]
    known = {name for answers in found for name in shown if GUESSES[name] in answers}
    sentences = [text for name, text in EXPLAINED.items() if name in known]
    if any(answers["held_out"].any() for answers in found):
        sentences.append("Chance and these are of the held-out prompts, where there are any.")
    return sentences


EXPLAINED = {
    "majority": "Majority: what a guesser gets right who knows how often each answer is right in "
    "the relation, but not the subject.",
    "subject_masked": "Masked: the model's own accuracy when it is asked of a neutral subject.",
    "margin": "Margin: the right choice's log-probability less the best wrong one's, in nats.",
    "margin_beyond_masked": "Beyond masked: the margin less that with the subject masked.",
}


def has_f1(answers: xr.Dataset) -> bool:
    """Whether token F1 says anything: not of choices, nor of numbers."""
    return "f1" in answers and answers.attrs.get("match") != "number"
