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
from neuroglot.recording.saved import load_saved
from neuroglot.sharing.bits import CATEGORIES
from neuroglot.sharing.categories import categories
from neuroglot.store.accumulating import Sums, Wider, add_all, finished, sums_in_folder
from neuroglot.store.asking import asked_by
from neuroglot.store.folders import as_path
from neuroglot.store.joining import require_of_model, require_of_prompts, require_steady_prompts
from neuroglot.store.provenance import provenance
from neuroglot.tasks.equal_prompts import clusters_of, first_equal
from neuroglot.tasks.halves import subject_of
from neuroglot.tasks.parallel import ParallelTask

KIND = "attribution"
# Items that are scored together: their scores are in memory at once, and lost when a run is killed.
ITEMS_AT_ONCE, BYTES_AT_ONCE = 64, 64 * 2**20


@dataclass(frozen=True)
class _Settings:
    """How neurons are scored."""

    scores: tuple[str, ...]
    target: TargetName
    top_k: int
    threshold: float


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
    """Add up the scores of neurons by their sharing category, item by item.

    A neuron has, for every item, the category that the recording gives it there. Its scores are
    those of :func:`neuroglot.neuron_scores`, at the token from which the target is predicted: the
    last of the prompt and of what is fed after it. Scores of correct and of wrong answers are told
    apart. Memory does not grow with the number of items.

    Args:
        model: the one that was recorded.
        task: the one that was recorded; its items need answers.
        recording: from :func:`neuroglot.record`, of all layers; its items and languages count.
        scores: see :func:`neuroglot.neuron_scores`.
        top_k: how many neurons of a layer are its top; by default 800 of 16,384, as in the paper,
            and the same share of another width.
        target: see :func:`neuroglot.neuron_scores`.
        threshold: a neuron was active where its site value was greater.
        answers: from :func:`neuroglot.evaluate`, of this model and task; by default every prompt
            is answered here.
        out: folder to save the result in. An unfinished one of the same settings there goes on
            where it stopped; a finished one is opened.
        grow: whether a result in ``out`` of fewer items or languages, and of the same settings
            else, grows. Items after the others are added to its sums. Otherwise all are added up
            again, as where there is another language, on which categories depend. Without, it is
            refused.
        overwrite: replace what ``out`` holds.

    Returns:
        A dataset over ``answered`` (``all``, ``incorrect``, ``correct``), ``language``, ``layer``
        and ``category``, by ``score`` where there is one; NaN where there is nothing to divide by:

        - ``n_prompts`` (answered, language);
        - ``fraction``: the category's share of all neurons;
        - ``top_share``: its share of the top-K neurons;
        - ``positive_share``: its share of all positive scores (a ratio of sums over prompts), with
          ``…_low`` and ``…_high`` (95 %, linearised over subjects; prompts that are the same text
          join theirs);
        - ``model_fraction``, ``model_positive_share`` and its interval: the same over all layers;
        - ``positive_sum`` and ``signed_sum`` of its neurons' scores, for one prompt;
        - ``mean`` score of its neurons beside ``layer_mean``, that of all neurons;
        - ``maximum`` beside ``random_maximum``, the greatest that as many random neurons of the
          layer are expected to have; both are means over the prompts where the category has any;
        - ``mean_score`` (score, language, layer, neuron), over all prompts.

    Raises:
        NeuroglotError: bad settings, a recording of another model or task, or a score that is not
            defined for the model.

    Prompts that the task's split does not count are left out, and so are, with a warning, those
    where no token tells the answer from a wrong choice.
    """
    check_scores(scores)
    require_recording(recording)
    recording.check_threshold(threshold)
    chosen = recorded_part(model, task, recording)
    k = _check_top_k(model, top_k)
    settings = _Settings(tuple(scores), check_target(task, target), k, threshold)
    require_answerable(task)
    if recording.attrs["position"] != "last":
        warnings.warn(
            "the recording looks at all prompt tokens, so that categories are not those of the "
            "token at which neurons are scored; record with position='last' for that.",
            stacklevel=3,
        )
    known = None if answers is None else answers_to(model, recording, answers)
    adding = _Adding(model, chosen, recording, settings, known)
    head = _head(adding)
    if out is None:
        memory = Sums(head, no_sums(adding.sizes), None)
        add_all(memory, adding.add, adding.items_at_once, "attribute")
        require_steady_prompts(model, task, head.attrs)
        return _result(memory.sums, head)
    path, wider = as_path(out), _wider(adding, allowed=grow)
    if overwrite or not finished(path, head, wider):
        with sums_in_folder(
            path, head, no_sums(adding.sizes), overwrite=overwrite, wider=wider
        ) as folder:
            add_all(folder, adding.add, adding.items_at_once, "attribute")
            require_steady_prompts(model, task, head.attrs)
            folder.finish(_result(folder.sums, head), wider)
    found = load_saved(path)
    assert isinstance(found, xr.Dataset)
    return found


def _check_top_k(model: Model, top_k: int | None) -> int:
    if top_k is None:
        return top_k_for(model.n_neurons)
    if not is_whole_number(top_k, 1, model.n_neurons):
        raise NeuroglotError(f"top_k={top_k}: expected 1 to {model.n_neurons}, a whole number.")
    return int(top_k)


@dataclass(frozen=True)
class _Adding:
    """What is added up, and of what."""

    model: Model
    task: ParallelTask
    recording: Recording
    settings: _Settings
    answers: xr.Dataset | None

    @cached_property
    def weights(self) -> Weights:
        """What the scores need; not before it is needed, since a finished result is only opened."""
        return weights_for(self.model, self.settings.scores)

    @property
    def sizes(self) -> dict[str, int]:
        """Of what is scored for one item."""
        return {
            "language": len(self.task.languages),
            "score": len(self.settings.scores),
            "layer": self.model.n_layers,
            "neuron": self.model.n_neurons,
        }

    @cached_property
    def groups(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """In which group the scores of each item are added up, for intervals (item,)."""
        items = self.task.items
        texts = [[item["prompts"][language] for language in self.task.languages] for item in items]
        return groups_of(clusters_of([subject_of(item) for item in items], first_equal(texts)))

    @property
    def items_at_once(self) -> int:
        """Items whose scores are in memory together."""
        an_item = 4 * math.prod(self.sizes.values())
        return max(1, min(ITEMS_AT_ONCE, BYTES_AT_ONCE // an_item))

    def add(self, sums: xr.Dataset, block: slice) -> None:
        """Answer and score the prompts of some items, and add them to the sums."""
        weights = self.weights  # first, since the model may have none for a score
        some = replace(self.task, items=self.task.items[block])
        answers = self._answers(some, block)
        targets = targets_of(self.model, some, self.settings.target, answers.get("log_prob"))
        there = np.array([target is not None for target in targets]).reshape(len(some), -1)
        counted = counted_prompts(some)
        _warn_of(int((counted & ~there).sum()))
        by_item = self._scores(weights, targets)
        ids = [item["id"] for item in some.items]
        codes = categories(self.recording, threshold=self.settings.threshold, items=ids).to_numpy()
        groups = self.groups[block]
        for i, scores in enumerate(by_item):
            here = torch.from_numpy(codes[i]).to(scores.device)
            answered = (answers["correct"][i], counted[i] & there[i])
            add_item(sums, scores, here, answered, self.settings.top_k, int(groups[i]))

    def _answers(self, task: ParallelTask, block: slice) -> Answers:
        if self.answers is None:
            return answers_of(self.model, task)
        here = self.answers.isel(item=block)
        return {str(name): values.to_numpy() for name, values in here.data_vars.items()}

    def _scores(self, weights: Weights, targets: Sequence[Target | None]) -> Tensor:
        """Scores (item, score, language, layer, neuron); zero where there is no target."""
        model, names = self.model, self.settings.scores
        shape = (len(names), model.n_layers, model.n_neurons)
        found = torch.zeros((len(targets), *shape), device=model.device, dtype=torch.float32)
        there = [(row, target) for row, target in enumerate(targets) if target is not None]
        some = [target for _, target in there]
        for rows, values in score_batches(model, weights, some, names):
            found[[there[row][0] for row in rows]] = values
        return found.reshape(-1, len(self.task.languages), *shape).transpose(1, 2)


def _warn_of(n_left_out: int) -> None:
    if n_left_out:
        warnings.warn(
            f"{n_left_out} prompts are left out of the attribution: no token tells their answers "
            "from a wrong choice. With target='answer' they would not be.",
            stacklevel=5,
        )


def _head(adding: _Adding) -> xr.Dataset:
    """Coordinates and provenance of a result, without its data."""
    recording, settings = adding.recording, adding.settings
    return xr.Dataset(
        coords={
            "item": list(recording.items),
            "language": list(recording.languages),
            "layer": list(recording.layers),
            "category": list(CATEGORIES),
            "score": list(settings.scores),
        },
        attrs={
            "kind": KIND,
            **provenance(adding.model, adding.task, recording.attrs),
            "site": recording.attrs["site"],
            "position": recording.attrs["position"],
            "threshold": settings.threshold,
            "target": settings.target,
            **_how_answered(adding.answers),
            "top_k": settings.top_k,
        },
    )


def _wider(adding: _Adding, *, allowed: bool) -> Wider:
    """What the sums of the first items depend on beside the settings."""
    answers = adding.answers

    def said(n_items: int) -> dict[str, str]:
        first = None if answers is None else answers.isel(item=slice(n_items))
        groups = hashlib.sha256(adding.groups[:n_items].tobytes())
        return {
            "answers_checksum": "" if first is None else _checksum(first),
            "groups_checksum": groups.hexdigest()[:16],
        }

    return Wider(
        cache(lambda: asked_by(adding.model, adding.task, ANSWERED_FROM)),
        said,
        free=("answers_checksum",),
        allowed=allowed,
    )


def _how_answered(answers: xr.Dataset | None) -> dict[str, Any]:
    """What decides which answers are correct."""
    attrs = {} if answers is None else answers.attrs
    return {
        "answer_score": attrs.get("choice_score", "sum"),
        "max_new_tokens": attrs.get("max_new_tokens", MAX_NEW_TOKENS),
        "answers_checksum": "" if answers is None else _checksum(answers),
    }


def _checksum(answers: xr.Dataset) -> str:
    digest = hashlib.sha256()
    for name in ("correct", "log_prob"):
        if name in answers:
            digest.update(answers[name].to_numpy().tobytes())
    return digest.hexdigest()[:16]


def _result(sums: xr.Dataset, head: xr.Dataset) -> xr.Dataset:
    labels = {name: head[name] for name in ("language", "layer", "category", "score")}
    found = category_shares(sums.drop_attrs().assign_coords(labels))
    return found.assign_coords(head.coords).assign_attrs(head.attrs)


def answers_of(model: Model, task: ParallelTask) -> Answers:
    """What the model answers: ``correct`` (item, language) and, with choices, ``log_prob``."""
    if task.has_choices:
        return choose(model, task, "sum", task.most_choices)
    return write(model, task, MAX_NEW_TOKENS)


def answers_to(model: Model, recording: Recording, answers: xr.Dataset) -> xr.Dataset:
    """The answers to the prompts of a recording.

    Raises:
        NeuroglotError: they are another model's, to other prompts, or under an edit.
    """
    kind, edited = answers.attrs.get("kind"), answers.attrs.get("edited")
    if kind != "evaluation" or edited != 0:
        raise NeuroglotError(
            f"the answers are a result of kind {kind!r}, edited {edited!r}; expected those of "
            "neuroglot.evaluate without an edit. Leave them out, and they are found here."
        )
    require_of_model(answers.attrs, model, "the evaluation")
    require_of_prompts(answers.attrs, recording.attrs, "the evaluation", "task")
    for dim, names in (("item", recording.items), ("language", recording.languages)):
        if not set(names) <= set(map(str, answers[dim].to_numpy())):
            raise NeuroglotError(f"the answers lack a recorded {dim}; leave them out.")
    return answers.sel(item=list(recording.items), language=list(recording.languages))


def share_of_correct(attribution: xr.Dataset, *, score: str = "effective") -> xr.Dataset:
    """The paper's headline: how much of correct answers comes from all-shared neurons.

    Args:
        attribution: from :func:`attribute`.
        score: which of its scores.

    Returns:
        ``share``, ``share_low`` and ``share_high`` (language, layer): of the positive scores in
        correctly answered prompts, what all-shared neurons have, with its 95 % interval;
        ``fraction`` (language, layer): how many of the neurons are all-shared there. The same over
        all layers as ``model_share``, … (language).

    Raises:
        NeuroglotError: the score was not attributed.
    """
    known = [str(name) for name in attribution["score"].to_numpy()]
    if score not in known:
        raise NeuroglotError(f"score {score!r} was not attributed; there are {listed(known)}.")
    here = attribution.sel(score=score, answered=ANSWERED[1], category="all_shared", drop=True)
    found = {}
    for model_wide in ("", "model_"):
        found[f"{model_wide}fraction"] = here[f"{model_wide}fraction"]
        for end in ("", "_low", "_high"):
            found[f"{model_wide}share{end}"] = here[f"{model_wide}positive_share{end}"]
    kept = attribution.attrs | {"kind": "share of correct answers", "score": score}
    return xr.Dataset(found).assign_attrs(kept)
