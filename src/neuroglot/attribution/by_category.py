"""What each sharing category contributes to the answers, over all items of a task."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neuroglot.answering.answers import Variables as Answers
from neuroglot.answering.answers import choose, write
from neuroglot.answering.evaluation import ANSWERED_FROM, counted_prompts, require_answerable
from neuroglot.attribution.direct import Weights, weights_for
from neuroglot.attribution.neuron_scores import check_scores, score_batches
from neuroglot.attribution.shares import (
    ANSWERED,
    add_item,
    category_shares,
    groups_of,
    no_sums,
    top_k_for,
)
from neuroglot.attribution.targets import Target, TargetName, check_target, targets_of
from neuroglot.defaults import MAX_NEW_TOKENS, NEURON_SCORES
from neuroglot.errors import NeuroglotError, is_whole_number, listed
from neuroglot.models.model import Model
from neuroglot.models.operations import operation
from neuroglot.recording.part import recorded_part
from neuroglot.recording.recording import Recording, require_recording
from neuroglot.sharing.bits import CATEGORIES
from neuroglot.sharing.categories import categories
from neuroglot.store.accumulating import Sums, Wider, add_all, finished, sums_in_folder
from neuroglot.store.asking import asked_by
from neuroglot.store.folders import as_path
from neuroglot.store.joining import (
    how_read,
    require_of_model,
    require_of_prompts,
    require_steady_prompts,
)
from neuroglot.store.provenance import provenance
from neuroglot.store.results import opened_dataset
from neuroglot.tasks.equal_prompts import clusters_of, first_equal
from neuroglot.tasks.halves import subject_of
from neuroglot.tasks.parallel import ParallelTask

KIND = "attribution"
# How many items are scored together: their scores are in memory at once, and are lost when a run
# is killed.
ITEMS_AT_ONCE, BYTES_AT_ONCE = 64, 64 * 2**20


@operation
def attribute(  # noqa: PLR0913 (the public contract)
    model: Model,
    task: ParallelTask,
    *,
    recording: Recording,
    scores: Sequence[str] = NEURON_SCORES,
    top_k: int | None = None,
    target: str | None = None,
    threshold: float = 0.0,
    answers: xr.Dataset | None = None,
    out: str | Path | None = None,
    grow: bool = True,
    overwrite: bool = False,
) -> xr.Dataset:
    """Add up the scores of neurons by their sharing category, over the items of a task.

    For each item, a neuron has the category that the recording gives it there. Its scores are those
    of :func:`neuroglot.neuron_scores`, at the token from which the target is predicted: the last
    token of the prompt and of the part of the answer that is fed after it. Prompts that were
    answered correctly and incorrectly are also summed separately. Memory does not grow with the
    number of items.

    Args:
        model: the model that was recorded.
        task: the task that was recorded; its items need answers.
        recording: from :func:`neuroglot.record`, of all layers. Only the items and languages that
            it holds are attributed.
        scores: names of scores; see :func:`neuroglot.neuron_scores`.
        top_k: how many neurons of a layer count as its top neurons; by default 800 of 16,384, as in
            the paper, and the same share of any other width.
        target: the token that neurons are scored for; see :func:`neuroglot.neuron_scores`.
        threshold: a neuron counts as active where its site value is greater.
        answers: from :func:`neuroglot.evaluate`, of this model and task; by default the prompts
            are answered as part of this call.
        out: folder to save the result in. An unfinished result with the same settings is continued
            there; a finished one is opened.
        grow: whether a result in ``out`` with the same settings but fewer items or languages is
            extended. Items that follow the existing ones are added to its sums; if the languages
            have changed, on which categories depend, everything is summed again. With
            ``grow=False``, such a result is refused.
        overwrite: whether to replace what ``out`` holds.

    Returns:
        A dataset over ``answered`` (``all``, ``incorrect``, ``correct``), ``language``, ``layer``
        and ``category``, and for most variables ``score``. A value is NaN where the denominator is
        zero.

        - ``n_prompts`` (answered, language);
        - ``fraction``: the category's share of all neurons;
        - ``top_share``: the category's share of the top-K neurons;
        - ``positive_share``: the category's share of all positive scores (a ratio of sums over
          prompts), with ``…_low`` and ``…_high``: its 95 % interval, linearised over subjects,
          where prompts with the same text count as one subject;
        - ``model_fraction``, ``model_positive_share`` and its interval: the same over all layers;
        - ``positive_sum`` and ``signed_sum``: sums of the category's scores, per prompt;
        - ``mean``: the mean score of the category's neurons, beside ``layer_mean``, the mean of all
          neurons of the layer;
        - ``maximum``: the category's greatest score, beside ``random_maximum``, the expected
          greatest score of equally many random neurons of the layer; both are means over the
          prompts in which the category has neurons;
        - ``mean_score`` (score, language, layer, neuron): the mean over all prompts.

    Raises:
        NeuroglotError: bad settings, a recording of another model or task, or a score that is not
            defined for the model.

    Prompts that the task's split leaves out are not counted. Prompts in which no token
    distinguishes the answer from a wrong choice are left out with a warning.

    Examples:
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=3)
        >>> recording = ng.record(model, task)
        >>> result = ng.attribute(model, task, recording=recording, scores=["effective"])
        >>> result["n_prompts"].sel(answered="all").values
        array([3, 3])
        >>> float(result["positive_share"].sel(answered="all").sum("category").mean().round(6))
        1.0
    """
    check_scores(scores)
    require_recording(recording)
    recording.check_threshold(threshold)
    recorded = recorded_part(model, task, recording)
    if top_k is not None and not is_whole_number(top_k, 1, model.n_neurons):
        raise NeuroglotError(f"top_k={top_k}: expected 1 to {model.n_neurons}, a whole number.")
    k = top_k_for(model.n_neurons) if top_k is None else int(top_k)
    target_name = check_target(task, target)
    require_answerable(task)
    if recording.attrs["position"] != "last":
        warnings.warn(
            "the recording covers all prompt tokens, so its categories are not those of the token "
            "at which neurons are scored; record with position='last' for that.",
            stacklevel=3,
        )
    given = None if answers is None else answers_to(model, recording, answers)
    job = _Job(model, recorded, recording, given, tuple(scores), target_name, k, threshold)
    head = _head(job)

    def summed(sums: Sums) -> xr.Dataset:
        add_all(sums, job.add, job.items_at_once, "attribute")
        require_steady_prompts(model, task, head.attrs)
        return _result(sums.sums, head)

    if out is None:
        return summed(Sums(head, no_sums(job.sizes), None))
    path, wider = as_path(out), _wider(job, allowed=grow)
    if overwrite or not finished(path, head, wider):
        with sums_in_folder(
            path, head, no_sums(job.sizes), overwrite=overwrite, wider=wider
        ) as folder:
            folder.finish(summed(folder), wider)
    return opened_dataset(path)


@dataclass(frozen=True)
class _Job:
    """An attribution: the model, the prompts and the settings."""

    model: Model
    task: ParallelTask
    recording: Recording
    answers: xr.Dataset | None
    scores: tuple[str, ...]
    target: TargetName
    top_k: int
    threshold: float

    @cached_property
    def weights(self) -> Weights:
        """The weights that the scores need, read on first use: opening a result needs none."""
        return weights_for(self.model, self.scores)

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of the dimensions of one item's scores."""
        return {
            "language": len(self.task.languages),
            "score": len(self.scores),
            "layer": self.model.n_layers,
            "neuron": self.model.n_neurons,
        }

    @cached_property
    def groups(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number of the group in which each item's scores are summed, for intervals (item,)."""
        items = self.task.items
        texts = [[item["prompts"][language] for language in self.task.languages] for item in items]
        return groups_of(clusters_of([subject_of(item) for item in items], first_equal(texts)))

    @property
    def items_at_once(self) -> int:
        """Number of items whose scores are in memory together."""
        bytes_per_item = 4 * math.prod(self.sizes.values())
        return max(1, min(ITEMS_AT_ONCE, BYTES_AT_ONCE // bytes_per_item))

    def add(self, sums: xr.Dataset, block: slice) -> None:
        """Answer and score the prompts of a block of items, and add their scores to the sums."""
        weights = self.weights  # first, because a score may not be defined for the model
        part = replace(self.task, items=self.task.items[block])
        if self.answers is None:
            answers = answers_of(self.model, part)
        else:
            given = self.answers.isel(item=block).data_vars
            answers = {str(name): values.to_numpy() for name, values in given.items()}
        targets = targets_of(self.model, part, self.target, answers.get("log_prob"))
        has_target = np.array([target is not None for target in targets]).reshape(len(part), -1)
        counted = counted_prompts(part)
        if n_left_out := int((counted & ~has_target).sum()):
            warnings.warn(
                f"{n_left_out} prompts are left out of the attribution: no token distinguishes "
                "their answers from a wrong choice. target='answer' includes them.",
                stacklevel=7,
            )
        by_item = self._scores(weights, targets)
        ids = [item["id"] for item in part.items]
        codes = categories(self.recording, threshold=self.threshold, items=ids).to_numpy()
        groups = self.groups[block]
        for i, scores in enumerate(by_item):
            item_codes = torch.from_numpy(codes[i]).to(scores.device)
            answered = (answers["correct"][i], counted[i] & has_target[i])
            add_item(sums, scores, item_codes, answered, self.top_k, int(groups[i]))

    def _scores(self, weights: Weights, targets: Sequence[Target | None]) -> Tensor:
        """Scores (item, score, language, layer, neuron); zero where a prompt has no target."""
        model = self.model
        shape = (len(self.scores), model.n_layers, model.n_neurons)
        scores = torch.zeros((len(targets), *shape), device=model.device, dtype=torch.float32)
        scored = [row for row, target in enumerate(targets) if target is not None]
        present = [target for target in targets if target is not None]
        for rows, values in score_batches(model, weights, present, self.scores):
            scores[[scored[row] for row in rows]] = values
        return scores.reshape(-1, len(self.task.languages), *shape).transpose(1, 2)


def _head(job: _Job) -> xr.Dataset:
    """Coordinates and provenance of a result, without its data."""
    recording, answers = job.recording, job.answers
    answered = {} if answers is None else answers.attrs
    return xr.Dataset(
        coords={
            "item": list(recording.items),
            "language": list(recording.languages),
            "layer": list(recording.layers),
            "category": list(CATEGORIES),
            "score": list(job.scores),
        },
        attrs={
            "kind": KIND,
            **provenance(job.model, job.task, recording.attrs),
            **how_read(recording.attrs),
            "threshold": job.threshold,
            "target": job.target,
            "answer_score": answered.get("choice_score", "sum"),
            "max_new_tokens": answered.get("max_new_tokens", MAX_NEW_TOKENS),
            "answers_checksum": _checksum(answers),
            "top_k": job.top_k,
        },
    )


def _wider(job: _Job, *, allowed: bool) -> Wider:
    """How to tell whether a result over fewer items or languages can be extended to this one."""

    def checksums(n_items: int) -> dict[str, str]:
        first = None if job.answers is None else job.answers.isel(item=slice(n_items))
        groups = hashlib.sha256(job.groups[:n_items].tobytes())
        return {"answers_checksum": _checksum(first), "groups_checksum": groups.hexdigest()[:16]}

    return Wider(
        cache(lambda: asked_by(job.model, job.task, ANSWERED_FROM)),
        checksums,
        free=("answers_checksum",),
        allowed=allowed,
    )


def _checksum(answers: xr.Dataset | None) -> str:
    """Checksum of which answers are correct, and of the choices' log-probabilities."""
    if answers is None:
        return ""
    names = [name for name in ("correct", "log_prob") if name in answers]
    values = b"".join(answers[name].to_numpy().tobytes() for name in names)
    return hashlib.sha256(values).hexdigest()[:16]


def _result(sums: xr.Dataset, head: xr.Dataset) -> xr.Dataset:
    """The result that follows from the sums."""
    labels = {name: head[name] for name in ("language", "layer", "category", "score")}
    shares = category_shares(sums.drop_attrs().assign_coords(labels))
    return shares.assign_coords(head.coords).assign_attrs(head.attrs)


def answers_of(model: Model, task: ParallelTask) -> Answers:
    """The model's answers: ``correct`` (item, language) and, with choices, ``log_prob``."""
    if task.has_choices:
        return choose(model, task, "sum", task.most_choices)
    return write(model, task, MAX_NEW_TOKENS)


def answers_to(model: Model, recording: Recording, answers: xr.Dataset) -> xr.Dataset:
    """The part of an evaluation that answers the prompts of a recording.

    Raises:
        NeuroglotError: the evaluation is of another model, of other prompts, or under an edit.
    """
    kind, edited = answers.attrs.get("kind"), answers.attrs.get("edited")
    if kind != "evaluation" or edited != 0:
        raise NeuroglotError(
            f"the answers are a result of kind {kind!r}, edited {edited!r}; expected a result of "
            "neuroglot.evaluate without an edit. Leave answers out to compute them here."
        )
    require_of_model(answers.attrs, model, "the evaluation")
    require_of_prompts(answers.attrs, recording.attrs, "the evaluation", "task")
    for dim, names in (("item", recording.items), ("language", recording.languages)):
        if not set(names) <= set(map(str, answers[dim].to_numpy())):
            raise NeuroglotError(
                f"the answers lack a recorded {dim}; leave answers out to compute them here."
            )
    return answers.sel(item=list(recording.items), language=list(recording.languages))


def share_of_correct(attribution: xr.Dataset, *, score: str = "effective") -> xr.Dataset:
    """The paper's headline: how much of the correct answers comes from all-shared neurons.

    Args:
        attribution: from :func:`attribute`.
        score: which of its scores to report.

    Returns:
        ``share``, ``share_low`` and ``share_high`` (language, layer): the share of all-shared
        neurons in the positive scores of correctly answered prompts, with its 95 % interval;
        ``fraction`` (language, layer): the share of neurons that are all-shared in these prompts.
        ``model_share``, …, ``model_fraction`` (language) are the same over all layers.

    Raises:
        NeuroglotError: the score was not attributed.

    Examples:
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=3)
        >>> result = ng.attribute(model, task, recording=ng.record(model, task))
        >>> ng.share_of_correct(result)["model_share"].dims
        ('language',)
    """
    names = [str(name) for name in attribution["score"].to_numpy()]
    if score not in names:
        raise NeuroglotError(f"score {score!r} was not attributed; there are {listed(names)}.")
    shared = attribution.sel(score=score, answered=ANSWERED[1], category="all_shared", drop=True)
    variables = {
        f"{scope}{name.removeprefix('positive_')}": shared[f"{scope}{name}"]
        for scope in ("", "model_")
        for name in ("fraction", "positive_share", "positive_share_low", "positive_share_high")
    }
    attrs = attribution.attrs | {"kind": "share of correct answers", "score": score}
    return xr.Dataset(variables, attrs=attrs)
