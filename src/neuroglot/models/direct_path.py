"""The direct path from a feed-forward network to the logits, past all later layers.

Nothing about model families is hard-coded: the norms and factors on the path are measured in a few
forward passes, and a model with any other kind of path is refused.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroglot.errors import UnsupportedError
from neuroglot.models.hooks import editing, on_input, on_output, reading_stream
from neuroglot.models.norms import Norm, norms_in
from neuroglot.models.probing import input_device, probe_logits, relative_change
from neuroglot.models.sites import FFNSite, down_widths, is_ordinary

TOLERANCE = 1e-3  # relative, in float32
# Factors of the coefficients that are tried until the FFN's output clearly exceeds the rounding
# errors of the residual stream. They are negative because a norm ignores the size, but not the
# sign.
SCALES = (-16.0, -256.0, -4096.0)
MOST_ROUNDING = 0.1  # relative to the measured change


@dataclass(frozen=True)
class AfterFFN:
    """The steps between the output of a feed-forward network and the residual stream.

    Attributes:
        norm: the norm that is applied first, if any.
        factor: the factor that is applied next.
    """

    norm: Norm | None
    factor: float

    def apply(self, output: Tensor) -> Tensor:
        """What is added to the residual stream for an output (…, d_model) of the FFN."""
        return self.factor * (self.norm.apply(output) if self.norm else output.float())

    def pull_back(self, direction: Tensor, at: Tensor) -> Tensor:
        """Translate a direction of the residual stream into one of the FFN's output.

        Args:
            direction: direction (prompt, d_model) of the residual stream.
            at: output (prompt, d_model) of the FFN, at which the scale of the norm is frozen.
        """
        scaled = self.factor * direction
        return self.norm.pull_back(scaled, at) if self.norm else scaled

    @property
    def bias(self) -> Tensor | float:
        """What the norm adds to the residual stream for any input."""
        return self.factor * self.norm.bias if self.norm else 0.0


@dataclass(frozen=True)
class DirectPath:
    """The steps from the residual stream to the logits, and from each FFN to the residual stream.

    Attributes:
        unembedding: rows of the LM head (token, d_model), in its number type.
        bias: bias of the LM head (token,), or ``None``.
        final: the norm before the LM head.
        scale: factor of the LM head's output.
        cap: if logits become ``cap · tanh(logit / cap)`` in the end. The path ends before this.
        after: the steps after the FFN of each layer.
    """

    unembedding: Tensor
    bias: Tensor | None
    final: Norm
    scale: float
    cap: float | None
    after: tuple[AfterFFN, ...]


def unembedding(hf: PreTrainedModel, site: FFNSite) -> tuple[nn.Module, Tensor]:
    """The LM head and its weight (token, d_model), which can be multiplied with value vectors.

    Raises:
        UnsupportedError: the model has no LM head, its weight cannot be read, or its width is not
            that of the layers.
    """
    get_head: Any = hf.get_output_embeddings  # has no type annotations
    head: nn.Module | None = get_head()
    if head is None:
        raise UnsupportedError(
            f"{type(hf).__name__} names no output embeddings, so neurons cannot be read as tokens."
        )
    if not is_ordinary(head):
        raise UnsupportedError(
            f"the LM head of {type(hf).__name__} is a {type(head).__name__} whose weights are "
            "quantised, offloaded or not those of a linear map; load the model unquantised and "
            "wholly on one device."
        )
    weight = head.get_parameter("weight").detach()
    d_model = down_widths(site.down)[1]
    if weight.shape[1] != d_model:
        raise UnsupportedError(
            f"the LM head of {type(hf).__name__} takes vectors of {weight.shape[1]}, but the "
            f"layers work with {d_model}: a projection stands between them, so value vectors "
            "cannot be multiplied with output embeddings."
        )
    return head, weight


class _Seen:
    """Inputs and outputs of some modules in a forward pass, at the last position, in float32.

    All of them are kept on one device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.into: dict[nn.Module, Tensor] = {}
        self.out_of: dict[nn.Module, Tensor] = {}
        self.stream: dict[int, Tensor] = {}

    def watch(self, stack: ExitStack, module: nn.Module) -> None:
        def note_input(values: Tensor) -> None:
            self.into[module] = self._last(values)

        def note_output(values: Tensor) -> None:
            self.out_of[module] = self._last(values)

        stack.enter_context(on_input(module, note_input))
        stack.enter_context(on_output(module, note_output))

    def read_stream(self, layer: int, values: Tensor) -> None:
        self.stream[layer] = self._last(values)

    def _last(self, values: Tensor) -> Tensor:
        return values.reshape(-1, values.shape[-1])[-1:].float().to(self.device)


def _fit(measured: Tensor, predicted: Tensor) -> tuple[float, float]:
    """The factor of the prediction that fits best, and the relative error that remains."""
    factor = float((measured * predicted).sum() / (predicted * predicted).sum())
    return factor, relative_change(measured, factor * predicted)


def _tolerance(hf: PreTrainedModel) -> float:
    return max(TOLERANCE, 4 * torch.finfo(hf.dtype).eps)


def _exactly(factor: float, tolerance: float) -> float:
    """The factor, or exactly one if it differs from one by rounding only."""
    return 1.0 if abs(factor - 1) < tolerance else factor


@torch.inference_mode()
def find_direct_path(hf: PreTrainedModel, sites: tuple[FFNSite, ...]) -> DirectPath:
    """Measure the path from every FFN to the logits, in about two forward passes per layer.

    Raises:
        UnsupportedError: the model has another kind of path; the message says where.
    """
    head, weight = unembedding(hf, sites[0])
    blocks = {part for site in sites for part in site.block.modules()}
    outside = [part for part in hf.modules() if part not in blocks]
    finals = norms_in(outside, weight.shape[1], input_device(hf))
    seen = _Seen(input_device(hf))
    with ExitStack() as stack:
        for module in (head, *finals):
            seen.watch(stack, module)
        stack.enter_context(reading_stream([site.block for site in sites], seen.read_stream))
        logits = probe_logits(hf)[:, -1].float().to(input_device(hf))
    end = seen.stream[len(sites)]
    if not (torch.isfinite(end).all() and torch.isfinite(logits).all()):
        raise UnsupportedError(
            f"{type(hf).__name__} gives NaN or infinite activations; load it with dtype='float32'."
        )
    fitting = [
        norm
        for part, norm in finals.items()
        if part in seen.into
        and relative_change(seen.into[part], end) < TOLERANCE
        and relative_change(seen.out_of[part], seen.into[head]) < TOLERANCE
    ]
    if len(fitting) != 1:
        raise UnsupportedError(
            f"{type(hf).__name__} has no norm between its last layer and its LM head that takes "
            "the whole residual stream and whose output goes into the LM head; direct logit "
            "attribution needs one. The other scores do not."
        )
    scale, cap = _scale(hf, logits, seen.out_of[head])
    after = _alike([_after(hf, site) for site in sites], _tolerance(hf))
    return DirectPath(weight, getattr(head, "bias", None), fitting[0], scale, cap, after)


def _scale(hf: PreTrainedModel, logits: Tensor, head_output: Tensor) -> tuple[float, float | None]:
    """The factor that turns the LM head's output into logits, and their cap if there is one.

    Raises:
        UnsupportedError: logits are not the LM head's output times a factor.
    """
    tolerance = _tolerance(hf)
    cap = getattr(hf.config.get_text_config(), "final_logit_softcapping", None)
    # A cap is tried first: it has little effect on small logits, so they may fit without it, too.
    if isinstance(cap, int | float) and cap > 0:
        uncapped = cap * torch.atanh((logits / cap).clamp(-1 + 1e-6, 1 - 1e-6))
        scale, error = _fit(uncapped, head_output)
        if error < tolerance:
            return _exactly(scale, tolerance), float(cap)
    scale, error = _fit(logits, head_output)
    if error < tolerance:
        return _exactly(scale, tolerance), None
    raise UnsupportedError(
        f"the logits of {type(hf).__name__} are not proportional to the output of its LM head "
        f"(the error is {error:.1%}); direct logit attribution needs that. The other scores do "
        "not."
    )


def _alike(after: list[AfterFFN], tolerance: float) -> tuple[AfterFFN, ...]:
    """The same steps with a common factor, if all factors agree up to rounding."""
    factors = [steps.factor for steps in after]
    common = median(factors)
    if all(abs(factor - common) <= 4 * tolerance * abs(common) for factor in factors):
        factors = [common] * len(after)
    return tuple(
        AfterFFN(steps.norm, _exactly(factor, tolerance))
        for steps, factor in zip(after, factors, strict=True)
    )


def _after(hf: PreTrainedModel, site: FFNSite) -> AfterFFN:
    """The steps after one layer's FFN, measured by changing its coefficients.

    Raises:
        UnsupportedError: its output is not simply added to the residual stream.
    """
    d_model = down_widths(site.down)[1]
    norms = norms_in(site.block.modules(), d_model, input_device(hf))
    once = _scaled(hf, site, norms, 1.0)
    output = once.out_of[site.down]
    # The norm after the FFN is the one whose input is exactly the FFN's output.
    norm = next(
        (n for part, n in norms.items() if torch.equal(once.into.get(part, output * 0), output)),
        None,
    )
    plain = AfterFFN(norm, 1.0)
    for scale in SCALES:
        more = _scaled(hf, site, norms, scale)
        predicted = plain.apply(more.out_of[site.down]) - plain.apply(output)
        change = more.out_of[site.block] - once.out_of[site.block]
        factor, error = _fit(change, predicted)
        size = float(more.out_of[site.block].norm() / change.norm())
        # A change that is small relative to the stream is measured less exactly.
        allowed = TOLERANCE + torch.finfo(hf.dtype).eps * size
        if allowed < _tolerance(hf):
            break
    if allowed > MOST_ROUNDING:
        raise UnsupportedError(
            f"in {hf.dtype} what the feed-forward network of layer {site.layer} adds is lost in "
            "the rounding of the residual stream; for direct logit attribution load the model "
            "with dtype='float32'."
        )
    if not (error < 4 * allowed and math.isfinite(factor)):
        raise UnsupportedError(
            f"the feed-forward network of layer {site.layer} of {type(hf).__name__} does not just "
            f"add to the residual stream ({error:.1%} of the change remain unexplained), perhaps "
            "because a norm follows the sum; direct logit attribution needs that. The other scores "
            "do not."
        )
    return AfterFFN(norm, factor)


def _scaled(
    hf: PreTrainedModel, site: FFNSite, norms: dict[nn.Module, Norm], scale: float
) -> _Seen:
    """Inputs and outputs of a layer's modules when its coefficients are multiplied by ``scale``."""
    seen = _Seen(input_device(hf))
    with ExitStack() as stack:
        for module in (site.down, site.block, *norms):
            seen.watch(stack, module)
        stack.enter_context(
            editing([site.place("coefficient")], lambda _layer, values: values * scale)
        )
        probe_logits(hf)
    return seen
