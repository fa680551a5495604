"""A kill, or a full disk, at any operation of a command on the file system.

Every operation on a folder is counted in a process of its own: opening a file to write, each write,
renaming, linking, removing, and making and removing folders, of neuroglot, Zarr, pandas, the
Trainer and whoever else. Before one of them the process kills itself (``SIGKILL``; half of the
bytes of a write are written first), or this one and all that follow fail for want of room. Then
the same command runs undisturbed, and must leave the same files with the same bytes as a run that
nothing ever happened to. So must a command that was killed after its last operation.

``python -m tests.faults COMMAND… --of NUMBER`` tries some operations of each, by a seed, or all.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import errno
import gc
import importlib
import io
import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

os.environ["TQDM_DISABLE"] = os.environ["HF_HUB_OFFLINE"] = os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["NEUROGLOT_CACHE"] = ""

import altair as alt
import safetensors
import safetensors.torch
import torch
import vl_convert as vlc

import neuroglot as ng
import neuroglot.alignment.trainer
from neuroglot.answering import evaluation
from neuroglot.attribution import by_category
from neuroglot.cli import options
from neuroglot.cli.app import main as command_line
from neuroglot.interventions.presets import deactivate
from neuroglot.recording import recorder
from neuroglot.reporting import page
from neuroglot.store import accumulating
from tests.killing import files_of, intervening
from tests.testing import small_task, tiny_model

FAULTS = ("kill", "full")
COMMANDS = (
    *("record", "evaluate by choosing", "evaluate by writing", "evaluate to a table"),
    *("attribute", "deactivate", "align", "run", "report", "grow"),
)
REFUSED, BROKEN = 2, 3  # how a child ends: with a line to the user, or with a traceback
PATIENCE = 900  # seconds for one run of a command, on a machine that may be busy
N_ITEMS, ITEMS_AT_ONCE = 4, 2
OUT = "out"


@dataclass
class Faulty:
    """Counts operations on a folder, and lets one of them go wrong.

    Attributes:
        folder: what lies elsewhere is not counted.
        at: the number of the operation that goes wrong, from 0; by default none does.
        fault: one of ``FAULTS``.
        seen: kinds and paths of the operations so far.
    """

    folder: Path
    at: int | None = None
    fault: str = "kill"
    seen: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)

    def install(self) -> None:
        """Watch this process until it ends."""
        sys.addaudithook(self._audit)
        opened = io.open

        def watched_open(file: Any, mode: str = "r", *rest: Any, **how: Any) -> Any:
            if set(mode) & set("wax+") and self._place(file) is not None:
                return _opened(self, file, mode, *rest, **how)
            return opened(file, mode, *rest, **how)

        io.open = builtins.open = watched_open  # type: ignore[assignment]
        # These write files past Python.
        torch.save = _through_python(torch.save)
        safetensors.torch.serialize_file = _serialized

    def operation(self, kind: str, path: Any, before: Callable[[], object] | None = None) -> None:
        """Count an operation that is about to happen.

        Args:
            kind: what it does.
            path: to what.
            before: half of the operation.

        Raises:
            OSError: there is no room.
        """
        place = self._place(path)
        if place is None:
            return
        with self.lock:
            number = len(self.seen)
            self.seen.append(f"{kind} {place}")
            if self.at is None or number < self.at:
                return
            if number == self.at and before is not None:
                before()
            if self.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))

    def _place(self, path: Any) -> str | None:
        """Where a path is in the folder, if it is."""
        whole = Path(
            os.fsdecode(_of_descriptor(path) if isinstance(path, int) else path)
        ).absolute()
        return str(whole.relative_to(self.folder)) if whole.is_relative_to(self.folder) else None

    def _audit(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = given
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not isinstance(path, int):
                self.operation("open", path)
        elif event in ("os.mkdir", "os.rmdir", "os.remove", "os.truncate"):
            where = given[-1] if event != "os.truncate" else -1
            self.operation(event.removeprefix("os."), _at(given[0], where))
        elif event in ("os.rename", "os.link", "os.symlink"):
            self.operation(event.removeprefix("os."), given[1])


def _at(path: Any, folder: int) -> Path:
    """A path that may be relative to an open folder."""
    found = Path(os.fsdecode(path))
    return found if folder < 0 else _of_descriptor(folder) / found


def _of_descriptor(number: int) -> Path:
    return Path(f"/proc/self/fd/{number}").readlink()


class _Raw(io.FileIO):
    """A file each of whose writes is counted."""

    faulty: Faulty

    def write(self, data: Any) -> int:
        half = bytes(data)[: len(memoryview(data).cast("B")) // 2]
        real = super().write
        self.faulty.operation("write", str(self.name), lambda: real(half))
        return real(data)


def _opened(
    faulty: Faulty, file: Any, mode: str, buffering: int = -1, *texts: Any, **how: Any
) -> Any:
    """As :func:`open`, with writes counted."""
    known = {key: how.pop(key) for key in ("closefd", "opener") if key in how}
    raw = _Raw(file, mode.replace("b", "").replace("t", ""), **known)
    raw.faulty = faulty
    if buffering == 0:
        return raw
    buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    return buffered if "b" in mode else io.TextIOWrapper(buffered, *texts, **how)


def _through_python(save: Callable[..., None]) -> Callable[..., None]:
    def saved(found: Any, file: Any, *rest: Any, **how: Any) -> None:
        if not isinstance(file, str | os.PathLike):
            save(found, file, *rest, **how)
            return
        content = io.BytesIO()
        save(found, content, *rest, **how)
        Path(file).write_bytes(content.getvalue())

    return saved


def _serialized(tensors: Any, filename: Any, metadata: Any = None) -> None:
    Path(filename).write_bytes(safetensors.serialize(tensors, metadata))


class Small:
    """What is done, in small; everything that can be is made before processes are forked."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        recorder.BLOCK = evaluation.ITEMS_AT_ONCE = ITEMS_AT_ONCE
        intervening.ITEMS_AT_ONCE = ITEMS_AT_ONCE
        by_category.ITEMS_AT_ONCE = ITEMS_AT_ONCE
        self.model, self.task = tiny_model("llama"), small_task(N_ITEMS, "en de")
        self.recording = ng.record(self.model, self.task)
        ng.classify(self.recording)  # so that its machine code is here when processes are forked
        records = [{**item, "choices": {}} for item in self.task.items]
        self.wider = small_task(N_ITEMS, "en de fr")
        self.written = ng.ParallelTask.from_records(records, name="written")
        made = (
            *(self.record, self.choose, self.write, self.tabulate),
            *(self.attribute, self.deactivate, self.align, self.run, self.report, self.grow),
        )
        self.by_name = dict(zip(COMMANDS, made, strict=True))
        gc.freeze()  # what is here stays, so no process that is forked needs to look at it

    def record(self, out: Path) -> None:
        ng.record(self.model, self.task, out=out, reading=ng.Reading(keep_values=True))

    def choose(self, out: Path) -> None:
        ng.evaluate(self.model, self.task, out=out)

    def write(self, out: Path) -> None:
        ng.evaluate(self.model, self.written, out=out, answering=ng.Answering(max_new_tokens=2))

    def tabulate(self, out: Path) -> None:
        table = out.with_name("answers.csv")
        asked = ("evaluate", "tiny", "small", "--out", str(out))
        self._command_line(*asked, "--predictions", str(table))

    def attribute(self, out: Path) -> None:
        accumulating.SECONDS_BETWEEN = 0.0  # sums are kept after each block
        scores = ("contribution",)
        ng.attribute(self.model, self.task, recording=self.recording, scores=scores, out=out)

    def deactivate(self, out: Path) -> None:
        deactivate(
            self.model,
            self.task,
            self.recording,
            categories=["all_shared"],
            controls=ng.Controls(["size"], draws=1),
            out=out,
        )

    def align(self, out: Path) -> None:
        training = ng.Training(steps=2, pairs=2, learning_rate=1e-2, checks=1)
        ng.align(self.model, self.task, method="sharing", out=out, training=training)

    def run(self, out: Path) -> None:
        self._command_line("run", "tiny", "small", "--out", str(out), "--scores", "contribution")

    def report(self, out: Path) -> None:
        """From results that were saved elsewhere."""
        html, figures = out / "report.html", out / "figures"
        self._command_line("report", str(SAVED), "--out", str(html), "--figures", str(figures))

    def grow(self, out: Path) -> None:
        """By an item and a language, an attribution by an item; see :meth:`prepare`."""
        self._grow_to(self.wider, self.task, out)

    def _grow_to(self, task: ng.ParallelTask, attributed: ng.ParallelTask, out: Path) -> None:
        ng.record(self.model, task, out=out / "recording", reading=ng.Reading(keep_values=True))
        ng.evaluate(self.model, task, out=out / "answers")
        recording = ng.record(self.model, attributed)
        scores = ("contribution",)
        ng.attribute(
            self.model, attributed, recording=recording, scores=scores, out=out / "attribution"
        )

    def save(self, folder: Path) -> None:
        """What is reported, and what grows."""
        if not (folder / "answers").exists():
            ng.save(ng.classify(self.recording), folder / "sharing")
            ng.evaluate(self.model, self.task, out=folder / "answers")
            small = self.wider.part(self.wider.items[:-1], self.wider.languages[:-1])
            fewer = self.task.part(self.task.items[:-1])
            self._grow_to(small, fewer, folder.parent / SMALLER)

    def prepare(self, name: str, out: Path) -> None:
        """Put what was there before a command into its folder."""
        if name == "grow":
            shutil.copytree(SAVED.parent / SMALLER, out)

    def _command_line(self, *arguments: str) -> None:
        options.ModelOptions.load = lambda _how, _name: self.model  # type: ignore[method-assign]
        options.TaskOptions.load = lambda _which, _name: self.task  # type: ignore[method-assign]
        # What is drawn does not matter here, and takes seconds in each process.
        vlc.vegalite_to_png = lambda *_, **__: b"a picture"
        vlc.vegalite_to_svg = lambda *_, **__: "a picture"
        vlc.javascript_bundle = lambda *_, **__: ""
        page.charts = lambda _: {"figure": alt.Chart(alt.Data(values=[])).mark_point()}
        command_line(arguments)


SMALLER = "smaller"
SAVED = Path(tempfile.gettempdir()) / f"neuroglot-faults-{os.getpid()}" / "saved"


@dataclass(frozen=True)
class Ended:
    """How a run of a command ended.

    Attributes:
        code: the exit code of its process, negative for a signal.
        seen: its operations, unless it was killed.
        imported: the modules that it had imported, unless it was killed.
        said: the last line of its standard error.
    """

    code: int
    seen: list[str]
    imported: list[str]
    said: str


def in_child(run: Callable[[], object], faulty: Faulty) -> Ended:
    """Run a command in a forked process in which operations may go wrong."""
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as told:
        child = os.fork()
        if not child:
            _as_child(run, faulty, errors.fileno(), told)
        _, status = os.waitpid(child, 0)
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
        told.seek(0)
        content = told.read()
    seen, imported = pickle.loads(content) if content else ([], [])
    said = lines[-1] if lines else ""
    return Ended(os.waitstatus_to_exitcode(status), seen, imported, said)


def _as_child(run: Callable[[], object], faulty: Faulty, errors: int, told: Any) -> NoReturn:
    signal.alarm(PATIENCE)  # ends a run that hangs
    code = 0
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(errors, 2)
    try:
        warnings.simplefilter("ignore")
        faulty.install()
        run()
    except ng.NeuroglotError as error:
        code = REFUSED
        os.write(2, f"{error}\n".encode())
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException:  # noqa: BLE001
        code = BROKEN
        os.write(2, traceback.format_exc().encode())
    pickle.dump((faulty.seen, sorted(sys.modules)), told)
    told.flush()
    os._exit(code)


@dataclass(frozen=True)
class Trial:
    """What became of a command when one operation went wrong.

    Attributes:
        command: which.
        fault: one of ``FAULTS``.
        number: of the operation; after the last one there is a kill that nothing follows.
        operation: what it does, and to what.
        n_operations: of the whole command.
        failure: what was not as if nothing had happened, if anything.
    """

    command: str
    fault: str
    number: int
    operation: str
    n_operations: int
    failure: str | None


Choice = Callable[[str, list[str]], list[int]]
"""Which operations go wrong under a fault: their numbers, of those of the whole command."""


def drawn(n_tried: int | None, seed: int = 0) -> Choice:
    """So many operations under each fault, by a seed; by default all."""

    def chosen(fault: str, operations: list[str]) -> list[int]:
        numbers = range(len(operations))
        if n_tried is None or n_tried >= len(numbers):
            return list(numbers)
        return sorted(random.Random(f"{seed} {fault}").sample(numbers, n_tried))

    return chosen


def trials(
    commands: Small,
    name: str,
    folder: Path,
    choice: Choice,
    done: Container[tuple[str, str, int]] = (),
) -> Iterator[Trial]:
    """Let operations of a command go wrong, one after the other.

    Args:
        commands: all.
        name: of the one.
        folder: empty, to work in.
        choice: of the operations.
        done: command, fault and number of those that need not be tried again.

    Yields:
        What became of each.
    """
    run = commands.by_name[name]
    place = folder / "place"

    def again(at: int | None = None, fault: str = "kill") -> Ended:
        return in_child(lambda: run(place / OUT), Faulty(place, at, fault))

    def begin() -> None:
        place.mkdir()
        commands.prepare(name, place / OUT)

    begin()
    first = again()
    if first.code:
        raise RuntimeError(f"{name}, undisturbed, ended with {first.code}: {first.said}")
    for module in first.imported:  # here, once, rather than in every process that is forked
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    expected, n = files_of(place), len(first.seen)
    known: dict[str, str | None] = {}

    def gone_on() -> str | None:
        """What is wrong after another run; the same files, byte for byte, are tried once."""
        left = json.dumps(files_of(place))
        if left not in known:
            known[left] = _differs(again(), expected, files_of(place))
        return known[left]

    yield Trial(name, "kill", n, "after all", n, gone_on())
    for fault in FAULTS:
        for number in choice(fault, first.seen):
            if (name, fault, number) not in done:
                shutil.rmtree(place)
                begin()
                reason = _ended_badly(again(number, fault), fault) or gone_on()
                yield Trial(name, fault, number, first.seen[number], n, reason)
    shutil.rmtree(place)


def _ended_badly(ended: Ended, fault: str) -> str | None:
    """How a run that was disturbed ended, if not as it should."""
    if fault == "kill":
        # Threads may do fewer operations in one run than in another.
        return None if ended.code in (0, -signal.SIGKILL) else f"ended with {ended.code}"
    return None if ended.code in (0, REFUSED) else f"a traceback: {ended.said}"


def _differs(finished: Ended, expected: dict[str, str], found: dict[str, str]) -> str | None:
    """What of a run that went on is not as if nothing had happened."""
    if finished.code:
        return f"then: {finished.said}"
    more, less = sorted(found.keys() - expected.keys()), sorted(expected.keys() - found.keys())
    other = sorted(name for name in found.keys() & expected.keys() if found[name] != expected[name])
    said = {"left behind": more, "missing": less, "other bytes in": other}
    return "; ".join(f"{what} {names[:3]}" for what, names in said.items() if names) or None


def main() -> None:
    """Print a line of JSON for each operation that goes wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--of", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="lines of before, which are not tried again")
    given = parser.parse_args()
    commands = Small()
    before = [] if given.log is None else read_trials(given.log)
    done = {(trial.command, trial.fault, trial.number) for trial in before}
    try:
        in_child(lambda: commands.save(SAVED), Faulty(SAVED))
        for name in given.commands or commands.by_name:
            with tempfile.TemporaryDirectory() as folder:
                chosen = drawn(given.of, given.seed)
                for trial in trials(commands, name, Path(folder), chosen, done):
                    sys.stdout.write(json.dumps(vars(trial)) + "\n")
                    sys.stdout.flush()
    finally:
        shutil.rmtree(SAVED.parent, ignore_errors=True)


def read_trials(log: Path) -> list[Trial]:
    """The trials that were printed to a file; a line that was cut off is none."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [Trial(**json.loads(line)) for line in lines if line.endswith("}")]


if __name__ == "__main__":
    main()
