"""What a user sees of the commands beside their results: nothing that other libraries say."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

import neuroglot as ng
from neuroglot import quiet
from neuroglot.cli.parsing import warnings_as_lines
from neuroglot.models import loading
from neuroglot.tasks.readers.hub import load_rows
from tests.cli.conftest import Cli
from tests.testing import small_task

TRAINED = "--steps 4 --pairs 4 --checks 2 --learning-rate .01"
COMMANDS = f"""
check model
record model chosen.jsonl --out recording
classify recording --out sharing
evaluate model chosen.jsonl --out answers
evaluate model written.jsonl --max-new-tokens 4 --out texts
attribute model chosen.jsonl recording --out attribution
agreement model chosen.jsonl --limit 12 --neurons 5 --scores effective --out agreement
describe model 0 1
deactivate model chosen.jsonl --draws 1 --out deactivated
amplify model chosen.jsonl --factors 2 --draws 1 --out amplified
fragility model chosen.jsonl --limit 4 --out fragility
align model chosen.jsonl --method sharing {TRAINED} --out aligned
check aligned/model
compare aligned/runs/step-000000 aligned/runs/step-000004 --out compared
run model chosen.jsonl --out whole
report whole --out page.html
tasks
"""
# Runs commands, one after another as one process, and says which begins.
CHILD = """
import sys
import torch
from neuroglot.cli.app import main

torch.set_num_threads(1)
for command in sys.argv[1].strip().splitlines():
    print("$ " + command, file=sys.stderr, flush=True)
    try:
        main(command.split())
    except SystemExit as stop:
        assert not stop.code, command
"""
# What we draw and say ourselves, and the end of a line.
OURS = re.compile(
    r"(\$ |neuroglot: |(record|evaluate|attribute|align|zero neurons|[a-z_]+(, times 2)?): +\d+%\|)"
)


@pytest.fixture
def files(tiny: tuple[Path, Path], tmp_path: Path) -> Path:
    items = small_task(22).items
    small_task(22).to_jsonl(tmp_path / "chosen.jsonl")
    written = [{**item, "choices": {}} for item in items]
    ng.ParallelTask.from_records(written, name="written").to_jsonl(tmp_path / "written.jsonl")
    return tmp_path


@pytest.mark.slow
def test_no_command_passes_on_what_other_libraries_say(files: Path) -> None:
    """In a process with all settings of warnings and logging as they are for a user."""
    ours = ("PYTHONWARNINGS", "TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS")
    run = subprocess.run(
        [sys.executable, "-c", CHILD, COMMANDS],
        cwd=files,
        env={name: value for name, value in os.environ.items() if name not in ours}
        | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = [line.strip() for line in re.split(r"[\r\n]|\x1b\[A", run.stderr)]
    assert [line[2:] for line in lines if line.startswith("$ ")] == COMMANDS.strip().splitlines()
    assert "deprecat" not in run.stderr.lower()
    assert not [line for line in lines if line and not OURS.match(line)]
    warned = [line for line in lines if line.startswith("neuroglot: warning")]
    assert all("baseline" in line for line in warned), warned


def test_a_warning_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where something in between makes Python forget what was said."""
    with warnings_as_lines():
        for text in ("one", "one", "two"):
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn(text, stacklevel=1)
    said = capsys.readouterr().err.splitlines()
    assert said == ["neuroglot: warning: one", "neuroglot: warning: two"]


@pytest.mark.skipif(quiet.set_tqdm_hook is None, reason="these versions of transformers draw bars")
def test_bars_of_the_user_stay(
    cli: Cli, tiny: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before and after; and what the user makes of bars is asked within."""
    assert quiet.set_tqdm_hook is not None
    made = []

    def hook(bar: object, args: tuple[object, ...], options: dict[str, object]) -> object:
        made.append(options)
        return bar(*args, **options)  # type: ignore[operator]

    AutoModelForCausalLM.from_pretrained(tiny[0])
    assert "Loading weights" in capsys.readouterr().err
    before = quiet.set_tqdm_hook(hook)
    try:
        assert "Loading weights" not in cli("check", tiny[0])[2]
        assert made
        assert made[0]["disable"]
        list(transformers_logging.tqdm([1], desc="of the user"))
        assert "disable" not in made[-1]
        assert quiet.set_tqdm_hook(hook) is hook
    finally:
        quiet.set_tqdm_hook(before)
    AutoModelForCausalLM.from_pretrained(tiny[0])
    assert "Loading weights" in capsys.readouterr().err


@pytest.mark.skipif(quiet.set_tqdm_hook is None, reason="these versions of transformers draw bars")
@pytest.mark.concurrent
def test_blocks_of_several_threads_end_in_any_order() -> None:
    assert quiet.set_tqdm_hook is not None
    before = quiet.set_tqdm_hook(None)
    try:
        first, second = quiet.without_bars(), quiet.without_bars()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert transformers_logging.tqdm([1], desc=quiet.BARS[0]).disable
        second.__exit__(None, None, None)
        assert not transformers_logging.tqdm([1], desc=quiet.BARS[0]).disable
    finally:
        quiet.set_tqdm_hook(before)


@contextmanager
def heard(name: str) -> Iterator[list[str]]:
    """What a logger says within the block."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def test_messages_are_left_out_within_the_block_alone() -> None:
    logger = logging.getLogger("transformers.trainer_utils")
    with heard(logger.name) as said:
        with quiet.quiet_transformers():
            logger.warning("mtime may not be reliable")
            logger.warning("within")
        logger.warning("mtime may not be reliable")
    assert said == ["within", "mtime may not be reliable"]


HUB = "huggingface_hub.utils._http"


def unreachable(*_: object, **__: object) -> None:
    """As the Hub is without a connection."""
    for number in range(3):
        logging.getLogger(HUB).warning("'[Errno -2]' thrown while requesting HEAD https://…")
        logging.getLogger(HUB).warning("Retrying in %ss [Retry %s/5].", 2**number, number)
    raise OSError("no connection")


def test_attempts_to_reach_a_model_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading.AutoConfig, "from_pretrained", unreachable)
    with heard(HUB) as said, pytest.raises(ng.NeuroglotError, match="no connection"):
        ng.load_model("nobody/nothing")
    assert not said


def test_attempts_to_reach_data_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with heard(HUB) as said, pytest.raises(ng.NeuroglotError, match="no connection"):
        load_rows({"path": "nobody/nothing"})
    assert not said
