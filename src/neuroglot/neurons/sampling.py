"""Random neurons, with equal numbers in each layer and stratum."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numba import types

from neuroglot.neurons.members import Mask
from neuroglot.sharing.compiling import compiled

Strata = np.ndarray[Any, np.dtype[np.uint8]]
N_STRATA = 256  # as many as a byte can number

READ_MASK = types.Array(types.boolean, 2, "C", readonly=True)
READ_STRATA = types.Array(types.uint8, 2, "C", readonly=True)
DRAWN = types.Array(types.boolean, 2, "C")


# It keeps the interpreter's lock, because NumPy's generators are not safe for several threads.
@compiled(types.boolean(READ_MASK, READ_MASK, READ_STRATA, DRAWN, types.npy_rng))
def _sample(
    wanted: Mask, pool: Mask, strata: Strata, drawn: Mask, rng: np.random.Generator
) -> bool:
    """Selection sampling: every subset of the right size is equally likely (Knuth, algorithm S)."""
    for layer in range(len(wanted)):
        missing = np.zeros(N_STRATA, np.int64)
        left = np.zeros(N_STRATA, np.int64)
        for neuron in range(wanted.shape[1]):
            stratum = strata[layer, neuron]
            missing[stratum] += wanted[layer, neuron]
            left[stratum] += pool[layer, neuron]
        for stratum in range(N_STRATA):
            if missing[stratum] > left[stratum]:
                return False
        for neuron in range(wanted.shape[1]):
            if pool[layer, neuron]:
                stratum = strata[layer, neuron]
                if rng.random() * left[stratum] < missing[stratum]:
                    drawn[layer, neuron] = True
                    missing[stratum] -= 1
                left[stratum] -= 1
    return True


def sample(
    wanted: Mask, pool: Mask, rng: np.random.Generator, strata: Strata | None = None
) -> Mask | None:
    """Random neurons of a pool, as many as another mask has in each layer and stratum.

    Args:
        wanted: the mask (layer, neuron) that says how many neurons to draw.
        pool: the neurons from which they are drawn (layer, neuron).
        rng: the random numbers; it gives one for each neuron of the pool.
        strata: the stratum of each neuron (layer, neuron); by default all are in one.

    Returns:
        The drawn neurons (layer, neuron), or ``None`` if the pool has too few in a stratum.
    """
    drawn = np.zeros(wanted.shape, np.bool_)
    all_strata = np.zeros(wanted.shape, np.uint8) if strata is None else strata
    read = (np.require(array, requirements=["C", "A"]) for array in (wanted, pool, all_strata))
    return drawn if _sample(*read, drawn, rng) else None


def seed_of(seed: int, *names: str) -> list[int]:
    """A seed for a generator, made of a number and names, such as condition, item and language."""
    digest = hashlib.sha256("\x1f".join(names).encode("utf-8", "surrogatepass")).digest()
    return [seed, int.from_bytes(digest[:8], "big")]
