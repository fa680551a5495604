"""One self-contained HTML page with the figures, the headline table and the provenance."""

from __future__ import annotations

import hashlib
import io
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
LONGEST_NAME = 120  # bytes of a file name, which most file systems bound to 255


def charts(found: Gathered) -> Figures:
    """Every figure that the results allow, by file name."""
    return {
        name: chart
        for kind, group, runs in in_page_order(found)
        for name, chart in kind.figures(group, runs).items()
    }


def sections(found: Gathered) -> list[tuple[list[Table], list[str]]]:
    """The headline, then the tables of each kind, with what no section above has explained."""
    headline = headline_table(found)
    parts = [[headline] if headline.rows else []]
    parts += [kind.tables(runs) for kind, _, runs in in_page_order(found)]
    said: dict[str, None] = {}
    made = []
    for tables in parts:
        explained = dict.fromkeys(text for table in tables for text in table.explanations())
        made.append((tables, [text for text in explained if text not in said]))
        said |= explained
    return made


def report(
    results: Results, *, out: str | Path = "report.html", figures: str | Path | None = None
) -> Path:
    """Write one HTML page that opens offline.

    Args:
        results: ``{name: result}``; the name is what figures call the run. Several results of
            one run are told apart after a slash: ``{"base/sharing": …, "base/answers": …}``.
        out: the page; beside it come tables, ``….items.csv`` (one row for each item and
            language), ``….layers.csv`` and, where there are such results, ``….accuracy.csv``,
            ``….effects.csv`` and ``….attribution.csv``.
        figures: folder to write the same figures to, as PNG and SVG.

    Returns:
        The path of the page.

    Raises:
        NeuroglotError: there are no results, one cannot be drawn, or ``out`` cannot be written.
    """
    if not isinstance(results, Mapping) or isinstance(results, xr.Dataset):
        raise NeuroglotError(
            f"results are a {type(results).__name__}; expected them by name, as "
            "{'base': result} or {'base/sharing': one, 'base/answers': another}."
        )
    found = sort_results(results)
    made = _specifications(found)
    page = Path(out)
    html = _template().render(
        sections=sections(found),
        notes=sample_notes(found),
        facts=run_facts(results),
        charts={name: _json(chart) for name, chart in made.items()},
        provenance=_plain(provenance_rows(results)),
        script=vlc.javascript_bundle(),  # type: ignore[call-arg]  # the stub lacks its default,
    )
    with _said_if_not_written("the report", page):
        place = real_path(page)
        if place.exists() and not place.is_file():
            raise NeuroglotError(f"{str(page)!r} is no file; name another place for the report.")
        drawn = {} if figures is None else _drawn(made)
        beside = {"items": item_table(found), **sheets(found)}
        tables = {name: as_csv(table) for name, table in beside.items()}
        place.parent.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            write_file(place.with_suffix(f".{name}.csv"), table)
        if figures is not None:
            _write_figures(drawn, Path(figures))
        write_file(place, html)  # last: where it is, everything is
    return page


@contextmanager
def _said_if_not_written(what: str, place: Path) -> Iterator[None]:
    """Within the block, what cannot be written is an error for users."""
    try:
        yield
    except NeuroglotError:
        raise
    except (OSError, ValueError) as error:  # a null character in a path is a ValueError
        raise NeuroglotError(f"cannot write {what} to {str(place)!r}: {error}.") from error


def _specifications(found: Gathered) -> dict[str, dict[str, Any]]:
    """Every figure as Vega-Lite."""
    with alt.data_transformers.enable("default", max_rows=None):
        # The limit is there for notebooks; a page of many runs and layers has more rows.
        return {name: _plain(chart.to_dict()) for name, chart in charts(found).items()}


def save_figures(results: Results, folder: Path) -> None:
    """Write the figures of some results as PNG and SVG, without a page.

    Raises:
        NeuroglotError: there are no results, one cannot be drawn, or the folder cannot be written.
    """
    made = _specifications(sort_results(results))
    with _said_if_not_written("figures", folder):
        _write_figures(_drawn(made), folder)


def _drawn(made: dict[str, dict[str, Any]]) -> dict[str, bytes | str]:
    """Each chart as PNG and SVG, by the name of its file."""
    drawn: dict[str, bytes | str] = {}
    for name, specification in made.items():
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
    """A name that is a file in every file system, and never a path: other signs become ``_``.

    What is changed gets a checksum at its end, so that two names stay two files.
    """
    safe = re.sub(r"[^\w ,()+-]", "_", name).encode()[:LONGEST_NAME].decode(errors="ignore").strip()
    return safe if safe == name else f"{safe}-{_checksum(name)}"


def _checksum(name: str) -> str:
    return hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:8]


def _plain(value: Any) -> Any:
    """The same with every text as :func:`neuroglot.errors.plain` shows it: SVG bears no others."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _json(specification: dict[str, Any]) -> str:
    """JSON that may stand inside a script element, whatever the data say."""
    text = io.StringIO()
    json.dump(specification, text)
    return text.getvalue().replace("<", "\\u003c")


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
    """How every page begins, title included."""
    template = (resources.files("neuroglot.reporting") / PAGE).read_text("utf-8")
    return template[: template.index(TITLE) + len(TITLE)]
