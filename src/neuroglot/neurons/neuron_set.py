"""A set of neurons, the same in every prompt or one for each, and where it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neuroglot.errors import NeuroglotError, is_whole_number, listed, require_finite
from neuroglot.models.ffn import FFN
from neuroglot.models.model import Model
from neuroglot.neurons import members as m
from neuroglot.neurons.members import Mask, Members, Prompts, Sign
from neuroglot.neurons.sampling import sample
from neuroglot.neurons.set_file import Provenance, read_set, write_set
from neuroglot.notebook import as_html
from neuroglot.recording.recording import Bits, Recording
from neuroglot.sharing.bits import unpack
from neuroglot.sharing.categories import category_membership
from neuroglot.sharing.kernels import Counts
from neuroglot.store.joining import said_of


@dataclass(frozen=True, eq=False, init=False)
class NeuronSet:
    """Which neurons of a model are meant, in every prompt or in each prompt its own.

    ``a | b`` are the neurons of either, ``a & b`` of both, ``a - b`` of the first only, ``~a`` all
    others. Of a set that is the same in every prompt, ``len(a)`` is how many neurons there are,
    ``(layer, neuron) in a`` whether it has one, and iterating gives them in order. A set of each
    prompt is found when prompts run, block by block: it takes no room before. ``a == b`` is whether
    both are the same neurons, or sets of prompts that were made in the same way from the same.

    Attributes:
        members: a mask (layer, neuron), true for the neurons of the set, of which a copy is kept;
            or what finds the neurons of each prompt.
        name: what figures and results call it.
        provenance: where it comes from, as plain texts and numbers.
        chosen_on: the ids of the items by whose answers, labels or effects the neurons were chosen.
            What they do is to be measured on others. A set that looks at nothing but the activity
            of neurons has none.
        unit: of which kind they are, see :meth:`neuroglot.Model.units`; by default FFN neurons.
    """

    members: Members
    name: str = "neurons"
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    chosen_on: frozenset[str] = frozenset()
    unit: str = FFN

    def __init__(
        self,
        members: Members | Mask,
        name: str = "neurons",
        provenance: Mapping[str, Provenance] | None = None,
        chosen_on: Iterable[str] = (),
        unit: str = FFN,
        *,
        widths: Sequence[int] | None = None,
    ) -> None:
        """See the attributes.

        Args:
            members: see above.
            name: see above.
            provenance: see above.
            chosen_on: see above.
            unit: see above.
            widths: neurons of each layer, where they differ; a mask is as wide as the widest.

        Raises:
            NeuroglotError: the mask is none, or has neurons that there are not.
        """
        known = members if isinstance(members, Members) else _fixed(members, widths)
        for key, value in (
            *(("members", known), ("name", name), ("provenance", dict(provenance or {}))),
            *(("chosen_on", frozenset(map(str, chosen_on))), ("unit", unit)),
        ):
            object.__setattr__(self, key, value)

    @property
    def per_prompt(self) -> bool:
        """Whether each prompt has a set of its own."""
        return self.members.per_prompt

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons of each layer, in the set or not."""
        return self.members.widths

    @property
    def mask(self) -> Mask:
        """True for the neurons of the set (layer, neuron); it cannot be written to.

        Raises:
            NeuroglotError: each prompt has a set of its own.
        """
        if self.per_prompt:
            raise NeuroglotError(
                f"neuron set {self.name!r} differs from prompt to prompt, so that it has no one "
                "mask; sizes_of(prompts) and masks_of(prompts) give those of prompts."
            )
        return self._mask

    @cached_property
    def _mask(self) -> Mask:
        return _frozen(self.members.masks(Prompts([("", "")]))[0])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of the set in each layer."""
        return tuple(int(n) for n in self.mask.sum(axis=1))

    def bits_of(self, prompts: Prompts) -> Bits:
        """Packed neurons of some prompts (prompt, layer, byte); see :class:`Members`.

        Raises:
            NeuroglotError: they are not known for one of the prompts.
        """
        try:
            return self.members.bits(prompts)
        except NeuroglotError as error:
            raise NeuroglotError(f"neuron set {self.name!r}: {error}") from error

    def masks_of(self, prompts: Sequence[tuple[str, str]]) -> Mask:
        """Which neurons are meant (prompt, layer, neuron), by item and language of each prompt."""
        found = unpack(self.bits_of(Prompts(prompts)), self.members.shape[1]).astype(np.bool_)
        return np.broadcast_to(found, (len(prompts), *self.members.shape))

    def sizes_of(self, prompts: Sequence[tuple[str, str]]) -> Counts:
        """How many neurons (prompt, layer), by item and language of each prompt."""
        found: Counts = np.bitwise_count(self.bits_of(Prompts(prompts))).sum(-1, dtype=np.int64)
        return np.broadcast_to(found, (len(prompts), found.shape[1]))

    def __len__(self) -> int:
        return int(self.mask.sum())

    def __bool__(self) -> bool:
        """Whether there may be a neuron in it."""
        return self.per_prompt or bool(self.mask.any())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Layers and neurons of the set, in order."""
        return ((int(layer), int(neuron)) for layer, neuron in np.argwhere(self.mask))

    def __contains__(self, place: object) -> bool:
        """Whether a neuron ``(layer, neuron)`` is in the set."""
        mask = self.mask
        return (
            isinstance(place, tuple)
            and len(place) == mask.ndim
            and all(is_whole_number(x, 0, n - 1) for x, n in zip(place, mask.shape, strict=True))
            and bool(mask[place])
        )

    def __repr__(self) -> str:
        if self.per_prompt:
            return f"NeuronSet({self.name!r}, one for each prompt)"
        return (
            f"NeuronSet({self.name!r}, {len(self):,} of {sum(self.widths):,} neurons, by layer "
            f"{listed(self.sizes, 6)})"
        )

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {"unit": self.unit, "layers": len(self.widths)}
        if self.per_prompt:
            facts |= {"neurons": "each prompt has its own"}
        else:
            facts |= {"neurons": f"{len(self):,} of {sum(self.widths):,}"}
            facts |= {"by_layer": listed(self.sizes, 6)}
        facts |= {"items_chosen_on": len(self.chosen_on) or ""}
        return as_html(self.name, facts | dict(self.provenance))

    def __eq__(self, other: object) -> bool:
        """Whether both have the same neurons, whatever their names."""
        if not isinstance(other, NeuronSet):
            return False
        return (self.unit, self.widths, self.checksum) == (other.unit, other.widths, other.checksum)

    def __hash__(self) -> int:
        return hash((self.unit, self.widths, self.checksum))

    @cached_property
    def checksum(self) -> str:
        """Tells the neurons from others."""
        if self.per_prompt:
            return self.members.checksum
        return m.fixed(self.mask, self.widths).said()[:16]

    def __or__(self, other: NeuronSet) -> NeuronSet:
        return self._joined(other, "|")

    def __and__(self, other: NeuronSet) -> NeuronSet:
        return self._joined(other, "&")

    def __sub__(self, other: NeuronSet) -> NeuronSet:
        return self._joined(other, "-")

    def __invert__(self) -> NeuronSet:
        is_complement = self.members.kept is not None and self.members.kept[1] is None
        if is_complement and self.name.startswith("~"):
            name = self.name.removeprefix("~")
        else:
            name = f"~{self.name}" if re.fullmatch(r"\w+|\(.*\)", self.name) else f"~({self.name})"
        return self._of(m.others(self.members), name)

    def _joined(self, other: NeuronSet, sign: Sign) -> NeuronSet:
        members = m.joined(sign, self.members, self._same_shape(other).members)
        both = {k: v for k, v in self.provenance.items() if other.provenance.get(k) == v}
        chosen_on = self.chosen_on | other.chosen_on
        return self._of(members, f"({self.name} {sign} {other.name})", both, chosen_on)

    def _of(
        self,
        members: Members,
        name: str,
        provenance: Mapping[str, Provenance] | None = None,
        chosen_on: frozenset[str] | None = None,
    ) -> NeuronSet:
        """A set that was made of this one."""
        return NeuronSet(
            members,
            name,
            self.provenance if provenance is None else provenance,
            self.chosen_on if chosen_on is None else chosen_on,
            self.unit,
        )

    def _same_shape(self, other: NeuronSet) -> NeuronSet:
        if isinstance(other, NeuronSet) and self.unit != other.unit:
            raise NeuroglotError(
                f"neuron set {self.name!r} is of {self.unit}, {other.name!r} of {other.unit}: sets "
                "of different units cannot be joined."
            )
        if not isinstance(other, NeuronSet) or self.widths != other.widths:
            found = other.members.shape if isinstance(other, NeuronSet) else type(other).__name__
            raise NeuroglotError(
                f"neuron set {self.name!r} is of shape {self.members.shape} (layer, neuron), the "
                f"other is {found}: expected sets of one model."
            )
        return other

    def layers(self, *layers: int) -> NeuronSet:
        """The neurons of the set that are in some layers.

        Raises:
            NeuroglotError: no layers, or one that there is not.
        """
        chosen = sorted_layers(layers)
        if chosen[-1] >= len(self.widths):
            raise NeuroglotError(
                f"layers={chosen}: expected numbers from 0 to {len(self.widths) - 1}."
            )
        name = f"{self.name}, layers {layer_range(chosen)}"
        return self._of(m.in_layers(self.members, chosen), name)

    def strongest(
        self,
        share: float,
        by: xr.DataArray | np.ndarray[Any, Any] | None = None,
        *,
        chosen_on: Iterable[str] = (),
    ) -> NeuronSet:
        """The share of the set's neurons in each layer that ranks highest, rounded up.

        Args:
            share: above 0, at most 1.
            by: scores (layer, neuron); by default the contribution ``|m|·‖v‖`` in each prompt
                itself, which is known within :func:`neuroglot.intervene`.
            chosen_on: ids of the items from whose answers the scores follow, if any.

        Raises:
            NeuroglotError: no such share, or scores of another shape or NaN.
        """
        require_finite("share", share)
        if not 0 < share <= 1:
            raise NeuroglotError(f"share={share}: expected above 0, at most 1.")
        scores = None if by is None else _scores(by, self.members.shape)
        how = "" if by is None else f" by {getattr(by, 'name', None) or 'score'}"
        ranked = m.strongest(self.members, float(share), scores)
        chosen = self.chosen_on | frozenset(map(str, chosen_on))
        return self._of(ranked, f"{self.name}, top {share:g}{how}", None, chosen)

    def sample_like(self, seed: int, pool: NeuronSet | None = None) -> NeuronSet:
        """Random neurons, as many in each layer as this set has.

        Args:
            seed: of the draw.
            pool: what to draw from; by default all neurons outside this set.

        Raises:
            NeuroglotError: a layer of the pool has fewer neurons than this set (it names the
                layer), or one of both differs from prompt to prompt.
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
        members, chosen_on = m.fixed(drawn, self.widths), self.chosen_on | source.chosen_on
        return self._of(members, f"random like {self.name}", origin, chosen_on)

    @classmethod
    def top(
        cls,
        scores: xr.DataArray | np.ndarray[Any, Any],
        k: int,
        *,
        name: str | None = None,
        within: NeuronSet | None = None,
        chosen_on: Iterable[str] = (),
    ) -> NeuronSet:
        """The ``k`` neurons with the highest scores, of all layers together.

        Of equal scores, the first layer and neuron wins.

        Args:
            scores: (layer, neuron).
            k: how many.
            name: of the set.
            within: the set to choose from; by default all neurons.
            chosen_on: ids of the items from whose answers the scores follow, if any.

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
        chosen = allowed.chosen_on | frozenset(map(str, chosen_on))
        made: dict[str, Provenance] = {"score": str(score), "k": int(k)}
        said = name or f"top {k} by {score}"
        return cls(mask, said, made, chosen, allowed.unit, widths=allowed.widths)

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[tuple[int, int]] | pd.DataFrame,
        model: Model,
        *,
        name: str = "neurons",
        chosen_on: Iterable[str] = (),
    ) -> NeuronSet:
        """The neurons of a list of pairs, or of a table.

        Args:
            pairs: layer and neuron of each, or a table with these columns.
            model: of which they are.
            name: of the set.
            chosen_on: ids of the items on which they were chosen, if any.

        Raises:
            NeuroglotError: a pair that the model does not have, or a table without the columns.
        """
        if isinstance(pairs, pd.DataFrame):
            missing = [column for column in ("layer", "neuron") if column not in pairs]
            if missing:
                raise NeuroglotError(
                    f"the table has no column {listed(missing)}; it has {listed(pairs.columns)}."
                )
            pairs = zip(pairs["layer"].tolist(), pairs["neuron"].tolist(), strict=True)
        mask = np.zeros((model.n_layers, model.n_neurons), bool)
        for pair in pairs:
            place = tuple(pair)
            if len(place) != 2 or not all(
                is_whole_number(x, 0, n - 1) for x, n in zip(place, mask.shape, strict=True)
            ):
                raise NeuroglotError(
                    f"{pair!r} is no neuron of {model.name!r}; expected a layer from 0 to "
                    f"{model.n_layers - 1} and a neuron from 0 to {model.n_neurons - 1}."
                )
            mask[place] = True
        return cls(mask, name, {"model": model.name}, chosen_on)

    @classmethod
    def of_prompts(
        cls, sets: Mapping[tuple[str, str], Mask], name: str = "neurons", **known: Any
    ) -> NeuronSet:
        """Sets that are given for each of some prompts.

        Args:
            sets: a mask (layer, neuron) by item and language.
            name: of the set.
            known: further attributes, such as ``chosen_on``.

        Raises:
            NeuroglotError: no masks, or of different shapes.
        """
        fixed = [_fixed(mask, None) for mask in sets.values()]
        if len({one.widths for one in fixed}) != 1:
            raise NeuroglotError(
                "expected a mask (layer, neuron) for each prompt, all of one shape."
            )
        packed = np.concatenate([one.bits(Prompts([])) for one in fixed])
        return cls(m.written_down(packed, list(sets), fixed[0].widths), name, **known)

    @classmethod
    def active(cls, recording: Recording, *, threshold: float = 0.0) -> NeuronSet:
        """The neurons that are active in each prompt itself.

        Args:
            recording: from :func:`neuroglot.record`, of all layers.
            threshold: a neuron is active where its site value was greater.

        Raises:
            NeuroglotError: a threshold that was not recorded.
        """
        return cls(m.active_in(recording, threshold), "active", _origin(recording, threshold))

    @classmethod
    def specific_here(cls, recording: Recording, *, threshold: float = 0.0) -> NeuronSet:
        """The neurons that are specific to the language of each prompt itself.

        Args:
            recording: from :func:`neuroglot.record`, of all layers.
            threshold: a neuron is active where its site value was greater.

        Raises:
            NeuroglotError: a threshold that was not recorded.
        """
        specific = cls.from_category(recording, "specific", threshold=threshold)
        here = specific & cls.active(recording, threshold=threshold)
        return cls(here.members, "specific_here", here.provenance, here.chosen_on, here.unit)

    @classmethod
    def from_category(
        cls,
        recording: Recording,
        category: str,
        membership: float | None = None,
        *,
        threshold: float = 0.0,
    ) -> NeuronSet:
        """The neurons that are in a category: for the item of each prompt, or for enough items.

        Args:
            recording: from :func:`neuroglot.record`, of all layers.
            category: such as ``"all_shared"``.
            membership: the least share of the recorded items, above 0 and at most 1, for one set
                that is the same in every prompt; by default each prompt has its own.
            threshold: a neuron is active where its site value was greater.

        Raises:
            NeuroglotError: an unknown category, a threshold that was not recorded, or a share that
                is none.
        """
        members = m.active_in(recording, threshold, str(category))
        made = _origin(recording, threshold) | {"category": str(category)}
        if membership is None:
            return cls(members, category, made)
        require_finite("membership", membership)
        if not 0 < membership <= 1:
            raise NeuroglotError(f"membership={membership}: expected above 0, at most 1.")
        shares = (
            category_membership(recording, threshold=threshold).sel(category=category).to_numpy()
        )
        # Sums of shares may be a little less than what they should be.
        mask = shares >= membership - 1e-9
        made |= {"membership": membership}
        return cls(mask, f"{category} ≥ {membership:g}", made)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a set that is the same in every prompt as one small file.

        The file is one line of JSON (``format``, ``name``, ``shape``, ``sizes`` by layer,
        ``provenance``, ``sha256`` of what follows, and where they are not the usual ones ``widths``
        of the layers, ``unit`` and ``chosen_on``), then the mask as packed bits, layer by layer,
        each layer to a full byte, its first neuron in the highest bit. :meth:`load` reads it again.
        Of what it is a part, or all others of what, is not kept: controls of a loaded ``~neurons``
        are drawn as those of any other set.

        Raises:
            NeuroglotError: each prompt has a set of its own, ``path`` exists and ``overwrite`` is
                not set, or it cannot be written.
        """
        further: dict[str, Any] = {}
        if len(set(self.widths)) > 1:
            further["widths"] = list(self.widths)
        if self.unit != FFN:
            further["unit"] = self.unit
        if self.chosen_on:
            further["chosen_on"] = sorted(self.chosen_on)
        write_set(path, self.mask, self.name, self.provenance, further, overwrite=overwrite)

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
        mask, name, provenance, further = read_set(path)
        try:
            found = cls(mask, name, provenance, **further)
        except NeuroglotError as error:  # layers of other widths
            raise NeuroglotError(f"{str(path)!r} is no sound neuron set: {error}") from error
        if model is not None:
            found.check_fits(model)
        return found

    def check_fits(self, model: Model) -> None:
        """Refuse a model of another shape, or without such units.

        Raises:
            NeuroglotError: it gives both shapes.
        """
        there = model.units(self.unit).widths
        if self.widths != there:
            raise NeuroglotError(
                f"neuron set {self.name!r} is for {len(self.widths)} layers of "
                f"{listed(dict.fromkeys(self.widths))} {self.unit}, but {model.name!r} has "
                f"{len(there)} of {listed(dict.fromkeys(there))}."
            )


def sorted_layers(layers: Any) -> tuple[int, ...]:
    """Layers in order.

    Raises:
        NeuroglotError: none, one twice, or no whole numbers from 0.
    """
    given = tuple(layers) if isinstance(layers, Iterable) else (layers,)
    if not given or len(set(given)) < len(given) or not all(is_whole_number(x, 0) for x in given):
        raise NeuroglotError(f"layers={layers!r}: expected different whole numbers from 0.")
    return tuple(sorted(int(layer) for layer in given))


def layer_range(layers: Sequence[int]) -> str:
    """Layers as text: neighbours as ``0-2``, others as ``0,2,5``."""
    first, last = min(layers), max(layers)
    if sorted(layers) == list(range(first, last + 1)):
        return str(first) if first == last else f"{first}-{last}"
    return ",".join(map(str, layers))


def _fixed(mask: Any, widths: Sequence[int] | None) -> Members:
    """A mask that cannot be written to, checked."""
    found = np.array(mask)
    if found.ndim != 2 or found.dtype != np.bool_ or not found.size:
        raise NeuroglotError(
            f"a neuron set needs a mask (layer, neuron) of true and false, found {found.dtype} "
            f"of shape {found.shape}."
        )
    known = (found.shape[1],) * len(found) if widths is None else tuple(int(n) for n in widths)
    there = np.arange(found.shape[1]) < np.array(known)[:, None]
    if len(known) != len(found) or max(known) != found.shape[1] or (found & ~there).any():
        raise NeuroglotError(
            f"a mask of shape {found.shape} (layer, neuron) does not fit layers of "
            f"{listed(known, 6)} neurons."
        )
    return m.fixed(found, known)


def _frozen(mask: Mask) -> Mask:
    found = np.array(mask)
    found.flags.writeable = False
    return found


def _scores(by: Any, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    values = np.asarray(by, dtype=float)
    if values.shape != shape or not np.isfinite(values).all():
        raise NeuroglotError(
            f"expected finite scores (layer, neuron) of shape {shape}, found shape {values.shape}."
        )
    return values


def _origin(recording: Recording, threshold: float) -> dict[str, Provenance]:
    """Where a set of a recording comes from."""
    attrs = recording.attrs
    kept = ("model", "model_weights", "task", "task_checksum", "site", "position")
    found: dict[str, Provenance] = {key: attrs.get(key, "") for key in kept}
    found |= {"added_tokens": said_of(attrs, "added_tokens")}
    found |= {"items": len(recording), "languages": ",".join(recording.languages)}
    return found | {"threshold": threshold}
