"""Memory while recording, and opening of a large recording, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

import neuroglot as ng
from bench.measure import Row
from bench.models import bloom, prompts_of
from bench.sharing import random_recording
from neuroglot.interventions.conditions import Condition
from neuroglot.neurons.members import Prompts
from neuroglot.store.growing import in_folder

SECONDS_BETWEEN = 0.02
LONGEST = 600  # seconds for a process
BLOCKS_WITH_CONTROLS = 10  # drawing takes seconds, and no block remembers another


def _peak_of_recording(n_items: int) -> float:
    """MB above the loaded model and its task, at the worst moment."""
    model, task = bloom(256, 6, 4), prompts_of(n_items, (16, 60))
    with tempfile.TemporaryDirectory() as folder:
        ng.record(model, prompts_of(8, (16, 60)), out=Path(folder) / "warm")
        process, peak, done = psutil.Process(), 0, threading.Event()
        before = process.memory_info().rss

        def watch() -> None:
            nonlocal peak
            while not done.wait(SECONDS_BETWEEN):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        ng.record(model, task, out=Path(folder) / "recording")
        done.set()
        watcher.join()
    return (peak - before) / 1e6


def _seconds_to_open(n_items: int) -> tuple[float, float]:
    """Seconds to open a recording, and MB that the process reads for it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        _write(path, n_items)
        process = psutil.Process()
        read, start = process.io_counters().read_chars, time.perf_counter()
        found = ng.load(path)
        seconds = time.perf_counter() - start
        assert isinstance(found, ng.Recording)
        return seconds, (process.io_counters().read_chars - read) / 1e6


def _write(path: Path, n_items: int) -> None:
    """A recording of so many items, block by block, as :func:`neuroglot.record` writes it."""
    block = random_recording(50).dataset
    head = block.drop_vars("active").drop_vars("item")
    head = head.assign_coords(item=np.arange(n_items).astype(str)).assign_attrs(kind="recording")
    with in_folder(path, head, 50, ("item",), overwrite=True) as folder:
        for rows in folder.missing_blocks():
            folder.write(rows, block[["active"]])
        folder.finish(block[[]])


def _peak_of_sets(n_items: int) -> float:
    """MB above an opened recording of a 7B shape, at the worst moment, with sets of each prompt.

    Every block of prompts is gone through as in an experiment with controls: the sets, the same
    sets by contribution, and five random ones beside each.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        _write(path, n_items)
        recording = ng.load(path)
        assert isinstance(recording, ng.Recording)
        shared = ng.NeuronSet.from_category(recording, "all_shared")
        sets = (shared, shared - ng.NeuronSet.specific_here(recording), ~shared)
        edits = (ng.Zero(shared.strongest(0.1)),)
        condition = Condition("strongest", edits, ng.Controls(["size"], draws=5))
        rng = np.random.default_rng(0)
        recording.bits(items=slice(1))
        process = psutil.Process()
        before = peak = process.memory_info().rss
        for item in recording.items:
            keys = [(item, language) for language in recording.languages]
            for one in sets:
                one.sizes_of(keys)
            if int(item) < BLOCKS_WITH_CONTROLS:
                shape = (len(keys), len(recording.layers), recording.n_neurons)
                values = rng.random(shape, dtype=np.float32)
                condition.drawn(Prompts(keys, values), None)
            peak = max(peak, process.memory_info().rss)
    return (peak - before) / 1e6


def _elsewhere(what: str, n_items: int) -> list[float]:
    """What a process of its own prints."""
    command = [sys.executable, "-m", "bench.memory", what, str(n_items)]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=LONGEST)
    found: list[float] = json.loads(run.stdout.splitlines()[-1])
    return found


def rows(n_items: int = 1000, n_stored: int = 5000) -> list[Row]:
    """Lines of the table."""
    (few,), (many,) = (_elsewhere("record", n) for n in (n_items // 4, n_items))
    seconds, megabytes = _elsewhere("open", n_stored)
    (sets,) = _elsewhere("sets", n_items)
    return [
        Row(f"memory, {10 * n_items:,} prompts", many, 300, many / 300, "< 300 MB", many < 300,
            f"MB above the model and the task; a quarter of the prompts: {few:.0f} MB"),
        Row(f"opening {n_stored * 0.6144:,.0f} MB", seconds, 1, seconds, "< 1 s", seconds < 1,
            f"seconds; {megabytes:.1f} MB read"),
        Row(f"sets of {10 * n_items:,} prompts, 7B shape", sets, 614, sets / 614, "< 614 MB",
            sets < 614, "MB above the opened recording; all sets, packed, are 614 MB"),
    ]  # fmt: skip


if __name__ == "__main__":
    _, kind, size = sys.argv
    if kind == "open":
        result = list(_seconds_to_open(int(size)))
    else:
        result = [(_peak_of_recording if kind == "record" else _peak_of_sets)(int(size))]
    sys.stdout.write(json.dumps(result) + "\n")
