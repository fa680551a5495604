"""Scores from one forward pass: what neurons write, and what the logits directly get of it.

Contribution and effective score: *Sharing Matters* (arXiv 2406.09265), section 3.3. Direct logit
attribution: Elhage et al., *A Mathematical Framework for Transformer Circuits* (2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroglot.attribution.targets import Target
from neuroglot.errors import NeuroglotError, UnsupportedError
from neuroglot.models.direct_path import DirectPath, check_unembedding, find_direct_path
from neuroglot.models.forward import run_body
from neuroglot.models.hooks import Reader
from neuroglot.models.model import Model
from neuroglot.running.batching import Batch, pad


@dataclass(frozen=True)
class Forward:
    """What one forward pass shows at the last tokens of some prompts, in float32.

    Attributes:
        coefficients: ``m`` (prompt, layer, neuron).
        stream: the residual stream (prompt, layer + 1, d_model), before the first layer and after
            each.
    """

    coefficients: Tensor
    stream: Tensor


def _keeper(batch: Batch, kept: dict[int, Tensor]) -> Reader:
    """Keeps values (prompt, position, …) at the last token, by layer."""

    def keep(layer: int, values: Tensor) -> None:
        rows = torch.arange(len(values), device=values.device)
        kept[layer] = values[rows, batch.last.to(values.device)].float()

    return keep


@torch.inference_mode()
def run_forward(model: Model, targets: Sequence[Target]) -> Forward:
    """Run the prompts of some targets once, without the LM head.

    Raises:
        NeuroglotError: activations that are NaN or infinite.
    """
    batch = pad(model, [target.ids for target in targets], list(range(len(targets))))
    lengths = torch.tensor([len(of.ids) - of.n_fed for of in targets], device=model.device)
    coefficients: dict[int, Tensor] = {}
    stream: dict[int, Tensor] = {}
    with (
        model.units().reading("coefficient", _keeper(batch, coefficients), range(model.n_layers)),
        model.reading_stream(_keeper(batch, stream)),
        model.asking(lengths=lengths),
    ):
        run_body(model.hf, batch.ids, batch.mask)
    found = Forward(_stacked(coefficients, model), _stacked(stream, model))
    require_finite(model, found.coefficients, found.stream)
    return found


def require_finite(model: Model, *values: Tensor) -> None:
    """Refuse what overflowed.

    Raises:
        NeuroglotError: a value is NaN or infinite.
    """
    if not all(bool(torch.isfinite(found).all()) for found in values):
        raise NeuroglotError(
            f"{model.name!r} in {model.dtype} gives NaN or infinite activations or gradients for "
            "some of the prompts; load it with dtype='float32'."
        )


def _stacked(kept: dict[int, Tensor], model: Model) -> Tensor:
    return torch.stack([kept[layer].to(model.device) for layer in sorted(kept)], dim=1)


@torch.inference_mode()
def value_norms(model: Model) -> Tensor:
    """Length of every value vector, ``‖v_i‖₂`` (layer, neuron), in float32.

    Raises:
        NeuroglotError: weights that are quantised or offloaded.
    """
    vectors = [model.units().output_directions(layer) for layer in range(model.n_layers)]
    return torch.stack([found.float().norm(dim=1).to(model.device) for found in vectors])


@dataclass(frozen=True)
class Weights:
    """What direct scores need of a model's weights, computed once; ``None`` where not needed.

    Attributes:
        norms: of the value vectors (layer, neuron).
        unembedding: rows of the LM head (token, d_model).
        path: the way from each FFN to the logits.
    """

    norms: Tensor | None = None
    unembedding: Tensor | None = None
    path: DirectPath | None = None


def weights_for(model: Model, scores: Sequence[str]) -> Weights:
    """Everything that the named scores need.

    Raises:
        UnsupportedError: the model does not have it; it says why.
    """
    if "integrated_gradients" in scores and model.norm_after_ffn:
        raise UnsupportedError(
            f"integrated gradients are not defined for {model.name!r}: a norm after its "
            "feed-forward networks leaves out the size of what they give, so that all change "
            "happens in a jump at zero. Use 'gradient_x_activation' or another score."
        )
    return Weights(
        value_norms(model) if "contribution" in scores else None,
        check_unembedding(model.hf, model.sites[0]) if "effective" in scores else None,
        find_direct_path(model.hf, model.sites) if "direct_logit" in scores else None,
    )


def target_directions(rows: Tensor, targets: Sequence[Target]) -> Tensor:
    """Rows of the targets' tokens less those of what they stand against (prompt, …), float32."""
    found = rows[[target.token for target in targets]].float()
    against = [target.against for target in targets]
    taken_off = rows[[0 if token is None else token for token in against]].float()
    alone = torch.tensor([token is None for token in against], device=rows.device)
    return found - taken_off.masked_fill(alone.reshape(-1, *[1] * (rows.ndim - 1)), 0.0)


def contribution(_model: Model, weights: Weights, found: Forward, _of: Sequence[Target]) -> Tensor:
    """``C_i = |m_i| · ‖v_i‖₂`` (prompt, layer, neuron)."""
    assert weights.norms is not None
    return found.coefficients.abs() * weights.norms


def effective(model: Model, weights: Weights, found: Forward, targets: Sequence[Target]) -> Tensor:
    """``E_i = e_w · (m_i v_i)`` (prompt, layer, neuron), ``e_w`` the output embedding."""
    assert weights.unembedding is not None
    direction = target_directions(weights.unembedding, targets)
    along = [_along(model, layer, direction) for layer in range(model.n_layers)]
    return found.coefficients * torch.stack(along, dim=1)


def direct_logit(
    model: Model, weights: Weights, found: Forward, targets: Sequence[Target]
) -> Tensor:
    """What each neuron adds to the target's logit past all later layers (prompt, layer, neuron).

    Norms on the way have the scale that they had in this forward pass.
    """
    assert weights.path is not None
    directions = layer_directions(model, weights.path, found, targets)
    along = [_along(model, layer, direction) for layer, direction in enumerate(directions)]
    return found.coefficients * torch.stack(along, dim=1)


def layer_directions(
    model: Model, path: DirectPath, found: Forward, targets: Sequence[Target]
) -> list[Tensor]:
    """Directions (prompt, d_model) of each layer's FFN output that raise the target's logit."""
    last = end_direction(path, found, targets)
    return [
        after.pull_back(last, ffn_output(model, layer, found.coefficients[:, layer]))
        for layer, after in enumerate(path.after)
    ]


def end_direction(path: DirectPath, found: Forward, targets: Sequence[Target]) -> Tensor:
    """Direction (prompt, d_model) of the last residual stream that raises the target's logit."""
    direction = path.scale * target_directions(path.unembedding, targets)
    end = found.stream[:, -1]
    return path.final.pull_back(direction.to(end.device), end)


@torch.inference_mode()
def ffn_output(model: Model, layer: int, coefficients: Tensor) -> Tensor:
    """What the FFN of a layer gives (prompt, d_model) for coefficients (prompt, neuron)."""
    vectors = model.units().output_directions(layer)
    output = (coefficients.to(vectors.device) @ vectors.float()).to(model.device)
    return output + ffn_bias(model, layer)


def ffn_bias(model: Model, layer: int) -> Tensor | float:
    """The bias (d_model,) of a layer's down projection; zero where there is none."""
    bias = getattr(model.sites[layer].down, "bias", None)
    return 0.0 if bias is None else bias.detach().float().to(model.device)


def _along(model: Model, layer: int, directions: Tensor) -> Tensor:
    """How far the value vectors of a layer point in each direction (prompt, neuron)."""
    vectors = model.units().output_directions(layer)
    return (directions.to(vectors.device) @ vectors.float().T).to(model.device)


DirectScore = Callable[[Model, Weights, Forward, Sequence[Target]], Tensor]
DIRECT: dict[str, DirectScore] = {
    "contribution": contribution,
    "effective": effective,
    "direct_logit": direct_logit,
}
