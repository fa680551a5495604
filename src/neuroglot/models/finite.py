"""Find out why a model gives NaN or infinity: its weights, a narrow number type, or neither."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroglot.errors import listed
from neuroglot.models.probing import probe_ids

WIDE = torch.bfloat16  # as many bytes as float16, with the range of float32
MENDED = "load it with dtype='bfloat16' or 'float32'"


def why_not_finite(
    hf: PreTrainedModel, ids: Sequence[int] | None = None, edits: Sequence[str] = ()
) -> str:
    """A sentence that says why a model gives NaN or infinity, and how to mend it.

    If its numbers are of a narrow type, one more forward pass runs on a copy of the weights in a
    wide type; the model itself is not changed.

    Args:
        hf: the model.
        ids: tokens of the prompt for which it gave NaN or infinity; by default the probe.
        edits: descriptions of the edits in force.
    """
    broken = _broken_weight(hf)
    if broken is not None:
        return broken
    narrow = _narrow(hf)
    if narrow is None:
        return (
            f"its weights are finite, and {_name(hf.dtype)} holds numbers up to "
            f"{torch.finfo(hf.dtype).max:.1g}, so no other dtype mends it: "
            + (_less_of(edits) or "look for a division by zero in the model's code.")
        )
    range_of = f"{_name(narrow)} holds no number above {torch.finfo(narrow).max:,g}"
    if edits:
        return f"{range_of}; {MENDED}, or {_less_of(edits)}"
    mended = _is_finite_when_wide(hf, ids)
    if mended is None:
        return f"its weights are finite, but {range_of}, and sums may overflow: {MENDED}."
    if mended:
        return (
            f"its weights are finite, but sums overflow in {_name(narrow)}, where they do not in "
            f"{_name(WIDE)} ({range_of}): {MENDED}."
        )
    return (
        f"its weights are finite, and it gives NaN or infinity in {_name(WIDE)} too, so no other "
        "dtype mends it: look for a division by zero in the model's code."
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _less_of(edits: Sequence[str]) -> str:
    return f"make the edits that are in force smaller ({listed(edits, 3)})." if edits else ""


def _numbers(hf: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and values of weights that are floating-point numbers and not offloaded."""
    for name, weight in hf.named_parameters():
        if weight.is_floating_point() and not weight.is_meta:
            yield name, weight.detach()


def _narrow(hf: nn.Module) -> torch.dtype | None:
    """The narrowest number type of the weights whose range is smaller than that of bfloat16."""
    types = {weight.dtype for _, weight in _numbers(hf)}
    narrowest = min(types, key=lambda dtype: torch.finfo(dtype).max, default=WIDE)
    return narrowest if torch.finfo(narrowest).max < torch.finfo(WIDE).max else None


def _broken_weight(hf: nn.Module) -> str | None:
    """A message about the first weight that holds NaN or infinity, or ``None``."""
    for name, weight in _numbers(hf):
        # One-byte types have no infinity, and do not support isfinite.
        numbers = weight if weight.dtype.itemsize > 1 else weight.to(WIDE)
        if bool(torch.isfinite(numbers).all()):
            continue
        message = f"its weight {name!r} itself holds NaN or infinity"
        if weight.dtype == torch.float16 and not bool(numbers.isnan().any()):
            return (
                f"{message}, as numbers above 65,504 become in float16; {MENDED}, and if that does "
                "not help, get the checkpoint anew."
            )
        return f"{message}, so no dtype mends it: get the checkpoint anew."
    return None


@torch.inference_mode()
def _is_finite_when_wide(hf: PreTrainedModel, ids: Sequence[int] | None) -> bool | None:
    """Whether the logits are finite in bfloat16; ``None`` if that cannot be determined."""
    weights = dict(hf.named_parameters())
    are_plain = all(
        type(weight) in (Tensor, nn.Parameter) and not weight.is_meta for weight in weights.values()
    )
    if not are_plain or getattr(hf, "is_quantized", False):
        return None
    tokens = probe_ids(hf) if ids is None else torch.tensor([list(ids)], device=hf.device)
    try:
        numbers = weights | dict(hf.named_buffers())
        wide = {
            name: values.detach().to(WIDE) if values.dtype == torch.float16 else values
            for name, values in numbers.items()
        }
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        output = torch.func.functional_call(hf, wide, kwargs=inputs | {"use_cache": False})
    except RuntimeError:  # out of memory, or code that insists on its number type
        return None
    return bool(torch.isfinite(output.logits).all())
