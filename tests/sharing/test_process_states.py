"""Classifying in states of the process in which Numba's own threads abort or hang.

Each state is that of a process of its own, which is forked from a server that has imported
everything and computed nothing. What is expected is what this process computes.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import xarray as xr
from numba.core import caching
from numba.core.compiler_lock import global_compiler_lock

import neuroglot as ng
from neuroglot.neurons.sampling import sample
from neuroglot.sharing import kernels
from neuroglot.sharing.compiling import Compiled, in_threads

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

LONGEST = 60  # seconds, after which a process counts as hanging
Values = dict[str, np.ndarray]


def recording() -> ng.Recording:
    rng = np.random.default_rng(16)
    shape = (1, 150, 4, 5, 25)  # more items than are counted at once
    return ng.Recording(
        xr.Dataset(
            {
                "active": (
                    ("threshold", "item", "language", "layer", "byte"),
                    rng.integers(0, 256, shape, np.uint8),
                )
            },
            coords={
                "threshold": [0.0],
                "item": [str(i) for i in range(150)],
                "language": list("abcd"),
                "layer": list(range(5)),
            },
            attrs={"model": "random", "task": "random", "template": "", "n_neurons": 200},
        )
    )


def classified() -> Values:
    """What is found of the recording, and a random draw."""
    sharing = ng.classify(recording())
    mask = np.arange(600).reshape(3, 200) % 5 == 0
    drawn = sample(mask, ~mask, np.random.default_rng(1))
    return {str(name): v.to_numpy() for name, v in sharing.data_vars.items()} | {"drawn": drawn}


def in_fork(work: Callable[[], Values]) -> list[Values]:
    """What ``work`` finds in a process forked from this one."""
    reading, writing = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if not child:
        signal.alarm(LONGEST // 2)
        try:
            writing.send(work())
        finally:
            os._exit(0)
    writing.close()
    found = received(reading)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the forked process ended with {status}"
    return [found]


def received(reading: Any) -> Any:
    """What the other end sends, or ``None`` if it ends without."""
    try:
        return reading.recv()
    except EOFError:
        return None


def alone() -> list[Values]:
    return [classified()]


def forked_after() -> list[Values]:
    return [classified(), *in_fork(classified)]


def four_threads(times: int = 10) -> list[Values]:
    found: list[Values] = []
    together = threading.Barrier(4)

    def run() -> None:
        together.wait()
        found.extend(classified() for _ in range(times))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 * times, "a thread failed"
    return found


def forked_while_busy() -> list[Values]:
    """Forks while two threads classify, with all that they need loaded.

    Loading takes locks of Python and LLVM, which a fork in that moment would leave held.
    """
    classified()
    stop, begun = threading.Event(), threading.Barrier(3)

    def run() -> None:
        begun.wait()
        while not stop.is_set():
            classified()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    begun.wait()
    try:
        return list(chain.from_iterable(in_fork(classified) for _ in range(3)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def forked_while_compiling() -> list[Values]:
    """A fork while another thread holds Numba's lock; its process compiles something itself."""
    held = threading.Event()

    def hold() -> None:
        with global_compiler_lock:
            held.set()
            threading.Event().wait(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    found = in_fork(lambda: {"sum": np.array(numba.njit(lambda x: x + 1)(1))} | classified())
    assert found[0].pop("sum") == 2
    thread.join()
    return found


def no_folder() -> list[Values]:
    """Machine code can be kept nowhere."""
    caching.CacheImpl._locator_classes = []
    importlib.reload(kernels)
    return [category_sizes()]


def category_sizes() -> Values:
    words = kernels.as_words(recording().bits())
    return {"sizes": kernels.category_sizes(words)}


def damaged_folder(folder: Path) -> list[Values]:
    """Machine code was kept in files that now are empty."""
    importlib.reload(kernels)
    found = [category_sizes()]
    kept = list(folder.rglob("*.nb?"))
    assert len(kept) == 2
    for path in kept:
        path.write_bytes(b"")
    importlib.reload(kernels)
    return [*found, category_sizes()]


def two_types(folder: Path) -> list[Values]:
    """The same numbers whatever the arrays, and one kind of machine code that is kept."""
    importlib.reload(kernels)
    words = kernels.as_words(recording().bits())
    read_only, other_order = words.copy(), np.asfortranarray(words)
    read_only.flags.writeable = False
    found = []
    for these in (words, read_only, other_order):
        for dtype in (np.int32, np.int64):
            counts = np.zeros((4, 5, 256), dtype)
            kernels.add_active(these, counts)
            found.append({"counts": counts})
    assert len(list(folder.rglob("*_add_active*.nbc"))) == 1
    return found


def _begin(
    work: Callable[[], list[Values]], settings: dict[str, str], answer: Any, warned: bool
) -> None:
    signal.alarm(LONGEST)
    os.environ.update(settings)
    numba.config.reload_config()
    kernels.BYTES_OF_A_THREAD = 1  # threads even for so little
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        answer.send(work())
    assert any("NUMBA_CACHE_DIR" in str(warning.message) for warning in found) == warned


def found_by(
    work: Callable[[], list[Values]], *, warned: bool = False, **settings: str
) -> list[Values]:
    """What ``work`` finds in a process of its own with these settings of Numba."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    reading, writing = server.Pipe(duplex=False)
    chosen = {"NUMBA_NUM_THREADS": "2"} | settings
    process = server.Process(target=_begin, args=(work, chosen, writing, warned))
    process.start()
    writing.close()
    found = received(reading)
    process.join()
    assert process.exitcode == 0, f"the process ended with {process.exitcode}"
    return found


def assert_all_are(found: list[Values], expected: Values) -> None:
    assert found
    for values in found:
        assert values.keys() == expected.keys()
        for name, value in values.items():
            np.testing.assert_array_equal(value, expected[name], name)


@pytest.mark.parametrize("layer", ["default", "workqueue", "omp", "tbb"])
@pytest.mark.parametrize("state", [alone, forked_after, four_threads])
@pytest.mark.concurrent
def test_same_values_with_every_threading_layer(
    state: Callable[[], list[Values]], layer: str
) -> None:
    assert_all_are(found_by(state, NUMBA_THREADING_LAYER=layer), classified())


@pytest.mark.parametrize("state", [forked_while_busy, forked_while_compiling])
@pytest.mark.concurrent
def test_same_values_if_forked_while_threads_run(state: Callable[[], list[Values]]) -> None:
    assert_all_are(found_by(state), classified())


@pytest.mark.parametrize("n_threads", ["1", "3"])
@pytest.mark.concurrent
def test_same_values_with_any_number_of_threads(n_threads: str) -> None:
    assert_all_are(found_by(alone, NUMBA_NUM_THREADS=n_threads), classified())


def test_nowhere_to_keep_machine_code() -> None:
    assert_all_are(found_by(no_folder, warned=True), category_sizes())


def test_kept_machine_code_is_damaged(tmp_path: Path) -> None:
    found = found_by(partial(damaged_folder, tmp_path), warned=True, NUMBA_CACHE_DIR=str(tmp_path))
    assert_all_are(found, category_sizes())


def test_kept_machine_code_is_of_one_signature(tmp_path: Path) -> None:
    """Two processes that compiled for different types at once could be handed each other's."""
    found = found_by(partial(two_types, tmp_path), NUMBA_CACHE_DIR=str(tmp_path))
    active = np.unpackbits(recording().bits(), axis=-1).sum(axis=0)
    expected = np.pad(active, [(0, 0), (0, 0), (0, 56)])
    assert_all_are(found, {"counts": expected})


@pytest.mark.concurrent
def test_four_threads_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = classified()
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 3)
    monkeypatch.setattr(kernels, "BYTES_OF_A_THREAD", 1)
    assert_all_are(four_threads(times=25), expected)


class Noted(Compiled):
    """Notes its ranges instead of counting."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.fails_at = fails_at

    def code(self) -> Callable[..., Any]:
        return self.note

    def note(self, first: int, last: int) -> None:
        self.ranges.append((first, last))
        if self.fails_at in range(first, last):
            raise MemoryError("too large")


@pytest.mark.parametrize("size", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("n_threads", [0, 1, 2, 3, 8])
def test_pieces_are_the_whole(size: int, n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 5)
    work = Noted()
    in_threads(work, size, n_threads)
    assert len(work.ranges) == max(1, min(size, n_threads, 5))
    assert sorted(chain.from_iterable(range(*piece) for piece in work.ranges)) == list(range(size))


@pytest.mark.parametrize("fails_at", [0, 9])
@pytest.mark.concurrent
def test_an_error_of_any_thread_is_raised(fails_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 2)
    with pytest.raises(MemoryError, match="too large"):
        in_threads(Noted(fails_at), 10, 2)
