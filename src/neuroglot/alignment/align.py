"""Fine-tune a model on parallel texts, and measure what becomes of sharing and of its answers."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from neuroglot.alignment.adapting import Trainee, adapted, check_trainable, copied
from neuroglot.alignment.changes import require_change
from neuroglot.alignment.checks import Checks
from neuroglot.alignment.schedule import Split, checked_part, schedule, split
from neuroglot.alignment.sharing import SharingTerm, before_training
from neuroglot.alignment.texts import training_texts
from neuroglot.alignment.training_settings import (
    Method,
    Training,
    check_method,
    check_training,
    described,
)
from neuroglot.errors import NeuroglotError
from neuroglot.models.ffn import FFN
from neuroglot.models.model import Model
from neuroglot.models.training import check_preactivations
from neuroglot.neurons.neuron_set import NeuronSet
from neuroglot.recording.recorder import record
from neuroglot.store.damage import DamagedError, writing
from neuroglot.store.folders import (
    as_path,
    clear_up_after_kill,
    fresh_folder,
    is_result,
    locked,
)
from neuroglot.store.provenance import provenance
from neuroglot.store.results import open_dataset, opened_dataset, require_same, save
from neuroglot.store.whose import folder_for_results
from neuroglot.tasks.parallel import ParallelTask

KIND = "alignment"
MODEL, RUNS = "model", "runs"
# Of the training itself: its settings, what the model did before it, and where it stands. Apart,
# so that what is beside the model can be reported.
TRAINING = "training"
BEGUN, BEFORE, CHECKPOINTS = (f"{TRAINING}/{x}" for x in ("settings", "before", "checkpoints"))
AGAIN = "The last checkpoint is kept; the same command goes on."
LOGGED = ("loss", "language_loss", "disagreement", "rate_drift", "learning_rate")


@dataclass(frozen=True)
class Alignment:
    """One training, and where everything of it is.

    Attributes:
        model: before; it is not changed.
        chosen: what of the task is trained.
        method: what is predicted, and whether sharing is asked for.
        training: for how long, on what.
        mask: the only neurons that are trained, if not everything.
        lora: whether adapters are trained in place of the weights.
        out: the folder.
    """

    model: Model
    chosen: Split
    method: Method
    training: Training
    mask: NeuronSet | None
    lora: bool
    out: Path

    @property
    def steps(self) -> list[int]:
        """Those after which the model is measured, with 0."""
        n, checks = self.training.steps, self.training.checks
        return sorted({round(i * n / checks) for i in range(checks + 1)})

    @property
    def checks(self) -> Checks:
        """What measures the model."""
        task = checked_part(self.chosen, self.training)
        return Checks(task, self.chosen, self.out / RUNS, self.training.seed)

    def trainee(self) -> AbstractContextManager[Trainee]:
        """What is trained."""
        if self.lora:
            return adapted(self.model, self.training.lora_rank, self.training.seed)
        return copied(self.model, self.mask)


def align(
    model: Model,
    task: ParallelTask,
    *,
    method: str,
    out: str | Path,
    mask: NeuronSet | None = None,
    lora: bool = False,
    training: Training | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """Fine-tune a model on the items of a task, and measure sharing and accuracy on the way.

    Methods:
    - ``"translation"``: an item in one language is followed by the same item in another, which is
      predicted;
    - ``"instruction"``: the answer is predicted, in every language;
    - ``"sharing"``: every text is predicted, and a term pulls the last prompt tokens of an item's
      two languages toward the same signs of the gate, while every neuron keeps its rate of activity
      in each language;
    - ``"unpaired"``: every text is predicted: the control, on the same texts in the same order.

    A prompt that an item's ``held_out`` lists is never trained, and some items and, if wanted,
    languages are not either; accuracy is reported apart for these.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`; unchanged.
        task: parallel items; those held out are chosen by subject.
        method: one of the above.
        out: folder for everything. A training of the same settings there goes on from its last
            checkpoint, to the same result; a finished one is opened. The model is in
            ``out/model``, a run for each measured step in ``out/runs``.
        mask: train only the weights of these neurons: their rows of the projections that feed them
            and their value vectors. Everything else stays bit for bit.
        lora: train adapters with ``peft``, and save those; the model is used in place.
        training: for how long and on what.
        overwrite: replace what ``out`` holds.

    Returns:
        A dataset with

        - ``loss``, ``language_loss``, ``learning_rate`` (step) and, for ``"sharing"``,
          ``disagreement`` and ``rate_drift`` (step; over the disagreement before training);
        - ``accuracy``, ``accuracy_low``, ``accuracy_high`` (check, part; 95 % over subjects),
          ``prompts`` (part), ``correct`` (check, item, language): ``part`` is ``trained``,
          ``item_held_out``, ``language_held_out`` or ``both_held_out``, that of each prompt is
          ``part_of`` (item, language);
        - ``fraction``, ``fraction_if_items_shuffled`` (check, items, layer, category), ``active``
          (check, items, layer, language) and ``shared_of_active`` (check, items, language), over
          the measured items that are trained and those that are held out;
        - ``weights``, ``changed``, ``relative_change`` (parameter): what training has changed, of
          the weights that it could.

    Raises:
        NeuroglotError: bad settings, a text that does not fit, a mask of another shape, an ``out``
            that holds something else, a model that is being edited, or one that training has left
            as it was.
    """
    how, known = Training() if training is None else training, check_method(method)
    check_training(how, known)
    model.require_unedited()
    check_trainable(model, lora=lora)
    _check_mask(mask, model, lora=lora)
    job = Alignment(model, split(task, how), known, how, mask, lora, as_path(out))
    with model.training(), locked(job.out):
        finished = _begin(job, task, overwrite=overwrite)
        if finished is not None:
            return finished
        result = _run(job).assign_attrs(_provenance(job, task), kind=KIND)
        save(result, job.out / KIND, overwrite=True)
        _remove(job.out, CHECKPOINTS)
    return opened_dataset(job.out / KIND)


def _check_mask(mask: NeuronSet | None, model: Model, *, lora: bool) -> None:
    """Refuse a mask that cannot be trained.

    Raises:
        NeuroglotError: it is none, is empty or of another shape, or adapters are trained.
    """
    if mask is None:
        return
    if lora:
        raise NeuroglotError("mask and lora exclude each other: adapters have no neurons.")
    found = mask.unit if isinstance(mask, NeuronSet) else type(mask).__name__
    if found != FFN:
        raise NeuroglotError(f"mask: expected a NeuronSet of {FFN}, found {found}.")
    mask.check_fits(model)
    if not len(mask):
        raise NeuroglotError(f"mask {mask.name!r} holds no neurons, so nothing would train.")


def _provenance(job: Alignment, task: ParallelTask) -> dict[str, Any]:
    how: dict[str, Any] = {"lora": int(job.lora)}
    if job.mask is not None:
        how |= {"mask": job.mask.name, "mask_checksum": job.mask.checksum}
        how |= {"mask_neurons": len(job.mask)}
    return {
        **provenance(job.model, task),
        **described(job.training, job.method, how),
    }


def _begin(job: Alignment, task: ParallelTask, *, overwrite: bool) -> xr.Dataset | None:
    """The result, if it is finished; else a folder that says what is trained in it."""
    begun, head = job.out / BEGUN, xr.Dataset(attrs=_provenance(job, task) | {"kind": "settings"})
    if is_result(begun) and not overwrite:
        require_same(job.out, open_dataset(begun), head, ())
        return _finished(job.out)
    require_free_for_alignment(job.out)
    if Path(job.model.name).absolute().is_relative_to(job.out):
        raise NeuroglotError(
            f"{job.model.name!r} is in {str(job.out)!r} and would be replaced; name another folder."
        )
    # What says that the folder is ours goes last.
    _remove(job.out, KIND, MODEL, RUNS, BEFORE, CHECKPOINTS, BEGUN)
    save(head, begun)
    return None


def _finished(out: Path) -> xr.Dataset | None:
    """The result, if it is there; with a warning none, if it is damaged."""
    clear_up_after_kill(out / KIND)
    if not is_result(out / KIND):
        return None
    try:
        found = opened_dataset(out / KIND)
    except DamagedError as error:
        warnings.warn(f"{str(out)!r} is damaged ({error.reason}); it is made again.", stacklevel=4)
        return None
    _remove(out, CHECKPOINTS)
    return found


def _remove(out: Path, *folders: str) -> None:
    """Remove folders, if they are there.

    Raises:
        NeuroglotError: one cannot be removed; the training would go on with what is left of it.
    """
    for name in folders:
        with writing(out):
            if (out / name).exists():
                shutil.rmtree(out / name)


def require_free_for_alignment(out: Path) -> None:
    """Nothing may be there but an alignment, or what a killed one left before its settings.

    Raises:
        NeuroglotError: other things are there.
    """
    if is_result(out / BEGUN):
        return
    folder_for_results(out)
    found = [path.name for path in out.glob("[!.]*")]
    begun = [path.name.lstrip(".") for path in out.glob(f"{TRAINING}/*")]
    if found not in ([], [TRAINING]) or not all(name.startswith("settings") for name in begun):
        raise NeuroglotError(
            f"{str(out)!r} is not empty and holds no alignment; name another folder."
        )


def _run(job: Alignment) -> xr.Dataset:
    """Measure, train, measure, save and look at what was saved."""
    # Only where it is needed: importing the Trainer would slow the start of every command.
    from neuroglot.alignment.trainer import (  # noqa: PLC0415
        AtSteps,
        Course,
        arguments_of,
        own_randomness,
        train,
    )

    checks, training = job.checks, job.training
    pairs = schedule(job.chosen, training)
    texts = training_texts(job.model, job.chosen, pairs, job.method, mismatched=training.mismatched)
    term = _term(job)
    checks.measure(job.model, 0, anew=False)
    with job.trainee() as trainee:

        def measure(step: int) -> None:
            trainee.model.hf.train(mode=False)
            checks.measure(trainee.model, step)

        course = Course(trainee.model, texts, pairs, training.bf16, term)
        arguments = arguments_of(training, job.model, job.out / CHECKPOINTS, lora=job.lora)
        with own_randomness():
            log = train(course, trainee.module, arguments, AtSteps(job.steps[1:], measure))
        folder = job.out / MODEL
        with writing(folder, AGAIN), fresh_folder(folder) as fresh:
            trainee.write(fresh)
        changes = trainee.changes(folder)
    require_change(changes, repr(str(folder)))
    return xr.merge([_curves(log), checks.result(job.steps), changes.drop_attrs()])


def _term(job: Alignment) -> tuple[SharingTerm, float] | None:
    """What pulls translations together, with its weight."""
    if job.method != "sharing":
        return None
    check_preactivations(job.model.hf, job.model.sites)
    here = job.chosen.trained
    recording = record(job.model, here, out=job.out / BEFORE, grow=False)
    before = before_training(recording, job.chosen.part(here) == "trained")
    return SharingTerm(before, job.training.rate_weight), job.training.sharing_weight


def _curves(log: Sequence[dict[str, float]]) -> xr.Dataset:
    """What was logged at each step."""
    known = [name for name in LOGGED if name in log[0]]
    return xr.Dataset(
        {name: ("step", [line[name] for line in log]) for name in known},
        coords={"step": [int(line["step"]) for line in log]},
    )
