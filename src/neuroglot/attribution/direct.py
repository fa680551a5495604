"""Scores from one forward pass: what neurons write, and their direct effect on the logits.

Contribution and effective score: *Sharing Matters* (arXiv 2406.09265), section 3.3. Direct logit
attribution: Elhage et al., *A Mathematical Framework for Transformer Circuits* (2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroglot.attribution.targets import Target, token_tensors
from neuroglot.errors import NeuroglotError, UnsupportedError
from neuroglot.models.direct_path import DirectPath, find_direct_path, unembedding
from neuroglot.models.forward import run_body
from neuroglot.models.hooks import Reader
from neuroglot.models.model import Model
from neuroglot.running.batching import Batch, pad


@dataclass(frozen=True)
class Forward:
    """Activations of one forward pass at the last tokens of some prompts, in float32.

    Attributes:
        coefficients: ``m`` (prompt, layer, neuron).
        stream: the residual stream (prompt, layer + 1, d_model), before the first layer and after
            each layer.
    """

    coefficients: Tensor
    stream: Tensor


def _keeper(batch: Batch, kept: dict[int, Tensor]) -> Reader:
    """A reader that keeps the values at the last token of each prompt, by layer."""

    def keep(layer: int, values: Tensor) -> None:
        rows = torch.arange(len(values), device=values.device)
        kept[layer] = values[rows, batch.last.to(values.device)].float()

    return keep


@torch.inference_mode()
def run_forward(model: Model, targets: Sequence[Target]) -> Forward:
    """Run the prompts of some targets once, without the LM head.

    Raises:
        NeuroglotError: activations are NaN or infinite.
    """
    batch = pad(model, [target.ids for target in targets], list(range(len(targets))))
    lengths = torch.tensor([len(t.ids) - t.n_fed for t in targets], device=model.device)
    coefficients: dict[int, Tensor] = {}
    stream: dict[int, Tensor] = {}
    with (
        model.units().reading("coefficient", _keeper(batch, coefficients), range(model.n_layers)),
        model.reading_stream(_keeper(batch, stream)),
        model.asking(lengths=lengths),
    ):
        run_body(model.hf, batch.ids, batch.mask)
    forward = Forward(_stacked(coefficients, model), _stacked(stream, model))
    require_finite(model, forward.coefficients, forward.stream)
    return forward


def require_finite(model: Model, *values: Tensor) -> None:
    """Refuse activations or gradients that overflowed.

    Raises:
        NeuroglotError: a value is NaN or infinite.
    """
    if not all(bool(torch.isfinite(tensor).all()) for tensor in values):
        raise NeuroglotError(
            f"{model.name!r} in {model.dtype} gives NaN or infinite activations or gradients for "
            "some of the prompts; load it with dtype='float32'."
        )


def _stacked(kept: dict[int, Tensor], model: Model) -> Tensor:
    """The values of all layers (prompt, layer, …), in order, on the model's device."""
    return torch.stack([kept[layer].to(model.device) for layer in sorted(kept)], dim=1)


@torch.inference_mode()
def value_norms(model: Model) -> Tensor:
    """Lengths of all value vectors, ``‖v_i‖₂`` (layer, neuron), in float32.

    Raises:
        NeuroglotError: weights that are quantised or offloaded.
    """
    vectors = [model.units().output_directions(layer) for layer in range(model.n_layers)]
    return torch.stack([rows.float().norm(dim=1).to(model.device) for rows in vectors])


@dataclass(frozen=True)
class Weights:
    """Weights of a model that direct scores use; ``None`` if the scores at hand do not.

    Attributes:
        norms: lengths of the value vectors (layer, neuron).
        unembedding: rows of the LM head (token, d_model).
        path: the direct path from each FFN to the logits.
    """

    norms: Tensor | None = None
    unembedding: Tensor | None = None
    path: DirectPath | None = None


def weights_for(model: Model, scores: Sequence[str]) -> Weights:
    """The weights that the named scores need.

    Raises:
        UnsupportedError: a score is not defined for the model; the message says why.
    """
    if "integrated_gradients" in scores and model.norm_after_ffn:
        raise UnsupportedError(
            f"integrated gradients are not defined for {model.name!r}: a norm after its "
            "feed-forward networks removes the size of their output, so all change happens in a "
            "jump at zero. Use 'gradient_x_activation' or another score."
        )
    return Weights(
        value_norms(model) if "contribution" in scores else None,
        unembedding(model.hf, model.sites[0])[1] if "effective" in scores else None,
        find_direct_path(model.hf, model.sites) if "direct_logit" in scores else None,
    )


def target_directions(rows: Tensor, targets: Sequence[Target]) -> Tensor:
    """Rows of the targets' tokens minus the rows of ``against`` (prompt, …), in float32.

    Args:
        rows: a row for each token (token, …).
        targets: the targets of the prompts.
    """
    tokens, others, alone = token_tensors(targets, rows.device)
    alone = alone.reshape(-1, *[1] * (rows.ndim - 1))
    return rows[tokens].float() - rows[others].float().masked_fill(alone, 0.0)


def contribution(
    _model: Model, weights: Weights, forward: Forward, _targets: Sequence[Target]
) -> Tensor:
    """``C_i = |m_i| · ‖v_i‖₂`` (prompt, layer, neuron)."""
    assert weights.norms is not None
    return forward.coefficients.abs() * weights.norms


def effective(
    model: Model, weights: Weights, forward: Forward, targets: Sequence[Target]
) -> Tensor:
    """``E_i = e_w · (m_i v_i)`` (prompt, layer, neuron), where ``e_w`` is the output embedding."""
    assert weights.unembedding is not None
    direction = target_directions(weights.unembedding, targets)
    return forward.coefficients * _projections(model, [direction] * model.n_layers)


def direct_logit(
    model: Model, weights: Weights, forward: Forward, targets: Sequence[Target]
) -> Tensor:
    """What each neuron adds to the target's logit, past all later layers (prompt, layer, neuron).

    The norms on the way keep the scale that they had in this forward pass.
    """
    assert weights.path is not None
    directions = layer_directions(model, weights.path, forward, targets)
    return forward.coefficients * _projections(model, directions)


def layer_directions(
    model: Model, path: DirectPath, forward: Forward, targets: Sequence[Target]
) -> list[Tensor]:
    """Directions (prompt, d_model) of each layer's FFN output that raise the target's logit."""
    last = end_direction(path, forward, targets)
    return [
        after.pull_back(last, _ffn_output(model, layer, forward.coefficients[:, layer]))
        for layer, after in enumerate(path.after)
    ]


def end_direction(path: DirectPath, forward: Forward, targets: Sequence[Target]) -> Tensor:
    """Direction (prompt, d_model) of the final residual stream that raises the target's logit."""
    direction = path.scale * target_directions(path.unembedding, targets)
    end = forward.stream[:, -1]
    return path.final.pull_back(direction.to(end.device), end)


@torch.inference_mode()
def _ffn_output(model: Model, layer: int, coefficients: Tensor) -> Tensor:
    """Output (prompt, d_model) of a layer's FFN for the given coefficients (prompt, neuron)."""
    vectors = model.units().output_directions(layer)
    output = (coefficients.to(vectors.device) @ vectors.float()).to(model.device)
    return output + ffn_bias(model, layer)


def ffn_bias(model: Model, layer: int) -> Tensor | float:
    """The bias (d_model,) of a layer's down projection; zero if it has none."""
    bias = getattr(model.sites[layer].down, "bias", None)
    return 0.0 if bias is None else bias.detach().float().to(model.device)


def _projections(model: Model, directions: Sequence[Tensor]) -> Tensor:
    """Dot products of all value vectors with a direction (prompt, layer, neuron).

    Args:
        model: the model with the value vectors.
        directions: the direction (prompt, d_model) for each layer.
    """
    products = []
    for layer, direction in enumerate(directions):
        vectors = model.units().output_directions(layer)
        product = direction.to(vectors.device) @ vectors.float().T
        products.append(product.to(model.device))
    return torch.stack(products, dim=1)


DIRECT: dict[str, Callable[[Model, Weights, Forward, Sequence[Target]], Tensor]] = {
    "contribution": contribution,
    "effective": effective,
    "direct_logit": direct_logit,
}
