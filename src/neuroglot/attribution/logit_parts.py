"""The logit of a target as a sum over the parts of the model."""

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
from neuroglot.attribution.neuron_scores import find_targets, target_coordinates
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
    """The direct contributions of neurons, attention, embedding and biases to the target's logit.

    The norms on the way to the logits are treated as linear maps: their scale is frozen. The parts
    sum to the logit of the target minus that of the token that it is compared with. If the model
    caps its logits in the end (Gemma 2), this is the logit before the cap.

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        prompts: as in :func:`neuroglot.neuron_scores`.
        target: as in :func:`neuroglot.neuron_scores`.

    Returns:
        By layer (prompt, layer): ``neurons`` (the sum of the direct logit scores), ``ffn_bias``,
        and ``attention`` (everything else that the layer adds). By prompt (prompt,): ``embedding``,
        ``end_bias`` (of the last norm and the LM head), and ``logit``, the sum of all parts.

    Raises:
        NeuroglotError: see :func:`neuroglot.neuron_scores`.

    Examples:
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=2)
        >>> parts = ng.logit_parts(model, task)
        >>> layers = (parts["neurons"] + parts["ffn_bias"] + parts["attention"]).sum("layer")
        >>> whole = parts["embedding"] + layers + parts["end_bias"]
        >>> bool(abs(whole - parts["logit"]).max() < 1e-3)
        True
    """
    name, targets = find_targets(model, prompts, "direct_logit", target)
    weights = weights_for(model, ("direct_logit",))
    by_layer = {part: np.empty((len(targets), model.n_layers)) for part in OF_LAYER}
    by_prompt = {part: np.empty(len(targets)) for part in OF_PROMPT}
    lengths = [len(target.ids) for target in targets]
    for rows in batches(model, by_length(lengths), lengths):
        batch = [targets[row] for row in rows]
        parts = _parts(model, weights, run_forward(model, batch), batch)
        require_finite(model, *parts.values())
        for part, values in parts.items():
            (by_layer if part in by_layer else by_prompt)[part][rows] = values.cpu().numpy()
    variables: dict[str, Any] = {
        **{part: (("prompt", "layer"), values) for part, values in by_layer.items()},
        **{part: ("prompt", values) for part, values in by_prompt.items()},
    }
    return xr.Dataset(
        variables,
        coords=target_coordinates(model, prompts, targets) | {"layer": range(model.n_layers)},
        attrs={
            "kind": "logit parts",
            **provenance(model, prompts),
            "target": name,
        },
    )


@torch.inference_mode()
def _parts(
    model: Model, weights: Weights, forward: Forward, targets: Sequence[Target]
) -> dict[str, Tensor]:
    """The parts of one batch, (prompt, layer) or (prompt,)."""
    path = weights.path
    assert path is not None
    end = end_direction(path, forward, targets)
    neurons = direct_logit(model, weights, forward, targets).sum(dim=-1)
    biases = [
        (end * after.bias).sum(dim=-1) + (direction * ffn_bias(model, layer)).sum(dim=-1)
        for layer, (after, direction) in enumerate(
            zip(path.after, layer_directions(model, path, forward, targets), strict=True)
        )
    ]
    ffn_biases = torch.stack(biases, dim=1)
    added = torch.einsum("pld,pd->pl", forward.stream.diff(dim=1), end)
    embedding = (forward.stream[:, 0] * end).sum(dim=-1)
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
