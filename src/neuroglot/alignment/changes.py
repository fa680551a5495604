"""Count the weights that training has changed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neuroglot.errors import NeuroglotError
from neuroglot.models.model import Model
from neuroglot.store.provenance import versions

KIND = "weight changes"
Weights = tuple[str, Tensor, Tensor]
"""The name of a parameter, and its values before and after training."""


def weight_changes(base: Model, model: Model) -> xr.Dataset:
    """Count the weights in which a trained model differs from the model before training.

    Args:
        base: the model before training.
        model: the model after training, with the same architecture.

    Returns:
        A dataset with the number of weights, ``weights``, the number of those that differ,
        ``changed``, and the norm of the difference divided by the norm before, ``relative_change``
        (each: parameter). Its coordinates are the number of the layer, ``of_layer`` (parameter), -1
        outside of layers, and the rest of the parameter's name, ``kind`` (parameter).

    Raises:
        NeuroglotError: the parameters of the two models differ in name or shape.

    Examples:
        >>> import neuroglot as ng
        >>> before, after = ng.load_model("embedded/base"), ng.load_model("embedded/base")
        >>> name, parameter = next(iter(after.hf.named_parameters()))
        >>> parameter.data[0, :3] += 1
        >>> changes = ng.weight_changes(before, after)
        >>> int(changes["changed"].sum()), int(changes["changed"].sel(parameter=name))
        (3, 3)
    """
    before, after = dict(base.hf.named_parameters()), dict(model.hf.named_parameters())
    shapes, other_shapes = (
        {(name, tuple(parameter.shape)) for name, parameter in parameters.items()}
        for parameters in (before, after)
    )
    if shapes != other_shapes:
        raise NeuroglotError(
            f"{base.name!r} and {model.name!r} have different weights, as "
            f"{min(shapes ^ other_shapes)}: only a model and what was trained from it can be "
            "compared."
        )
    changes = changes_of((name, before[name], after[name]) for name in before)
    return changes.assign_attrs(
        base=base.name,
        base_weights=base.identity.weights,
        model=model.name,
        model_weights=model.identity.weights,
        **versions(),
    )


@torch.no_grad()
def changes_of(weights: Iterable[Weights]) -> xr.Dataset:
    """The dataset of :func:`weight_changes` without provenance, from one parameter at a time."""
    rows: dict[str, tuple[int, int, float]] = {}
    for name, before, after in weights:
        old, new = before.detach().to(after.device), after.detach()
        # It is NaN or infinite if all weights were zero.
        difference = (new.float() - old.float()).norm() / old.float().norm()
        rows[name] = (old.numel(), int((old != new).sum()), float(difference))
    sizes, changed, relative = zip(*rows.values(), strict=True)
    places = [_place(name) for name in rows]
    return xr.Dataset(
        {
            "weights": ("parameter", np.array(sizes)),
            "changed": ("parameter", np.array(changed)),
            "relative_change": ("parameter", np.array(relative)),
        },
        coords={
            "parameter": list(rows),
            "of_layer": ("parameter", [layer for layer, _ in places]),
            "kind": ("parameter", [kind for _, kind in places]),
        },
        attrs={"kind": KIND},
    )


def _place(name: str) -> tuple[int, str]:
    """The layer of a parameter, -1 outside of layers, and the rest of its name."""
    match = re.fullmatch(r"(?:\D[^.]*\.)*?(\d+)\.(.+)", name)
    return (int(match[1]), match[2]) if match else (-1, name)


def require_change(changes: xr.Dataset, what: str) -> None:
    """Refuse a model that training has not changed.

    Raises:
        NeuroglotError: no weight differs.
    """
    if not int(changes["changed"].sum()):
        raise NeuroglotError(
            f"{what} is identical to the model it was trained from: none of its "
            f"{int(changes['weights'].sum()):,} weights has changed. Check the learning rate, the "
            "number of steps and, under a mask, that it holds neurons."
        )


def summary_rows(changes: xr.Dataset) -> list[dict[str, Any]]:
    """For each kind of weight, the number of weights and of those that differ, in all layers."""
    frame = changes.to_dataframe().groupby("kind", sort=False)[["weights", "changed"]].sum()
    return cast("list[dict[str, Any]]", frame.reset_index().to_dict("records"))
