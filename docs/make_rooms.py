"""Draw the rooms of the package into CONTRIBUTING.md: ``python -m docs.make_rooms``.

The order is that of the contract in pyproject.toml, what each room does is its docstring, and what
imports what is found by grimp. Arrows that follow from others are left out.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
PACKAGE = ROOT / "src" / "neuroglot"
BEGIN, END = "<!-- rooms: python -m docs.make_rooms -->", "<!-- end of rooms -->"


def rooms() -> list[str]:
    """Folders and files of the package; no room imports from one after it."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    layers = linter["importlinter"]["contracts"][0]["layers"]
    return [name.strip() for layer in reversed(layers) for name in layer.split("|")]


def imports() -> dict[str, set[str]]:
    """The rooms that each room imports from."""
    graph = grimp.build_graph("neuroglot", cache_dir=None)
    found: dict[str, set[str]] = {room: set() for room in rooms()}
    for module in graph.modules - {"neuroglot"}:
        room = module.split(".")[1]
        others = graph.find_modules_directly_imported_by(module) - {"neuroglot"}
        found[room] |= {other.split(".")[1] for other in others} - {room}
    return found


def direct(edges: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Imports that do not follow from a chain of others."""

    def below(room: str) -> set[str]:
        return edges[room] | {far for other in edges[room] for far in below(other)}

    for room in rooms():
        for other in sorted(edges[room]):
            if not any(other in below(between) for between in edges[room] - {other}):
                yield room, other


def does(room: str) -> str:
    """The first sentence of what a room says of itself."""
    folder, file = PACKAGE / room / "__init__.py", PACKAGE / f"{room}.py"
    path = folder if folder.exists() else file
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return said.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")


def drawn() -> str:
    """Table and picture, in Markdown."""
    named = {room: f"{room}/" if (PACKAGE / room).is_dir() else f"{room}.py" for room in rooms()}
    table = [f"| `{named[room]}` | {does(room)} |" for room in rooms()]
    arrows = [f"  {room} --> {other}" for room, other in direct(imports())]
    return "\n".join(
        [
            "| room of `src/neuroglot` | what it does |",
            "|---|---|",
            *table,
            "",
            "```mermaid",
            "flowchart BT",
            *arrows,
            "```",
        ]
    )


def main() -> None:
    """Write it between its marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{drawn()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
