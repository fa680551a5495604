"""A kill, and a full disk, at some operations; at all of them in ``docs.make_reliability``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.faults import COMMANDS, FAULTS
from tests.killing import ROOT

KEPT = [command for command in COMMANDS if command != "run"]  # which takes longest
OF_EACH = 2  # operations of each command, so that there are at most twenty kills


@pytest.mark.slow
@pytest.mark.concurrent
def test_the_same_command_goes_on_to_the_same_bytes() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.faults", *KEPT, "--of", str(OF_EACH), "--seed", "18"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800,
    )  # fmt: skip
    assert not run.returncode, run.stderr
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [(row["command"], row["fault"]) for row in rows] == [
        (command, fault) for command in KEPT for fault in FAULTS
    ]
    assert all(row["tried"] == OF_EACH + (row["fault"] == "kill") for row in rows)
    assert not {(row["command"], row["fault"]): row["failures"] for row in rows if row["failures"]}
