"""Scores from gradients of the target's log-probability with respect to coefficients.

Only coefficients at the last token are considered, so only that token has to run repeatedly.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from neuroglot.attribution.direct import require_finite
from neuroglot.attribution.last_token import LastTokens
from neuroglot.attribution.targets import Target, last_tokens, token_tensors
from neuroglot.errors import NeuroglotError
from neuroglot.models.model import Model
from neuroglot.models.temporarily import temporarily

STEPS = 16  # points of the Gauss-Legendre rule between zero and the coefficients


def target_value(logits: Tensor, targets: Sequence[Target], rows: Tensor) -> Tensor:
    """Log-probability (row,) of each row's target, minus that of the token it is compared with.

    Args:
        logits: logits (row, token).
        targets: the target of each prompt.
        rows: index of each row's prompt (row,).
    """
    rows = rows.to(logits.device)
    tokens, others, alone = (of_prompt[rows] for of_prompt in token_tensors(targets, logits.device))
    log_probs = logits.log_softmax(dim=-1)
    value = log_probs.gather(1, tokens[:, None])[:, 0]
    return value - log_probs.gather(1, others[:, None])[:, 0].masked_fill(alone, 0.0)


def _fixed_weights(model: Model) -> AbstractContextManager[None]:
    """Within the block, weights require no gradient, so no memory is spent on theirs."""
    if any(weight.is_inference() for weight in model.hf.parameters()):
        raise NeuroglotError(
            f"the weights of {model.name!r} were made in torch.inference_mode(), so no gradient "
            "goes through them; load the model outside of it."
        )
    trained = (weight for weight in model.hf.parameters() if weight.requires_grad)
    return temporarily((weight, "requires_grad", False) for weight in trained)


def _gradients(model: Model, total: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of ``total`` with respect to coefficients.

    Raises:
        NeuroglotError: no gradient reaches them.
    """
    try:
        return torch.autograd.grad(total, leaves)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise NeuroglotError(
            f"no gradient goes through {model.name!r} ({error}), for example because its weights "
            "are quantised; use a score without gradients."
        ) from error


def _at_last(values: Tensor, new: Tensor) -> Tensor:
    """``values`` (row, position, neuron) with ``new`` (row, neuron) at the last position."""
    return torch.cat([values[:, :-1], new[:, None]], dim=1)


@torch.inference_mode(mode=False)
@torch.enable_grad()
def gradient_x_activation(model: Model, targets: Sequence[Target]) -> Tensor:
    """``m_i · ∂ log p(target) / ∂ m_i`` at the last token (prompt, layer, neuron).

    Source: Shrikumar et al., *Not Just a Black Box* (arXiv 1605.01713).
    """
    tokens = last_tokens(model, targets)
    leaves: dict[int, Tensor] = {}
    coefficients: dict[int, Tensor] = {}

    def as_leaves(layer: int, values: Tensor) -> Tensor:
        # A zero is added to the coefficients, so that gradients still flow through to earlier
        # layers.
        leaves[layer] = torch.zeros_like(values[:, -1], requires_grad=True)
        coefficients[layer] = values[:, -1].detach().float()
        return _at_last(values, values[:, -1] + leaves[layer])

    with _fixed_weights(model), model.units().editing(as_leaves):
        logits = tokens.logits()
        rows = torch.arange(len(targets), device=logits.device)
        total = target_value(logits, targets, rows).sum()
        gradients = _gradients(model, total, [leaves[layer] for layer in sorted(leaves)])
    by_layer = [
        (coefficients[layer] * gradient.float()).to(model.device)
        for layer, gradient in enumerate(gradients)
    ]
    scores = torch.stack(by_layer, dim=1)
    require_finite(model, scores)
    return scores


@torch.inference_mode(mode=False)
@torch.enable_grad()
def integrated_gradients(model: Model, targets: Sequence[Target], steps: int = STEPS) -> Tensor:
    """Integrated gradients of the target's log-probability (prompt, layer, neuron).

    The path is taken for one FFN at a time: all coefficients of a layer at the last token go from
    zero to their value along a straight line, while later layers respond to them. The scores of a
    layer sum to how much zeroing its FFN (except for its bias) lowers the target's log-probability.

    Source: Sundararajan et al. (arXiv 1703.01365), equation 1, by a Gauss-Legendre rule.

    They are not defined for models with a norm after the FFN; see
    :func:`neuroglot.attribution.direct.weights_for`.

    Args:
        model: the model to run.
        targets: prompts with their targets.
        steps: points of the Gauss-Legendre rule.
    """
    tokens = last_tokens(model, targets)
    points, weights = np.polynomial.legendre.leggauss(steps)
    device = model.device
    alphas = torch.tensor((points + 1) / 2, dtype=torch.float32, device=device)
    share = torch.tensor(weights / 2, dtype=torch.float32, device=device)
    rows = torch.arange(len(targets), device=device).repeat_interleave(steps)
    by_layer = []
    with _fixed_weights(model):
        for layer in range(model.n_layers):
            value, gradient = _along_line(tokens, layer, rows, alphas.repeat(len(targets)), targets)
            by_step = gradient.reshape(len(targets), steps, -1)
            by_layer.append(value[::steps] * torch.einsum("psn,s->pn", by_step, share))
    scores = torch.stack(by_layer, dim=1)
    require_finite(model, scores)
    return scores


def _along_line(
    tokens: LastTokens, layer: int, rows: Tensor, alphas: Tensor, targets: Sequence[Target]
) -> tuple[Tensor, Tensor]:
    """A layer's coefficients (row, neuron), and the gradients at ``alpha`` times these values.

    Args:
        tokens: the last tokens of the prompts.
        layer: number of the layer.
        rows: index of each row's prompt (row,).
        alphas: factor of each row (row,).
        targets: the target of each prompt.
    """
    kept: list[Tensor] = []

    def scaled(this: int, values: Tensor) -> Tensor:
        if this != layer:
            return values
        value = values[:, -1].detach()
        point = (alphas.to(value)[:, None] * value).requires_grad_()
        kept.extend([value, point])
        return _at_last(values, point)

    with tokens.model.units().editing(scaled):
        total = target_value(tokens.logits(rows), targets, rows).sum()
    value, point = kept
    (gradient,) = _gradients(tokens.model, total, [point])
    device = tokens.model.device
    return value.float().to(device), gradient.float().to(device)
