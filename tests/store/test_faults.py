"""A kill, and a full disk, at some operations; at all of them in ``docs.make_reliability``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

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
    trials = [json.loads(line) for line in run.stdout.splitlines()]
    tried = Counter((one["command"], one["fault"]) for one in trials)
    # A kill after the last operation counts as one.
    expected = {"kill": OF_EACH + 1, "full": OF_EACH}
    assert tried == {(name, fault): expected[fault] for name in KEPT for fault in FAULTS}
    assert not [one for one in trials if one["failure"]]
