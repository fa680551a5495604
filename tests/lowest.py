"""Pins of what pyproject.toml allows at the lowest: ``python tests/lowest.py > lowest.txt``."""

from __future__ import annotations

import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parent.parent


def lowest(root: Path) -> list[str]:
    """A pin for each lower bound, but for torch, which constraints.txt pins."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = {}
    for requirement in chain.from_iterable(groups):
        bound = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)(?:,.*)?", requirement)
        if bound is not None:
            found[bound[1]] = bound[2]
    pins = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found |= dict(line.split("==") for line in pins if "==" in line)
    return [f"{name}=={version}" for name, version in sorted(found.items())]


if __name__ == "__main__":
    sys.stdout.write("\n".join(lowest(ROOT)) + "\n")
