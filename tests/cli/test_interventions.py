"""The commands that change what neurons do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import neuroglot as ng
from neuroglot.reporting.kinds.outcome_rows import group_of
from tests.cli.conftest import Cli


def test_deactivate(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    asked = ("deactivate", *tiny, "--draws", "2", "--out", tmp_path / "out")
    code, out, _ = cli(*asked)
    assert code == 0
    assert "all-shared" in out
    assert "In percentage points" in out
    found = ng.load(tmp_path / "out" / "outcome")
    assert isinstance(found, xr.Dataset)
    assert found.sizes["condition"] == 5
    for name in ("answers", "recording", "report.html", "report.effects.csv", "figures"):
        assert (tmp_path / "out" / name).exists()
    code, out, err = cli(*asked, "--json")
    assert code == 0
    assert "specific_here" not in err, "what is finished is not run again"
    said = json.loads(out)
    rows = {(row["condition"], row["against"]): row for row in said["effects"]}
    assert set(rows) == {
        (condition, against)
        for condition in found["condition"].values
        for against in ("no_edit", "size", "active", "contribution")
    }
    expected = float(found["n_neurons"].sel(condition="specific").mean())
    assert rows["specific", "no_edit"]["neurons"] == pytest.approx(expected)
    assert said["provenance"]["draws"] == 2
    code, _, err = cli(*asked, "--seed", "1")
    assert code == 2
    assert "seed: there 0, now 1" in err


def test_parts_of_deactivate(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    assert cli("record", *tiny, "--out", tmp_path / "recording")[0] == 0
    shared = ("deactivate", *tiny, "--recording", tmp_path / "recording", "--controls", "none")
    cases = {
        "dose-response": (("--doses", "0.5,1"), ["all_shared, top 0.5", "all_shared"]),
        "dose-response-by-answer": (
            ("--doses", "0.5", "--rank-by", "effective"), ["all_shared, top 0.5, by effective"],
        ),
        "layer-bands": (
            ("--layers", "0-1;2"), ["all_shared, layers 0-1", "all_shared, layers 2"],
        ),
        "keep-only": (("--keep-only",), ["all_shared, keep only"]),
        "scaled": (("--factor", "2"), ["all_shared, times 2"]),
        "fixed-sets": (("--membership", "0.5"), ["all_shared, membership 0.5"]),
    }  # fmt: skip
    for kind, (options, conditions) in cases.items():
        out = tmp_path / kind
        code, _, err = cli(*shared, "--categories", "all_shared", *options, "--out", out)
        assert code == 0, err
        is_of_half = kind in ("fixed-sets", "dose-response-by-answer")
        found = ng.load(out / "test" / "outcome" if is_of_half else out / "outcome")
        assert isinstance(found, xr.Dataset)
        assert found["condition"].values.tolist() == conditions
        assert group_of(found) == kind
        assert bool(found.attrs["chosen_on"]) == is_of_half


def test_amplify(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    asked = ("amplify", *tiny, "--factors", "2,3", "--draws", "1", "--out", tmp_path / "out")
    code, out, _ = cli(*asked)
    assert code == 0
    assert "the other half" in " ".join(out.split())
    found = ng.load(tmp_path / "out" / "test" / "outcome")
    assert isinstance(found, xr.Dataset)
    tried = ng.load(tmp_path / "out" / "development" / "outcome")
    assert isinstance(tried, xr.Dataset)
    assert not set(found["item"].values) & set(tried["item"].values)
    assert tried["factor"].values.tolist() == [2, 3]
    np.testing.assert_array_equal(found["chosen_from"], [1, 2, 3])
    code, out, _ = cli(*asked, "--json")
    assert json.loads(out)["effects"][0]["condition"].startswith("all_shared, times")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--categories", "shared"], "category 'shared': expected one of"),
        (["--controls", "loud"], "controls=loud"),
        (["--draws", "0"], "draws=0"),
        (["--position", "first"], "unknown position 'first'"),
        (["--doses", "0.5,2"], "top=2.0: expected above 0"),
        (["--doses", "half"], "expected numbers with commas"),
        (["--layers", "0-9"], "from 0 to 2"),
        (["--layers", "1,1"], "different whole numbers"),
        (["--layers", "a"], "--layers 'a': expected numbers and ranges"),
        (["--membership", "2"], "membership=2.0"),
        (["--rank-by", "size"], "rank_by='size'"),
        (["--keep-only", "--factor", "2"], "leave factor= at 0"),
        (["--recording", "none"], "none"),
    ],
)
def test_what_cannot_be_deactivated(
    cli: Cli, tiny: tuple[Path, Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, out, err = cli("deactivate", *tiny, "--out", tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists(), "nothing was run"
