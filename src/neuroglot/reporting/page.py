"""Write the report: a self-contained HTML page with figures, tables and provenance."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import vl_convert as vlc
import xarray as xr

from neuroglot.answering.spreadsheet import as_csv
from neuroglot.errors import NeuroglotError, plain
from neuroglot.outputs import real_path, write_file
from neuroglot.reporting.gathering import (
    Gathered,
    Results,
    in_page_order,
    provenance_rows,
    run_facts,
    sample_notes,
    sheets,
    sort_results,
)
from neuroglot.reporting.headline import headline_table, item_table
from neuroglot.reporting.kind import Figures
from neuroglot.reporting.table import Table

PNG_SCALE = 2.0
PAGE, TITLE, END = "page.html.jinja", "<title>neuroglot report</title>", "</html>"
LONGEST_NAME = 120  # bytes of a file name; most file systems allow up to 255


def charts(gathered: Gathered) -> Figures:
    """All figures of the results, by the name of their file."""
    return {
        name: chart
        for kind, group, runs in in_page_order(gathered)
        for name, chart in kind.figures(group, runs).items()
    }


def sections(gathered: Gathered) -> list[tuple[list[Table], list[str]]]:
    """The tables of each section, with the explanations that no section above has given."""
    headline = headline_table(gathered)
    parts = [[headline] if headline.rows else []]
    parts += [kind.tables(runs) for kind, _, runs in in_page_order(gathered)]
    given: dict[str, None] = {}
    with_texts = []
    for tables in parts:
        texts = dict.fromkeys(text for table in tables for text in table.explanations())
        with_texts.append((tables, [text for text in texts if text not in given]))
        given |= texts
    return with_texts


def report(
    results: Results, *, out: str | Path = "report.html", figures: str | Path | None = None
) -> Path:
    """Write results as one HTML page, which needs no network.

    Args:
        results: ``{name: result}``, where the name is the name of the run in figures. Several
            results of one run have names with a slash:
            ``{"base/sharing": …, "base/answers": …}``.
        out: the file of the page. Tables are written beside it: ``….items.csv`` with one row for
            each item and language, ``….layers.csv`` and, if there are such results,
            ``….accuracy.csv``, ``….effects.csv`` and ``….attribution.csv``.
        figures: a folder, to which the figures are written as PNG and SVG files.

    Returns:
        The path of the page.

    Raises:
        NeuroglotError: there are no results, a report does not show one of them, or a file cannot
            be written.

    Examples:
        >>> import tempfile
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=8)
        >>> sharing = ng.classify(ng.record(model, task))
        >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
        ...     page = ng.report({"base": sharing}, out=f"{folder}/report.html")
        ...     sorted(path.name for path in page.parent.iterdir())
        ['report.html', 'report.items.csv', 'report.layers.csv']
    """
    if not isinstance(results, Mapping) or isinstance(results, xr.Dataset):
        raise NeuroglotError(
            f"results are a {type(results).__name__}; expected a mapping from names to results, "
            "such as {'base': result} or {'base/sharing': sharing, 'base/answers': answers}."
        )
    gathered = sort_results(results)
    specifications = _specifications(gathered)
    page = Path(out)
    html = _template().render(
        sections=sections(gathered),
        notes=sample_notes(gathered),
        facts=run_facts(results),
        # Without "<", no text in the data can end the script element.
        charts={
            name: json.dumps(chart).replace("<", "\\u003c")
            for name, chart in specifications.items()
        },
        provenance=_plain(provenance_rows(results)),
        script=vlc.javascript_bundle(),  # type: ignore[call-arg]  # the stub lacks its default,
    )
    with _writing("the report", page):
        place = real_path(page)
        if place.exists() and not place.is_file():
            raise NeuroglotError(f"{str(page)!r} is no file; name another place for the report.")
        drawn = {} if figures is None else _drawn(specifications)
        frames = {"items": item_table(gathered), **sheets(gathered)}
        tables = {name: as_csv(frame) for name, frame in frames.items()}
        place.parent.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            write_file(place.with_suffix(f".{name}.csv"), table)
        if figures is not None:
            _write_figures(drawn, Path(figures))
        write_file(place, html)  # last, so that all other files are there once the page is
    return page


@contextmanager
def _writing(what: str, place: Path) -> Iterator[None]:
    """Turn an exception while files are written into an error of one line."""
    try:
        yield
    except NeuroglotError:
        raise
    except (OSError, ValueError) as error:  # ValueError is raised for a null character in a path
        raise NeuroglotError(f"cannot write {what} to {str(place)!r}: {error}.") from error


def _specifications(gathered: Gathered) -> dict[str, dict[str, Any]]:
    """All figures as Vega-Lite specifications, by the name of their file."""
    with alt.data_transformers.enable("default", max_rows=None):
        # Altair's limit of rows is meant for notebooks; a page of many runs has more.
        return {name: _plain(chart.to_dict()) for name, chart in charts(gathered).items()}


def save_figures(results: Results, folder: Path) -> None:
    """Write the figures of some results as PNG and SVG, without a page.

    Raises:
        NeuroglotError: there are no results, a report does not show one of them, or the folder
            cannot be written to.
    """
    specifications = _specifications(sort_results(results))
    with _writing("figures", folder):
        _write_figures(_drawn(specifications), folder)


def _drawn(specifications: dict[str, dict[str, Any]]) -> dict[str, bytes | str]:
    """Each chart as PNG and SVG, by the name of its file."""
    drawn: dict[str, bytes | str] = {}
    for name, specification in specifications.items():
        stem = file_name(name)
        drawn[f"{stem}.png"] = vlc.vegalite_to_png(specification, scale=PNG_SCALE)
        drawn[f"{stem}.svg"] = vlc.vegalite_to_svg(specification)
    return drawn


def _write_figures(drawn: dict[str, bytes | str], folder: Path) -> None:
    place = real_path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for name, content in drawn.items():
        write_file(place / name, content)


def file_name(name: str) -> str:
    """A name that is valid in every file system, in which ``_`` stands for other characters.

    If the name is changed, a checksum is added, so that two names stay two files.
    """
    safe = re.sub(r"[^\w ,()+-]", "_", name).encode()[:LONGEST_NAME].decode(errors="ignore").strip()
    checksum = hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:8]
    return safe if safe == name else f"{safe}-{checksum}"


def _plain(value: Any) -> Any:
    """The value with all texts changed by :func:`neuroglot.errors.plain`, as SVG requires."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("neuroglot.reporting", "."), autoescape=True
    )
    environment.filters["plain"] = plain
    return environment.get_template(PAGE)


def is_report(page: Path) -> bool:
    """Whether a file is a page that :func:`report` wrote."""
    return TITLE in _text(page)[: len(_beginning())]


def is_unfinished_report(page: Path) -> bool:
    """Whether a file is the beginning of a page and nothing else; it may be empty."""
    text = _text(page)
    return _beginning().startswith(text) or (is_report(page) and END not in text)


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8", errors="replace")


def _beginning() -> str:
    """The beginning of every page, up to its title."""
    template = (resources.files("neuroglot.reporting") / PAGE).read_text("utf-8")
    return template[: template.index(TITLE) + len(TITLE)]
