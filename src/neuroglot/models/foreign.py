"""Foreign hooks, which other code has put on a model: they may read values but not change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from neuroglot.errors import NeuroglotError

Hook = Callable[..., Any]
Hooks = MutableMapping[int, Hook]
# Attributes in which PyTorch keeps the hooks of a module, and the hooks of all modules.
OF_MODULE = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
OF_ALL = tuple(f"_global{name}" for name in OF_MODULE)
OWN = "neuroglot."


def _owner(hook: Hook) -> str:
    """Name of the Python module that a hook is from."""
    return str(getattr(hook, "__module__", type(hook).__module__))


def refuse_own_hooks(hf: nn.Module) -> None:
    """Refuse a model that carries hooks of neuroglot outside of neuroglot's own blocks.

    Raises:
        NeuroglotError: there are such hooks; the message says where they may be from.
    """
    for where, _, hooks in _all_hooks(hf):
        owners = {_owner(hook) for hook in hooks.values()} - {
            __name__
        }  # hooks of this module are guards
        if any(owner.startswith(OWN) for owner in owners):
            raise NeuroglotError(
                f"{where} carries hooks of neuroglot from elsewhere: the model is a copy that was "
                "made while another was edited or read, or it shares layers with one that is. "
                "Copy it outside of such blocks, or leave them first."
            )


@contextmanager
def guarding(hf: nn.Module) -> Iterator[list[str]]:
    """Within the block, foreign hooks that change a value raise an error.

    Yields:
        The names of the guarded hooks.

    Raises:
        NeuroglotError: a hook returns other values than it was given, or changes them in place.
    """
    guarded: list[str] = []
    with ExitStack() as stack:
        for where, kind, hooks in _all_hooks(hf):
            for key, hook in list(hooks.items()):
                owner = _owner(hook)
                if owner.startswith(OWN):
                    continue
                name = f"{owner}.{getattr(hook, '__qualname__', type(hook).__qualname__)}"
                guarded.append(f"{name} on {where}")
                guard = _guard(hook, guarded[-1], is_after=kind.endswith("_forward_hooks"))
                hooks[key] = guard
                stack.callback(_restore, hooks, key, guard, hook)
        yield guarded


@contextmanager
def suspended(hf: nn.Module) -> Iterator[None]:
    """Within the block, no hook of the module is called; it must have none of neuroglot's own."""
    before = [(hooks, dict(hooks)) for _, _, hooks in _all_hooks(hf)]
    try:
        for hooks, _ in before:
            hooks.clear()
        yield
    finally:
        for hooks, kept in before:
            hooks.update(kept)


def _all_hooks(hf: nn.Module) -> Iterator[tuple[str, str, Hooks]]:
    """Every non-empty collection of hooks: the name of the module, the kind, and the hooks."""
    for name, module in hf.named_modules():
        for kind in OF_MODULE:
            hooks = getattr(module, kind, None)
            if hooks:
                yield name or type(hf).__name__, kind, hooks
    for kind in OF_ALL:
        hooks = getattr(torch_module, kind, None)
        if hooks:
            yield "all modules", kind, hooks


def _restore(hooks: Hooks, key: int, guard: Hook, hook: Hook) -> None:
    # It may have been removed meanwhile.
    if hooks.get(key) is guard:
        hooks[key] = hook


def _guard(hook: Hook, name: str, *, is_after: bool) -> Hook:
    """A hook that runs the given one, and raises an error if that changes anything.

    Args:
        hook: a foreign hook.
        name: name of the hook, for error messages.
        is_after: whether the value that the hook returns replaces its last argument, the output;
            otherwise it replaces the first argument after the module.
    """

    def guarded(*given: Any, **kwargs: Any) -> None:
        before = [value.clone() for value in _tensors((given[1:], kwargs))]
        returned = hook(*given, **kwargs)
        kept = _are_equal(before, _tensors((given[1:], kwargs)))
        replaced = (given[-1],) if is_after else (given[1], given[1:])
        if returned is not None:
            new = _tensors(returned)
            kept = kept and bool(new) and any(_are_equal(new, _tensors(x)) for x in replaced)
        if not kept:
            raise NeuroglotError(
                f"the hook {name} changes values of the model, so results would not be the model's "
                "own. Remove it (handle.remove()), or edit with neuroglot.edit."
            )

    # So that a guard around a guard is not taken for a foreign hook.
    guarded.__module__ = __name__
    return guarded


def _tensors(values: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = tuple(values.values())
    if isinstance(values, tuple | list):
        return [tensor for value in values for tensor in _tensors(value)]
    return []


def _are_equal(before: list[Tensor], after: list[Tensor]) -> bool:
    return len(before) == len(after) and all(map(_is_same, before, after))


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values, where NaN equals NaN."""
    return one is other or (
        one.shape == other.shape
        and one.dtype == other.dtype
        and bool(torch.where(one != one, other != other, one == other).all())  # noqa: PLR0124
    )
