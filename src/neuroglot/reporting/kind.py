"""The description of a kind of result for reports; each file of ``kinds/`` holds one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import pandas as pd
import xarray as xr

from neuroglot.reporting.table import Table

Group = Mapping[str, Any]
"""Results of one kind by the name of their run, for example ``"aligned, native"``."""
Figures = dict[str, alt.TopLevelMixin]
"""Charts by the name of their file."""


@dataclass(frozen=True)
class Sheet:
    """A CSV file beside the page.

    Attributes:
        name: the end of the file's name, before ``.csv``.
        frame: makes the rows of one result; a column ``run`` is added to them.
        columns: the order of the columns.
        is_always_there: whether the file is also written, without rows, if there is no such result.
    """

    name: str
    frame: Callable[[Any], pd.DataFrame]
    columns: Sequence[str]
    is_always_there: bool = False


@dataclass(frozen=True)
class Kind:
    """One kind of result.

    Attributes:
        name: the name of the kind, which results have in the attribute ``kind``.
        tables: makes the tables of results by run, for the page, the terminal and notebooks.
        figures: makes the figures of a group, from its name and its results by run.
        records: makes the values of one result that ``--json`` prints, by key.
        has_notes: whether there are sentences on the intervals of results.
        sheet: the CSV file of all results of the kind, if there is one.
        group_of: names the group of a result, if a kind has several groups, which are drawn
            separately.
        container: the class of a result.
        older_names: names of the kind in earlier versions, each with the function or command that
            makes such a result now.
    """

    name: str
    tables: Callable[[Group], list[Table]] = lambda _: []
    figures: Callable[[str, Group], Figures] = lambda _, __: {}
    records: Callable[[Any], dict[str, Any]] = lambda _: {}
    has_notes: bool = False
    sheet: Sheet | None = None
    group_of: Callable[[Any], str] | None = None
    container: type = xr.Dataset
    older_names: Mapping[str, str] = field(default_factory=dict)

    def group(self, result: Any) -> str:
        """The name of the group of a result; the results of most kinds are one group."""
        return self.name if self.group_of is None else self.group_of(result)
