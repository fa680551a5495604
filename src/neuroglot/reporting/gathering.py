"""Results by kind, and what is said of any of them."""

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
"""Results by the name of their group and that of their run; most kinds are one group, of the name
of their kind."""


def sort_results(results: Results) -> Gathered:
    """Group ``{run: result}`` by kind; a run may have several results as ``run/anything``.

    Raises:
        NeuroglotError: there are none, one is of no kind that can be drawn, or a run has two of
            one kind.
    """
    if not results:
        raise NeuroglotError("there are no results to report.")
    found: Gathered = {}
    for name, result in results.items():
        run, kind = name.partition("/")[0], kind_of(name, result)
        group = kind.group(result)
        runs = found.setdefault(group, {})
        if run in runs:
            raise NeuroglotError(f"run {run!r} has two results of kind {group!r}; name runs apart.")
        runs[run] = result
    return found


def kind_of(name: str, result: xr.Dataset | xr.DataArray) -> Kind:
    """What knows how a result is shown.

    Raises:
        NeuroglotError: nothing does.
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
    known = listed([kind.name for kind in KINDS], 20)
    raise NeuroglotError(f"result {name!r} is of kind {name_of_kind!r}; a report shows {known}.")


def groups_of(found: Gathered, kind: Kind) -> dict[str, Group]:
    """The groups of one kind."""
    return {
        name: runs
        for name, runs in found.items()
        if next(iter(runs.values())).attrs["kind"] == kind.name
    }


def in_page_order(found: Gathered) -> Iterator[tuple[Kind, str, Group]]:
    """Every group with its kind and name, in the order of the page."""
    for kind in KINDS:
        for name, runs in groups_of(found, kind).items():
            yield kind, name, runs


def tables(result: xr.Dataset | xr.DataArray, *, name: str | None = None) -> list[Table]:
    """The tables that a report, and the command line, show of a result.

    Args:
        result: of any kind that :func:`neuroglot.report` shows.
        name: of its run, for the titles; by default, those of its model and task.

    Returns:
        Tables that a notebook shows as they are. ``table.frame()`` is a pandas table of its plain
        numbers, such as accuracy by language of what :func:`neuroglot.evaluate` returns.

    Raises:
        NeuroglotError: no report shows results of this kind.
    """
    called = name_of(result) if name is None else name
    return kind_of(called, result).tables({called: result})


def name_of(result: xr.Dataset | xr.DataArray) -> str:
    """What a result is called where nobody says: by its model and task."""
    return " on ".join(str(result.attrs[key]) for key in ("model", "task") if key in result.attrs)


def records_of(result: xr.Dataset | xr.DataArray) -> dict[str, Any]:
    """What ``--json`` gives of a result, with its provenance."""
    kind = kind_of("", result)
    notes = {"notes": notes_of(result)} if kind.has_notes else {}
    return kind.records(result) | notes | {"provenance": result.attrs}


def notes_of(result: xr.Dataset | xr.DataArray) -> list[str]:
    """Sentences on a result with intervals: which prompts count once, and what has no interval."""
    if not kind_of("", result).has_notes:
        return []
    if "observations" in result.attrs:
        return [text for text in [str(result.attrs["observations"])] if text]
    if not isinstance(result, xr.Dataset) or not {"item", "language"} <= set(result.dims):
        return []
    return said_of_samples(result, result.get("counted"))


def sample_notes(found: Gathered) -> list[str]:
    """The same for all results, each sentence once for a run, with the run's name before it."""
    said = [
        f"{run}: {text}"
        for _, _, runs in in_page_order(found)
        for run, result in runs.items()
        for text in notes_of(result)
    ]
    return list(dict.fromkeys(said))


def sheets(found: Gathered) -> dict[str, pd.DataFrame]:
    """What stands beside the page as CSV, by what the names of the files end in."""
    made = {}
    for kind in KINDS:
        groups = groups_of(found, kind)
        if kind.sheet is not None and (groups or kind.sheet.is_always_there):
            frames = [
                kind.sheet.frame(result).assign(run=run)
                for runs in groups.values()
                for run, result in runs.items()
            ]
            made[kind.sheet.name] = joined(frames, kind.sheet.columns)
    return made


def joined(frames: list[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """The rows of all runs, with columns in an order that does not depend on that of the runs."""
    return in_order(pd.concat(frames, ignore_index=True), columns) if frames else pd.DataFrame()


FACTS = ("run", "model", "task", "template", "items", "languages", "site", "position", "dtype")
MOST_LANGUAGES = 15  # that are named in one cell


def run_facts(results: Results) -> Table:
    """One row a run: which model, task, items, languages and site its numbers are of."""
    runs: dict[str, dict[str, str]] = {}
    for name, result in results.items():
        run = name.partition("/")[0]
        row = runs.setdefault(run, dict.fromkeys(FACTS, "") | {"run": run})
        # Answers know of no site, and a sweep of no items: the results of a run fill each other in.
        row |= {key: text for key, text in _facts(result).items() if not row[key]}
    rows = [{key: text or "–" for key, text in row.items()} for row in runs.values()]
    return Table("Runs", [Column(key, (key,)) for key in FACTS], rows)


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
