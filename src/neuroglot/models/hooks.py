"""Read and edit FFN neurons during a forward pass. The only place that registers hooks."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.forward import CACHES
from neuroglot.models.running import EditPosition, Running
from neuroglot.models.site_kinds import SiteKind
from neuroglot.models.sites import FFNSite

Reader = Callable[[int, Tensor], None]
"""Called with the layer and its site values, shape (prompt, position, neuron)."""

Editor = Callable[[int, Tensor], Tensor]
"""Called with the layer and its coefficients (row, position, neuron); returns new ones.

A row is a prompt, or a choice that goes on from a prompt that ran before.
"""

TokenEditor = Callable[[int, Tensor, Tensor], Tensor]
"""Called with the layer, the coefficients of chosen tokens (token, neuron) and the row that each
token is in (token,); returns new coefficients."""

Change = Callable[[Tensor], Tensor | None]
"""Called with a tensor; returns what takes its place, or ``None`` to leave it as it is."""

Place = tuple[FFNSite, Callable[[nn.Module, Change], AbstractContextManager[None]], nn.Module]
"""A site, :func:`on_input` or :func:`on_output`, and the module that is meant."""


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

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


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

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def on_call(
    module: nn.Module, note: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]
) -> Iterator[None]:
    """Pass what ``module`` is called with to ``note``, until the block ends."""
    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


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
    handle = block.register_forward_pre_hook(positions, with_kwargs=True)
    try:
        yield positions
    finally:
        handle.remove()


class _AllReadError(Exception):
    """Ends a forward pass of which nothing more is wanted."""


@contextmanager
def reading(
    sites: Sequence[FFNSite], kind: SiteKind, read: Reader, *, then_stop: bool = False
) -> Iterator[None]:
    """Pass every firing of the sites to ``read``; the forward pass is not changed.

    The hooks are gone when the block ends, also after an exception.

    Args:
        sites: in the order in which they fire.
        kind: what is read.
        read: is given the values.
        then_stop: end the forward pass, and with it the block, once the last site was read.
    """
    places: list[Place] = [
        (site, on_output, site.activation)
        if kind == "gate" and site.activation is not None
        else (site, on_input, site.down)
        for site in sites
    ]
    with reading_at(places, read, then_stop=then_stop):
        yield


@contextmanager
def reading_at(places: Sequence[Place], read: Reader, *, then_stop: bool = False) -> Iterator[None]:
    """As :func:`reading`, of what goes into or comes out of one module of each site."""

    def reader(layer: int, positions: _Positions) -> Change:
        def see(values: Tensor) -> None:
            read(layer, positions.of(values))
            if then_stop and layer == places[-1][0].layer:
                raise _AllReadError

        return see

    with suppress(_AllReadError), ExitStack() as stack:
        for site, on_side, module in places:
            see = reader(site.layer, stack.enter_context(_positions(site.block)))
            stack.enter_context(on_side(module, see))
        yield


@contextmanager
def proven_editing(hf: PreTrainedModel, sites: Sequence[FFNSite], edit: Editor) -> Iterator[None]:
    """As :func:`editing`, of every forward pass.

    Raises:
        NeuroglotError: a pass came to its end without reaching one of the sites.
    """

    def change(layer: int, values: Tensor) -> Tensor:
        reached(layer)
        return edit(layer, values)

    with proving(hf, sites) as reached, editing(sites, change):
        yield


@contextmanager
def proven_reading(
    hf: PreTrainedModel,
    sites: Sequence[FFNSite],
    kind: SiteKind,
    read: Reader,
    *,
    then_stop: bool = False,
) -> Iterator[None]:
    """As :func:`reading`; if any forward pass ran, every site must have been read.

    Raises:
        NeuroglotError: one was not.
    """
    reached: set[int] = set()
    has_run = False

    def begin(*_: Any) -> None:
        nonlocal has_run
        has_run = True

    def see(layer: int, values: Tensor) -> None:
        reached.add(layer)
        read(layer, values)

    handle = hf.base_model.register_forward_pre_hook(begin)
    try:
        with reading(sites, kind, see, then_stop=then_stop):
            yield
    finally:
        handle.remove()
    if has_run:
        _require_reached(hf, sites, reached)


@contextmanager
def editing(sites: Sequence[FFNSite], edit: Editor) -> Iterator[None]:
    """Replace the coefficients of the sites by what ``edit`` returns.

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
        for site in sites:
            positions = stack.enter_context(_positions(site.block))
            stack.enter_context(on_input(site.down, editor(site.layer, positions)))
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
            handle = module.register_forward_pre_hook(begin, with_kwargs=True)
            stack.callback(handle.remove)
            stack.callback(module.register_forward_hook(end).remove)
        stack.callback(hf.register_forward_hook(leave, always_call=True).remove)
        yield


def _require_reached(hf: PreTrainedModel, sites: Sequence[FFNSite], reached: set[int]) -> None:
    missed = [site.path for site in sites if site.layer not in reached]
    if missed:
        raise NeuroglotError(
            f"a forward pass of {type(hf).__name__} went past {listed(missed, 2)} without firing "
            "hooks, so that nothing was read or edited there: the model was compiled, or its "
            "modules were replaced. Load it again, and do not compile it."
        )


@contextmanager
def proving(
    hf: PreTrainedModel,
    sites: Sequence[FFNSite],
    see: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[Callable[[int], None]]:
    """Within the block, every forward pass must reach all sites; they are told by a function.

    Args:
        hf: the model.
        sites: which.
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
        _require_reached(hf, sites, reached)

    with watching(hf, begin, end):
        yield reached.add


@contextmanager
def editing_tokens(
    hf: PreTrainedModel,
    sites: Sequence[FFNSite],
    edit: TokenEditor,
    at: tuple[Running, EditPosition],
) -> Iterator[None]:
    """Replace the coefficients of chosen tokens by what ``edit`` returns.

    Args:
        hf: the model whose inputs say which tokens run.
        sites: as :func:`editing`.
        edit: gives new coefficients.
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

    with proving(hf, sites, see) as reached, editing(sites, change):
        yield


@contextmanager
def reading_stream(sites: Sequence[FFNSite], read: Reader) -> Iterator[None]:
    """Pass the residual stream (prompt, position, d_model) to ``read``.

    It is called with 0 and what goes into the first layer, then with 1, 2, … and what comes out of
    each. The forward pass is not changed; the hooks are gone when the block ends.
    """
    meant = _Meant(sites[0].block)

    def entering(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        meant.check(block)
        read(0, _first_tensor(args, kwargs))

    def leaving(layer: int) -> Change:
        def see(output: Tensor) -> None:
            read(layer + 1, output)

        return see

    with ExitStack() as stack:
        handle = sites[0].block.register_forward_pre_hook(entering, with_kwargs=True)
        stack.callback(handle.remove)
        for site in sites:
            stack.enter_context(on_output(site.block, leaving(site.layer)))
        yield
