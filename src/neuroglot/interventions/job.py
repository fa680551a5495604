"""What is answered under conditions, and how: checked once, the same for all of them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from neuroglot.attribution.direct import Weights, weights_for
from neuroglot.errors import NeuroglotError, is_whole_number, listed
from neuroglot.experiments.differences import check_bound
from neuroglot.experiments.evaluation import check_answering, require_answerable
from neuroglot.experiments.halves import halves
from neuroglot.experiments.observations import same_tokens
from neuroglot.interventions.answering import Answering
from neuroglot.interventions.arms import Controls
from neuroglot.interventions.conditions import CONTROLS
from neuroglot.models import Model
from neuroglot.models.running import check_positions
from neuroglot.recording import Recording
from neuroglot.recording.batching import BatchSize, check_batch_size
from neuroglot.recording.matching import recorded_part
from neuroglot.recording.whose import folder_for_results
from neuroglot.tasks import ParallelTask


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

    @cached_property
    def weights(self) -> Weights:
        """What contributions need."""
        return weights_for(self.model, ("contribution",))

    def halves(self) -> tuple[Job, Job]:
        """The same for a development half and for the other half, with no prompt in both."""
        same = same_tokens(self.model, self.task, self.how.max_new_tokens)
        development, test = halves(self.task, self.controls.seed, same)
        return self._of(development, "development"), self._of(test, "test")

    def _of(self, ids: Sequence[str], half: str) -> Job:
        kept = set(ids)
        items = [item for item in self.task.items if item["id"] in kept]
        task, recording = self.task.part(items), self.recording.select(items=ids)
        return replace(self, task=task, recording=recording, half=half)

    def folder(self, *names: str) -> Path | None:
        """Where something of this half is kept, if anywhere."""
        # A comma with a space parts what is said of a condition, one without parts layers.
        safe = [re.sub(r"[^a-z0-9_+.,-]+", "-", x.replace(", ", "-")) for x in names]
        return None if self.out is None else Path(self.out, self.half, *safe)


def check_controls(
    controls: Sequence[str], draws: int, seed: int, equivalent_within: float
) -> Controls:
    """The controls, if they are such.

    Raises:
        NeuroglotError: an unknown one, no number of draws from 1, or no bound between 0 and 1.
    """
    if isinstance(controls, str) or not isinstance(controls, Iterable):
        raise NeuroglotError(
            f"controls={controls!r}: expected a list of names, which may be empty."
        )
    kinds = tuple(controls)
    unknown = [kind for kind in kinds if kind not in CONTROLS]
    if unknown or len(set(kinds)) < len(kinds):
        raise NeuroglotError(
            f"controls={listed(kinds)}: expected different ones of {listed(CONTROLS)}."
        )
    if not is_whole_number(draws, 1, 1000):
        raise NeuroglotError(f"draws={draws!r}: expected a whole number from 1 to 1,000.")
    if not is_whole_number(seed, 0):
        raise NeuroglotError(f"seed={seed!r}: expected a whole number from 0.")
    return Controls(kinds, int(draws), int(seed), check_bound(equivalent_within))


def answering(positions: str, score: str, max_new_tokens: int, batch_size: BatchSize) -> Answering:
    """How prompts are answered, if they can be so.

    Raises:
        NeuroglotError: unknown positions or score, or no numbers of tokens or prompts.
    """
    check_batch_size(batch_size)
    checked = check_positions(positions), check_answering(score, max_new_tokens)
    return Answering(*checked, max_new_tokens, batch_size)


def job_of(
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
    if not isinstance(recording, Recording):
        raise NeuroglotError(
            f"recording is a {type(recording).__name__}; expected what neuroglot.record returns, "
            "or neuroglot.open of its folder."
        )
    model.require_unedited()
    recording.check_threshold(threshold)
    if recording.attrs["position"] != "last" and how.positions != "all":
        warnings.warn(
            "the recording looks at all prompt tokens, so that categories are not those of the "
            "tokens that are edited; record with position='last', or edit positions='all'.",
            stacklevel=5,
        )
    require_answerable(task)
    part = recorded_part(model, task, recording)
    folder = None if out is None else folder_for_results(out)
    return Job(model, task, part, recording, controls, how, threshold, folder, overwrite)
