"""The commands about alignment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import neuroglot as ng
from tests.cli.conftest import Cli
from tests.testing import small_task, tiny_model

SHORT = ("--steps", "4", "--pairs", "4", "--checks", "2", "--learning-rate", "0.01")


def test_align_and_compare(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "aligned"
    asked = ("align", *tiny, "--method", "sharing", *SHORT, "--out", out)
    code, said, err = cli(*asked)
    assert code == 0, err
    assert "weights have changed" in said
    assert "all-shared" in said
    assert {"model", "runs", "alignment", "training", "report.html", "figures"} <= {
        path.name for path in out.iterdir()
    }
    assert (out / "figures" / "alignment.png").exists()
    code, said, err = cli(*asked, "--json")
    assert code == 0
    assert "step/s" not in err, "what is finished is not trained again"
    rows = json.loads(said)["checks"]
    assert [row["step"] for row in rows] == [0, 2, 4]
    found = ng.load(out / "alignment")
    expected = float(found["accuracy"].sel(check=4, part="trained"))
    assert rows[-1]["trained"] == pytest.approx(expected)

    steps = [out / "runs" / f"step-{n:06d}" for n in (0, 2, 4)]
    code, said, err = cli("compare", *steps, "-x", "step", "--out", tmp_path / "compared")
    assert code == 0, err
    assert "step-000004" in said
    assert "what neurons became" in said
    figures = {path.name for path in (tmp_path / "compared" / "figures").glob("*.png")}
    kinds = ("flow", "series", "change-by-layer", "sharing-and-accuracy")
    assert {f"{kind}-compared.png" for kind in kinds} <= figures
    named = (f"before={steps[0]}", f"after={steps[2]}")
    code, said, _ = cli("compare", *named, "--out", tmp_path / "compared", "--json")
    assert code == 0, "a comparison takes the place of another"
    assert [row["run"] for row in json.loads(said)["runs"]] == ["before", "after"]
    flow = json.loads(said)["flow"]["after"]
    assert len(flow) == 16
    assert sum(row["of_all"] for row in flow) == pytest.approx(1)
    code, _, err = cli("report", out, "--out", tmp_path / "page.html")
    assert code == 0, err


def test_lora_from_the_command_line(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    out = tmp_path / "aligned"
    code, said, err = cli("align", *tiny, "--method", "translation", "--lora", *SHORT, "--out", out)
    assert code == 0, err
    assert str((out / "model").resolve()) in said.replace("\n", "")
    assert (out / "model" / "adapter_config.json").exists()
    assert cli("check", out / "model")[0] == 0


def test_a_mask_from_a_file(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    chosen = np.zeros((3, 20), bool)
    chosen[1, :4] = True
    ng.NeuronSet(chosen).save(tmp_path / "some.neurons")
    mask, out = tmp_path / "some.neurons", tmp_path / "aligned"
    asked = ("align", *tiny, "--method", "unpaired", "--mask", mask, *SHORT, "--out", out)
    code, said, err = cli(*asked)
    assert code == 0, err
    assert f"{4 * 3 * 16} of" in said, "rows of gate and up, and value vectors"


def test_bad_input(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "aligned"
    cases = [
        (("align", *tiny, "--method", "magic", "--out", out), "unknown method 'magic'"),
        (("align", *tiny, "--out", out), "--method"),
        (("align", *tiny, "--method", "unpaired", "--steps", "0", "--out", out), "steps=0"),
        (("align", *tiny, "--method", "unpaired", "--train-languages", "en,xx", "--out", out),
         "languages=en, xx"),
        (("align", *tiny, "--method", "unpaired", "--mask", tmp_path / "none", "--out", out),
         "none"),
        (("align", *tiny, "--method", "unpaired", "--seed", "4294967296", "--out", out),
         "seed=4294967296"),
        (("compare", tmp_path), "at least two runs"),
        (("compare", tmp_path, tiny[0]), "lacks 'recording'"),
        (("compare", f"a={tmp_path}", f"a={tiny[0]}"), "different names"),
    ]  # fmt: skip
    for asked, message in cases:
        code, _, err = cli(*asked)
        assert code == 2
        assert message in err
        assert "Traceback" not in err
    assert not out.exists()


def test_runs_without_lineage_say_so(cli: Cli, tmp_path: Path) -> None:
    task = small_task(22)
    for seed, some in ((0, task), (1, task), (2, task.first(20))):
        model, out = tiny_model("llama", seed), tmp_path / f"run{seed}"
        ng.record(model, some, out=out / "recording")
        ng.evaluate(model, some, out=out / "answers")
    runs = (tmp_path / "run0", tmp_path / "run1")
    code, said, _ = cli("compare", *runs, "--out", tmp_path / "compared")
    assert code == 0
    assert "--lineage" in said
    code, said, _ = cli("compare", *runs, "--lineage", "--out", tmp_path / "compared")
    assert code == 0
    assert "--lineage" not in said
    code, _, err = cli("compare", runs[0], tmp_path / "run2", "--out", tmp_path / "other")
    assert code == 2
    assert "differ in task_checksum" in err
