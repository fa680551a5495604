"""Keys and values by the names that versions of transformers have for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from neuroglot.models.forward import _cache_of, _given
from tests.testing import tiny_hf


class New(nn.Module):
    def forward(self, input_ids: Any, cache: Any = None) -> None: ...


class Old(nn.Module):
    def forward(self, input_ids: Any, past_key_values: Any = None) -> None: ...


class Unsaid(nn.Module):
    def forward(self, input_ids: Any, **kwargs: Any) -> None: ...


class NewOutput:
    cache = "kept"

    @property
    def past_key_values(self) -> None:
        raise AssertionError("asking by the old name is deprecated")


def test_outputs_have_them_by_either_name() -> None:
    assert _cache_of(NewOutput()) == "kept"
    assert _cache_of(SimpleNamespace(cache=None, past_key_values="kept")) == "kept"
    with pytest.raises(AttributeError, match="no keys and values"):
        _cache_of(SimpleNamespace(logits=1))


def test_modules_take_them_by_either_name() -> None:
    kept: Any = "kept"
    assert _given(New(), kept) == {"cache": "kept"}
    assert _given(Old(), kept) == {"past_key_values": "kept"}
    hf = tiny_hf("llama")
    assert _given(Unsaid(), kept) == _given(hf, kept), "as everything in this version"
    assert next(iter(_given(hf, kept))) in dict(hf(torch.tensor([[2, 3]]), use_cache=True))
