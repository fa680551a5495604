"""Which weights of a model training has changed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neuroglot.errors import NeuroglotError
from neuroglot.models.model import Model
from neuroglot.store.provenance import versions

KIND = "weight changes"
Weights = tuple[str, Tensor, Tensor]
"""Name of a weight, before and after."""


def weight_changes(base: Model, model: Model) -> xr.Dataset:
    """How many weights of a model differ from those of the model that it was trained from.

    Args:
        base: before.
        model: after; of the same architecture.

    Returns:
        A dataset with ``weights`` and ``changed`` (parameter; how many there are, and how many
        differ) and ``relative_change`` (parameter; norm of the difference over the norm before),
        and the coordinates ``of_layer`` (parameter; -1 outside of layers) and ``kind`` (parameter;
        the rest of the name).

    Raises:
        NeuroglotError: the two have different weights by name or shape.
    """
    before, after = dict(base.hf.named_parameters()), dict(model.hf.named_parameters())
    shapes = [{name: tuple(p.shape) for name, p in found.items()} for found in (before, after)]
    if shapes[0] != shapes[1]:
        different = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))
        raise NeuroglotError(
            f"{base.name!r} and {model.name!r} have different weights, as {different[0]}: only a "
            "model and what was trained from it can be compared."
        )
    found = changes_of((name, before[name], after[name]) for name in before)
    return found.assign_attrs(
        base=base.name,
        base_weights=base.identity.weights,
        model=model.name,
        model_weights=model.identity.weights,
        **versions(),
    )


@torch.no_grad()
def changes_of(weights: Iterable[Weights]) -> xr.Dataset:
    """As :func:`weight_changes`, of weights one at a time."""
    rows: dict[str, tuple[int, int, float]] = {}
    for name, before, after in weights:
        one, other = before.detach().to(after.device), after.detach()
        # Over nothing it is NaN, or infinite.
        difference = (other.float() - one.float()).norm() / one.float().norm()
        rows[name] = (one.numel(), int((one != other).sum()), float(difference))
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
    """Layer of a weight, -1 outside of layers, and what it is called there."""
    match = re.fullmatch(r"(?:\D[^.]*\.)*?(\d+)\.(.+)", name)
    return (int(match[1]), match[2]) if match else (-1, name)


def require_change(changes: xr.Dataset, what: str) -> None:
    """Refuse a model that training has left as it was.

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
    """One row for each kind of weight: how many there are and changed, over all layers."""
    frame = changes.to_dataframe().reset_index()
    grouped = frame.groupby("kind", sort=False)[["weights", "changed"]].sum()
    return [
        {"kind": str(kind), "weights": int(row["weights"]), "changed": int(row["changed"])}
        for kind, row in grouped.iterrows()
    ]
