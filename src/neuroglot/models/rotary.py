"""Detect rotary factors that depend on the longest text of a batch, without running a long text.

Modules that turn positions into factors are called with a distant position beside the first ones.
If that changes the factors of the first positions, a long text would change all other texts of its
batch, and keys that were cached before it would differ from those that the model computes after it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError
from neuroglot.models.forward import context_sizes
from neuroglot.models.hooks import on_call
from neuroglot.models.probing import N_PROBE_TOKENS
from neuroglot.models.sites import widths

FARTHEST = 2**20  # tokens that are assumed if a configuration names no limit
WHOLE_NUMBERS = (torch.int64, torch.int32)
LENGTH = "seq_len"  # name of the length of a text in code that takes no positions


@dataclass(frozen=True)
class Call:
    """How a module without weights was called with the positions of the probe.

    Attributes:
        module: the module.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def factors(self, module: nn.Module, length: int) -> list[Tensor]:
        """The factors for the probe's positions if the longest text has this many tokens.

        Args:
            module: a copy of the module.
            length: more tokens than the probe has.
        """
        args = tuple(_longer(value, length) for value in self.args)
        kwargs = {name: _longer(value, length, name) for name, value in self.kwargs.items()}
        # This is the method of the class, even if another function has replaced it.
        output = type(module).forward(module, *args, **kwargs)
        parts = output if isinstance(output, Sequence) else (output,)
        return [
            _of_probe(part, length) for part in parts if isinstance(part, Tensor) and part.ndim > 1
        ]


def _of_probe(values: Tensor, length: int) -> Tensor:
    """The factors of the probe's positions.

    Positions are taken to be the last dimension but one or, if that has the wrong size, the first
    dimension of the right size.
    """
    sizes = (N_PROBE_TOKENS + 1, length)
    fitting = [dim for dim in range(values.ndim - 1) if values.shape[dim] in sizes]
    dim = values.ndim - 2
    if fitting and dim not in fitting:
        dim = fitting[0]
    return values.narrow(dim, 0, min(N_PROBE_TOKENS, values.shape[dim]))


def _copied(module: nn.Module) -> nn.Module:
    """A copy of a module without weights, on the CPU and without hooks."""
    new: nn.Module = object.__new__(type(module))
    nn.Module.__init__(new)
    own = set(vars(new)) | {"forward", "_hf_hook"}
    vars(new).update({k: _on_cpu(v) for k, v in vars(module).items() if k not in own})
    # This includes buffers that are registered under two names.
    for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
        new.register_buffer(name, _on_cpu(buffer))
    for name, part in module.named_children():
        new.add_module(name, _copied(part))
    return new


def _on_cpu(value: Any) -> Any:
    """A copy of a tensor on the CPU; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    # In full precision no small change is lost in rounding.
    return (value.float() if value.is_floating_point() else value).detach().cpu().clone()


def _are_positions(value: object) -> bool:
    """Whether a value holds the positions of the probe, counted from any number."""
    if not isinstance(value, Tensor) or not value.ndim or value.dtype not in WHOLE_NUMBERS:
        return False
    places = torch.arange(N_PROBE_TOKENS, device=value.device)
    return value.shape[-1] == N_PROBE_TOKENS and bool((value - value[..., :1] == places).all())


def _longer(value: Any, length: int, name: str = "") -> Any:
    """An argument with one more position, which is the last of a text of this length."""
    if _are_positions(value):
        return torch.cat([value, torch.full_like(value[..., :1], length - 1)], dim=-1)
    # These are hidden states, queries or keys of the positions.
    if isinstance(value, Tensor) and value.ndim > 2 and value.shape[-2] == N_PROBE_TOKENS:
        value = torch.cat([value, value[..., -1:, :]], dim=-2)
    return length if name == LENGTH and isinstance(value, int) else _on_cpu(value)


@contextmanager
def noting_calls(hf: PreTrainedModel) -> Iterator[list[Call]]:
    """Within the block, note how modules without weights are called with positions.

    Calls of a module that differ in tensors only are noted once.

    Yields:
        A list that holds the calls when the block has ended.
    """
    calls: dict[tuple[Any, ...], Call] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = [*args, *kwargs.values()]
        if LENGTH in kwargs or any(map(_are_positions, values)):
            plain = tuple(value for value in values if isinstance(value, str | int | None))
            # Tensors are copied, because some modules change the positions in place.
            args, kwargs = tuple(map(_on_cpu, args)), {k: _on_cpu(v) for k, v in kwargs.items()}
            calls.setdefault((module, *plain), Call(module, args, kwargs))

    noted: list[Call] = []
    with ExitStack() as stack:
        for module in hf.modules():
            # The weights of quantised linear maps are not among the parameters.
            has_maps = any(widths(part) is not None for part in module.modules())
            if not has_maps and not any(True for _ in module.parameters()):
                stack.enter_context(on_call(module, note))
        yield noted
    noted.extend(calls.values())


@torch.inference_mode()
def longest_text(hf: PreTrainedModel, calls: Sequence[Call]) -> int | None:
    """The most tokens that a text may have without changing the factors of other texts.

    Args:
        hf: the model.
        calls: from :func:`noting_calls`.

    Returns:
        The number of tokens, or ``None`` if no text changes the factors of others.

    Raises:
        NeuroglotError: even the shortest texts change them.
    """
    farthest = 4 * max(map(int, context_sizes(hf)), default=FARTHEST)
    limits = [_limit(call, max(farthest, 4 * N_PROBE_TOKENS)) for call in calls]
    shortest = min((limit for limit in limits if limit is not None), default=None)
    if shortest is not None and shortest <= N_PROBE_TOKENS + 1:
        raise NeuroglotError(
            f"the factors by which {type(hf).__name__} tells positions apart depend on the longest "
            "text that it has read so far, so results would depend on what was run before and on "
            "what shares a batch. Such models are unsupported."
        )
    return shortest


def _limit(call: Call, farthest: int) -> int | None:
    """As :func:`longest_text`, but for one module."""
    shortest = N_PROBE_TOKENS + 1
    try:
        expected = call.factors(_copied(call.module), shortest)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        raise NeuroglotError(
            f"{type(call.module).__name__}, which is given the positions of tokens, cannot be "
            f"called with one more ({error}), so it is unknown whether a long text would change "
            "the others of its batch. Such models are unsupported."
        ) from error

    def exists(length: int) -> bool:
        try:
            call.factors(_copied(call.module), length)
        except (IndexError, RuntimeError):  # its table has no such position
            return False
        return True

    last = _last(exists, shortest, farthest)

    def is_same(length: int) -> bool:
        module = _copied(call.module)
        # Some modules reset their factors only when a text is much shorter than the previous one.
        call.factors(module, last)
        return all(map(torch.equal, call.factors(module, length), expected))

    same = _last(is_same, shortest, last)
    return None if same == last else same


def _last(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The last length for which a condition holds; it holds for ``low``, and for none beyond."""
    if holds(high):
        return high
    return low - 1 + bisect_left(range(low, high), True, key=lambda length: not holds(length))  # noqa: FBT003
