"""A recording or an evaluation in a process of its own, to be killed: ``python -m tests.killing``.

Blocks are small and their making is slow, so that there are many moments to be killed at.
"""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import xarray as xr

import neuroglot as ng
from neuroglot.experiments import evaluation
from neuroglot.recording import recorder
from tests.testing import small_task, tiny_model

N_ITEMS, BLOCK, PAUSE = 24, 2, 0.02
ROOT = Path(__file__).parent.parent
READY = "ready"


def make(what: str, out: str | Path | None, pause: float = 0.0) -> xr.Dataset:
    """The result, with a pause before each block."""
    recorder.BLOCK = evaluation.ITEMS_AT_ONCE = BLOCK
    model, task = tiny_model("llama"), small_task(N_ITEMS)
    for module, name in ((recorder, "record_block"), (evaluation, "_answers")):
        real = getattr(module, name)
        setattr(module, name, lambda *args, real=real: (time.sleep(pause), real(*args))[1])
    if what == "record":
        return ng.record(model, task, out, keep_values=True).dataset
    return ng.evaluate(model, task, out=out)


def checksum(result: xr.Dataset) -> str:
    """Of all values, bit for bit."""
    digest = hashlib.sha256()
    for name in sorted(map(str, result.variables)):
        values = result[name].to_numpy()
        data = values.astype(str).tobytes() if values.dtype.kind in "OTU" else values.tobytes()
        digest.update(f"{name} {result[name].dims} {np.shape(values)}".encode() + data)
    return digest.hexdigest()


def start(what: str, out: Path, pause: float = PAUSE) -> subprocess.Popen[str]:
    """A process that makes the result; it says when it begins."""
    command = [sys.executable, "-m", "tests.killing", what, str(out), str(pause)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while (line := process.stdout.readline().strip()) != READY:
        if not line and process.poll() is not None:
            raise RuntimeError(process.stderr.read() if process.stderr else "")
    return process


def kill_at_random(what: str, out: Path, n_kills: int, seed: int = 0) -> tuple[int, list[int]]:
    """Kill a run at random moments of its way, each time going on from the last.

    Returns:
        The number of kills that hit a running process, and how many items were done after each.
    """
    rng, hits, done = random.Random(seed), 0, []
    longest = N_ITEMS / BLOCK * PAUSE
    for _ in range(n_kills):
        process = start(what, out)
        time.sleep(rng.uniform(0, 1.5 * longest / max(1, n_kills // 6)))
        hits += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done.append(n_done(out))
    return hits, done


def n_done(out: Path) -> int:
    """Items that are marked as written."""
    try:
        found = xr.open_zarr(out, chunks=None, consolidated=False)
    except (OSError, ValueError):
        return 0
    return int(found["done"].sum()) if "done" in found else N_ITEMS


if __name__ == "__main__":
    _, task_kind, folder, seconds = sys.argv
    sys.stdout.write(READY + "\n")
    sys.stdout.flush()
    make(task_kind, folder, float(seconds))
