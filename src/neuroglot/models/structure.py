"""The structure of layers: which linear maps feed which, and which modules are between them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch import nn

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.sites import FFNSite, down_widths, widths


def layer_paths(hf: nn.Module) -> dict[str, list[int]]:
    """Paths of all modules inside layers, with ``{i}`` for the layer, and their layer numbers.

    The layer is the first number in a path: ``model.layers.{i}.ffn.2``.
    """
    layers: dict[str, list[int]] = {}
    for name, _ in hf.named_modules():
        match = re.fullmatch(r"((?:\D[^.]*\.)*)(\d+)(\..+)", name)
        if match:
            layers.setdefault(f"{match[1]}{{i}}{match[3]}", []).append(int(match[2]))
    return layers


def one_of_each_kind(sites: Sequence[FFNSite]) -> list[FFNSite]:
    """The first site of every kind of layer. Layers of one kind have the same modules and names."""
    kinds = {
        tuple(
            (name, type(module), widths(module)) for name, module in site.block.named_modules()
        ): site
        for site in reversed(sites)
    }
    return list(kinds.values())[::-1]


def inlets(hf: nn.Module, path: str, block: nn.Module) -> list[nn.Module]:
    """The linear maps from ``d_model`` whose outputs the coefficients at ``path`` are made of.

    A map fits if it is as wide as the coefficients, or twice as wide because gate and up are fused.
    If a map beside the down projection fits, all linear maps from ``d_model`` beside it are
    returned, including keys and values of an attention layer. Otherwise the maps elsewhere in the
    layer that fit are returned.
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
    """The activation module of a gated FFN; ``None`` if the FFN is not gated.

    An FFN is gated if it is fed by more than one projection as wide as its coefficients.

    Raises:
        NeuroglotError: the FFN is gated, but does not have exactly one activation module.
    """
    n, _ = down_widths(hf.get_submodule(path))
    output_widths = [(widths(module) or (0, 0))[1] for module in inlets(hf, path, block)]
    if sum(width for width in output_widths if width in (n, 2 * n)) <= n:
        return None
    parent = path.rpartition(".")[0]
    children = dict(hf.get_submodule(parent).named_children())
    activations = {
        name: child
        for name, child in children.items()
        if not any(True for _ in child.parameters())
        and widths(child) is None
        and not isinstance(child, nn.Dropout | nn.Identity)
    }
    if len(activations) != 1:
        raise NeuroglotError(
            f"{path} is unsupported: more than one projection feeds it, as in a gated feed-forward "
            f"network, whose gate is the output of an activation module; but {parent} has "
            f"{'more than one: ' + listed(activations) if activations else 'none'} (its parts: "
            f"{listed(children)})."
        )
    return activations.popitem()[1]
