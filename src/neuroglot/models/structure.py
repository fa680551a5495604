"""What a layer looks like from outside: which linear maps feed which, and what is in between."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch import nn

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.sites import FFNSite, down_widths, widths


def layer_paths(hf: nn.Module) -> dict[str, list[int]]:
    """Layer numbers of every module inside a layer, by its path with ``{i}`` for the layer.

    The layer is the first number in a path: ``model.layers.{i}.ffn.2``.
    """
    found: dict[str, list[int]] = {}
    for name, _ in hf.named_modules():
        match = re.fullmatch(r"((?:\D[^.]*\.)*)(\d+)(\..+)", name)
        if match:
            found.setdefault(f"{match[1]}{{i}}{match[3]}", []).append(int(match[2]))
    return found


def one_of_each_kind(sites: Sequence[FFNSite]) -> list[FFNSite]:
    """The first site of every kind of layer: one with the same modules under the same names."""
    kinds = {
        tuple(
            (name, type(module), widths(module)) for name, module in site.block.named_modules()
        ): site
        for site in reversed(sites)
    }
    return list(kinds.values())[::-1]


def inlets(hf: nn.Module, path: str, block: nn.Module) -> list[nn.Module]:
    """The linear maps ``d_model`` to something that the coefficients at ``path`` are made of.

    They stand beside the down projection (all of them count, so that the keys and values of an
    attention do), or, where none fits there, elsewhere in the layer (those that fit). A map fits
    if it is as wide as the coefficients, or twice as wide where gate and up are fused.
    """
    down = hf.get_submodule(path)
    n, d_model = down_widths(down)

    def into(modules: Iterator[nn.Module]) -> list[nn.Module]:
        return [m for m in modules if m is not down and (widths(m) or (0, 0))[0] == d_model]

    def fits(module: nn.Module) -> bool:
        return (widths(module) or (0, 0))[1] in (n, 2 * n)

    beside = into(hf.get_submodule(path.rpartition(".")[0]).children())
    if any(map(fits, beside)):
        return beside
    return [module for module in into(block.modules()) if fits(module)]


def activation(hf: nn.Module, path: str, block: nn.Module) -> nn.Module | None:
    """The activation module of a gated FFN; ``None`` without gating, where none is needed.

    An FFN is gated if more comes into it than one projection as wide as its coefficients.

    Raises:
        NeuroglotError: the FFN is gated, but has not just one activation module.
    """
    n, _ = down_widths(hf.get_submodule(path))
    into = [(widths(module) or (0, 0))[1] for module in inlets(hf, path, block)]
    if sum(width for width in into if width in (n, 2 * n)) <= n:
        return None
    parent = path.rpartition(".")[0]
    children = dict(hf.get_submodule(parent).named_children())
    found = {
        name: child
        for name, child in children.items()
        if not any(True for _ in child.parameters())
        and widths(child) is None
        and not isinstance(child, nn.Dropout | nn.Identity)
    }
    if len(found) != 1:
        raise NeuroglotError(
            f"{path} is unsupported: more than one projection feeds it, as in a gated feed-forward "
            f"network, whose gate is the output of an activation module; but {parent} has "
            f"{'more than one: ' + listed(found) if found else 'none'} (its parts: "
            f"{listed(children)})."
        )
    return found.popitem()[1]
