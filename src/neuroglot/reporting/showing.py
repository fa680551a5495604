"""Show a single figure of a result in a notebook."""

from __future__ import annotations

import altair as alt
import xarray as xr

from neuroglot.errors import NeuroglotError, listed
from neuroglot.reporting.gathering import kind_of, name_of


def plot(result: xr.Dataset | xr.DataArray, figure: str | None = None) -> alt.TopLevelMixin:
    """One of the figures of a result that a report shows.

    Args:
        result: a result of any kind that :func:`neuroglot.report` shows.
        figure: the name of the figure, such as ``"fractions"`` for a result of
            :func:`neuroglot.classify`; by default the first figure.

    Returns:
        An Altair chart, which a notebook displays and ``chart.save("name.png")`` writes to a file.

    Raises:
        NeuroglotError: there is no such figure, and the message lists the figures; or a report does
            not show results of this kind.

    Examples:
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=8)
        >>> chart = ng.plot(ng.classify(ng.record(model, task)), "fractions")
        >>> chart.to_dict()["title"]["text"]
        'Sharing by layer'
    """
    kind, run = kind_of("result", result), name_of(result)
    with alt.data_transformers.enable("default", max_rows=None):
        charts = {
            name.removesuffix(f"-{run}"): chart
            for name, chart in kind.figures(kind.group(result), {run: result}).items()
        }
        if not charts or (figure is not None and figure not in charts):
            raise NeuroglotError(f"figure={figure!r}: there are {listed(charts) or 'none'}.")
        chosen = charts[next(iter(charts)) if figure is None else figure]
        # A chart made from its specification holds its data, so Altair's limit of rows, which
        # applies when data are added, no longer matters.
        shown: alt.TopLevelMixin = type(chosen).from_dict(chosen.to_dict())  # type: ignore[attr-defined]
    return shown
