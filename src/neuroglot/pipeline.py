"""The main job: what a model shares on a task, how well it answers, and the demo of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from neuroglot.answering.answering import Answering
from neuroglot.answering.evaluation import evaluate
from neuroglot.answering.predictions import save_predictions
from neuroglot.attribution.by_category import attribute
from neuroglot.attribution.direct import weights_for
from neuroglot.attribution.neuron_scores import check_scores
from neuroglot.defaults import DEMO_ITEMS, NEURON_SCORES
from neuroglot.errors import NeuroglotError, UnsupportedError
from neuroglot.models.loading import EMBEDDED, load_model
from neuroglot.models.model import Model
from neuroglot.models.operations import operation
from neuroglot.recording.reading import Reading
from neuroglot.recording.recorder import record
from neuroglot.recording.recording import Recording
from neuroglot.sharing.categories import classify, compare_tasks
from neuroglot.store.results import keep
from neuroglot.store.whose import folder_for_results
from neuroglot.tasks.catalogue import load_task
from neuroglot.tasks.parallel import ParallelTask

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
PREDICTIONS = "predictions.csv"  # beside the results of a run
DEMO_TEMPLATES = ("native", "shared")
DEMO_TASKS = ("facts", "inference", "editing_en_xx")

Results = dict[str, xr.Dataset | xr.DataArray]


@dataclass(frozen=True)
class Run:
    """One model on one task: what was recorded and what follows from it."""

    recording: Recording
    results: Results


@operation
def run(
    model: Model,
    task: ParallelTask,
    *,
    name: str | None = None,
    reading: Reading | None = None,
    answering: Answering | None = None,
    scores: Sequence[str] = NEURON_SCORES,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Run:
    """Record, classify, evaluate and attribute.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        task: answered where it has answers.
        name: what the results call this run; by default the task's name.
        reading: what is recorded; by default the gates at the last token of the prompt, with the
            thresholds of the sweep. Categories are those of threshold 0.
        answering: how prompts are answered; see :class:`neuroglot.Answering`.
        scores: of neurons, to be added up by category; those that the model has none of are left
            out with a warning. See :func:`neuroglot.attribute`.
        out: folder to keep everything in; a run that was stopped goes on there, and one of fewer
            items or languages grows.
        overwrite: replace what ``out`` holds of other settings.

    Raises:
        NeuroglotError: ``out`` holds results of other settings.
    """
    read = Reading(thresholds=THRESHOLDS) if reading is None else reading
    name = name or task.name
    if scores:
        check_scores(scores)
    out = None if out is None else folder_for_results(out)

    def place(part: str) -> Path | None:
        return out / part if out is not None else None

    recording = record(model, task, reading=read, out=place("recording"), overwrite=overwrite)
    results: Results = {
        f"{name}/sharing": classify(recording),
        f"{name}/thresholds": classify(recording, thresholds=recording.thresholds),
    }
    if out is not None:
        for key, result in results.items():
            keep(result, out / key.rpartition("/")[2])
    if task.has_answers:
        answers = evaluate(
            model,
            task,
            out=place("answers"),
            answering=answering,
            overwrite=overwrite,
        )
        results[f"{name}/answers"] = answers
        if out is not None:
            save_predictions(task, answers, out / PREDICTIONS)
        defined = _defined(model, scores)
        if defined:
            results[f"{name}/attribution"] = attribute(
                model,
                task,
                recording=recording,
                scores=defined,
                answers=answers,
                out=place("attribution"),
                overwrite=overwrite,
            )
    return Run(recording, results)


def _defined(model: Model, scores: Sequence[str]) -> list[str]:
    """The scores that a model has."""
    found = []
    for score in scores:
        try:
            weights_for(model, [score])
        except UnsupportedError as error:
            warnings.warn(f"{score} is left out: {error}", stacklevel=4)
        else:
            found.append(score)
    return found


def run_demo(items: int = DEMO_ITEMS) -> Results:
    """Both embedded models under both templates, and three tasks side by side.

    Raises:
        NeuroglotError: fewer than one item, or more than one of the tasks has.
    """
    tasks = {name: load_task(name, limit=items) for name in DEMO_TASKS}
    fewest = min(len(task) for task in tasks.values())
    if fewest < items:
        raise NeuroglotError(f"{items} items: the demo's smallest task has {fewest}.")
    results: Results = {}
    for model_name in EMBEDDED:
        model, short = load_model(model_name), model_name.rpartition("/")[2]
        runs = [
            run(
                model,
                load_task("facts", limit=items, template=template),
                name=f"{short}, {template}",
                # Of one template, for a page of bearable length.
                scores=NEURON_SCORES if template == DEMO_TEMPLATES[0] else (),
            )
            for template in DEMO_TEMPLATES
        ]
        others = [record(model, tasks[name]) for name in DEMO_TASKS[1:]]
        results |= runs[0].results | runs[1].results
        results[short] = compare_tasks([runs[0].recording, *others])
    return results
