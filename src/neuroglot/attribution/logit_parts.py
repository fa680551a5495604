"""The logit of a target, as a sum of what each part of the model adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neuroglot.attribution.direct import (
    Forward,
    Weights,
    direct_logit,
    end_direction,
    ffn_bias,
    layer_directions,
    require_finite,
    run_forward,
    target_directions,
    weights_for,
)
from neuroglot.attribution.neuron_scores import name_target, target_coordinates, targets_for
from neuroglot.attribution.targets import Target
from neuroglot.models.model import Model
from neuroglot.models.operations import operation
from neuroglot.running.batching import batches, by_length
from neuroglot.store.provenance import provenance
from neuroglot.tasks.parallel import ParallelTask

OF_LAYER = ("neurons", "ffn_bias", "attention")
OF_PROMPT = ("embedding", "end_bias", "logit")


@operation
def logit_parts(
    model: Model,
    prompts: Sequence[str] | ParallelTask,
    *,
    target: Sequence[int] | str | None = None,
) -> xr.Dataset:
    """What neurons, attention, embedding and biases directly add to the target's logit.

    Norms on the way are linear maps whose scale is frozen. All parts together are the logit (of
    the target less what it stands against); where logits are bounded in the end (Gemma 2), the one
    before that.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        prompts: as in :func:`neuroglot.neuron_scores`.
        target: as in :func:`neuroglot.neuron_scores`.

    Returns:
        ``neurons`` (the sum of the direct logit scores of a layer), ``ffn_bias`` and ``attention``
        (everything else that a layer adds) (prompt, layer); ``embedding``, ``end_bias`` (of the
        last norm and the LM head) and ``logit``, their sum (prompt).

    Raises:
        NeuroglotError: see :func:`neuroglot.neuron_scores`.
    """
    name = name_target(prompts, "direct_logit", target)
    targets = targets_for(model, prompts, name, target)
    weights = weights_for(model, ("direct_logit",))
    by_layer = {part: np.empty((len(targets), model.n_layers)) for part in OF_LAYER}
    by_prompt = {part: np.empty(len(targets)) for part in OF_PROMPT}
    lengths = [len(of.ids) for of in targets]
    for rows in batches(model, by_length(lengths), lengths):
        these = [targets[row] for row in rows]
        parts = _parts(model, weights, run_forward(model, these), these)
        require_finite(model, *parts.values())
        for part, values in parts.items():
            (by_layer if part in by_layer else by_prompt)[part][rows] = values.cpu().numpy()
    found: dict[str, Any] = {part: (("prompt", "layer"), x) for part, x in by_layer.items()}
    found |= {part: ("prompt", x) for part, x in by_prompt.items()}
    return xr.Dataset(
        found,
        coords=target_coordinates(model, prompts, targets) | {"layer": range(model.n_layers)},
        attrs={
            "kind": "logit parts",
            **provenance(model, prompts),
            "target": name,
        },
    )


@torch.inference_mode()
def _parts(
    model: Model, weights: Weights, found: Forward, targets: Sequence[Target]
) -> dict[str, Tensor]:
    path = weights.path
    assert path is not None
    end = end_direction(path, found, targets)
    neurons = direct_logit(model, weights, found, targets).sum(dim=-1)
    biases = [
        (end * after.bias).sum(dim=-1) + (direction * ffn_bias(model, layer)).sum(dim=-1)
        for layer, (after, direction) in enumerate(
            zip(path.after, layer_directions(model, path, found, targets), strict=True)
        )
    ]
    ffn_biases = torch.stack(biases, dim=1)
    added = torch.einsum("pld,pd->pl", found.stream.diff(dim=1), end)
    embedding = (found.stream[:, 0] * end).sum(dim=-1)
    rows = path.scale * target_directions(path.unembedding, targets).to(end.device)
    end_bias = (rows * path.final.bias).sum(dim=-1)
    if path.bias is not None:
        end_bias = end_bias + path.scale * target_directions(path.bias, targets).to(end.device)
    return {
        "neurons": neurons,
        "ffn_bias": ffn_biases,
        "attention": added - neurons - ffn_biases,
        "embedding": embedding,
        "end_bias": end_bias,
        "logit": embedding + added.sum(dim=-1) + end_bias,
    }
