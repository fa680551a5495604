"""Training itself, by the Trainer of transformers."""

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
    PreTrainedModel,
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
from neuroglot.alignment.training_settings import Training, rate_of
from neuroglot.errors import NeuroglotError
from neuroglot.models.model import Model
from neuroglot.models.training import reading_preactivations
from neuroglot.quiet import quiet_transformers
from neuroglot.store.damage import writing

CHECKPOINTS = 20  # in a training
WARM_UP = 0.1  # of the steps
LARGEST_GRADIENT = 1.0
STATE = "trainer_state.json"  # written last into a checkpoint


@dataclass(frozen=True)
class Course:
    """What is trained on, step by step.

    Attributes:
        model: which is trained.
        texts: of each pair.
        pairs: from :func:`neuroglot.alignment.schedule.schedule`.
        bf16: whether the model's forward pass is in bfloat16 (autocast).
        term: of sharing, with its weight; ``None`` without.
    """

    model: Model
    texts: Sequence[tuple[Text, ...]]
    pairs: Sequence[Pair]
    bf16: bool = False
    term: tuple[SharingTerm, float] | None = None


class Aligner(Trainer):
    """The loss of a language model, and what pulls translations together."""

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
        """Mean loss of the predicted tokens, plus the weighted term of sharing."""
        given = {key: inputs[key] for key in ("input_ids", "attention_mask", "labels")}
        seen: dict[int, Tensor] = {}
        last = inputs["last"]

        def read(layer: int, values: Tensor) -> None:
            rows = torch.arange(len(values), device=values.device)
            seen[layer] = values[rows, last.to(values.device)]

        # Not by the Trainer, whose autocast would stay on the model while it is measured.
        autocast = torch.autocast(last.device.type, torch.bfloat16, enabled=self.course.bf16)
        with self._reading(read), autocast:
            loss: Tensor = model(**given).loss
        self.parts = {"language_loss": float(loss.detach())}
        if not math.isfinite(self.parts["language_loss"]):
            raise NeuroglotError(
                f"the loss is no longer finite after {self.state.global_step} steps; train with a "
                "lower learning rate."
            )
        if self.course.term is not None:
            term, weight = self.course.term
            values = torch.stack([seen[layer].to(loss.device) for layer in sorted(seen)], dim=1)
            found = term.parts(values, inputs["languages"])
            self.parts |= {name: float(part.detach()) for name, part in found.items()}
            loss = loss + weight * term(found)
        return loss

    def _reading(self, read: Callable[[int, Tensor], None]) -> AbstractContextManager[None]:
        if self.course.term is None:
            return nullcontext()
        model = self.course.model
        return reading_preactivations(model.hf, model.sites, read)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Say in one line if a checkpoint cannot be written."""
        with writing(Path(str(self.args.output_dir)), "The same command goes on."):
            super()._save_checkpoint(model, trial)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the parts of the loss beside it."""
        super().log(logs | self.parts, start_time)


class Bar(TrainerCallback):
    """One progress bar over the steps, with the loss."""

    def on_train_begin(self, *about: Any, **_: Any) -> None:
        """Show where the training goes on."""
        state: TrainerState = about[1]
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="align", unit="step")

    def on_log(self, *about: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Move on by what was done since."""
        state: TrainerState = about[1]
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}")
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Leave the bar where it is."""
        self.bar.close()


class AtSteps(TrainerCallback):
    """Calls ``check`` after some of the steps, before their checkpoint is written."""

    def __init__(self, steps: Sequence[int], check: Callable[[int], object]) -> None:
        self.steps, self.check = set(steps), check

    def on_step_end(self, *about: Any, **_: Any) -> None:
        """Measure, and have it followed by a checkpoint."""
        state: TrainerState = about[1]
        control: TrainerControl = about[2]
        if state.global_step in self.steps:
            self.check(state.global_step)
            control.should_save = True


class OnOneDevice(TrainingArguments):
    """The Trainer would put a copy of the model on each GPU that it sees."""

    @property
    def n_gpu(self) -> int:
        """At most one."""
        return int(min(1, super().n_gpu))


@contextmanager
def own_randomness() -> Iterator[None]:
    """Within the block, seeding moves nobody else's random numbers."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


def arguments_of(training: Training, model: Model, out: Path, *, lora: bool) -> TrainingArguments:
    """The settings, as the Trainer wants them."""
    return OnOneDevice(
        output_dir=str(out),
        max_steps=training.steps,
        per_device_train_batch_size=training.pairs,
        train_sampling_strategy="sequential",
        learning_rate=rate_of(training, lora=lora),
        lr_scheduler_type="linear",
        warmup_steps=round(WARM_UP * training.steps),
        # What is masked out must stay as it is, and decay would move it.
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
    """The last checkpoint that was written whole; what was begun after it is removed."""
    if not folder.is_dir():
        return None
    found = sorted(
        folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.split("-")[1])
    )
    while found and not _is_whole(found[-1]):
        shutil.rmtree(found.pop())
    return found[-1] if found else None


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
    """Train from the last checkpoint, or from the beginning.

    Returns:
        What was logged at each step.
    """
    hf: PreTrainedModel = course.model.hf
    trainer = Aligner(course, trained, arguments)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Bar())
    trainer.add_callback(checks)
    begun = last_checkpoint(Path(str(arguments.output_dir)))
    with quiet_transformers():
        trainer.train(resume_from_checkpoint=str(begun) if begun else None)
    hf.train(mode=False)
    return [dict(line) for line in trainer.state.log_history if "loss" in line]
