"""Write reliability.md: ``python -m docs.make_reliability``, about ten minutes.

Kills, damages and crowds out recordings and evaluations of a tiny model, and says what became of
them. Some parts need to be root (another user, a file system of its own) and say so where not.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["TQDM_DISABLE"] = os.environ["HF_HUB_OFFLINE"] = "1"

from tests import killing

PAGE = Path(__file__).parent / "reliability.md"
N_KILLS, N_ITEMS, N_DAMAGES = 30, 120, 10
KINDS = {"record": "recording", "evaluate": "evaluation"}
INTRODUCTION = """# What happens when something goes wrong

Written by `python -m docs.make_reliability`: every figure here was printed by that command. The
model is tiny and random; what counts is the store, which is the same for every model.

A result grows in blocks of items. The arrays of a block are files that appear whole (written under
another name, then renamed), each with a checksum (CRC-32C); the block's mark is written after them.
A lock that the operating system holds, and drops with the process, keeps others out. Power loss is
not covered: nothing is forced onto the disk (`fsync`) before the mark.

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
    command = [sys.executable, "-c", "from neuroglot.cli import main; main()", "record"]
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


def main() -> None:
    lines = ["| what was done | what became of it |", "|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for line in measured(folder):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            lines.append(line)
    PAGE.write_text("\n".join([INTRODUCTION, *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
