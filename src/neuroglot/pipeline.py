"""The main job: record a model on a task, evaluate it and attribute its answers; and the demo."""

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
from neuroglot.comparison.runs import ANSWERS, RECORDING
from neuroglot.defaults import DEMO_ITEMS, NEURON_SCORES
from neuroglot.errors import NeuroglotError, UnsupportedError
from neuroglot.models.loading import EMBEDDED, load_model
from neuroglot.models.model import Model
from neuroglot.models.operations import operation
from neuroglot.options import options_of
from neuroglot.recording.reading import Reading
from neuroglot.recording.recorder import record
from neuroglot.recording.recording import Recording
from neuroglot.recording.saved import Stored, load_saved
from neuroglot.sharing.categories import classify, compare_tasks
from neuroglot.store.folders import discard, is_result
from neuroglot.store.results import as_saved, keep, opened
from neuroglot.store.whose import folder_for_results
from neuroglot.tasks.catalogue import load_task
from neuroglot.tasks.parallel import ParallelTask

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
PREDICTIONS = "predictions.csv"  # beside the results of a run
DEMO_TEMPLATES = ("native", "shared")
# Where the folder of a function that keeps other things too has what the function returned.
RETURNED = ("outcome", "test/outcome", "alignment", "comparison")
PARTS = ("sharing", "thresholds", ANSWERS, "attribution")
DEMO_TASKS = ("facts", "inference", "editing_en_xx")

Results = dict[str, xr.Dataset | xr.DataArray]


@dataclass(frozen=True)
class Run:
    """The outcome of :func:`run`.

    Attributes:
        recording: the recording of the model on the task.
        results: the results by name, such as ``"facts/sharing"``.
    """

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
    """Record, classify, evaluate and attribute: everything for one model on one task.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        task: the task. If it has no answers, it is only recorded and classified.
        name: the name of the run in the results; by default the name of the task.
        reading: the values that are recorded; by default the gates at the last token of the
            prompt, with thresholds from 0 to 0.5. Categories are those of threshold 0.
        answering: how prompts are answered; see :class:`neuroglot.Answering`.
        scores: the scores of neurons that are added up by category; see
            :func:`neuroglot.attribute`. Scores that are not defined for the model are left out
            with a warning.
        out: the folder for everything. A run there that was stopped goes on, and one with fewer
            items or languages grows. By default nothing is saved.
        overwrite: whether to replace results with other settings in ``out``.

    Returns:
        A :class:`Run` with the recording and the results: ``NAME/sharing`` and
        ``NAME/thresholds`` from :func:`neuroglot.classify`, and, if the task has answers,
        ``NAME/answers`` from :func:`neuroglot.evaluate` and ``NAME/attribution`` from
        :func:`neuroglot.attribute`.

    Raises:
        NeuroglotError: ``out`` holds results with other settings.

    Examples:
        >>> import neuroglot as ng
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=4)
        >>> sorted(ng.run(ng.load_model("embedded/base"), task, scores=()).results)
        ['facts/answers', 'facts/sharing', 'facts/thresholds']
    """
    reading = Reading(thresholds=THRESHOLDS) if reading is None else reading
    answering = options_of(answering, Answering, "answering")
    name = name or task.name
    if scores:
        check_scores(scores)
    out = None if out is None else folder_for_results(out)

    def place(part: str) -> Path | None:
        return out / part if out is not None else None

    if out is not None and overwrite:
        for part in PARTS:  # first, so that a run that is stopped goes on without overwrite=True
            discard(out / part)
    recording = record(model, task, reading=reading, out=place(RECORDING), overwrite=overwrite)
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
            out=place(ANSWERS),
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


def load(path: str | Path) -> Stored | Run:
    """Load what a function returned, from the folder that it got as ``out`` or was saved to.

    The data of a recording are read when they are used; other results are read at once.

    Args:
        path: the folder.

    Returns:
        The recording or the result as it was when it was saved. For the folder of :func:`run`,
        which holds several, a :class:`Run`, whose name is that of the folder.

    Raises:
        NeuroglotError: there is no result, it was not finished, it is damaged, or it cannot be
            read for another reason.

    Examples:
        >>> import tempfile
        >>> import neuroglot as ng
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     recording = ng.record(ng.load_model("embedded/base"), task, out=f"{folder}/facts")
        ...     ng.load(f"{folder}/facts")
        Recording(embedded/base on facts: 4 items, 2 languages, 6 layers of 768 neurons)
    """
    folder = Path(path)
    if is_result(folder):
        return load_saved(folder)
    for place in RETURNED:
        if is_result(folder / place):
            return load_saved(folder / place)
    recording = load_saved(folder / RECORDING) if is_result(folder / RECORDING) else None
    if not isinstance(recording, Recording):
        return load_saved(folder)  # which says what is wrong
    name = folder.resolve().name
    parts = {part: folder / part for part in PARTS if is_result(folder / part)}
    return Run(
        recording, {f"{name}/{part}": as_saved(at, opened(at)) for part, at in parts.items()}
    )


def _defined(model: Model, scores: Sequence[str]) -> list[str]:
    """The scores that are defined for a model; a warning names each of the others."""
    defined = []
    for score in scores:
        try:
            weights_for(model, [score])
        except UnsupportedError as error:
            warnings.warn(f"{score} is left out: {error}", stacklevel=4)
        else:
            defined.append(score)
    return defined


def run_demo(items: int = DEMO_ITEMS) -> Results:
    """Run both embedded models with both templates, and compare three tasks.

    Args:
        items: the number of items of each task.

    Raises:
        NeuroglotError: ``items`` is less than 1, or more than a task has.
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
                # With one template only, to limit the length of the page.
                scores=NEURON_SCORES if template == DEMO_TEMPLATES[0] else (),
            )
            for template in DEMO_TEMPLATES
        ]
        others = [record(model, tasks[name]) for name in DEMO_TASKS[1:]]
        results |= runs[0].results | runs[1].results
        results[short] = compare_tasks([runs[0].recording, *others])
    return results
