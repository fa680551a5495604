"""Measure sharing and accuracy before, during and after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from neuroglot.alignment.schedule import PARTS, Split
from neuroglot.answering.answering import Answering
from neuroglot.answering.evaluation import evaluate
from neuroglot.answering.observations import SAME, samples_of
from neuroglot.answering.statistics import accuracy_interval
from neuroglot.comparison.runs import ANSWERS, RECORDING
from neuroglot.models.model import Model
from neuroglot.recording.recorder import record
from neuroglot.recording.recording import Recording
from neuroglot.recording.saved import load_saved
from neuroglot.sharing.categories import classify, shared_of_active
from neuroglot.store.results import opened_dataset
from neuroglot.tasks.halves import subject_of
from neuroglot.tasks.parallel import ParallelTask

ITEMS = ("trained", "held_out")


@dataclass(frozen=True)
class Checks:
    """The measurement of a model at several steps of its training.

    Attributes:
        task: the items that are measured.
        split: which items are trained and which are held out.
        folder: the folder that holds a run for each measured step.
        seed: the seed of the intervals.
    """

    task: ParallelTask
    split: Split
    folder: Path
    seed: int

    def run_folder(self, step: int) -> Path:
        """The folder of the run of a step, which :func:`neuroglot.compare` accepts."""
        return self.folder / f"step-{step:06d}"

    def measure(self, model: Model, step: int, *, anew: bool = True) -> None:
        """Record and evaluate a model at a step.

        Args:
            model: the model.
            step: the number of training steps so far.
            anew: whether to replace what an interrupted run has left for this step.
        """
        out = self.run_folder(step)
        named = replace(model, name=f"{model.name}, step {step}")
        record(named, self.task, out=out / RECORDING, grow=False, overwrite=anew)
        if self.task.has_answers:
            evaluate(
                named,
                self.task,
                out=out / ANSWERS,
                answering=Answering(masked=False),
                grow=False,
                overwrite=anew,
            )

    def result(self, steps: Sequence[int]) -> xr.Dataset:
        """The sharing and, if the task has answers, the accuracy at these steps (check, …)."""
        sharing = [_sharing(self._recording(step), self.split) for step in steps]
        measured = xr.concat(sharing, dim="check")
        if self.task.has_answers:
            answers = [opened_dataset(self.run_folder(step) / ANSWERS) for step in steps]
            measured = measured.merge(self._accuracy(answers))
        return measured.assign_coords(check=list(steps))

    def _recording(self, step: int) -> Recording:
        recording = load_saved(self.run_folder(step) / RECORDING)
        assert isinstance(recording, Recording)
        return recording

    def _accuracy(self, answers: Sequence[xr.Dataset]) -> xr.Dataset:
        """Correctness (check, item, language), and accuracy with its interval (check, part)."""
        correct = np.stack([at_step["correct"].to_numpy() for at_step in answers])
        part = self.split.part(self.task)
        # All checks have the same prompts. Answers of early versions do not say which are equal.
        same = {SAME: answers[0][SAME]} if SAME in answers[0].coords else {}
        samples = samples_of(answers[0])
        rows = np.full((len(correct), len(PARTS), 5), np.nan)
        for i, right in enumerate(correct):
            for j, name in enumerate(PARTS):
                observed = samples.observed(right.astype(float), part == name)
                rows[i, j] = observed.estimate(self.seed, accuracy_interval)
        dims = ("check", "part")
        names = [f"accuracy{end}" for end in samples.ends]
        return xr.Dataset(
            {
                "correct": (("check", "item", "language"), correct),
                **{name: (dims, rows[..., k]) for k, name in enumerate(names)},
                "prompts": ("part", [int((part == name).sum()) for name in PARTS]),
            },
            coords={
                "item": [item["id"] for item in self.task.items],
                "subject": ("item", [subject_of(item) for item in self.task.items]),
                "relation": ("item", [str(item["relation"] or "") for item in self.task.items]),
                "language": list(self.task.languages),
                "part": list(PARTS),
                "part_of": (("item", "language"), part),
            }
            | same,
        )


def _sharing(recording: Recording, chosen: Split) -> xr.Dataset:
    """Sharing on the items that are trained and on those that are held out (items, …)."""
    trained = {item["id"] for item in chosen.trained.items}
    parts = []
    for is_trained in (True, False):
        ids = [i for i in recording.items if (i in trained) == is_trained]
        shared = classify(recording.select(items=ids))
        parts.append(
            xr.Dataset(
                {
                    "fraction": shared["fraction"].mean("item"),
                    "fraction_if_items_shuffled": shared["fraction_if_items_shuffled"],
                    "active": shared["active"].mean("item"),
                    "shared_of_active": shared_of_active(shared).mean("item"),
                }
            )
        )
    return xr.concat(parts, dim="items").assign_coords(items=list(ITEMS)).drop_attrs()
