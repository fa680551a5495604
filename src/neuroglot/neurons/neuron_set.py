"""Sets of neurons, which are the same in every prompt or differ between prompts."""

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
from neuroglot.sharing.bits import count, unpack
from neuroglot.sharing.categories import category_membership
from neuroglot.sharing.kernels import Counts
from neuroglot.store.joining import how_read


@dataclass(frozen=True, eq=False, init=False)
class NeuronSet:
    """A named set of neurons of a model, the same in every prompt or one set for each prompt.

    ``a | b`` holds the neurons of either set, ``a & b`` those of both, ``a - b`` those of the first
    only, and ``~a`` all other neurons. If the set is the same in every prompt, ``len(a)`` is its
    number of neurons, ``(layer, neuron) in a`` tells whether a neuron is in it, and iterating over
    it gives the neurons in order. If it differs between prompts, its neurons are computed block by
    block when prompts run, and take no memory before. ``a == b`` is true for two sets of the same
    neurons, and for two sets that were made in the same way from the same recording.

    Attributes:
        members: the neurons; see :meth:`masks_of`.
        name: the name of the set in figures and results.
        provenance: where the set comes from, as plain texts and numbers.
        chosen_on: the ids of the items whose answers, labels or effects were used to choose the
            neurons. The effect of the neurons has to be measured on other items. A set that was
            chosen by the activity of neurons alone has no such items.
        unit: the kind of units, see :meth:`neuroglot.Model.units`; by default FFN neurons.

    Examples:
        >>> import numpy as np
        >>> import neuroglot as ng
        >>> one = ng.NeuronSet(np.array([[True, False, True], [False, True, False]]), "one")
        >>> other = ng.NeuronSet(np.array([[True, True, False], [False, False, False]]), "other")
        >>> one | other
        NeuronSet('(one | other)', 4 of 6 neurons, by layer 3, 1)
        >>> list(one - other)
        [(0, 2), (1, 1)]
        >>> (~one).layers(1).sizes
        (0, 2)
        >>> ng.NeuronSet.top(np.array([[0.1, 0.9, 0.3], [0.7, 0.2, 0.0]]), 2).mask
        array([[False,  True, False],
               [ True, False, False]])

        The neurons that all languages share, which differ between the items of a task:

        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=2)
        >>> shared = ng.NeuronSet.from_category(ng.record(model, task), "all_shared")
        >>> shared
        NeuronSet('all_shared', one for each prompt)
        >>> shared.sizes_of([(task.items[0]["id"], "en")]).shape  # (prompt, layer)
        (1, 6)
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
        """Make a set from a mask.

        Args:
            members: a mask (layer, neuron) that is true for the neurons of the set, of which a copy
                is kept; or the members of another set.
            name: the name of the set.
            provenance: where the set comes from.
            chosen_on: the ids of the items on which the neurons were chosen.
            unit: the kind of units.
            widths: the number of neurons in each layer, if they differ; the mask is then as wide
                as the widest layer.

        Raises:
            NeuroglotError: the mask is not a mask, or does not fit the widths of the layers.
        """
        attributes = {
            "members": members if isinstance(members, Members) else _fixed(members, widths),
            "name": name,
            "provenance": dict(provenance or {}),
            "chosen_on": frozenset(map(str, chosen_on)),
            "unit": unit,
        }
        for attribute, value in attributes.items():
            object.__setattr__(self, attribute, value)

    @property
    def per_prompt(self) -> bool:
        """Whether the set differs between prompts."""
        return self.members.per_prompt

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of neurons in each layer of the model, whether or not they are in the set."""
        return self.members.widths

    @cached_property
    def mask(self) -> Mask:
        """True for the neurons of the set (layer, neuron); the array is read-only.

        Raises:
            NeuroglotError: the set differs between prompts.
        """
        if self.per_prompt:
            raise NeuroglotError(
                f"neuron set {self.name!r} differs from prompt to prompt, so it has no single "
                "mask; use sizes_of(prompts) or masks_of(prompts)."
            )
        return np.asarray(self.members.masks(Prompts([("", "")]))[0])

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of neurons of the set in each layer."""
        return tuple(int(n) for n in self.mask.sum(axis=1))

    def bits_of(self, prompts: Prompts) -> Bits:
        """The packed neurons of the set in each prompt (prompt, layer, byte); see :class:`Members`.

        Raises:
            NeuroglotError: the neurons are not known for one of the prompts.
        """
        try:
            return self.members.bits(prompts)
        except NeuroglotError as error:
            raise NeuroglotError(f"neuron set {self.name!r}: {error}") from error

    def masks_of(self, prompts: Sequence[tuple[str, str]]) -> Mask:
        """Whether each neuron is in the set, in each prompt (prompt, layer, neuron).

        Args:
            prompts: the item and the language of each prompt.

        Raises:
            NeuroglotError: the neurons are not known for one of the prompts.
        """
        masks = unpack(self.bits_of(Prompts(prompts)), self.members.shape[1]).astype(np.bool_)
        return np.broadcast_to(masks, (len(prompts), *self.members.shape))

    def sizes_of(self, prompts: Sequence[tuple[str, str]]) -> Counts:
        """The number of neurons of the set in each prompt and layer (prompt, layer).

        Args:
            prompts: the item and the language of each prompt.

        Raises:
            NeuroglotError: the neurons are not known for one of the prompts.
        """
        sizes = count(self.bits_of(Prompts(prompts)))
        return np.broadcast_to(sizes, (len(prompts), len(self.widths)))

    def __len__(self) -> int:
        return int(self.mask.sum())

    def __bool__(self) -> bool:
        """Whether the set has a neuron, or may have one in some prompt."""
        return self.per_prompt or bool(self.mask.any())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The layer and the number of each neuron of the set, in order."""
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
        size = "" if self.per_prompt else f"{len(self):,} of {sum(self.widths):,}"
        facts = {
            "unit": self.unit,
            "layers": len(self.widths),
            "neurons": size or "each prompt has its own",
            "by_layer": size and listed(self.sizes, 6),
            "items_chosen_on": len(self.chosen_on) or "",
        }
        return as_html(self.name, facts | dict(self.provenance))

    def __eq__(self, other: object) -> bool:
        """Whether both sets have the same neurons; their names do not matter."""
        return isinstance(other, NeuronSet) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, tuple[int, ...], str]:
        return self.unit, self.widths, self.checksum

    @cached_property
    def checksum(self) -> str:
        """Sixteen hexadecimal digits that tell the neurons of this set from those of others."""
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
        return self._of(members, f"({self.name} {sign} {other.name})", both, other.chosen_on)

    def _of(
        self,
        members: Members,
        name: str,
        provenance: Mapping[str, Provenance] | None = None,
        chosen_on: Iterable[str] = (),
    ) -> NeuronSet:
        """A set that is made from this one, and chosen on further items."""
        return NeuronSet(
            members,
            name,
            self.provenance if provenance is None else provenance,
            {*self.chosen_on, *chosen_on},
            self.unit,
        )

    def _same_shape(self, other: NeuronSet) -> NeuronSet:
        """The other set, if the two can be joined."""
        if isinstance(other, NeuronSet) and self.unit != other.unit:
            raise NeuroglotError(
                f"neuron set {self.name!r} is of {self.unit}, {other.name!r} of {other.unit}: sets "
                "of different units cannot be joined."
            )
        if not isinstance(other, NeuronSet) or self.widths != other.widths:
            shape = other.members.shape if isinstance(other, NeuronSet) else type(other).__name__
            raise NeuroglotError(
                f"neuron set {self.name!r} is of shape {self.members.shape} (layer, neuron), the "
                f"other is {shape}: expected sets of one model."
            )
        return other

    def layers(self, *layers: int) -> NeuronSet:
        """The neurons of the set that are in the given layers.

        Raises:
            NeuroglotError: no layer is given, or one that the model does not have.
        """
        chosen = sorted_layers(layers, len(self.widths))
        name = f"{self.name}, layers {layer_range(chosen)}"
        return self._of(m.in_layers(self.members, chosen), name)

    def strongest(
        self,
        share: float,
        by: xr.DataArray | np.ndarray[Any, Any] | None = None,
        *,
        chosen_on: Iterable[str] = (),
    ) -> NeuronSet:
        """The highest-ranking share of the set's neurons in each layer, rounded up.

        Args:
            share: the share of neurons, above 0 and at most 1.
            by: scores (layer, neuron) to rank by; by default the contribution ``|m|·‖v‖`` in each
                prompt, which is known within :func:`neuroglot.intervene`.
            chosen_on: the ids of the items from whose answers the scores were computed, if any.

        Raises:
            NeuroglotError: the share is out of range, or the scores have another shape or are not
                finite.
        """
        require_share("share", share)
        scores = None if by is None else np.asarray(by, dtype=float)
        if scores is not None and not (
            scores.shape == self.members.shape and np.isfinite(scores).all()
        ):
            raise NeuroglotError(
                f"expected finite scores (layer, neuron) of shape {self.members.shape}, found "
                f"shape {scores.shape}."
            )
        ranked_by = "" if by is None else f" by {getattr(by, 'name', None) or 'score'}"
        ranked = m.strongest(self.members, float(share), scores)
        name = f"{self.name}, top {share:g}{ranked_by}"
        return self._of(ranked, name, chosen_on=chosen_on)

    def sample_like(self, seed: int, pool: NeuronSet | None = None) -> NeuronSet:
        """Draw random neurons, as many in each layer as this set has.

        Args:
            seed: the seed of the draw.
            pool: the neurons to draw from; by default all neurons outside this set.

        Raises:
            NeuroglotError: a layer of the pool has fewer neurons than this set, or one of the two
                sets differs between prompts.
        """
        if not is_whole_number(seed, 0):
            raise NeuroglotError(f"seed={seed!r}: expected a whole number from 0.")
        source = ~self if pool is None else self._same_shape(pool)
        for layer, (wanted, available) in enumerate(zip(self.sizes, source.sizes, strict=True)):
            if wanted > available:
                raise NeuroglotError(
                    f"layer {layer}: {wanted} neurons are to be drawn like {self.name!r}, but "
                    f"{source.name!r} has {available}. Give a larger pool=."
                )
        drawn = sample(self.mask, source.mask, np.random.default_rng(int(seed)))
        assert drawn is not None  # every layer has enough
        origin: dict[str, Provenance] = {**self.provenance, "drawn_like": self.name}
        origin |= {"pool": source.name, "seed": int(seed)}
        members = m.fixed(drawn, self.widths)
        return self._of(members, f"random like {self.name}", origin, source.chosen_on)

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
        """The ``k`` neurons with the highest scores over all layers.

        Of neurons with equal scores, those in the first layers come first, then those with the
        lowest numbers.

        Args:
            scores: the score of each neuron (layer, neuron).
            k: the number of neurons.
            name: the name of the set; by default it is made of ``k`` and the name of the scores.
            within: the set to choose from; by default all neurons.
            chosen_on: the ids of the items from whose answers the scores were computed, if any.

        Raises:
            NeuroglotError: the scores have another shape or are NaN, or there are fewer than ``k``
                neurons.
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
        return cls(
            mask,
            name or f"top {k} by {score}",
            {"score": str(score), "k": int(k)},
            {*allowed.chosen_on, *chosen_on},
            allowed.unit,
            widths=allowed.widths,
        )

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[tuple[int, int]] | pd.DataFrame,
        model: Model,
        *,
        name: str = "neurons",
        chosen_on: Iterable[str] = (),
    ) -> NeuronSet:
        """A set of neurons that are listed as pairs or in a table.

        Args:
            pairs: the layer and the number of each neuron, or a table with the columns ``layer``
                and ``neuron``.
            model: the model to which the neurons belong.
            name: the name of the set.
            chosen_on: the ids of the items on which the neurons were chosen, if any.

        Raises:
            NeuroglotError: the model does not have one of the neurons, or the table does not have
                the columns.
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
                    f"{pair!r} is not a neuron of {model.name!r}; expected a layer from 0 to "
                    f"{model.n_layers - 1} and a neuron from 0 to {model.n_neurons - 1}."
                )
            mask[place] = True
        return cls(mask, name, {"model": model.name}, chosen_on)

    @classmethod
    def of_prompts(
        cls, sets: Mapping[tuple[str, str], Mask], name: str = "neurons", **known: Any
    ) -> NeuronSet:
        """A set that differs between prompts, from one mask for each prompt.

        Args:
            sets: the mask (layer, neuron) of each prompt, by item and language.
            name: the name of the set.
            known: further attributes, such as ``chosen_on``.

        Raises:
            NeuroglotError: there is no mask, or the masks have different shapes.
        """
        fixed = [_fixed(mask, None) for mask in sets.values()]
        if len({members.widths for members in fixed}) != 1:
            raise NeuroglotError(
                "expected a mask (layer, neuron) for each prompt, all of one shape."
            )
        packed = np.concatenate([members.bits(Prompts([])) for members in fixed])
        return cls(m.written_down(packed, list(sets), fixed[0].widths), name, **known)

    @classmethod
    def active(cls, recording: Recording, *, threshold: float = 0.0) -> NeuronSet:
        """The neurons that are active in each prompt.

        Args:
            recording: what :func:`neuroglot.record` returns, with all layers.
            threshold: a neuron is active where its site value is greater.

        Raises:
            NeuroglotError: the threshold was not recorded.
        """
        return cls(m.active_in(recording, threshold), "active", _origin(recording, threshold))

    @classmethod
    def specific_here(cls, recording: Recording, *, threshold: float = 0.0) -> NeuronSet:
        """The neurons that are specific to the language of the prompt.

        Args:
            recording: what :func:`neuroglot.record` returns, with all layers.
            threshold: a neuron is active where its site value is greater.

        Raises:
            NeuroglotError: the threshold was not recorded.
        """
        specific = cls.from_category(recording, "specific", threshold=threshold)
        both = specific & cls.active(recording, threshold=threshold)
        return cls(both.members, "specific_here", both.provenance, both.chosen_on, both.unit)

    @classmethod
    def from_category(
        cls,
        recording: Recording,
        category: str,
        membership: float | None = None,
        *,
        threshold: float = 0.0,
    ) -> NeuronSet:
        """The neurons of a category: for the item of each prompt, or for enough items.

        Args:
            recording: what :func:`neuroglot.record` returns, with all layers.
            category: the category, such as ``"all_shared"``.
            membership: if given, the set is the same in every prompt and holds the neurons that
                are in the category for at least this share of the recorded items, above 0 and at
                most 1. By default each prompt has the neurons of its own item.
            threshold: a neuron is active where its site value is greater.

        Raises:
            NeuroglotError: the category is unknown, the threshold was not recorded, or the share is
                out of range.
        """
        members = m.active_in(recording, threshold, str(category))
        made = _origin(recording, threshold) | {"category": str(category)}
        if membership is None:
            return cls(members, category, made)
        require_share("membership", membership)
        shares = (
            category_membership(recording, threshold=threshold).sel(category=category).to_numpy()
        )
        mask = shares >= membership - 1e-9  # shares may be a little too small through rounding
        return cls(mask, f"{category} ≥ {membership:g}", made | {"membership": membership})

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a set that is the same in every prompt as one small file, for :meth:`load`.

        The file begins with one line of JSON: ``format``, ``name``, ``shape``, ``sizes`` (neurons
        in each layer), ``provenance`` and ``sha256`` (the checksum of the bytes that follow). If
        they differ from the usual, there are also ``widths``, ``unit`` and ``chosen_on``. Then
        comes the mask as packed bits, layer by layer: each layer is filled up to a full byte, and
        its first neuron is the highest bit. The file does not say that the set is a complement or
        a part of another set: the controls of a loaded ``~neurons`` are drawn as for any set.

        Args:
            path: the path of the file.
            overwrite: whether to replace an existing file.

        Raises:
            NeuroglotError: the set differs between prompts, the file exists and ``overwrite`` is
                not set, or it cannot be written.
        """
        own = {"widths": list(self.widths), "unit": self.unit, "chosen_on": sorted(self.chosen_on)}
        usual = {"widths": [max(self.widths)] * len(self.widths), "unit": FFN, "chosen_on": []}
        further = {key: value for key, value in own.items() if value != usual[key]}
        write_set(path, self.mask, self.name, self.provenance, further, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path, model: Model | None = None) -> NeuronSet:
        """Read a set that :meth:`save` wrote.

        Args:
            path: the path of the file.
            model: a model that the set has to fit, if any.

        Raises:
            NeuroglotError: the file does not exist, is damaged or contradicts itself, or the set
                does not fit the model.
        """
        mask, name, provenance, further = read_set(path)
        try:
            neurons = cls(mask, name, provenance, **further)
        except NeuroglotError as error:  # the widths of the layers are wrong
            raise NeuroglotError(f"{str(path)!r} is not an intact neuron set: {error}") from error
        if model is not None:
            neurons.check_fits(model)
        return neurons

    def check_fits(self, model: Model) -> None:
        """Refuse a model with another number of layers or units, or without units of this kind.

        Raises:
            NeuroglotError: the set does not fit the model.
        """
        widths = model.units(self.unit).widths
        if self.widths != widths:
            raise NeuroglotError(
                f"neuron set {self.name!r} is for {len(self.widths)} layers of "
                f"{listed(dict.fromkeys(self.widths))} {self.unit}, but {model.name!r} has "
                f"{len(widths)} of {listed(dict.fromkeys(widths))}."
            )


def sorted_layers(layers: Any, n_layers: int | None = None) -> tuple[int, ...]:
    """The numbers of layers, in ascending order.

    Args:
        layers: the numbers.
        n_layers: the number of layers that the model has, if it is known.

    Raises:
        NeuroglotError: there is none, one is given twice, or one is not a whole number from 0, or
            not a layer of the model.
    """
    given = tuple(layers) if isinstance(layers, Iterable) else (layers,)
    if not given or len(set(given)) < len(given) or not all(is_whole_number(x, 0) for x in given):
        raise NeuroglotError(f"layers={layers!r}: expected different whole numbers from 0.")
    chosen = tuple(sorted(int(layer) for layer in given))
    if n_layers is not None and chosen[-1] >= n_layers:
        raise NeuroglotError(f"layers={chosen}: expected numbers from 0 to {n_layers - 1}.")
    return chosen


def require_share(name: str, share: float) -> None:
    """Refuse a number that is not above 0 and at most 1.

    Raises:
        NeuroglotError: it gives the name and the number.
    """
    require_finite(name, share)
    if not 0 < share <= 1:
        raise NeuroglotError(f"{name}={float(share)}: expected above 0, at most 1.")


def layer_range(layers: Sequence[int]) -> str:
    """The numbers of layers as a text: consecutive ones as ``0-2``, others as ``0,2,5``."""
    first, last = min(layers), max(layers)
    if sorted(layers) == list(range(first, last + 1)):
        return str(first) if first == last else f"{first}-{last}"
    return ",".join(map(str, layers))


def _fixed(mask: Any, widths: Sequence[int] | None) -> Members:
    """The members of a mask, after it was checked and copied."""
    copied = np.array(mask)
    if copied.ndim != 2 or copied.dtype != np.bool_ or not copied.size:
        raise NeuroglotError(
            f"a neuron set needs a mask (layer, neuron) of true and false, found {copied.dtype} "
            f"of shape {copied.shape}."
        )
    n_layers, widest = copied.shape
    of_layers = (widest,) * n_layers if widths is None else tuple(map(int, widths))
    exist = np.arange(widest) < np.array(of_layers)[:, None]
    if len(of_layers) != n_layers or max(of_layers) != widest or (copied & ~exist).any():
        raise NeuroglotError(
            f"a mask of shape {copied.shape} (layer, neuron) does not fit layers of "
            f"{listed(of_layers, 6)} neurons."
        )
    return m.fixed(copied, of_layers)


def _origin(recording: Recording, threshold: float) -> dict[str, Provenance]:
    """The provenance of a set that is made from a recording."""
    attrs = recording.attrs
    kept = ("model", "model_weights", "task", "task_checksum")
    return {
        **{key: attrs.get(key, "") for key in kept},
        **how_read(attrs),
        "items": len(recording),
        "languages": ",".join(recording.languages),
        "threshold": threshold,
    }
