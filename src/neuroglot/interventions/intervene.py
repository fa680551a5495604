"""Answer a task under conditions and beside their controls, and measure what changes."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.answering.answering import Answering
from neuroglot.answering.answers import right_options
from neuroglot.answering.differences import check_bound
from neuroglot.answering.evaluation import evaluate, require_answerable
from neuroglot.answering.masked import any_masked
from neuroglot.answering.observations import SAME
from neuroglot.attribution.direct import Weights, weights_for
from neuroglot.attribution.neuron_scores import score_batches
from neuroglot.attribution.targets import Target
from neuroglot.defaults import EQUIVALENT_WITHIN
from neuroglot.errors import NeuroglotError, listed
from neuroglot.interventions.answering import (
    Edited,
    answers_under,
    log_prob_of_right,
)
from neuroglot.interventions.conditions import NEEDS_RECORDING, Condition, Controls, arm_name
from neuroglot.interventions.edits import Edit, checked_edits
from neuroglot.interventions.effects import effects
from neuroglot.models.ffn import FFN
from neuroglot.models.model import Model
from neuroglot.models.operations import operation
from neuroglot.models.running import EditPosition, check_edit_position
from neuroglot.neurons.members import Prompts
from neuroglot.options import options_of
from neuroglot.recording.blocks import prompt_keys, tokenize_block
from neuroglot.recording.part import recorded_part
from neuroglot.recording.recording import Recording, require_recording
from neuroglot.sharing.bits import unpack
from neuroglot.store.folders import as_path
from neuroglot.store.growing import InMemory, Made, grow, in_folder, is_whole
from neuroglot.store.joining import require_steady_prompts, said_of
from neuroglot.store.provenance import provenance
from neuroglot.store.results import open_dataset, save
from neuroglot.store.whose import folder_for_results
from neuroglot.tasks.halves import subject_of
from neuroglot.tasks.parallel import ParallelTask

KIND = "outcome"
ANSWERS, PARTS = "answers", "conditions"
ITEMS_AT_ONCE, BYTES_AT_ONCE = 32, 256 * 2**20
LONGEST = 100  # signs of a condition's folder
DIMS = ("item", "language", "arm")
RESERVED = (
    *("condition", "edits", "arm", "control", "draw", "kind", "against", "item", "language"),
    *("subject", "relation", "same_tokens_as", "counted", "held_out", "n_neurons", "share", "text"),
    *("correct", "margin", "masked_margin", "log_prob", "difference", "p", "verdict", "reason"),
    "accuracy",
)
"""Names that an outcome uses itself."""
OF_ARMS = ("correct", "margin", "masked_margin", "log_prob", "text", "share")

Edits = Edit | Sequence[Edit]


@operation
def intervene(  # noqa: PLR0913 (the public contract)
    model: Model,
    task: ParallelTask,
    conditions: Mapping[str, Edits],
    *,
    recording: Recording | None = None,
    controls: Controls | None = None,
    position: str = "answer",
    answering: Answering | None = None,
    coordinates: Mapping[str, Sequence[Any]] | None = None,
    equivalent_within: float = EQUIVALENT_WITHIN,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """Answer a task under edits of neurons, beside the same edits of other neurons.

    Controls are drawn anew for every prompt, as many neurons in each layer and outside the set (and
    outside the whole set of which it is a part, as that of ``strongest``). Where all neurons but
    those of a set are edited, as by ``ng.Zero(~neurons)``, the controls keep others in their place.

    Args:
        model: which answers.
        task: its items need answers.
        conditions: one edit, or several that are done together, by name. See :func:`neuroglot.edit`
            for what edits there are.
        recording: from :func:`neuroglot.record`, of all layers: which neurons are active, for
            controls that ask. Its items and languages count, which may be a part of the task.
        controls: what conditions are held against; see :class:`neuroglot.Controls`.
        position: where neurons are edited, unless an edit says so itself; see
            :func:`neuroglot.edit`.
        answering: how prompts are answered; see :class:`neuroglot.Answering`.
        coordinates: what conditions differ in, by name, in their order, as ``{"dose": [0.1, 1]}``;
            figures go by what varies.
        equivalent_within: the bounds of equivalence, which are to be chosen beforehand: an accuracy
            that differs by less than this, either way, counts as the same.
        out: folder for the result, as its ``outcome``, and what it is made of. Finished conditions
            there are kept, an unfinished one goes on where it stopped.
        overwrite: replace what ``out`` holds.

    Returns:
        A dataset over ``condition``, ``arm`` (``edit``, the condition itself; ``edit 1``, … for the
        further draws of ``ng.Patch``; and ``size 0``, … for the draws of each control, with the
        coordinates ``control``, empty for the condition itself, and ``draw``), ``item`` and
        ``language``:

        - ``correct``, ``log_prob`` (of the right answer, of several the likeliest; in nats) and
          ``share`` (of all contributions in the prompt, what the neurons have) (condition, arm,
          item, language); with choices ``margin`` (see :func:`neuroglot.evaluate`) and, if wanted,
          ``masked_margin``; else ``text``. NaN or empty where the pool of a control was too small.
          Where all neurons but those of a set are edited, the share is that of the set;
        - the same but ``share`` as ``…_no_edit`` (item, language);
        - ``n_neurons`` (condition, item, language), and ``edits`` (condition), in words;
        - ``counted``, ``held_out`` and ``same_tokens_as`` (item, language; see
          :func:`neuroglot.evaluate`), ``subject`` and ``relation`` (item);
        - what :func:`neuroglot.effects` finds of accuracy.

    Raises:
        NeuroglotError: bad settings, a recording of another model or task, or neurons that were
            chosen by the answers of an item that is asked.
    """
    given_controls = options_of(controls, Controls, "controls")
    how, at = options_of(answering, Answering, "answering"), check_edit_position(position)
    bound = check_bound(equivalent_within)
    model.require_unedited()
    edits = _checked(conditions, model)
    coords = _coordinates({} if coordinates is None else coordinates, len(edits))
    require_answerable(task)
    part = task
    if recording is not None:
        require_recording(recording)
        recording.check_threshold(given_controls.threshold)
        part = recorded_part(model, task, recording)
        _warn_of_position(recording, at)
    _refuse_chosen(edits, part)
    how = replace(how, masked=bool(how.masked) and part.has_choices and any_masked(part))
    if recording is None and {"active", "contribution"} & set(given_controls.by_name):
        raise NeuroglotError(NEEDS_RECORDING)
    folder = None if out is None else folder_for_results(out)
    n_arms = max(len(Condition("", some, given_controls).arms) for some in edits.values())
    job = _Job(model, task, part, recording, given_controls, at, how, folder, overwrite, n_arms)
    said = ("condition", [_done(some, at) for some in edits.values()])
    outcome = _answers(job, edits).assign_coords(coords).assign(edits=said)
    outcome = outcome.merge(effects(outcome, equivalent_within=bound, seed=given_controls.seed))
    chosen = frozenset[str]().union(*(x.neurons.chosen_on for some in edits.values() for x in some))
    outcome = outcome.assign_attrs(kind=KIND, equivalent_within=bound, chosen_on=len(chosen))
    if folder is not None:
        save(outcome, folder / KIND, overwrite=True)
    return outcome


def _warn_of_position(recording: Recording, position: EditPosition) -> None:
    """Warn of activity that is not that of the tokens that are edited."""
    if recording.attrs["position"] != "last" and position != "all":
        warnings.warn(
            "the recording looks at all prompt tokens, so that categories are not those of the "
            "tokens that are edited; record with position='last', or edit position='all'.",
            stacklevel=5,
        )


def _checked(conditions: Mapping[str, Edits], model: Model) -> dict[str, tuple[Edit, ...]]:
    """The edits of each condition.

    Raises:
        NeuroglotError: no conditions, two that would have one folder, or what is no edit.
    """
    if not isinstance(conditions, Mapping) or not conditions:
        raise NeuroglotError(
            "conditions: expected edits by name, as {'all-shared off': ng.Zero(neurons)}."
        )
    found = {}
    for name, edits in conditions.items():
        if not isinstance(name, str) or not name.strip():
            raise NeuroglotError(f"conditions: {name!r} is no name; expected a text.")
        found[name] = tuple(checked_edits(edits, model))
        if not found[name]:
            raise NeuroglotError(f"condition {name!r} has no edit.")
        for one in found[name]:
            if one.neurons.unit != FFN:
                raise NeuroglotError(
                    f"condition {name!r} edits {one.neurons.unit}, but controls are drawn from "
                    f"{FFN} only; use neuroglot.edit."
                )
    folders = [_folder_name(name) for name in found]
    if len(set(folders)) < len(folders):
        raise NeuroglotError(f"conditions {listed(found)}: expected names that differ more.")
    return found


def _coordinates(given: Mapping[str, Sequence[Any]], n: int) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise NeuroglotError(f"coordinates={given!r:.60}: expected values by name.")
    for name, values in given.items():
        if isinstance(values, str) or not isinstance(values, Iterable) or len(list(values)) != n:
            raise NeuroglotError(
                f"coordinates={name!r}: expected one value for each of the {n} conditions."
            )
        if not all(isinstance(value, str | int | float | np.generic) for value in values):
            raise NeuroglotError(f"coordinates={name!r}: expected texts or numbers.")
        if name in RESERVED or not str(name).isidentifier():
            raise NeuroglotError(
                f"coordinates={name!r}: expected a name of letters and digits that an outcome does "
                "not use itself."
            )
    return {name: ("condition", list(values)) for name, values in given.items()}


def _refuse_chosen(conditions: Mapping[str, Sequence[Edit]], task: ParallelTask) -> None:
    """Refuse neurons that were chosen by what is to be measured.

    Raises:
        NeuroglotError: it says of how many items, and how to split.
    """
    asked = {str(item["id"]) for item in task.items}
    for name, edits in conditions.items():
        chosen = frozenset[str]().union(*(one.neurons.chosen_on for one in edits))
        both = sorted(asked & chosen)
        if both:
            raise NeuroglotError(
                f"the neurons of {name!r} were chosen by the answers, labels or effects of "
                f"{len(both)} of the items that are asked ({listed(both, 3)}), so what they do "
                "there says nothing of others. Choose them on one part of the items and ask the "
                "other: development, test = neuroglot.halves(task)."
            )


@dataclass(frozen=True)
class _Job:
    """What is answered, and how; the same for every condition."""

    model: Model
    whole: ParallelTask
    task: ParallelTask
    recording: Recording | None
    controls: Controls
    position: EditPosition
    how: Answering
    out: Path | None
    overwrite: bool
    n_arms: int

    @cached_property
    def weights(self) -> Weights:
        """What contributions need."""
        return weights_for(self.model, ("contribution",))

    @property
    def items_at_once(self) -> int:
        """Items whose neurons are in memory together."""
        neurons = self.model.n_layers * self.model.n_neurons
        a_prompt = neurons * (9 + self.n_arms)
        return max(1, min(ITEMS_AT_ONCE, BYTES_AT_ONCE // (a_prompt * len(self.task.languages))))

    def folder(self, *names: str) -> Path | None:
        """Where something is kept, if anywhere."""
        return None if self.out is None else Path(self.out, *map(_folder_name, names))

    def prompts(self, task: ParallelTask) -> Prompts:
        """Prompts with the contributions of their neurons at the last token, without any edit."""
        model = self.model
        targets = [Target(ids, 0) for ids in tokenize_block(model, task)]
        found = np.zeros((len(targets), model.n_layers, model.n_neurons), np.float32)
        scored = score_batches(model, self.weights, targets, ("contribution",))
        for rows, values in scored:
            found[rows] = values[:, 0].cpu().numpy()
        return Prompts(prompt_keys(task), found)

    def active(self, block: slice) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """The neurons that are active in the prompts of some items, if recorded."""
        if self.recording is None:
            return None
        bits = self.recording.bits(self.controls.threshold, block)
        found = unpack(bits, self.model.n_neurons).astype(np.bool_)
        return found.reshape(-1, *found.shape[2:])

    def answer(self, condition: Condition, block: slice, done: Callable[[int], object]) -> Any:
        """What the prompts of a block of items are answered in each arm of a condition."""
        some = self.task.part(self.task.items[block])
        prompts = self.prompts(some)
        drawn = condition.drawn(prompts, self.active(block))
        there = drawn[0].there
        edits = [(one, of.edited) for one, of in zip(condition.edits, drawn, strict=True)]
        edited = Edited(edits, prompts.keys, there, condition.draws, self.position)
        found = answers_under(self.model, some, edited, self.how)
        meant = np.logical_or.reduce([of.masks for of in drawn])
        share = np.where(there, _shares(meant, prompts.contribution), np.nan)
        found["share"] = share.astype(np.float32)
        shape = (len(some), len(some.languages))
        done(shape[0] * shape[1])
        variables: dict[str, Any] = {
            name: (DIMS, values.reshape(*shape, -1)) for name, values in found.items()
        }
        counts = meant[:, 0].sum(axis=(1, 2), dtype=np.int64).reshape(shape)
        return xr.Dataset(variables | {"n_neurons": (DIMS[:2], counts)})


def _shares(masks: np.ndarray[Any, Any], contribution: Any) -> np.ndarray[Any, Any]:
    """Share of a prompt's contributions that the neurons of each arm have (prompt, arm)."""
    sums = np.zeros(masks.shape[:2])
    for layer in range(contribution.shape[1]):  # masks as numbers take eight times the memory
        sums += np.einsum("pan,pn->pa", masks[:, :, layer].view(np.uint8), contribution[:, layer])
    return np.asarray(sums / contribution.sum(axis=(1, 2))[:, None])


def _answers(job: _Job, edits: Mapping[str, tuple[Edit, ...]]) -> xr.Dataset:
    """Answers without any edit and under some conditions, kept where there is a folder."""
    before = evaluate(
        job.model,
        job.task,
        out=job.folder(ANSWERS),
        answering=job.how,
        grow=False,  # conditions do not grow either
        overwrite=job.overwrite,
    )
    conditions = [Condition(name, some, job.controls) for name, some in edits.items()]
    parts = [_answered(job, condition).drop_attrs() for condition in conditions]
    # Some conditions may have fewer draws of their own than others.
    arms = max((condition.arms for condition in conditions), key=len)
    wider = {"arm": [arm_name(*arm) for arm in arms]}
    missing = {name: "" if name == "text" else np.nan for name in OF_ARMS}
    parts = [part.reindex(wider, fill_value=missing) for part in parts]
    named = xr.DataArray(list(edits), dims="condition", name="condition")
    joined = xr.concat(parts, dim=named)
    kinds, draws = zip(*arms, strict=True)
    subjects = [subject_of(item) for item in job.task.items]
    relations = [str(item["relation"] or "") for item in job.task.items]
    coords: dict[str, Any] = {"subject": ("item", subjects), "relation": ("item", relations)}
    coords |= {"control": ("arm", list(kinds)), "draw": ("arm", list(draws))}
    # Answers of before equal prompts were looked for have none.
    coords |= {SAME: before[SAME]} if SAME in before.coords else {}
    found = {name: joined[name].transpose(..., *DIMS[:2]) for name in OF_ARMS if name in joined}
    found["n_neurons"] = joined["n_neurons"]
    found |= {f"{name}_no_edit": values for name, values in _of_no_edit(before, job).items()}
    found |= {name: before[name].drop_attrs() for name in ("counted", "held_out")}
    return xr.Dataset(found, coords=coords).assign_attrs(_attrs(job))


def _of_no_edit(before: xr.Dataset, job: _Job) -> dict[str, xr.DataArray]:
    """What an evaluation says of what the arms of conditions say."""
    found = {name: before[name] for name in OF_ARMS if name in before and name != "log_prob"}
    if "log_prob" in before:
        right = right_options(job.task).reshape(len(job.task), -1, 1)
        log_prob = np.take_along_axis(before["log_prob"].to_numpy(), right, axis=-1)[..., 0]
        found["log_prob"] = xr.DataArray(log_prob, dims=DIMS[:2])
    else:
        found["log_prob"] = _log_prob(job)
    return {name: values.drop_attrs() for name, values in found.items()}


def _log_prob(job: _Job) -> xr.DataArray:
    """Of the right answer where answers are written, without any edit (item, language)."""

    def make(block: slice, done: Callable[[int], object]) -> xr.Dataset:
        some = job.task.part(job.task.items[block])
        keys = prompt_keys(some)
        plain = Edited([], keys, np.ones((len(keys), 1), np.bool_), [0], job.position)
        values = log_prob_of_right(job.model, some, plain)
        done(len(keys))
        return xr.Dataset({"log_prob": (DIMS[:2], values.reshape(len(some), -1))})

    kept = _kept(job, make, job.folder("log-prob"), "log-probabilities", {}, {})
    return kept["log_prob"]


def _answered(job: _Job, condition: Condition) -> xr.Dataset:
    """What is answered in the arms of one condition, kept in its folder."""
    # Sets of the same neurons are held against others where they are made in another way.
    made = " ".join(one.neurons.members.checksum for one in condition.edits)
    done = f"{_done(condition.edits, job.position)}; {made}"

    def make(block: slice, done: Callable[[int], object]) -> xr.Dataset:
        found: xr.Dataset = job.answer(condition, block, done)
        return found

    return _kept(
        job,
        make,
        job.folder(PARTS, condition.name),
        condition.name,
        {"arm": [arm_name(*arm) for arm in condition.arms]},
        {"kind": "answers under a condition", "condition": condition.name, "done": done},
    )


def _kept(
    job: _Job, make: Made, path: Path | None, what: str, coords: Mapping[str, Any],
    attrs: Mapping[str, Any],
) -> xr.Dataset:  # fmt: skip
    """What is made block by block and kept in a folder, if there is one.

    Args:
        job: its items and languages are coordinates.
        make: makes a block.
        path: of the folder.
        what: is made, for the progress bar.
        coords: further coordinates.
        attrs: what tells it from others.
    """
    task = job.task
    head = xr.Dataset(
        coords={
            "item": [item["id"] for item in task.items],
            "language": list(task.languages),
            **coords,
        },
        attrs={**_attrs(job), "kind": what, **attrs},
    )
    prompts = {"item": len(task.languages), "total": len(task) * len(task.languages)}
    size, dims = job.items_at_once, DIMS if coords else DIMS[:2]
    if path is None:
        memory = InMemory(head, size)
        grow(memory, make, what, prompts)
        require_steady_prompts(job.model, job.whole, head.attrs)
        return memory.data
    if job.overwrite or not is_whole(path, head, dims):
        with in_folder(as_path(path), head, size, dims, overwrite=job.overwrite) as folder:
            grow(folder, make, what, prompts)
            require_steady_prompts(job.model, job.whole, head.attrs)
            folder.finish(xr.Dataset())
    return open_dataset(path).load()


def _done(edits: Sequence[Edit], position: EditPosition) -> str:
    """What is done, and where."""
    return "; ".join(f"{one} at {one.position or position}" for one in edits)


def _folder_name(name: str) -> str:
    # A comma with a space parts what is said of a condition, one without parts layers.
    plain = re.sub(r"[^a-z0-9_+.,-]+", "-", name.replace(", ", "-").lower())
    if len(plain) <= LONGEST and not plain.startswith(".") and re.fullmatch(r"[ -~]+", name):
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain.strip('.-')[:LONGEST]}-{digest}"


def _attrs(job: _Job) -> dict[str, Any]:
    recorded = {} if job.recording is None else job.recording.attrs
    return {
        "kind": KIND,
        **provenance(job.model, job.task, recorded or None),
        "n_neurons": job.model.n_neurons,
        **{key: recorded[key] for key in ("site", "position") if key in recorded},
        "added_tokens": said_of(recorded, "added_tokens"),
        "threshold": job.controls.threshold,
        "edit_position": job.position,
        "choice_score": job.how.choice_score,
        "max_new_tokens": job.how.max_new_tokens,
        "masked": int(bool(job.how.masked)),
        "controls": ",".join(job.controls.by_name),
        "controls_code": job.controls.code,
        "draws": job.controls.draws,
        "seed": job.controls.seed,
    }
