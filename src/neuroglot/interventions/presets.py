"""Experiments that use :func:`neuroglot.intervene`: switch categories off, or amplify them."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from neuroglot import defaults
from neuroglot.answering.answering import Answering
from neuroglot.answering.observations import same_tokens, samples_of
from neuroglot.attribution.by_category import attribute
from neuroglot.attribution.neuron_scores import SCORES
from neuroglot.errors import NeuroglotError, listed, require_finite
from neuroglot.interventions.controls import OWN, Controls
from neuroglot.interventions.edits import Edit, Scale, Zero
from neuroglot.interventions.intervene import intervene
from neuroglot.models.model import Model
from neuroglot.neurons.neuron_set import NeuronSet, layer_range, require_share, sorted_layers
from neuroglot.options import options_of
from neuroglot.recording.part import recorded_part
from neuroglot.recording.recording import Recording, require_recording
from neuroglot.sharing.bits import CATEGORIES
from neuroglot.sharing.categories import category_membership
from neuroglot.store.results import save
from neuroglot.tasks.halves import parts_of
from neuroglot.tasks.parallel import ParallelTask

UNION = "+"  # joins the names of categories
SPECIFIC_HERE = "specific_here"
NAMES = (*CATEGORIES, SPECIFIC_HERE)
CONTRIBUTION = "contribution"


@dataclass(frozen=True)
class Parts:
    """The parts of categories that are edited, and the edit.

    Attributes:
        doses: shares of a category's neurons in each layer; those that rank highest are edited.
        rank_by: the score by which neurons rank: the ``"contribution"`` in the prompt itself; or a
            score that uses the answer, of which the mean over a development half of the items
            ranks, and the result is that of the other half.
        bands: groups of layers that are edited one at a time; ``None`` stands for all layers.
        membership: if given, one set for all items: the neurons that are in the category for at
            least this share of a development half; the result is that of the other half.
        keep_only: whether to switch off all other neurons (of these layers) instead.
        factor: the factor by which coefficients are multiplied; 0 switches neurons off.

    Raises:
        NeuroglotError: a share, factor or layer is out of range, or the score is unknown.
    """

    doses: Sequence[float] = (1.0,)
    rank_by: str = CONTRIBUTION
    bands: Sequence[Sequence[int] | None] = (None,)
    membership: float | None = None
    keep_only: bool = False
    factor: float = 0.0

    def __post_init__(self) -> None:
        require_finite("factor", self.factor)
        for dose in self.doses:
            require_share("top", dose)
        if self.membership is not None:
            require_share("membership", self.membership)
        if self.rank_by not in SCORES:
            raise NeuroglotError(f"rank_by={self.rank_by!r}: there are {listed(SCORES)}.")
        if self.keep_only and self.factor != 0:
            raise NeuroglotError("keep_only= switches all others off; leave factor= at 0.")
        bands = tuple(None if band is None else sorted_layers(band) for band in self.bands)
        object.__setattr__(self, "bands", bands)
        if not self.doses or len(set(self.doses)) < len(self.doses) or len(set(bands)) < len(bands):
            raise NeuroglotError("doses and bands: expected at least one, and each once.")

    def check_fits(self, model: Model) -> None:
        """Refuse layers that a model does not have.

        Raises:
            NeuroglotError: it says which layers there are.
        """
        for band in self.bands:
            if band is not None:
                sorted_layers(band, model.n_layers)

    @property
    def needs_halves(self) -> bool:
        """Whether something is chosen on a development half."""
        return self.ranks_by_answer or self.membership is not None

    @property
    def ranks_by_answer(self) -> bool:
        """Whether only a part of the neurons is edited, chosen by a score that uses the answer."""
        return self.rank_by != CONTRIBUTION and min(self.doses) < 1


def deactivate(  # noqa: PLR0913 (as intervene)
    model: Model,
    task: ParallelTask,
    recording: Recording,
    *,
    categories: Sequence[str] = defaults.CATEGORIES,
    parts: Parts | None = None,
    controls: Controls | None = None,
    position: str = "answer",
    answering: Answering | None = None,
    equivalent_within: float = defaults.EQUIVALENT_WITHIN,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """Switch off the neurons of each category, item by item, with controls.

    The neurons of a category are those of the item that is asked, so they differ between prompts.

    Args:
        model: the model that was recorded.
        task: the task that was recorded; its items need answers.
        recording: what :func:`neuroglot.record` returns, with all layers. The items and languages
            that it holds are answered.
        categories: any of ``"all_shared"``, ``"partial_shared"``, ``"specific"`` (to any language),
            ``"specific_here"`` (to the language of the prompt) and ``"non_activated"``, or unions
            such as ``"all_shared+partial_shared"``.
        parts: the parts of the categories that are edited, and the edit.
        controls: see :func:`neuroglot.intervene`.
        position: see :func:`neuroglot.intervene`.
        answering: see :func:`neuroglot.intervene`.
        equivalent_within: see :func:`neuroglot.intervene`.
        out: see :func:`neuroglot.intervene`. If a development half is used, see ``parts``, the
            outcome of the other half goes into its subfolder ``test``.
        overwrite: whether to replace what ``out`` holds.

    Returns:
        See :func:`neuroglot.intervene`; conditions have the coordinates ``category``, ``top``,
        ``layers``, ``membership``, ``keep_only``, ``factor`` and ``rank_by``.

    Raises:
        NeuroglotError: see :func:`neuroglot.intervene`; or a category is unknown.
    """
    chosen, beside = options_of(parts, Parts, "parts"), options_of(controls, Controls, "controls")
    chosen.check_fits(model)
    names, how = check_categories(categories), options_of(answering, Answering, "answering")
    require_recording(recording)
    development, test, folder = recording, recording, out
    if chosen.needs_halves:
        development, test = _halves(model, task, recording, beside.seed, how)
        folder = None if out is None else Path(out, "test")
    scores = None
    if chosen.ranks_by_answer:
        attribution = attribute(
            model,
            task,
            recording=development,
            scores=(chosen.rank_by,),
            threshold=beside.threshold,
            out=None if out is None else Path(out, "development", f"{chosen.rank_by}-scores"),
            grow=False,
            overwrite=overwrite,
        )
        scores = attribution["mean_score"].sel(score=chosen.rank_by).mean("language")
    conditions: dict[str, Edit] = {}
    rows: list[dict[str, Any]] = []
    for top, band, category in itertools.product(chosen.doses, chosen.bands, names):
        neurons = _of_category(category, development, test, chosen, beside.threshold)
        if band is not None:
            neurons = neurons.layers(*band)
        if top < 1:
            ids = () if scores is None else development.items
            neurons = neurons.strongest(top, by=scores, chosen_on=ids)
        if chosen.keep_only:
            neurons = ~neurons if band is None else (~neurons).layers(*band)
        name, row = _named(category, top, band, chosen)
        conditions[name] = Scale(neurons, chosen.factor) if chosen.factor else Zero(neurons)
        rows.append(row)
    return intervene(
        model,
        task,
        conditions,
        recording=test,
        controls=beside,
        position=position,
        answering=how,
        coordinates={key: [row[key] for row in rows] for key in rows[0]},
        equivalent_within=equivalent_within,
        out=folder,
        overwrite=overwrite,
    )


def _of_category(
    category: str, development: Recording, test: Recording, parts: Parts, threshold: float
) -> NeuronSet:
    """The neurons of a category or of a union, for each prompt or as one set for all."""
    names = category.split(UNION)
    if parts.membership is None:
        sets = (
            NeuronSet.specific_here(test, threshold=threshold)
            if name == SPECIFIC_HERE
            else NeuronSet.from_category(test, name, threshold=threshold)
            for name in names
        )
        return reduce(operator.or_, sets)
    if SPECIFIC_HERE in names:
        raise NeuroglotError(
            f"{SPECIFIC_HERE!r} depends on the language, so no set can stand for all prompts; use "
            "'specific'."
        )
    by_category = category_membership(development, threshold=threshold)
    mask = by_category.sel(category=names).sum("category").to_numpy() >= parts.membership - 1e-9
    return NeuronSet(mask, category, chosen_on=development.items)


def _named(category: str, top: float, band: Any, parts: Parts) -> tuple[str, dict[str, Any]]:
    """The name of a condition, and its coordinates."""
    layers = "all" if band is None else layer_range(band)
    rank_by = CONTRIBUTION if top == 1 else parts.rank_by
    details = {
        "keep only": parts.keep_only,
        f"layers {layers}": band is not None,
        f"top {_exact(top)}": top != 1,
        f"by {rank_by}": rank_by != CONTRIBUTION,
        f"membership {_exact(parts.membership or 0)}": parts.membership is not None,
        f"times {_exact(parts.factor)}": parts.factor != 0,
    }
    name = ", ".join([category, *(text for text, is_special in details.items() if is_special)])
    return name, {
        "category": category,
        "top": float(top),
        "layers": layers,
        "membership": np.nan if parts.membership is None else float(parts.membership),
        "keep_only": int(parts.keep_only),
        "factor": float(parts.factor),
        "rank_by": rank_by,
    }


def _exact(number: float) -> str:
    """A number as a text that no other number has: draws depend on the names of conditions."""
    return repr(float(number)).removesuffix(".0")


def _halves(
    model: Model, task: ParallelTask, recording: Recording, seed: int, how: Answering
) -> tuple[Recording, Recording]:
    """The recordings of a development half and of the other half, with no prompt in both."""
    part = recorded_part(model, task, recording)
    same = same_tokens(model, part, how.max_new_tokens)
    development, test = (recording.select(items=ids) for ids in parts_of(part, 0.5, seed, same))
    return development, test


def amplify(  # noqa: PLR0913 (as intervene)
    model: Model,
    task: ParallelTask,
    recording: Recording,
    *,
    category: str = "all_shared",
    factors: Sequence[float] = defaults.FACTORS,
    controls: Controls | None = None,
    position: str = "answer",
    answering: Answering | None = None,
    equivalent_within: float = defaults.EQUIVALENT_WITHIN,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """Multiply the coefficients of a category's neurons, to see whether answers get better.

    The factor is the one with the highest accuracy on a development half of the items; of equal
    ones it is the one nearest to 1. The result is that of the other half. No subject and no prompt
    is in both halves.

    Args:
        model: the model that was recorded.
        task: the task that was recorded; its items need answers.
        recording: what :func:`neuroglot.record` returns, with all layers.
        category: see :func:`deactivate`.
        factors: the factors to choose from.
        controls: see :func:`neuroglot.intervene`; their coefficients get the same factor.
        position: see :func:`neuroglot.intervene`.
        answering: see :func:`neuroglot.intervene`.
        equivalent_within: see :func:`neuroglot.intervene`.
        out: the folder for the results, in its subfolders ``development`` and ``test``.
        overwrite: whether to replace what ``out`` holds.

    Returns:
        What :func:`neuroglot.intervene` returns, for the chosen factor and the other half; and
        ``development_accuracy`` (chosen_from), the accuracy with each factor and with 1, no edit.

    Raises:
        NeuroglotError: see :func:`neuroglot.intervene`; or the category or a factor is wrong.
    """
    names, values = check_categories([category]), check_factors(factors)
    beside = options_of(controls, Controls, "controls")
    how = options_of(answering, Answering, "answering")
    require_recording(recording)
    development, test = _halves(model, task, recording, beside.seed, how)

    def outcome_of(
        part: Recording, tried: Sequence[float], controls: Controls, half: str
    ) -> xr.Dataset:
        neurons = _of_category(names[0], part, part, Parts(), beside.threshold)
        named = [_named(names[0], 1.0, None, Parts(factor=factor)) for factor in tried]
        return intervene(
            model,
            task,
            {name: Scale(neurons, row["factor"]) for name, row in named},
            recording=part,
            controls=controls,
            position=position,
            answering=how,
            coordinates={key: [row[key] for _, row in named] for key in named[0][1]},
            equivalent_within=equivalent_within,
            out=None if out is None else Path(out, half),
            overwrite=overwrite,
        )

    tried = outcome_of(development, values, replace(beside, kinds=()), "development")
    of_factors = tried["correct"].sel(arm=OWN)
    accuracies = [
        _accuracy(tried["correct_no_edit"], tried),
        *(_accuracy(of_factors[i], tried) for i in range(len(values))),
    ]
    given = [1.0, *values]
    best = max(range(1, len(given)), key=lambda i: (accuracies[i], -abs(given[i] - 1)))
    outcome = outcome_of(test, [given[best]], beside, "test")
    outcome = outcome.assign(development_accuracy=("chosen_from", accuracies))
    outcome = outcome.assign_coords(chosen_from=given)
    if out is not None:
        save(outcome, Path(out, "test", outcome.attrs["kind"]), overwrite=True)
    return outcome


def check_factors(factors: Sequence[float]) -> list[float]:
    """The factors to choose from, as numbers.

    Raises:
        NeuroglotError: there is none, one is given twice, or one is 0 or 1.
    """
    if not isinstance(factors, Iterable):
        raise NeuroglotError(f"factors={factors!r}: expected a list of numbers.")
    for factor in factors:
        require_finite("factors", factor)
    values = [float(factor) for factor in factors]
    if not values or len(set(values)) < len(values) or {0.0, 1.0} & set(values):
        raise NeuroglotError(f"factors={values}: expected different ones, none of 0 or 1.")
    return values


def _accuracy(correct: xr.DataArray, outcome: xr.Dataset) -> float:
    """The accuracy over the prompts that count, where equal prompts count once."""
    counted = outcome["counted"].transpose("item", "language").to_numpy()
    right = correct.transpose("item", "language").to_numpy().astype(float)
    return samples_of(outcome).observed(right, counted).mean


def check_categories(categories: Sequence[str]) -> list[str]:
    """The names of categories; those that form a union are put into a fixed order.

    Raises:
        NeuroglotError: a text is given instead of a list, or a category is unknown, missing or
            given twice.
    """
    if isinstance(categories, str) or not isinstance(categories, Iterable):
        raise NeuroglotError(f"categories={categories!r}: expected a list of names.")
    names = []
    for category in categories:
        parts = [name.strip() for name in str(category).split(UNION)]
        if not set(parts) <= set(NAMES) or len(set(parts)) < len(parts):
            raise NeuroglotError(
                f"category {category!r}: expected one of {listed(NAMES)}, or several different "
                f"ones with {UNION!r} between."
            )
        names.append(UNION.join(sorted(parts, key=NAMES.index)))
    if not names or len(set(names)) < len(names):
        raise NeuroglotError(f"categories={listed(names) or 'none'}: expected different ones.")
    return names
