"""Categories from packed bits, beside the time to sum those bytes once from memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import xarray as xr

import neuroglot as ng
from bench.measure import Row, at_most, in_turns, reported
from neuroglot.sharing import baselines, kernels
from neuroglot.sharing.bits import category_counts

N_LANGUAGES, N_LAYERS, N_NEURONS = 10, 30, 16_384
WHAT = "sum of the bytes as words, one thread"


def random_recording(n_items: int) -> ng.Recording:
    """A recording of random bits, three in eight of which are set."""
    rng = np.random.default_rng(0)
    shape = (1, n_items, N_LANGUAGES, N_LAYERS, N_NEURONS // 64)
    words = rng.integers(0, 2**64, size=shape, dtype=np.uint64)
    words &= rng.integers(0, 2**64, size=shape, dtype=np.uint64) | (words >> np.uint64(1))
    known = {"model": "random", "task": "random", "template": "", "n_neurons": N_NEURONS}
    return ng.Recording(
        xr.Dataset(
            {"active": (("threshold", "item", "language", "layer", "byte"), words.view(np.uint8))},
            coords={
                "threshold": [0.0],
                "item": [str(i) for i in range(n_items)],
                "language": [f"l{i}" for i in range(N_LANGUAGES)],
                "layer": list(range(N_LAYERS)),
            },
            attrs=known,
        )
    )


def _most_memory(recording: ng.Recording) -> float:
    """MB that classifying takes at most, as NumPy asks for it."""
    tracemalloc.start()
    ng.classify(recording)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1e6


def rows(n_items: int = 1000) -> list[Row]:
    """Lines of the table."""
    recording = random_recording(n_items)
    bits = recording.bits()
    words = kernels.as_words(bits)
    shape = (N_LANGUAGES, N_LAYERS, N_NEURONS)
    active, members = np.zeros(shape, np.int32), np.zeros((3, *shape[1:]), np.int32)
    counts = np.random.default_rng(0).integers(0, n_items, shape, np.int32)
    seconds = in_turns(
        {
            "sum": words.sum,
            "fractions": lambda: category_counts(bits, N_NEURONS),
            "overlap": lambda: kernels.intersections(words),
            "active": lambda: kernels.add_active(words, active),
            "membership": lambda: kernels.add_members(words, members),
            "shuffled": lambda: baselines.shuffled_fraction(counts, n_items),
            "classify": lambda: ng.classify(recording),
        }
    )
    floor = seconds["sum"]
    memory = _most_memory(recording)
    return [
        at_most("category fractions", seconds["fractions"], floor, 2.5, WHAT),
        reported("… overlap of languages, active", seconds["overlap"], floor, WHAT),
        reported("… rates of neurons", seconds["active"], floor, WHAT),
        reported("… membership, repetition", seconds["membership"], floor, WHAT),
        reported("… items shuffled, from the rates", seconds["shuffled"], floor, WHAT),
        at_most("classify, all of these", seconds["classify"], floor, 15, WHAT),
        Row("… memory beside the recording", memory, 500, memory / 500, "< 500 MB", memory < 500,
            f"MB, {bits.nbytes / 1e6:.0f} MB of bits"),
    ]  # fmt: skip
