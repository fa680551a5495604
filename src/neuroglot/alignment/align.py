"""Fine-tune a model on parallel texts, and measure how sharing and accuracy change."""

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
from neuroglot.options import options_of
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
# The folder of the training itself, apart from the results that a report shows: its settings, a
# recording from before the training, and checkpoints.
TRAINING = "training"
BEGUN, BEFORE, CHECKPOINTS = (f"{TRAINING}/{n}" for n in ("settings", "before", "checkpoints"))
AGAIN = "The last checkpoint is kept; the same command goes on."
LOGGED = ("loss", "language_loss", "disagreement", "rate_drift", "learning_rate")


@dataclass(frozen=True)
class Alignment:
    """The settings and the folder of one training.

    Attributes:
        model: the model before training; it is not changed.
        chosen: the items and languages that are trained, and those that are held out.
        method: the method, see :func:`align`.
        training: the settings of the training.
        mask: the neurons that are trained; ``None`` trains all weights.
        lora: whether adapters are trained in place of the weights.
        out: the folder of all results.
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
        """The steps after which the model is measured, beginning with 0."""
        n, checks = self.training.steps, self.training.checks
        return sorted({round(i * n / checks) for i in range(checks + 1)})

    @property
    def checks(self) -> Checks:
        """The measurement of the model at these steps."""
        task = checked_part(self.chosen, self.training)
        return Checks(task, self.chosen, self.out / RUNS, self.training.seed)

    def trainee(self) -> AbstractContextManager[Trainee]:
        """The model in training, as a context manager."""
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
    - ``"translation"``: the model reads an item in one language and predicts the same item in
      another language;
    - ``"instruction"``: the model predicts the answer of each prompt, in every language;
    - ``"sharing"``: the model predicts every text. An additional loss term makes the gates at the
      last prompt token of an item have the same signs in two languages, while every neuron keeps
      its rate of activity in each language;
    - ``"unpaired"``: the model predicts every text. This is the control for ``"sharing"``, on the
      same texts in the same order.

    Prompts in the languages that an item lists under ``held_out`` are never trained. Some items
    and, with ``training.languages``, some languages are held out as well. Accuracy is reported
    separately for these parts.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`; it is not changed.
        task: parallel items. Items of one subject are all trained or all held out.
        method: one of the above.
        out: the folder of all results. If it holds a training with the same settings, that goes on
            from its last checkpoint, to the same result; a finished one is opened. The model is in
            ``out/model``, and a run for each measured step in ``out/runs``.
        mask: train only the weights of these neurons: their rows of the projections before the
            activation function, and their value vectors. All other weights stay equal to the bit.
        lora: train LoRA adapters with ``peft`` and save those, instead of a copy of the model.
        training: the settings of the training; by default ``Training()``.
        overwrite: replace what ``out`` holds.

    Returns:
        A dataset with

        - ``loss``, ``language_loss``, ``learning_rate`` (step) and, for ``"sharing"``,
          ``disagreement`` and ``rate_drift`` (step), both divided by the disagreement before
          training;
        - ``accuracy`` with its 95 % interval over subjects, ``accuracy_low`` and ``accuracy_high``
          (check, part); ``prompts``, their number (part); ``correct`` (check, item, language).
          ``part`` is ``trained``, ``item_held_out``, ``language_held_out`` or ``both_held_out``,
          and ``part_of`` is the part of each prompt (item, language);
        - ``fraction``, ``fraction_if_items_shuffled`` (check, items, layer, category), ``active``
          (check, items, layer, language) and ``shared_of_active`` (check, items, language), where
          ``items`` is ``trained`` or ``held_out``; see :func:`neuroglot.classify`;
        - ``weights``, ``changed`` and ``relative_change`` (parameter) of the weights that were
          trained; see :func:`neuroglot.weight_changes`.

    Raises:
        NeuroglotError: the settings are not valid, a text does not fit into the context, the mask
            has another shape, ``out`` holds something else, the model is being edited, or training
            changed no weight.

    Examples:
        >>> import tempfile
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=8)
        >>> short = ng.Training(steps=2, pairs=2, checks=1, checked_items=2)
        >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
        ...     result = ng.align(model, task, method="unpaired", out=folder, training=short)
        >>> result["loss"].sizes["step"]  # doctest: +SKIP
        2
    """
    checked_method = check_method(method)
    settings: Training = options_of(training, Training, "training")
    check_training(settings, checked_method)
    model.require_unedited()
    check_trainable(model, lora=lora)
    _check_mask(mask, model, lora=lora)
    parts = split(task, settings)
    job = Alignment(model, parts, checked_method, settings, mask, lora, as_path(out))
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
        NeuroglotError: it is no set of neurons, is empty, has another shape than the model, or is
            used together with adapters.
    """
    if mask is None:
        return
    if lora:
        raise NeuroglotError("mask and lora exclude each other: adapters have no neurons.")
    unit = mask.unit if isinstance(mask, NeuronSet) else type(mask).__name__
    if unit != FFN:
        raise NeuroglotError(f"mask: expected a NeuronSet of {FFN}, found {unit}.")
    mask.check_fits(model)
    if not len(mask):
        raise NeuroglotError(f"mask {mask.name!r} holds no neurons, so nothing would train.")


def _provenance(job: Alignment, task: ParallelTask) -> dict[str, Any]:
    arguments: dict[str, Any] = {"lora": int(job.lora)}
    if job.mask is not None:
        arguments |= {
            "mask": job.mask.name,
            "mask_checksum": job.mask.checksum,
            "mask_neurons": len(job.mask),
        }
    return provenance(job.model, task) | described(job.training, job.method, arguments)


def _begin(job: Alignment, task: ParallelTask, *, overwrite: bool) -> xr.Dataset | None:
    """The result, if it is finished; otherwise save the settings of the training in its folder."""
    begun, head = job.out / BEGUN, xr.Dataset(attrs=_provenance(job, task) | {"kind": "settings"})
    if is_result(begun) and not overwrite:
        require_same(job.out, open_dataset(begun), head, ())
        return _finished(job.out)
    require_free_for_alignment(job.out)
    if Path(job.model.name).absolute().is_relative_to(job.out):
        raise NeuroglotError(
            f"{job.model.name!r} is in {str(job.out)!r} and would be replaced; name another folder."
        )
    # The settings go last, since they show that the folder holds an alignment.
    _remove(job.out, KIND, MODEL, RUNS, BEFORE, CHECKPOINTS, BEGUN)
    save(head, begun)
    return None


def _finished(out: Path) -> xr.Dataset | None:
    """The finished result; ``None`` if there is none or, with a warning, if it is damaged."""
    clear_up_after_kill(out / KIND)
    if not is_result(out / KIND):
        return None
    try:
        result = opened_dataset(out / KIND)
    except DamagedError as error:
        warnings.warn(f"{str(out)!r} is damaged ({error.reason}); it is made again.", stacklevel=4)
        return None
    _remove(out, CHECKPOINTS)
    return result


def _remove(out: Path, *folders: str) -> None:
    """Remove those of the folders that exist.

    Raises:
        NeuroglotError: one cannot be removed, so that the training would go on with the rest of it.
    """
    for name in folders:
        with writing(out):
            if (out / name).exists():
                shutil.rmtree(out / name)


def require_free_for_alignment(out: Path) -> None:
    """Check that a folder holds nothing but an alignment, or what is left of one that was killed.

    Raises:
        NeuroglotError: it holds other things.
    """
    if is_result(out / BEGUN):
        return
    folder_for_results(out)
    names = [path.name for path in out.glob("[!.]*")]
    begun = [path.name.lstrip(".") for path in out.glob(f"{TRAINING}/*")]
    if names not in ([], [TRAINING]) or not all(name.startswith("settings") for name in begun):
        raise NeuroglotError(
            f"{str(out)!r} is not empty and holds no alignment; name another folder."
        )


def _run(job: Alignment) -> xr.Dataset:
    """Measure the model, train it with measurements on the way, save it and compare its weights."""
    # Imported here, because importing the Trainer would slow the start of every command.
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
    """The loss term of the method ``"sharing"`` with its weight; ``None`` for other methods."""
    if job.method != "sharing":
        return None
    check_preactivations(job.model.hf, job.model.sites)
    task = job.chosen.trained
    recording = record(job.model, task, out=job.out / BEFORE, grow=False)
    before = before_training(recording, job.chosen.part(task) == "trained")
    return SharingTerm(before, job.training.rate_weight), job.training.sharing_weight


def _curves(log: Sequence[dict[str, float]]) -> xr.Dataset:
    """The logged values as variables (step)."""
    return xr.Dataset(
        {name: ("step", [line[name] for line in log]) for name in LOGGED if name in log[0]},
        coords={"step": [int(line["step"]) for line in log]},
    )
