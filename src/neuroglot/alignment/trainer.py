"""Train with the Trainer of transformers."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from neuroglot.alignment.schedule import Pair
from neuroglot.alignment.sharing import SharingTerm
from neuroglot.alignment.texts import Text, collate
from neuroglot.alignment.training_settings import LEARNING_RATE, LORA_LEARNING_RATE, Training
from neuroglot.errors import NeuroglotError
from neuroglot.models.model import Model
from neuroglot.models.training import reading_preactivations
from neuroglot.quiet import quiet_transformers
from neuroglot.store.damage import writing

AGAIN = "The same command goes on."
CHECKPOINTS = 20  # number of checkpoints in a training
WARM_UP = 0.1  # share of the steps in which the learning rate rises
LARGEST_GRADIENT = 1.0
STATE = "trainer_state.json"  # the file of a checkpoint that is written last


@dataclass(frozen=True)
class Course:
    """A model and the texts that it is trained on.

    Attributes:
        model: the model that is trained.
        texts: the texts of each pair.
        pairs: from :func:`neuroglot.alignment.schedule.schedule`.
        bf16: whether the forward pass of the model is in bfloat16 (autocast).
        term: the loss term of the method ``"sharing"`` with its weight, or ``None``.
    """

    model: Model
    texts: Sequence[tuple[Text, ...]]
    pairs: Sequence[Pair]
    bf16: bool = False
    term: tuple[SharingTerm, float] | None = None


class Aligner(Trainer):
    """A Trainer with the loss of a language model and the loss term of the method ``"sharing"``."""

    def __init__(self, course: Course, trained: nn.Module, arguments: TrainingArguments) -> None:
        self.course = course
        self.parts: dict[str, float] = {}
        super().__init__(
            model=trained,
            args=arguments,
            train_dataset=list(range(len(course.pairs))),
            data_collator=self.batch,
        )

    def batch(self, rows: Sequence[int]) -> dict[str, Any]:
        """The texts of one step, and their two languages."""
        pair = self.course.pairs[rows[0]]
        texts = collate(self.course.model, [self.course.texts[row] for row in rows])
        return {**texts, "languages": (pair.source, pair.target)}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002, ARG002
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Tensor:
        """The mean loss of the predicted tokens, plus the weighted loss term of sharing."""
        batch = {key: inputs[key] for key in ("input_ids", "attention_mask", "labels")}
        seen: dict[int, Tensor] = {}
        last = inputs["last"]

        def read(layer: int, values: Tensor) -> None:
            rows = torch.arange(len(values), device=values.device)
            seen[layer] = values[rows, last.to(values.device)]

        reading: AbstractContextManager[None] = nullcontext()
        if self.course.term is not None:
            reading = reading_preactivations(self.course.model.hf, self.course.model.sites, read)
        # The autocast of the Trainer would stay on the model while it is measured.
        autocast = torch.autocast(last.device.type, torch.bfloat16, enabled=self.course.bf16)
        with reading, autocast:
            loss: Tensor = model(**batch).loss
        self.parts = {"language_loss": float(loss.detach())}
        if not math.isfinite(self.parts["language_loss"]):
            raise NeuroglotError(
                f"the loss is no longer finite after {self.state.global_step} steps; train with a "
                "lower learning rate."
            )
        if self.course.term is not None:
            term, weight = self.course.term
            values = torch.stack([seen[layer].to(loss.device) for layer in sorted(seen)], dim=1)
            parts = term.parts(values, inputs["languages"])
            self.parts |= {name: float(part.detach()) for name, part in parts.items()}
            loss = loss + weight * term(parts)
        return loss

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint, with an error of one line if it cannot be written."""
        with writing(Path(str(self.args.output_dir)), AGAIN):
            super()._save_checkpoint(model, trial)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the parts of the loss beside it."""
        super().log(logs | self.parts, start_time)


class Bar(TrainerCallback):
    """A progress bar over the steps, with the loss."""

    def on_train_begin(self, *about: Any, **_: Any) -> None:
        """Show the step at which the training begins or goes on."""
        state: TrainerState = about[1]
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="align", unit="step")

    def on_log(self, *about: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Show the steps that were done since."""
        state: TrainerState = about[1]
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}")
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Close the bar."""
        self.bar.close()


class AtSteps(TrainerCallback):
    """Calls ``check`` after some of the steps, and saves a checkpoint after it."""

    def __init__(self, steps: Sequence[int], check: Callable[[int], object]) -> None:
        self.steps, self.check = set(steps), check

    def on_step_end(self, *about: Any, **_: Any) -> None:
        """Call ``check`` and ask the Trainer for a checkpoint."""
        state: TrainerState = about[1]
        control: TrainerControl = about[2]
        if state.global_step in self.steps:
            self.check(state.global_step)
            control.should_save = True


class OnOneDevice(TrainingArguments):
    """Arguments that keep the Trainer from copying the model to each GPU of the machine."""

    @property
    def n_gpu(self) -> int:
        """The number of GPUs that are used, which is at most one."""
        return int(min(1, super().n_gpu))


@contextmanager
def own_randomness() -> Iterator[None]:
    """Restore the states of the random number generators when the block ends."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


def arguments_of(training: Training, model: Model, out: Path, *, lora: bool) -> TrainingArguments:
    """The settings as arguments of the Trainer."""
    default_rate = LORA_LEARNING_RATE if lora else LEARNING_RATE
    return OnOneDevice(
        output_dir=str(out),
        max_steps=training.steps,
        per_device_train_batch_size=training.pairs,
        train_sampling_strategy="sequential",
        learning_rate=default_rate if training.learning_rate is None else training.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(WARM_UP * training.steps),
        # Decay would change the weights that a mask leaves out.
        weight_decay=0.0,
        max_grad_norm=LARGEST_GRADIENT,
        save_strategy="steps",
        save_steps=max(1, training.steps // CHECKPOINTS),
        save_total_limit=1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=training.seed,
        use_cpu=model.device.type == "cpu",
        use_cache=bool(model.hf.config.get_text_config().use_cache),
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
    )


def last_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint, if there is one; incomplete ones after it are removed."""
    checkpoints = sorted(
        folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.split("-")[1])
    )
    while checkpoints and not _is_whole(checkpoints[-1]):
        shutil.rmtree(checkpoints.pop())
    return checkpoints[-1] if checkpoints else None


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def train(
    course: Course,
    trained: nn.Module,
    arguments: TrainingArguments,
    checks: AtSteps,
) -> list[dict[str, float]]:
    """Train from the last checkpoint, or from the beginning if there is none.

    Args:
        course: the model and the texts.
        trained: the module whose weights are trained.
        arguments: the arguments of the Trainer.
        checks: the callback that measures the model on the way.

    Returns:
        The logged values of each step.
    """
    folder = Path(str(arguments.output_dir))
    with writing(folder, AGAIN):  # the Trainer would make it, and end in a traceback if it cannot
        folder.mkdir(parents=True, exist_ok=True)
    trainer = Aligner(course, trained, arguments)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Bar())
    trainer.add_callback(checks)
    begun = last_checkpoint(folder)
    with quiet_transformers():
        trainer.train(resume_from_checkpoint=str(begun) if begun else None)
    course.model.hf.train(mode=False)
    return [dict(line) for line in trainer.state.log_history if "loss" in line]
