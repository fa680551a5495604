"""Runs that are compared: read, and held against each other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.errors import NeuroglotError, listed
from neuroglot.recording.recording import Recording
from neuroglot.recording.saved import load
from neuroglot.sharing.categories import classify
from neuroglot.store.joining import (
    OF_TOKENIZATION,
    RUN_AS,
    named,
    refuse_old,
    said_of,
)
from neuroglot.store.provenance import OF_PROMPTS

Source = str | Path | tuple[Recording, xr.Dataset]
"""The folder of a run, or what was recorded and answered."""

RECORDING, ANSWERS = "recording", "answers"  # in the folder of a run
OF_RECORDINGS = (
    *("task", "template", "split", "match", "task_checksum"),
    *("edits", "site", "position", "added_tokens"),
)
OF_ONE_RUN = (*RUN_AS, *OF_PROMPTS)
# What models of another architecture, or with another tokenizer, cannot have in common.
OF_RELATED = (
    *("model_config", "tokenizer_checksum", "prompts_checksum", "dtype"),
    *("float32_matmul_precision", *OF_TOKENIZATION),
)
OF_ANSWERS = ("answered_by", "choice_score", "max_new_tokens", "grading", "asked_in")


@dataclass(frozen=True)
class ComparedRun:
    """One run under its name.

    Attributes:
        name: what the comparison calls it.
        recording: of the model on the task.
        answers: of the model to the task.
        sharing: of the recording.
    """

    name: str
    recording: Recording
    answers: xr.Dataset
    sharing: xr.Dataset


def opened_runs(
    runs: Mapping[str, Source] | Sequence[str | Path], threshold: float, *, unrelated: bool
) -> list[ComparedRun]:
    """The runs, checked to be of the same task, items, template and thresholds.

    Args:
        runs: by their names, or folders.
        threshold: of the categories.
        unrelated: whether their models may differ in more than weights.

    Raises:
        NeuroglotError: fewer than two, two of one name, a folder that is no run, or runs that
            differ; it says in what.
    """
    named = dict(runs) if isinstance(runs, Mapping) else _by_name(runs)
    if len(named) < 2:
        raise NeuroglotError(f"a comparison needs at least two runs, found {listed(named) or 0}.")
    found = []
    for name, source in named.items():
        recording, answers = _read(name, source)
        found.append((name, recording, answers))
        _require_alike(found[0], found[-1], unrelated=unrelated)
    return [ComparedRun(*one, classify(one[1], threshold=threshold)) for one in found]


def _by_name(folders: Sequence[str | Path]) -> dict[str, Source]:
    """Folders by their names, with as much of the path before as tells them apart."""
    if isinstance(folders, str | Path):
        raise NeuroglotError(f"runs={str(folders)!r}: expected a list of folders.")
    paths = [Path(folder).absolute() for folder in folders]
    if len(set(paths)) < len(paths):
        raise NeuroglotError(f"a run is named twice: {listed(folders)}.")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    # A slash would be taken for what tells the results of one run apart.
    names = [" ".join(path.parts[-depth:]).replace("/", " ") for path in paths]
    return dict(zip(names, folders, strict=True))


def _read(name: str, source: Source) -> tuple[Recording, xr.Dataset]:
    if isinstance(source, str | Path):
        folder = Path(source)
        if not (folder / RECORDING).is_dir() or not (folder / ANSWERS).is_dir():
            raise NeuroglotError(
                f"{str(folder)!r} is no run: it lacks {RECORDING!r} or {ANSWERS!r}. Name folders "
                "that `neuroglot run` wrote, or those in 'runs' of an alignment."
            )
        both: Any = (load(folder / RECORDING), load(folder / ANSWERS))
    else:
        both = source
    recording, answers = both
    kinds = [getattr(x, "attrs", {}).get("kind") for x in both]
    if kinds != ["recording", "evaluation"]:
        raise NeuroglotError(f"run {name!r} is of {kinds}; expected a recording and an evaluation.")
    for result in both:
        refuse_old(result.attrs, f"run {name!r}")
    return recording, answers


def _require_alike(
    first: tuple[str, Recording, xr.Dataset],
    other: tuple[str, Recording, xr.Dataset],
    *,
    unrelated: bool,
) -> None:
    """Refuse runs of which the numbers cannot be held against each other.

    Raises:
        NeuroglotError: it says what differs.
    """
    (name, recording, answers), (other_name, other_recording, other_answers) = first, other
    both = f"runs {name!r} and {other_name!r}"
    _require_one_run(*other)
    for key, one, two in [
        *((k, *(said_of(x.attrs, k) for x in (recording, other_recording))) for k in OF_RECORDINGS),
        *((k, answers.attrs.get(k), other_answers.attrs.get(k)) for k in OF_ANSWERS),
        ("languages", recording.languages, other_recording.languages),
        ("thresholds", recording.thresholds, other_recording.thresholds),
        ("items", recording.items, other_recording.items),
    ]:
        if one == two:
            continue
        shown = [listed(x, 3) if isinstance(x, tuple) else repr(x) for x in (one, two)]
        raise NeuroglotError(
            f"{both} differ in {key}: {shown[0]}; {shown[1]}. Run both models on the same task, "
            "with the same limit, languages, template and thresholds."
        )
    if not unrelated:
        _require_related(both, recording, other_recording)


def _require_related(both: str, recording: Recording, other: Recording) -> None:
    """Refuse runs whose models differ in more than their weights.

    Raises:
        NeuroglotError: it says in what.
    """
    for key in OF_RELATED:
        one, two = (said_of(x.attrs, key) for x in (recording, other))
        if one != two:
            raise NeuroglotError(
                f"{both} differ in more than the weights of their models: in "
                f"{named(key)}: {one!r:.40}; {two!r:.40}. Compare a model with "
                "what was trained from it; or pass unrelated=True (--unrelated) to compare levels "
                "of models that have nothing else in common."
            )
    if recording.layers != other.layers:
        raise NeuroglotError(
            f"{both} were recorded on different layers: {listed(recording.layers)}; "
            f"{listed(other.layers)}."
        )


def _require_one_run(name: str, recording: Recording, answers: xr.Dataset) -> None:
    """Refuse answers that are not those of the model and the prompts that were recorded."""
    for what, one, two in (
        ("items", recording.items, tuple(answers["item"].to_numpy())),
        ("languages", recording.languages, tuple(answers["language"].to_numpy())),
        *((k, said_of(recording.attrs, k), said_of(answers.attrs, k)) for k in OF_ONE_RUN),
    ):
        if one != two:
            raise NeuroglotError(f"run {name!r} has recorded other {what} than it has answered.")


def places_along(x: str, names: Sequence[str]) -> np.ndarray[Any, Any]:
    """The number in the name of each run, such as its step.

    Raises:
        NeuroglotError: a name holds none, or two hold the same.
    """
    found = [re.findall(r"\d+(?:\.\d+)?", name) for name in names]
    without = [name for name, numbers in zip(names, found, strict=True) if not numbers]
    if without:
        raise NeuroglotError(
            f"x={x!r}: the name of run {without[0]!r} holds no number; name runs by their {x}, as "
            f"'{x}-100'."
        )
    numbers = [float(each[-1]) for each in found]
    if len(set(numbers)) < len(numbers):
        raise NeuroglotError(f"x={x!r}: two runs have the same number: {listed(names)}.")
    whole = all(number.is_integer() for number in numbers)
    return np.array(numbers, dtype=int if whole else float)
