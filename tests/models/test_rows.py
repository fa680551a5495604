"""The forward pass is the model's own, and no row of a batch depends on the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor, nn

import neuroglot as ng
from neuroglot.models.forward import first_position, run_logits
from neuroglot.models.rotary import longest_text, noting_calls
from tests.families import CONTEXT, FAMILIES, GROUPED, SIZES, TOKENS, VOCABULARY, build
from tests.testing import tiny_hf, tokenizer

SHORT = 24  # the longest text before the factors of long rope change
ROPE = {
    "dynamic": ("LlamaForCausalLM", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
    "longrope": (
        "Phi3ForCausalLM",
        {
            "original_max_position_embeddings": SHORT,
            "rope_scaling": {
                "rope_type": "longrope",
                "short_factor": [1.0, 1.3, 1.6, 2.0],
                "long_factor": [2.0, 4.0, 8.0, 16.0],
                "original_max_position_embeddings": SHORT,
            },
        },
    ),
}
STEADY = {
    "linear": {"rope_type": "linear", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": SHORT},
    "llama3": {
        "rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": SHORT,
    },
}  # fmt: skip
LONGEST = {"dynamic": CONTEXT - 1, "longrope": SHORT}
# Before, the factors of one long text stay for all that follow, and the model is refused.
GO_BACK = Version(transformers.__version__) >= Version("5.13")
BOUNDED = [kind for kind in ROPE if GO_BACK or kind != "dynamic"]


def rope_hf(kind: str) -> transformers.PreTrainedModel:
    architecture, config = ROPE[kind]
    return build(architecture, SIZES | GROUPED | TOKENS | config)


def task_of_lengths(*lengths: int) -> ng.ParallelTask:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in rng.integers(2, VOCABULARY, n)) for n in lengths]
    records = [{"id": str(n), "prompts": {"en": text, "de": text}} for n, text in enumerate(texts)]
    return ng.ParallelTask.from_records(records, name="lengths")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_a_plain_call(name: str, side: str) -> None:
    """Each text of a ragged batch gets what the model gives for its tokens and a mask alone."""
    family = FAMILIES[name]
    hf = build(family.architecture, family.config)
    ng.wrap_model(hf, tokenizer())
    texts = [torch.arange(3, 3 + n) for n in (7, 2, 5)]
    ids, mask = torch.zeros(3, 7, dtype=torch.long), torch.zeros(3, 7, dtype=torch.bool)
    for row, text in enumerate(texts):
        at = slice(7 - len(text), None) if side == "left" else slice(len(text))
        ids[row, at], mask[row, at] = text, True
    with torch.inference_mode():
        ours = run_logits(hf, ids, mask)
        for row, text in enumerate(texts):
            own = hf(input_ids=text[None], attention_mask=torch.ones(1, len(text))).logits[0]
            torch.testing.assert_close(ours[row][mask[row]], own, atol=1e-4, rtol=1e-3)


def test_positions_begin_after_the_one_of_padding() -> None:
    roberta = FAMILIES["roberta-decoder"]
    for padding in (1, 3):
        hf = build(roberta.architecture, roberta.config | {"pad_token_id": padding})
        assert first_position(hf) == first_position(hf.base_model) == padding + 1
        assert ng.wrap_model(hf, tokenizer()).context_length == CONTEXT + 2 - padding - 1
    # The token embeddings of Llama have a padding token, too, and may be as many as positions.
    llama = build("LlamaForCausalLM", FAMILIES["llama"].config | {"vocab_size": CONTEXT})
    assert llama.get_input_embeddings().padding_idx is not None
    assert first_position(llama) == 0


def test_another_way_of_numbering_positions_is_refused() -> None:
    hf = tiny_hf("gpt2")
    run = hf.transformer.forward

    def forward(input_ids: Tensor, position_ids: Tensor | None = None, **given: Any) -> Any:
        if position_ids is None:
            position_ids = 2 * torch.arange(input_ids.shape[1])[None]
        return run(input_ids=input_ids, position_ids=position_ids, **given)

    hf.transformer.forward = forward
    with pytest.raises(ng.NeuroglotError, match="positions counted from 0"):
        ng.wrap_model(hf, tokenizer())


def test_a_body_that_runs_otherwise_by_itself_is_refused() -> None:
    hf = tiny_hf("llama")
    head = hf.forward

    def forward(input_ids: Tensor, **given: Any) -> Any:
        embeddings = hf.get_input_embeddings()(input_ids) * 2
        return head(inputs_embeds=embeddings, **given)

    hf.forward = forward
    with pytest.raises(ng.NeuroglotError, match="does not run its body"):
        ng.wrap_model(hf, tokenizer())


@pytest.mark.skipif(GO_BACK, reason="in these versions of transformers they go back")
def test_factors_that_never_go_back_are_refused() -> None:
    with pytest.raises(ng.NeuroglotError, match="longest text that it has read so far"):
        ng.wrap_model(rope_hf("dynamic"), tokenizer())


@pytest.mark.parametrize("kind", BOUNDED)
def test_factors_that_depend_on_the_longest_text_bound_the_context(kind: str) -> None:
    hf = rope_hf(kind)
    if kind == "longrope":
        with pytest.warns(UserWarning, match=f"has more than {SHORT} tokens"):
            model = ng.wrap_model(hf, tokenizer())
    else:
        model = ng.wrap_model(hf, tokenizer())
    assert model.context_length == model.longest == LONGEST[kind]
    assert model.describe()["factors_change_beyond"] == LONGEST[kind]
    with pytest.raises(ng.NeuroglotError, match=f"context holds {LONGEST[kind]}"):
        ng.record(model, task_of_lengths(5, LONGEST[kind] + 1))


@pytest.mark.parametrize("kind", ROPE)
def test_the_bound_is_the_right_one(kind: str) -> None:
    """A text of that length leaves another alone, and one of two tokens more does not."""
    hf = rope_hf(kind)
    short = torch.arange(3, 8)[None]

    def logits_beside(length: int) -> Tensor:
        """Of the short text, in a batch with one of this length."""
        ids, mask = torch.full((2, length), 7), torch.zeros(2, length, dtype=torch.bool)
        ids[0, :5], mask[0, :5], mask[1] = short, True, True
        with torch.inference_mode():
            return run_logits(hf, ids, mask)[0, :5]

    alone = logits_beside(5)
    torch.testing.assert_close(logits_beside(LONGEST[kind]), alone, atol=1e-4, rtol=1e-4)
    assert (logits_beside(LONGEST[kind] + 2) - alone).abs().max() > 1e-3


@pytest.mark.parametrize("kind", BOUNDED)
@pytest.mark.parametrize("batch_size", [2, 4, "auto"])
def test_a_long_text_changes_no_other(kind: str, batch_size: Any) -> None:
    model = ng.wrap_model(rope_hf(kind), tokenizer())
    task = task_of_lengths(4, LONGEST[kind], 9, 6, 15)
    alone = ng.record(model.with_batch_size(1), task, reading=ng.Reading(keep_values=True))
    # What was run before, by whomever, leaves no trace.
    with torch.inference_mode():
        model.hf(torch.full((1, 2 * CONTEXT), 5))
    together = ng.record(
        model.with_batch_size(batch_size), task, reading=ng.Reading(keep_values=True)
    )
    np.testing.assert_allclose(together.values, alone.values, atol=1e-4)


@pytest.mark.parametrize("kind", STEADY)
def test_factors_that_are_the_same_for_all_lengths_bound_nothing(kind: str) -> None:
    scaling = {"rope_scaling": STEADY[kind]}
    hf = build("LlamaForCausalLM", FAMILIES["llama"].config | scaling)
    model = ng.wrap_model(hf, tokenizer())
    assert model.longest is None
    assert model.context_length == CONTEXT


class _Rotary(nn.Module):
    """Factors for a length instead of positions, as code of some checkpoints makes them."""

    def __init__(self, bound: int | None) -> None:
        super().__init__()
        self.bound = bound
        self.longest = 0

    def forward(self, x: Tensor, seq_len: int) -> Tensor:
        self.longest = max(self.longest, seq_len)
        long = self.longest if self.bound is None else seq_len > self.bound
        return torch.ones(seq_len, x.shape[-1]) * (1 + 0.5 * long)


def with_rotary(bound: int | None) -> transformers.PreTrainedModel:
    hf = tiny_hf("gpt2")
    hf.transformer.rotary = _Rotary(bound)
    norm = hf.transformer.ln_f.forward
    hf.transformer.ln_f.forward = lambda x: norm(x) * hf.transformer.rotary(x, seq_len=x.shape[-2])
    return hf


def test_factors_for_a_length_are_looked_at_too() -> None:
    assert ng.wrap_model(with_rotary(30), tokenizer()).longest == 30
    assert ng.wrap_model(with_rotary(10**9), tokenizer()).longest is None


def test_factors_that_remember_the_longest_text_ever_are_refused() -> None:
    hf = with_rotary(None)
    with noting_calls(hf) as calls, torch.inference_mode():
        hf(torch.arange(2, 6)[None])
    with pytest.raises(ng.NeuroglotError, match="the longest text that it has read so far"):
        longest_text(hf, calls)
    # In most models padding shows it before.
    with pytest.raises(ng.NeuroglotError, match="padding on the left changes"):
        ng.wrap_model(with_rotary(None), tokenizer())


class _Turned(nn.Module):
    """Hidden states turned by their positions, which come first in what it gives if so chosen."""

    def __init__(self, *, positions_first: bool) -> None:
        super().__init__()
        self.positions_first = positions_first

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        turned = x * (1 + 0.1 * positions[..., None].cos())
        return turned.transpose(0, 1) if self.positions_first else turned


@pytest.mark.parametrize("positions_first", [True, False])
def test_factors_that_take_hidden_states_bound_nothing(positions_first: bool) -> None:
    hf = tiny_hf("gpt2")
    turned = hf.transformer.turned = _Turned(positions_first=positions_first)
    norm = hf.transformer.ln_f.forward

    def forward(x: Tensor) -> Tensor:
        turned(x, torch.arange(x.shape[1])[None])
        return norm(x)

    hf.transformer.ln_f.forward = forward
    assert ng.wrap_model(hf, tokenizer()).longest is None


def test_what_cannot_be_called_with_more_positions_is_refused() -> None:
    class Fixed(nn.Module):
        def forward(self, positions: Tensor) -> Tensor:
            return positions * torch.ones(4)

    hf = tiny_hf("gpt2")
    fixed = hf.transformer.fixed = Fixed()
    with noting_calls(hf) as calls:
        fixed(torch.arange(4)[None])
    with pytest.raises(ng.NeuroglotError, match=r"Fixed.*cannot be called with one more"):
        longest_text(hf, calls)


class _BesideOthers(nn.Module):
    """A norm after which every row takes up a little of all others."""

    def __init__(self, norm: nn.Module, share: float) -> None:
        super().__init__()
        self.norm, self.share = norm, share

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        return normed + self.share * normed.mean(dim=0, keepdim=True)


@pytest.mark.parametrize("share", [0.001, 0.1])
def test_rows_that_disturb_each_other_without_quantised_layers_are_refused(share: float) -> None:
    hf = tiny_hf("llama")
    hf.model.norm = _BesideOthers(hf.model.norm, share)
    with pytest.raises(ng.NeuroglotError, match="without quantised layers nothing is expected"):
        ng.wrap_model(hf, tokenizer())


@pytest.mark.parametrize("window", ["sliding_window", "attention_chunk_size"])
def test_a_cache_that_forgets_what_attention_would_see_is_not_shared(window: str) -> None:
    """A configuration may name a window that only the cache heeds, as one left from elsewhere."""
    model = ng.wrap_model(build("LlamaForCausalLM", FAMILIES["llama"].config | {window: 9}),
                          tokenizer())  # fmt: skip
    assert not model.shares_cache
    assert getattr(model.hf.config, window) == 9
    beginning = " ".join(f"w{i}" for i in range(2, 22))
    prompts = [{"en": f"{beginning} w{i}", "de": f"{beginning} w{i} w9"} for i in range(30, 33)]
    choices = {language: ["w40 w41", "w42 w43 w44"] for language in ("en", "de")}
    records = [
        {"id": str(i), "prompts": p, "choices": choices,
         "answers": dict.fromkeys(("en", "de"), "w40 w41")}
        for i, p in enumerate(prompts)
    ]  # fmt: skip
    task = ng.ParallelTask.from_records(records, name="beginnings")
    alone, together = (
        ng.record(model.with_batch_size(size), task, reading=ng.Reading(keep_values=True))
        for size in (1, "auto")
    )
    np.testing.assert_allclose(together.values, alone.values, atol=1e-4)
    found = ng.evaluate(model, task).log_prob[0, 0, 0]
    ids = torch.tensor([tokenizer()(f"{prompts[0]['en']} w40 w41").input_ids])
    with torch.inference_mode():
        logs = model.hf(ids, use_cache=False).logits[0].log_softmax(dim=-1)
    expected = logs[-3, ids[0, -2]] + logs[-2, ids[0, -1]]
    assert float(found) == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("name", ["mistral", "gemma3", "starcoder2", "olmo3"])
def test_windows_that_attention_heeds_leave_the_cache_shared(name: str) -> None:
    family = FAMILIES[name]
    hf = build(family.architecture, family.config | {"sliding_window": 30})
    assert ng.wrap_model(hf, tokenizer()).shares_cache
    assert hf.config.sliding_window == 30


def test_what_is_written_is_that_of_whole_texts_where_a_cache_is_not() -> None:
    """A window that was left over in a configuration cuts the cache and not the attention."""
    hf = build("LlamaForCausalLM", FAMILIES["llama"].config | {"sliding_window": 6})
    model = ng.wrap_model(hf, tokenizer())
    assert not model.shares_cache
    prompt = "w5 w9 w3 w7 w2 w8 w11 w4 w6 w10"
    ids = torch.tensor([tokenizer()(prompt).input_ids])
    with torch.inference_mode():
        for _ in range(8):
            last = hf(ids, use_cache=False).logits[:, -1]
            ids = torch.cat([ids, last.argmax(dim=-1, keepdim=True)], dim=1)
    expected = tokenizer().decode(ids[0, 10:], skip_special_tokens=True)
    prompts = {"en": prompt, "de": "w4 w4"}
    task = ng.ParallelTask.from_records(
        [{"id": "0", "prompts": prompts, "answers": {"en": "w1", "de": "w1"}}], name="t"
    )
    found = ng.evaluate(model, task, answering=ng.Answering(max_new_tokens=8))
    assert str(found["text"].sel(language="en").item()).split() == expected.split()


def test_layers_that_round_by_the_whole_batch_are_told_of() -> None:
    hf = tiny_hf("llama")
    norm = hf.model.norm.forward

    def rounded(x: Tensor) -> Tensor:
        step = x.abs().max() / 127
        return norm((x / step).round() * step)

    hf.model.norm.forward = rounded
    hf.is_quantized = True
    with pytest.warns(UserWarning, match="results depend a little on the batch size"):
        model = ng.wrap_model(hf, tokenizer())
    assert 0 < model.noise < 0.1
    assert model.describe()["changed_by_others"] == model.noise
    assert ng.wrap_model(tiny_hf("llama"), tokenizer()).noise == 0
