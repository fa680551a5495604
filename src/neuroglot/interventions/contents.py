"""Coefficients that edits take from a recording: means over prompts, or another prompt's own."""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from neuroglot.errors import NeuroglotError, is_whole_number, listed, shown
from neuroglot.models.model import Model
from neuroglot.neurons.sampling import seed_of
from neuroglot.recording.blocks import Prompt
from neuroglot.recording.part import require_all_layers
from neuroglot.recording.recording import Recording, require_recording
from neuroglot.store.joining import AS_RECORDED, require_of_model
from neuroglot.tasks.halves import subject_of
from neuroglot.tasks.parallel import ParallelTask

Values = np.ndarray[Any, np.dtype[np.float32]]
Own = np.ndarray[Any, np.dtype[np.bool_]]
WITHIN = ("language", "relation", "both")


class Contents(ABC):
    """Coefficients that neurons get in place of their own."""

    n_draws: int = 1
    """The number of independent draws for each prompt."""

    @abstractmethod
    def of(
        self, prompts: Sequence[Any] | None, draws: Sequence[int] | None = None
    ) -> tuple[Values, Own]:
        """The coefficients that neurons get in each prompt.

        Args:
            prompts: the item and the language of each prompt, which may be followed by more;
                ``None`` if it is not known which prompts run.
            draws: which draw each prompt gets, from 0; by default the first.

        Returns:
            The coefficients (prompt or 1, layer, neuron), and whether the prompt is to keep its own
            (prompt or 1,).

        Raises:
            NeuroglotError: there are no coefficients for one of the prompts.
        """

    def lacks(self, prompts: Sequence[Any]) -> Own:
        """Whether there is no other prompt from which the prompt could take them (prompt,)."""
        return np.zeros(len(prompts), np.bool_)

    @abstractmethod
    def check(self, model: Model) -> None:
        """Refuse coefficients that are not those of the model.

        Raises:
            NeuroglotError: they are of another model, or have another shape.
        """


class Means(Contents):
    """Means over all prompts of a recording, or over groups of them."""

    def __init__(
        self,
        reference: Recording | xr.DataArray | np.ndarray[Any, Any],
        within: str | None,
        task: ParallelTask | None,
    ) -> None:
        """See :class:`neuroglot.MeanAblate` for the arguments.

        Raises:
            NeuroglotError: ``within`` is unknown or needs a recording, or the relations of the
                items are needed and not given.
        """
        if within is not None and within not in WITHIN:
            raise NeuroglotError(f"within={within!r}: there are {listed(WITHIN)}.")
        if within is not None and not isinstance(reference, Recording):
            raise NeuroglotError("within= needs a recording as the reference, not means.")
        self.reference, self.within = reference, within
        self.relations = _relations(task) if within in ("relation", "both") else {}
        self._means: dict[tuple[str, str], Values] = {}

    def of(
        self, prompts: Sequence[Any] | None, _draws: Sequence[int] | None = None
    ) -> tuple[Values, Own]:
        """The means of each prompt's group, to which the prompt itself belongs."""
        if self.within is None:
            return self.all_means[None], np.zeros(1, np.bool_)
        if prompts is None:
            raise NeuroglotError(
                "means within a group need the prompts of a task, but what runs are no such "
                "prompts; use neuroglot.evaluate or neuroglot.record."
            )
        groups = [self._group(prompt) for prompt in prompts]
        own = [
            self._members.get(group) == [_key(prompt)]
            for group, prompt in zip(groups, prompts, strict=True)
        ]
        return np.stack([self._mean(group) for group in groups]), np.array(own)

    @cached_property
    def all_means(self) -> Values:
        """The means over all prompts (layer, neuron).

        Raises:
            NeuroglotError: the recording is of another site or position, or holds no values.
        """
        if not isinstance(self.reference, Recording):
            return np.asarray(self.reference, dtype=np.float32)
        return values_of(self.reference, "the reference").mean(["item", "language"]).to_numpy()

    @cached_property
    def _members(self) -> dict[tuple[str, str], list[Prompt]]:
        """The recorded prompts of each group."""
        assert isinstance(self.reference, Recording)
        members = defaultdict(list)
        for prompt in itertools.product(self.reference.items, self.reference.languages):
            members[self._group(prompt)].append(prompt)
        return dict(members)

    def _group(self, prompt: Any) -> tuple[str, str]:
        """The relation and the language of a prompt; a part that does not matter is empty."""
        item, language = _key(prompt)
        relation = "" if self.within == "language" else _relation_of(item, self.relations)
        return relation, "" if self.within == "relation" else language

    def _mean(self, group: tuple[str, str]) -> Values:
        if group not in self._members:
            name = " ".join(part for part in group if part)
            raise NeuroglotError(f"the reference holds no prompt of {name!r} to take means of.")
        if group not in self._means:
            assert isinstance(self.reference, Recording)
            values = values_of(self.reference, "the reference")
            items, languages = map(dict.fromkeys, zip(*self._members[group], strict=True))
            of_group = values.sel(item=list(items), language=list(languages))
            means = of_group.mean(["item", "language"]).to_numpy()
            self._means[group] = means.astype(np.float32)
        return self._means[group]

    def check(self, model: Model) -> None:
        """Refuse means of another shape, or a recording of another model."""
        if isinstance(self.reference, Recording):
            require_of_model(self.reference.attrs, model, "the reference", AS_RECORDED)
        shape, means = (model.n_layers, model.n_neurons), self.all_means
        if means.shape != shape or not np.isfinite(means).all():
            raise NeuroglotError(
                f"the reference has means of shape {means.shape}, expected finite ones of {shape} "
                "(layer, neuron)."
            )

    def __str__(self) -> str:
        digest = hashlib.sha256(self.all_means.tobytes())
        if self.within is None:
            return f"the means {digest.hexdigest()[:16]} of prompts"
        digest.update(repr((self.within, sorted(self.relations.items()))).encode())
        alike = "language and relation" if self.within == "both" else self.within
        return f"the means {digest.hexdigest()[:16]} of prompts of the same {alike}"


class Draw(Contents):
    """The coefficients of another prompt: a named one, another language's, or a drawn item's."""

    def __init__(
        self,
        source: Recording,
        of: str | tuple[str, str],
        task: ParallelTask | None,
        seed: int,
        draws: int,
    ) -> None:
        """See :class:`neuroglot.Patch` for the arguments.

        Raises:
            NeuroglotError: ``source`` is not a recording, it does not hold the prompt or language,
                or the relations of the items are needed and not given.
        """
        require_recording(source, "source")
        for name, number, least in (("seed", seed, 0), ("draws", draws, 1)):
            if not is_whole_number(number, least):
                raise NeuroglotError(f"{name}={number!r}: expected a whole number from {least}.")
        self.source, self.which, self.seed = source, of, int(seed)
        self.is_drawn = of in ("relation", "task")
        self.n_draws = int(draws) if self.is_drawn else 1
        self.relations = _relations(task) if of == "relation" else {}
        items = [] if task is None else task.items
        self._subjects = {str(item["id"]): subject_of(item) for item in items}
        self._recorded = set(itertools.product(source.items, source.languages))
        named = (source.items[0], of) if isinstance(of, str) else tuple(of)
        if not self.is_drawn and named not in self._recorded:
            raise NeuroglotError(
                f"of={of!r}: expected 'relation', 'task', a recorded language "
                f"({listed(source.languages)}) or a recorded prompt (item, language)."
            )

    def source_of(self, prompt: Any, draw: int = 0) -> Prompt:
        """The item and the language whose coefficients a prompt gets in a draw.

        Raises:
            NeuroglotError: there is no other item to draw.
        """
        item, language = _key(prompt)
        if not self.is_drawn:
            return (item, self.which) if isinstance(self.which, str) else self.which
        others = self._others(item)
        if not others:
            where = "its relation" if self.which == "relation" else "the source"
            raise NeuroglotError(f"there is no other item than {item!r} in {where} to draw from.")
        rng = np.random.default_rng(seed_of(self.seed, str(draw), item, language))
        return others[int(rng.integers(len(others)))], language

    def _others(self, item: str) -> list[str]:
        """The items that may be drawn for an item: those of another subject, if that is known."""
        relation = _relation_of(item, self.relations) if self.which == "relation" else ""
        subject = self._subjects.get(item, item)
        alike = self._items.get(relation, [])
        return [x for x in alike if x != item and self._subjects.get(x, x) != subject]

    def lacks(self, prompts: Sequence[Any]) -> Own:
        """Whether there is no other item from which the prompt could take them (prompt,)."""
        lacking = [self.is_drawn and not self._others(str(prompt[0])) for prompt in prompts]
        return np.array(lacking, np.bool_)

    @cached_property
    def _items(self) -> dict[str, list[str]]:
        """The recorded items of each relation, or all of them under an empty name."""
        items = defaultdict(list)
        for item in self.source.items:
            items[self.relations.get(item, "")].append(item)
        return dict(items)

    def of(
        self, prompts: Sequence[Any] | None, draws: Sequence[int] | None = None
    ) -> tuple[Values, Own]:
        """The coefficients of each prompt's source."""
        if prompts is None:
            if not isinstance(self.which, tuple):
                raise NeuroglotError(
                    "a patch depends on the prompt, but what runs are no prompts of a task; use "
                    "neuroglot.evaluate or neuroglot.record, or name a prompt."
                )
            sources, own = [self.which], [False]
        else:
            pairs = zip(prompts, draws or [0] * len(prompts), strict=True)
            sources = [self.source_of(prompt, draw % self.n_draws) for prompt, draw in pairs]
            own = [_key(prompt) == x for prompt, x in zip(prompts, sources, strict=True)]
        unknown = [source for source in sources if source not in self._recorded]
        if unknown:
            raise NeuroglotError(f"the source holds no prompt {shown(unknown[0])}.")
        different = sorted(set(sources))
        items, languages = (
            xr.DataArray(list(names), dims="prompt") for names in zip(*different, strict=True)
        )
        values = values_of(self.source, "the source").sel(item=items, language=languages)
        rows = [different.index(source) for source in sources]
        coefficients = values.transpose("prompt", "layer", "neuron").to_numpy()
        return coefficients.astype(np.float32)[rows], np.array(own)

    def check(self, model: Model) -> None:
        """Refuse a recording of another model, site or position."""
        require_of_model(self.source.attrs, model, "the source", AS_RECORDED)
        values_of(self.source, "the source")
        require_all_layers(self.source, model, "the source")

    def __str__(self) -> str:
        attrs = self.source.attrs
        held = (attrs.get("prompts_checksum"), self.source.items, self.source.languages)
        alike = sorted(self.relations.items()), sorted(self._subjects.items())
        digest = hashlib.sha256(repr((held, alike)).encode("utf-8", "surrogatepass")).hexdigest()
        which = self.which if isinstance(self.which, str) else " ".join(self.which)
        text = f"{which} of {attrs['task']} {digest[:16]}"
        return f"another item of the {text}, seed {self.seed}," if self.is_drawn else text


def values_of(recording: Recording, what: str) -> xr.DataArray:
    """The coefficients that a recording holds (item, language, layer, neuron).

    Args:
        recording: the recording.
        what: what errors call it.

    Raises:
        NeuroglotError: the recording is of another site or position, or holds no values.
    """
    site = recording.attrs["site"]
    if site != "coefficient":
        raise NeuroglotError(
            f"{what} holds values of the site {site!r}, expected those of 'coefficient'; record it "
            "with site='coefficient' and keep_values=True."
        )
    if recording.attrs["position"] != "last":
        raise NeuroglotError(
            f"{what} holds the largest values over all prompt tokens; record it with "
            "position='last'."
        )
    return recording.values


def _key(prompt: Any) -> Prompt:
    """The item and the language of a prompt, without what may follow them."""
    return str(prompt[0]), str(prompt[1])


def _relations(task: ParallelTask | None) -> dict[str, str]:
    """The relation of each item."""
    if task is None:
        raise NeuroglotError("task= is needed, which gives the relation of each item.")
    return {str(item["id"]): str(item["relation"] or "") for item in task.items}


def _relation_of(item: str, relations: dict[str, str]) -> str:
    if not relations.get(item):
        raise NeuroglotError(f"the task gives no relation for the item {item!r}.")
    return relations[item]
