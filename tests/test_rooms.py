"""What is where: hooks, the picture of the rooms, and what is imported before anything runs."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path

import pytest

import neuroglot
from docs import make_rooms

ROOT = Path(neuroglot.__file__).parent
HEAVY = ("torch", "transformers", "xarray", "pandas", "zarr", "numba", "altair", "scipy", "numpy")


def test_hooks_live_in_models_only() -> None:
    for path in ROOT.rglob("*.py"):
        if "register_forward" in path.read_text(encoding="utf-8"):
            assert path == ROOT / "models" / "hooks.py"


def test_the_picture_of_the_rooms_is_as_they_are() -> None:
    page = make_rooms.PAGE.read_text(encoding="utf-8")
    assert make_rooms.drawn() in page, "python -m docs.make_rooms draws it anew"
    named = [path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()]
    rooms = {name for name in named if not name.startswith("__")}
    assert rooms == set(make_rooms.rooms())


@pytest.mark.parametrize(
    "code",
    [
        "import neuroglot",
        "import neuroglot.cli.app",
        "from neuroglot.cli.app import main; main(['--version'])",
        "from neuroglot.cli.app import main; main(['--help'])",
        "from neuroglot.cli.app import main; main(['deactivate', '--help'])",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(code: str) -> None:
    script = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('imported', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.stdout.rstrip().endswith("imported []"), run.stdout + run.stderr


def test_public_names_are_there_and_shadow_no_builtin() -> None:
    assert not set(neuroglot.__all__) & set(dir(builtins))
    for name in neuroglot.__all__:
        assert getattr(neuroglot, name) is not None
    # A room has taken the name of what was ng.tasks.
    for name, instead in neuroglot.REMOVED.items() - {("tasks", "list_tasks")}:
        with pytest.raises(AttributeError, match=f"{name} is gone; use neuroglot.{instead[:4]}"):
            getattr(neuroglot, name)
    with pytest.raises(AttributeError, match="nothing"):
        neuroglot.nothing  # noqa: B018
