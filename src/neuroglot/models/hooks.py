"""Read and edit what passes by in a forward pass. The only place that registers hooks."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.forward import CACHES
from neuroglot.models.running import EditPosition, Running

Reader = Callable[[int, Tensor], None]
"""Called with the layer and the values there, shape (prompt, position, unit, …)."""

Editor = Callable[[int, Tensor], Tensor]
"""Called with the layer and the values there (row, position, unit, …); returns new ones.

A row is a prompt, or a choice that goes on from a prompt that ran before.
"""

TokenEditor = Callable[[int, Tensor, Tensor], Tensor]
"""Called with the layer, the values of chosen tokens (token, unit, …) and the row that each token
is in (token,); returns new values."""

Change = Callable[[Tensor], Tensor | None]
"""Called with a tensor; returns what takes its place, or ``None`` to leave it as it is."""


@dataclass(frozen=True)
class Place:
    """Where values of one layer pass by.

    Attributes:
        layer: index from the input side, from 0.
        block: the layer.
        path: what errors name: a dotted name inside the model.
        on_side: :func:`on_input` or :func:`on_output`.
        module: what the values go into or come out of.
    """

    layer: int
    block: nn.Module
    path: str
    on_side: Callable[[nn.Module, Change], AbstractContextManager[None]]
    module: nn.Module


class _Meant:
    """The module and the thread that a hook is for.

    A copy of a module takes its hooks along, and every thread that runs a module meets them.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.thread = module, threading.get_ident()

    def check(self, found: nn.Module) -> None:
        """Refuse another module, or another thread.

        Raises:
            NeuroglotError: it says how to avoid that.
        """
        if found is not self.module:
            raise NeuroglotError(
                f"this {type(found).__name__} is part of a copy that was made of a model while "
                "neuroglot edited or read it, and still carries its hooks; copy the model outside "
                "of such blocks."
            )
        if threading.get_ident() != self.thread:
            raise NeuroglotError(
                f"this {type(found).__name__} was run in one thread while neuroglot edits or reads "
                "it in another, which would mix the two; wait until neuroglot is done, or load the "
                "model once more."
            )


@contextmanager
def on_input(module: nn.Module, change: Change) -> Iterator[None]:
    """Pass every input of ``module`` to ``change``, until the block ends."""
    meant = _Meant(module)

    def hook(found: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        meant.check(found)
        new = change(inputs[0])
        return None if new is None else (new, *inputs[1:])

    with module.register_forward_pre_hook(hook):
        yield


@contextmanager
def on_output(module: nn.Module, change: Change) -> Iterator[None]:
    """Pass every output of ``module`` to ``change``, the first of a tuple, until the block ends."""
    meant = _Meant(module)

    def hook(found: nn.Module, _inputs: Any, output: Any) -> Any:
        meant.check(found)
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
    """Pass what ``module`` is called with to ``note``, until the block ends."""
    with module.register_forward_pre_hook(note, with_kwargs=True):
        yield


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states that go into a layer."""
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


class _Positions:
    """Gives (prompt, position) back to values that a layer has flattened, as OPT does."""

    def __init__(self, block: nn.Module) -> None:
        self.shape, self.meant = torch.Size(), _Meant(block)

    def __call__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the shape of the hidden states that go into the layer."""
        self.meant.check(block)
        self.shape = _first_tensor(args, kwargs).shape[:-1]

    def of(self, values: Tensor) -> Tensor:
        flattened = values.ndim == 2 and len(values) == self.shape.numel()
        return values.reshape(*self.shape, -1) if flattened else values


@contextmanager
def _positions(block: nn.Module) -> Iterator[_Positions]:
    positions = _Positions(block)
    with on_call(block, positions):
        yield positions


class _AllReadError(Exception):
    """Ends a forward pass of which nothing more is wanted."""


@contextmanager
def reading(places: Sequence[Place], read: Reader, *, then_stop: bool = False) -> Iterator[None]:
    """Pass all that passes by at the places to ``read``; the forward pass is not changed.

    The hooks are gone when the block ends, also after an exception.

    Args:
        places: in the order in which values pass by.
        read: is given the values.
        then_stop: end the forward pass, and with it the block, once the last place was read.
    """

    def reader(layer: int, positions: _Positions) -> Change:
        def see(values: Tensor) -> None:
            read(layer, positions.of(values))
            if then_stop and layer == places[-1].layer:
                raise _AllReadError

        return see

    with suppress(_AllReadError), ExitStack() as stack:
        for place in places:
            see = reader(place.layer, stack.enter_context(_positions(place.block)))
            stack.enter_context(place.on_side(place.module, see))
        yield


@contextmanager
def proven_editing(hf: PreTrainedModel, places: Sequence[Place], edit: Editor) -> Iterator[None]:
    """As :func:`editing`, of every forward pass.

    Raises:
        NeuroglotError: a pass came to its end without reaching one of the places.
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
    """As :func:`reading`; if any forward pass ran, every place must have been read.

    Raises:
        NeuroglotError: one was not.
    """
    reached: set[int] = set()
    begun: list[bool] = []

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


@contextmanager
def editing(places: Sequence[Place], edit: Editor) -> Iterator[None]:
    """Replace what passes by at the places by what ``edit`` returns.

    Weights are never touched, and the hooks are gone when the block ends, also after an exception.

    Raises:
        NeuroglotError: ``edit`` returns something else than a tensor of the shape it was given.
    """

    def editor(layer: int, positions: _Positions) -> Change:
        def change(values: Tensor) -> Tensor:
            given = positions.of(values)
            new = edit(layer, given)
            if not isinstance(new, Tensor) or new.shape != given.shape:
                found = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
                raise NeuroglotError(
                    f"the edit of layer {layer} returned {found}, expected a tensor of shape "
                    f"{tuple(given.shape)} (row, position, neuron)."
                )
            return new.reshape(values.shape)

        return change

    with ExitStack() as stack:
        for place in places:
            change = editor(place.layer, stack.enter_context(_positions(place.block)))
            stack.enter_context(place.on_side(place.module, change))
        yield


@contextmanager
def watching(
    hf: PreTrainedModel,
    see: Callable[[dict[str, Any]], None],
    ended: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Pass the inputs of every forward pass to ``see``, by name.

    A pass begins with the model or with its body, which some models go around.

    Args:
        hf: the model.
        see: called when a pass begins.
        ended: called when a pass has come to its end, or its body has, and not after an exception.
    """
    inside = False
    # Some models go around their body; in others it is the model itself.
    watched = {module: _Meant(module) for module in (hf, hf.base_model)}
    signatures = {module: inspect.signature(type(module).forward) for module in watched}

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal inside
        meant = watched.get(module)
        if meant is None:
            return  # of a copy, which is refused by the hooks of its layers
        meant.check(module)
        if module is hf or not inside:
            given = signatures[module].bind_partial(module, *args, **kwargs).arguments
            see(given | given.pop("kwargs", {}))
        inside = inside or module is hf

    def leave(*_: Any) -> None:
        nonlocal inside
        inside = False

    def end(*_: Any) -> None:
        if ended is not None:
            ended()

    with ExitStack() as stack:
        for module in watched:
            stack.enter_context(on_call(module, begin))
            stack.enter_context(module.register_forward_hook(end))
        stack.enter_context(hf.register_forward_hook(leave, always_call=True))
        yield


def _require_reached(hf: PreTrainedModel, places: Sequence[Place], reached: set[int]) -> None:
    missed = [place.path for place in places if place.layer not in reached]
    if missed:
        raise NeuroglotError(
            f"a forward pass of {type(hf).__name__} went past {listed(missed, 2)} without firing "
            "hooks, so that nothing was read or edited there: the model was compiled, or its "
            "modules were replaced. Load it again, and do not compile it."
        )


@contextmanager
def proving(
    hf: PreTrainedModel,
    places: Sequence[Place],
    see: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[Callable[[int], None]]:
    """Within the block, every forward pass must reach all places; a function is told which it did.

    Args:
        hf: the model.
        places: which.
        see: as for :func:`watching`.

    Raises:
        NeuroglotError: a pass came to its end without reaching one.
    """
    reached: set[int] = set()

    def begin(inputs: dict[str, Any]) -> None:
        reached.clear()
        if see is not None:
            see(inputs)

    def end() -> None:
        _require_reached(hf, places, reached)

    with watching(hf, begin, end):
        yield reached.add


@contextmanager
def editing_tokens(
    hf: PreTrainedModel,
    places: Sequence[Place],
    edit: TokenEditor,
    at: tuple[Running, EditPosition],
) -> Iterator[None]:
    """Replace the values of chosen tokens by what ``edit`` returns.

    Args:
        hf: the model whose inputs say which tokens run.
        places: as :func:`editing`.
        edit: gives new values.
        at: what is told which tokens run, and which of them are meant.
    """
    running, positions = at
    chosen: list[tuple[Tensor, Tensor]] = []  # row and position of the tokens of this pass

    def see(given: dict[str, Any]) -> None:
        ids = given.get("input_ids")
        caches = (given.get(name) for name in CACHES)
        cache = next((cache for cache in caches if cache is not None), None)
        running.see(
            given["inputs_embeds"] if ids is None else ids,
            given.get("attention_mask"),
            0 if cache is None else cache.get_seq_length(),
        )
        # Once a pass, since on a GPU it waits for what runs there.
        rows, places = running.tokens(positions).nonzero(as_tuple=True)
        chosen[:] = [(rows, places)]

    def change(layer: int, values: Tensor) -> Tensor:
        reached(layer)
        rows, places = (part.to(values.device) for part in chosen[0])
        if not len(rows):
            return values
        new = values.clone()
        new[rows, places] = edit(layer, values[rows, places], rows)
        return new

    with proving(hf, places, see) as reached, editing(places, change):
        yield


@contextmanager
def reading_stream(blocks: Sequence[nn.Module], read: Reader) -> Iterator[None]:
    """Pass the residual stream (prompt, position, d_model) between all layers to ``read``.

    It is called with 0 and what goes into the first layer, then with 1, 2, … and what comes out of
    each. The forward pass is not changed; the hooks are gone when the block ends.
    """
    meant = _Meant(blocks[0])

    def entering(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        meant.check(block)
        read(0, _first_tensor(args, kwargs))

    def leaving(layer: int) -> Change:
        def see(output: Tensor) -> None:
            read(layer + 1, output)

        return see

    with ExitStack() as stack:
        stack.enter_context(on_call(blocks[0], entering))
        for layer, block in enumerate(blocks):
            stack.enter_context(on_output(block, leaving(layer)))
        yield
