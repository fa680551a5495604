"""What is measured before, during and after training."""

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
    """Measures one model again and again, into a folder of runs.

    Attributes:
        task: the items that are measured.
        split: which of them are trained.
        folder: holds one run for each step that was measured.
        seed: of the intervals.
    """

    task: ParallelTask
    split: Split
    folder: Path
    seed: int

    def run_folder(self, step: int) -> Path:
        """Where the run of a step is: one that :func:`neuroglot.compare` takes."""
        return self.folder / f"step-{step:06d}"

    def measure(self, model: Model, step: int, *, anew: bool = True) -> None:
        """Record and evaluate; ``anew`` replaces what an interrupted run has left of the step."""
        out = self.run_folder(step)
        named = replace(model, name=f"{model.name}, step {step}")
        record(named, self.task, out=out / RECORDING, grow=False, overwrite=anew)
        if self.task.has_answers:
            # Nothing is said here of the model with the subject masked.
            out = out / ANSWERS
            evaluate(
                named,
                self.task,
                out=out,
                answering=Answering(masked=False),
                grow=False,
                overwrite=anew,
            )

    def result(self, steps: Sequence[int]) -> xr.Dataset:
        """What was measured at these steps (check, …)."""
        sharing = [_sharing(self._recording(step), self.split) for step in steps]
        found = xr.concat(sharing, dim="check")
        if self.task.has_answers:
            found = found.merge(self._accuracy([self._answers(step) for step in steps]))
        return found.assign_coords(check=list(steps))

    def _answers(self, step: int) -> xr.Dataset:
        return opened_dataset(self.run_folder(step) / ANSWERS)

    def _recording(self, step: int) -> Recording:
        found = load_saved(self.run_folder(step) / RECORDING)
        assert isinstance(found, Recording)
        return found

    def _accuracy(self, answers: Sequence[xr.Dataset]) -> xr.Dataset:
        """Answers (check, item, language), and accuracy by part with its intervals."""
        correct = np.stack([one["correct"].to_numpy() for one in answers])
        part = self.split.part(self.task)
        # The prompts are the same in all checks; answers of before may not say which are equal.
        said = {SAME: answers[0][SAME]} if SAME in answers[0].coords else {}
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
            | said,
        )


def _sharing(recording: Recording, chosen: Split) -> xr.Dataset:
    """Sharing on the items that are trained and on those that are not."""
    kept = {item["id"] for item in chosen.trained.items}
    ids = [[i for i in recording.items if (i in kept) == is_kept] for is_kept in (True, False)]
    found = []
    for some in ids:
        shared = classify(recording.select(items=some))
        found.append(
            xr.Dataset(
                {
                    "fraction": shared["fraction"].mean("item"),
                    "fraction_if_items_shuffled": shared["fraction_if_items_shuffled"],
                    "active": shared["active"].mean("item"),
                    "shared_of_active": shared_of_active(shared).mean("item"),
                }
            )
        )
    return xr.concat(found, dim="items").assign_coords(items=list(ITEMS)).drop_attrs()
