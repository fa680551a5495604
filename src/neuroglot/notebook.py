"""How notebooks show models, tasks, recordings and sets."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


def as_html(title: str, facts: Mapping[str, object]) -> str:
    """A small table in HTML, with a row for each fact that is not empty.

    Args:
        title: the text above the table.
        facts: the facts by name; underscores in names are shown as spaces.
    """
    rows = [
        f"<tr><th style='text-align: left'>{escape(name.replace('_', ' '))}</th>"
        f"<td style='text-align: left'>{escape(str(value))}</td></tr>"
        for name, value in facts.items()
        if value not in (None, "")
    ]
    return f"<table><caption>{escape(title)}</caption>{''.join(rows)}</table>"
