"""Convert a model to another number type."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import chain

import torch

from neuroglot.errors import NeuroglotError
from neuroglot.models.model import Model


def in_dtype(model: Model, dtype: torch.dtype) -> Model:
    """A copy of a model with the number types that it has when it is loaded in ``dtype``.

    Raises:
        NeuroglotError: the model's weights are quantised or offloaded, or it is being edited.
    """
    model.require_unedited()  # the hooks would be copied too
    parameters = list(model.hf.parameters())
    if any(p.is_meta for p in parameters) or not all(p.is_floating_point() for p in parameters):
        raise NeuroglotError(
            "the model is quantised or offloaded, so it cannot be converted to another number "
            "type; load it with dtype='float32' on one device."
        )
    # They are copied together, so that the sites are modules of the copy.
    hf, sites = copy.deepcopy((model.hf, model.sites))
    # Some buffers stay in full precision. A model on the meta device, which takes no memory, tells
    # which. Its class is used directly, because auto classes do not know every class.
    make = type(hf)._from_config  # noqa: SLF001
    with torch.device("meta"):
        pattern = make(copy.deepcopy(hf.config), dtype=dtype)  # type: ignore[no-untyped-call]
    types = {
        name: tensor.dtype
        for name, tensor in chain(pattern.named_parameters(), pattern.named_buffers())
    }
    for name, tensor in chain(hf.named_parameters(), hf.named_buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(types.get(name, dtype))
    hf.config.dtype = dtype
    return replace(model, hf=hf, sites=sites)
