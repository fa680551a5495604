"""One figure of a result, for a notebook."""

from __future__ import annotations

import altair as alt
import xarray as xr

from neuroglot.errors import NeuroglotError, listed
from neuroglot.reporting.gathering import kind_of, name_of


def plot(result: xr.Dataset | xr.DataArray, figure: str | None = None) -> alt.TopLevelMixin:
    """One of the figures that a report would show of a result.

    Args:
        result: of any kind that :func:`neuroglot.report` shows.
        figure: its name, such as ``"fractions"`` of what :func:`neuroglot.classify` returns; by
            default the first.

    Returns:
        An Altair chart, which a notebook shows and ``chart.save("name.png")`` writes.

    Raises:
        NeuroglotError: there is no such figure (it lists those that there are), or no report shows
            results of this kind.
    """
    kind, run = kind_of("result", result), name_of(result)
    with alt.data_transformers.enable("default", max_rows=None):
        made = {
            name.removesuffix(f"-{run}"): chart
            for name, chart in kind.figures(kind.group(result), {run: result}).items()
        }
        if not made or (figure is not None and figure not in made):
            raise NeuroglotError(f"figure={figure!r}: there are {listed(made) or 'none'}.")
        chosen = made[next(iter(made)) if figure is None else figure]
        # With its data inside, the chart has no limit of rows, which is for tables that come later.
        shown: alt.TopLevelMixin = type(chosen).from_dict(chosen.to_dict())  # type: ignore[attr-defined]
    return shown
