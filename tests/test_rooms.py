"""Data move from the top to the bottom: no room imports from one below it."""

from __future__ import annotations

import ast
from pathlib import Path

import neuroglot

ROOT = Path(neuroglot.__file__).parent
ROOMS = ("errors", "outputs", "models", "tasks", "provenance", "recording", "analysis", "neurons")
ROOMS += ("experiments", "attribution", "interventions", "alignment", "pipeline", "report", "cli")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("neuroglot."):
            found.add(str(node.module).split(".")[1])
    return found


def test_no_room_imports_from_one_below() -> None:
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts == ("__init__",):
            continue
        room = ROOMS.index(parts[0])
        for other in imports(path):
            assert ROOMS.index(other) <= room, f"{path} imports from {other}"


def test_hooks_live_in_models_only() -> None:
    for path in ROOT.rglob("*.py"):
        if "register_forward" in path.read_text(encoding="utf-8"):
            assert path == ROOT / "models" / "hooks.py"
