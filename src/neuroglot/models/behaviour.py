"""How a model itself behaves: causal, blind to padding and to what else is in its batch.

What is compared here are logits of the same few tokens, run in different company.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

# What other numbers of padding may do to the logits, beside rounding: other shapes of the batch
# lead to other kernels.
SHAPE_ROUNDING = 3e-4
LARGEST_NOISE = 0.2
WIDTH = 2 * N_PROBE_TOKENS  # of a padded batch
# What configurations, and layers after them, call how far attention looks back.
WINDOWS = ("sliding_window", "attention_chunk_size")
# What models raise that cannot go on from keys and values as it is done here.
CANNOT = (
    *(AttributeError, IndexError, KeyError, NotImplementedError),
    *(RuntimeError, TypeError, ValueError),
)


def _shape_rounding(hf: PreTrainedModel) -> float:
    """The relative change that other shapes of a batch explain."""
    return max(SHAPE_ROUNDING, 4 * torch.finfo(hf.dtype).eps)


def _in_other_company(hf: PreTrainedModel, ids: Tensor) -> Tensor:
    """Tokens (row, position), with other prompts in the second half of the rows."""
    n_same = len(ids) // 2
    others = [probe_ids(hf, shift) for shift in range(1, len(ids) - n_same + 1)]
    return torch.cat([ids[:n_same], *others])


@torch.inference_mode()
def own_logits(hf: PreTrainedModel, ids: Tensor) -> Tensor:
    """Logits (row, position, token) of a plain call, with nothing but tokens and mask to go by."""
    mask = torch.ones_like(ids)
    logits: Tensor = hf(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits


@torch.inference_mode()
def disturbance(hf: PreTrainedModel, ids: Tensor, before: Tensor) -> float:
    """How much other prompts in its batch change the logits of a row, relative to their size.

    Rows of a matrix product do not see each other, so it is hardly ever more than nothing: but
    layers whose inputs are quantised round by the largest value of the whole batch.

    Args:
        hf: the model.
        ids: of a batch (row, position).
        before: its logits (row, position, token), as they were before anything was tried.

    Raises:
        NeuroglotError: they change them so much that nothing could be told apart, or the model's
            own logits are others.
    """
    others, n_same = _in_other_company(hf, ids), len(ids) // 2
    own = own_logits(hf, others)
    if torch.equal(own[:n_same], before[:n_same]):
        return 0.0
    if not torch.equal(probe_logits(hf, ids), before):
        raise NeuroglotError("the logits differ after all hooks were removed.")
    ours = probe_logits(hf, others)
    change = relative_change(own, ours)
    if not change <= _shape_rounding(hf):
        raise NeuroglotError(
            f"the logits of {type(hf).__name__} for tokens and a mask alone are others (by "
            f"{change:.2g} of their size) than with positions counted from {first_position(hf)}: "
            "it numbers positions in another way, or does not count them over tokens. Such models "
            "are unsupported."
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
    """Whether some linear map is more than a plain matrix, so that it may round by the batch."""
    linear = (module for module in hf.modules() if widths(module) is not None)
    return bool(getattr(hf, "is_quantized", False)) or not all(map(is_ordinary, linear))


def rounding(same: Tensor, noise: float = 0.0) -> float:
    """The relative change that rounding can explain between rows of one batch.

    Args:
        same: logits (row, position, token) of rows that hold the same tokens.
        noise: see :func:`disturbance`.
    """
    between = max(relative_change(same[0], row) for row in same)
    return max(ROUNDING, 3 * noise, 3 * between)


def check_causal(hf: PreTrainedModel, before: Tensor, other_last: Tensor, tolerance: float) -> None:
    """A token must not change the logits of those before it.

    Args:
        hf: the model.
        before: its logits on the probe (position, token).
        other_last: the same with another last token.
        tolerance: relative change that rounding explains.

    Raises:
        NeuroglotError: it does, as in an encoder.
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
    """The model without its LM head must do to its last layer what it does with it.

    Args:
        hf: the model.
        site: of the last layer.
        before: what was seen of it with the LM head, on the probe.
        tolerance: relative change that rounding explains.

    Raises:
        NeuroglotError: it does something else.
    """
    found: list[Tensor] = []
    ids = probe_ids(hf).expand(2, -1)
    with reading(
        [site.place("coefficient")], lambda _layer, values: found.append(values.float().cpu())
    ):
        run_body(hf, ids, torch.ones_like(ids, dtype=torch.bool))
    change = relative_change(before.coefficients, found[0][0]) if len(found) == 1 else float("nan")
    if not change <= max(tolerance, _shape_rounding(hf)):
        raise NeuroglotError(
            f"{type(hf).__name__} does not run its body ({type(hf.base_model).__name__}) as it is "
            f"when it runs by itself (the coefficients of {site.path} differ by {change:.2g} of "
            "their size), so that neurons cannot be recorded. Such models are unsupported."
        )


def _prefixes(hf: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Two prompts of different lengths, padded on the left: ids and mask (prompt, position)."""
    ids, other = probe_ids(hf), probe_ids(hf, shift=1)
    mask = torch.ones(2, N_PROBE_TOKENS, dtype=torch.bool, device=ids.device)
    mask[1, 0] = False
    return torch.cat([ids, other.roll(1)]), mask


def _tails(hf: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """What goes on from these prompts (tail, position), and which of them each follows."""
    ids, other = probe_ids(hf), probe_ids(hf, shift=1)
    return torch.cat([other, ids, other])[:, :2], torch.tensor([0, 1, 1], device=ids.device)


def _texts(hf: PreTrainedModel, side: str) -> tuple[Tensor, Tensor]:
    """Texts of different lengths in one batch: ids, and true at real tokens (text, position).

    The probe stands twice beside padding of one kind and twice of another; then come a text
    without padding, and the prompts above with what follows them.
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
    """Neither what is under the mask nor how much of it may show in the logits of real tokens.

    Args:
        hf: the model.
        before: its logits on the probe (position, token).
        side: ``"left"`` or ``"right"``.
        tolerance: relative change that rounding explains.

    Returns:
        Logits (text, position, token) of the last two positions of the texts that
        :func:`shares_cache` runs in two parts.

    Raises:
        NeuroglotError: padding shows.
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
            f"{max(content, amount):.2g} of their size): it does not leave out what is masked, "
            "so that results would depend on what shares a batch. Such models are unsupported."
        )
    return logits[5:, -2:]


def _windows(hf: PreTrainedModel) -> list[tuple[Any, str]]:
    """What says how many keys and values attention sees or a cache keeps, and under which name."""
    holders = {id(x): x for x in (*hf.modules(), *configs_of(hf))}.values()
    named = ((holder, name) for holder in holders for name in WINDOWS)
    return [(x, name) for x, name in named if isinstance(vars(x).get(name), int)]


@contextmanager
def _short_windows(windows: Sequence[tuple[Any, str]]) -> Iterator[None]:
    """Within the block, windows are shorter than the probe, so that a cache keeps less than it."""
    before = [(holder, name, getattr(holder, name)) for holder, name in windows]
    try:
        for holder, name, _ in before:
            setattr(holder, name, N_PROBE_TOKENS - 1)
        yield
    finally:
        for holder, name, value in before:
            setattr(holder, name, value)


@torch.inference_mode()
def shares_cache(hf: PreTrainedModel, whole: Tensor) -> bool:
    """Whether several continuations can follow one prompt that is run once.

    Two prompts of different lengths run, and are gone on from by one and by two continuations;
    the logits must be those of the whole texts. Where there are windows, they are made short: a
    cache may leave out keys by a window that the attention of whole texts does not have.

    Args:
        hf: the model.
        whole: logits (text, position, token) of the last two positions of the whole texts.
    """
    windows = _windows(hf)
    with _short_windows(windows):
        try:
            if windows:
                ids, mask = _texts(hf, "left")
                whole = run_logits(hf, ids[5:], mask[5:])[:, -2:]
            return _is_same_in_parts(hf, whole)
        except CANNOT:
            return False


def _is_same_in_parts(hf: PreTrainedModel, whole: Tensor) -> bool:
    """As :func:`shares_cache`, with the windows that there are."""
    prefixes, mask = _prefixes(hf)
    tails, rows = _tails(hf)
    masks = torch.cat([mask[rows], torch.ones_like(tails, dtype=torch.bool)], dim=1)
    _, cache = run_prefixes(hf, prefixes, mask)
    found = run_continuations(hf, tails, masks, cache, rows)
    return found.shape == whole.shape and relative_change(whole, found) <= _shape_rounding(hf)
