"""Questions that forward passes of a few tokens answer about a model and its layers.

What is tried on a model is done to one row of a batch each, so that all of it takes one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError
from neuroglot.models.forward import run_logits
from neuroglot.models.hooks import Editor, editing, on_input, on_output, reading
from neuroglot.models.sites import FFNSite, down_widths
from neuroglot.models.structure import inlets

N_PROBE_TOKENS = 4
# Coefficients are scaled by this to tell whether a norm follows: the network's output then stands
# out from the residual stream, and rounding does not.
SCALE = 16.0
ROUNDING = 1e-5  # less than what the smallest weights let through


def input_device(hf: PreTrainedModel) -> torch.device:
    """Where inputs go: where the embeddings are, or are brought to when they are needed."""
    embeddings = hf.get_input_embeddings()
    found = next(embeddings.parameters()).device
    if found.type != "meta":
        return found
    # Accelerate keeps them elsewhere.
    device = getattr(getattr(embeddings, "_hf_hook", None), "execution_device", None)
    if device is None:
        raise NeuroglotError(
            f"the embeddings of {type(hf).__name__} have no values (device 'meta'); load the "
            "model with its weights."
        )
    return torch.device(device)


def probe_ids(hf: PreTrainedModel, shift: int = 0) -> Tensor:
    """A few different token ids (1, position), none of them the padding's."""
    config = hf.config.get_text_config()
    vocabulary = int(config.vocab_size)
    # Spread out: the first ids are often padding and unused tokens, with embeddings of zero.
    step = max(1, vocabulary // (N_PROBE_TOKENS + 1))
    ids = torch.arange(1, N_PROBE_TOKENS + 1, device=input_device(hf))[None] * step
    ids = (ids + shift) % vocabulary
    padding = getattr(config, "pad_token_id", None)
    return torch.where(ids == padding, (ids + 1) % vocabulary, ids) if padding is not None else ids


def probe_logits(hf: PreTrainedModel, ids: Tensor | None = None) -> Tensor:
    """Logits (prompt, position, token) of unpadded token ids, by default the probe's."""
    ids = probe_ids(hf) if ids is None else ids
    return run_logits(hf, ids, torch.ones_like(ids, dtype=torch.bool))


def relative_change(before: Tensor, after: Tensor) -> float:
    """How far ``after`` is from ``before``, relative to its size; NaN if either holds NaN."""
    before, after = before.float(), after.float()
    return float((after - before).norm() / before.norm().clamp(min=1e-12))


What = Literal["nothing", "no gates", "other input", "scaled"]


@dataclass(frozen=True)
class Trial:
    """What is done to a model, and seen of it.

    Attributes:
        what: ``"no gates"`` sets the gates of all layers to zero, ``"other input"`` changes what
            goes into one feed-forward network at the first position, and ``"scaled"`` multiplies
            its coefficients.
        site: the network; all of them for ``"no gates"``.
        factor: what coefficients are multiplied with.
    """

    what: What = "nothing"
    site: FFNSite | None = None
    factor: float = 1.0

    @property
    def undone(self) -> Trial:
        """The same to be seen, with nothing done."""
        return replace(self, what="nothing")


@dataclass
class Seen:
    """What the model did in a trial, on the probe.

    Attributes:
        logits: (position, token).
        coefficients: of the trial's network (position, neuron), before they are scaled; empty
            where it never fires.
        output: of the layer that holds the network (position, d_model).
        largest: the largest size of any coefficient of each layer.
    """

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    coefficients: Tensor = field(default_factory=lambda: torch.empty(0))
    output: Tensor = field(default_factory=lambda: torch.empty(0))
    largest: dict[int, float] = field(default_factory=dict)


Rows = dict[int, Callable[[Tensor], Tensor]]
"""What becomes of some rows (position, width) of a batch."""


@torch.inference_mode()
def run_trials(
    hf: PreTrainedModel,
    sites: Sequence[FFNSite],
    trials: Sequence[Trial],
    ids: Tensor | None = None,
) -> list[Seen]:
    """One forward pass with as many rows as there are trials.

    Args:
        hf: the model.
        sites: of all layers, for what concerns all of them.
        trials: one a row.
        ids: of each row (row, position); by default the probe in all of them.
    """
    rows = probe_ids(hf).expand(len(trials), -1) if ids is None else ids
    seen = [Seen() for _ in trials]
    with ExitStack() as stack:
        # What is read must be read before it is scaled.
        for row, trial in enumerate(trials):
            if trial.site is not None:
                _watch(stack, trial.site, seen[row], row, len(trials))
        _take_gates(stack, sites, trials, seen)
        for row, trial in enumerate(trials):
            if trial.what == "other input" and trial.site is not None:
                for module in inlets(hf, trial.site.path, trial.site.block):
                    other = _in_rows(len(trials), {row: _other_first})
                    stack.enter_context(on_input(module, other))
        _scale(stack, trials)
        logits = probe_logits(hf, rows)
    for row, one in enumerate(seen):
        one.logits = logits[row]
    return seen


def _in_rows(n_rows: int, changes: Rows) -> Callable[[Tensor], Tensor]:
    """Change some rows of a batch, also where a layer has flattened it."""

    def change(values: Tensor) -> Tensor:
        by_row = values.reshape(n_rows, N_PROBE_TOKENS, -1).clone()
        for row, edit in changes.items():
            by_row[row] = edit(by_row[row])
        return by_row.reshape(values.shape)

    return change


def _other_first(hidden: Tensor) -> Tensor:
    return torch.cat([hidden[:1] + 1, hidden[1:]])


def _watch(stack: ExitStack, site: FFNSite, seen: Seen, row: int, n_rows: int) -> None:
    """Note coefficients of one network, and the output of its layer, in one row."""

    def read(_layer: int, values: Tensor) -> None:
        found = values.reshape(n_rows, -1, site.n_neurons)[row]
        seen.coefficients = torch.cat([seen.coefficients, found.float().cpu()])

    def see(output: Tensor) -> None:
        seen.output = output.reshape(n_rows, N_PROBE_TOKENS, -1)[row].float()

    seen.coefficients = torch.empty(0, site.n_neurons)
    stack.enter_context(reading([site.place("coefficient")], read))
    stack.enter_context(on_output(site.block, see))


def _take_gates(
    stack: ExitStack, sites: Sequence[FFNSite], trials: Sequence[Trial], seen: Sequence[Seen]
) -> None:
    """Set the gates of all layers to zero in the rows that want it, and note coefficients there."""
    without = [row for row, trial in enumerate(trials) if trial.what == "no gates"]
    if not without:
        return

    def read(layer: int, values: Tensor) -> None:
        for row in without:
            seen[row].largest[layer] = float(values[row].abs().max())

    zeroed = _in_rows(len(trials), dict.fromkeys(without, torch.zeros_like))
    for site in sites:
        if site.activation is not None:
            stack.enter_context(on_output(site.activation, zeroed))
    stack.enter_context(reading([site.place("coefficient") for site in sites], read))


def _scale(stack: ExitStack, trials: Sequence[Trial]) -> None:
    """Multiply the coefficients of the networks, each in the rows that want it."""
    scaled: dict[FFNSite, Rows] = {}
    for row, trial in enumerate(trials):
        if trial.what == "scaled" and trial.site is not None:
            scaled.setdefault(trial.site, {})[row] = partial(torch.mul, other=trial.factor)
    for site, rows in scaled.items():
        stack.enter_context(
            editing([site.place("coefficient")], _of_any_layer(_in_rows(len(trials), rows)))
        )


def _of_any_layer(change: Callable[[Tensor], Tensor]) -> Editor:
    return lambda _layer, values: change(values)


def not_feed_forward(
    hf: PreTrainedModel, site: FFNSite, before: Seen, after: Seen, tolerance: float
) -> str | None:
    """Why a linear map is not the down projection of a feed-forward network, or ``None``.

    What goes into the network at the first position was changed. That must change the coefficients
    there, and nowhere else: attention and state-space layers mix positions.

    Args:
        hf: a Hugging Face decoder.
        site: the linear map in question.
        before: what was seen of it on the probe.
        after: what was seen with another input.
        tolerance: relative change that rounding explains.
    """
    if not inlets(hf, site.path, site.block):
        n, d_model = down_widths(site.down)
        return f"no linear map from {d_model} to {n} or {2 * n} in its layer feeds it"
    one, other = before.coefficients, after.coefficients
    if len(one) != N_PROBE_TOKENS:
        return f"it saw {len(one)} positions of {N_PROBE_TOKENS}"
    if relative_change(one[1:], other[1:]) > tolerance:
        return "it mixes positions, as attention and state-space layers do"
    if not relative_change(one[:1], other[:1]) > tolerance:
        return "the linear maps beside it do not feed it"
    return None


# The coefficients of a network are multiplied with these to tell whether a norm follows it.
FACTORS = (0.0, SCALE, 2 * SCALE)


def norm_follows(hf: PreTrainedModel, site: FFNSite, outputs: Sequence[Tensor]) -> bool:
    """Whether a norm stands between the FFN and the output of its layer.

    Without one, the layer's output is linear in the coefficients.

    Args:
        hf: a Hugging Face decoder.
        site: the network.
        outputs: of its layer (position, d_model), under each of :data:`FACTORS`.

    Raises:
        NeuroglotError: the layer's output is nowhere finite.
    """
    once, twice = outputs[1] - outputs[0], outputs[2] - outputs[0]
    errors = (twice - 2 * once).norm(dim=-1) / (2 * once).norm(dim=-1)
    errors = errors[errors.isfinite()]
    if not len(errors):
        raise NeuroglotError(
            f"with the coefficients of {site.path} at {2 * SCALE:g} times their size, its layer "
            "gives NaN or infinity; load the model with dtype='float32' or 'bfloat16'."
        )
    # A half where the norm divides by nothing else; rounding gives per cents in half precision.
    return bool(errors.median() > max(0.01, torch.finfo(hf.dtype).eps ** 0.5))
