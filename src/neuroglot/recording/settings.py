"""What is recorded, and what a recording says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import xarray as xr

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.model import Model
from neuroglot.models.sites import SITE_KINDS, SiteKind
from neuroglot.recording.recording import KIND
from neuroglot.running.batching import BatchSize
from neuroglot.store.provenance import provenance
from neuroglot.tasks.parallel import ParallelTask

Position = Literal["last", "all"]
POSITIONS: tuple[Position, ...] = ("last", "all")


@dataclass(frozen=True)
class Settings:
    """What decides the content of a recording, beside model and task.

    Attributes:
        site: which value of a neuron is looked at.
        position: at which tokens of the prompt.
        thresholds: a neuron is active where its value is greater.
        layers: recorded layers, ascending.
        keep_values: whether the values are kept beside the bits.
        added_tokens: whether the tokens that the tokenizer added count among all.
    """

    site: SiteKind = "gate"
    position: Position = "last"
    thresholds: tuple[float, ...] = (0.0,)
    layers: tuple[int, ...] = ()
    keep_values: bool = False
    added_tokens: bool = True


def check_reading(
    site: str,
    position: str,
    thresholds: Sequence[float] | float = 0.0,
    *,
    added_tokens: bool = True,
) -> Settings:
    """Settings from what a user passed, as far as they need no model.

    Raises:
        NeuroglotError: an unknown site or position, repeated or infinite thresholds, or added
            tokens left out of a position that has none.
    """
    if site not in SITE_KINDS:
        raise NeuroglotError(f"unknown site {site!r}; there are {listed(SITE_KINDS)}.")
    if position not in POSITIONS:
        raise NeuroglotError(f"unknown position {position!r}; there are {listed(POSITIONS)}.")
    if not added_tokens and position != "all":
        raise NeuroglotError(
            f"added_tokens=False (--no-added-tokens) leaves tokens out of position 'all'; position "
            f"{position!r} has none of them."
        )
    given = (thresholds,) if isinstance(thresholds, int | float) else thresholds
    levels = tuple(float(threshold) for threshold in given)
    if not levels or len(set(levels)) < len(levels) or not np.isfinite(levels).all():
        raise NeuroglotError(f"thresholds={levels}: expected different finite numbers.")
    return Settings(site, position, levels, added_tokens=added_tokens)


def check_settings(
    model: Model,
    *,
    site: str,
    position: str,
    thresholds: Sequence[float] | float,
    layers: Sequence[int] | None,
    keep_values: bool,
    added_tokens: bool = True,
) -> Settings:
    """Settings from what a user passed.

    Raises:
        NeuroglotError: see :func:`check_reading`, or layers that the model does not have.
    """
    reading = check_reading(site, position, thresholds, added_tokens=added_tokens)
    chosen = tuple(range(model.n_layers)) if layers is None else tuple(layers)
    known = range(model.n_layers)
    unknown = [x for x in chosen if not isinstance(x, int) or x not in known]
    if unknown or not chosen or len(set(chosen)) < len(chosen):
        raise NeuroglotError(
            f"layers={list(chosen)}: expected different numbers from 0 to {model.n_layers - 1}."
        )
    return replace(reading, layers=tuple(sorted(chosen)), keep_values=keep_values)


def header(
    model: Model, task: ParallelTask, settings: Settings, batch_size: BatchSize
) -> xr.Dataset:
    """Coordinates and provenance of a recording, without its data."""
    return xr.Dataset(
        coords={
            "threshold": list(settings.thresholds),
            "item": [item["id"] for item in task.items],
            "language": list(task.languages),
            "layer": list(settings.layers),
        },
        attrs={
            "kind": KIND,
            **provenance(model, task),
            "n_neurons": model.n_neurons,
            "site": settings.site,
            "position": settings.position,
            "keep_values": int(settings.keep_values),
            "added_tokens": int(settings.added_tokens),
            "batch_size": batch_size,
        },
    )
