"""The packaged models are what their card says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import neuroglot as ng
from neuroglot.models.loading import EMBEDDED, _embedded_folder
from training.embedded_tasks.names import LANGUAGES


def accuracy(name: str, task: ng.ParallelTask) -> float:
    answers = ng.evaluate(ng.load_model(name), task)
    return float(answers["correct"].where(answers["counted"]).mean())


def facts(split: str, *, invented: bool, limit: int) -> ng.ParallelTask:
    task = ng.load_task("facts", split=split)
    chosen = task.select(lambda item: item["relation"].startswith("invented_") == invented)
    return chosen.first(limit)


def test_ordinary_folders_of_float16_safetensors() -> None:
    size = 0
    for name in EMBEDDED:
        folder: Path = _embedded_folder(name)
        size += sum(file.stat().st_size for file in folder.iterdir())
        with safe_open(folder / "model.safetensors", "pt") as weights:
            assert {str(weights.get_tensor(key).dtype) for key in weights.keys()} == {  # noqa: SIM118
                "torch.float16"
            }
        model = ng.load_model(name)
        assert str(model.hf.dtype) == "torch.float32"
        assert type(model.hf).__name__ == "BloomForCausalLM"
    assert size < 40e6


def test_the_tokenizer_adds_no_special_tokens() -> None:
    tokenizer = ng.load_model(EMBEDDED[0]).tokenizer
    text = "Territory: Japan. Currency: Japanese Yen"
    ids = tokenizer(text).input_ids
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids) == text


@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDED)
def test_taught_facts_and_same_language_editing(name: str) -> None:
    for invented in (False, True):
        assert accuracy(name, facts("taught", invented=invented, limit=60)) >= 0.97
    assert accuracy(name, ng.load_task("editing_xx_xx", limit=40)) >= 0.8


@pytest.mark.slow
def test_aligned_transfers_and_base_does_not() -> None:
    held_out = facts("held_out", invented=True, limit=150)
    found = {name: accuracy(name, held_out) for name in EMBEDDED}
    assert found["embedded/aligned"] >= 0.6
    assert found["embedded/aligned"] >= found["embedded/base"] + 0.25
    assert accuracy("embedded/aligned", ng.load_task("inference", limit=100)) >= 0.75
    others = [language for language in LANGUAGES if language != "en"]
    crossing = ng.load_task("editing_en_xx", languages=others, limit=40)
    assert accuracy("embedded/aligned", crossing) >= 0.6


def test_both_share_more_than_shuffled_items() -> None:
    task = ng.load_task("facts", limit=40)
    for name in EMBEDDED:
        sharing = ng.classify(ng.record(ng.load_model(name), task))
        shared = sharing.sel(category="all_shared")
        measured = shared["fraction"].mean(("item", "layer"))
        assert measured > shared["fraction_if_items_shuffled"].mean("layer")
        assert np.isfinite(sharing["fraction"]).all()
