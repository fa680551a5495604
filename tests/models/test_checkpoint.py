"""What a checkpoint may make load_model read or run: its own safetensors, and no code."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

import neuroglot as ng
from tests.testing import tiny_hf, tokenizer

INDEX = "model.safetensors.index.json"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OUTSIDE = [
    "/etc/weights.safetensors", "../weights.safetensors", "a/../../weights.safetensors",
    "..\\weights.safetensors", "C:\\weights.safetensors", "C:weights.safetensors",
    "\\\\server\\share\\weights.safetensors", "", ".", "..", None, 7, ["model.safetensors"],
]  # fmt: skip


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in two files and an index."""
    here = tmp_path / "model"
    tiny_hf("llama").save_pretrained(here, max_shard_size="8KB")
    tokenizer().save_pretrained(here)
    assert (here / INDEX).is_file()
    return here


def points_to(index: Path, place: object) -> None:
    """Let the index say that its last weight is in another file."""
    content = json.loads(index.read_text())
    content["weight_map"][max(content["weight_map"])] = place
    index.write_text(json.dumps(content))


@pytest.mark.parametrize("place", OUTSIDE)
def test_an_index_may_not_leave_its_folder(
    folder: Path, place: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    points_to(folder / INDEX, place)

    def never(*_args: Any, **_options: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", never)
    with pytest.raises(ng.NeuroglotError, match=f"{INDEX}' names the weights") as caught:
        ng.load_model(folder)
    assert len(str(caught.value)) < 400


def test_other_indices_are_looked_at_too(folder: Path) -> None:
    whole = json.loads((folder / INDEX).read_text())
    (folder / "model.safetensors.index.fp16.json").write_text(json.dumps(whole))
    assert ng.load_model(folder).n_layers == 3
    points_to(folder / "model.safetensors.index.fp16.json", "../weights.safetensors")
    with pytest.raises(ng.NeuroglotError, match=r"index\.fp16\.json' names the weights"):
        ng.load_model(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}', '{"metadata": {}}'])
def test_an_index_that_is_none(folder: Path, content: str) -> None:
    (folder / INDEX).write_text(content)
    with pytest.raises(ng.NeuroglotError, match=f"{INDEX}'"):
        ng.load_model(folder)


def test_an_index_of_something_else_is_nobody_s_concern(folder: Path) -> None:
    (folder / "words.index.json").write_text('{"w1": 3}')
    assert ng.load_model(folder).n_layers == 3


def test_files_below_the_folder_are_inside_it(folder: Path) -> None:
    index = folder / INDEX
    content = json.loads(index.read_text())
    (folder / "parts").mkdir()
    for name in set(content["weight_map"].values()):
        (folder / name).rename(folder / "parts" / name)
    content["weight_map"] = {k: f"parts/{name}" for k, name in content["weight_map"].items()}
    index.write_text(json.dumps(content))
    assert ng.load_model(folder).n_layers == 3


def test_configurations_may_not_name_weights_elsewhere(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for name in ("../model.safetensors", "/etc/model.safetensors", 3):
        (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": name}))
        with pytest.raises(ng.NeuroglotError, match=r"config\.json' names the weights"):
            ng.load_model(folder)


def bomb(file: Path, mark: Path) -> None:
    file.write_bytes(pickle.dumps({"lm_head.weight": Bomb(mark)}))


def test_a_safetensors_index_of_pickles(folder: Path, tmp_path: Path) -> None:
    bomb(folder / "pytorch_model.bin", tmp_path / "mark")
    points_to(folder / INDEX, "pytorch_model.bin")
    with pytest.raises(ng.NeuroglotError, match="allow_pickle"):
        ng.load_model(folder)
    assert not (tmp_path / "mark").exists()


def test_a_configuration_that_names_pickled_weights(folder: Path, tmp_path: Path) -> None:
    bomb(folder / "adapter_model.bin", tmp_path / "mark")
    config = json.loads((folder / "config.json").read_text())
    config["transformers_weights"] = "adapter_model.bin"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ng.NeuroglotError, match="allow_pickle"):
        ng.load_model(folder)
    assert not (tmp_path / "mark").exists()


def test_pickles_that_lie_about_are_left_alone(folder: Path, tmp_path: Path) -> None:
    for name in (
        "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin",
        "tokenizer.pkl", "adapter_model.bin",
    ):  # fmt: skip
        bomb(folder / name, tmp_path / "mark")
    assert ng.load_model(folder).n_layers == 3
    assert not (tmp_path / "mark").exists()


def in_cache(folder: Path, cache: Path) -> Path:
    """Put a model where the Hub's client keeps it: links in a snapshot to files beside it."""
    place = cache / "models--someone--model"
    snapshot = place / "snapshots" / COMMIT
    for part in (snapshot, place / "blobs", place / "refs"):
        part.mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    for i, file in enumerate(sorted(folder.iterdir())):
        (place / "blobs" / str(i)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(i))
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub's client, which asks nobody."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_links_of_the_hub_s_cache_are_followed(folder: Path, cache: Path) -> None:
    snapshot = in_cache(folder, cache)
    by_name, by_folder = ng.load_model("someone/model"), ng.load_model(snapshot)
    assert by_name.fingerprint == by_folder.fingerprint == ng.load_model(folder).fingerprint
    assert (by_name.revision, by_folder.revision) == (COMMIT, None)


def test_repositories_of_the_hub_are_looked_at_as_folders_are(folder: Path, cache: Path) -> None:
    points_to(folder / INDEX, "pytorch_model.bin")
    in_cache(folder, cache)
    with pytest.raises(ng.NeuroglotError, match="allow_pickle"):
        ng.load_model("someone/model")


def test_adapters_inside_a_repository_of_the_hub(folder: Path, cache: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/other"}')
    in_cache(folder, cache)
    with pytest.raises(ng.NeuroglotError, match="holds adapters"):
        ng.load_model("someone/model")


CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({mark!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def with_code(folder: Path, file: str, mark: Path, changes: dict[str, Any]) -> None:
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.Own", None]}},
        ),
    ],
)
def test_code_of_a_checkpoint_never_runs(
    folder: Path, tmp_path: Path, file: str, changes: dict[str, Any]
) -> None:
    with_code(folder, file, tmp_path / "mark", changes)
    with pytest.raises(ng.NeuroglotError) as caught:
        ng.load_model(folder)
    message = str(caught.value)
    assert "trust_remote_code=True" in message
    assert "neuroglot.wrap_model" in message
    assert len(message) < 400
    assert not (tmp_path / "mark").exists()


def test_code_beside_a_known_model_is_not_needed(folder: Path, tmp_path: Path) -> None:
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnLM"}
    with_code(folder, "config.json", tmp_path / "mark", {"auto_map": own})
    assert type(ng.load_model(folder).hf).__name__ == "LlamaForCausalLM"
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("changes", [{"model_type": "nonsense"}, {"model_type": None}])
def test_messages_about_configurations_are_short(folder: Path, changes: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ng.NeuroglotError, match="cannot load model") as caught:
        ng.load_model(folder)
    assert len(str(caught.value)) < 700


def test_a_tokenizer_without_words(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(ng.NeuroglotError, match=r"knows \d words"):
        ng.load_model(folder)


def test_pickled_parts_only_when_asked_for(folder: Path) -> None:
    """The same for a model in several pickled files."""
    parts = json.loads((folder / INDEX).read_text())
    for name in set(parts["weight_map"].values()):
        torch.save(load_file(folder / name), folder / name.replace(".safetensors", ".bin"))
        (folder / name).unlink()
    (folder / INDEX).unlink()
    places = {k: v.replace(".safetensors", ".bin") for k, v in parts["weight_map"].items()}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(parts | {"weight_map": places}))
    with pytest.raises(ng.NeuroglotError, match="allow_pickle"):
        ng.load_model(folder)
    assert ng.load_model(folder, allow_pickle=True).n_layers == 3
    points_to(folder / "pytorch_model.bin.index.json", "../weights.bin")
    with pytest.raises(ng.NeuroglotError, match="names the weights"):
        ng.load_model(folder, allow_pickle=True)


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    name = json.loads((folder / INDEX).read_text())["weight_map"]["lm_head.weight"]
    state = load_file(folder / name)
    state["lm_head.weight"] = state["lm_head.weight"][:-1].clone()
    save_file(state, folder / name, {"format": "pt"})
    with pytest.raises(ng.NeuroglotError, match=r"lm_head|mismatch"):
        ng.load_model(folder)
