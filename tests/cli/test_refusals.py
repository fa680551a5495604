"""What can be refused without a model is refused before one is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

import neuroglot as ng
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
