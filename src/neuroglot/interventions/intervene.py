"""Answer a task under conditions and their controls, and measure what changes."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
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
from neuroglot.interventions.answering import Edited, answers_under, log_prob_of_right
from neuroglot.interventions.conditions import Condition, arm_name
from neuroglot.interventions.controls import NEEDS_RECORDING, OF_ACTIVE, Controls
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
from neuroglot.store.growing import Growing, InMemory, Made, grow, in_folder, is_whole
from neuroglot.store.joining import how_read, require_steady_prompts
from neuroglot.store.provenance import provenance
from neuroglot.store.results import open_dataset, save
from neuroglot.store.whose import folder_for_results
from neuroglot.tasks.halves import subject_of
from neuroglot.tasks.parallel import ParallelTask

KIND = "outcome"
ANSWERS, PARTS = "answers", "conditions"
ITEMS_AT_ONCE, BYTES_AT_ONCE = 32, 256 * 2**20
LONGEST = 100  # characters in the name of a condition's folder
DIMS = ("item", "language", "arm")
RESERVED = (
    *("condition", "edits", "arm", "control", "draw", "kind", "against", "item", "language"),
    *("subject", "relation", "same_tokens_as", "counted", "held_out", "n_neurons", "share", "text"),
    *("correct", "margin", "masked_margin", "log_prob", "difference", "p", "verdict", "reason"),
    "accuracy",
)
"""Names that an outcome itself uses, so that coordinates cannot have them."""
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
    """Answer a task while neurons are edited, and while other neurons are edited as controls.

    Controls are drawn anew for every prompt: as many neurons in each layer, outside the set and
    outside the larger set of which it is a part, such as that of ``strongest``. If an edit is of a
    complement, as ``ng.Zero(~neurons)``, its controls leave out as many random neurons instead.

    Args:
        model: the model that answers.
        task: the task; its items need answers.
        conditions: one edit, or several that are made together, by the name of the condition. See
            :func:`neuroglot.edit` for the edits that there are.
        recording: what :func:`neuroglot.record` returns, with all layers. It is needed by controls
            of active neurons. If it is given, the items and languages that it holds are answered.
        controls: the controls of each condition; see :class:`neuroglot.Controls`.
        position: the tokens at which edits are made, unless an edit has its own; see
            :func:`neuroglot.edit`.
        answering: how prompts are answered; see :class:`neuroglot.Answering`.
        coordinates: quantities in which the conditions differ, by name, each with one value for
            each condition in their order, such as ``{"dose": [0.1, 1]}``; figures use them.
        equivalent_within: the bounds of equivalence, which have to be chosen before answers are
            seen: a smaller difference of accuracies, in either direction, counts as none.
        out: the folder for the result, which goes into its subfolder ``outcome``, and for the
            answers of each condition. Conditions that are finished there are not answered again,
            and an unfinished one goes on where it stopped.
        overwrite: whether to replace what ``out`` holds.

    Returns:
        A dataset over ``condition``, ``arm``, ``item`` and ``language``. The arms are ``edit``, the
        condition itself; ``edit 1``, …, further draws of ``ng.Patch``; and ``size 0``, …, the draws
        of each control. They have the coordinates ``control``, which is empty for the condition
        itself, and ``draw``:

        - ``correct``, ``log_prob`` (of the right answer, or the likeliest of several; in nats) and
          ``share`` (the neurons' share of all contributions in the prompt) (condition, arm, item,
          language); with choices ``margin`` (see :func:`neuroglot.evaluate`) and, if asked for,
          ``masked_margin``; without choices ``text``. NaN or empty where a control had too few
          neurons to draw from. If an edit is of a complement, the share is that of the set itself;
        - the same without an edit as ``…_no_edit`` (item, language), but for ``share``;
        - ``n_neurons`` (condition, item, language), the number of neurons; and ``edits``
          (condition), a description;
        - ``counted``, ``held_out`` and ``same_tokens_as`` (item, language; see
          :func:`neuroglot.evaluate`), ``subject`` and ``relation`` (item);
        - what :func:`neuroglot.effects` returns for accuracy.

    Raises:
        NeuroglotError: an argument is wrong, the recording is of another model or task, or neurons
            were chosen by the answers of an item that is asked.

    Examples:
        >>> import numpy as np
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=2)
        >>> neurons = ng.NeuronSet(np.eye(model.n_layers, model.n_neurons, dtype=bool), "a few")
        >>> controls = ng.Controls(["size"], draws=1)
        >>> outcome = ng.intervene(model, task, {"off": ng.Zero(neurons)}, controls=controls)
        >>> outcome["arm"].values.tolist()
        ['edit', 'size 0']
        >>> outcome["margin"].dims
        ('condition', 'arm', 'item', 'language')
    """
    given_controls = options_of(controls, Controls, "controls")
    how, at = options_of(answering, Answering, "answering"), check_edit_position(position)
    bound = check_bound(equivalent_within)
    model.require_unedited()
    checked = _checked(conditions, model, given_controls)
    coords = _coordinates({} if coordinates is None else coordinates, len(checked))
    require_answerable(task)
    part = task
    if recording is not None:
        require_recording(recording)
        recording.check_threshold(given_controls.threshold)
        part = recorded_part(model, task, recording)
        if recording.attrs["position"] != "last" and at != "all":
            warnings.warn(
                "the recording looks at all prompt tokens, so that categories are not those of "
                "the tokens that are edited; record with position='last', or edit position='all'.",
                stacklevel=4,
            )
    _refuse_chosen(checked, part)
    how = replace(how, masked=bool(how.masked) and part.has_choices and any_masked(part))
    if recording is None and not OF_ACTIVE.isdisjoint(given_controls.by_name):
        raise NeuroglotError(NEEDS_RECORDING)
    folder = None if out is None else folder_for_results(out)
    job = _Job(model, task, part, recording, given_controls, at, how, folder, overwrite, checked)
    edits = ("condition", [_done(condition.edits, at) for condition in checked])
    outcome = _answers(job).assign_coords(coords).assign(edits=edits)
    outcome = outcome.merge(effects(outcome, equivalent_within=bound, seed=given_controls.seed))
    chosen_on = frozenset[str]().union(*(condition.chosen_on for condition in checked))
    outcome = outcome.assign_attrs(kind=KIND, equivalent_within=bound, chosen_on=len(chosen_on))
    if folder is not None:
        save(outcome, folder / KIND, overwrite=True)
    return outcome


def _checked(conditions: Mapping[str, Edits], model: Model, controls: Controls) -> list[Condition]:
    """The conditions, after their edits were checked.

    Raises:
        NeuroglotError: there is none, one is not an edit of FFN neurons, or two names are so alike
            that they would share a folder.
    """
    if not isinstance(conditions, Mapping) or not conditions:
        raise NeuroglotError(
            "conditions: expected edits by name, as {'all-shared off': ng.Zero(neurons)}."
        )
    checked = []
    for name, edits in conditions.items():
        if not isinstance(name, str) or not name.strip():
            raise NeuroglotError(f"conditions: {name!r} is not a name; expected a text.")
        condition = Condition(name, tuple(checked_edits(edits, model)), controls)
        if not condition.edits:
            raise NeuroglotError(f"condition {name!r} has no edit.")
        for one in condition.edits:
            if one.neurons.unit != FFN:
                raise NeuroglotError(
                    f"condition {name!r} edits {one.neurons.unit}, but controls are drawn from "
                    f"{FFN} only; use neuroglot.edit."
                )
        checked.append(condition)
    if len({_folder_name(condition.name) for condition in checked}) < len(checked):
        raise NeuroglotError(f"conditions {listed(conditions)}: expected names that differ more.")
    return checked


def _coordinates(given: Mapping[str, Sequence[Any]], n: int) -> dict[str, Any]:
    """The coordinates of conditions, after they were checked.

    Raises:
        NeuroglotError: they do not fit the number of conditions, or a name or a value is wrong.
    """
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


def _refuse_chosen(conditions: Sequence[Condition], task: ParallelTask) -> None:
    """Refuse neurons that were chosen on items whose answers are now to be measured.

    Raises:
        NeuroglotError: it gives the number of these items, and says how to split the task.
    """
    asked = {str(item["id"]) for item in task.items}
    for condition in conditions:
        both = sorted(asked & condition.chosen_on)
        if both:
            raise NeuroglotError(
                f"the neurons of {condition.name!r} were chosen by the answers, labels or effects "
                f"of {len(both)} of the items that are asked ({listed(both, 3)}), so what they do "
                "there says nothing of others. Choose them on one part of the items and ask the "
                "other: development, test = neuroglot.halves(task)."
            )


@dataclass(frozen=True)
class _Job:
    """What is answered under every condition, and how.

    Attributes:
        model: the model that answers.
        whole: the task as the user gave it.
        task: the part of it that is answered.
        recording: which neurons are active, if that was recorded.
        controls: the controls of every condition.
        position: the tokens at which edits are made.
        how: how prompts are answered.
        out: the folder for answers, if there is one.
        overwrite: whether to replace what it holds.
        conditions: the conditions.
    """

    model: Model
    whole: ParallelTask
    task: ParallelTask
    recording: Recording | None
    controls: Controls
    position: EditPosition
    how: Answering
    out: Path | None
    overwrite: bool
    conditions: Sequence[Condition]

    @cached_property
    def weights(self) -> Weights:
        """The weights from which contributions are computed."""
        return weights_for(self.model, ("contribution",))

    @cached_property
    def arms(self) -> list[tuple[str, int]]:
        """The arms of the condition that has the most draws of its own."""
        return max((condition.arms for condition in self.conditions), key=len)

    @property
    def items_at_once(self) -> int:
        """The number of items whose neurons are in memory at the same time."""
        a_prompt = self.model.n_layers * self.model.n_neurons * (9 + len(self.arms))
        return max(1, min(ITEMS_AT_ONCE, BYTES_AT_ONCE // (a_prompt * len(self.task.languages))))

    def folder(self, *names: str) -> Path | None:
        """The folder of these names, if anything is kept."""
        return None if self.out is None else Path(self.out, *map(_folder_name, names))

    def prompts(self, task: ParallelTask) -> Prompts:
        """The prompts of a task, with the contributions at their last tokens without an edit."""
        model = self.model
        targets = [Target(ids, 0) for ids in tokenize_block(model, task)]
        contribution = np.zeros((len(targets), model.n_layers, model.n_neurons), np.float32)
        for rows, values in score_batches(model, self.weights, targets, ("contribution",)):
            contribution[rows] = values[:, 0].cpu().numpy()
        return Prompts(prompt_keys(task), contribution)

    def active(self, block: slice) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """The active neurons (prompt, layer, neuron) in a block of items, if they were recorded."""
        if self.recording is None:
            return None
        bits = self.recording.bits(self.controls.threshold, block)
        return unpack(bits.reshape(-1, *bits.shape[2:]), self.model.n_neurons).astype(np.bool_)

    def answer(
        self, condition: Condition, block: slice, done: Callable[[int], object]
    ) -> xr.Dataset:
        """The answers to a block of items in each arm of a condition."""
        task = self.task.part(self.task.items[block])
        prompts = self.prompts(task)
        drawn = condition.drawn(prompts, self.active(block))
        there = drawn[0].there
        edits = [(one, of.edited) for one, of in zip(condition.edits, drawn, strict=True)]
        edited = Edited(edits, prompts.keys, there, condition.draws, self.position)
        answers = answers_under(self.model, task, edited, self.how)
        masks = np.logical_or.reduce([of.masks for of in drawn])
        shares = np.where(there, _shares(masks, prompts.contribution), np.nan)
        answers["share"] = shares.astype(np.float32)
        shape = (len(task), len(task.languages))
        done(len(prompts.keys))
        variables: dict[str, Any] = {
            name: (DIMS, values.reshape(*shape, -1)) for name, values in answers.items()
        }
        counts = masks[:, 0].sum(axis=(1, 2), dtype=np.int64).reshape(shape)
        return xr.Dataset(variables | {"n_neurons": (DIMS[:2], counts)})


def _shares(masks: np.ndarray[Any, Any], contribution: Any) -> np.ndarray[Any, Any]:
    """The neurons' share of all contributions in a prompt, for each arm (prompt, arm)."""
    sums = np.zeros(masks.shape[:2])
    for layer in range(contribution.shape[1]):  # all layers at once would take eight times the room
        sums += np.einsum("pan,pn->pa", masks[:, :, layer].view(np.uint8), contribution[:, layer])
    return np.asarray(sums / contribution.sum(axis=(1, 2))[:, None])


def _answers(job: _Job) -> xr.Dataset:
    """The answers without an edit and under the conditions, kept in the folder if there is one."""
    plain = evaluate(
        job.model,
        job.task,
        out=job.folder(ANSWERS),
        answering=job.how,
        grow=False,  # conditions do not grow either
        overwrite=job.overwrite,
    )
    parts = [_answered(job, condition).drop_attrs() for condition in job.conditions]
    all_arms = {"arm": [arm_name(*arm) for arm in job.arms]}
    missing = {name: "" if name == "text" else np.nan for name in OF_ARMS}
    parts = [part.reindex(all_arms, fill_value=missing) for part in parts]
    names = [condition.name for condition in job.conditions]
    joined = xr.concat(parts, dim=xr.DataArray(names, dims="condition", name="condition"))
    kinds, draws = zip(*job.arms, strict=True)
    subjects = [subject_of(item) for item in job.task.items]
    relations = [str(item["relation"] or "") for item in job.task.items]
    coords: dict[str, Any] = {"subject": ("item", subjects), "relation": ("item", relations)}
    coords |= {"control": ("arm", list(kinds)), "draw": ("arm", list(draws))}
    if SAME in plain.coords:  # results of earlier versions do not have it
        coords[SAME] = plain[SAME]
    variables = {name: joined[name].transpose(..., *DIMS[:2]) for name in OF_ARMS if name in joined}
    variables["n_neurons"] = joined["n_neurons"]
    variables |= {f"{name}_no_edit": values for name, values in _of_no_edit(plain, job).items()}
    variables |= {name: plain[name].drop_attrs() for name in ("counted", "held_out")}
    return xr.Dataset(variables, coords=coords).assign_attrs(_attrs(job))


def _of_no_edit(plain: xr.Dataset, job: _Job) -> dict[str, xr.DataArray]:
    """The variables of an evaluation that the arms of conditions have too."""
    variables = {name: plain[name] for name in OF_ARMS if name in plain and name != "log_prob"}
    if "log_prob" in plain:
        right = right_options(job.task).reshape(len(job.task), -1, 1)
        log_prob = np.take_along_axis(plain["log_prob"].to_numpy(), right, axis=-1)[..., 0]
        variables["log_prob"] = xr.DataArray(log_prob, dims=DIMS[:2])
    else:
        variables["log_prob"] = _log_prob(job)
    return {name: values.drop_attrs() for name, values in variables.items()}


def _log_prob(job: _Job) -> xr.DataArray:
    """The log-probability of the right answer without an edit (item, language), in nats."""

    def make(block: slice, done: Callable[[int], object]) -> xr.Dataset:
        task = job.task.part(job.task.items[block])
        keys = prompt_keys(task)
        unedited = Edited([], keys, np.ones((len(keys), 1), np.bool_), [0], job.position)
        values = log_prob_of_right(job.model, task, unedited)
        done(len(keys))
        return xr.Dataset({"log_prob": (DIMS[:2], values.reshape(len(task), -1))})

    return _kept(job, make, job.folder("log-prob"), "log-probabilities", {}, {})["log_prob"]


def _answered(job: _Job, condition: Condition) -> xr.Dataset:
    """The answers in the arms of one condition, kept in its folder."""
    # The controls of equal sets differ if the sets were made in different ways.
    made = " ".join(one.neurons.members.checksum for one in condition.edits)
    return _kept(
        job,
        partial(job.answer, condition),
        job.folder(PARTS, condition.name),
        condition.name,
        {"arm": [arm_name(*arm) for arm in condition.arms]},
        {
            "kind": "answers under a condition",
            "condition": condition.name,
            "done": f"{_done(condition.edits, job.position)}; {made}",
        },
    )


def _kept(
    job: _Job, make: Made, path: Path | None, what: str, coords: Mapping[str, Any],
    attrs: Mapping[str, Any],
) -> xr.Dataset:  # fmt: skip
    """A result that is made block by block, and kept in a folder if there is one.

    Args:
        job: the task, and the provenance of the result.
        make: makes a block.
        path: the path of the folder.
        what: the name of the result on the progress bar.
        coords: further coordinates.
        attrs: further provenance.
    """
    items, languages = [item["id"] for item in job.task.items], list(job.task.languages)
    head = xr.Dataset(
        coords={"item": items, "language": languages, **coords},
        attrs={**_attrs(job), "kind": what, **attrs},
    )
    prompts = {"item": len(languages), "total": len(items) * len(languages)}
    size, dims = job.items_at_once, DIMS if coords else DIMS[:2]

    def make_all(result: Growing) -> None:
        grow(result, make, what, prompts)
        require_steady_prompts(job.model, job.whole, head.attrs)

    if path is None:
        memory = InMemory(head, size)
        make_all(memory)
        return memory.data
    if job.overwrite or not is_whole(path, head, dims):
        with in_folder(as_path(path), head, size, dims, overwrite=job.overwrite) as folder:
            make_all(folder)
            folder.finish(xr.Dataset())
    return open_dataset(path).load()


def _done(edits: Sequence[Edit], position: EditPosition) -> str:
    """A description of edits and of the tokens at which they are made."""
    return "; ".join(f"{one} at {one.position or position}" for one in edits)


def _folder_name(name: str) -> str:
    """The name of a condition as that of a folder."""
    # A comma with a space separates parts of the name, one without a space separates layers.
    plain = re.sub(r"[^a-z0-9_+.,-]+", "-", name.replace(", ", "-").lower())
    if len(plain) <= LONGEST and not plain.startswith(".") and re.fullmatch(r"[ -~]+", name):
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain.strip('.-')[:LONGEST]}-{digest}"


def _attrs(job: _Job) -> dict[str, Any]:
    """The provenance of an outcome, and of the answers of which it is made."""
    recorded = {} if job.recording is None else job.recording.attrs
    return {
        "kind": KIND,
        **provenance(job.model, job.task, recorded or None),
        "n_neurons": job.model.n_neurons,
        **how_read(recorded),
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
