"""Questions that a forward pass of a few tokens answers about a model and its layers."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError
from neuroglot.models.forward import run_logits
from neuroglot.models.hooks import editing, on_input, on_output, reading
from neuroglot.models.sites import FFNSite, down_widths
from neuroglot.models.structure import inlets

N_PROBE_TOKENS = 4
# Coefficients are scaled by this to tell whether a norm follows: the network's output then stands
# out from the residual stream, and rounding does not.
SCALE = 16.0
ROUNDING = 1e-5  # less than what the smallest weights let through
LARGEST_NOISE = 0.2


def input_device(hf: PreTrainedModel) -> torch.device:
    """Where inputs go: where the embeddings are, or are brought to when they are needed."""
    embeddings = hf.get_input_embeddings()
    found = next(embeddings.parameters()).device
    if found.type != "meta":
        return found
    # Accelerate keeps them elsewhere.
    device = getattr(getattr(embeddings, "_hf_hook", None), "execution_device", None)
    if device is None:
        raise NeuroglotError(
            f"the embeddings of {type(hf).__name__} have no values (device 'meta'); load the "
            "model with its weights."
        )
    return torch.device(device)


def probe_ids(hf: PreTrainedModel, shift: int = 0) -> Tensor:
    """A few different token ids (1, position), enough for one forward pass."""
    vocabulary = int(hf.config.get_text_config().vocab_size)
    # Spread out: the first ids are often padding and unused tokens, with embeddings of zero.
    step = max(1, vocabulary // (N_PROBE_TOKENS + 1))
    ids = torch.arange(1, N_PROBE_TOKENS + 1, device=input_device(hf))[None] * step
    return (ids + shift) % vocabulary


def probe_logits(hf: PreTrainedModel, ids: Tensor | None = None) -> Tensor:
    """Logits (prompt, position, token) of unpadded token ids, by default the probe's."""
    ids = probe_ids(hf) if ids is None else ids
    return run_logits(hf, ids, torch.ones_like(ids, dtype=torch.bool))


def relative_change(before: Tensor, after: Tensor) -> float:
    """How far ``after`` is from ``before``, relative to its size; NaN if either holds NaN."""
    before, after = before.float(), after.float()
    return float((after - before).norm() / before.norm().clamp(min=1e-12))


@torch.inference_mode()
def rounding(hf: PreTrainedModel) -> float:
    """The relative change that rounding can explain between two runs of the same shape.

    Rows of a matrix product do not see each other, so it is hardly ever more than nothing: but
    layers whose inputs are quantised round by the largest value of the whole batch. It is measured
    by how much other prompts in the batch disturb the logits.

    Raises:
        NeuroglotError: they disturb them so much that nothing could be told apart.
    """
    beside = [torch.cat([probe_ids(hf), probe_ids(hf, shift)]) for shift in (0, 1, 2, 3)]
    alone, *others = (probe_logits(hf, ids)[:1] for ids in beside)
    noise = max(relative_change(alone, other) for other in others)
    if not noise <= LARGEST_NOISE:
        raise NeuroglotError(
            f"other prompts in its batch change the logits of {type(hf).__name__} by {noise:.1%}, "
            f"where at most {LARGEST_NOISE:.0%} is expected of quantised layers: results would "
            "depend on what shares a batch. Such models are unsupported."
        )
    return max(ROUNDING, 3 * noise)


def _coefficients(hf: PreTrainedModel, site: FFNSite) -> Tensor:
    """Coefficients (position, neuron) of one layer on the probe; empty where it never fires."""
    seen = [torch.empty(0, site.n_neurons, dtype=torch.float32)]

    def read(_layer: int, values: Tensor) -> None:
        seen.append(values.reshape(-1, site.n_neurons).float())

    with reading([site], "coefficient", read):
        probe_logits(hf)
    return torch.cat([values.to(input_device(hf)) for values in seen])


@torch.inference_mode()
def not_feed_forward(hf: PreTrainedModel, site: FFNSite, tolerance: float) -> str | None:
    """Why a linear map is not the down projection of a feed-forward network, or ``None``.

    What goes into the network at the first position is changed. That must change the coefficients
    there, and nowhere else: attention and state-space layers mix positions.

    Args:
        hf: a Hugging Face decoder.
        site: the linear map in question.
        tolerance: relative change that rounding explains.
    """
    feeding = inlets(hf, site.path, site.block)
    if not feeding:
        n, d_model = down_widths(site.down)
        return f"no linear map from {d_model} to {n} or {2 * n} in its layer feeds it"
    before = _coefficients(hf, site)
    if len(before) != N_PROBE_TOKENS:
        return f"it saw {len(before)} positions of {N_PROBE_TOKENS}"

    def other_first(hidden: Tensor) -> Tensor:
        hidden = hidden.clone()
        hidden[..., 0, :] += 1  # holds for flattened positions too: there is one prompt
        return hidden

    with ExitStack() as stack:
        for module in feeding:
            stack.enter_context(on_input(module, other_first))
        after = _coefficients(hf, site)
    if relative_change(before[1:], after[1:]) > tolerance:
        return "it mixes positions, as attention and state-space layers do"
    if not relative_change(before[:1], after[:1]) > tolerance:
        return "the linear maps beside it do not feed it"
    return None


@torch.inference_mode()
def norm_follows(hf: PreTrainedModel, site: FFNSite) -> bool:
    """Whether a norm stands between the FFN and the output of its layer.

    Without one, the layer's output is linear in the coefficients.

    Raises:
        NeuroglotError: the layer's output is nowhere finite.
    """
    outputs: list[Tensor] = []

    def see(output: Tensor) -> None:
        outputs.append(output.float())

    for factor in (0.0, SCALE, 2 * SCALE):

        def scaled(_layer: int, values: Tensor, factor: float = factor) -> Tensor:
            return values * factor

        with editing([site], scaled), on_output(site.block, see):
            probe_logits(hf)
    once, twice = outputs[1] - outputs[0], outputs[2] - outputs[0]
    errors = (twice - 2 * once).norm(dim=-1) / (2 * once).norm(dim=-1)
    errors = errors[errors.isfinite()]
    if not len(errors):
        raise NeuroglotError(
            f"with the coefficients of {site.path} at {2 * SCALE:g} times their size, its layer "
            "gives NaN or infinity; load the model with dtype='float32' or 'bfloat16'."
        )
    # A half where the norm divides by nothing else; rounding gives per cents in half precision.
    return bool(errors.median() > max(0.01, torch.finfo(hf.dtype).eps ** 0.5))
