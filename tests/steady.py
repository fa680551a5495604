"""Tests of kills, signals, threads and several processes, again and again on a busy machine.

``python -m tests.steady`` runs all that are marked ``concurrent`` ten times beside four processes
that do nothing but take time, and ends with 1 once they fail. Other arguments are for pytest.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.killing import ROOT

PATIENCE = 7200  # seconds for one round
# Ends with the process that started it, however that ends.
BUSY = "import os\nstarted_by = os.getppid()\nwhile os.getppid() == started_by: pass"


@contextmanager
def busy(n_processes: int) -> Iterator[None]:
    """Within the block, so many other processes want all the time that there is."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n_processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait(timeout=60)


def main() -> None:
    """Run the tests; what pytest says of each round is printed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--busy", type=int, default=4)
    given, rest = parser.parse_known_args()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "concurrent", *rest]
    failed = 0
    for number in range(given.times):
        with busy(given.busy):
            code = subprocess.run(command, cwd=ROOT, check=False, timeout=PATIENCE).returncode
        failed += code != 0
        sys.stdout.write(f"round {number + 1} of {given.times}: {'failed' if code else 'passed'}\n")
        sys.stdout.flush()
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
