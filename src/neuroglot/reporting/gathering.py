"""Group results by kind, and describe results of any kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import xarray as xr

from neuroglot.answering.observations import said_of_samples
from neuroglot.answering.spreadsheet import in_order
from neuroglot.errors import NeuroglotError, listed
from neuroglot.reporting.kind import Group, Kind
from neuroglot.reporting.kinds import KINDS
from neuroglot.reporting.table import Column, Table

Results = Mapping[str, xr.Dataset | xr.DataArray]
Gathered = dict[str, dict[str, Any]]
"""Results by the name of their group and the name of their run. The results of most kinds are one
group, which has the name of the kind."""


def sort_results(results: Results) -> Gathered:
    """Group ``{run: result}`` by kind; several results of a run are named ``run/anything``.

    Raises:
        NeuroglotError: there are no results, a report does not show one of them, or a run has two
            results of one kind.
    """
    if not results:
        raise NeuroglotError("there are no results to report.")
    gathered: Gathered = {}
    for name, result in results.items():
        run, kind = name.partition("/")[0], kind_of(name, result)
        group = kind.group(result)
        runs = gathered.setdefault(group, {})
        if run in runs:
            raise NeuroglotError(f"run {run!r} has two results of kind {group!r}; name runs apart.")
        runs[run] = result
    return gathered


def kind_of(name: str, result: xr.Dataset | xr.DataArray) -> Kind:
    """The kind of a result, which says how it is shown.

    Raises:
        NeuroglotError: a report does not show such results.
    """
    name_of_kind = result.attrs.get("kind")
    for kind in KINDS:
        if kind.name == name_of_kind and isinstance(result, kind.container):
            return kind
        if instead := kind.older_names.get(str(name_of_kind)):
            raise NeuroglotError(
                f"result {name!r} is a {name_of_kind!r} of an earlier version of neuroglot; "
                f"make it again with {instead}."
            )
    kinds = listed([kind.name for kind in KINDS], 20)
    raise NeuroglotError(f"result {name!r} is of kind {name_of_kind!r}; a report shows {kinds}.")


def groups_of(gathered: Gathered, kind: Kind) -> dict[str, Group]:
    """The groups of one kind."""
    return {
        name: runs
        for name, runs in gathered.items()
        if next(iter(runs.values())).attrs["kind"] == kind.name
    }


def in_page_order(gathered: Gathered) -> Iterator[tuple[Kind, str, Group]]:
    """Every group with its kind and name, in the order of the page."""
    for kind in KINDS:
        for name, runs in groups_of(gathered, kind).items():
            yield kind, name, runs


def tables(result: xr.Dataset | xr.DataArray, *, name: str | None = None) -> list[Table]:
    """The tables of a result that a report and the command line show.

    Args:
        result: a result of any kind that :func:`neuroglot.report` shows.
        name: the name of its run in the titles, by default the names of its model and task.

    Returns:
        The tables, which a notebook displays. ``table.frame()`` holds the numbers of a table as a
        pandas data frame.

    Raises:
        NeuroglotError: a report does not show results of this kind.

    Examples:
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=8)
        >>> sharing = ng.classify(ng.record(model, task))
        >>> [table] = ng.tables(sharing, name="base")
        >>> table.title
        'base: share of neurons, mean over items and layers'
        >>> table.frame()["category"].tolist()
        ['non_activated', 'specific', 'partial_shared', 'all_shared']
    """
    run = name_of(result) if name is None else name
    return kind_of(run, result).tables({run: result})


def name_of(result: xr.Dataset | xr.DataArray) -> str:
    """The name of a result that was given none: those of its model and task."""
    return " on ".join(str(result.attrs[key]) for key in ("model", "task") if key in result.attrs)


def records_of(result: xr.Dataset | xr.DataArray) -> dict[str, Any]:
    """The content of a result that ``--json`` prints, with its provenance."""
    kind = kind_of("", result)
    notes = {"notes": notes_of(result)} if kind.has_notes else {}
    return kind.records(result) | notes | {"provenance": result.attrs}


def notes_of(result: xr.Dataset | xr.DataArray) -> list[str]:
    """Sentences on the intervals of a result: prompts that count once, and numbers without one."""
    if not kind_of("", result).has_notes:
        return []
    if "observations" in result.attrs:
        return [text for text in [str(result.attrs["observations"])] if text]
    if not isinstance(result, xr.Dataset) or not {"item", "language"} <= set(result.dims):
        return []
    return said_of_samples(result, result.get("counted"))


def sample_notes(gathered: Gathered) -> list[str]:
    """The sentences of :func:`notes_of` on all results, once for each run and after its name."""
    sentences = (
        f"{run}: {text}"
        for _, _, runs in in_page_order(gathered)
        for run, result in runs.items()
        for text in notes_of(result)
    )
    return list(dict.fromkeys(sentences))


def sheets(gathered: Gathered) -> dict[str, pd.DataFrame]:
    """The tables of the CSV files beside the page, by the ends of the files' names."""
    frames_by_name = {}
    for kind in KINDS:
        groups = groups_of(gathered, kind)
        if kind.sheet is not None and (groups or kind.sheet.is_always_there):
            frames = [
                kind.sheet.frame(result).assign(run=run)
                for runs in groups.values()
                for run, result in runs.items()
            ]
            frames_by_name[kind.sheet.name] = joined(frames, kind.sheet.columns)
    return frames_by_name


def joined(frames: list[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """The rows of all runs, with the columns in the given order, whatever the order of the runs."""
    return in_order(pd.concat(frames, ignore_index=True), columns) if frames else pd.DataFrame()


FACTS = ("run", "model", "task", "template", "items", "languages", "site", "position", "dtype")
MOST_LANGUAGES = 15  # the largest number of languages that a cell names


def run_facts(results: Results) -> Table:
    """A table with one row for each run: its model, task, items, languages, site and so on."""
    runs: dict[str, dict[str, str]] = {}
    for name, result in results.items():
        run = name.partition("/")[0]
        row = runs.setdefault(run, dict.fromkeys(FACTS, "") | {"run": run})
        # Not every result has every fact, so the results of a run complete each other.
        row |= {key: text for key, text in _facts(result).items() if not row[key]}
    rows = [{key: text or "–" for key, text in row.items()} for row in runs.values()]
    return Table("Runs", [Column(key, (key,)) for key in FACTS], rows)


def _facts(result: xr.Dataset | xr.DataArray) -> dict[str, str]:
    facts = {key: str(result.attrs.get(key, "")) for key in FACTS}
    for key, dim in {"task": "task", "languages": "language"}.items():
        if dim in result.dims:
            facts[key] = listed(result[dim].to_numpy(), MOST_LANGUAGES)
    return facts | {"items": str(result.sizes.get("item", ""))}


def provenance_rows(results: Results) -> list[dict[str, str]]:
    """One row for each result: its name and its provenance."""
    return [
        {"result": name, **{key: str(value) for key, value in result.attrs.items() if value != ""}}
        for name, result in results.items()
    ]
