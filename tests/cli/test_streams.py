"""Terminals of few signs, closed pipes, full disks: nothing is lost, and nothing is a traceback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import neuroglot as ng
from neuroglot.cli import terminal
from neuroglot.cli.streams import CANNOT_PRINT, CLOSED_PIPE, Enduring, enduring_streams
from tests.testing import small_task, tiny_hf, tokenizer

MAIN = "from neuroglot.cli.app import main; main()"
# Every command in one process, since importing everything takes long.
EVERY = """
import json, sys
from neuroglot.cli.app import main
codes = []
for command in json.load(open(sys.argv[1])):
    try:
        main(command)
        codes.append(0)
    except SystemExit as stop:
        codes.append(int(stop.code or 0))
with open(sys.argv[2], "w") as file:
    json.dump(codes, file)
"""


def commands(folder: Path) -> list[list[str]]:
    """Every command, into a folder, and what it needs."""
    model, task = folder.parent / "model", folder.parent / "täsk-ไทย.jsonl"
    if not model.exists():
        tiny_hf("llama").save_pretrained(model)
        tokenizer().save_pretrained(model)
        small_task(10).to_jsonl(task)
    asked = [str(model), str(task)]
    few = ["--limit", "2"]
    made = str(folder / "run")
    return [
        ["--version"],
        ["--help"],
        ["run", "--help"],
        ["tasks"],
        ["tasks", "--json"],
        ["check", str(model)],
        ["demo", "--items", "1", "--out", str(folder / "demo")],
        ["run", *asked, "--out", made],
        ["record", *asked, "--out", str(folder / "record"), *few],
        ["record", *asked, "--dry-run", *few],
        ["classify", f"{made}/recording", "--out", str(folder / "sharing")],
        ["evaluate", *asked, *few, "--out", str(folder / "e"), "--json"],
        ["evaluate", *asked, *few, "--predictions", str(folder / "p.csv")],
        ["attribute", *asked, f"{made}/recording", "--out", str(folder / "a")],
        ["agreement", *asked, *few, "--neurons", "3", "--out", str(folder / "g")],
        ["describe", str(model), "0", "1"],
        ["deactivate", *asked, "--out", str(folder / "d"), "--draws", "1"],
        ["amplify", *asked, "--out", str(folder / "m"), "--draws", "1"],
        ["compare", f"é={made}", f"ไ={made}", "--out", str(folder / "c")],
        ["align", *asked, "--method", "instruction", "--steps", "4", "--out", str(folder / "l")],
        ["fragility", *asked, *few, "--out", str(folder / "f")],
        ["report", f"–={made}", "--out", str(folder / "page.html")],
        ["classify", str(folder / "nowhere–")],
    ]


RESULTS = ("demo/report.html", "run/report.html", "record", "sharing", "e", "p.csv", "a", "g",
           "d/report.html", "m/report.html", "c/report.html", "l/report.html", "f",
           "page.html")  # fmt: skip


def run_every(folder: Path, stdout: int, env: dict[str, str]) -> tuple[list[int], bytes]:
    folder.mkdir(parents=True)
    listed, codes = folder.parent / "commands.json", folder.parent / "codes.json"
    listed.write_text(json.dumps(commands(folder)))
    run = subprocess.run(
        [sys.executable, "-c", EVERY, str(listed), str(codes)],
        stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=600,
        env={**os.environ, "COLUMNS": "80", **env},
    )  # fmt: skip
    assert b"Traceback" not in run.stderr, run.stderr[-3000:].decode(errors="replace")
    for name in RESULTS:
        assert (folder / name).exists(), (name, run.stderr[-3000:].decode(errors="replace"))
    return json.loads(codes.read_text()), run.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "env",
    [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"},
     {"LC_ALL": "C"}],
    ids=["ascii", "latin-1", "C"],
)  # fmt: skip
def test_every_command_in_a_terminal_of_few_signs(env: dict[str, str], tmp_path: Path) -> None:
    with (tmp_path / "printed").open("wb") as printed:
        codes, errors = run_every(tmp_path / "out", printed.fileno(), env)
    assert codes == [0] * (len(codes) - 1) + [2], errors[-3000:].decode(errors="replace")
    text = (tmp_path / "printed").read_bytes()
    # In the C locale Python prints UTF-8.
    (text + errors).decode(env.get("PYTHONIOENCODING", "utf-8"))
    assert b"The report: " in text


@pytest.mark.slow
@pytest.mark.concurrent
def test_every_command_into_a_full_disk(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        codes, errors = run_every(tmp_path / "out", full.fileno(), {})
    # Once it has failed, what is below is closed, and the rest prints to nowhere.
    assert codes[0] == CANNOT_PRINT
    assert b"cannot write to standard output: No space left on device" in errors


@pytest.mark.slow
@pytest.mark.concurrent
def test_every_command_into_a_closed_pipe(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    codes, errors = run_every(tmp_path / "out", writer, {})
    os.close(writer)
    assert codes[0] == CLOSED_PIPE
    assert b"cannot write to standard output" not in errors


NOBODY_READS, FULL, KEPT = "a pipe that nobody reads", "/dev/full", "a file"
# Command lines as processes that end as Python does; forked, as importing everything takes long.
FORKING = """
import json, os, sys
from neuroglot.cli.app import main
codes = []
for number, (arguments, *targets) in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if not child:
        for descriptor, target in enumerate(targets, 1):
            if target == "a pipe that nobody reads":
                read, written = os.pipe()
                os.close(read)
            else:
                name = f"{number}.{descriptor}" if target == "a file" else target
                written = os.open(name, os.O_WRONLY | os.O_CREAT)
            os.dup2(written, descriptor)
        main(arguments)
        sys.exit()
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""


def said_rightly(errors: bytes, code: int | None) -> None:
    assert errors.count(b"\n") <= 1, errors
    assert b"Exception ignored" not in errors
    assert (b"No space left" in errors) == (code == CANNOT_PRINT)


@pytest.mark.concurrent
@pytest.mark.slow
def test_exit_codes_of_a_process(tmp_path: Path) -> None:
    """Python itself writes what it kept back when it ends."""
    cases: list[tuple[list[str], str, str, int]] = [
        (["tasks"], NOBODY_READS, KEPT, CLOSED_PIPE),
        (["tasks"], FULL, KEPT, CANNOT_PRINT),
        (["tasks", "--json"], FULL, KEPT, CANNOT_PRINT),
        (["--help"], FULL, KEPT, CANNOT_PRINT),
        (["classify", "nowhere"], FULL, KEPT, 2),
        (["classify", "nowhere"], KEPT, FULL, 2),
        (["tasks"], KEPT, FULL, 0),
    ]
    run = subprocess.run(
        [sys.executable, "-c", FORKING, json.dumps([case[:3] for case in cases])],
        cwd=tmp_path, capture_output=True, check=True, timeout=600,
    )  # fmt: skip
    assert json.loads(run.stdout) == [case[3] for case in cases]
    for number, (_, _, stderr, code) in enumerate(cases):
        if stderr == KEPT:
            said_rightly((tmp_path / f"{number}.2").read_bytes(), code)


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("set -o pipefail; COMMAND tasks | head -1", {0, CLOSED_PIPE}),
        ("COMMAND tasks >&-", {0}),
        ("COMMAND tasks 2>&-", {0}),
    ],
)
@pytest.mark.concurrent
@pytest.mark.slow
def test_exit_codes_in_a_shell(line: str, codes: set[int], tmp_path: Path) -> None:
    """What Python finds when it begins."""
    command = f"{sys.executable} -c '{MAIN}'"
    run = subprocess.run(
        ["bash", "-c", line.replace("COMMAND", command)],
        cwd=tmp_path, capture_output=True, check=False, timeout=600,
    )  # fmt: skip
    assert run.returncode in codes, run
    said_rightly(run.stderr, None)


@pytest.mark.concurrent
def test_errors_nobody_reads_do_not_end_the_work(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    out = tmp_path / "e"
    command = ["evaluate", "embedded/base", "facts", "--limit", "2", "--out", str(out), "--json"]
    run = subprocess.run(
        [sys.executable, "-c", MAIN, *command],
        stdout=subprocess.PIPE, stderr=writer, check=False, timeout=600,
    )  # fmt: skip
    os.close(writer)
    assert run.returncode == 0
    assert json.loads(run.stdout)["accuracy"]
    assert ng.load(out).attrs["kind"] == "evaluation"


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "1-2 ... -3 x \\xe9 \\u0e44 \\U0001f600"),
        ("latin-1", "1-2 ... -3 × é \\u0e44 \\U0001f600"),
        ("utf-8", "1–2 … −3 × é ไ 😀"),
    ],
)
def test_signs_that_an_encoding_does_not_have(encoding: str, expected: str) -> None:
    below = io.BytesIO()
    stream = Enduring(io.TextIOWrapper(below, encoding=encoding))
    stream.write("1–2 … −3 × é ไ 😀")
    stream.flush()
    assert below.getvalue().decode(encoding) == expected


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    below = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(below, encoding=encoding))
    value = {"name": "1–2 é ไ 😀 \udc80"}
    with enduring_streams():
        terminal.as_json(value)
    assert json.loads(below.getvalue().decode(encoding)) == value
