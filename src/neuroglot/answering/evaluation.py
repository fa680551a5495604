"""Answer a task with a model, and compute its accuracy in each language."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.answering.answering import Answering, ChoiceScore
from neuroglot.answering.answers import Variables, choose, margins, right_options, write
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
from neuroglot.store.growing import Growing, InMemory, Prompts, grow_prompts, in_folder, is_whole
from neuroglot.store.joining import require_steady_prompts
from neuroglot.store.provenance import provenance
from neuroglot.store.results import DONE, open_dataset, opened_dataset
from neuroglot.store.taking_over import Growth
from neuroglot.tasks.guessing import majority
from neuroglot.tasks.halves import subject_of
from neuroglot.tasks.parallel import ParallelTask

ITEMS_AT_ONCE = 32  # items of a block; an unfinished block is lost if a run is killed
DIMS = ("item", "language")
GRADING = 2  # version of the comparison of written answers; results of another one do not go on
MOST_KEPT = 100_000  # choices that stay in memory as tokens until they are scored
# Fields of an item on which the answers depend, besides the prompt.
ANSWERED_FROM = ("joins", "choices", "answers", "aliases", "masked", "held_out")
MASKED, LEFT_OUT, NO_MASKED = "answered", "left out", ""  # whether masked prompts are asked


def held_out_prompts(task: ParallelTask) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether the fact was never taught in the language of the prompt (item, language)."""
    return np.array([[lang in item["held_out"] for lang in task.languages] for item in task.items])


def counted_prompts(task: ParallelTask) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether each prompt counts for the accuracy in the task's split (item, language)."""
    held_out = held_out_prompts(task)
    return held_out if task.split == "held_out" else np.ones_like(held_out)


def accuracy(
    correct: xr.DataArray, counted: xr.DataArray, *, seed: int = 0
) -> dict[str, xr.DataArray]:
    """The accuracy in each language, with its interval at 95 %.

    Equal prompts count once, with the mean of their answers, since the same answer may be right for
    one item and wrong for another. If all answers in a language are right, or all are wrong, the
    interval is Wilson's, since the bootstrap would give none.

    Args:
        correct: whether the answer is right (item, language), with the coordinates ``subject``,
            ``relation`` and ``same_tokens_as`` of :func:`evaluate`.
        counted: whether each prompt counts (item, language).
        seed: the seed of the bootstrap.

    Returns:
        ``accuracy``, and the ends of its interval over subjects, ``accuracy_low`` and
        ``accuracy_high`` (language), which are NaN with fewer than ten subjects; also
        ``accuracy_low_over_relations`` and ``accuracy_high_over_relations`` if all items have a
        relation and there are at least ten relations.

    Examples:
        >>> import neuroglot as ng
        >>> import xarray as xr
        >>> coords = {"item": [f"item {i}" for i in range(12)], "language": ["en", "de"]}
        >>> correct = xr.DataArray([[True, False]] * 12, coords, ["item", "language"])
        >>> by_language = ng.accuracy(correct, xr.ones_like(correct))
        >>> by_language["accuracy"].values.tolist()
        [1.0, 0.0]
        >>> by_language["accuracy_low"].values.round(2).tolist()
        [0.76, 0.0]
    """
    correct, counted = (values.transpose(*DIMS) for values in (correct, counted))
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
    """Answer every prompt of a task: by choosing if the task has choices, else by writing.

    The score of a choice is the log-probability of its tokens after the prompt; spaces at the end
    of a prompt count as the beginning of its choices, and change nothing. A written answer
    (greedily decoded) is the first line after the model's thoughts. It is compared with the right
    answer by exact match of the words, or of the first number if the task says so, and by token F1.
    If there are several right answers, the best match counts.

    The result also holds what can be reached by guessing: chance, the choice that is most often
    right in the relation, and the model's own answers with the subject masked, if items have masked
    prompts, which ask about a neutral subject. Items of a relation share their masked prompts, so
    each different masked prompt with a choice runs only once. The progress bar counts a prompt when
    it is answered in both forms.

    Args:
        model: the model, from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        task: the task; every item must have answers.
        answering: how prompts are answered; see :class:`neuroglot.Answering`. Under
            :func:`neuroglot.edit` a masked prompt runs once for each item, under the edit of the
            item's own prompt.
        out: the folder in which the result is saved. If it holds an unfinished result of the same
            settings, the result goes on where it stopped; a finished one is opened; one of fewer
            items or languages grows.
        seed: the seed of the bootstrap.
        grow: whether a result in ``out`` of fewer items or languages, but the same settings, grows.
            Prompts that ask the same with the same choices are then not answered again. If not
            set, such a result is refused.
        overwrite: whether to replace what ``out`` holds.

    Returns:
        A dataset with these variables, and what :func:`accuracy` returns (language):

        - ``correct`` (item, language): whether the answer is right;
        - ``answer`` (item, language): the right answer;
        - ``chance`` (item, language): the probability of a right guess; NaN without choices;
        - ``majority`` (item, language): the probability of a right guess for a guesser who knows
          the relation but not the subject;
        - ``held_out`` (item, language): whether the fact was never taught in the language;
        - ``counted`` (item, language): whether the prompt counts in the task's split;
        - the coordinate ``same_tokens_as`` (item, language): the place of the first item whose
          prompt is the same tokens; equal prompts count once.

        With choices also:

        - ``choice`` (item, language): the place of the chosen choice;
        - ``margin`` (item, language): the score of the right choice less that of the best wrong
          one, in nats; the score is the sum of log-probabilities or their mean per token; NaN if
          there is no wrong choice;
        - ``log_prob`` (item, language, option): the log-probability, summed over tokens, in nats;
          NaN beyond an item's choices;
        - ``n_tokens`` (item, language, option): the number of tokens.

        With masked prompts also these, all NaN for an item without a masked prompt:

        - ``masked_correct`` (item, language): 1 if the model is right without the subject, else 0;
        - ``masked_margin`` (item, language) and ``masked_log_prob`` (item, language, option);
        - ``margin_beyond_masked`` (item, language): ``margin`` less ``masked_margin``.

        Without choices also:

        - ``text`` (item, language): the text that the model wrote after its thoughts;
        - ``thoughts`` (item, language): its thoughts, such as between ``<think>`` and
          ``</think>``; if they were cut, there is no text;
        - ``f1`` (item, language): the token F1.

    Raises:
        NeuroglotError: the task has no answers, a prompt does not fit into the context, logits are
            NaN or infinite (it names the prompt), or ``out`` holds something else.

    Examples:
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=2)
        >>> answers = ng.evaluate(model, task)
        >>> answers["correct"].dims
        ('item', 'language')
        >>> float(answers["chance"].max())
        0.1
    """
    how = options_of(answering, Answering, "answering")
    require_answerable(task)
    masked = _masked_prompts(task, wanted=how.masked is not False)
    head = _head(task, _provenance(model, task, how, masked) | {"seed": seed})
    tokenized: list[Question] = []

    def answer_into(result: Growing) -> None:
        scores = None
        if masked == MASKED:
            # Under neuroglot.edit, items with the same masked prompt may be edited differently.
            alike = not model.running.edits
            scores = MaskedScores(model, task, ITEMS_AT_ONCE, alike=alike, kept=result.kept)
        answers_of = _answerer(model, task, how, tokenized, scores)

        def make(prompts: Prompts, done: Callable[[int], object]) -> xr.Dataset:
            answers = answers_of(prompts)
            done(len(prompts))
            return answers

        grow_prompts(result, make, "evaluate", task)
        require_steady_prompts(model, task, head.attrs)

    if out is None:
        memory = InMemory(_with_same(head, model, task, how, tokenized), ITEMS_AT_ONCE)
        answer_into(memory)
        return memory.data.assign(_accuracy_of(memory.data))
    growth = Growth(
        lambda: asked_by(model, task, ANSWERED_FROM),
        longer={"option": task.most_choices},
        anew={"majority": majority(task)},  # it counts the answers of all items
        allowed=grow,
    )
    path = as_path(out)
    if not overwrite and is_whole(path, head, DIMS, growth):
        return _with_guesses(opened_dataset(path), task, how.choice_score)
    head = _with_same(head, model, task, how, tokenized)
    with in_folder(path, head, ITEMS_AT_ONCE, DIMS, overwrite=overwrite, growth=growth) as folder:
        _refuse_without_guesses(folder)
        answer_into(folder)
        folder.finish(_accuracy_of(open_dataset(path)))
    return opened_dataset(path)


def _answerer(
    model: Model,
    task: ParallelTask,
    how: Answering,
    tokenized: Sequence[Question],
    masked: MaskedScores | None,
) -> Callable[[Prompts], xr.Dataset]:
    """A function that answers prompts of a block, and adds what can be reached by guessing.

    Args:
        model: the model that answers.
        task: the whole task.
        how: how prompts are answered.
        tokenized: the questions of the first prompts of the task, which need not be made again.
        masked: the scores with the subject masked, if they are asked for.
    """
    guessed, n_languages = majority(task), len(task.languages)

    def answers_of(prompts: Prompts) -> xr.Dataset:
        part = prompts.of(task)
        rows = [i * n_languages + j for i in prompts.items for j in prompts.languages]
        asked = [tokenized[row] for row in rows] if rows[-1] < len(tokenized) else None
        answers = _answers(model, part, how, task.most_choices, asked)
        majority_here = guessed[np.ix_(prompts.items, prompts.languages)]
        answers = answers.assign(majority=(DIMS, majority_here))
        if masked is None:
            return answers
        margin, scores = answers["margin"].to_numpy(), masked.of(prompts)
        return answers.assign(_labelled(without_subject(part, margin, scores, how.choice_score)))

    return answers_of


def _answers(
    model: Model,
    task: ParallelTask,
    how: Answering,
    widest: int,
    asked: Sequence[Question] | None,
) -> xr.Dataset:
    """The answers to some prompts, and which of these count."""
    if widest:
        answers = choose(model, task, how.choice_score, widest, asked)
    else:
        answers = write(model, task, how.max_new_tokens)
    answers |= {"held_out": held_out_prompts(task), "counted": counted_prompts(task)}
    return _labelled(answers)


def _labelled(variables: Variables) -> xr.Dataset:
    dims = (*DIMS, "option")
    return xr.Dataset({name: (dims[: values.ndim], values) for name, values in variables.items()})


def _accuracy_of(answers: xr.Dataset) -> xr.Dataset:
    seed = int(answers.attrs["seed"])
    return xr.Dataset(accuracy(answers["correct"], answers["counted"], seed=seed))


def _masked_prompts(task: ParallelTask, *, wanted: bool) -> str:
    """Whether the masked prompts of a task are answered or left out, or there are none."""
    if not (task.has_choices and any_masked(task)):
        return NO_MASKED
    return MASKED if wanted else LEFT_OUT


def _with_guesses(answers: xr.Dataset, task: ParallelTask, choice_score: ChoiceScore) -> xr.Dataset:
    """A finished result, with the variables that results of earlier versions lack."""
    if "majority" in answers:
        return answers
    variables: dict[str, Any] = {"majority": (DIMS, majority(task))}
    if "log_prob" in answers:
        log_prob, n_tokens = (
            answers[name].to_numpy().reshape(-1, answers.sizes["option"])
            for name in ("log_prob", "n_tokens")
        )
        margin = margins(log_prob, n_tokens, right_options(task), choice_score)
        variables["margin"] = (DIMS, margin.reshape(len(task), -1))
    return answers.assign(variables)


def _refuse_without_guesses(folder: InFolder) -> None:
    """Refuse to go on with answers of an earlier version, whose blocks hold fewer variables.

    Raises:
        NeuroglotError: there are such blocks.
    """
    if "majority" in folder.arrays or DONE not in folder.arrays:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damage is reported when blocks are made
        n_missing = sum(block.stop - block.start for block in folder.missing_blocks())
    if n_missing < folder.n_items:
        raise NeuroglotError(
            f"{str(folder.path)!r} holds answers of an earlier version of neuroglot, which kept no "
            "majority and no margins, so it cannot go on; make it again in another folder, or with "
            "overwrite=True (--overwrite)."
        )


def require_answerable(task: ParallelTask) -> None:
    """Refuse a task whose items cannot be answered, or not all in the same way.

    Raises:
        NeuroglotError: an item has no answer, or only some of the items have choices.
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
        "edited": 0,  # 1 in results of earlier versions that were made under edits
    }


def _head(task: ParallelTask, provenance: dict[str, Any]) -> xr.Dataset:
    """The coordinates and the provenance of a result, without the answers."""
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
    head: xr.Dataset, model: Model, task: ParallelTask, how: Answering, tokenized: list[Question]
) -> xr.Dataset:
    """The head of a result with the coordinate that says which prompts are equal.

    As many of the task's questions as fit into memory are put into ``tokenized``. Prompts that may
    be cut are not: the warning about them is given when their questions are made for answering.
    """
    most = 0 if model.tokenization.truncate else MOST_KEPT // max(1, task.most_choices)

    def keep(asked: Sequence[Question]) -> None:
        tokenized.extend(asked[: most - len(tokenized)])

    same = same_tokens(model, task, how.max_new_tokens, keep)
    return head.assign_coords({SAME: (DIMS, same)})
