"""Run a pass again whose first layers are not changed, without running these again."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import Cache
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


class Replayed:
    """What some first layers gave in a pass, for passes of the same inputs.

    The first pass within :meth:`running` is kept; those that follow take its outputs.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layers = layers
        self.outputs: dict[int, Any] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within the block, one pass runs."""
        is_kept = bool(self.outputs)
        before = [vars(layer).get("forward") for layer in self.layers]
        for number, layer in enumerate(self.layers):
            layer.forward = self._given(number) if is_kept else self._kept(number, layer.forward)
        try:
            yield
        finally:
            for layer, own in zip(self.layers, before, strict=True):
                del layer.forward  # that of its class is there again, or what stood before it
                if own is not None:
                    layer.forward = own

    def _given(self, number: int) -> Any:
        def forward(*_: Any, **__: Any) -> Any:
            return self.outputs[number]

        return forward

    def _kept(self, number: int, run: Any) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            self.outputs[number] = run(*args, **kwargs)
            return self.outputs[number]

        return forward


def can_be_copied(cache: Cache, n_layers: int) -> bool:
    """Whether there are keys and values of each layer, and nothing that is changed in place."""
    known = (DynamicLayer, DynamicSlidingWindowLayer)
    return (
        type(cache) is DynamicCache
        and len(cache.layers) == n_layers
        and all(type(layer) in known for layer in cache.layers)
    )


def copied(cache: Cache, first: Cache | None = None, n_layers: int = 0) -> Cache:
    """Keys and values of their own, which share their numbers until they change.

    Args:
        cache: of a pass.
        first: that the first layers are taken from instead.
        n_layers: how many these are.
    """
    found = copy.copy(cache)
    found.layers = [
        copy.copy(first.layers[i] if first is not None and i < n_layers else layer)
        for i, layer in enumerate(cache.layers)
    ]
    return found
