"""The way from a feed-forward network straight to the logits, past all later layers.

Nothing is known of families here: which norms stand on that way, and what else is multiplied with,
is measured by a few forward passes, and a model whose way is another one is refused.
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
# What coefficients are multiplied with to see where the FFN's output goes, until it stands out from
# the residual stream. A norm leaves out the size, but still gives the opposite.
SCALES = (-16.0, -256.0, -4096.0)
MOST_ROUNDING = 0.1  # of what is measured


@dataclass(frozen=True)
class AfterFFN:
    """What becomes of the output of one feed-forward network before it joins the residual stream.

    Attributes:
        norm: the norm that it passes, if any.
        factor: what it is multiplied with then.
    """

    norm: Norm | None
    factor: float

    def apply(self, output: Tensor) -> Tensor:
        """What is added to the residual stream, for an output (…, d_model) of the FFN."""
        return self.factor * (self.norm.apply(output) if self.norm else output.float())

    def pull_back(self, direction: Tensor, at: Tensor) -> Tensor:
        """The direction (prompt, d_model) in the FFN's output, its norm frozen ``at`` its value."""
        scaled = self.factor * direction
        return self.norm.pull_back(scaled, at) if self.norm else scaled

    @property
    def bias(self) -> Tensor | float:
        """What the norm adds to the residual stream, whatever comes in."""
        return self.factor * self.norm.bias if self.norm else 0.0


@dataclass(frozen=True)
class DirectPath:
    """From the residual stream to the logits, and from each FFN to the residual stream.

    Attributes:
        unembedding: rows of the LM head (token, d_model), in its dtype.
        bias: of the LM head (token,), or ``None``.
        final: the norm before the LM head.
        scale: what the LM head's output is multiplied with.
        cap: logits are ``cap · tanh(logit / cap)`` in the end; here they are looked at before.
        after: what follows the FFN of each layer.
    """

    unembedding: Tensor
    bias: Tensor | None
    final: Norm
    scale: float
    cap: float | None
    after: tuple[AfterFFN, ...]


def unembedding(hf: PreTrainedModel) -> tuple[nn.Module, Tensor]:
    """The LM head, and its weight (token, d_model).

    Raises:
        UnsupportedError: there is none that can be read, or it is not as wide as the layers.
    """
    find: Any = hf.get_output_embeddings  # which has no types
    head: nn.Module | None = find()
    if head is None:
        raise UnsupportedError(
            f"{type(hf).__name__} names no output embeddings, so that neurons cannot be read as "
            "tokens."
        )
    if not is_ordinary(head):
        raise UnsupportedError(
            f"the LM head of {type(hf).__name__} is a {type(head).__name__} whose weights are "
            "quantised, offloaded or not those of a linear map; load the model unquantised and "
            "wholly on one device."
        )
    return head, head.get_parameter("weight").detach()


def check_unembedding(hf: PreTrainedModel, site: FFNSite) -> Tensor:
    """The LM head's weight (token, d_model), where value vectors can be multiplied with it.

    Raises:
        UnsupportedError: see :func:`unembedding`, or it has another width than the layers.
    """
    _, weight = unembedding(hf)
    d_model = down_widths(site.down)[1]
    if weight.shape[1] != d_model:
        raise UnsupportedError(
            f"the LM head of {type(hf).__name__} takes vectors of {weight.shape[1]}, but the "
            f"layers work with {d_model}: a projection stands between them, so that value vectors "
            "cannot be multiplied with output embeddings."
        )
    return weight


class _Seen:
    """What passes some modules during a forward pass, at the last position, in float32.

    All on one device, wherever the modules are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.into: dict[nn.Module, Tensor] = {}
        self.out_of: dict[nn.Module, Tensor] = {}
        self.stream: dict[int, Tensor] = {}

    def watch(self, stack: ExitStack, module: nn.Module) -> None:
        def into(x: Tensor) -> None:
            self.into[module] = self._last(x)

        def out_of(x: Tensor) -> None:
            self.out_of[module] = self._last(x)

        stack.enter_context(on_input(module, into))
        stack.enter_context(on_output(module, out_of))

    def read_stream(self, layer: int, values: Tensor) -> None:
        self.stream[layer] = self._last(values)

    def _last(self, values: Tensor) -> Tensor:
        return values.reshape(-1, values.shape[-1])[-1:].float().to(self.device)


def _fit(found: Tensor, predicted: Tensor) -> tuple[float, float]:
    """The factor between two vectors, and the relative error that it leaves."""
    factor = float((found * predicted).sum() / (predicted * predicted).sum())
    return factor, relative_change(found, factor * predicted)


def _tolerance(hf: PreTrainedModel) -> float:
    return max(TOLERANCE, 4 * torch.finfo(hf.dtype).eps)


def _exactly(factor: float, tolerance: float) -> float:
    return 1.0 if abs(factor - 1) < tolerance else factor


@torch.inference_mode()
def find_direct_path(hf: PreTrainedModel, sites: tuple[FFNSite, ...]) -> DirectPath:
    """Measure the way from every FFN to the logits; one forward pass a layer and a few more.

    Raises:
        UnsupportedError: the model has another way; it says where.
    """
    weight = check_unembedding(hf, sites[0])
    head, _ = unembedding(hf)
    d_model = weight.shape[1]
    blocks = {part for site in sites for part in site.block.modules()}
    outside = [part for part in hf.modules() if part not in blocks]
    finals = norms_in(outside, d_model, input_device(hf))
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
    near = [
        norm
        for part, norm in finals.items()
        if part in seen.into
        and relative_change(seen.into[part], end) < TOLERANCE
        and relative_change(seen.out_of[part], seen.into[head]) < TOLERANCE
    ]
    if len(near) != 1:
        raise UnsupportedError(
            f"{type(hf).__name__} has no norm between its last layer and its LM head that takes "
            "the whole residual stream and gives what the LM head takes; direct logit attribution "
            "needs one. The other scores do not."
        )
    scale, cap = _scale(hf, logits, seen.out_of[head])
    after = _alike([_after(hf, site) for site in sites], _tolerance(hf))
    return DirectPath(weight, getattr(head, "bias", None), near[0], scale, cap, after)


def _scale(hf: PreTrainedModel, logits: Tensor, given: Tensor) -> tuple[float, float | None]:
    """What turns the LM head's output into logits: a factor, and a bound if there is one.

    Raises:
        UnsupportedError: something else.
    """
    ways: list[tuple[float | None, Tensor]] = [(None, logits)]
    cap = getattr(hf.config.get_text_config(), "final_logit_softcapping", None)
    if isinstance(cap, int | float) and cap > 0:
        ways.append((float(cap), cap * torch.atanh((logits / cap).clamp(-1 + 1e-6, 1 - 1e-6))))
    fits = [(*_fit(before, given), cap) for cap, before in ways]
    tolerance = _tolerance(hf)
    # Small logits hardly meet the bound, so that both may fit: then the one with the bound.
    for scale, error, bound in reversed(fits):
        if error < tolerance:
            return _exactly(scale, tolerance), bound
    error = fits[0][1]
    raise UnsupportedError(
        f"the logits of {type(hf).__name__} are not proportional to what its LM head gives "
        f"({error:.1%} are left over); direct logit attribution needs that. The other scores do "
        "not."
    )


def _alike(after: list[AfterFFN], tolerance: float) -> tuple[AfterFFN, ...]:
    """The same with one factor, if all are the same up to rounding."""
    common = median(one.factor for one in after)
    if all(abs(one.factor - common) <= 4 * tolerance * abs(common) for one in after):
        return tuple(AfterFFN(one.norm, _exactly(common, tolerance)) for one in after)
    return tuple(AfterFFN(one.norm, _exactly(one.factor, tolerance)) for one in after)


def _after(hf: PreTrainedModel, site: FFNSite) -> AfterFFN:
    """What becomes of one layer's FFN output, measured by changing its coefficients.

    Raises:
        UnsupportedError: it does not simply add to the residual stream.
    """
    d_model = down_widths(site.down)[1]
    norms = norms_in(site.block.modules(), d_model, input_device(hf))
    once = _scaled(hf, site, norms, 1.0)
    output = once.out_of[site.down]
    # The FFN's own output, or what a dropout, which does nothing now, makes of it.
    near = [n for part, n in norms.items() if torch.equal(once.into.get(part, output * 0), output)]
    norm = near[0] if near else None
    plain = AfterFFN(norm, 1.0)
    for scale in SCALES:
        more = _scaled(hf, site, norms, scale)
        predicted = plain.apply(more.out_of[site.down]) - plain.apply(output)
        change = more.out_of[site.block] - once.out_of[site.block]
        factor, error = _fit(change, predicted)
        size = float(more.out_of[site.block].norm() / change.norm())
        # What rounding of the stream leaves of a change that is small beside it.
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
            f"add to the residual stream ({error:.1%} of what it changes is left over), as where a "
            "norm follows the sum; direct logit attribution needs that. The other scores do not."
        )
    return AfterFFN(norm, factor)


def _scaled(
    hf: PreTrainedModel, site: FFNSite, norms: dict[nn.Module, Norm], scale: float
) -> _Seen:
    """What passes a layer when its coefficients are so many times as large."""
    seen = _Seen(input_device(hf))
    with ExitStack() as stack:
        for module in (site.down, site.block, *norms):
            seen.watch(stack, module)
        stack.enter_context(
            editing([site.place("coefficient")], lambda _layer, values: values * scale)
        )
        probe_logits(hf)
    return seen
