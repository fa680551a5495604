"""What the categories do: switch their neurons off, beside controls, and measure the answers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.attribution import attribute
from neuroglot.attribution.neuron_scores import SCORES
from neuroglot.errors import NeuroglotError, is_whole_number, listed
from neuroglot.experiments.evaluation import (
    MAX_NEW_TOKENS,
    check_answering,
    evaluate,
    require_answerable,
)
from neuroglot.experiments.halves import halves, subject_of
from neuroglot.interventions.answering import Answering
from neuroglot.interventions.arms import DIMS, Arms, Chosen, Condition, Controls
from neuroglot.interventions.conditions import (
    CONTROLS,
    DEFAULT_CATEGORIES,
    Variant,
    check_category,
    check_variant,
    fixed_set,
)
from neuroglot.interventions.effects import effects, reasons
from neuroglot.models import Model
from neuroglot.models.running import check_positions
from neuroglot.provenance import model_provenance, task_provenance, versions
from neuroglot.recording import Recording
from neuroglot.recording.batching import BatchSize, check_batch_size
from neuroglot.recording.folders import as_path
from neuroglot.recording.growing import InMemory, grow, in_folder, is_whole
from neuroglot.recording.matching import recorded_part
from neuroglot.recording.store import open_dataset, save
from neuroglot.tasks import ParallelTask

UNIT = "deactivation"
ANSWERS, PARTS, RESULT = "answers", "conditions", "deactivation"
EVERYTHING = Variant()


@dataclass(frozen=True)
class Job:
    """What is answered, and how; the same for every condition.

    Attributes:
        model: which answers.
        whole: the task that was recorded, of which the recording may be a part.
        task: the part that is reported on.
        recording: of that part.
        controls: what every category is compared with.
        how: prompts are answered under edits.
        threshold: of the categories.
        out: folder of everything, if any.
        overwrite: replace what is there.
        half: which half of the recorded items this is, if not all.
    """

    model: Model
    whole: ParallelTask
    task: ParallelTask
    recording: Recording
    controls: Controls
    how: Answering
    threshold: float
    out: Path | None
    overwrite: bool
    half: str = ""

    def halves(self) -> tuple[Job, Job]:
        """The same for a development half and for the other half."""
        development, test = halves(self.task, self.controls.seed)
        return self._of(development, "development"), self._of(test, "test")

    def _of(self, ids: Sequence[str], half: str) -> Job:
        items = [item for item in self.task.items if item["id"] in set(ids)]
        task, recording = replace(self.task, items=items), self.recording.select(items=ids)
        return replace(self, task=task, recording=recording, half=half)

    def folder(self, name: str) -> Path | None:
        """Where something of this half is kept, if anywhere."""
        safe = re.sub(r"[^a-z0-9_+.=-]+", "-", name)
        return None if self.out is None else self.out / (f"{safe}-{self.half}" if self.half else safe)


def deactivate(  # noqa: PLR0913 (the public contract)
    model: Model,
    task: ParallelTask,
    recording: Recording,
    *,
    categories: Sequence[str] = DEFAULT_CATEGORIES,
    controls: Sequence[str] = CONTROLS,
    draws: int = 5,
    seed: int = 0,
    variant: Variant = EVERYTHING,
    positions: str = "answer",
    threshold: float = 0.0,
    score: str = "sum",
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: BatchSize = "auto",
    out: str | Path | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """Switch off the neurons of each category, item by item, and measure the answers.

    A category's neurons are those of the item that is asked, so they differ from prompt to prompt.
    Beside them stand random neurons, drawn anew for every prompt, as many in each layer. All-shared
    neurons are active by definition and most random ones are not; so claims rest on the controls
    ``"active"`` and ``"contribution"``.

    Args:
        model: the one that was recorded.
        task: the one that was recorded; its items need answers.
        recording: from :func:`neuroglot.record`, of all layers; its items and languages count.
        categories: of ``"all_shared"``, ``"partial_shared"``, ``"specific"`` (to any language),
            ``"specific_here"`` (to the language of the prompt) and ``"non_activated"``, or unions
            such as ``"all_shared+partial_shared"``.
        controls: of ``"size"`` (any neurons outside the category), ``"active"`` (active in the
            prompt) and ``"contribution"`` (active, and as many of each decile of ``|m|·‖v‖`` in
            the layer).
        draws: random sets of each control for every prompt.
        seed: of the draws, the halves and the resampling.
        variant: which part of the categories is edited, and how.
        positions: see :func:`neuroglot.edit`.
        threshold: a neuron was active where its site value was greater.
        score: see :func:`neuroglot.evaluate`.
        max_new_tokens: see :func:`neuroglot.evaluate`.
        batch_size: prompts in a batch; ``"auto"`` fills a budget of tokens.
        out: folder for the result and what it is made of. Finished conditions there are kept, an
            unfinished one goes on where it stopped.
        overwrite: replace what ``out`` holds.

    Returns:
        A dataset over ``condition`` (the categories), with ``against`` being ``no_edit`` and the
        controls:

        - ``difference`` (condition, against): accuracy less that of what it is held against, over
          the prompts that have both; ``difference_low``, ``difference_high`` (95 % bootstrap over
          subjects), ``p`` (sign flips of subjects), ``p_holm`` (corrected for all of them),
          ``n_prompts``, ``n_subjects``. NaN with fewer than ten subjects;
        - the same as ``…_by_language`` (condition, against, language); there ``p`` against no edit
          is McNemar's, exact;
        - ``reason`` (condition, control): why a control has no value for some prompts;
        - ``accuracy`` (condition, language), ``accuracy_no_edit`` (language) and
          ``accuracy_control`` (condition, control, language), each with ``_low`` and ``_high``;
        - ``correct`` (condition, item, language), ``correct_no_edit`` (item, language) and
          ``correct_control`` (condition, control, draw, item, language; NaN where the pool of a
          control was too small);
        - ``share`` (condition) and ``control_share`` (condition, control): the edited neurons'
          mean share of all contributions; ``n_neurons`` (condition, item, language);
        - ``counted`` (item, language), ``subject`` (item).

    Raises:
        NeuroglotError: bad settings, or a recording of another model or task.
    """
    job = job_of(
        model,
        task,
        recording,
        controls=check_controls(controls, draws, seed),
        how=Answering(
            check_positions(positions),
            check_answering(score, max_new_tokens),
            max_new_tokens,
            batch_size,
        ),
        threshold=threshold,
        out=out,
        overwrite=overwrite,
    )
    check_categories(categories)
    check_variant(variant, model, SCORES)
    return outcome_of(job, [(category, variant) for category in categories], RESULT)


def check_categories(categories: Sequence[str]) -> None:
    """Refuse what are no categories.

    Raises:
        NeuroglotError: a text in place of a list, none, an unknown one, or one twice.
    """
    if isinstance(categories, str):
        raise NeuroglotError(f"categories={categories!r} is one text; expected a list of names.")
    for category in categories:
        check_category(category)
    if not categories or len(set(categories)) < len(categories):
        raise NeuroglotError(f"categories={listed(categories) or 'none'}: expected different ones.")


def check_controls(controls: Sequence[str], draws: int, seed: int) -> Controls:
    """The controls, if they are such.

    Raises:
        NeuroglotError: an unknown one, or no number of draws from 1.
    """
    kinds = (controls,) if isinstance(controls, str) else tuple(controls)
    unknown = [kind for kind in kinds if kind not in CONTROLS]
    if unknown or len(set(kinds)) < len(kinds):
        raise NeuroglotError(
            f"controls={listed(kinds)}: expected different ones of {listed(CONTROLS)}."
        )
    if not is_whole_number(draws, 1, 1000):
        raise NeuroglotError(f"draws={draws!r}: expected a whole number from 1 to 1,000.")
    if not is_whole_number(seed, 0):
        raise NeuroglotError(f"seed={seed!r}: expected a whole number from 0.")
    return Controls(kinds, int(draws), int(seed))


def job_of(  # noqa: PLR0913 (what all experiments of this room are given)
    model: Model,
    task: ParallelTask,
    recording: Recording,
    *,
    controls: Controls,
    how: Answering,
    threshold: float,
    out: str | Path | None,
    overwrite: bool,
) -> Job:
    """What is to be answered, checked.

    Raises:
        NeuroglotError: see :func:`deactivate`.
    """
    check_batch_size(how.batch_size)
    if not isinstance(recording, Recording):
        raise NeuroglotError(
            f"recording is a {type(recording).__name__}; expected what neuroglot.record returns, "
            "or neuroglot.open of its folder."
        )
    if model.running.edits:
        raise NeuroglotError("the model is being edited; leave the block of neuroglot.edit first.")
    recording.check_threshold(threshold)
    require_answerable(task)
    part = recorded_part(model, task, recording)
    folder = None if out is None else as_path(out)
    return Job(model, task, part, recording, controls, how, threshold, folder, overwrite)


def outcome_of(job: Job, wanted: Sequence[tuple[str, Variant]], name: str) -> xr.Dataset:
    """Answers and effects of some conditions; saved as ``name`` where there is a folder.

    Args:
        job: what is answered.
        wanted: categories with their variants.
        name: of the result in the folder.
    """
    choosing = job
    if any(variant.needs_halves for _, variant in wanted):
        choosing, job = job.halves()
    before = evaluate(
        job.model,
        job.task,
        out=job.folder(ANSWERS),
        score=job.how.score,
        max_new_tokens=job.how.max_new_tokens,
        batch_size=job.how.batch_size,
        overwrite=job.overwrite,
    )
    conditions = [
        Condition(category, variant, job.controls, _chosen(choosing, category, variant))
        for category, variant in wanted
    ]
    parts = [_answered(job, condition) for condition in conditions]
    answers = _joined(before, parts, conditions, job)
    outcome = answers.merge(effects(answers, job.controls.seed)).assign(reason=reasons(answers))
    variants = dict.fromkeys(str(variant) for _, variant in wanted)
    outcome = outcome.assign_attrs(_attrs(job) | {"variant": "; ".join(filter(None, variants))})
    if job.out is not None:
        save(outcome, job.out / name, overwrite=True)
    return outcome


def _chosen(development: Job, category: str, variant: Variant) -> Chosen:
    """What of a condition is chosen on the development half."""
    neurons = ranking = None
    if variant.membership is not None:
        neurons = fixed_set(
            check_category(category), development.recording, variant.membership,
            development.threshold,
        )  # fmt: skip
    if variant.top < 1 and variant.rank_by != "contribution":
        found = attribute(
            development.model,
            development.whole,
            development.recording,
            scores=(variant.rank_by,),
            threshold=development.threshold,
            batch_size=development.how.batch_size,
        )
        ranking = found["mean_score"].sel(score=variant.rank_by).mean("language").to_numpy()
    return Chosen(neurons, ranking)


def _answered(job: Job, condition: Condition) -> xr.Dataset:
    """What is answered under the arms of one condition, kept in its folder."""
    arms = Arms(job.model, job.task, job.recording, condition, job.how, job.threshold)
    head = _head(job, condition)
    prompts = {"item": len(job.task.languages), "total": len(job.task) * len(job.task.languages)}

    def make(block: slice, done: Callable[[int], object]) -> xr.Dataset:
        return arms.answer(block, done)

    path = job.folder(condition.name)
    if path is None:
        memory = InMemory(head, arms.items_at_once)
        grow(memory, make, condition.name, prompts)
        return memory.data
    path = path.parent / PARTS / path.name
    if job.overwrite or not is_whole(path, head, DIMS):
        path.parent.mkdir(parents=True, exist_ok=True)
        size = arms.items_at_once
        with in_folder(path, head, size, DIMS, overwrite=job.overwrite) as folder:
            grow(folder, make, condition.name, prompts)
            folder.finish(xr.Dataset())
    return open_dataset(path).load()


def _head(job: Job, condition: Condition) -> xr.Dataset:
    chosen = condition.chosen
    ranking = b"" if chosen.ranking is None else chosen.ranking.tobytes()
    return xr.Dataset(
        coords={
            "item": [item["id"] for item in job.task.items],
            "language": list(job.task.languages),
            "arm": condition.controls.arms,
        },
        attrs=_attrs(job)
        | {
            "unit": "answers under a condition",
            "condition": condition.name,
            "fixed_set": "" if chosen.neurons is None else chosen.neurons.checksum,
            "ranking": hashlib.sha256(ranking).hexdigest()[:16],
        },
    )


def _joined(
    before: xr.Dataset, parts: Sequence[xr.Dataset], conditions: Sequence[Condition], job: Job
) -> xr.Dataset:
    """Answers of all conditions, the arms apart into category, controls and draws."""
    controls = job.controls
    joined = xr.concat(
        [part.drop_attrs() for part in parts],
        dim=xr.DataArray([one.name for one in conditions], dims="condition", name="condition"),
        join="exact",
    )
    drawn = joined[["correct", "share"]].isel(arm=slice(1, None)).drop_vars("arm")
    shape = (len(controls.kinds), controls.draws)
    index = {"control": list(controls.kinds), "draw": range(controls.draws)}
    unstacked = {
        name: xr.DataArray(
            values.transpose("condition", "arm", "item", "language")
            .to_numpy()
            .reshape(len(conditions), *shape, *values.shape[1:3]),
            dims=("condition", "control", "draw", "item", "language"),
            coords={"condition": joined["condition"], **index},
        )
        for name, values in drawn.items()
    }
    own = joined.isel(arm=0, drop=True)
    subjects = [subject_of(item) for item in job.task.items]
    return xr.Dataset(
        {
            "correct": own["correct"].astype(bool),
            "correct_no_edit": before["correct"].drop_attrs(),
            "correct_control": unstacked["correct"],
            "counted": before["counted"],
            "held_out": before["held_out"],
            "n_neurons": own["n_neurons"],
            "share": own["share"].mean(["item", "language"]),
            "control_share": unstacked["share"].mean(["draw", "item", "language"]),
        },
        coords={"subject": ("item", subjects)},
    )


def _attrs(job: Job) -> dict[str, Any]:
    recording = job.recording
    return {
        "unit": UNIT,
        **model_provenance(job.model),
        **task_provenance(job.task),
        # Of the whole task, of which the recording may be a part.
        "task_checksum": recording.attrs["task_checksum"],
        "n_neurons": job.model.n_neurons,
        "site": recording.attrs["site"],
        "position": recording.attrs["position"],
        "threshold": job.threshold,
        "positions": job.how.positions,
        "half": job.half,
        "score": job.how.score,
        "max_new_tokens": job.how.max_new_tokens,
        "controls": ",".join(job.controls.kinds),
        "draws": job.controls.draws,
        "seed": job.controls.seed,
        "batch_size": job.how.batch_size,
        **versions(),
    }
