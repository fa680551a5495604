"""Checks that a model is causal and that padding and other prompts in a batch do not affect it.

The checks compare the logits of the same few tokens in different batches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError
from neuroglot.models.forward import (
    first_position,
    run_body,
    run_continuations,
    run_logits,
    run_prefixes,
)
from neuroglot.models.hooks import reading
from neuroglot.models.identity import configs_of
from neuroglot.models.probing import (
    N_PROBE_TOKENS,
    ROUNDING,
    Seen,
    probe_ids,
    probe_logits,
    relative_change,
)
from neuroglot.models.sites import FFNSite, is_ordinary, widths
from neuroglot.models.temporarily import temporarily

# Relative change of logits that another amount of padding may cause, because PyTorch chooses other
# kernels for another shape of the batch.
SHAPE_ROUNDING = 3e-4
LARGEST_NOISE = 0.2
WIDTH = 2 * N_PROBE_TOKENS  # positions of a padded batch
# Names that configurations and layers use for how far attention looks back.
WINDOWS = ("sliding_window", "attention_chunk_size")
# Errors of models that cannot continue from cached keys and values.
CANNOT = (
    *(AttributeError, IndexError, KeyError, NotImplementedError),
    *(RuntimeError, TypeError, ValueError),
)


def _shape_rounding(hf: PreTrainedModel) -> float:
    """The relative change that another shape of the batch can explain."""
    return max(SHAPE_ROUNDING, 4 * torch.finfo(hf.dtype).eps)


@torch.inference_mode()
def disturbance(hf: PreTrainedModel, ids: Tensor, before: Tensor) -> float:
    """How much other prompts in its batch change the logits of a row, relative to their size.

    Rows of a matrix product do not affect each other, so the change is nearly always zero. It is
    not if layers quantise their inputs by the largest value of the whole batch.

    Args:
        hf: the model.
        ids: tokens of a batch (row, position).
        before: its logits (row, position, token), computed before any trial.

    Raises:
        NeuroglotError: the change is too large to detect any effect, or the logits differ from
            those of a plain call with tokens and mask only.
    """
    n_same = len(ids) // 2
    other_prompts = (probe_ids(hf, shift) for shift in range(1, len(ids) - n_same + 1))
    others = torch.cat([ids[:n_same], *other_prompts])
    own: Tensor = hf(
        input_ids=others, attention_mask=torch.ones_like(others), use_cache=False
    ).logits
    if torch.equal(own[:n_same], before[:n_same]):
        return 0.0
    if not torch.equal(probe_logits(hf, ids), before):
        raise NeuroglotError("the logits differ after all hooks were removed.")
    ours = probe_logits(hf, others)
    change = relative_change(own, ours)
    if not change <= _shape_rounding(hf):
        raise NeuroglotError(
            f"the logits of {type(hf).__name__} for tokens and a mask alone differ (by "
            f"{change:.2g} of their size) from those with positions counted from "
            f"{first_position(hf)}: the model numbers positions in another way. Such models are "
            "unsupported."
        )
    noise = relative_change(before[:n_same], ours[:n_same])
    quantised = _is_quantised(hf)
    if not noise <= (LARGEST_NOISE if quantised else ROUNDING):
        most = f"at most {LARGEST_NOISE:.0%} is expected of quantised layers"
        expected = most if quantised else "without quantised layers nothing is expected"
        raise NeuroglotError(
            f"other prompts in its batch change the logits of {type(hf).__name__} by {noise:.2%}, "
            f"where {expected}: results would depend on what shares a batch. Such models are "
            "unsupported."
        )
    return noise


def _is_quantised(hf: PreTrainedModel) -> bool:
    """Whether some linear map is not a plain matrix, so its rounding may depend on the batch."""
    linear = (module for module in hf.modules() if widths(module) is not None)
    return bool(getattr(hf, "is_quantized", False)) or not all(map(is_ordinary, linear))


def rounding(same: Tensor, noise: float = 0.0) -> float:
    """The relative change that rounding can explain between rows of one batch.

    Args:
        same: logits (row, position, token) of rows with the same tokens.
        noise: from :func:`disturbance`.
    """
    between = max(relative_change(same[0], row) for row in same)
    return max(ROUNDING, 3 * noise, 3 * between)


def check_causal(hf: PreTrainedModel, before: Tensor, other_last: Tensor, tolerance: float) -> None:
    """Refuse a model in which a token changes the logits of the tokens before it.

    Args:
        hf: the model.
        before: its logits on the probe (position, token).
        other_last: its logits if the probe ends in another token (position, token).
        tolerance: relative change that rounding explains.

    Raises:
        NeuroglotError: a token does change earlier logits, as in an encoder.
    """
    change = relative_change(before[:-1], other_last[:-1])
    if not change <= tolerance:
        raise NeuroglotError(
            f"{type(hf).__name__} is not causal: another last token changes the logits before it "
            f"(by {change:.2g} of their size), as in an encoder. Encoder-only models are "
            "unsupported; if this one can be a decoder, load it with is_decoder=True in its "
            "configuration."
        )


@torch.inference_mode()
def check_body(hf: PreTrainedModel, site: FFNSite, before: Seen, tolerance: float) -> None:
    """Refuse a model whose last layer computes something else when it runs without the LM head.

    Args:
        hf: the model.
        site: the feed-forward network of the last layer.
        before: what was seen of it on the probe, with the LM head.
        tolerance: relative change that rounding explains.

    Raises:
        NeuroglotError: the coefficients differ.
    """
    fired: list[Tensor] = []
    ids = probe_ids(hf).expand(2, -1)
    with reading(
        [site.place("coefficient")], lambda _layer, values: fired.append(values.float().cpu())
    ):
        run_body(hf, ids, torch.ones_like(ids, dtype=torch.bool))
    change = relative_change(before.coefficients, fired[0][0]) if len(fired) == 1 else float("nan")
    if not change <= max(tolerance, _shape_rounding(hf)):
        raise NeuroglotError(
            f"{type(hf).__name__} does not run its body ({type(hf.base_model).__name__}) as it is "
            f"when it runs by itself (the coefficients of {site.path} differ by {change:.2g} of "
            "their size), so neurons cannot be recorded. Such models are unsupported."
        )


def _prefixes(hf: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Two prompts of different lengths, padded on the left: ids and mask (prompt, position)."""
    ids, other = probe_ids(hf), probe_ids(hf, shift=1)
    mask = torch.ones(2, N_PROBE_TOKENS, dtype=torch.bool, device=ids.device)
    mask[1, 0] = False
    return torch.cat([ids, other.roll(1)]), mask


def _tails(hf: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Continuations of these prompts (tail, position), and the index of the prompt of each."""
    ids, other = probe_ids(hf), probe_ids(hf, shift=1)
    return torch.cat([other, ids, other])[:, :2], torch.tensor([0, 1, 1], device=ids.device)


def _texts(hf: PreTrainedModel, side: str) -> tuple[Tensor, Tensor]:
    """Texts of different lengths in one batch: ids, and true at real tokens (text, position).

    The first four rows are the probe, twice with one kind of padding and twice with another. Then
    come a text without padding, and the prompts above with their continuations.
    """
    probe, longest = probe_ids(hf)[0], torch.cat([probe_ids(hf, 2), probe_ids(hf, 3)], dim=1)[0]
    prefixes, mask = _prefixes(hf)
    tails, rows = _tails(hf)
    whole = [
        torch.cat([prefixes[row][mask[row]], tail]) for row, tail in zip(rows, tails, strict=True)
    ]
    texts = [(probe, 0), (probe, 0), (probe, int(probe[-1])), (probe, int(probe[-1]))]
    texts += [(longest, 0), *((text, 0) for text in whole)]
    ids, masks = [], []
    for text, filler in texts:
        padding = torch.full((WIDTH - len(text),), filler, dtype=text.dtype, device=text.device)
        order = -1 if side == "left" else 1
        ids.append(torch.cat([text, padding][::order]))
        real = torch.arange(WIDTH, device=text.device) < len(text)
        masks.append(real.flip(0) if side == "left" else real)
    return torch.stack(ids), torch.stack(masks)


@torch.inference_mode()
def check_padding(hf: PreTrainedModel, before: Tensor, side: str, tolerance: float) -> Tensor:
    """Refuse a model whose logits depend on the content or the amount of padding.

    Args:
        hf: the model.
        before: its logits on the probe (position, token).
        side: ``"left"`` or ``"right"``.
        tolerance: relative change that rounding explains.

    Returns:
        Logits (text, position, token) of the last two positions of the texts that
        :func:`shares_cache` runs in two parts.

    Raises:
        NeuroglotError: padding changes the logits.
    """
    logits = run_logits(hf, *_texts(hf, side))
    at = slice(WIDTH - N_PROBE_TOKENS, None) if side == "left" else slice(N_PROBE_TOKENS)
    one, again, other, other_again = logits[:4, at]
    between = max(relative_change(one, again), relative_change(other, other_again))
    content = relative_change(one, other)
    amount = relative_change(before, one)
    if not (
        content <= max(tolerance, 3 * between) and amount <= max(tolerance, _shape_rounding(hf))
    ):
        raise NeuroglotError(
            f"padding on the {side} changes the logits of {type(hf).__name__} (by "
            f"{max(content, amount):.2g} of their size): it does not ignore what is masked, so "
            "results would depend on what shares a batch. Such models are unsupported."
        )
    return logits[5:, -2:]


def _windows(hf: PreTrainedModel) -> list[tuple[Any, str]]:
    """Objects, and the names of their attributes, that limit how far attention looks back."""
    holders = {id(holder): holder for holder in (*hf.modules(), *configs_of(hf))}.values()
    named = ((holder, name) for holder in holders for name in WINDOWS)
    return [(holder, name) for holder, name in named if isinstance(vars(holder).get(name), int)]


@torch.inference_mode()
def shares_cache(hf: PreTrainedModel, whole: Tensor) -> bool:
    """Whether several continuations can follow one prompt that is run once.

    Two prompts of different lengths run, and one and two continuations follow them; the logits must
    be those of the whole texts. If attention has windows, they are made shorter than the probe: a
    cache may drop keys by a window that attention over whole texts does not apply.

    Args:
        hf: the model.
        whole: logits (text, position, token) of the last two positions of the whole texts.
    """
    windows = _windows(hf)
    prefixes, mask = _prefixes(hf)
    tails, rows = _tails(hf)
    masks = torch.cat([mask[rows], torch.ones_like(tails, dtype=torch.bool)], dim=1)
    with temporarily((holder, name, N_PROBE_TOKENS - 1) for holder, name in windows):
        try:
            if windows:
                texts, real = _texts(hf, "left")
                whole = run_logits(hf, texts[5:], real[5:])[:, -2:]
            _, cache = run_prefixes(hf, prefixes, mask)
            in_parts = run_continuations(hf, tails, masks, cache, rows)
        except CANNOT:
            return False
    return in_parts.shape == whole.shape and relative_change(whole, in_parts) <= _shape_rounding(hf)
