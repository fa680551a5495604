"""What tells models apart: any bit of any weight, what is computed with them, and the tokenizer."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    ByT5Tokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

import neuroglot as ng
from neuroglot.interventions.presets import deactivate
from neuroglot.models import identity
from tests.families import FAMILIES, build
from tests.testing import small_task, tiny_hf, tiny_model, tokenizer

LLAMA = FAMILIES["llama"].config


def tensors_of(hf: PreTrainedModel) -> list[torch.Tensor]:
    return [*hf.parameters(), *hf.buffers()]


@pytest.mark.parametrize("seed", range(10))
def test_every_flipped_bit_is_noticed(seed: int) -> None:
    """Twenty of two hundred random bits, in parameters and buffers of random families."""
    rng = np.random.default_rng(seed)
    for name in rng.choice(sorted(FAMILIES), 20):
        hf = build(FAMILIES[name].architecture, FAMILIES[name].config, int(rng.integers(1000)))
        before = identity.weights_checksum(hf)
        tensors = [tensor for tensor in tensors_of(hf) if tensor.numel()]
        tensor = tensors[rng.integers(len(tensors))]
        content = (
            tensor.data.view(torch.uint8) if tensor.ndim else tensor.data[None].view(torch.uint8)
        )
        place = tuple(int(rng.integers(n)) for n in content.shape)
        bit = 1 << int(rng.integers(8))
        # Booleans hold nothing but 0 and 1.
        bit = 1 if tensor.dtype == torch.bool else bit
        content[place] ^= bit
        assert identity.weights_checksum(hf) != before, (name, tensor.shape, place, bit)
        content[place] ^= bit
        assert identity.weights_checksum(hf) == before


def in_place(hf: PreTrainedModel) -> dict[str, Callable[[], object]]:
    """Ways to change a loaded model."""
    layer: Any = hf.model.layers[1]
    down = layer.mlp.down_proj.weight
    neuron = torch.zeros_like(down)
    neuron[:, 3] = 1e-3

    def write(change: Callable[[], object]) -> Callable[[], object]:
        return torch.no_grad()(change)

    return {
        "through data": down.data[:, 1::4].zero_,
        "one neuron": write(lambda: down.sub_(neuron)),
        "two neurons exchanged": write(lambda: down.copy_(down[:, [1, 0, *range(2, 20)]])),
        "another tensor": lambda: setattr(layer.mlp.down_proj, "weight", nn.Parameter(down * 2)),
        "a state dict": lambda: hf.load_state_dict(
            {name: value + 1 for name, value in hf.state_dict().items()}
        ),
        "a buffer": write(lambda: hf.model.rotary_emb.inv_freq.mul_(1.01)),
    }


@pytest.mark.parametrize("how", list(in_place(tiny_hf("llama"))))
def test_changes_after_loading_are_noticed(how: str, tmp_path: Path) -> None:
    hf = tiny_hf("llama")
    model, task = ng.wrap_model(hf, tokenizer(), name="x"), small_task(2)
    before = model.fingerprint
    recording = ng.record(model, task, out=tmp_path / "r")
    answers = ng.evaluate(model, task, out=tmp_path / "a")
    in_place(hf)[how]()
    assert model.fingerprint != before
    for again in (
        lambda: ng.record(model, task, out=tmp_path / "r"),
        lambda: ng.evaluate(model, task, out=tmp_path / "a"),
        lambda: ng.attribute(model, task, recording=recording),
        lambda: deactivate(model, task, recording),
        lambda: ng.describe(model, layer=0, neuron=0, recording=recording),
    ):
        with pytest.raises(ng.NeuroglotError, match="model_weights"):
            again()
    fresh = ng.record(model, task)
    with pytest.raises(ng.NeuroglotError, match="model_weights"):
        ng.attribute(model, task, recording=fresh, answers=answers)


COMPUTING: dict[str, dict[str, Any]] = {
    "rope_theta": {"rope_theta": 500.0},
    "rms_norm_eps": {"rms_norm_eps": 1e-2},
    "hidden_act": {"hidden_act": "gelu"},
    "heads": {"num_attention_heads": 4, "head_dim": 8, "num_key_value_heads": 1},
    "end": {"eos_token_id": 5},
    "context": {"max_position_embeddings": 40},
}
IDLE: dict[str, dict[str, Any]] = {
    "dropout": {"attention_dropout": 0.5},
    "initialisation": {"initializer_range": 0.5},
    "cache": {"use_cache": False},
    "labels": {"num_labels": 7},
}


def of_config(**change: Any) -> PreTrainedModel:
    """A tiny Llama of these settings with the weights of the ordinary one, where they fit."""
    hf = build("LlamaForCausalLM", LLAMA | {"head_dim": 8} | change)
    weights = build("LlamaForCausalLM", LLAMA | {"head_dim": 8}).state_dict()
    fits = all(weights[name].shape == value.shape for name, value in hf.state_dict().items())
    if fits:
        hf.load_state_dict(weights)
    return hf


@pytest.mark.parametrize("change", COMPUTING.values(), ids=list(COMPUTING))
def test_what_computes_counts(change: dict[str, Any], tmp_path: Path) -> None:
    one, other = (ng.wrap_model(of_config(**x), tokenizer(), name="x") for x in ({}, change))
    assert one.identity.config != other.identity.config
    assert one.fingerprint != other.fingerprint
    ng.record(one, small_task(2), out=tmp_path / "r")
    with pytest.raises(ng.NeuroglotError, match=r"configuration \(model_config\)"):
        ng.record(other, small_task(2), out=tmp_path / "r")


@pytest.mark.parametrize("change", IDLE.values(), ids=list(IDLE))
def test_what_computes_nothing_does_not_count(change: dict[str, Any]) -> None:
    one, other = (ng.wrap_model(of_config(**x), tokenizer(), name="x") for x in ({}, change))
    assert one.identity == other.identity


def test_attributes_of_modules_count() -> None:
    """Most modules never look at the configuration again once they are made."""
    hf = tiny_hf("llama")
    before = identity.config_checksum(hf, tokenizer())
    hf.model.norm.variance_epsilon = 0.5
    assert identity.config_checksum(hf, tokenizer()) != before
    hf = tiny_hf("llama")
    hf.model.layers[0].mlp.act_fn = nn.ReLU()
    assert identity.config_checksum(hf, tokenizer()) != before


def doubled(factor: float) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return factor * type(self).forward(self, x)

    return forward


def test_code_that_was_put_into_a_module_counts() -> None:
    found = set()
    for function in (
        None,
        lambda mlp: MethodType(doubled(2.0), mlp),
        lambda mlp: MethodType(doubled(3.0), mlp),
        lambda mlp: partial(doubled(2.0), mlp),
        lambda _mlp: lambda x: x * 0.5,
        lambda _mlp: lambda x: x * 0.25,
        lambda _mlp: lambda x: x + 0.5,
    ):
        hf = tiny_hf("llama")
        mlp = hf.model.layers[1].mlp
        if function is not None:
            mlp.forward = function(mlp)
        found.add(identity.config_checksum(hf, tokenizer()))
        assert identity.config_checksum(hf, tokenizer()) in found  # the same again
    assert len(found) == 7


def test_a_forward_put_into_a_class_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    hf = tiny_hf("llama")
    before = identity.config_checksum(hf, tokenizer())
    kind = type(hf.model.layers[1].mlp)
    monkeypatch.setattr(kind, "forward", lambda self, x: x)
    assert identity.config_checksum(hf, tokenizer()) != before


def test_names_that_only_look_idle_count() -> None:
    settings = ("output_multiplier", "token_dropout", "logit_scale", "attention_multiplier")
    for name in settings:
        assert identity._computing({name: 0.1}) != identity._computing({name: 0.9})
    for name in ("resid_pdrop", "attention_dropout", "hidden_dropout_prob", "layerdrop"):
        assert identity._computing({name: 0.1}) == {}


def test_rotary_factors_that_follow_the_text_do_not_count() -> None:
    """Long texts leave other factors behind than short ones, with the same weights."""
    rope = {
        "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 4, "rope_theta": 10_000.0,
    }  # fmt: skip
    hf = build("LlamaForCausalLM", LLAMA | {"head_dim": 8, "rope_parameters": rope})
    before = identity.weights_checksum(hf)
    for length in (8, 3):
        with torch.inference_mode():
            hf(torch.arange(2, 2 + length)[None])
        assert identity.weights_checksum(hf) == before


def test_the_limit_that_prompts_are_cut_to_counts(tmp_path: Path) -> None:
    own, task = words(), small_task(3)
    chosen = ng.Tokenization(truncate=True)
    model = ng.wrap_model(tiny_hf("llama"), own, name="x", tokenization=chosen)
    own.model_max_length = 8
    ng.record(model, task, out=tmp_path / "r")
    own.model_max_length = 3
    with pytest.raises(ng.NeuroglotError, match="truncate: there 8, now 3"):
        ng.record(model, task, out=tmp_path / "r")


def test_a_tokenizer_that_draws_at_random_is_refused() -> None:
    pieces = {"<end>": 0, "<unk>": 1} | {chr(97 + i): i + 2 for i in range(26)} | {"ab": 28}
    inner = Tokenizer(models.BPE(pieces, [("a", "b")], dropout=0.5, unk_token="<unk>"))
    own = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", pad_token="<end>")
    model = ng.wrap_model(tiny_hf("llama"), own, name="x")
    task = ng.ParallelTask.from_records(
        [{"id": "i", "prompts": {"en": "abab", "de": "ab"}}], name="t"
    )
    with pytest.raises(ng.NeuroglotError, match="draws tokens at random"):
        ng.record(model, task)
    own.backend_tokenizer.model.dropout = None
    assert len(ng.record(model, task)) == 1


def test_the_precision_of_products_is_part_of_a_result(tmp_path: Path) -> None:
    model, task = tiny_model("llama"), small_task(2)
    recording = ng.record(model, task, out=tmp_path / "r")
    torch.set_float32_matmul_precision("medium")
    try:
        for join in (
            lambda: ng.record(model, task, out=tmp_path / "r"),
            lambda: ng.attribute(model, task, recording=recording),
        ):
            with pytest.raises(ng.NeuroglotError, match="float32_matmul_precision"):
                join()
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_use_and_saving_change_nothing(name: str, tmp_path: Path) -> None:
    hf = build(FAMILIES[name].architecture, FAMILIES[name].config)
    model, task = ng.wrap_model(hf, tokenizer(), name="x"), small_task(2, "en de")
    before = model.identity
    ng.record(model, task)
    ng.evaluate(model.with_batch_size(2), task)
    assert model.identity == before
    hf.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert identity.identity(loaded, tokenizer()) == before
    assert identity.identity(copy.deepcopy(hf), tokenizer()) == before


def words(**parts: Any) -> PreTrainedTokenizerFast:
    """The tests' tokenizer with other parts."""
    vocabulary = {"<end>": 0, "<unk>": 1} | {f"w{i}": i for i in range(2, 64)}
    inner = Tokenizer(models.WordLevel(parts.pop("vocabulary", vocabulary), unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    for name, part in parts.items():
        setattr(inner, name, part)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", pad_token="<end>")


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "vocabulary": lambda: words(
        vocabulary={"<end>": 0, "<unk>": 1} | {f"w{65 - i}": i for i in range(2, 64)}
    ),
    "normaliser": lambda: words(normalizer=normalizers.Lowercase()),
    "pre-tokenizer": lambda: words(pre_tokenizer=pre_tokenizers.WhitespaceSplit()),
    "decoder": lambda: words(decoder=decoders.Replace("w", "v")),
    "another kind": ByT5Tokenizer,
}


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=list(TOKENIZERS))
def test_tokenizers_count_as_they_tokenise(make: Callable[[], Any]) -> None:
    assert identity.tokenizer_checksum(words()) == identity.tokenizer_checksum(tokenizer())
    assert identity.tokenizer_checksum(make()) != identity.tokenizer_checksum(words())
    assert identity.tokenizer_checksum(make()) == identity.tokenizer_checksum(make())


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    hf, task = tiny_hf("llama"), small_task(2)
    ng.record(ng.wrap_model(hf, words(), name="x"), task, out=tmp_path / "r")
    other = words(normalizer=normalizers.Replace("w9", "w10"))
    with pytest.raises(ng.NeuroglotError, match="tokenizer_checksum"):
        ng.record(ng.wrap_model(hf, other, name="x"), task, out=tmp_path / "r")


def test_using_a_tokenizer_changes_nothing() -> None:
    used = words()
    before = identity.tokenizer_checksum(used)
    used(["w2 w3", "w4"], padding=True, truncation=True, max_length=2)
    assert identity.tokenizer_checksum(used) == before
    used.add_tokens(["w100"])
    assert identity.tokenizer_checksum(used) != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
def test_the_tally_of_an_accelerator_sees_bytes_and_places(dtype: torch.dtype) -> None:
    tensor = torch.randint(3, (37, 11)).to(dtype)
    before = identity.tally(tensor)
    assert identity.tally(tensor.clone()) == before
    assert identity.tally(tensor.flip(0)) != before
    content = tensor.view(torch.uint8)
    for place in [(0, 0), (36, content.shape[1] - 1), (17, 5)]:
        content[place] ^= 1
        assert identity.tally(tensor) != before
        content[place] ^= 1


def test_what_was_seen_of_an_accelerator_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for tensors that are not on the CPU: their bytes are copied from there only once."""
    monkeypatch.setattr(identity, "_content", identity._kept)
    copied: list[tuple[int, ...]] = []
    content = identity._bytes

    def counted(tensor: torch.Tensor) -> Any:
        copied.append(tuple(tensor.shape))
        return content(tensor)

    monkeypatch.setattr(identity, "_bytes", counted)
    hf = tiny_hf("llama")
    before, n_tensors = identity.weights_checksum(hf), len(copied)
    assert identity.weights_checksum(hf) == before
    assert len(copied) == n_tensors
    hf.model.layers[1].mlp.down_proj.weight.data[0, 0] += 1
    assert identity.weights_checksum(hf) != before
    assert len(copied) == n_tensors + 1


class Packed(torch.Tensor):
    """A quantised weight as libraries make them: parts that only it can put together."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Packed:
        made: Packed = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=torch.float32)
        made.inner = inner
        return made

    def __tensor_flatten__(self) -> tuple[list[str], str]:
        return ["inner"], "int8"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].inner)
        if func is torch.ops.aten.t.default:
            return args[0].inner.float().t()
        if func in (torch.ops.aten.linear.default, torch.ops.aten.addmm.default):
            args = [x.inner.float() if isinstance(x, Packed) else x for x in args]
            return func(*args)
        raise NotImplementedError(f"{cls} has no {func}")


def test_quantised_weights_without_views_are_identified() -> None:
    hf = tiny_hf("llama")
    before = identity.weights_checksum(hf)
    inner = torch.randint(-9, 9, (20, 16), dtype=torch.int8)
    hf.model.layers[0].mlp.up_proj.weight = nn.Parameter(Packed(inner), requires_grad=False)
    packed = identity.weights_checksum(hf)
    assert packed != before
    inner[3, 3] += 1
    assert identity.weights_checksum(hf) != packed
    recording = ng.record(ng.wrap_model(hf, tokenizer(), name="x"), small_task(2))
    assert len(recording) == 2


def test_results_with_the_old_fingerprint_can_be_read_only(tmp_path: Path) -> None:
    model, task = tiny_model("llama"), small_task(3)
    ng.record(model, task, out=tmp_path / "r")
    ng.evaluate(model, task, out=tmp_path / "a")
    for name in ("r", "a"):
        group = zarr.open_group(tmp_path / name, mode="r+", use_consolidated=False)
        kept = {key: value for key, value in group.attrs.items() if key not in NEW}
        group.attrs.clear()
        group.attrs.update(kept | {"model_weights": "0123456789abcdef"})
    recording: Any = ng.load(tmp_path / "r")
    answers: Any = ng.load(tmp_path / "a")
    assert ng.classify(recording)["fraction"].sizes["item"] == 3
    ng.report(
        {"old/sharing": ng.classify(recording), "old/answers": answers}, out=tmp_path / "p.html"
    )
    fresh = ng.record(model, task)
    for join in (
        lambda: ng.record(model, task, out=tmp_path / "r"),
        lambda: ng.evaluate(model, task, out=tmp_path / "a"),
        lambda: ng.attribute(model, task, recording=recording),
        lambda: ng.attribute(model, task, recording=fresh, answers=answers),
        lambda: deactivate(model, task, recording),
        lambda: ng.describe(model, layer=0, neuron=0, recording=recording),
        lambda: ng.compare({"one": (recording, answers), "two": (recording, answers)}),
        lambda: ng.category_flow(recording, fresh, lineage=True),
        lambda: ng.compare([recording, recording]),
    ):
        with pytest.raises(ng.NeuroglotError, match="earlier version of neuroglot"):
            join()
    shutil.rmtree(tmp_path / "r")
    assert len(ng.record(model, task, out=tmp_path / "r")) == 3


NEW = ("model_config", "tokenizer_checksum", "prompts_checksum")


def dated() -> tuple[ng.Model, ng.ParallelTask]:
    """A model whose chat template writes the day of the month, as Llama's and Granite's do."""
    own = words()
    own.chat_template = (
        "{{ 'w' + strftime_now('%-d') + ' ' }}"
        "{% for turn in messages %}{{ turn['content'] }}{% endfor %}{{ ' w40 ' }}"
    )
    chosen = ng.Tokenization(chat_template=True)
    return ng.wrap_model(tiny_hf("llama"), own, name="x", tokenization=chosen), small_task(4)


class Clock:
    """Stands for the class that templates ask for the time."""

    day = 3

    @classmethod
    def now(cls, *_: Any) -> Any:
        import datetime  # noqa: PLC0415

        return datetime.datetime(2025, 1, cls.day)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    import transformers.utils.chat_template_utils as chat  # noqa: PLC0415

    monkeypatch.setattr(chat, "datetime", Clock)
    monkeypatch.setattr(Clock, "day", 3)
    return Clock


def test_a_template_with_a_date_makes_other_prompts(tmp_path: Path, clock: type[Clock]) -> None:
    model, task = dated()
    first = ng.record(model, task, out=tmp_path / "r", reading=ng.Reading(keep_values=True))
    answers = ng.evaluate(model, task, out=tmp_path / "a")
    clock.day = 4
    fresh = ng.record(model, task, reading=ng.Reading(keep_values=True))
    assert not np.array_equal(first.values, fresh.values)
    for join in (
        lambda: ng.record(model, task, out=tmp_path / "r", reading=ng.Reading(keep_values=True)),
        lambda: ng.evaluate(model, task, out=tmp_path / "a"),
        lambda: ng.attribute(model, task, recording=first),
        lambda: ng.attribute(model, task, recording=fresh, answers=answers),
        lambda: deactivate(model, task, first),
    ):
        with pytest.raises(ng.NeuroglotError, match="prompts_checksum"):
            join()
    clock.day = 3
    assert np.array_equal(
        first.values, ng.record(model, task, reading=ng.Reading(keep_values=True)).values
    )


@pytest.mark.parametrize("run", [ng.record, ng.evaluate])
def test_midnight_is_noticed(run: Callable[..., Any], tmp_path: Path, clock: type[Clock]) -> None:
    model, task = dated()
    rendered = []
    render = model.tokenizer.apply_chat_template

    def rendering(*args: Any, **kwargs: Any) -> Any:
        rendered.append(1)
        clock.day = 3 if len(rendered) <= 2 * 12 + 5 else 4
        return render(*args, **kwargs)

    model.tokenizer.apply_chat_template = rendering  # type: ignore[method-assign]
    with pytest.raises(ng.NeuroglotError, match="at the end than at the beginning"):
        run(model, task, out=tmp_path / "x")
    with pytest.raises(ng.NeuroglotError, match=r"unfinished|prompts_checksum"):
        ng.load(tmp_path / "x")


def test_a_function_as_edit_has_no_equal(tmp_path: Path) -> None:
    """Recorded within ``Model.editing``, what is edited is not taken for the model's own."""
    model, task = tiny_model("llama"), small_task(2)
    with model.units().editing(lambda _layer, values: values * 0):
        edited = ng.record(model, task, out=tmp_path / "r", reading=ng.Reading(site="coefficient"))
    with pytest.raises(ng.NeuroglotError, match="edits"):
        ng.record(model, task, out=tmp_path / "r", reading=ng.Reading(site="coefficient"))
    with pytest.raises(ng.NeuroglotError, match="edits"):
        ng.attribute(model, task, recording=edited)
    with (
        model.units().editing(lambda _layer, values: values * 0),
        pytest.raises(ng.NeuroglotError, match="edits"),
    ):
        ng.record(model, task, out=tmp_path / "r", reading=ng.Reading(site="coefficient"))


def test_offloaded_weights_count_too(tmp_path: Path) -> None:
    import accelerate  # noqa: PLC0415

    hf, task = tiny_hf("llama"), small_task(3)
    here = ng.wrap_model(hf, tokenizer(), name="x")
    before, expected = here.identity, ng.record(here, task, out=tmp_path / "r")
    answers = ng.evaluate(here, task, out=tmp_path / "a")
    away: Any = accelerate.disk_offload(
        copy.deepcopy(hf), str(tmp_path / "w"), torch.device("cpu"), offload_buffers=True
    )
    model = ng.wrap_model(away, tokenizer(), name="x")
    assert all(parameter.is_meta for parameter in away.parameters())
    assert model.identity == before
    assert str(model.device) == "cpu"
    found = ng.record(model, task)
    assert np.array_equal(found.bits(0.0), expected.bits(0.0))
    # The same numbers at other places in memory are added up in another order.
    np.testing.assert_allclose(ng.evaluate(model, task)["log_prob"], answers["log_prob"], rtol=1e-5)
    # Both are of one model, wherever its weights are.
    assert np.array_equal(ng.record(model, task, out=tmp_path / "r").bits(0.0), expected.bits(0.0))


class Gained(nn.Linear):
    """A layer of a user's own, which keeps what it computes with as it likes."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__(inner.in_features, inner.out_features, bias=False)
        self.weight = inner.weight
        self.scaling, self._alpha, self.output_gain = {"default": 1.0}, 1.0, 1.0
        self._parts, self.tables = [torch.ones(2)], {"a": torch.ones(2)}


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.scaling.update(default=2.0),
        lambda layer: setattr(layer, "_alpha", 2.0),
        lambda layer: setattr(layer, "output_gain", 2.0),
        lambda layer: layer._parts[0].add_(1),
        lambda layer: layer.tables["a"].add_(1),
    ],
)
def test_what_a_layer_of_a_users_own_keeps_counts(change: Callable[[Any], object]) -> None:
    hf = tiny_hf("llama")
    layer = Gained(hf.model.layers[0].self_attn.q_proj)
    hf.model.layers[0].self_attn.q_proj = layer
    before = identity.weights_checksum(hf), identity.config_checksum(hf, tokenizer())
    assert before == (identity.weights_checksum(hf), identity.config_checksum(hf, tokenizer()))
    change(layer)
    assert before != (identity.weights_checksum(hf), identity.config_checksum(hf, tokenizer()))


def test_which_layers_share_weights_counts() -> None:
    hf = tiny_hf("llama")
    attentions = [layer.self_attn for layer in hf.model.layers]
    attentions[2].q_proj = attentions[0].q_proj
    before = identity.weights_checksum(hf)
    attentions[2].q_proj = attentions[1].q_proj
    assert identity.weights_checksum(hf) != before


def test_a_configuration_of_the_body_alone_counts() -> None:
    hf = build("Gemma3ForCausalLM", FAMILIES["gemma3"].config)
    before = identity.config_checksum(hf, tokenizer())
    own = copy.deepcopy(hf.config)
    own.layer_types = ["full_attention"] * 3
    hf.model.config = own
    assert identity.config_checksum(hf, tokenizer()) != before
