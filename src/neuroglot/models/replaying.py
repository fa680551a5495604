"""Repeat a forward pass without running its first layers again, if their outputs are the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import Cache
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


class Replayed:
    """The outputs of a model's first layers, to be reused in passes with the same inputs.

    The first pass within :meth:`running` stores the outputs; later passes take them from there.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layers = layers
        self.outputs: dict[int, Any] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within the block, one forward pass runs."""
        is_kept = bool(self.outputs)
        before = [vars(layer).get("forward") for layer in self.layers]
        for number, layer in enumerate(self.layers):
            layer.forward = self._given(number) if is_kept else self._kept(number, layer.forward)
        try:
            yield
        finally:
            for layer, own in zip(self.layers, before, strict=True):
                del layer.forward  # uncovers the method of its class
                if own is not None:
                    layer.forward = own

    def _given(self, number: int) -> Any:
        return lambda *_, **__: self.outputs[number]

    def _kept(self, number: int, run: Any) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            self.outputs[number] = run(*args, **kwargs)
            return self.outputs[number]

        return forward


def can_be_copied(cache: Cache, n_layers: int) -> bool:
    """Whether a cache holds keys and values of each layer, and never changes them in place."""
    copyable = (DynamicLayer, DynamicSlidingWindowLayer)
    return (
        type(cache) is DynamicCache
        and len(cache.layers) == n_layers
        and all(type(layer) in copyable for layer in cache.layers)
    )


def copied(cache: Cache, first: Cache | None = None, n_layers: int = 0) -> Cache:
    """A copy of a cache, which shares its tensors with the original until one of them changes.

    Args:
        cache: keys and values of a pass.
        first: a cache from which the first layers are taken instead.
        n_layers: how many layers are taken from it.
    """
    new = copy.copy(cache)
    layers = cache.layers if first is None else [*first.layers[:n_layers], *cache.layers[n_layers:]]
    new.layers = [copy.copy(layer) for layer in layers]
    return new
