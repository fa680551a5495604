"""A recording or an evaluation in a process of its own, to be killed: ``python -m tests.killing``.

Blocks are small and their making is slow, so that there are many moments to be killed at.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import neuroglot as ng
from neuroglot.alignment import trainer
from neuroglot.answering import evaluation
from neuroglot.interventions.presets import Parts, deactivate
from neuroglot.recording import recorder
from tests.testing import small_task, tiny_model

# The package has the function under the module's name.
intervening: Any = importlib.import_module("neuroglot.interventions.intervene")
BLOCK, PAUSE = 2, 0.04
N_ITEMS = 24
STEPS = 20  # of an alignment
NOBODY = 65534
ROOT = Path(__file__).parent.parent
READY, WAITING = "ready", "waiting"
LONGEST = 300  # seconds after which a process is ended that hangs


def wait_at_block(number: int) -> None:
    """From now on, the making of block ``number`` is announced and begins once a line comes in."""
    blocks = itertools.count()

    def waiting(real: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any) -> Any:
            if next(blocks) == number:
                say(WAITING)
                sys.stdin.readline()
            return real(*args)

        return made

    for module, name in ((recorder, "record_block"), (evaluation, "_answers")):
        setattr(module, name, waiting(getattr(module, name)))


def say(line: str) -> None:
    """A line for the process that started this one."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def end_if_it_hangs() -> None:
    """Whoever waits for this process does not wait for ever."""
    signal.alarm(LONGEST)


def prepared(n_items: int = N_ITEMS, pause: float = 0.0) -> tuple[ng.Model, ng.ParallelTask]:
    """Model and task; from now on blocks are small, and a pause comes before each."""
    torch.set_num_threads(1)
    recorder.BLOCK = evaluation.ITEMS_AT_ONCE = intervening.ITEMS_AT_ONCE = BLOCK
    slowed = [(recorder, "record_block"), (evaluation, "_answers")]
    slowed += [(intervening, "answers_under"), (trainer, "collate")]
    for module, name in slowed:
        real = getattr(module, name)
        setattr(module, name, lambda *args, real=real: (time.sleep(pause), real(*args))[1])
    return tiny_model("llama"), small_task(n_items)


def make(what: str, out: Path, model: ng.Model, task: ng.ParallelTask) -> None:
    """Record, evaluate, deactivate or align."""
    if what == "record":
        ng.record(model, task, out=out, reading=ng.Reading(keep_values=True))
    elif what == "deactivate":
        recording = ng.record(model, task, out=out / "recording")
        parts, controls = Parts((0.5,), rank_by="effective"), ng.Controls(draws=2)
        deactivate(
            model, task, recording, categories=["all_shared"], parts=parts, controls=controls,
            out=out,
        )  # fmt: skip
    elif what == "align":
        training = ng.Training(steps=STEPS, pairs=4, learning_rate=1e-2, checks=2)
        ng.align(model, task, method="sharing", out=out, training=training)
    else:
        ng.evaluate(model, task, out=out)


def make_as_nobody(elsewhere: Path, out: Path) -> None:
    """Record as a user who may write only where all may; root becomes one.

    A first recording elsewhere imports everything while that user may still read all modules.
    """
    model, task = prepared()
    make("record", elsewhere / "first", model, task)
    if os.geteuid() == 0:
        os.setuid(NOBODY)
    make("record", out, model, task)


def opened(out: Path) -> xr.Dataset:
    """The result."""
    found = ng.load(out)
    assert not isinstance(found, xr.DataArray)
    return found.dataset if isinstance(found, ng.Recording) else found


def checksum(result: xr.Dataset) -> str:
    """Of all values, bit for bit."""
    digest = hashlib.sha256()
    for name in sorted(map(str, result.variables)):
        values = result[name].to_numpy()
        data = values.astype(str).tobytes() if values.dtype.kind in "OTU" else values.tobytes()
        digest.update(f"{name} {result[name].dims} {np.shape(values)}".encode() + data)
    return digest.hexdigest()


def files_of(folder: Path) -> dict[str, str]:
    """Checksums of all files in a folder, by path; locks hold nothing, and stay."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"
        )
        for path in sorted(folder.rglob("*"))
        if not path.name.endswith(".lock")
    }


def start(
    what: str, out: Path, pause: float = PAUSE, n_items: int = N_ITEMS, waits_at: int = -1
) -> subprocess.Popen[str]:
    """A process that makes the result; it has said that it is ready, or waits at a block."""
    arguments = [what, str(out), str(pause), str(n_items), str(waits_at)]
    return started(["-m", "tests.killing", *arguments], READY if waits_at < 0 else WAITING)


def started(arguments: list[str], until: str) -> subprocess.Popen[str]:
    """A process of Python that has said this line."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    while (line := process.stdout.readline()).strip() != until:
        if not line:
            raise RuntimeError(process.communicate(timeout=LONGEST)[1])
    return process


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process that waits says from now on, when Ctrl-C is pressed and it goes on."""
    process.send_signal(signal.SIGINT)
    return process.communicate("\n", timeout=LONGEST)


def _made(what: str, out: Path, pause: float, n_items: int, begins: Connection) -> None:
    end_if_it_hangs()
    model, task = prepared(n_items, pause)
    begins.send(READY)
    make(what, out, model, task)


def _forked(what: str, out: Path, pause: float, n_items: int) -> Any:
    """A process that makes the result, and has begun; forked, as importing everything takes long.

    The process that it is forked from has imported and done nothing else.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.killing"])
    told, begins = server.Pipe(duplex=False)
    process = server.Process(target=_made, args=(what, out, pause, n_items, begins))
    process.start()
    begins.close()
    try:
        told.recv()
    except EOFError as error:
        raise RuntimeError("it ended before it began; standard error says why") from error
    return process


def finish(what: str, out: Path, n_items: int = N_ITEMS) -> None:
    """Let a process make the result, or go on with it, undisturbed."""
    process = _forked(what, out, 0.0, n_items)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"it ended with {process.exitcode}; standard error says why")


def kill_at_random(
    what: str,
    out: Path,
    n_kills: int,
    n_items: int = N_ITEMS,
    seed: int = 0,
    *,
    watched: tuple[str, int] | None = None,
    progress: Callable[[Path], int] | None = None,
) -> list[int]:
    """Kill a run at random moments of its way, each time going on from the last.

    Args:
        what: is made.
        out: where.
        n_kills: how often.
        n_items: of the task.
        seed: of the moments.
        watched: folder of ``out`` by whose items the moments are spread, and how many it has.
        progress: how many of these are done in a folder; by default the items that are written.

    Returns:
        What was done after each kill that hit a running process.
    """
    rng, done = random.Random(seed), []
    part, n_parts = watched or (".", n_items)
    count = progress or n_done
    for number in range(n_kills):
        process = _forked(what, out, PAUSE, n_items)
        # Spread over the whole run, and within it at any moment of a block's making.
        while count(out / part) < number * n_parts // n_kills and process.is_alive():
            time.sleep(PAUSE / 10)
        time.sleep(rng.uniform(0, 3 * PAUSE))
        if process.is_alive():
            process.kill()
            process.join()
            done.append(count(out / part))
        process.join()
    return done


def n_steps(checkpoints: Path) -> int:
    """Steps of an alignment after which its last checkpoint was begun; all once it is gone."""
    found = [int(path.name.split("-")[1]) for path in checkpoints.glob("checkpoint-*")]
    is_done = (checkpoints.parent.parent / "alignment").is_dir()
    return STEPS if is_done else max(found, default=0)


def n_done(out: Path) -> int:
    """Items that are marked as written."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files that are just being written
            found = xr.open_zarr(out, chunks=None, consolidated=False)
    except (OSError, ValueError):
        return 0
    return int(found["done"].sum()) if "done" in found else found.sizes["item"]


if __name__ == "__main__":
    end_if_it_hangs()
    _, wanted, folder, seconds, items, block = sys.argv
    ready = prepared(int(items), float(seconds))
    wait_at_block(int(block))
    say(READY)
    make(wanted, Path(folder), *ready)
