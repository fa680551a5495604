"""Answer the arms of some conditions, and say what they do to accuracy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.attribution import attribute
from neuroglot.experiments.evaluation import evaluate
from neuroglot.experiments.halves import subject_of
from neuroglot.experiments.observations import SAME
from neuroglot.interventions.arms import DIMS, Arms, Chosen, Condition
from neuroglot.interventions.conditions import Variant, check_category, fixed_set, layer_range
from neuroglot.interventions.effects import effects, reasons
from neuroglot.interventions.job import Job
from neuroglot.neurons import NeuronSet
from neuroglot.provenance import provenance
from neuroglot.recording.folders import as_path
from neuroglot.recording.growing import InMemory, grow, in_folder, is_whole
from neuroglot.recording.matching import require_steady_prompts, said_of
from neuroglot.recording.store import open_dataset

ANSWERS, PARTS = "answers", "conditions"
DEACTIVATION, BANDS = "deactivation", "layer-bands"
DOSES, DOSES_BY_ANSWER = "dose-response", "dose-response-by-answer"
AMPLIFICATION, KEEP_ONLY, FIXED = "amplification", "keep-only", "fixed-sets"
SCALED, VARIANTS = "scaled", "variants"
KINDS = (
    *(DEACTIVATION, DOSES, DOSES_BY_ANSWER, BANDS, KEEP_ONLY, FIXED),
    *(AMPLIFICATION, SCALED, VARIANTS),
)
"""Units of results: what their conditions differ in."""


def outcome_of(
    job: Job, wanted: Sequence[tuple[str, Variant]], unit: str | None = None
) -> xr.Dataset:
    """Answers and effects of some conditions.

    Args:
        job: what is answered.
        wanted: categories with their variants.
        unit: what the result is; by default what the variants differ in.
    """
    choosing = job
    if any(variant.needs_halves for _, variant in wanted):
        choosing, job = job.halves()
    answers = answers_under(job, wanted, choosing)
    outcome = answers.merge(effects(answers, job.controls.bound, job.controls.seed))
    unit = unit or kind_of([variant for _, variant in wanted])
    said = {"unit": unit, "equivalent_within": job.controls.bound}
    return outcome.assign(reason=reasons(outcome)).assign_attrs(said)


def answers_under(
    job: Job, wanted: Sequence[tuple[str, Variant]], choosing: Job | None = None
) -> xr.Dataset:
    """Answers without any edit and under some conditions, kept where there is a folder.

    Args:
        job: what is answered.
        wanted: categories with their variants.
        choosing: the items on which a variant chooses, where it does.
    """
    before = evaluate(
        job.model,
        job.task,
        out=job.folder(ANSWERS),
        score=job.how.score,
        max_new_tokens=job.how.max_new_tokens,
        masked=False,  # arms say nothing of it that this could be compared with
        batch_size=job.how.batch_size,
        grow=False,  # nor do conditions, whose sets and halves are those of all items
        overwrite=job.overwrite,
    )
    development = choosing or job
    scores = dict.fromkeys(variant.rank_by for _, variant in wanted)
    rankings = {score: _ranking(development, score) for score in scores if score != "contribution"}
    conditions = [
        Condition(
            category,
            variant,
            job.controls,
            Chosen(_fixed(development, category, variant), rankings.get(variant.rank_by)),
        )
        for category, variant in wanted
    ]
    parts = [_answered(job, condition) for condition in conditions]
    joined = _joined(before, parts, conditions, job)
    return joined.assign_coords(_described(wanted)).assign_attrs(_attrs(job))


def _described(wanted: Sequence[tuple[str, Variant]]) -> dict[str, Any]:
    """What of the variants figures go by, as coordinates of the conditions."""
    rows = [asdict(variant) for _, variant in wanted]
    found: dict[str, Any] = {name: [row[name] for row in rows] for name in ("top", "factor")}
    found["category"] = [category for category, _ in wanted]
    found["layers"] = ["all" if v.layers is None else layer_range(v.layers) for _, v in wanted]
    found["keep_only"] = [int(variant.keep_only) for _, variant in wanted]
    found["rank_by"] = [variant.rank_by for _, variant in wanted]
    found["membership"] = [variant.membership or np.nan for _, variant in wanted]
    return {name: ("condition", values) for name, values in found.items()}


def kind_of(variants: Sequence[Variant]) -> str:
    """What a result with these variants is called, by what they differ in."""
    plain = Variant()
    doses = all(replace(v, top=1.0) == plain for v in variants)
    names = {
        DEACTIVATION: all(variant == plain for variant in variants),
        DOSES_BY_ANSWER: doses and any(v.rank_by != plain.rank_by for v in variants),
        DOSES: doses,
        BANDS: all(replace(v, layers=None) == plain for v in variants),
        KEEP_ONLY: all(replace(v, keep_only=False) == plain for v in variants),
        FIXED: all(replace(v, membership=None) == plain for v in variants),
        SCALED: all(replace(v, factor=0.0) == plain for v in variants),
    }
    return next((name for name, fits in names.items() if fits), VARIANTS)


def _ranking(development: Job, score: str) -> np.ndarray[Any, Any]:
    """Mean scores (layer, neuron) over the development half, kept where there is a folder."""
    found = attribute(
        development.model,
        development.whole,
        development.recording,
        scores=(score,),
        threshold=development.threshold,
        batch_size=development.how.batch_size,
        out=development.folder(f"{score}-scores"),
        grow=False,
        overwrite=development.overwrite,
    )
    return found["mean_score"].sel(score=score).mean("language").to_numpy()


def _fixed(development: Job, category: str, variant: Variant) -> NeuronSet | None:
    """One set for all items, where the variant wants one."""
    if variant.membership is None:
        return None
    names = check_category(category)
    return fixed_set(names, development.recording, variant.membership, development.threshold)


def _answered(job: Job, condition: Condition) -> xr.Dataset:
    """What is answered under the arms of one condition, kept in its folder."""
    arms = Arms(job.model, job.task, job.recording, condition, job.how, job.threshold, job.weights)
    head = _head(job, condition)
    prompts = {"item": len(job.task.languages), "total": len(job.task) * len(job.task.languages)}

    def make(block: slice, done: Callable[[int], object]) -> xr.Dataset:
        return arms.answer(block, done)

    path = job.folder(PARTS, condition.name)
    if path is None:
        memory = InMemory(head, arms.items_at_once)
        grow(memory, make, condition.name, prompts)
        require_steady_prompts(job.model, job.whole, head.attrs)
        return memory.data
    if job.overwrite or not is_whole(path, head, DIMS):
        size = arms.items_at_once
        with in_folder(as_path(path), head, size, DIMS, overwrite=job.overwrite) as folder:
            grow(folder, make, condition.name, prompts)
            require_steady_prompts(job.model, job.whole, head.attrs)
            folder.finish(xr.Dataset())
    return open_dataset(path).load()


def _head(job: Job, condition: Condition) -> xr.Dataset:
    chosen = condition.chosen
    ranking = b"" if chosen.ranking is None else chosen.ranking.tobytes()
    return xr.Dataset(
        coords={
            "item": [item["id"] for item in job.task.items],
            "language": list(job.task.languages),
            "arm": condition.controls.arms,
        },
        attrs=_attrs(job)
        | {
            "unit": "answers under a condition",
            "condition": condition.name,
            "fixed_set": "" if chosen.neurons is None else chosen.neurons.checksum,
            "ranking": hashlib.sha256(ranking).hexdigest()[:16],
        },
    )


def _joined(
    before: xr.Dataset, parts: Sequence[xr.Dataset], conditions: Sequence[Condition], job: Job
) -> xr.Dataset:
    """Answers of all conditions, the arms apart into category, controls and draws."""
    controls = job.controls
    joined = xr.concat(
        [part.drop_attrs() for part in parts],
        dim=xr.DataArray([one.name for one in conditions], dims="condition", name="condition"),
        join="exact",
    )
    drawn = joined[["correct", "share"]].isel(arm=slice(1, None)).drop_vars("arm")
    shape = (len(controls.kinds), controls.draws)
    index = {"control": list(controls.kinds), "draw": range(controls.draws)}
    unstacked = {
        name: xr.DataArray(
            values.transpose("condition", "arm", "item", "language")
            .to_numpy()
            .reshape(len(conditions), *shape, *values.shape[1:3]),
            dims=("condition", "control", "draw", "item", "language"),
            coords={"condition": joined["condition"], **index},
        )
        for name, values in drawn.items()
    }
    own = joined.isel(arm=0, drop=True)
    counted, there = before["counted"].drop_attrs(), unstacked["correct"].notnull().all("draw")
    subjects = [subject_of(item) for item in job.task.items]
    relations = [str(item["relation"] or "") for item in job.task.items]
    # Answers of before equal prompts were looked for have none.
    same = {SAME: before[SAME]} if SAME in before.coords else {}
    return xr.Dataset(
        {
            "correct": own["correct"].astype(bool),
            "correct_no_edit": before["correct"].drop_attrs(),
            "correct_control": unstacked["correct"],
            "counted": counted,
            "held_out": before["held_out"],
            "n_neurons": own["n_neurons"],
            "share": _mean_share(own["share"], counted),
            "share_beside": _mean_share(own["share"], counted & there),
            "control_share": _mean_share(unstacked["share"].mean("draw"), counted & there),
        },
        coords={"subject": ("item", subjects), "relation": ("item", relations)} | same,
    )


def _mean_share(share: xr.DataArray, prompts: xr.DataArray) -> xr.DataArray:
    """Mean over the prompts that are meant."""
    return share.where(prompts).mean(["item", "language"])


def _attrs(job: Job) -> dict[str, Any]:
    recording = job.recording
    return {
        "unit": DEACTIVATION,
        **provenance(job.model, job.task, recording.attrs),
        "n_neurons": job.model.n_neurons,
        "site": recording.attrs["site"],
        "position": recording.attrs["position"],
        "added_tokens": said_of(recording.attrs, "added_tokens"),
        "threshold": job.threshold,
        "positions": job.how.positions,
        "half": job.half,
        "score": job.how.score,
        "max_new_tokens": job.how.max_new_tokens,
        "controls": ",".join(job.controls.kinds),
        "draws": job.controls.draws,
        "seed": job.controls.seed,
        "batch_size": job.how.batch_size,
    }
