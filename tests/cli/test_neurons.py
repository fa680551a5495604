"""The commands about what neurons contribute."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xarray as xr

import neuroglot as ng
from neuroglot.errors import UnsupportedError
from tests.cli.conftest import Cli


@pytest.fixture
def recorded(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> Path:
    assert cli("record", *tiny, "--out", tmp_path / "recording")[0] == 0
    return tmp_path / "recording"


def test_attribute(cli: Cli, tiny: tuple[Path, Path], recorded: Path, tmp_path: Path) -> None:
    asked = ("attribute", *tiny, recorded, "--out", tmp_path / "attribution")
    code, out, _ = cli(*asked)
    assert code == 0
    assert "all-shared neurons in correct answers" in out
    assert "(effective score)" in out
    assert "by run" not in out, "of one run, only the table by language is printed"
    assert [line.split()[0] for line in out.splitlines() if line[1:3] in ("en", "de", "th")]
    found = ng.load(tmp_path / "attribution")
    assert isinstance(found, xr.Dataset)
    assert found["score"].values.tolist() == ["contribution", "effective", "direct_logit"]
    code, out, _ = cli(*asked, "--json")
    assert code == 0, "a finished one is opened"
    rows = json.loads(out)["all_shared"]["effective"]
    share = float(ng.share_of_correct(found)["model_share"].sel(language="en"))
    assert rows[0]["share"] == pytest.approx(share)
    code, _, err = cli(*asked, "--target", "answer")
    assert code == 2
    assert "target: there 'correct_minus_best_wrong', now 'answer'" in err
    code, out, _ = cli("attribute", *tiny, recorded, "--scores", "contribution", "--json")
    assert list(json.loads(out)["all_shared"]) == ["contribution"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scores", "loud"], "unknown score 'loud'"),
        (["--scores", "none"], "nothing to attribute"),
        (["--target", "best"], "unknown target 'best'"),
        (["--top-k", "0"], "top_k=0: expected 1 to 20"),
        (["--threshold", "0.3"], "threshold 0.3 was not recorded"),
        (["--limit", "3"], "the recording is of task 'small'"),
    ],
)
def test_what_cannot_be_attributed(
    cli: Cli, tiny: tuple[Path, Path], recorded: Path, arguments: list[str], message: str
) -> None:
    code, out, err = cli("attribute", *tiny, recorded, *arguments)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_agreement(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    asked = ("agreement", *tiny, "--limit", "12", "--neurons", "5", "--scores", "effective")
    code, out, _ = cli(*asked, "--out", tmp_path / "agreement")
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith(" effective score")]
    assert len(lines) == 3
    assert all(line.count("(") == 2 for line in lines)
    few = cli(*("3" if x == "12" else x for x in asked))[1]
    assert "(" not in "".join(x for x in few.splitlines() if x.startswith(" effective score"))
    assert "There is no interval: the prompts are of 3 subjects" in few
    rows = json.loads(cli(*asked, "--json")[1])["agreement"]
    found = ng.load(tmp_path / "agreement")
    assert isinstance(found, xr.Dataset)
    assert rows[1]["agreement"] == float(found["agreement"].sel(layer=1, score="effective"))
    page = tmp_path / "page.html"
    assert cli("report", tmp_path / "agreement", "--out", page, "--figures", tmp_path / "f")[0] == 0
    assert (tmp_path / "f" / "causal-agreement.png").exists()


def test_describe(cli: Cli, tiny: tuple[Path, Path], recorded: Path) -> None:
    code, out, _ = cli("describe", tiny[0], 1, 7, "--recording", recorded, "-k", 3)
    assert code == 0
    assert out.startswith("layer 1, neuron 7")
    assert "active in" in out
    found = json.loads(cli("describe", tiny[0], 1, 7, "-k", 3, "--json")[1])
    assert len(found["promoted"]) == 3
    assert found["activity"] is None
    code, _, err = cli("describe", tiny[0], 1, 20)
    assert code == 2
    assert "neuron=20: expected a number from 0 to 19" in err


def test_run_attributes(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    code, out, _ = cli("run", *tiny, "--out", tmp_path / "run")
    assert code == 0
    assert "all-shared neurons in correct answers" in out
    table = (tmp_path / "run" / "report.attribution.csv").read_text().splitlines()
    assert len(table) == 1 + 3 * 3 * 3 * 3 * 4
    assert (tmp_path / "run" / "figures" / "score-shares.png").exists()
    code, out, _ = cli("run", *tiny, "--out", tmp_path / "plain", "--scores", "none")
    assert code == 0
    assert "share of the score" not in out
    assert not (tmp_path / "plain" / "attribution").exists()


def test_run_leaves_out_what_is_not_defined(
    cli: Cli, tiny: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise UnsupportedError("there is another way.")

    monkeypatch.setattr("neuroglot.attribution.direct.find_direct_path", refused)
    code, _, err = cli("run", *tiny, "--out", tmp_path / "run")
    assert code == 0
    assert "direct_logit is left out: there is another way." in err
    found = ng.load(tmp_path / "run" / "attribution")
    assert isinstance(found, xr.Dataset)
    assert found["score"].values.tolist() == ["contribution", "effective"]
