"""Experiments that are made of :func:`neuroglot.intervene`: categories off, and amplified."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
from neuroglot.errors import NeuroglotError, is_whole_number, listed, require_finite
from neuroglot.interventions.conditions import OWN, Controls
from neuroglot.interventions.edits import Edit, Scale, Zero
from neuroglot.interventions.intervene import intervene
from neuroglot.models.model import Model
from neuroglot.neurons.neuron_set import NeuronSet, layer_range, sorted_layers
from neuroglot.options import options_of
from neuroglot.recording.part import recorded_part
from neuroglot.recording.recording import Recording, require_recording
from neuroglot.sharing.bits import CATEGORIES
from neuroglot.sharing.categories import category_membership
from neuroglot.store.results import save
from neuroglot.tasks.halves import parts_of
from neuroglot.tasks.parallel import ParallelTask

UNION = "+"  # between categories
SPECIFIC_HERE = "specific_here"
NAMES = (*CATEGORIES, SPECIFIC_HERE)
DOSES = (0.1, 0.25, 0.5, 0.75, 1.0)
CONTRIBUTION = "contribution"


@dataclass(frozen=True)
class Parts:
    """Which parts of categories are edited, and how.

    Attributes:
        doses: shares of a category's neurons in each layer, those that rank highest.
        rank_by: what they are ranked by: the ``"contribution"`` in the prompt itself, or a score
            that uses the answer, whose mean over a development half of the items then ranks; the
            result is that of the other half.
        bands: groups of layers, each by itself; ``None`` for all layers.
        membership: one set for all items: the neurons that are in the category for at least this
            share of a development half; the result is that of the other half.
        keep_only: switch off all other neurons (of these layers) instead.
        factor: what coefficients are multiplied with; 0 switches them off.

    Raises:
        NeuroglotError: shares, factors or layers that are none, or an unknown score.
    """

    doses: Sequence[float] = (1.0,)
    rank_by: str = CONTRIBUTION
    bands: Sequence[Sequence[int] | None] = (None,)
    membership: float | None = None
    keep_only: bool = False
    factor: float = 0.0

    def __post_init__(self) -> None:
        require_finite("factor", self.factor)
        for name, share in (*(("top", x) for x in self.doses), ("membership", self.membership)):
            if share is None:
                continue
            require_finite(name, share)
            if not 0 < share <= 1:
                raise NeuroglotError(f"{name}={float(share)}: expected above 0, at most 1.")
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
            NeuroglotError: it says which there are.
        """
        for band in self.bands:
            if band is not None and max(band) >= model.n_layers:
                raise NeuroglotError(
                    f"layers={band}: expected numbers from 0 to {model.n_layers - 1}."
                )

    @property
    def needs_halves(self) -> bool:
        """Whether something is chosen on a development half."""
        return self.ranks_by_answer or self.membership is not None

    @property
    def ranks_by_answer(self) -> bool:
        """Whether some part is of the neurons that rank highest by a score that uses the answer."""
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
    """Switch off the neurons of each category, item by item, beside controls.

    A category's neurons are those of the item that is asked, so they differ from prompt to prompt.

    Args:
        model: the one that was recorded.
        task: the one that was recorded; its items need answers.
        recording: from :func:`neuroglot.record`, of all layers; its items and languages count.
        categories: of ``"all_shared"``, ``"partial_shared"``, ``"specific"`` (to any language),
            ``"specific_here"`` (to the language of the prompt) and ``"non_activated"``, or unions
            such as ``"all_shared+partial_shared"``.
        parts: which parts of the categories are edited, and how.
        controls: see :func:`neuroglot.intervene`.
        position: see :func:`neuroglot.intervene`.
        answering: see :func:`neuroglot.intervene`.
        equivalent_within: see :func:`neuroglot.intervene`.
        out: see :func:`neuroglot.intervene`; of a development half, see ``parts``, the outcome of
            the other half is in its folder ``test``.
        overwrite: replace what ``out`` holds.

    Returns:
        See :func:`neuroglot.intervene`; conditions have the coordinates ``category``, ``top``,
        ``layers``, ``membership``, ``keep_only``, ``factor`` and ``rank_by``.

    Raises:
        NeuroglotError: see :func:`neuroglot.intervene`, or unknown categories.
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
        here = _of_category(category, development, test, chosen, beside.threshold)
        part = here if band is None else here.layers(*band)
        if top < 1:
            ids = () if scores is None else development.items
            part = part.strongest(top, by=scores, chosen_on=ids)
        if chosen.keep_only:
            part = ~part if band is None else (~part).layers(*band)
        name, row = _said(category, top, band, chosen)
        conditions[name] = Zero(part) if chosen.factor == 0 else Scale(part, chosen.factor)
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
    """The neurons of a category or of a union, for each prompt or one set for all."""
    names = category.split(UNION)
    if parts.membership is None:
        found = (
            NeuronSet.specific_here(test, threshold=threshold)
            if name == SPECIFIC_HERE
            else NeuronSet.from_category(test, name, threshold=threshold)
            for name in names
        )
        return reduce(lambda one, other: one | other, found)
    if SPECIFIC_HERE in names:
        raise NeuroglotError(
            f"{SPECIFIC_HERE!r} depends on the language, so no set can stand for all prompts; use "
            "'specific'."
        )
    shares = (
        category_membership(development, threshold=threshold).sel(category=names).sum("category")
    )
    mask = shares.to_numpy() >= parts.membership - 1e-9
    return NeuronSet(mask, category, chosen_on=development.items)


def _said(category: str, top: float, band: Any, parts: Parts) -> tuple[str, dict[str, Any]]:
    """What a condition is called, and its coordinates."""
    ranked = "" if top == 1 else parts.rank_by
    said = {
        "keep only": "" if parts.keep_only else None,
        "layers": None if band is None else layer_range(band),
        "top": None if top == 1 else _exact(top),
        "by": ranked if ranked not in ("", CONTRIBUTION) else None,
        "membership": None if parts.membership is None else _exact(parts.membership),
        "times": None if parts.factor == 0 else _exact(parts.factor),
    }
    more = [f"{what} {how}".strip() for what, how in said.items() if how is not None]
    return ", ".join([category, *more]), {
        "category": category,
        "top": float(top),
        "layers": "all" if band is None else layer_range(band),
        "membership": np.nan if parts.membership is None else float(parts.membership),
        "keep_only": int(parts.keep_only),
        "factor": float(parts.factor),
        "rank_by": ranked or CONTRIBUTION,
    }


def _exact(number: float) -> str:
    """A number that no other one is written as: conditions and their draws go by it."""
    return repr(float(number)).removesuffix(".0")


def _halves(
    model: Model, task: ParallelTask, recording: Recording, seed: int, how: Answering
) -> tuple[Recording, Recording]:
    """Recordings of a development half and of the other half, with no prompt in both."""
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
    """Multiply a category's coefficients, and see whether answers get better.

    The factor with the highest accuracy on a development half of the items is taken (of equal ones
    the one nearest to 1); what it does is that of the other half. No subject and no prompt is in
    both halves.

    Args:
        model: the one that was recorded.
        task: the one that was recorded; its items need answers.
        recording: from :func:`neuroglot.record`, of all layers.
        category: see :func:`deactivate`.
        factors: to choose from.
        controls: see :func:`neuroglot.intervene`; their coefficients get the same factor.
        position: see :func:`neuroglot.intervene`.
        answering: see :func:`neuroglot.intervene`.
        equivalent_within: see :func:`neuroglot.intervene`.
        out: folder for the result and what it is made of, in ``development`` and ``test``.
        overwrite: replace what ``out`` holds.

    Returns:
        What :func:`neuroglot.intervene` returns, for the chosen factor and the other half; and
        ``development_accuracy`` (chosen_from), for each factor and 1, no edit.

    Raises:
        NeuroglotError: see :func:`neuroglot.intervene`; or factors that are none.
    """
    names, values = check_categories([category]), check_factors(factors)
    beside = options_of(controls, Controls, "controls")
    how = options_of(answering, Answering, "answering")
    require_recording(recording)
    development, test = _halves(model, task, recording, beside.seed, how)

    def outcome(
        part: Recording, tried: Sequence[float], controls: Controls, half: str
    ) -> xr.Dataset:
        here = _of_category(names[0], part, part, Parts(), beside.threshold)
        said = [_said(names[0], 1.0, None, Parts(factor=factor)) for factor in tried]
        return intervene(
            model,
            task,
            {name: Scale(here, row["factor"]) for name, row in said},
            recording=part,
            controls=controls,
            position=position,
            answering=how,
            coordinates={key: [row[key] for _, row in said] for key in said[0][1]},
            equivalent_within=equivalent_within,
            out=None if out is None else Path(out, half),
            overwrite=overwrite,
        )

    alone = Controls((), beside.draws, beside.seed, beside.threshold)
    tried = outcome(development, values, alone, "development")
    accuracies = [_accuracy(tried["correct_no_edit"], tried)]
    own = tried["correct"].sel(arm=OWN)
    accuracies += [_accuracy(own[i], tried) for i in range(len(values))]
    given = [1.0, *values]
    best = max(range(1, len(given)), key=lambda i: (accuracies[i], -abs(given[i] - 1)))
    found = outcome(test, [given[best]], beside, "test")
    found = found.assign(development_accuracy=("chosen_from", accuracies))
    found = found.assign_coords(chosen_from=given)
    if out is not None:
        save(found, Path(out, "test", found.attrs["kind"]), overwrite=True)
    return found


def check_factors(factors: Sequence[float]) -> list[float]:
    """The factors to choose from, as numbers.

    Raises:
        NeuroglotError: none, one twice, or one of 0 and 1.
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
    """Over the prompts that count, equal ones once; choosing by it takes no interval or test."""
    counted = outcome["counted"].transpose("item", "language").to_numpy()
    right = correct.transpose("item", "language").to_numpy().astype(float)
    return samples_of(outcome).observed(right, counted).mean


def check_categories(categories: Sequence[str]) -> list[str]:
    """The categories, the parts of unions in one order, if they are such.

    Raises:
        NeuroglotError: a text in place of a list, none, an unknown one, or one twice.
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


def layer_bands(model: Model, n_bands: int = 3) -> tuple[tuple[int, ...], ...]:
    """As many bands of neighbouring layers, about equally wide.

    Raises:
        NeuroglotError: more bands than the model has layers, or fewer than one.
    """
    if not is_whole_number(n_bands, 1, model.n_layers):
        raise NeuroglotError(
            f"n_bands={n_bands}: expected a whole number from 1 to {model.n_layers}, the layers."
        )
    ends = [round(i * model.n_layers / n_bands) for i in range(n_bands + 1)]
    return tuple(tuple(range(*pair)) for pair in itertools.pairwise(ends))
