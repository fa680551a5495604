"""What a report shows, gathered by kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from neuroglot.errors import NeuroglotError, listed
from neuroglot.interventions.intervene import UNIT as OUTCOME
from neuroglot.reporting.conditions import kind_of

Results = Mapping[str, xr.Dataset | xr.DataArray]


@dataclass(frozen=True)
class Sorted:
    """Results by kind, each under the name of its run.

    Attributes:
        sharing: from :func:`neuroglot.classify`.
        evaluations: from :func:`neuroglot.evaluate`.
        thresholds: from :func:`neuroglot.sweep_thresholds`.
        comparisons: from :func:`neuroglot.compare_tasks`.
        fragilities: from :func:`neuroglot.fragility`.
        attributions: from :func:`neuroglot.attribute`.
        agreements: from :func:`neuroglot.causal_agreement`.
        alignments: from :func:`neuroglot.align`.
        run_comparisons: from :func:`neuroglot.compare`.
        interventions: from :func:`neuroglot.intervene`, by what their conditions differ in.
    """

    sharing: dict[str, xr.Dataset] = field(default_factory=dict)
    evaluations: dict[str, xr.Dataset] = field(default_factory=dict)
    thresholds: dict[str, xr.DataArray] = field(default_factory=dict)
    comparisons: dict[str, xr.Dataset] = field(default_factory=dict)
    fragilities: dict[str, xr.Dataset] = field(default_factory=dict)
    attributions: dict[str, xr.Dataset] = field(default_factory=dict)
    agreements: dict[str, xr.Dataset] = field(default_factory=dict)
    alignments: dict[str, xr.Dataset] = field(default_factory=dict)
    run_comparisons: dict[str, xr.Dataset] = field(default_factory=dict)
    interventions: dict[str, dict[str, xr.Dataset]] = field(default_factory=dict)


def sort_results(results: Results) -> Sorted:
    """Group ``{run: result}`` by kind; a run may have several results as ``run/anything``.

    Raises:
        NeuroglotError: there are none, one is of no kind that can be drawn, or a run has two of
            one kind.
    """
    if not results:
        raise NeuroglotError("there are no results to report.")
    found = Sorted()
    for name, result in results.items():
        run = name.partition("/")[0]
        group = _group(found, name, result)
        if run in group:
            kinds = (kind for kind, runs in found.interventions.items() if runs is group)
            kind = next(kinds, result.attrs["unit"])
            raise NeuroglotError(f"run {run!r} has two results of kind {kind!r}; name runs apart.")
        group[run] = result
    return found


def _group(found: Sorted, name: str, result: xr.Dataset | xr.DataArray) -> dict[str, Any]:
    """The results of the same kind, to which this one belongs."""
    kind = result.attrs.get("unit")
    groups: dict[str, tuple[type, dict[str, Any]]] = {
        "sharing": (xr.Dataset, found.sharing),
        "evaluation": (xr.Dataset, found.evaluations),
        "thresholds": (xr.DataArray, found.thresholds),
        "task comparison": (xr.Dataset, found.comparisons),
        "fragility": (xr.Dataset, found.fragilities),
        "attribution": (xr.Dataset, found.attributions),
        "causal agreement": (xr.Dataset, found.agreements),
        "alignment": (xr.Dataset, found.alignments),
        "comparison": (xr.Dataset, found.run_comparisons),
    }
    if kind == OUTCOME and isinstance(result, xr.Dataset):
        return found.interventions.setdefault(kind_of(result), {})
    if kind in OF_BEFORE:
        raise NeuroglotError(
            f"result {name!r} is a {kind!r} of an earlier version of neuroglot; make it again with "
            "neuroglot.intervene, or `neuroglot deactivate` or `neuroglot amplify`."
        )
    if kind not in groups or not isinstance(result, groups[kind][0]):
        raise NeuroglotError(
            f"result {name!r} is of kind {kind!r}; a report shows {listed([*groups, OUTCOME], 20)}."
        )
    return groups[kind][1]


OF_BEFORE = (
    *("deactivation", "dose-response", "dose-response-by-answer", "layer-bands", "keep-only"),
    *("fixed-sets", "amplification", "scaled", "variants"),
)
"""Units of outcomes of an earlier version."""

SCORE_LABELS = {
    "contribution": "contribution",
    "effective": "effective score",
    "direct_logit": "direct logit",
    "gradient_x_activation": "gradient × activation",
    "integrated_gradients": "integrated gradients",
}


def main_score(attribution: xr.Dataset) -> str:
    """The score that a figure of one score shows: the effective score where there is one."""
    known = [str(name) for name in attribution["score"].to_numpy()]
    return "effective" if "effective" in known else known[0]


FACTS = ("run", "model", "task", "template", "items", "languages", "site", "position", "dtype")
MOST_LANGUAGES = 15  # that are named in one cell


def run_facts(results: Results) -> list[dict[str, str]]:
    """One row a run: which model, task, items, languages and site its numbers are of."""
    runs: dict[str, dict[str, str]] = {}
    for name, result in results.items():
        run = name.partition("/")[0]
        row = runs.setdefault(run, dict.fromkeys(FACTS, "") | {"run": run})
        # Answers know of no site, and a sweep of no items: the results of a run fill each other in.
        row |= {key: text for key, text in _facts(result).items() if not row[key]}
    return [{key: text or "–" for key, text in row.items()} for row in runs.values()]


def _facts(result: xr.Dataset | xr.DataArray) -> dict[str, str]:
    found = {key: str(result.attrs.get(key, "")) for key in FACTS}
    for key, dim in {"task": "task", "languages": "language"}.items():
        if dim in result.dims:
            found[key] = listed(result[dim].to_numpy(), MOST_LANGUAGES)
    found["items"] = str(result.sizes.get("item", ""))
    return found


def provenance_rows(results: Results) -> list[dict[str, str]]:
    """One row a result: where it comes from."""
    rows = []
    for name, result in results.items():
        attrs = {key: str(value) for key, value in result.attrs.items() if value != ""}
        rows.append({"result": name, **attrs})
    return rows
