"""Of models that take pictures beside text, the text part is loaded; it is exactly theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, SiglipVisionConfig

import neuroglot as ng
from neuroglot.models.forward import run_logits
from neuroglot.models.multimodal import keep_text_part
from neuroglot.running.writing import generate
from tests.models.multimodal import FAMILIES, multimodal_hf
from tests.testing import small_task, tokenizer

RAGGED = torch.tensor([[2, 9, 33, 17, 5, 48, 21], [0, 0, 0, 0, 7, 55, 3]])
LEFT = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1]])


def saved(hf: PreTrainedModel, folder: Path) -> Path:
    hf.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@torch.no_grad()
def from_text(hf: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Logits of the whole model, which is told nothing but the text."""
    logits: torch.Tensor = hf(input_ids=ids, attention_mask=mask).logits
    return logits


@pytest.fixture(scope="module", params=FAMILIES)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PreTrainedModel, ng.Model]:
    """The whole model of each family, and what is loaded from its folder."""
    whole = multimodal_hf(request.param)
    folder = saved(whole, tmp_path_factory.mktemp(request.param))
    return whole, ng.load_model(folder, device="cpu")


Both = tuple[PreTrainedModel, ng.Model]


def test_the_text_part_computes_what_the_whole_model_does(both: Both) -> None:
    whole, model = both
    for ids, mask in ((RAGGED, LEFT), (RAGGED.flip(1), LEFT.flip(1))):
        expected = from_text(whole, ids, mask)
        for found in (run_logits(model.hf, ids, mask.bool()), from_text(model.hf, ids, mask)):
            difference = (found - expected)[mask.bool()].abs().max()
            assert difference <= 1e-5
    assert (model.n_layers, model.n_neurons) == (3, 20)


def test_only_the_text_part_is_kept(both: Both) -> None:
    whole, model = both
    text: Any = whole
    expected = {*text.get_decoder().parameters(), *text.get_output_embeddings().parameters()}
    assert sum(p.numel() for p in model.hf.parameters()) == sum(p.numel() for p in expected)


def test_everything_runs_as_on_the_whole_model(both: Both) -> None:
    """Recording, shared beginnings of choices, and writing, on prompts of ragged lengths."""
    whole, model = both
    by_hand = ng.wrap_model(whole, tokenizer(), name="whole")
    task = small_task()
    for site in ("gate", "coefficient"):
        active = ng.record(by_hand, task, reading=ng.Reading(site=site)).dataset["active"]
        assert (
            ng.record(model, task, reading=ng.Reading(site=site)).dataset["active"].equals(active)
        )
    found, expected = (ng.evaluate(m, task)["log_prob"].values for m in (model, by_hand))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    prompts = ["w5 w9 w30", "w7", "w11 w12 w13 w14 w15 w16"]
    for rows, found_texts in generate(model.with_batch_size(2), prompts, prompts, prompts, 4):
        for row, written in zip(rows, found_texts, strict=True):
            assert written.text == greedy(whole, prompts[row], 4)


def greedy(hf: Any, prompt: str, n: int) -> str:
    """What the whole model writes after one prompt alone, a token at a time, without a cache."""
    ids = tokenizer()(prompt).input_ids
    begin = len(ids)
    for _ in range(n):
        given = torch.tensor([ids])
        ids = [*ids, int(from_text(hf, given, torch.ones_like(given))[0, -1].argmax())]
        if ids[-1] == 0:
            break
    return str(tokenizer().decode(ids[begin:], skip_special_tokens=True))


@pytest.mark.parametrize("family", ["llava", "qwen2.5-vl"])
def test_a_saved_text_part_is_loaded_again(family: str, tmp_path: Path) -> None:
    whole = multimodal_hf(family)
    model = ng.load_model(saved(whole, tmp_path / "whole"), device="cpu")
    again = ng.load_model(saved(model.hf, tmp_path / "text"), device="cpu")
    expected = from_text(whole, RAGGED, LEFT)[LEFT.bool()]
    assert torch.equal(from_text(again.hf, RAGGED, LEFT)[LEFT.bool()], expected)


def test_missing_weights_of_the_text_part_are_never_made_up(tmp_path: Path) -> None:
    saved(multimodal_hf("mistral3"), tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    gone = next(name for name in state if "language_model" in name and "1.mlp.up_proj" in name)
    save_file({k: v for k, v in state.items() if k != gone}, file, {"format": "pt"})
    with pytest.raises(ng.NeuroglotError, match=r"lacks weights: .*layers.1.mlp.up_proj.weight"):
        ng.load_model(tmp_path)


def test_what_writes_no_text_is_refused_in_one_line(tmp_path: Path) -> None:
    SiglipVisionConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ng.NeuroglotError, match=r"neuroglot\.wrap_model") as caught:
        ng.load_model(tmp_path)
    assert len(str(caught.value)) < 400


def test_a_part_that_the_text_goes_through_is_kept() -> None:
    hf: Any = multimodal_hf("llava")
    forward, projector = hf.model.forward, hf.model.multi_modal_projector

    def looks_at_pictures_always(*args: Any, **options: Any) -> Any:
        hf.model.multi_modal_projector(torch.zeros(1, 4, 16))
        return forward(*args, **options)

    hf.model.forward = looks_at_pictures_always
    before = from_text(hf, RAGGED, LEFT)
    keep_text_part(hf)
    assert hf.model.multi_modal_projector is projector
    assert hf.model.vision_tower is None
    assert torch.equal(from_text(hf, RAGGED, LEFT), before)
