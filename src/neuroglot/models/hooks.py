"""Read and edit values during a forward pass. This is the only module that registers hooks."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.forward import CACHES
from neuroglot.models.running import EditPosition, Running

Reader = Callable[[int, Tensor], None]
"""Called with a layer's number and its values (prompt, position, unit, …)."""

Editor = Callable[[int, Tensor], Tensor]
"""Called with a layer's number and its values (row, position, unit, …); returns new values.

A row is a prompt, or a choice that continues a prompt that ran before.
"""

TokenEditor = Callable[[int, Tensor, Tensor], Tensor]
"""Called with a layer's number, the values of some tokens (token, unit, …) and the rows of these
tokens (token,); returns new values."""

Change = Callable[[Tensor], Tensor | None]
"""Called with a tensor; returns the tensor that replaces it, or ``None`` to keep it."""


@dataclass(frozen=True)
class Place:
    """Where the values of one layer can be read and written.

    Attributes:
        layer: number of the layer, counted from the input, from 0.
        block: the layer.
        path: dotted name inside the model, for error messages.
        on_side: :func:`on_input` or :func:`on_output`.
        module: the module whose input or output the values are.
    """

    layer: int
    block: nn.Module
    path: str
    on_side: Callable[[nn.Module, Change], AbstractContextManager[None]]
    module: nn.Module


class _Scope:
    """The module and the thread that a hook is for.

    Hooks are copied together with a module, and run in every thread that runs it.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.thread = module, threading.get_ident()

    def check(self, module: nn.Module) -> None:
        """Refuse another module, or another thread.

        Raises:
            NeuroglotError: the hook fired for another one; the message says how to avoid that.
        """
        if module is not self.module:
            raise NeuroglotError(
                f"this {type(module).__name__} is part of a copy that was made of a model while "
                "neuroglot edited or read it, and still carries its hooks; copy the model outside "
                "of such blocks."
            )
        if threading.get_ident() != self.thread:
            raise NeuroglotError(
                f"this {type(module).__name__} was run in one thread while neuroglot edits or "
                "reads it in another, which would mix the two; wait until neuroglot is done, or "
                "load the model once more."
            )


@contextmanager
def on_input(module: nn.Module, change: Change) -> Iterator[None]:
    """Pass every input of ``module`` to ``change``, until the block ends."""
    scope = _Scope(module)

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        scope.check(module)
        new = change(inputs[0])
        return None if new is None else (new, *inputs[1:])

    with module.register_forward_pre_hook(hook):
        yield


@contextmanager
def on_output(module: nn.Module, change: Change) -> Iterator[None]:
    """Pass every output of ``module`` to ``change``, the first of a tuple, until the block ends."""
    scope = _Scope(module)

    def hook(module: nn.Module, _inputs: Any, output: Any) -> Any:
        scope.check(module)
        if isinstance(output, Tensor):
            return change(output)
        new = change(output[0])
        return None if new is None else (new, *output[1:])

    with module.register_forward_hook(hook):
        yield


@contextmanager
def on_call(
    module: nn.Module, note: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]
) -> Iterator[None]:
    """Pass the module, its arguments and its keyword arguments to ``note`` at every call."""
    with module.register_forward_pre_hook(note, with_kwargs=True):
        yield


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states that go into a layer."""
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


class _Positions:
    """Restores (prompt, position, …) for values that a layer has flattened, as OPT does."""

    def __init__(self, block: nn.Module) -> None:
        self.shape, self.scope = torch.Size(), _Scope(block)

    def __call__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the shape of the hidden states that go into the layer."""
        self.scope.check(block)
        self.shape = _first_tensor(args, kwargs).shape[:-1]

    def restore(self, values: Tensor) -> Tensor:
        flattened = values.ndim == 2 and len(values) == self.shape.numel()
        return values.reshape(*self.shape, -1) if flattened else values


@contextmanager
def _hooked(places: Sequence[Place], act: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """Pass the values at the places to ``act``, and replace them unless it returns ``None``.

    The hooks are removed when the block ends, also after an exception.
    """

    def at(place: Place, positions: _Positions) -> Change:
        def change(values: Tensor) -> Tensor | None:
            new = act(place.layer, positions.restore(values))
            return None if new is None else new.reshape(values.shape)

        return change

    with ExitStack() as stack:
        for place in places:
            positions = _Positions(place.block)
            stack.enter_context(on_call(place.block, positions))
            stack.enter_context(place.on_side(place.module, at(place, positions)))
        yield


class _AllReadError(Exception):
    """Ends a forward pass once everything wanted has been read."""


@contextmanager
def reading(places: Sequence[Place], read: Reader, *, then_stop: bool = False) -> Iterator[None]:
    """Pass the values at the places to ``read``; the forward pass is not changed.

    The hooks are removed when the block ends, also after an exception.

    Args:
        places: places in the order in which a forward pass reaches them.
        read: called with the values.
        then_stop: whether to end the forward pass, and with it the block, after the last place.
    """

    def see(layer: int, values: Tensor) -> None:
        read(layer, values)
        if then_stop and layer == places[-1].layer:
            raise _AllReadError

    with suppress(_AllReadError), _hooked(places, see):
        yield


@contextmanager
def proven_editing(hf: PreTrainedModel, places: Sequence[Place], edit: Editor) -> Iterator[None]:
    """As :func:`editing`, and require that every forward pass reaches all places.

    Raises:
        NeuroglotError: a pass ended without reaching one of the places.
    """

    def change(layer: int, values: Tensor) -> Tensor:
        reached(layer)
        return edit(layer, values)

    with proving(hf, places) as reached, editing(places, change):
        yield


@contextmanager
def proven_reading(
    hf: PreTrainedModel, places: Sequence[Place], read: Reader, *, then_stop: bool = False
) -> Iterator[None]:
    """As :func:`reading`, and require that every place was read if a forward pass ran at all.

    Raises:
        NeuroglotError: a place was not read.
    """
    reached: set[int] = set()
    begun: list[bool] = []  # one entry per forward pass

    def see(layer: int, values: Tensor) -> None:
        reached.add(layer)
        read(layer, values)

    with (
        on_call(hf.base_model, lambda *_: begun.append(True)),
        reading(places, see, then_stop=then_stop),
    ):
        yield
    if begun:
        _require_reached(hf, places, reached)


def editing(places: Sequence[Place], edit: Editor) -> AbstractContextManager[None]:
    """Replace the values at the places by what ``edit`` returns.

    Weights are never changed, and the hooks are removed when the block ends, also after an
    exception.

    Raises:
        NeuroglotError: ``edit`` returns anything but a tensor of the shape that it was given.
    """

    def change(layer: int, values: Tensor) -> Tensor:
        new = edit(layer, values)
        if not isinstance(new, Tensor) or new.shape != values.shape:
            returned = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise NeuroglotError(
                f"the edit of layer {layer} returned {returned}, expected a tensor of shape "
                f"{tuple(values.shape)} (row, position, neuron)."
            )
        return new

    return _hooked(places, change)


def _require_reached(hf: PreTrainedModel, places: Sequence[Place], reached: set[int]) -> None:
    missed = [place.path for place in places if place.layer not in reached]
    if missed:
        raise NeuroglotError(
            f"a forward pass of {type(hf).__name__} went past {listed(missed, 2)} without firing "
            "hooks, so nothing was read or edited there: the model was compiled, or its modules "
            "were replaced. Load it again, and do not compile it."
        )


@contextmanager
def proving(
    hf: PreTrainedModel,
    places: Sequence[Place],
    see: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[Callable[[int], None]]:
    """Within the block, every forward pass must reach all places.

    Args:
        hf: the model.
        places: the places that must be reached.
        see: called with the inputs of each pass, by name, when it begins.

    Yields:
        A function that is to be called with the layer of each place that was reached.

    Raises:
        NeuroglotError: a pass ended without reaching a place.
    """
    reached: set[int] = set()
    inside = False
    # A pass begins with the model or with its body. Some models bypass their body; in others, the
    # body is the model itself.
    watched = {module: _Scope(module) for module in (hf, hf.base_model)}
    signatures = {module: inspect.signature(type(module).forward) for module in watched}

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal inside
        scope = watched.get(module)
        if scope is None:
            return  # This is a copy, which the hooks of its layers refuse.
        scope.check(module)
        if module is hf or not inside:
            reached.clear()
            if see is not None:
                inputs = signatures[module].bind_partial(module, *args, **kwargs).arguments
                see(inputs | inputs.pop("kwargs", {}))
        inside = inside or module is hf

    def leave(*_: Any) -> None:
        nonlocal inside
        inside = False

    def end(*_: Any) -> None:
        _require_reached(hf, places, reached)

    with ExitStack() as stack:
        for module in watched:
            stack.enter_context(on_call(module, begin))
            stack.enter_context(module.register_forward_hook(end))
        stack.enter_context(hf.register_forward_hook(leave, always_call=True))
        yield reached.add


@contextmanager
def editing_tokens(
    hf: PreTrainedModel,
    places: Sequence[Place],
    edit: TokenEditor,
    at: tuple[Running, EditPosition],
) -> Iterator[None]:
    """Replace the values of some tokens by what ``edit`` returns.

    Args:
        hf: the model; its inputs tell which tokens run.
        places: see :func:`editing`.
        edit: returns the new values.
        at: the object that keeps track of the tokens that run, and the position to edit.
    """
    running, positions = at
    chosen: list[tuple[Tensor, Tensor]] = []  # rows and positions of the tokens in this pass

    def see(inputs: dict[str, Any]) -> None:
        ids = inputs.get("input_ids")
        caches = (inputs.get(name) for name in CACHES)
        cache = next((cache for cache in caches if cache is not None), None)
        running.see(
            inputs["inputs_embeds"] if ids is None else ids,
            inputs.get("attention_mask"),
            0 if cache is None else cache.get_seq_length(),
        )
        # Computed once per pass, because on a GPU it waits for everything that runs there.
        token_rows, token_positions = running.tokens(positions).nonzero(as_tuple=True)
        chosen[:] = [(token_rows, token_positions)]

    def change(layer: int, values: Tensor) -> Tensor:
        reached(layer)
        rows, columns = (part.to(values.device) for part in chosen[0])
        if not len(rows):
            return values
        new = values.clone()
        new[rows, columns] = edit(layer, values[rows, columns], rows)
        return new

    with proving(hf, places, see) as reached, editing(places, change):
        yield


@contextmanager
def reading_stream(blocks: Sequence[nn.Module], read: Reader) -> Iterator[None]:
    """Pass the residual stream (prompt, position, d_model) around each layer to ``read``.

    ``read`` is called with 0 and the input of the first layer, then with 1, 2, … and the output of
    each layer. The forward pass is not changed; the hooks are removed when the block ends.
    """
    scope = _Scope(blocks[0])

    def entering(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        scope.check(block)
        read(0, _first_tensor(args, kwargs))

    with ExitStack() as stack:
        stack.enter_context(on_call(blocks[0], entering))
        for n, block in enumerate(blocks, start=1):
            stack.enter_context(on_output(block, partial(read, n)))
        yield
