"""The command line as a function, and something to call it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import vl_convert as vlc

from neuroglot.cli.app import main
from tests.testing import small_task, tiny_hf, tokenizer

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _pictures_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes seconds a command; processes of their own and ``tests/report`` draw them."""
    monkeypatch.setattr(vlc, "vegalite_to_png", lambda *_, **__: b"a picture")
    monkeypatch.setattr(vlc, "vegalite_to_svg", lambda *_, **__: "a picture")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Path, Path]:
    """A model folder and a task file."""
    model, task = tmp_path / "model", tmp_path / "small.jsonl"
    tiny_hf("llama").save_pretrained(model)
    tokenizer().save_pretrained(model)
    small_task(22).to_jsonl(task)
    return model, task
