"""What coefficients edits take from elsewhere: means over other prompts, or another prompt's."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
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
    """Coefficients that prompts get in place of their own."""

    n_draws: int = 1
    """How many there are for each prompt, drawn independently."""

    @abstractmethod
    def of(
        self, prompts: Sequence[Any] | None, draws: Sequence[int] | None = None
    ) -> tuple[Values, Own]:
        """Coefficients of some prompts.

        Args:
            prompts: item and language of each, and perhaps more; ``None`` where it is not known
                what runs.
            draws: which draw each of them gets, from 0; by default the first.

        Returns:
            Coefficients (prompt or 1, layer, neuron), and which prompts are to keep their own
            (prompt or 1,).

        Raises:
            NeuroglotError: there are none for one of the prompts.
        """

    def lacks(self, prompts: Sequence[Any]) -> Own:
        """Which prompts have none (prompt,), since there is no other prompt to take them from."""
        return np.zeros(len(prompts), np.bool_)

    @abstractmethod
    def check(self, model: Model) -> None:
        """Refuse a model of which these are not.

        Raises:
            NeuroglotError: it says what was found and what is expected.
        """


class Means(Contents):
    """Means over the prompts of a recording, all or those of a group."""

    def __init__(
        self,
        reference: Recording | xr.DataArray | np.ndarray[Any, Any],
        within: str | None,
        task: ParallelTask | None,
    ) -> None:
        """See :class:`neuroglot.MeanAblate`.

        Raises:
            NeuroglotError: unknown groups, groups of what is no recording, or relations that are
                not known.
        """
        if within is not None and within not in WITHIN:
            raise NeuroglotError(f"within={within!r}: there are {listed(WITHIN)}.")
        if within is not None and not isinstance(reference, Recording):
            raise NeuroglotError("within= needs a recording as the reference, not means.")
        self.reference, self.within = reference, within
        self.relations = _relations(task) if within in ("relation", "both") else {}
        self._known: dict[tuple[str, str], Values] = {}

    def of(
        self, prompts: Sequence[Any] | None, _draws: Sequence[int] | None = None
    ) -> tuple[Values, Own]:
        """Means of each prompt's group, the prompt itself among them, whichever the draw."""
        if self.within is None or prompts is None:
            if self.within is not None:
                raise NeuroglotError(
                    "means within a group are those of prompts of a task, but what runs are none; "
                    "use neuroglot.evaluate or neuroglot.record."
                )
            return self.all_means[None], np.zeros(1, np.bool_)
        groups = [self._group(prompt) for prompt in prompts]
        means = np.stack([self._mean(group) for group in groups])
        own = [self._members[group] == [(str(x[0]), str(x[1]))] for group, x in
               zip(groups, prompts, strict=True)]  # fmt: skip
        return means, np.array(own)

    @cached_property
    def all_means(self) -> Values:
        """Over all prompts (layer, neuron).

        Raises:
            NeuroglotError: a recording of another site, or without values.
        """
        if not isinstance(self.reference, Recording):
            return np.asarray(self.reference, dtype=np.float32)
        return values_of(self.reference, "the reference").mean(["item", "language"]).to_numpy()

    @cached_property
    def _members(self) -> dict[tuple[str, str], list[Prompt]]:
        """The recorded prompts of each group."""
        assert isinstance(self.reference, Recording)
        found: dict[tuple[str, str], list[Prompt]] = {}
        for item in self.reference.items:
            for language in self.reference.languages:
                found.setdefault(self._group((item, language)), []).append((item, language))
        return found

    def _group(self, prompt: Any) -> tuple[str, str]:
        """Relation and language of a prompt, as far as they matter."""
        item, language = str(prompt[0]), str(prompt[1])
        relation = ""
        if self.within in ("relation", "both"):
            relation = _relation_of(item, self.relations)
        return relation, "" if self.within == "relation" else language

    def _mean(self, group: tuple[str, str]) -> Values:
        if group not in self._members:
            said = " ".join(part for part in group if part)
            raise NeuroglotError(f"the reference holds no prompt of {said!r} to take means of.")
        if group not in self._known:
            assert isinstance(self.reference, Recording)
            values = values_of(self.reference, "the reference")
            prompts = self._members[group]
            items, languages = (list(dict.fromkeys(part)) for part in zip(*prompts, strict=True))
            here = values.sel(item=items, language=languages)
            self._known[group] = here.mean(["item", "language"]).to_numpy().astype(np.float32)
        return self._known[group]

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
    """Coefficients of another prompt: a named one, another language's, or a drawn item's."""

    def __init__(
        self,
        source: Recording,
        of: str | tuple[str, str],
        task: ParallelTask | None,
        seed: int,
        draws: int,
    ) -> None:
        """See :class:`neuroglot.Patch`.

        Raises:
            NeuroglotError: no recording, no such prompt or language, or relations that are not
                known.
        """
        require_recording(source, "source")
        for name, number, least in (("seed", seed, 0), ("draws", draws, 1)):
            if not is_whole_number(number, least):
                raise NeuroglotError(f"{name}={number!r}: expected a whole number from {least}.")
        self.source, self.which, self.seed = source, of, int(seed)
        self.n_draws = int(draws) if of in ("relation", "task") else 1
        self.relations = _relations(task) if of == "relation" else {}
        items = [] if task is None else task.items
        self._subjects = {str(item["id"]): subject_of(item) for item in items}
        if of not in ("relation", "task"):
            known = (of,) if isinstance(of, str) else (of[1],)
            if not set(known) <= set(source.languages) or not (
                isinstance(of, str) or of[0] in source.items
            ):
                raise NeuroglotError(
                    f"of={of!r}: expected 'relation', 'task', a recorded language "
                    f"({listed(source.languages)}) or a recorded prompt (item, language)."
                )

    def source_of(self, prompt: Any, draw: int = 0) -> Prompt:
        """Item and language whose coefficients a prompt gets in a draw.

        Raises:
            NeuroglotError: there is no other item to draw.
        """
        item, language = str(prompt[0]), str(prompt[1])
        if isinstance(self.which, tuple):
            return self.which[0], self.which[1]
        if self.which not in ("relation", "task"):
            return item, self.which
        others = self._others(item)
        if not others:
            where = "its relation" if self.which == "relation" else "the source"
            raise NeuroglotError(f"there is no other item than {item!r} in {where} to draw from.")
        rng = np.random.default_rng(seed_of(self.seed, str(draw), item, language))
        return others[int(rng.integers(len(others)))], language

    def _others(self, item: str) -> list[str]:
        """Items that one may be drawn from: of another subject, where the task says of which."""
        relation = _relation_of(item, self.relations) if self.which == "relation" else ""
        subject = self._subjects.get(item, item)
        alike = self._items.get(relation, ())
        return [x for x in alike if x != item and self._subjects.get(x, x) != subject]

    def lacks(self, prompts: Sequence[Any]) -> Own:
        """Those of an item that is alone in its relation."""
        if self.which not in ("relation", "task"):
            return super().lacks(prompts)
        return np.array([not self._others(str(prompt[0])) for prompt in prompts])

    @cached_property
    def _items(self) -> dict[str, list[str]]:
        """Recorded items by relation, or all together."""
        found: dict[str, list[str]] = {}
        for item in self.source.items:
            relation = self.relations.get(item, "") if self.which == "relation" else ""
            found.setdefault(relation, []).append(item)
        return found

    def of(
        self, prompts: Sequence[Any] | None, draws: Sequence[int] | None = None
    ) -> tuple[Values, Own]:
        """Coefficients of each prompt's source."""
        if prompts is None:
            if not isinstance(self.which, tuple):
                raise NeuroglotError(
                    "what is patched depends on the prompt, but what runs are no prompts of a "
                    "task; use neuroglot.evaluate or neuroglot.record, or name a prompt."
                )
            prompts, sources = [("", "")], [self.which]
        else:
            which = [0] * len(prompts) if draws is None else [x % self.n_draws for x in draws]
            sources = [self.source_of(*each) for each in zip(prompts, which, strict=True)]
        own = [(str(x[0]), str(x[1])) == source for x, source in
               zip(prompts, sources, strict=True)]  # fmt: skip
        unknown = [x for x in sources if x[0] not in self._place or x[1] not in self._place_of]
        if unknown:
            raise NeuroglotError(f"the source holds no prompt {shown(unknown[0])}.")
        values = values_of(self.source, "the source")
        different = sorted(set(sources))
        items = xr.DataArray([self._place[item] for item, _ in different], dims="prompt")
        languages = xr.DataArray([self._place_of[x] for _, x in different], dims="prompt")
        found = values.isel(item=items, language=languages).transpose("prompt", "layer", "neuron")
        rows = [different.index(source) for source in sources]
        return found.to_numpy().astype(np.float32)[rows], np.array(own)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {item: i for i, item in enumerate(self.source.items)}

    @cached_property
    def _place_of(self) -> dict[str, int]:
        return {language: i for i, language in enumerate(self.source.languages)}

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
        said = f"{which} of {attrs['task']} {digest[:16]}"
        if self.which in ("relation", "task"):
            return f"another item of the {said}, seed {self.seed},"
        return said


def values_of(recording: Recording, what: str) -> xr.DataArray:
    """Recorded coefficients (item, language, layer, neuron).

    Raises:
        NeuroglotError: a recording of another site, or without values.
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


def _relations(task: ParallelTask | None) -> dict[str, str]:
    """The relation of each item."""
    if task is None:
        raise NeuroglotError("within a relation, task= has to say which items are of which.")
    return {str(item["id"]): str(item["relation"] or "") for item in task.items}


def _relation_of(item: str, relations: dict[str, str]) -> str:
    found = relations.get(item, "")
    if not found:
        raise NeuroglotError(f"the task says no relation of item {item!r}.")
    return found
