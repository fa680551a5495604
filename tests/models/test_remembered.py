"""A model is verified once: what was found is kept for the very model that it was found with."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaAttention

import neuroglot as ng
from tests.families import FAMILIES, build
from tests.testing import small_task, tiny_hf, tokenizer


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEUROGLOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


Counter = Callable[[PreTrainedModel], int]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often a model looks up embeddings while it is wrapped: never, where it does not run."""

    def count(hf: PreTrainedModel, **options: Any) -> int:
        seen, embedding = [], torch.nn.functional.embedding

        def counted(*args: Any, **kwargs: Any) -> Any:
            seen.append(1)
            return embedding(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr("torch.nn.functional.embedding", counted)
            ng.wrap_model(hf, tokenizer(), **options)
        return len(seen)

    return count


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "opt-350m", "ctrl", "roberta-decoder"])
def test_the_second_time_nothing_runs_and_all_is_the_same(
    name: str, cache: Path, passes: Counter
) -> None:
    family = FAMILIES[name]
    hf, again = (build(family.architecture, family.config) for _ in range(2))
    assert passes(hf) > 0
    assert passes(again) == 0
    assert len(list(cache.rglob("*.json"))) == 1
    first, second = ng.wrap_model(hf, tokenizer()), ng.wrap_model(again, tokenizer())
    assert first.describe() == second.describe()
    assert [site.path for site in first.sites] == [site.path for site in second.sites]
    one, other = (
        ng.record(model, small_task(), reading=ng.Reading(keep_values=True))
        for model in (first, second)
    )
    np.testing.assert_array_equal(one.values, other.values)


def scaled(hf: PreTrainedModel) -> None:
    with torch.no_grad():
        next(hf.parameters()).view(-1)[0] += 1


def sliding(hf: PreTrainedModel) -> None:
    hf.config.sliding_window = 3


def other_attribute(hf: PreTrainedModel) -> None:
    hf.model.layers[0].self_attn.scaling = 0.7


@pytest.mark.parametrize("change", [scaled, sliding, other_attribute])
def test_another_model_is_verified_anew(
    change: Callable[[PreTrainedModel], None], cache: Path, passes: Counter
) -> None:
    passes(tiny_hf("llama"))
    hf = tiny_hf("llama")
    change(hf)
    assert passes(hf) > 0
    assert len(list(cache.rglob("*.json"))) == 2


def test_a_path_of_the_users_is_verified_by_itself(cache: Path, passes: Counter) -> None:
    hf = tiny_hf("llama")
    passes(hf)
    path = "model.layers.{i}.mlp.down_proj"
    assert passes(hf, down_projection=path) > 0
    assert passes(hf, down_projection=path) == 0
    assert ng.wrap_model(hf, tokenizer(), down_projection=path).describe()["found_by"] == "path"
    with pytest.raises(ng.NeuroglotError, match="are 20 wide"):
        ng.wrap_model(hf, tokenizer(), down_projection="model.layers.{i}.self_attn.o_proj")
    assert cache.exists()


def test_replaced_code_is_verified_each_time(cache: Path, passes: Counter) -> None:
    """Its code has no version by which it could be told from other code."""
    passes(tiny_hf("llama"))
    hf = tiny_hf("llama")
    forward = hf.model.layers[1].mlp.forward
    hf.model.layers[1].mlp.forward = forward  # in the module itself, beside that of its class
    assert passes(hf) > 0
    assert passes(hf) > 0
    hf.model.layers[1].mlp.forward = lambda x: x * 0.5
    with pytest.raises(ng.NeuroglotError, match=r"layers.1.*fired 0 times"):
        ng.wrap_model(hf, tokenizer())
    assert len(list(cache.rglob("*.json"))) == 1


class OfAUser(torch.nn.Module):
    def __init__(self, mlp: torch.nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        self.act_fn = mlp.act_fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def test_classes_of_others_are_verified_each_time(cache: Path, passes: Counter) -> None:
    hf = tiny_hf("llama")
    hf.model.layers[0].mlp = OfAUser(hf.model.layers[0].mlp)
    assert passes(hf) > 0
    assert passes(hf) > 0
    assert not cache.exists()


def test_what_cannot_be_read_counts_as_not_there(cache: Path, passes: Counter) -> None:
    hf = tiny_hf("llama")
    passes(hf)
    (file,) = cache.rglob("*.json")
    whole = file.read_text()
    kept = json.loads(whole)
    for content in (
        "", "{", "[]", "null", whole[:-20], json.dumps(kept | {"found": {}}),
        json.dumps({**kept, "key": kept["key"] | {"weights": "another's"}}),
        json.dumps({**kept, "found": kept["found"] | {"verified": {"longest": 7}}}),
    ):  # fmt: skip
        file.write_text(content)
        assert passes(hf) > 0, content
        assert passes(hf) == 0
    file.write_bytes(b"\xff\xfe")
    assert passes(hf) > 0


def test_what_cannot_be_written_is_found_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: Counter
) -> None:
    hf = tiny_hf("llama")
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", Path("/proc/nowhere"), ""):
        monkeypatch.setenv("NEUROGLOT_CACHE", str(place))
        assert passes(hf) > 0
        assert passes(hf) > 0


def test_versions_and_code_count(
    cache: Path, monkeypatch: pytest.MonkeyPatch, passes: Counter
) -> None:
    hf = tiny_hf("llama")
    passes(hf)
    for name, value in (("torch.__version__", "0"), ("transformers.__version__", "0")):
        with monkeypatch.context() as patch:
            patch.setattr(f"neuroglot.models.remembered.{name}", value)
            assert passes(hf) > 0
    monkeypatch.setattr("neuroglot.models.remembered._code", lambda: "other code")
    assert passes(hf) > 0
    assert len(list(cache.rglob("*.json"))) == 4


def test_a_model_that_fails_is_not_remembered(cache: Path) -> None:
    hf = tiny_hf("llama")
    torch.nn.init.zeros_(hf.model.layers[2].mlp.down_proj.weight)
    for _ in range(2):
        with pytest.raises(ng.NeuroglotError, match=r"zeroing model.layers.2"):
            ng.wrap_model(hf, tokenizer())
    assert not cache.exists()


def test_a_model_that_changes_when_it_runs_is_verified_each_time(
    cache: Path, passes: Counter
) -> None:
    """BigBird goes over to full attention at its first short text, and stays with it."""
    config = FAMILIES["bert-decoder"].config | {"attention_type": "block_sparse", "block_size": 4}
    for _ in range(2):
        hf = build("BigBirdForCausalLM", config)
        try:
            n_passes = passes(hf)
        except ng.NeuroglotError as error:
            if "is not causal" not in str(error):
                raise
            pytest.skip("in this version of transformers BigBird is no decoder")
        assert n_passes > 0
        assert hf.bert.attention_type == "original_full"


def other_function(patch: pytest.MonkeyPatch) -> None:
    name = "transformers.models.llama.modeling_llama.apply_rotary_pos_emb"
    patch.setattr(name, lambda q, k, *_args, **_kwargs: (q, k))


def wrapped_method(patch: pytest.MonkeyPatch) -> None:
    forward = LlamaAttention.forward

    @wraps(forward)
    def other(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    patch.setattr(LlamaAttention, "forward", other)


def registered_attention(patch: pytest.MonkeyPatch) -> None:
    def mine(*args: Any, **kwargs: Any) -> Any:
        return sdpa_attention_forward(*args, **kwargs)

    patch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", mine)


@pytest.mark.parametrize("change", [other_function, wrapped_method, registered_attention])
def test_code_in_the_place_of_a_librarys_is_verified_each_time(
    change: Callable[[pytest.MonkeyPatch], None],
    cache: Path,
    passes: Counter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hf = tiny_hf("llama")
    assert passes(hf) > 0
    assert passes(hf) == 0
    change(monkeypatch)
    assert passes(hf) > 0
    assert passes(hf) > 0
    assert len(list(cache.rglob("*.json"))) == 1
