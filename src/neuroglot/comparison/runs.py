"""Open the runs that are compared, and check that they can be."""

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
from neuroglot.recording.saved import load_saved
from neuroglot.sharing.categories import classify
from neuroglot.store.joining import OF_READING, OF_TOKENIZATION, RUN_AS, named, refuse_old, said_of
from neuroglot.store.provenance import OF_PROMPTS

Source = str | Path | tuple[Recording, xr.Dataset]
"""The folder of a run, or its recording and answers."""

RECORDING, ANSWERS = "recording", "answers"  # in the folder of a run
OF_RECORDINGS = (
    *("task", "template", "split", "match", "task_checksum"),
    *("edits", *OF_READING),
)
OF_ONE_RUN = (*RUN_AS, *OF_PROMPTS)
# Attributes that differ between models with different architectures or tokenizers.
OF_RELATED = (
    *("model_config", "tokenizer_checksum", "prompts_checksum", "dtype"),
    *("float32_matmul_precision", *OF_TOKENIZATION),
)
OF_ANSWERS = ("answered_by", "choice_score", "max_new_tokens", "grading", "asked_in")


@dataclass(frozen=True)
class ComparedRun:
    """A run that is compared.

    Attributes:
        name: the name of the run in the comparison.
        recording: the recording of the model on the task.
        answers: the answers of the model, from :func:`neuroglot.evaluate`.
        sharing: the sharing in the recording, from :func:`neuroglot.classify`.
    """

    name: str
    recording: Recording
    answers: xr.Dataset
    sharing: xr.Dataset


def opened_runs(
    runs: Mapping[str, Source] | Sequence[str | Path], threshold: float, *, unrelated: bool
) -> list[ComparedRun]:
    """Open runs, and check that they have the same task, items, template and thresholds.

    Args:
        runs: runs by their names, or the folders of runs.
        threshold: the threshold of the categories.
        unrelated: whether the models may differ in more than their weights.

    Raises:
        NeuroglotError: there are fewer than two runs, a run is named twice, a folder is no run, or
            the runs differ (the message says in what).
    """
    named = dict(runs) if isinstance(runs, Mapping) else _by_name(runs)
    if len(named) < 2:
        raise NeuroglotError(f"a comparison needs at least two runs, found {listed(named) or 0}.")
    opened: list[tuple[str, Recording, xr.Dataset]] = []
    for name, source in named.items():
        opened.append((name, *_read(name, source)))
        _require_alike(opened[0], opened[-1], unrelated=unrelated)
    return [
        ComparedRun(name, recording, answers, classify(recording, threshold=threshold))
        for name, recording, answers in opened
    ]


def _by_name(folders: Sequence[str | Path]) -> dict[str, Source]:
    """Folders by their names, with as many parents as are needed to make names different."""
    if isinstance(folders, str | Path):
        raise NeuroglotError(f"runs={str(folders)!r}: expected a list of folders.")
    paths = [Path(folder).absolute() for folder in folders]
    if len(set(paths)) < len(paths):
        raise NeuroglotError(f"a run is named twice: {listed(folders)}.")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    # In the names of results, a slash separates a run from its results.
    names = [" ".join(path.parts[-depth:]).replace("/", " ") for path in paths]
    return dict(zip(names, folders, strict=True))


def _read(name: str, source: Source) -> tuple[Recording, xr.Dataset]:
    if isinstance(source, str | Path):
        folder = Path(source)
        if not (folder / RECORDING).is_dir() or not (folder / ANSWERS).is_dir():
            raise NeuroglotError(
                f"{str(folder)!r} is not a run: it lacks {RECORDING!r} or {ANSWERS!r}. Expected a "
                "folder that `neuroglot run` wrote, or one in 'runs' of an alignment."
            )
        both: Any = (load_saved(folder / RECORDING), load_saved(folder / ANSWERS))
    else:
        both = source
    recording, answers = both
    kinds = [getattr(result, "attrs", {}).get("kind") for result in both]
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
    """Check that two runs were made in the same way.

    Raises:
        NeuroglotError: they were not; the message says what differs.
    """
    (name, recording, answers), (other_name, other_recording, other_answers) = first, other
    both = f"runs {name!r} and {other_name!r}"
    _require_one_run(*other)
    for key, one, two in [
        *(
            (k, said_of(recording.attrs, k), said_of(other_recording.attrs, k))
            for k in OF_RECORDINGS
        ),
        *((k, answers.attrs.get(k), other_answers.attrs.get(k)) for k in OF_ANSWERS),
        ("languages", recording.languages, other_recording.languages),
        ("thresholds", recording.thresholds, other_recording.thresholds),
        ("items", recording.items, other_recording.items),
    ]:
        if one == two:
            continue
        shown = [listed(v, 3) if isinstance(v, tuple) else repr(v) for v in (one, two)]
        raise NeuroglotError(
            f"{both} differ in {key}: {shown[0]}; {shown[1]}. Run both models on the same task, "
            "with the same limit, languages, template and thresholds."
        )
    if not unrelated:
        _require_related(both, recording, other_recording)


def _require_related(both: str, recording: Recording, other: Recording) -> None:
    """Check that the models of two runs differ in nothing but their weights.

    Raises:
        NeuroglotError: they differ in something else; the message says in what.
    """
    for key in OF_RELATED:
        one, two = said_of(recording.attrs, key), said_of(other.attrs, key)
        if one != two:
            raise NeuroglotError(
                f"{both} differ in more than the weights of their models: in "
                f"{named(key)}: {one!r:.40}; {two!r:.40}. Compare a model with one that was "
                "trained from it, or pass unrelated=True (--unrelated) to compare models that have "
                "nothing else in common."
            )
    if recording.layers != other.layers:
        raise NeuroglotError(
            f"{both} were recorded on different layers: {listed(recording.layers)}; "
            f"{listed(other.layers)}."
        )


def _require_one_run(name: str, recording: Recording, answers: xr.Dataset) -> None:
    """Check that answers are of the model and the prompts that were recorded.

    Raises:
        NeuroglotError: they are not; the message says what differs.
    """
    for what, one, two in (
        ("items", recording.items, tuple(answers["item"].to_numpy())),
        ("languages", recording.languages, tuple(answers["language"].to_numpy())),
        *((k, said_of(recording.attrs, k), said_of(answers.attrs, k)) for k in OF_ONE_RUN),
    ):
        if one != two:
            raise NeuroglotError(f"run {name!r} has recorded other {what} than it has answered.")


def places_along(x: str, names: Sequence[str]) -> np.ndarray[Any, Any]:
    """The last number in the name of each run, such as its step.

    Raises:
        NeuroglotError: a name has no number, or two names have the same number.
    """
    numbers = []
    for name in names:
        in_name = re.findall(r"\d+(?:\.\d+)?", name)
        if not in_name:
            raise NeuroglotError(
                f"x={x!r}: the name of run {name!r} holds no number; name runs by their {x}, as "
                f"'{x}-100'."
            )
        numbers.append(float(in_name[-1]))
    if len(set(numbers)) < len(numbers):
        raise NeuroglotError(f"x={x!r}: two runs have the same number: {listed(names)}.")
    whole = all(number.is_integer() for number in numbers)
    return np.array(numbers, dtype=int if whole else float)
