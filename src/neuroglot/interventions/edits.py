"""Edits: changes of the coefficients of neurons, or other units, while a model runs."""

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
    """A change of the coefficients of the neurons of a set.

    Attributes:
        neurons: the neurons whose coefficients change.
        position: the tokens at which they change, see :func:`edit`; by default those of the block
            in which the edit is made.
        contents: the coefficients of other prompts, for edits that use such.
        draw_of: which draw of :attr:`contents` each prompt gets, by prompt; by default the first.
    """

    neurons: NeuronSet
    position: EditPosition | None = field(default=None, kw_only=True)

    contents: Contents | None = field(default=None, init=False, repr=False)
    draw_of: Mapping[Any, int] = field(default_factory=dict, init=False, repr=False)

    @abstractmethod
    def new(self, layer: int, values: Tensor, given: Tensor | None) -> Tensor:
        """The new coefficients (token, unit, …) of all units of a layer.

        Args:
            layer: the number of the layer.
            values: the present coefficients (token, unit, …).
            given: the coefficients (token, neuron) from :attr:`contents`, if there are any.
        """

    def on(self, neurons: NeuronSet, draw_of: Mapping[Any, int]) -> Self:
        """The same edit of other neurons; what was computed for :attr:`contents` is kept."""
        edit = copy.copy(self)
        object.__setattr__(edit, "neurons", neurons)
        object.__setattr__(edit, "draw_of", draw_of)
        return edit

    def check(self, model: Model) -> None:
        """Refuse an edit that cannot be made to the model.

        Raises:
            NeuroglotError: the neurons or their new coefficients do not fit the model.
        """
        if not isinstance(self.neurons, NeuronSet):
            raise NeuroglotError(f"an edit needs a NeuronSet, found {type(self.neurons).__name__}.")
        self.neurons.check_fits(model)
        if self.contents is not None:
            if self.neurons.unit != FFN:
                raise NeuroglotError(
                    f"{type(self).__name__} uses recorded coefficients, which exist for {FFN} "
                    f"only, but {self.neurons.name!r} is of {self.neurons.unit}."
                )
            self.contents.check(model)

    @property
    @abstractmethod
    def what(self) -> str:
        """A description of the change for the provenance, without the neurons."""

    def __str__(self) -> str:
        return f"{self.what} {self.neurons.name} ({self.neurons.checksum})"


@dataclass(frozen=True, eq=False)
class Zero(Edit):
    """Switch neurons off: set their coefficients to zero.

    Attributes:
        neurons: the neurons that are switched off.
        position: the tokens at which they are, see :func:`edit`.

    Examples:
        >>> import numpy as np
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=2)
        >>> everything = ng.NeuronSet(np.ones((model.n_layers, model.n_neurons), bool), "all")
        >>> plain = ng.evaluate(model, task)
        >>> with ng.edit(model, ng.Zero(everything)):
        ...     edited = ng.evaluate(model, task)
        >>> bool(edited["margin"].mean() < plain["margin"].mean())
        True
    """

    what = "zero"

    def new(self, _layer: int, values: Tensor, _given: Tensor | None) -> Tensor:
        """Zeros."""
        return torch.zeros_like(values)


@dataclass(frozen=True, eq=False)
class Scale(Edit):
    """Multiply coefficients by a factor: amplify them with one above 1, weaken with one below.

    Attributes:
        neurons: the neurons whose coefficients are multiplied.
        factor: the factor, any finite number.
        position: the tokens at which they are, see :func:`edit`.

    Examples:
        >>> import numpy as np
        >>> import neuroglot as ng
        >>> print(ng.Scale(ng.NeuronSet(np.array([[True, False]])), 1.5).what)
        scale by 1.5
    """

    factor: float

    def __post_init__(self) -> None:
        require_finite("factor", self.factor)

    def new(self, _layer: int, values: Tensor, _given: Tensor | None) -> Tensor:
        """The present coefficients times the factor."""
        return values * self.factor

    @property
    def what(self) -> str:
        """See :class:`Edit`."""
        return f"scale by {float(self.factor)!r}"


@dataclass(frozen=True, eq=False)
class SetTo(Edit):
    """Set all coefficients to one value.

    Attributes:
        neurons: the neurons whose coefficients are set.
        value: the value, any finite number.
        position: the tokens at which they are, see :func:`edit`.

    Examples:
        >>> import numpy as np
        >>> import neuroglot as ng
        >>> print(ng.SetTo(ng.NeuronSet(np.array([[True, False]])), 2).what)
        set to 2.0
    """

    value: float

    def __post_init__(self) -> None:
        require_finite("value", self.value)

    def new(self, _layer: int, values: Tensor, _given: Tensor | None) -> Tensor:
        """The value."""
        return torch.full_like(values, self.value)

    @property
    def what(self) -> str:
        """See :class:`Edit`."""
        return f"set to {float(self.value)!r}"


@dataclass(frozen=True, eq=False)
class Add(Edit):
    """Add one value to all coefficients, or a value of its own to each neuron's.

    Attributes:
        neurons: the neurons whose coefficients change.
        value: one number, or one for each neuron (layer, neuron).
        position: the tokens at which they change, see :func:`edit`.

    Examples:
        >>> import numpy as np
        >>> import neuroglot as ng
        >>> print(ng.Add(ng.NeuronSet(np.array([[True, False]])), -0.5).what)
        add -0.5 to
    """

    value: float | xr.DataArray | Scores

    def __post_init__(self) -> None:
        if not np.isfinite(np.asarray(self.value, dtype=float)).all():
            raise NeuroglotError("value= holds a number that is not finite.")

    def check(self, model: Model) -> None:
        """Also refuse values that have another shape than the model's neurons.

        Raises:
            NeuroglotError: the neurons or the values do not fit the model.
        """
        super().check(model)
        shape = self.neurons.members.shape
        if np.shape(self.value) not in ((), shape):
            raise NeuroglotError(
                f"value= is of shape {np.shape(self.value)}, expected one number or {shape} "
                "(layer, neuron)."
            )

    def new(self, layer: int, values: Tensor, _given: Tensor | None) -> Tensor:
        """The present coefficients plus the value."""
        added = np.asarray(self.value, dtype=np.float32)
        of_layer = np.array(added[layer, : values.shape[1]] if added.ndim else added)
        terms = torch.from_numpy(of_layer).to(values.device, values.dtype)
        return values + _by_unit(terms, values)

    @property
    def what(self) -> str:
        """See :class:`Edit`."""
        if np.ndim(self.value):
            digest = hashlib.sha256(np.asarray(self.value, np.float32).tobytes()).hexdigest()
            return f"add the values {digest[:16]} to"
        return f"add {float(self.value)!r} to"


class _FromElsewhere(Edit):
    """Give neurons the coefficients that :attr:`contents` says."""

    def new(self, _layer: int, _values: Tensor, given: Tensor | None) -> Tensor:
        """The given coefficients."""
        assert given is not None
        return given


@dataclass(frozen=True, eq=False)
class MeanAblate(_FromElsewhere):
    """Set the coefficient of each neuron to its mean over recorded prompts.

    A prompt that is the only one of its group keeps its coefficients, which are their own mean.

    Attributes:
        neurons: the neurons whose coefficients are set.
        reference: a recording with ``site="coefficient"`` and ``keep_values=True``, from which the
            means over items and languages are computed; or the means themselves (layer, neuron).
        within: the group of recorded prompts over which the mean of each prompt is taken: those of
            the same ``"language"``, of the same ``"relation"``, or of ``"both"``; by default all.
        task: the task that gives the relation of each item, if relations matter.
        position: the tokens at which they are set, see :func:`edit`.

    Examples:
        >>> import numpy as np
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=2)
        >>> reading = ng.Reading(site="coefficient", keep_values=True)
        >>> recording = ng.record(model, task, reading=reading)
        >>> neurons = ng.NeuronSet(np.eye(model.n_layers, model.n_neurons, dtype=bool), "a few")
        >>> ablation = ng.MeanAblate(neurons, recording, within="language")
        >>> ablation.what.partition(" of ")[2]
        'prompts of the same language'
    """

    reference: Recording | xr.DataArray | Scores
    within: str | None = None
    task: ParallelTask | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "contents", Means(self.reference, self.within, self.task))

    @property
    def what(self) -> str:
        """See :class:`Edit`."""
        return f"set to {self.contents}"


@dataclass(frozen=True, eq=False)
class Patch(_FromElsewhere):
    """Set the coefficients of neurons to those at the last token of another prompt.

    A prompt that is its own source does not change. If there is no other item to draw from,
    outcomes are missing for the prompt.

    Attributes:
        neurons: the neurons whose coefficients are set.
        source: a recording with ``site="coefficient"`` and ``keep_values=True``, at the position
            ``"last"``.
        of: the prompt from which the coefficients come: ``("item", "language")`` for a named one,
            a language such as ``"de"`` for the same item in that language, or ``"relation"`` or
            ``"task"`` for another item in the prompt's own language, which is drawn at random from
            the same relation or from the whole task.
        task: the task that gives the relation and the subject of each item; needed if ``of`` is
            ``"relation"``. If it is given, no item of the same subject is drawn.
        seed: the seed of the draws.
        draws: the number of other items that are drawn for each prompt. An outcome has an arm for
            each draw, and :func:`neuroglot.effects` takes their mean; :func:`edit` uses the first.
        position: the tokens at which they are set, see :func:`edit`; by default the last of the
            prompt.

    Examples:
        >>> import numpy as np
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=2)
        >>> reading = ng.Reading(site="coefficient", keep_values=True)
        >>> recording = ng.record(model, task, reading=reading)
        >>> everything = ng.NeuronSet(np.ones((model.n_layers, model.n_neurons), bool), "all")
        >>> plain = ng.evaluate(model, task)
        >>> with ng.edit(model, ng.Patch(everything, recording, "en")):
        ...     patched = ng.evaluate(model, task)
        >>> same = patched["choice"] == plain["choice"]
        >>> bool(same.sel(language="en").all())  # English prompts are their own sources
        True
    """

    source: Recording
    of: str | tuple[str, str] = "relation"
    task: ParallelTask | None = None
    seed: int = 0
    draws: int = 1
    position: EditPosition | None = field(default="last", kw_only=True)

    def __post_init__(self) -> None:
        drawn = Draw(self.source, self.of, self.task, self.seed, self.draws)
        object.__setattr__(self, "contents", drawn)

    @property
    def what(self) -> str:
        """See :class:`Edit`."""
        return f"patch {self.contents} into"


EDITS = ("Zero", "Scale", "SetTo", "Add", "MeanAblate", "Patch")


@contextmanager
def edit(
    model: Model, edits: Edit | Sequence[Edit], *, position: str = "answer"
) -> Iterator[Model]:
    """Edit coefficients of a model within a ``with`` block; its weights do not change.

    Blocks can be nested: an inner edit then gets the coefficients that the outer ones left. When a
    block ends, also by an exception, the model is restored bit for bit. Results that are made
    within a block say so in their provenance.

    Args:
        model: the model whose coefficients are edited.
        edits: one or several edits, which are made in order: ``ng.Zero(neurons)``,
            ``ng.Scale(neurons, factor)``, ``ng.SetTo(neurons, value)``, ``ng.Add(neurons, value)``,
            ``ng.MeanAblate(neurons, reference)``, ``ng.Patch(neurons, source)``.
        position: the tokens at which edits are made. ``"answer"``: the last token of the prompt and
            the tokens of the answer, given or written; ``"last"``: the last token of the prompt;
            ``"all"``: all tokens of both. If the model itself is called, all tokens count as the
            prompt's, unless the call comes with keys and values of earlier ones. An edit that has a
            ``position`` of its own is made there.

    Raises:
        NeuroglotError: a set does not fit the model, the position is unknown, or the hooks of the
            model do not fire, as after ``torch.compile``.

    Examples:
        >>> import numpy as np
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=2)
        >>> neurons = ng.NeuronSet(np.eye(model.n_layers, model.n_neurons, dtype=bool), "a few")
        >>> with ng.edit(model, ng.Scale(neurons, 2)):
        ...     answers = ng.evaluate(model, task)
        >>> "scale by 2.0 a few" in answers.attrs["edits"]
        True
    """
    chosen = check_edit_position(position)
    checked = checked_edits(edits, model)
    with model.ready():
        # Within another edit, the hooks are proven already, and its sets may be of prompts.
        if not model.running.edits:
            for unit in dict.fromkeys(one.neurons.unit for one in checked):
                model.units(unit).prove_hooks()
        n_before = model.running.n_passes
        with applied(model, checked, chosen):
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
    """One edit or several as a sequence, after each was checked.

    Raises:
        NeuroglotError: one is not an edit, or cannot be made to the model.
    """
    several: Sequence[Edit] = edits if isinstance(edits, Sequence) else [edits]
    for one in several:
        if not isinstance(one, Edit):
            raise NeuroglotError(f"{type(one).__name__} is not an edit; there are {listed(EDITS)}.")
        if one.position is not None:
            check_edit_position(one.position)
        one.check(model)
    return several


@contextmanager
def applied(
    model: Model, edits: Sequence[Edit], position: EditPosition, first_layer: int = 0
) -> Iterator[None]:
    """Make edits within a block, as :func:`edit` does, where everything was checked before.

    Args:
        model: the model whose coefficients are edited.
        edits: the edits, in order.
        position: the tokens at which edits are made, see :func:`edit`.
        first_layer: the first layer in which an edit may have neurons.
    """
    with ExitStack() as stack:
        for one in edits:
            at = one.position or position
            stack.enter_context(model.running.edited(f"{one} at {at}"))
            units, editor = model.units(one.neurons.unit), _token_editor(model, one, at)
            stack.enter_context(units.editing_tokens(editor, at, first_layer))
        yield


class _Held:
    """The neurons of an edit, and their coefficients, for the prompts that run at present."""

    def __init__(self, one: Edit) -> None:
        self.one = one
        self.prompts: tuple[Any, ...] | None = ()
        self.bits = np.zeros((0, 0, 0), np.uint8)
        self.given: Scores | None = None
        self.own = np.zeros(0, np.bool_)
        self.same: dict[tuple[int, Any], bool] = {}

    def see(self, prompts: Sequence[Any] | None) -> None:
        """Look these up for the prompts, unless the same prompts ran just before."""
        keys = None if prompts is None else tuple(prompts)
        if keys == self.prompts and self.bits.size:
            return
        neurons, contents = self.one.neurons, self.one.contents
        if keys is None and neurons.per_prompt:
            raise NeuroglotError(
                f"{neurons.name!r} has a set for each prompt, but what runs are no prompts of a "
                "task; use neuroglot.evaluate or neuroglot.record."
            )
        self.bits = neurons.bits_of(Prompts([("", "")] if keys is None else keys))
        if contents is not None:
            self.given, self.own = self._given(contents, keys)
        self.prompts = keys

    def stays(self, layer: int, far: Tensor, rows: Tensor, last: Tensor) -> Tensor:
        """Which tokens keep their coefficients because the prompt is its own source (token,).

        Prompts are compared by item and language, and a recorded prompt of the same names may have
        had another text. Whether it is the same prompt shows in the coefficients of its last token,
        and then holds for the tokens that follow.

        Args:
            layer: the number of the layer.
            far: whether given and present coefficients differ (token,).
            rows: the row of the prompt to which each token belongs (token,).
            last: whether the token is the last of its prompt (token,).
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
        """The coefficients (prompt or 1, layer, neuron), and which prompts keep their own."""
        draws = [self.one.draw_of.get(key, 0) for key in keys or ()]
        if keys is None or len(self.bits) != len(keys):
            return contents.of(keys, draws)
        # A prompt in which no neuron is edited may have no source.
        meant = np.flatnonzero(self.bits.any(axis=(1, 2)))
        given = np.zeros((len(keys), *self.one.neurons.members.shape), np.float32)
        own = np.zeros(len(keys), np.bool_)
        if len(meant):
            given[meant], own[meant] = contents.of(
                [keys[row] for row in meant], [draws[row] for row in meant]
            )
        return given, own


CLOSE = {torch.float32: 1e-3, torch.float64: 1e-6}  # relative to a layer's largest coefficient
CLOSE_ELSE = 0.1  # the same for other number types


def _by_unit(numbers: Tensor, values: Tensor) -> Tensor:
    """Numbers (…, unit) in a shape that fits coefficients (token, unit, …)."""
    return numbers.reshape([*numbers.shape, *[1] * (values.ndim - 2)])


def _token_editor(model: Model, one: Edit, at: EditPosition) -> TokenEditor:
    """The function that changes the coefficients of the tokens of a layer."""
    held, widths = _Held(one), one.neurons.widths

    def of_tokens(numbers: Scores, values: Tensor, rows: Tensor) -> Tensor:
        """Numbers (prompt or 1, unit) for each token, given the row of its prompt."""
        tensor = torch.from_numpy(numbers).to(values.device)
        return _by_unit(tensor.expand(1, -1) if len(tensor) == 1 else tensor[rows], values)

    def change(layer: int, values: Tensor, rows: Tensor) -> Tensor:
        held.see(model.running.prompts)
        mask = unpack(held.bits[:, layer], widths[layer]).astype(np.bool_)
        meant, given = of_tokens(mask, values, rows), None
        if held.given is not None:
            given = of_tokens(held.given[:, layer], values, rows).to(values.dtype)
        if given is not None and held.own.any():
            allowed = CLOSE.get(values.dtype, CLOSE_ELSE) * given.abs().amax(dim=1)
            far = (values - given).abs().amax(dim=1) > allowed
            last = model.running.tokens("last")[model.running.tokens(at)].to(values.device)
            meant = meant & ~held.stays(layer, far, rows, last)[:, None]
        return torch.where(meant, one.new(layer, values, given), values)

    return change
