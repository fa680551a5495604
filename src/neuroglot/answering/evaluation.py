"""How well a model answers a task in each language."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.answering.answering import Answering, ChoiceScore
from neuroglot.answering.answers import (
    Variables,
    choose,
    margins,
    right_options,
    write,
)
from neuroglot.answering.masked import MaskedScores, any_masked, without_subject
from neuroglot.answering.observations import SAME, column, same_tokens, samples_of
from neuroglot.answering.statistics import accuracy_interval
from neuroglot.errors import NeuroglotError
from neuroglot.models.model import Model
from neuroglot.models.operations import operation
from neuroglot.options import options_of
from neuroglot.running.choices import Question
from neuroglot.store.asking import asked_by
from neuroglot.store.blockwise import InFolder
from neuroglot.store.folders import as_path
from neuroglot.store.growing import (
    Growing,
    InMemory,
    Prompts,
    grow_prompts,
    in_folder,
    is_whole,
)
from neuroglot.store.joining import require_steady_prompts
from neuroglot.store.provenance import provenance
from neuroglot.store.results import DONE, open_dataset, opened_dataset
from neuroglot.store.taking_over import Growth
from neuroglot.tasks.guessing import majority
from neuroglot.tasks.halves import subject_of
from neuroglot.tasks.parallel import ParallelTask

ITEMS_AT_ONCE = 32  # items that are written together, and lost together when a run is killed
DIMS = ("item", "language")
GRADING = 2  # how written answers are compared; results of another way do not go on
MOST_KEPT = 100_000  # choices that stay in memory as tokens until they are scored
# What of an item, in a language, its answer depends on beside the prompt.
ANSWERED_FROM = ("joins", "choices", "answers", "aliases", "masked", "held_out")
MASKED, LEFT_OUT, NO_MASKED = "answered", "left out", ""  # what became of masked prompts


def held_out_prompts(task: ParallelTask) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which prompts (item, language) ask in a language that the fact was held out of."""
    return np.array([[lang in item["held_out"] for lang in task.languages] for item in task.items])


def counted_prompts(task: ParallelTask) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which prompts (item, language) count for accuracy in the task's split."""
    held_out = held_out_prompts(task)
    return held_out if task.split == "held_out" else np.ones_like(held_out)


def accuracy(
    correct: xr.DataArray, counted: xr.DataArray, *, seed: int = 0
) -> dict[str, xr.DataArray]:
    """Accuracy by language, with intervals over subjects and, where there are enough, relations.

    Equal prompts count once, with the mean of their answers, which may be right for one item and
    wrong for another. Where a language's answers are all right or all wrong, Wilson's interval
    stands in for the bootstrap's, which would be a point.

    Args:
        correct: whether the answer was right (item, language), with the coordinates ``subject``,
            ``relation`` and ``same_tokens_as`` of :func:`evaluate`.
        counted: which prompts count (item, language).
        seed: of the bootstrap.

    Returns:
        ``accuracy``, ``accuracy_low`` and ``accuracy_high`` (language), NaN with fewer than ten
        subjects; and ``accuracy_low_over_relations`` and ``accuracy_high_over_relations``, if all
        items have a relation and there are at least ten.
    """
    correct, counted = (one.transpose(*DIMS) for one in (correct, counted))
    samples, kept = samples_of(correct), counted.to_numpy().astype(bool)
    right = correct.to_numpy().astype(float)
    rows = [
        samples.observed(right, column(kept, j)).estimate(seed, accuracy_interval)
        for j in range(correct.sizes["language"])
    ]
    coords = {"language": correct["language"]}
    return {
        f"accuracy{end}": xr.DataArray([row[i] for row in rows], dims="language", coords=coords)
        for i, end in enumerate(samples.ends)
    }


@operation
def evaluate(
    model: Model,
    task: ParallelTask,
    *,
    answering: Answering | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    grow: bool = True,
    overwrite: bool = False,
) -> xr.Dataset:
    """Answer every prompt, by choosing where the task has choices, else by writing.

    A choice is scored by the log-probability of its tokens after the prompt; spaces at the end of
    a prompt belong to its choices, and change nothing. What the model writes (greedily) is
    compared with the answer, after its thoughts, by its first line: exact match of the words, or
    of the first number where the task says so, and token F1. Of several right answers the best
    counts.

    Beside the answers stands what a guesser knows: chance, the choice that is most often right in
    the relation, and the model itself where items have masked prompts, which ask the same of a
    neutral subject. Items of a relation share these, so that each different masked prompt with a
    choice runs only once. The progress bar counts a prompt when it is answered in both forms.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        task: every item must have answers.
        answering: how; see :class:`neuroglot.Answering`. Under :func:`neuroglot.edit` a masked
            prompt runs once for each item, under what is done to the item's own prompt.
        out: folder to save the result in. An unfinished one of the same settings there goes on
            where it stopped; a finished one is opened; one of fewer items or languages grows.
        seed: of the bootstrap.
        grow: whether a result in ``out`` of fewer items or languages, and of the same settings
            else, grows: prompts that ask the same, with the same choices, are not answered again.
            Else it is refused.
        overwrite: replace what ``out`` holds.

    Returns:
        A dataset with ``correct`` (item, language), ``answer`` (item, language; the right one),
        ``chance`` (item, language; NaN without choices), ``majority`` (item, language; the
        probability that a guesser is right who sees the relation but no subject), ``held_out``
        (item, language; never taught there), ``counted`` (item, language; which prompts the split
        counts), the coordinate ``same_tokens_as`` (item, language; the index of the first item
        whose prompt is the same tokens: equal prompts count once) and what :func:`accuracy`
        returns (language). With choices also ``choice`` (item, language; index of the chosen),
        ``margin`` (item, language; in nats: the score of the right choice, a sum of
        log-probabilities or their mean per token, less that of the best wrong one; NaN where
        there is no wrong one), ``log_prob`` (item, language, option; summed over tokens, NaN
        beyond an item's choices) and ``n_tokens`` (item, language, option). With masked prompts
        also ``masked_log_prob`` (item, language, option), ``masked_correct`` (item, language; 1
        where the model is right without the subject, else 0), ``masked_margin`` (item, language)
        and ``margin_beyond_masked`` (item, language; ``margin`` less ``masked_margin``), all NaN
        for an item that has none. Without choices also ``text`` (item, language; what the model
        wrote), ``thoughts`` (item, language; what it wrote before that as its thoughts, such as
        between ``<think>`` and ``</think>``; one that was cut leaves no text) and ``f1`` (item,
        language).

    Raises:
        NeuroglotError: the task has no answers, a prompt does not fit, logits are NaN or infinite
            (it names the prompt), or ``out`` holds something else.
    """
    how = options_of(answering, Answering, "answering")
    require_answerable(task)
    masked = _masked_prompts(task, wanted=how.masked is not False)
    head = _head(task, _provenance(model, task, how, masked) | {"seed": seed})
    known: list[Question] = []

    def masked_of(kept: np.ndarray[Any, np.dtype[np.bool_]]) -> MaskedScores | None:
        """Scores with the subject masked, of the prompts (item, language) that are not kept."""
        if masked != MASKED:
            return None
        # What neuroglot.edit does may be something else for each item.
        return MaskedScores(model, task, ITEMS_AT_ONCE, alike=not model.running.edits, kept=kept)

    def answer_into(result: Growing) -> None:
        answers_of = _beside_guesses(model, task, how, known, masked_of(result.kept))

        def make(some: Prompts, done: Callable[[int], object]) -> xr.Dataset:
            answers = answers_of(some)
            done(len(some))
            return answers

        grow_prompts(result, make, "evaluate", task)
        require_steady_prompts(model, task, head.attrs)

    if out is None:
        memory = InMemory(_with_same(head, model, task, how, known), ITEMS_AT_ONCE)
        answer_into(memory)
        return memory.data.assign(_accuracy_of(memory.data))
    path, growth = as_path(out), _growth(model, task, allowed=grow)
    if not overwrite and is_whole(path, head, DIMS, growth):
        return _with_guesses(opened_dataset(path), task, how.choice_score)
    head = _with_same(head, model, task, how, known)
    with in_folder(path, head, ITEMS_AT_ONCE, DIMS, overwrite=overwrite, growth=growth) as folder:
        _refuse_without_guesses(folder)
        answer_into(folder)
        folder.finish(_accuracy_of(open_dataset(path)))
    return opened_dataset(path)


def _growth(model: Model, task: ParallelTask, *, allowed: bool) -> Growth:
    """How answers to fewer prompts become those to a task."""
    return Growth(
        lambda: asked_by(model, task, ANSWERED_FROM),
        longer={"option": task.most_choices},
        # It counts the answers of other items.
        anew={"majority": majority(task)},
        allowed=allowed,
    )


def _beside_guesses(
    model: Model,
    task: ParallelTask,
    how: Answering,
    known: Sequence[Question],
    masked: MaskedScores | None,
) -> Callable[[Prompts], xr.Dataset]:
    """What answers some prompts of a block, and puts what a guesser knows beside the answers.

    Args:
        model: which answers.
        task: all items.
        how: answers are found.
        known: questions of the task's first prompts, which need not be made again.
        masked: scores with the subject masked, where they are asked for.
    """
    guessed, n_languages = majority(task), len(task.languages)

    def answers_of(prompts: Prompts) -> xr.Dataset:
        some = prompts.of(task)
        rows = [i * n_languages + j for i in prompts.items for j in prompts.languages]
        asked = [known[row] for row in rows] if rows[-1] < len(known) else None
        answers = _answers(model, some, how, task.most_choices, asked)
        here = np.ix_(prompts.items, prompts.languages)
        answers = answers.assign(majority=(DIMS, guessed[here]))
        if masked is None:
            return answers
        margin = answers["margin"].to_numpy()
        return answers.assign(
            _labelled(without_subject(some, margin, masked.of(prompts), how.choice_score))
        )

    return answers_of


def _accuracy_of(answers: xr.Dataset) -> xr.Dataset:
    found = accuracy(answers["correct"], answers["counted"], seed=int(answers.attrs["seed"]))
    return xr.Dataset(found)


def _masked_prompts(task: ParallelTask, *, wanted: bool) -> str:
    """What is to become of a task's masked prompts: they are answered, left out, or not there."""
    if not (task.has_choices and any_masked(task)):
        return NO_MASKED
    return MASKED if wanted else LEFT_OUT


def _with_guesses(answers: xr.Dataset, task: ParallelTask, choice_score: ChoiceScore) -> xr.Dataset:
    """A finished result with what one of before did not say, as it follows from what it says."""
    if "majority" in answers:
        return answers
    found: dict[str, Any] = {"majority": (DIMS, majority(task))}
    if "log_prob" in answers:
        log_prob, n_tokens = (
            answers[name].to_numpy().reshape(-1, answers.sizes["option"])
            for name in ("log_prob", "n_tokens")
        )
        margin = margins(log_prob, n_tokens, right_options(task), choice_score)
        found["margin"] = (DIMS, margin.reshape(len(task), -1))
    return answers.assign(found)


def _refuse_without_guesses(folder: InFolder) -> None:
    """Refuse to go on with answers of before, whose blocks hold fewer variables.

    Raises:
        NeuroglotError: some of the blocks are such.
    """
    if "majority" in folder.arrays or DONE not in folder.arrays:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever makes the blocks will say what is damaged
        n_missing = sum(block.stop - block.start for block in folder.missing_blocks())
    if n_missing < folder.n_items:
        raise NeuroglotError(
            f"{str(folder.path)!r} holds answers of an earlier version of neuroglot, which kept no "
            "majority and no margins, so it cannot go on; make it again in another folder, or with "
            "overwrite=True (--overwrite)."
        )


def require_answerable(task: ParallelTask) -> None:
    """Refuse a task whose items cannot all be answered, or not all in the same way.

    Raises:
        NeuroglotError: items without answers, or some with choices and some without.
    """
    if any(item["choices"] for item in task.items) and not task.has_choices:
        raise NeuroglotError(
            f"task {task.name!r} has items with choices and items without; make two tasks of them."
        )
    if not task.has_answers:
        raise NeuroglotError(f"task {task.name!r} has items without choices or answers.")


def _provenance(
    model: Model, task: ParallelTask, answering: Answering, masked: str
) -> dict[str, Any]:
    how: dict[str, Any] = {
        "answered_by": "writing",
        "max_new_tokens": answering.max_new_tokens,
        "grading": GRADING,
        "asked_in": task.asked_in or "",
    }
    if task.has_choices:
        how = {"answered_by": "choosing", "choice_score": answering.choice_score}
        how |= {"masked": masked} if masked else {}
    return {
        "kind": "evaluation",
        **provenance(model, task),
        **how,
        "edited": 0,  # 1 in results of before, of functions that edited; now "edits" says what
    }


def _head(task: ParallelTask, provenance: dict[str, Any]) -> xr.Dataset:
    """Coordinates and provenance of a result, without the answers."""
    return xr.Dataset(
        coords={
            "item": [item["id"] for item in task.items],
            "language": list(task.languages),
            "relation": ("item", [str(item["relation"] or "") for item in task.items]),
            "subject": ("item", [subject_of(item) for item in task.items]),
        },
        attrs=provenance,
    )


def _with_same(
    head: xr.Dataset, model: Model, task: ParallelTask, how: Answering, known: list[Question]
) -> xr.Dataset:
    """The same with which prompts are equal, which a finished result need not look up again.

    What of the task's questions fits into memory is put into ``known``. Prompts that may be cut
    are not, since a warning names those that are when their questions are made to be answered.
    """
    most = 0 if model.tokenization.truncate else MOST_KEPT // max(1, task.most_choices)

    def keep(asked: Sequence[Question]) -> None:
        known.extend(asked[: most - len(known)])

    same = same_tokens(model, task, how.max_new_tokens, keep)
    return head.assign_coords({SAME: (DIMS, same)})


def _answers(
    model: Model,
    task: ParallelTask,
    how: Answering,
    widest: int,
    asked: Sequence[Question] | None,
) -> xr.Dataset:
    """What the model answered to some items, and which of them count."""
    if widest:
        found = choose(model, task, how.choice_score, widest, asked)
    else:
        found = write(model, task, how.max_new_tokens)
    found |= {"held_out": held_out_prompts(task), "counted": counted_prompts(task)}
    return _labelled(found)


def _labelled(found: Variables) -> xr.Dataset:
    dims = (*DIMS, "option")
    return xr.Dataset({name: (dims[: values.ndim], values) for name, values in found.items()})
