"""What can be refused without a model is refused before one is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
from typer.testing import CliRunner

import neuroglot as ng
from neuroglot.cli.options import grouped
from tests.cli.conftest import Cli

ASKED = ("embedded/base", "facts", "--limit", "3")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("run", *ASKED, "--site", "gait"), "unknown site 'gait'"),
        (("run", *ASKED, "--position", "first"), "unknown position 'first'"),
        (("run", *ASKED, "--choice-score", "best"), "unknown choice_score 'best'"),
        (("run", *ASKED, "--scores", "worth"), "unknown score 'worth'"),
        (("run", *ASKED, "--max-new-tokens", "0"), "max_new_tokens=0"),
        (("run", *ASKED, "--languages", "en,xx"), "xx"),
        (("run", "embedded/base", "fact"), "unknown task 'fact'"),
        (("record", *ASKED, "--out", "r", "--site", "gait"), "unknown site 'gait'"),
        (("record", *ASKED, "--out", "r", "--thresholds", "0,0"), "expected different finite"),
        (("record", *ASKED, "--out", "r", "--no-added-tokens"), "--no-added-tokens"),
        (("evaluate", *ASKED, "--choice-score", "best"), "unknown choice_score 'best'"),
        (("evaluate", *ASKED, "--max-new-tokens", "0"), "max_new_tokens=0"),
        (("fragility", *ASKED, "--site", "gait"), "unknown site 'gait'"),
        (("fragility", *ASKED, "--position", "first"), "unknown position 'first'"),
        (("agreement", *ASKED, "--scores", "worth"), "unknown score 'worth'"),
        (("deactivate", *ASKED, "--categories", "shared"), "category 'shared'"),
        (("deactivate", *ASKED, "--controls", "other"), "controls=other"),
        (("deactivate", *ASKED, "--position", "first"), "unknown position 'first'"),
        (("deactivate", *ASKED, "--rank-by", "worth"), "rank_by='worth'"),
        (("amplify", *ASKED, "--factors", "1"), "factors=[1.0]"),
        (("align", *ASKED, "--method", "magic"), "unknown method 'magic'"),
        (("align", *ASKED, "--method", "sharing", "--steps", "0"), "steps=0"),
    ],
)
def test_refused_before_a_model_is_loaded(
    command: tuple[str, ...], said: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_model(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a model is loaded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ng, "load_model", load_model)
    code, out, err = cli(*command)
    assert code == 2
    assert not out
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_flags_are_made_from_options() -> None:
    @dataclass(frozen=True)
    class Options:
        most: int | None = field(default=None, metadata={"help": "A number, or none."})
        share: float = field(default=0.5, metadata={"help": "Another."})
        hidden: int = 3

    def command(options: Any) -> None:
        seen.append(options)

    command.__annotations__ = {"options": Options, "return": None}
    seen: list[Options] = []
    app = typer.Typer()
    app.command()(grouped(command))
    for arguments in ([], ["--most", "7", "--share", "0.25"]):
        assert CliRunner().invoke(app, arguments).exit_code == 0
    assert seen == [Options(), Options(7, 0.25)]
    assert CliRunner().invoke(app, ["--hidden", "4"]).exit_code == 2
