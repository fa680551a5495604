"""Rotary factors that depend on the longest text of a batch, found without running one so long.

Modules that turn positions into factors are called with a far position beside the first ones; where
that changes the factors of the first ones, a long text would change every other text of its batch,
and keys that are cached before it would not be those that the model would compute after it.
"""

from __future__ import annotations

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

FARTHEST = 2**20  # tokens, where a configuration does not say how many it may be
WHOLE_NUMBERS = (torch.int64, torch.int32)
LENGTH = "seq_len"  # what code that takes no positions calls the length of a text


@dataclass(frozen=True)
class Call:
    """How a module without weights was called with the positions of the probe.

    Attributes:
        module: the module.
        args: what it was given by place.
        kwargs: what it was given by name.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def factors(self, module: nn.Module, length: int) -> list[Tensor]:
        """What it gives for the probe's positions, where the longest text has this many tokens.

        Args:
            module: a copy of its module.
            length: more than the probe's.
        """
        args = tuple(_longer(value, length) for value in self.args)
        kwargs = {name: _longer(value, length, name) for name, value in self.kwargs.items()}
        # Past what others have put before it.
        found = type(module).forward(module, *args, **kwargs)
        tensors = found if isinstance(found, Sequence) else (found,)
        return [_of_probe(x, length) for x in tensors if isinstance(x, Tensor) and x.ndim > 1]


def _of_probe(values: Tensor, length: int) -> Tensor:
    """What of some factors is for the positions of the probe, whichever dimension counts them.

    It is the last but one, or where that has another size, the first that has the right one.
    """
    counted = (N_PROBE_TOKENS + 1, length)
    fits = [place for place in range(values.ndim - 1) if values.shape[place] in counted]
    place = values.ndim - 2
    if fits and place not in fits:
        place = fits[0]
    return values.narrow(place, 0, min(N_PROBE_TOKENS, values.shape[place]))


def _copied(module: nn.Module) -> nn.Module:
    """A copy of a module without weights, on the CPU and without hooks."""
    new: nn.Module = object.__new__(type(module))
    nn.Module.__init__(new)
    own = set(vars(new)) | {"forward", "_hf_hook"}
    vars(new).update({k: _on_cpu(v) for k, v in vars(module).items() if k not in own})
    # Also those that are the same under two names.
    for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
        new.register_buffer(name, _on_cpu(buffer))
    for name, part in module.named_children():
        new.add_module(name, _copied(part))
    return new


def _on_cpu(value: Any) -> Any:
    """A tensor of its own on the CPU, in full precision; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    # So that no small change is rounded away.
    return (value.float() if value.is_floating_point() else value).detach().cpu().clone()


def _are_positions(value: object) -> bool:
    """Whether these are the positions of the probe, counted from anywhere."""
    if not isinstance(value, Tensor) or not value.ndim or value.dtype not in WHOLE_NUMBERS:
        return False
    places = torch.arange(N_PROBE_TOKENS, device=value.device)
    return value.shape[-1] == N_PROBE_TOKENS and bool((value - value[..., :1] == places).all())


def _longer(value: Any, length: int, name: str = "") -> Any:
    """An argument, with one more position at the end of a text of this length."""
    if _are_positions(value):
        return torch.cat([value, torch.full_like(value[..., :1], length - 1)], dim=-1)
    # Hidden states, or queries and keys, of these positions.
    if isinstance(value, Tensor) and value.ndim > 2 and value.shape[-2] == N_PROBE_TOKENS:
        value = torch.cat([value, value[..., -1:, :]], dim=-2)
    return length if name == LENGTH and isinstance(value, int) else _on_cpu(value)


@contextmanager
def noting_calls(hf: PreTrainedModel) -> Iterator[list[Call]]:
    """Within the block, note how modules without weights are called with positions.

    Each is noted once for all calls that differ in nothing but tensors.
    """
    calls: dict[tuple[Any, ...], Call] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [*args, *kwargs.values()]
        if LENGTH in kwargs or any(map(_are_positions, given)):
            plain = tuple(value for value in given if isinstance(value, str | int | None))
            # Some add to the positions that they are given.
            args, kwargs = tuple(map(_on_cpu, args)), {k: _on_cpu(v) for k, v in kwargs.items()}
            calls.setdefault((module, *plain), Call(module, args, kwargs))

    found: list[Call] = []
    with ExitStack() as stack:
        for module in hf.modules():
            # Quantised maps keep theirs elsewhere than among the parameters.
            has_maps = any(widths(part) is not None for part in module.modules())
            if not has_maps and not any(True for _ in module.parameters()):
                stack.enter_context(on_call(module, note))
        yield found
    found.extend(calls.values())


@torch.inference_mode()
def longest_text(hf: PreTrainedModel, calls: Sequence[Call]) -> int | None:
    """The most tokens of texts that leave the factors of all other texts alone.

    Args:
        hf: the model.
        calls: from :func:`noting_calls`.

    Returns:
        ``None`` where texts of any length do.

    Raises:
        NeuroglotError: even the shortest ones do not.
    """
    farthest = 4 * max(map(int, context_sizes(hf)), default=FARTHEST)
    limits = [_limit(call, max(farthest, 4 * N_PROBE_TOKENS)) for call in calls]
    shortest = min((limit for limit in limits if limit is not None), default=None)
    if shortest is not None and shortest <= N_PROBE_TOKENS + 1:
        raise NeuroglotError(
            f"the factors by which {type(hf).__name__} tells positions apart depend on the longest "
            "text that it has read so far, so that results would depend on what was run before "
            "and on what shares a batch. Such models are unsupported."
        )
    return shortest


def _limit(call: Call, farthest: int) -> int | None:
    """As :func:`longest_text`, of one module."""
    shortest = N_PROBE_TOKENS + 1
    try:
        expected = call.factors(_copied(call.module), shortest)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        raise NeuroglotError(
            f"{type(call.module).__name__}, which is given the positions of tokens, cannot be "
            f"called with one more ({error}), so that it cannot be told whether a long text would "
            "change the others of its batch. Such models are unsupported."
        ) from error

    def exists(length: int) -> bool:
        try:
            call.factors(_copied(call.module), length)
        except (IndexError, RuntimeError):  # a table has no such position
            return False
        return True

    last = _last(exists, shortest, farthest)

    def is_same(length: int) -> bool:
        module = _copied(call.module)
        # Some go back to what they were only when a text is much shorter than the last one.
        call.factors(module, last)
        found = call.factors(module, length)
        return all(map(torch.equal, found, expected))

    same = _last(is_same, shortest, last)
    return None if same == last else same


def _last(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The last length for which something holds that holds for ``low``, and for no more after."""
    if holds(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
