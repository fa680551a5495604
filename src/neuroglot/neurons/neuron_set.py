"""A set of neurons, with a name and where it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neuroglot.analysis.bits import CATEGORIES
from neuroglot.analysis.sharing import category_membership
from neuroglot.errors import NeuroglotError, is_whole_number, listed, require_finite
from neuroglot.models import Model
from neuroglot.neurons.files import Provenance, read_set, write_set
from neuroglot.neurons.sampling import sample
from neuroglot.recording import Recording
from neuroglot.recording.matching import said_of

Mask = np.ndarray[Any, np.dtype[np.bool_]]
UNION = "+"  # between categories


@dataclass(frozen=True, eq=False)
class NeuronSet:
    """Which neurons of a model are meant: a boolean mask (layer, neuron).

    ``a | b`` are the neurons of either, ``a & b`` of both, ``a - b`` of the first only, ``~a`` all
    others; ``len(a)`` is how many, and ``a == b`` whether they are the same neurons.

    Attributes:
        mask: true for the neurons of the set (layer, neuron); a copy that cannot be written to.
        name: what figures and results call it.
        provenance: where it comes from, as plain texts and numbers.
    """

    mask: Mask
    name: str = "neurons"
    provenance: Mapping[str, Provenance] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mask = np.array(self.mask)
        if mask.ndim != 2 or mask.dtype != np.bool_ or not mask.size:
            raise NeuroglotError(
                f"a neuron set needs a mask (layer, neuron) of true and false, found {mask.dtype} "
                f"of shape {mask.shape}."
            )
        mask.flags.writeable = False
        object.__setattr__(self, "mask", mask)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of the set in each layer."""
        return tuple(int(n) for n in self.mask.sum(axis=1))

    def __len__(self) -> int:
        return int(self.mask.sum())

    def __repr__(self) -> str:
        return (
            f"NeuronSet({self.name!r}, {len(self):,} of {self.mask.size:,} neurons, by layer "
            f"{listed(self.sizes, 6)})"
        )

    def __eq__(self, other: object) -> bool:
        """Whether both have the same neurons, whatever their names."""
        return isinstance(other, NeuronSet) and np.array_equal(self.mask, other.mask)

    def __hash__(self) -> int:
        return hash((self.mask.shape, self.mask.tobytes()))

    def __or__(self, other: NeuronSet) -> NeuronSet:
        return self._joined(other, self.mask | self._same_shape(other).mask, "|")

    def __and__(self, other: NeuronSet) -> NeuronSet:
        return self._joined(other, self.mask & self._same_shape(other).mask, "&")

    def __sub__(self, other: NeuronSet) -> NeuronSet:
        return self._joined(other, self.mask & ~self._same_shape(other).mask, "-")

    def __invert__(self) -> NeuronSet:
        return NeuronSet(~self.mask, f"~{self.name}", self.provenance)

    def _joined(self, other: NeuronSet, mask: Mask, sign: str) -> NeuronSet:
        both = {k: v for k, v in self.provenance.items() if other.provenance.get(k) == v}
        return NeuronSet(mask, f"({self.name} {sign} {other.name})", both)

    def _same_shape(self, other: NeuronSet) -> NeuronSet:
        if not isinstance(other, NeuronSet) or self.mask.shape != other.mask.shape:
            found = other.mask.shape if isinstance(other, NeuronSet) else type(other).__name__
            raise NeuroglotError(
                f"neuron set {self.name!r} is of shape {self.mask.shape} (layer, neuron), the "
                f"other is {found}: expected sets of one model."
            )
        return other

    def sample_like(self, seed: int, pool: NeuronSet | None = None) -> NeuronSet:
        """Random neurons, as many in each layer as this set has.

        Args:
            seed: of the draw.
            pool: what to draw from; by default all neurons outside this set.

        Raises:
            NeuroglotError: a layer of the pool has fewer neurons than this set; it names the layer.
        """
        if not is_whole_number(seed, 0):
            raise NeuroglotError(f"seed={seed!r}: expected a whole number from 0.")
        source = ~self if pool is None else self._same_shape(pool)
        for layer, (wanted, there) in enumerate(zip(self.sizes, source.sizes, strict=True)):
            if wanted > there:
                raise NeuroglotError(
                    f"layer {layer}: {wanted} neurons are to be drawn like {self.name!r}, but "
                    f"{source.name!r} has {there}. Give a larger pool=."
                )
        drawn = sample(self.mask, source.mask, np.random.default_rng(int(seed)))
        assert drawn is not None  # every layer has enough
        origin: dict[str, Provenance] = {**self.provenance, "drawn_like": self.name}
        origin |= {"pool": source.name, "seed": int(seed)}
        return NeuronSet(drawn, f"random like {self.name}", origin)

    @classmethod
    def top(
        cls,
        scores: xr.DataArray | np.ndarray[Any, Any],
        k: int,
        *,
        name: str | None = None,
        within: NeuronSet | None = None,
    ) -> NeuronSet:
        """The ``k`` neurons with the highest scores, of all layers together.

        Of equal scores, the first layer and neuron wins.

        Args:
            scores: (layer, neuron).
            k: how many.
            name: of the set.
            within: the set to choose from; by default all neurons.

        Raises:
            NeuroglotError: scores of another shape or NaN, or fewer than ``k`` neurons.
        """
        values = np.asarray(scores, dtype=float)
        if values.ndim != 2 or np.isnan(values).any():
            raise NeuroglotError(
                f"expected scores (layer, neuron) without NaN, found shape {values.shape}."
            )
        allowed = cls(np.ones(values.shape, bool), "all") if within is None else within
        if allowed.mask.shape != values.shape:
            raise NeuroglotError(
                f"within= is of shape {allowed.mask.shape}, the scores are of {values.shape}."
            )
        if not is_whole_number(k, 1, len(allowed)):
            raise NeuroglotError(f"k={k!r}: expected a whole number from 1 to {len(allowed)}.")
        places = np.flatnonzero(allowed.mask)
        order = np.argsort(-values.flat[places], kind="stable")
        mask = np.zeros(values.shape, bool)
        mask.flat[places[order[:k]]] = True
        score = getattr(scores, "name", None) or "score"
        return cls(mask, name or f"top {k} by {score}", {"score": str(score), "k": int(k)})

    @classmethod
    def from_category(
        cls,
        recording: Recording,
        category: str,
        membership: float = 0.5,
        *,
        threshold: float = 0.0,
    ) -> NeuronSet:
        """The neurons that are in a category for enough of the recorded items.

        Args:
            recording: from :func:`neuroglot.record`, of all layers.
            category: such as ``"all_shared"``, or a union, ``"all_shared+specific"``.
            membership: the least share of the items, above 0 and at most 1.
            threshold: a neuron is active where its site value was greater.

        Raises:
            NeuroglotError: an unknown category, or a share that is none.
        """
        names = category.split(UNION)
        unknown = [name for name in names if name not in CATEGORIES]
        if unknown:
            raise NeuroglotError(
                f"unknown category {unknown[0]!r}; there are {listed(CATEGORIES)}."
            )
        require_finite("membership", membership)
        if not 0 < membership <= 1:
            raise NeuroglotError(f"membership={membership}: expected above 0, at most 1.")
        shares = category_membership(recording, threshold).sel(category=names).sum("category")
        attrs = recording.attrs
        kept = ("model", "model_weights", "task", "task_checksum", "site", "position")
        provenance: dict[str, Provenance] = {key: attrs.get(key, "") for key in kept}
        provenance |= {"added_tokens": said_of(attrs, "added_tokens")}
        provenance |= {"items": len(recording), "languages": ",".join(recording.languages)}
        provenance |= {"category": category, "membership": membership, "threshold": threshold}
        # Sums of shares may be a little less than what they should be.
        mask = shares.to_numpy() >= membership - 1e-9
        return cls(mask, f"{category} ≥ {membership:g}", provenance)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the set as one small file; :meth:`load` reads it again.

        The file is one line of JSON (``format``, ``name``, ``shape``, ``sizes`` by layer,
        ``provenance``, ``sha256`` of what follows), then the mask as packed bits, layer by layer,
        each layer to a full byte, its first neuron in the highest bit.

        Raises:
            NeuroglotError: ``path`` exists and ``overwrite`` is not set, or cannot be written.
        """
        write_set(path, self.mask, self.name, self.provenance, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path, model: Model | None = None) -> NeuronSet:
        """Read what :meth:`save` wrote.

        Args:
            path: of the file.
            model: that the set must fit.

        Raises:
            NeuroglotError: no such file, one that is damaged or says of itself what is not so, or
                a set of another shape than the model.
        """
        found = cls(*read_set(path))
        if model is not None:
            found.check_fits(model)
        return found

    @cached_property
    def checksum(self) -> str:
        """Tells the neurons from others."""
        return hashlib.sha256(np.packbits(self.mask).tobytes()).hexdigest()[:16]

    def masks(self, layer: int, _prompts: Sequence[Hashable] | None) -> Tensor:
        """Which neurons of a layer are meant (1, neuron): the same for every prompt."""
        return torch.from_numpy(self.mask[[layer]])

    def check_fits(self, model: Model) -> None:
        """Refuse a model of another shape.

        Raises:
            NeuroglotError: it gives both shapes.
        """
        shape = (model.n_layers, model.n_neurons)
        if self.mask.shape != shape:
            raise NeuroglotError(
                f"neuron set {self.name!r} is for {self.mask.shape[0]} layers of "
                f"{self.mask.shape[1]} neurons, but {model.name!r} has {shape[0]} of {shape[1]}."
            )
