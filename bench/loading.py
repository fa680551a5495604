"""Loading a model: the first time, when it is verified, and again, beside transformers alone.

``python -m bench loading`` takes a random model; the environment variable ``BENCH_MODEL`` names a
folder with another one, such as a published one.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import neuroglot as ng
from bench import models
from bench.measure import Row, at_most, in_turns, reported

SHAPE = (1024, 8, 8)  # width, layers and heads of the random model


def rows() -> list[Row]:
    """Lines of the table."""
    before = os.environ.get("NEUROGLOT_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        try:
            return _rows(Path(folder))
        finally:
            if before is None:
                os.environ.pop("NEUROGLOT_CACHE", None)
            else:
                os.environ["NEUROGLOT_CACHE"] = before


def _rows(folder: Path) -> list[Row]:
    named = os.environ.get("BENCH_MODEL")
    if not named:
        model = models.bloom(*SHAPE)
        model.hf.save_pretrained(folder / "model")
        model.tokenizer.save_pretrained(folder / "model")
    place = named or str(folder / "model")

    def alone() -> None:
        AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
        AutoTokenizer.from_pretrained(place)

    def anew() -> None:
        os.environ["NEUROGLOT_CACHE"] = ""  # nothing is remembered
        ng.load_model(place, device="cpu")

    def again() -> None:
        os.environ["NEUROGLOT_CACHE"] = str(folder / "cache")
        ng.load_model(place, device="cpu")

    seconds = in_turns({"alone": alone, "anew": anew, "again": again})
    what = f"loading {Path(named).name if named else 'a random BLOOM'}"
    note = "transformers: model and tokenizer"
    first = reported(f"{what}, first time", seconds["anew"], seconds["alone"], note)
    if not named:  # it loads in an instant, beside which what never grows with a model shows
        return [first, reported(f"{what}, again", seconds["again"], seconds["alone"], note)]
    return [first, at_most(f"{what}, again", seconds["again"], seconds["alone"], 1.1, note)]
