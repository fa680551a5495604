"""How a model itself behaves: causal, blind to padding, with keys and values that can be shared."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError
from neuroglot.models.forward import run_continuations, run_logits, run_prefixes
from neuroglot.models.probing import N_PROBE_TOKENS, probe_ids, probe_logits, relative_change

# What other numbers of padding may do to the logits, beside rounding: other shapes of the batch
# lead to other kernels.
SHAPE_ROUNDING = 3e-4


def check_causal(hf: PreTrainedModel, before: Tensor, tolerance: float) -> None:
    """A token must not change the logits of those before it.

    Args:
        hf: the model.
        before: its logits on the probe.
        tolerance: see :func:`neuroglot.models.probing.rounding`.

    Raises:
        NeuroglotError: it does, as in an encoder.
    """
    ids = probe_ids(hf)
    ids[0, -1] = probe_ids(hf, shift=1)[0, -1]
    change = relative_change(before[:, :-1], probe_logits(hf, ids)[:, :-1])
    if not change <= tolerance:
        raise NeuroglotError(
            f"{type(hf).__name__} is not causal: another last token changes the logits before it "
            f"(by {change:.2g} of their size), as in an encoder. Encoder-only models are "
            "unsupported; if this one can be a decoder, load it with is_decoder=True in its "
            "configuration."
        )


def _padded(hf: PreTrainedModel, side: str, filler: int) -> Tensor:
    """Logits of the probe's tokens, with as many masked ones on one side."""
    ids = probe_ids(hf)
    padding, real = torch.full_like(ids, filler), torch.ones_like(ids, dtype=torch.bool)
    order = -1 if side == "left" else 1
    tokens = torch.cat([ids, padding][::order], dim=1)
    mask = torch.cat([real, ~real][::order], dim=1)
    at = slice(N_PROBE_TOKENS, None) if side == "left" else slice(N_PROBE_TOKENS)
    return run_logits(hf, tokens, mask)[:, at]


def check_padding(hf: PreTrainedModel, before: Tensor, tolerance: float) -> None:
    """Neither what is under the mask nor how much of it may show in the logits of real tokens.

    Args:
        hf: the model.
        before: its logits on the probe.
        tolerance: see :func:`neuroglot.models.probing.rounding`.

    Raises:
        NeuroglotError: padding shows.
    """
    other = int(probe_ids(hf)[0, -1])
    for side in ("left", "right"):
        padded = _padded(hf, side, 0)
        content = relative_change(padded, _padded(hf, side, other))
        amount = relative_change(before, padded)
        allowed = max(SHAPE_ROUNDING, 4 * torch.finfo(hf.dtype).eps, tolerance)
        if not (content <= tolerance and amount <= allowed):
            raise NeuroglotError(
                f"padding on the {side} changes the logits of {type(hf).__name__} (by "
                f"{max(content, amount):.2g} of their size): it does not leave out what is masked, "
                "so that results would depend on what shares a batch. Such models are unsupported."
            )


@torch.inference_mode()
def shares_cache(hf: PreTrainedModel) -> bool:
    """Whether several continuations can follow one prompt that is run once.

    Two prompts of different lengths run, and are gone on from by one and by two continuations;
    the logits must be those of the whole texts.
    """
    ids, other = probe_ids(hf), probe_ids(hf, shift=1)
    mask = torch.ones(2, N_PROBE_TOKENS, dtype=torch.bool, device=ids.device)
    mask[1, 0] = False
    prefixes = torch.cat([ids, other.roll(1)])
    rows = torch.tensor([0, 1, 1], device=ids.device)
    tails = torch.cat([other, ids, other])[:, :2]
    whole = torch.cat([mask[rows], torch.ones_like(tails, dtype=torch.bool)], dim=1)
    try:
        _, cache = run_prefixes(hf, prefixes, mask)
        found = run_continuations(hf, tails, whole, cache, rows)
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError):
        return False
    expected = run_logits(hf, torch.cat([prefixes[rows], tails], dim=1), whole, N_PROBE_TOKENS)
    allowed = max(SHAPE_ROUNDING, 4 * torch.finfo(hf.dtype).eps)
    return found.shape == expected.shape and relative_change(expected, found) <= allowed
