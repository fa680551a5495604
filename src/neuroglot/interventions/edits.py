"""Edits of coefficients: what happens to the neurons of a set, or other units, as a model runs."""

from __future__ import annotations

import copy
import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neuroglot.errors import NeuroglotError, listed, require_finite
from neuroglot.interventions.contents import Contents, Draw, Means
from neuroglot.models.ffn import FFN
from neuroglot.models.hooks import TokenEditor
from neuroglot.models.model import Model
from neuroglot.models.running import EditPosition, check_edit_position
from neuroglot.models.state import refuse_compiled
from neuroglot.neurons.members import Prompts
from neuroglot.neurons.neuron_set import NeuronSet
from neuroglot.recording.recording import Recording
from neuroglot.sharing.bits import unpack
from neuroglot.tasks.parallel import ParallelTask

Scores = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Edit(ABC):
    """What happens to the coefficients of some neurons.

    Attributes:
        neurons: which: the same in every prompt, or each prompt's own.
        position: at which tokens, see :func:`edit`; by default where the others of the block are
            edited.
        draw_of: which draw of :attr:`contents` prompts get, by their keys; else the first.
    """

    neurons: NeuronSet
    position: EditPosition | None = field(default=None, kw_only=True)

    draw_of: Mapping[Any, int] = field(default_factory=dict, init=False, repr=False)

    @property
    def contents(self) -> Contents | None:
        """What says which values the prompts get, where they come from elsewhere."""
        return None

    @abstractmethod
    def new(self, layer: int, values: Tensor, given: Tensor | None) -> Tensor:
        """What coefficients (token, unit, …) of a layer become, were all units meant.

        Args:
            layer: which.
            values: what they are.
            given: those that :attr:`contents` gives (token, neuron), if there are any.
        """

    def on(self, neurons: NeuronSet, draw_of: Mapping[Any, int]) -> Self:
        """The same of other neurons; what was found of other prompts' coefficients is kept."""
        found = copy.copy(self)
        object.__setattr__(found, "neurons", neurons)
        object.__setattr__(found, "draw_of", draw_of)
        return found

    def check(self, model: Model) -> None:
        """Refuse what cannot be done to the model.

        Raises:
            NeuroglotError: the neurons, or what they get, are of a model of another shape.
        """
        if not isinstance(self.neurons, NeuronSet):
            raise NeuroglotError(f"an edit needs a NeuronSet, found {type(self.neurons).__name__}.")
        self.neurons.check_fits(model)
        if self.contents is not None:
            if self.neurons.unit != FFN:
                raise NeuroglotError(
                    f"{type(self).__name__} gives what was recorded, which is known of {FFN} only, "
                    f"but {self.neurons.name!r} is of {self.neurons.unit}."
                )
            self.contents.check(model)

    @property
    @abstractmethod
    def what(self) -> str:
        """What is done, without the neurons, for provenance."""

    def __str__(self) -> str:
        return f"{self.what} {self.neurons.name} ({self.neurons.checksum})"


@dataclass(frozen=True, eq=False)
class Zero(Edit):
    """Switch neurons off: their coefficients are zero."""

    def new(self, _layer: int, values: Tensor, _given: Tensor | None) -> Tensor:
        """Zeros."""
        return torch.zeros_like(values)

    @property
    def what(self) -> str:
        """As provenance says it."""
        return "zero"


@dataclass(frozen=True, eq=False)
class Scale(Edit):
    """Multiply coefficients by a factor: amplify above 1, weaken below."""

    factor: float

    def __post_init__(self) -> None:
        require_finite("factor", self.factor)

    def new(self, _layer: int, values: Tensor, _given: Tensor | None) -> Tensor:
        """Multiples."""
        return values * self.factor

    @property
    def what(self) -> str:
        """As provenance says it."""
        return f"scale by {float(self.factor)!r}"


@dataclass(frozen=True, eq=False)
class SetTo(Edit):
    """Give all coefficients one value."""

    value: float

    def __post_init__(self) -> None:
        require_finite("value", self.value)

    def new(self, _layer: int, values: Tensor, _given: Tensor | None) -> Tensor:
        """The value."""
        return torch.full_like(values, self.value)

    @property
    def what(self) -> str:
        """As provenance says it."""
        return f"set to {float(self.value)!r}"


@dataclass(frozen=True, eq=False)
class Add(Edit):
    """Add a value to all coefficients, or to each neuron its own.

    Attributes:
        value: one number, or numbers (layer, neuron).
    """

    value: float | xr.DataArray | Scores

    def __post_init__(self) -> None:
        if not np.isfinite(np.asarray(self.value, dtype=float)).all():
            raise NeuroglotError("value= holds what is no finite number.")

    def check(self, model: Model) -> None:
        """Also refuse numbers of another shape than the model's.

        Raises:
            NeuroglotError: it gives both shapes.
        """
        super().check(model)
        shape, found = self.neurons.members.shape, np.shape(self.value)
        if found not in ((), shape):
            raise NeuroglotError(
                f"value= is of shape {found}, expected one number or {shape} (layer, neuron)."
            )

    def new(self, layer: int, values: Tensor, _given: Tensor | None) -> Tensor:
        """Sums."""
        added = np.asarray(self.value, dtype=np.float32)
        here = torch.from_numpy(np.array(added[layer, : values.shape[1]] if added.ndim else added))
        return values + _by_unit(here.to(values.device, values.dtype), values)

    @property
    def what(self) -> str:
        """As provenance says it."""
        if np.ndim(self.value):
            return f"add the values {checksum_of(np.asarray(self.value, np.float32))} to"
        return f"add {float(self.value)!r} to"


class _FromElsewhere(Edit):
    """Give neurons the coefficients that their contents say."""

    _contents: Contents

    @property
    def contents(self) -> Contents:
        """What says which coefficients prompts get."""
        return self._contents

    def new(self, _layer: int, _values: Tensor, given: Tensor | None) -> Tensor:
        """What is given."""
        assert given is not None
        return given


@dataclass(frozen=True, eq=False)
class MeanAblate(_FromElsewhere):
    """Give every neuron its mean coefficient over recorded prompts.

    A prompt that is the only one of its group keeps its coefficients, which are their own mean.

    Attributes:
        reference: a recording with ``site="coefficient"`` and ``keep_values=True``, whose mean over
            items and languages is taken, or means (layer, neuron).
        within: over which prompts of the recording the mean is: of the same ``"language"``, of the
            same ``"relation"``, or of ``"both"``; by default all.
        task: says which relation the items of the recording, and of the prompts, are of.
    """

    reference: Recording | xr.DataArray | Scores
    within: str | None = None
    task: ParallelTask | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_contents", Means(self.reference, self.within, self.task))

    @property
    def what(self) -> str:
        """As provenance says it."""
        return f"set to {self.contents}"


@dataclass(frozen=True, eq=False)
class Patch(_FromElsewhere):
    """Give neurons the coefficients that they have in another prompt, at its last token.

    A prompt that is its own source stays as it is. Where there is no other item to draw from, an
    outcome has no value.

    Attributes:
        source: a recording with ``site="coefficient"`` and ``keep_values=True``, at the position
            ``"last"``.
        of: of which prompt the coefficients are: a named one, as ``("item", "language")``; another
            language of the item, as ``"de"``; or another item in the prompt's language, drawn from
            those of the same ``"relation"`` or of the whole ``"task"``.
        task: says which relation items are of, where one is drawn from a relation.
        seed: of what is drawn.
        draws: how many other items are drawn for each prompt, where one is. An outcome has an arm
            for each of them, and :func:`neuroglot.effects` takes their mean; elsewhere the first
            counts.
        position: at which tokens, see :func:`edit`.
    """

    source: Recording
    of: str | tuple[str, str] = "relation"
    task: ParallelTask | None = None
    seed: int = 0
    draws: int = 1
    position: EditPosition | None = field(default="last", kw_only=True)

    def __post_init__(self) -> None:
        drawn = Draw(self.source, self.of, self.task, self.seed, self.draws)
        object.__setattr__(self, "_contents", drawn)

    @property
    def what(self) -> str:
        """As provenance says it."""
        return f"patch {self.contents} into"


def checksum_of(values: Scores) -> str:
    """Tells numbers from others."""
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


EDITS = ("Zero", "Scale", "SetTo", "Add", "MeanAblate", "Patch")


@contextmanager
def edit(
    model: Model, edits: Edit | Sequence[Edit], *, position: str = "answer"
) -> Iterator[Model]:
    """Within the block, coefficients of the model are edited; its weights are never touched.

    Blocks may stand within each other, and an edit then gets what those around it left. Leaving
    one restores the model bit for bit, also after an exception. Results made within say so.

    Args:
        model: whose coefficients.
        edits: one or several, in order: ``ng.Zero(neurons)``, ``ng.Scale(neurons, factor)``,
            ``ng.SetTo(neurons, value)``, ``ng.Add(neurons, value)``,
            ``ng.MeanAblate(neurons, reference)``, ``ng.Patch(neurons, source)``.
        position: ``"answer"``: the last prompt token and the answer's tokens, given or written;
            ``"last"``: the last prompt token; ``"all"``: every token of both. Where the model
            itself is called, all tokens are a prompt's, unless keys and values of others come with
            them. An edit with a ``position`` of its own is done there.

    Raises:
        NeuroglotError: sets for a model of another shape, an unknown position, or a model whose
            hooks do not fire, as after ``torch.compile``.
    """
    chosen = check_edit_position(position)
    these = checked_edits(edits, model)
    with model.ready():
        # An edit around this one was proven already, and its sets may be of prompts of a task.
        if not model.running.edits:
            for unit in dict.fromkeys(one.neurons.unit for one in these):
                model.units(unit).prove_hooks()
        n_before = model.running.n_passes
        with applied(model, these, chosen):
            yield model
        if model.running.n_passes == n_before:
            warnings.warn(
                f"no forward pass of {model.name!r} ran within this block of neuroglot.edit, so "
                "nothing was edited. A copy of the model, or one that torch.compile made of it, "
                "does not know of the edit.",
                stacklevel=3,
            )
        refuse_compiled(model.hf)


def checked_edits(edits: Edit | Sequence[Edit], model: Model) -> Sequence[Edit]:
    """Edits as a list.

    Raises:
        NeuroglotError: one is none, or cannot be done to the model.
    """
    these: Sequence[Edit] = edits if isinstance(edits, Sequence) else [edits]
    for one in these:
        if not isinstance(one, Edit):
            raise NeuroglotError(f"{type(one).__name__} is no edit; there are {listed(EDITS)}.")
        if one.position is not None:
            check_edit_position(one.position)
        one.check(model)
    return these


@contextmanager
def applied(
    model: Model, edits: Sequence[Edit], position: EditPosition, first_layer: int = 0
) -> Iterator[None]:
    """As :func:`edit`, of a model and edits that were checked before.

    Args:
        model: whose coefficients.
        edits: in order.
        position: see :func:`edit`.
        first_layer: before which no edit has neurons.
    """
    with ExitStack() as stack:
        for one in edits:
            at = one.position or position
            stack.enter_context(model.running.edited(f"{one} at {at}"))
            editor = _token_editor(model, one, at)
            stack.enter_context(
                model.units(one.neurons.unit).editing_tokens(editor, at, first_layer)
            )
        yield


class _Held:
    """What an edit says of the prompts that run at the moment."""

    def __init__(self, one: Edit) -> None:
        self.one = one
        self.prompts: tuple[Any, ...] | None = ()
        self.bits = np.zeros((0, 0, 0), np.uint8)
        self.given: Scores | None = None
        self.own = np.zeros(0, np.bool_)
        self.same: dict[tuple[int, Any], bool] = {}

    def see(self, prompts: Sequence[Any] | None) -> None:
        """Look it up, unless these ran just before."""
        keys = None if prompts is None else tuple(prompts)
        if keys == self.prompts and self.bits.size:
            return
        neurons, contents = self.one.neurons, self.one.contents
        if prompts is None and neurons.per_prompt:
            raise NeuroglotError(
                f"{neurons.name!r} has a set for each prompt, but what runs are no prompts of a "
                "task; use neuroglot.evaluate or neuroglot.record."
            )
        self.bits = neurons.bits_of(Prompts([("", "")] if keys is None else keys))
        if contents is not None:
            self.given, self.own = self._given(contents, keys)
        self.prompts = keys

    def stays(self, layer: int, far: Tensor, rows: Tensor, last: Tensor) -> Tensor:
        """Which tokens keep what they have, since a prompt is its own source (token,).

        A source goes by item and language, and may be a prompt of other words under the same names.
        Whether it is the same shows at the prompt's last token, and holds for what follows it.

        Args:
            layer: which.
            far: whether what is given differs from what is there (token,).
            rows: of the tokens, which are of these prompts.
            last: which tokens are the last of their prompts (token,).
        """
        assert self.prompts is not None
        for row, is_far, is_last in zip(rows.tolist(), far.tolist(), last.tolist(), strict=True):
            if is_last:
                self.same[layer, self.prompts[row]] = not is_far
        stay = [
            bool(own) and self.same.get((layer, prompt), True)
            for own, prompt in zip(self.own, self.prompts, strict=True)
        ]
        return torch.tensor(stay, device=rows.device)[rows]

    def _given(self, contents: Contents, keys: tuple[Any, ...] | None) -> tuple[Scores, Scores]:
        """What prompts are given (prompt, layer, neuron), and which keep their own (prompt,)."""
        if keys is None:
            return contents.of(None)
        draws = [self.one.draw_of.get(key, 0) for key in keys]
        if len(self.bits) != len(keys):
            return contents.of(keys, draws)
        # What nothing is given to may have nowhere to take it from.
        meant = np.flatnonzero(self.bits.any(axis=(1, 2)))
        given = np.zeros((len(keys), *self.one.neurons.members.shape), np.float32)
        own = np.zeros(len(keys), np.bool_)
        if len(meant):
            some = contents.of([keys[row] for row in meant], [draws[row] for row in meant])
            given[meant], own[meant] = some
        return given, own


CLOSE = {torch.float32: 1e-3, torch.float64: 1e-6}  # of the largest coefficient of a layer
CLOSE_ELSE = 0.1  # in other number types


def _are_far(values: Tensor, given: Tensor) -> Tensor:
    """Whether coefficients (token, neuron) differ by more than rounding (token,)."""
    allowed = CLOSE.get(values.dtype, CLOSE_ELSE) * given.abs().amax(dim=1)
    return (values - given).abs().amax(dim=1) > allowed


def _by_unit(found: Tensor, values: Tensor) -> Tensor:
    """What is (…, unit), for values (token, unit, …)."""
    return found.reshape([*found.shape, *[1] * (values.ndim - 2)])


def _token_editor(model: Model, one: Edit, at: EditPosition) -> TokenEditor:
    held, widths = _Held(one), one.neurons.widths

    def of_rows(found: Scores, values: Tensor, rows: Tensor) -> Tensor:
        here = torch.from_numpy(found).to(values.device)
        return _by_unit(here.expand(1, -1) if len(here) == 1 else here[rows], values)

    def change(layer: int, values: Tensor, rows: Tensor) -> Tensor:
        held.see(model.running.prompts)
        meant = of_rows(unpack(held.bits[:, layer], widths[layer]).astype(np.bool_), values, rows)
        if held.given is None:
            return torch.where(meant, one.new(layer, values, None), values)
        given = of_rows(held.given[:, layer], values, rows).to(values.dtype)
        if held.own.any():
            running = model.running
            last = running.tokens("last")[running.tokens(at)].to(values.device)
            meant = meant & ~held.stays(layer, _are_far(values, given), rows, last)[:, None]
        return torch.where(meant, one.new(layer, values, given), values)

    return change
