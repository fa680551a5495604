"""The suite itself: its outcome depends on no clock, and it waits for no process for ever."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tests.lowest import lowest

ROOT = Path(__file__).parent
CLOCKS = {"perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "time_ns"}
RUNS = {"run", "call", "check_call", "check_output", "communicate"}


def calls(folder: Path = ROOT) -> Iterator[tuple[Path, ast.Call, str]]:
    """Every call in the tests: file, call and name of what is called, as it is written."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path, node, ast.unparse(node.func)


def place(path: Path, call: ast.Call) -> str:
    return f"{path.relative_to(ROOT.parent)}:{call.lineno}"


def test_no_test_reads_a_clock() -> None:
    names = {(place(p, c), name) for p, c, name in calls()}
    found = [at for at, name in names if name.split(".")[-1] in CLOCKS or name == "time.time"]
    assert not found


def test_no_property_has_a_deadline() -> None:
    """By default there is none, and nobody sets one."""
    found = [
        place(path, call)
        for path, call, _ in calls()
        for keyword in call.keywords
        if keyword.arg == "deadline" and ast.unparse(keyword.value) != "None"
    ]
    assert not found


def test_pins_of_the_lowest_versions(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("# Why.\ntorch==2.9\n")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["numpy>=2.0", "babel>=2.18,<2.19", "torch>=2.5"]\n'
        'optional-dependencies = {x = ["fsspec[http]>=1.2.3", "unbound"]}\n'
    )
    assert lowest(tmp_path) == ["babel==2.18", "fsspec==1.2.3", "numpy==2.0", "torch==2.9"]
    assert any(pin.startswith("transformers==") for pin in lowest(ROOT.parent))


def test_no_process_is_waited_for_without_a_limit() -> None:
    """Those of ``tests.killing`` end by themselves, too."""
    found, n_runs = [], 0
    for path, call, name in chain(calls(), calls(ROOT.parent / "bench")):
        where, _, what = name.rpartition(".")
        if what in RUNS and (where == "subprocess" or what == "communicate"):
            n_runs += 1
            named = {keyword.arg for keyword in call.keywords}
            if "timeout" not in named:
                found.append(place(path, call))
    assert not found
    assert n_runs
