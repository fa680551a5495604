"""Write reliability.md: ``python -m docs.make_reliability``.

Kills, damages and crowds out what commands write of a tiny model, and says what became of it. Some
parts need to be root (another user, a file system of its own) and say so where not.

Every operation of every command takes several hours, all else ten minutes. ``--log FILE`` keeps
what was tried, and the same command goes on from there. ``--of 20`` tries only so many operations
of each command, by a seed, and ``--only "At every operation"`` makes one section and leaves the
others as they are; the table says how many were tried.
"""

from __future__ import annotations

import argparse
import lzma
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["TQDM_DISABLE"] = os.environ["HF_HUB_OFFLINE"] = "1"

from tests import killing
from tests.faults import COMMANDS, FAULTS, Trial, read_trials

PAGE = Path(__file__).parent / "reliability.md"
TRIALS = (
    Path(__file__).parent / "reliability-trials.jsonl.xz"
)  # what was tried, since it takes hours
N_KILLS, N_ITEMS, N_DAMAGES = 30, 120, 10
KINDS = {"record": "recording", "evaluate": "evaluation"}
INTRODUCTION = """# What happens when something goes wrong

Written by `python -m docs.make_reliability`: every figure here was printed by that command. The
model is tiny and random; what counts is the store, which is the same for every model.

A recording or an evaluation grows in blocks of items. Its head, with coordinates and all
attributes, is a folder that takes its place whole. The arrays of a block are files that appear
whole (written under another name, then renamed), each with a checksum (CRC-32C); the block's mark
is written after them, and the last thing that is written is the attribute that says that all is
there. What is saved at once is made beside its place, in `.NAME.neuroglot-new`, and what it
replaces is moved to `.NAME.neuroglot-old` and then, before it is removed, to
`.NAME.neuroglot-gone`. The next run of the command removes what is left of these, and no other
folder. A lock that the operating system holds, and drops with the process, keeps others out. Power
loss is not covered: nothing is forced onto the disk (`fsync`) before the mark.

What the same `neuroglot run` goes on from after it was killed:

| part | kept | made again |
|---|---|---|
| `recording`, `answers` | every block that is marked and whole | at most two blocks |
| `sharing`, `thresholds` | what is there and equal | computed each time, in seconds |
| `attribution` | sums, which are saved every 30 seconds and at Ctrl-C | what was added since |
| tables, figures, page | nothing | all of them, the page last |

It has to be the same command with the same versions of neuroglot, torch and transformers: what
differs is named, and `--overwrite` begins anew. Such a run, too, goes on without `--overwrite` once
it has begun.

A run grows: with more items (`--limit 20` in a folder that holds 12) or more languages
(`--languages en,de,fr` in one of `en,de`), and all else the same, `run`, `record` and `evaluate`
add what is missing and run no prompt twice. Of each prompt the folder keeps a checksum of all that
its values depend on: its text and tokens, and for answers also its choices, the right ones and the
masked prompt. Only what is asked in the same way under the same id is kept; a warning says how many
prompts ask something else than before and are made again. The new result is made aside, with every
value that is kept, and takes the place of the old one; then the missing prompts run, and a process
that is killed at any moment goes on. Items and languages have the order of the new task. What
follows from all items (sharing, accuracies, `predictions.csv`, the report) is made anew. An
attribution is a sum over items, by categories that depend on all languages: later items are added
to it, and with another language, or where the first items, their order or their answers have
changed, all are added up again, as a line says. Values agree with those of a result made at once as
far as they do between batches: prompts that are added run by themselves. Fewer items or languages
are refused, as is everything else that differs, and results of before this was there. What is
deactivated or amplified does not grow either: sets of neurons depend on all languages, and halves
on all items. `grow=False` refuses it in Python.

What is damaged is made again by the same command, which says so: a block of items; what labels the
values of a recording or an evaluation (items, languages, subjects and so on), for which nothing
runs; and all of it where it is not known how an array is kept. Where the labels of thresholds or
layers are damaged, or the attributes of the result itself, its settings are not known; then a
message says to overwrite or to remove it.

The store is plain Zarr v3. Icechunk (transactions for Zarr) was measured beside it and not taken:
on 614 MB in blocks of 16 items it took 3.1 s instead of 2.1 s with the same checksum codec; it
does not checksum chunks itself (a flipped bit was read as data), refuses a second writer only when
that commits, and on a local file system lost 31 to 35 of 400 commits of two racing processes.
"""


def killed(folder: Path, what: str) -> str:
    done = killing.kill_at_random(what, folder / what, N_KILLS, N_ITEMS)
    killing.finish(what, folder / what, N_ITEMS)
    killing.finish(what, folder / f"{what}-undisturbed", N_ITEMS)
    found, expected = (killing.opened(folder / f"{what}{end}") for end in ("", "-undisturbed"))
    same = killing.checksum(found) == killing.checksum(expected) and found.identical(expected)
    return (
        f"| {KINDS[what]} killed (`kill -9`) at {N_KILLS} random moments, gone on after each | "
        f"{len(done)} kills hit, at {min(done)} to {max(done)} of {N_ITEMS} items (median "
        f"{statistics.median(done):g}); the end is "
        f"{'bit-identical to' if same else '**different from**'} an undisturbed run |"
    )


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


def cut(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def remove(path: Path, _rng: random.Random) -> None:
    path.unlink()


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "one bit flipped": flip, "cut at a random place": cut, "deleted": remove,
}  # fmt: skip


def damaged(folder: Path, what: str, damage: str) -> str:
    """One file of data after the other is damaged, found, and mended by the same call."""
    out, rng = folder / what, random.Random(0)
    model, task = killing.prepared(N_ITEMS)
    expected = killing.checksum(killing.opened(out))
    chunks = sorted(p for p in out.glob("*/c/**/*") if p.is_file())
    by_block = [path for path in chunks if _is_of_block(out, path)]
    named = mended = 0
    for _ in range(N_DAMAGES):
        DAMAGES[damage](rng.choice(by_block), rng)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            killing.make(what, out, model, task)
        named += any("are damaged" in str(warning.message) for warning in said)
        mended += killing.checksum(killing.opened(out)) == expected
    return (
        f"| {N_DAMAGES} × a random file of the blocks of one {KINDS[what]} {damage} | "
        f"{named} named by items, {mended} mended to the same bits by the same call |"
    )


def _is_of_block(out: Path, chunk: Path) -> bool:
    """Whether there is a file for each block; coordinates and summaries are one file."""
    variable = chunk.relative_to(out).parts[0]
    files = [p for p in (out / variable / "c").rglob("*") if p.is_file()]
    return len(files) >= N_ITEMS // killing.BLOCK and variable != "done"


def second_process(folder: Path, what: str) -> str:
    out = folder / f"{what}-twice"
    # Slow enough to be still at work when the second has started.
    first = killing.start(what, out, 10 * killing.PAUSE, N_ITEMS)
    while not killing.n_done(out):
        pass
    second = killing.start(what, out, 0.0, N_ITEMS)
    _, errors = second.communicate()
    first.communicate()
    refused = second.returncode != 0 and "another process is writing" in errors
    return (
        f"| a second process on the same {KINDS[what]} | "
        f"{'refused' if refused else '**not refused**'}; the first ended with {first.returncode} |"
    )


def interrupted(folder: Path) -> str:
    out = folder / "interrupted"
    command = [sys.executable, "-c", "from neuroglot.cli.app import main; main()", "record"]
    process = subprocess.Popen(
        [*command, "embedded/base", "facts", "--out", str(out)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while killing.n_done(out) < 64:
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    last = errors.strip().splitlines()[-1]
    return (
        f"| Ctrl-C on the command line | exit code {process.returncode}, {killing.n_done(out)} "
        f"items kept; “{last}” |"
    )


def _said(code: str) -> str:
    """The last line that a process of its own says when it fails."""
    run = subprocess.run(
        [sys.executable, "-c", f"from pathlib import Path\nfrom tests import killing\n{code}"],
        cwd=killing.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return run.stderr.strip().splitlines()[-1] if run.returncode else "no error"


def read_only(folder: Path) -> str:
    place = folder / "read-only"
    place.mkdir(mode=0o555)
    said = _said(f"killing.make_as_nobody(Path({str(folder)!r}), Path({str(place / 'r')!r}))")
    return f"| a folder that may not be written | “{_short(said, folder)}” |"


def full_disk(folder: Path) -> str:
    place = folder / "full"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        return "| a full disk | not run: no file system could be mounted |"
    try:
        said = _said(f"killing.make('record', Path({str(place / 'r')!r}), *killing.prepared())")
        kept = killing.n_done(place / "r")
        subprocess.run(["mount", "-o", "remount,size=9m", str(place)], check=True)
        killing.finish("record", place / "r")
        whole = killing.opened(place / "r").sizes["item"]
    finally:
        subprocess.run(["umount", str(place)], check=False)
    return (
        f"| a full disk (100 kB), then more room | “{_short(said, folder)}”; {kept} items kept, "
        f"then {whole} of {killing.N_ITEMS} |"
    )


def _short(message: str, folder: Path) -> str:
    return message.replace(str(folder), "…").removeprefix("neuroglot.errors.NeuroglotError: ")


def measured(folder: Path) -> Iterator[str]:
    """Lines of the table, each when it is known."""
    for what in KINDS:
        yield killed(folder, what)
        for damage in DAMAGES:
            yield damaged(folder, what, damage)
        yield second_process(folder, what)
    yield interrupted(folder)
    yield read_only(folder)
    yield full_disk(folder)


def faults(of: int | None, log: Path) -> Iterator[str]:
    """The table of kills and full disks at the operations of each command, and what failed.

    Args:
        of: operations of each command that are tried; by default all.
        log: takes what is tried; what is in it is not tried again.
    """
    with ThreadPoolExecutor(os.cpu_count()) as at_once:
        list(at_once.map(lambda name: _try(name, of, log), COMMANDS))
    trials = {(one.command, one.fault, one.number): one for one in read_trials(log)}.values()
    yield (
        "An operation opens a file to write, writes, renames, links or removes one, or makes or\n"
        "removes a folder, in the folder of the result and beside it, whoever does it (what the\n"
        "tokenizer writes in Rust is not seen). Before one, the process kills itself (`SIGKILL`,\n"
        "after half of the bytes of a write); or this one and all that follow find no room, which\n"
        "must end in one line and not in a traceback. Then the same command runs undisturbed and\n"
        "must leave the same files with the same bytes as if nothing had happened. So it must\n"
        "after all is done, as a kill after the last operation leaves it; that counts as one.\n"
    )
    yield "| command | operations | kills survived | full disks survived |"
    yield "|---|---|---|---|"
    for command in COMMANDS:
        here = [one for one in trials if one.command == command]
        yield f"| {command} | {max(one.n_operations for one in here):,} | {_survived(here)} |"
    drawn = [one for one in COMMANDS if not _is_whole(one, trials)]
    if drawn:
        yield f"\nOf {', '.join(drawn)} only some of the operations were tried."
    yield f"\nEvery trial is a line of [{TRIALS.name}]({TRIALS.name})."
    failures = [one for one in trials if one.failure is not None]
    if not failures:
        yield "\nAll of them were as if nothing had happened."
        return
    yield "\nWhat was not as if nothing had happened:\n"
    for one in failures:
        said = re.sub(r"/\S*/place/", "…/", str(one.failure))
        yield f"- {one.command}, {one.fault}, operation {one.number} {one.operation}: {said}"


def _survived(trials: Sequence[Trial]) -> str:
    """Cells of the two faults."""
    cells = []
    for fault in FAULTS:
        here = [one for one in trials if one.fault == fault]
        cells.append(f"{sum(one.failure is None for one in here):,} of {len(here):,}")
    return " | ".join(cells)


def _is_whole(command: str, trials: Iterable[Trial]) -> bool:
    """Whether every operation of a command was tried."""
    here = [one for one in trials if one.command == command]
    return len(here) >= 2 * max(one.n_operations for one in here)


def _try(command: str, of: int | None, log: Path) -> None:
    """Try what of a command the log does not hold."""
    how = ["--log", str(log)] + ([] if of is None else ["--of", str(of)])
    with log.open("a", encoding="utf-8") as lines:
        run = subprocess.run(
            [sys.executable, "-m", "tests.faults", command, *how],
            cwd=killing.ROOT, stdout=lines, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    if run.returncode:
        raise RuntimeError(run.stderr)


def at_random() -> Iterator[str]:
    """The table of everything else."""
    yield "| what was done | what became of it |"
    yield "|---|---|"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield from measured(folder)


def sections() -> dict[str, str]:
    """Those that the page has now."""
    parts = PAGE.read_text(encoding="utf-8").split("\n## ")[1:] if PAGE.exists() else []
    return {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--of", type=int, help="operations of each command; by default all")
    parser.add_argument(
        "--log",
        type=Path,
        help=f"what was tried, which is not tried again; by default that of {TRIALS.name}",
    )
    parser.add_argument("--only", help="make this section, and leave the others as they are")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = (given.log or Path(folder) / "log").absolute()
        if given.log is None and TRIALS.exists():
            log.write_bytes(lzma.decompress(TRIALS.read_bytes()))
        makers = {
            "At every operation": lambda: faults(given.of, log),
            "At random moments": at_random,
        }
        made = sections()
        for title, make in makers.items():
            if given.only in (None, title):
                lines = []
                for line in make():
                    sys.stdout.write(line + "\n")
                    sys.stdout.flush()
                    lines.append(line)
                made[title] = "\n".join(lines)
        if log.exists():
            TRIALS.write_bytes(lzma.compress(log.read_bytes()))
    found = [f"## {title}\n\n{made[title]}\n" for title in makers if title in made]
    PAGE.write_text("\n".join([INTRODUCTION, *found]), encoding="utf-8")


if __name__ == "__main__":
    main()
