"""The command line as a person meets it: what it prints, where it stops, with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

import neuroglot as ng
from neuroglot.reporting.kinds.answers import accuracy_rows
from tests.cli.conftest import Cli
from tests.tasks.published import LANGUAGES, write_published
from tests.tasks.test_published import DATA


def test_help_names_every_command(cli: Cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    for command in (
        *("demo", "run", "check", "tasks", "record", "classify", "evaluate", "fragility"),
        *("attribute", "agreement", "describe", "report"),
    ):
        assert command in out
        assert cli(command, "--help")[0] == 0


def test_check(cli: Cli, tiny: tuple[Path, Path]) -> None:
    code, out, _ = cli("check", tiny[0])
    assert code == 0
    assert "model.layers.0.mlp.down_proj" in out
    code, out, _ = cli("check", tiny[0], "--json")
    found = json.loads(out)
    assert found["layers"] == 3
    assert found["neurons_per_layer"] == 20
    assert (found["special_tokens"], found["norm_after_ffn"]) == (1, False)


def test_check_says_yes_and_no(cli: Cli, tiny: tuple[Path, Path]) -> None:
    lines = cli("check", tiny[0], "--no-special-tokens", "--truncate")[1].splitlines()
    assert "special tokens     no" in lines
    assert "truncate           yes" in lines
    assert "norm after ffn     no" in lines
    assert "chat template      –" in lines


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"neuroglot {ng.__version__}\n", "")


def test_tasks(cli: Cli) -> None:
    assert "facts" in cli("tasks")[1]
    assert "CC BY-NC 4.0" in cli("tasks")[1]
    rows = json.loads(cli("tasks", "--json")[1])
    assert {row["task"]: row["summary"] for row in rows} == ng.list_tasks()
    xcopa = next(row for row in rows if row["task"] == "xcopa")
    assert len(xcopa["languages"]) == 11
    assert "Ponti et al. 2020" in xcopa["citation"]


def test_record_classify_report(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    model, task = tiny
    code, out, _ = cli("record", model, task, "--dry-run", "--thresholds", "0,0.1")
    assert code == 0
    assert out.startswith("66 prompts, ")
    code, _, err = cli("record", model, task)
    assert code == 2
    assert "--out" in err
    code, _, _ = cli("record", model, task, "--out", tmp_path / "r", "--thresholds", "0,0.1")
    assert code == 0
    recording = ng.load(tmp_path / "r")
    assert isinstance(recording, ng.Recording)
    assert recording.thresholds == (0.0, 0.1)
    code, out, _ = cli("classify", tmp_path / "r", "--json", "--out", tmp_path / "sharing")
    rows = json.loads(out)["categories"]
    assert sum(row["fraction"] for row in rows) == pytest.approx(1)
    code, out, _ = cli("report", tmp_path / "sharing", "--out", tmp_path / "page.html")
    assert code == 0
    assert (tmp_path / "page.html").exists()
    code, _, err = cli("report", f"b={tmp_path / 'sharing'}", "--out", tmp_path / "page.html")
    assert code == 2
    assert "--overwrite" in err


def test_run_goes_on_and_does_not_mix(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    model, task = tiny
    command = ("run", model, task, "--out", tmp_path / "run")
    code, out, _ = cli(*command)
    assert code == 0
    assert "accuracy by language" in out
    assert (tmp_path / "run" / "report.html").exists()
    code, again, _ = cli(*command)
    assert (code, again) == (0, out)
    code, _, err = cli(*command, "--limit", "21")
    assert code == 2
    assert "other settings" in err
    assert cli(*command, "--limit", "21", "--overwrite")[0] == 0
    code, out, _ = cli(*command, "--limit", "21", "--json")
    assert json.loads(out)["results"][0]["run"] == "small"


def test_evaluate(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    model, task = tiny
    code, out, _ = cli("evaluate", model, task, "--json", "--out", tmp_path / "e", "--limit", "9")
    assert code == 0
    rows = json.loads(out)["accuracy"]
    assert [row["language"] for row in rows] == ["en", "de", "th"]
    assert all(row["taught_prompts"] + row["held_out_prompts"] == 9 for row in rows)
    # Of nine items, each third is held out of English.
    assert [row["held_out_prompts"] for row in rows] == [3, 0, 0]
    out = cli("evaluate", model, task, "--limit", "9")[1]
    assert "taught" in out
    assert "held out" in out
    assert "majority" in out
    assert "6 + 3" in out


def test_every_answer_as_csv(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    command = ("evaluate", *tiny, "--predictions", tmp_path / "a.csv", "--choice-score", "mean")
    assert cli(*command)[0] == 0
    assert len(pd.read_csv(tmp_path / "a.csv")) == 66
    code, _, err = cli(*command)
    assert code == 2
    assert "--overwrite" in err
    assert cli(*command, "--overwrite")[0] == 0
    code, _, err = cli("evaluate", *tiny, "--predictions", tmp_path / "nowhere" / "a.csv")
    assert code == 2
    assert "no folder" in err


def test_fragility(cli: Cli, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    code, out, _ = cli("fragility", *tiny, "--limit", "5", "--out", tmp_path / "f")
    assert code == 0
    assert "bfloat16" in out
    code, out, _ = cli("fragility", *tiny, "--limit", "5", "--json")
    rows = json.loads(out)["fragility"]
    assert [row["changed"] for row in rows] == ["other batch size", "bfloat16"]
    assert ng.load(tmp_path / "f").attrs["kind"] == "fragility"


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Qwen3 and the tokenizer of the embedded models."""
    folder = tmp_path_factory.mktemp("models") / "qwen3"
    tokens = ng.load_model("embedded/base").tokenizer
    tokens.model_max_length = 4096
    config = Qwen3Config(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=4096,
        eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", LANGUAGES)
def test_published_tasks_run_on_a_folder(
    cli: Cli, qwen3: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_published(name, tmp_path / "data")
    run = ("run", qwen3, name, "--path", tmp_path / "data", "--limit", "20")
    code, out, err = cli(*run, "--max-new-tokens", "4", "--out", tmp_path / "run")
    assert code == 0, err
    assert "accuracy by language" in out
    assert ("token f1" in out) == (name in {"mzsre", "xquad"})  # of numbers it says nothing
    answers = ng.load(tmp_path / "run" / "answers")
    assert ("f1" in pd.read_csv(tmp_path / "run" / "report.items.csv")) == ("token f1" in out)
    if "token f1" in out:
        rows = accuracy_rows(answers)
        assert [row["token_f1"] for row in rows] == pytest.approx(answers["f1"].mean("item").values)
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert set(table["language"]) == set(LANGUAGES[name])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "figure-1" in page
    if name in {"mpararel", "xcopa"}:
        assert f"neuroglot: note: {name}: " in err  # what was done to the items
        assert "task_notes" in page


def test_how_choices_are_drawn_is_chosen(cli: Cli, qwen3: Path, tmp_path: Path) -> None:
    write_published("mpararel", tmp_path)
    run = ("evaluate", qwen3, "mpararel", "--path", tmp_path, "--languages", "en,de", "--json")
    _, default, said = cli(*run)
    assert "(distractors='proportional')" in said
    assert "5 items of P47 are left out" in said
    _, before, said = cli(*run, "--distractors", "uniform", "--relations", "all")
    assert "(distractors='uniform')" in said
    assert "left out" not in said
    checksums = [json.loads(out)["provenance"]["task_checksum"] for out in (default, before)]
    assert checksums[0] != checksums[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", LANGUAGES)
def test_published_data_run_on_a_folder(cli: Cli, qwen3: Path, name: str, tmp_path: Path) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"the published files of {name} are not at {DATA / name}")
    run = ("run", qwen3, name, "--path", DATA / name, "--limit", "20", "--max-new-tokens", "4")
    assert cli(*run, "--out", tmp_path / "run")[0] == 0
    assert len(pd.read_csv(tmp_path / "run" / "predictions.csv")) % 20 == 0


def test_prompts_and_tokens_are_chosen(cli: Cli, qwen3: Path, tmp_path: Path) -> None:
    write_published("xnli", tmp_path)
    run = ("evaluate", qwen3, "xnli", "--path", tmp_path, "--json", "--no-special-tokens")
    code, out, _ = cli(*run, "--template", "{premise} / {hypothesis} =", "--padding-side", "left")
    assert code == 0
    provenance = json.loads(out)["provenance"]
    assert provenance["template"] == "{premise} / {hypothesis} ="
    assert (provenance["special_tokens"], provenance["padding_side"]) == (0, "left")
    code, _, err = cli(*run, "--chat-template")
    assert code == 2
    assert "no chat template" in err
    code, _, err = cli(*run, "--padding-side", "middle")
    assert code == 2
    assert "expected 'left', 'right'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "embedded/huge"], "there are embedded/base, embedded/aligned"),
        (["check", "./nowhere"], "cannot load model"),
        (["evaluate", "embedded/base", "nothing"], "unknown task 'nothing'; there are facts"),
        (["evaluate", "embedded/base", "facts", "--languages", "en,xx"], "no language xx"),
        (["evaluate", "embedded/base", "facts", "--batch-size", "many"], "expected 'auto'"),
        (
            ["record", "embedded/base", "facts", "--dry-run", "--thresholds", "a"],
            "expected numbers",
        ),
        (["classify", "nowhere"], "holds no result"),
        (
            ["evaluate", "embedded/base", "xnli", "--path", "nowhere"],
            "path (--path) 'nowhere' does not exist; expected the folder that holds the published "
            "files of xnli ('xnli.test.tsv').",
        ),
        (["evaluate", "embedded/base", "facts", "--path", "."], "is read from no folder"),
        (
            ["record", "embedded/base", "facts", "--dry-run", "--distractors", "uniform"],
            "draws no distractors and leaves out no relations; leave distractors (--distractors) "
            "out.",
        ),
        (
            ["evaluate", "embedded/base", "mpararel", "--relations", "some"],
            "unknown relations 'some'; there are single, all.",
        ),
        (["evaluate", "embedded/base", "facts", "--choice-score", "best"], "there are sum, mean"),
        (["evaluate", "embedded/base", "facts", "--max-new-tokens", "0"], "at least 1"),
        (["evaluate", "embedded/base", "facts", "--template", "{x}"], "there are native, shared"),
        (["report", "nowhere"], "'nowhere' holds no saved result, and no folder in it does."),
        (["report", "one=nowhere"], "'nowhere' holds no saved result"),
        (["report", "a/b=nowhere"], "expected RUN=PATH, with a name that has no slash"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    cli: Cli, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*arguments)
    assert code == 2
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("neuroglot: ")
    assert message in last
    assert "Traceback" not in err


@pytest.mark.concurrent
def test_interrupted(cli: Cli, tiny: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ng, "evaluate", stop)
    code, _, err = cli("evaluate", *tiny)
    assert code == 130
    assert "stopped" in err


@pytest.mark.slow
def test_the_installed_command_runs() -> None:
    command = Path(sys.executable).parent / "neuroglot"
    if not command.exists():
        pytest.skip("neuroglot is not installed here")

    def run(argument: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, argument], capture_output=True, text=True, timeout=300, check=False
        )

    done = run("tasks")
    assert done.returncode == 0
    assert "facts" in done.stdout
    wrong = run("nonsense")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_arguments_of_the_chat_template(cli: Cli, tiny: tuple[Path, Path]) -> None:
    model, task = tiny
    tokens = AutoTokenizer.from_pretrained(model)
    tokens.chat_template = "{% if loud %}w7 {% endif %}w{{ n }} {{ messages[0].content }} "
    tokens.save_pretrained(model)
    command = ("evaluate", model, task, "--limit", "2", "--json", "--chat-template")
    given = ("--template-argument", "loud=true", "--template-argument", 'n="9"')
    attrs = json.loads(cli(*command, *given)[1])["provenance"]
    assert attrs["template_arguments"] == '{"loud": true, "n": "9"}'
    for argument, message in (
        ("loud", "expected NAME=VALUE"),
        ("loud=True", "the value is no JSON; write true or false"),
        ("load=true", "takes no argument load; there are loud, n."),
    ):
        code, _, err = cli(*command, "--template-argument", argument)
        assert code == 2
        assert message in err.splitlines()[-1]


def test_added_tokens_are_left_out_where_it_is_asked(cli: Cli, tiny: tuple[Path, Path]) -> None:
    model, task = tiny
    command = ("record", model, task, "--limit", "2", "--no-added-tokens", "--json")
    out = ("--out", model.parent / "r")
    attrs = json.loads(cli(*command, *out, "--position", "all")[1])["provenance"]
    assert (attrs["position"], attrs["added_tokens"]) == ("all", 0)
    code, _, err = cli(*command, *out)
    assert code == 2
    assert "leaves tokens out of position 'all'" in err
