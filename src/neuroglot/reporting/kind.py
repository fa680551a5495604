"""What a report must know of one kind of result; each is made in a file of ``kinds/``."""

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
    """A CSV file that stands beside the page.

    Attributes:
        name: what the name of the file ends in.
        frame: the rows of one result; the column ``run`` is put before them.
        columns: the order of the columns.
        is_always_there: whether the file is written, and empty, where there is no such result.
    """

    name: str
    frame: Callable[[Any], pd.DataFrame]
    columns: Sequence[str]
    is_always_there: bool = False


@dataclass(frozen=True)
class Kind:
    """One kind of result.

    Attributes:
        name: what a result says of its kind, in the attribute ``kind``.
        tables: of some results by run, for the page, the terminal and notebooks.
        figures: of the name of a group of results and the results by run.
        records: what ``--json`` gives of one result, by key.
        has_notes: whether results say which prompts count once, and what has no interval.
        sheet: the CSV file of all results, if there is one.
        group_of: the name of the group to which a result belongs, where a kind has several;
            results of different groups are drawn apart.
        container: what a result is.
        older_names: what results of this kind were called by earlier versions, and what makes
            them again.
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
        """The name of the group that a result belongs to; most kinds are one group."""
        return self.name if self.group_of is None else self.group_of(result)
