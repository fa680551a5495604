"""Trials of a model and its layers, in forward passes of a few tokens.

Each trial is done to one row of a batch, so that all of them take a single pass.
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
from neuroglot.models.hooks import on_input, on_output, reading
from neuroglot.models.sites import FFNSite, down_widths
from neuroglot.models.structure import inlets

N_PROBE_TOKENS = 4
# Coefficients are scaled by this to tell whether a norm follows: the network's output then clearly
# exceeds rounding errors of the residual stream.
SCALE = 16.0
ROUNDING = 1e-5  # a smaller relative change is rounding, not an effect of weights


def input_device(hf: PreTrainedModel) -> torch.device:
    """The device of inputs: that of the embeddings, also if Accelerate loads them on demand.

    Raises:
        NeuroglotError: the embeddings have no values anywhere.
    """
    embeddings = hf.get_input_embeddings()
    own = next(embeddings.parameters()).device
    if own.type != "meta":
        return own
    device = getattr(getattr(embeddings, "_hf_hook", None), "execution_device", None)
    if device is None:
        raise NeuroglotError(
            f"the embeddings of {type(hf).__name__} have no values (device 'meta'); load the "
            "model with its weights."
        )
    return torch.device(device)


def probe_ids(hf: PreTrainedModel, shift: int = 0) -> Tensor:
    """A few different token ids (1, position), none of them padding.

    Args:
        hf: the model.
        shift: added to all ids, for other tokens.
    """
    config = hf.config.get_text_config()
    vocabulary = int(config.vocab_size)
    # They are spread out: the first ids are often unused tokens, with embeddings of zero.
    step = max(1, vocabulary // (N_PROBE_TOKENS + 1))
    ids = torch.arange(1, N_PROBE_TOKENS + 1, device=input_device(hf))[None] * step
    ids = (ids + shift) % vocabulary
    padding = getattr(config, "pad_token_id", None)
    return torch.where(ids == padding, (ids + 1) % vocabulary, ids) if padding is not None else ids


def probe_logits(hf: PreTrainedModel, ids: Tensor | None = None) -> Tensor:
    """Logits (prompt, position, token) for token ids without padding; by default the probe."""
    ids = probe_ids(hf) if ids is None else ids
    return run_logits(hf, ids, torch.ones_like(ids, dtype=torch.bool))


def relative_change(before: Tensor, after: Tensor) -> float:
    """Norm of the difference, relative to the norm of ``before``; NaN if either contains NaN."""
    before, after = before.float(), after.float()
    return float((after - before).norm() / before.norm().clamp(min=1e-12))


What = Literal["nothing", "no gates", "other input", "scaled"]


@dataclass(frozen=True)
class Trial:
    """A change that is tried on a model.

    Attributes:
        what: ``"no gates"`` sets the gates of all layers to zero, ``"other input"`` changes the
            input of one feed-forward network at the first position, and ``"scaled"`` multiplies its
            coefficients.
        site: the network, whose activations are also observed; ``None`` for all networks.
        factor: factor of the coefficients.
    """

    what: What = "nothing"
    site: FFNSite | None = None
    factor: float = 1.0

    @property
    def undone(self) -> Trial:
        """A trial that observes the same network but changes nothing."""
        return replace(self, what="nothing")


@dataclass
class Seen:
    """What was observed in a trial, on the probe.

    Attributes:
        logits: logits (position, token).
        coefficients: coefficients of the trial's network (position, neuron), before they are
            scaled; empty if it never fires.
        output: output of the layer that contains the network (position, d_model).
        largest: the largest absolute coefficient of each layer.
    """

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    coefficients: Tensor = field(default_factory=lambda: torch.empty(0))
    output: Tensor = field(default_factory=lambda: torch.empty(0))
    largest: dict[int, float] = field(default_factory=dict)


Rows = dict[int, Callable[[Tensor], Tensor]]
"""Functions that change rows (position, width) of a batch, by row."""


@torch.inference_mode()
def run_trials(
    hf: PreTrainedModel,
    sites: Sequence[FFNSite],
    trials: Sequence[Trial],
    ids: Tensor | None = None,
) -> list[Seen]:
    """Run all trials in one forward pass, with one row per trial.

    Args:
        hf: the model.
        sites: the networks of all layers, for trials that concern all of them.
        trials: the trial of each row.
        ids: tokens of each row (row, position); by default the probe in all rows.
    """
    rows = probe_ids(hf).expand(len(trials), -1) if ids is None else ids
    seen = [Seen() for _ in trials]
    with ExitStack() as stack:
        # Reading hooks come first, so that values are read before they are scaled.
        for row, trial in enumerate(trials):
            if trial.site is not None:
                _watch(stack, trial.site, seen[row], row, len(trials))
        _take_gates(stack, sites, trials, seen)
        for row, trial in enumerate(trials):
            if trial.what == "other input" and trial.site is not None:
                other = _in_rows(len(trials), {row: _other_first})
                for module in inlets(hf, trial.site.path, trial.site.block):
                    stack.enter_context(on_input(module, other))
        _scale(stack, trials)
        logits = probe_logits(hf, rows)
    for row, observed in enumerate(seen):
        observed.logits = logits[row]
    return seen


def _in_rows(n_rows: int, changes: Rows) -> Callable[[Tensor], Tensor]:
    """A function that changes some rows of a batch, even if a layer has flattened it."""

    def change(values: Tensor) -> Tensor:
        by_row = values.reshape(n_rows, N_PROBE_TOKENS, -1).clone()
        for row, edit in changes.items():
            by_row[row] = edit(by_row[row])
        return by_row.reshape(values.shape)

    return change


def _other_first(hidden: Tensor) -> Tensor:
    """Change the hidden state (position, width) at the first position."""
    return torch.cat([hidden[:1] + 1, hidden[1:]])


def _watch(stack: ExitStack, site: FFNSite, seen: Seen, row: int, n_rows: int) -> None:
    """Note the coefficients of one network, and the output of its layer, in one row."""

    def read(_layer: int, values: Tensor) -> None:
        coefficients = values.reshape(n_rows, -1, site.n_neurons)[row]
        seen.coefficients = torch.cat([seen.coefficients, coefficients.float().cpu()])

    def see(output: Tensor) -> None:
        seen.output = output.reshape(n_rows, N_PROBE_TOKENS, -1)[row].float()

    seen.coefficients = torch.empty(0, site.n_neurons)
    stack.enter_context(reading([site.place("coefficient")], read))
    stack.enter_context(on_output(site.block, see))


def _take_gates(
    stack: ExitStack, sites: Sequence[FFNSite], trials: Sequence[Trial], seen: Sequence[Seen]
) -> None:
    """Set the gates of all layers to zero in rows that try this, and note coefficients there."""
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
    """Multiply the coefficients of the networks, each in the rows that try this."""
    scaled: dict[FFNSite, Rows] = {}
    for row, trial in enumerate(trials):
        if trial.what == "scaled" and trial.site is not None:
            scaled.setdefault(trial.site, {})[row] = partial(torch.mul, other=trial.factor)
    for site, rows in scaled.items():
        place = site.place("coefficient")
        stack.enter_context(place.on_side(place.module, _in_rows(len(trials), rows)))


def not_feed_forward(
    hf: PreTrainedModel, site: FFNSite, before: Seen, after: Seen, tolerance: float
) -> str | None:
    """Why a linear map is not the down projection of a feed-forward network; ``None`` if it is.

    A change of the network's input at the first position must change the coefficients there, and
    nowhere else: attention and state-space layers mix positions.

    Args:
        hf: a Hugging Face decoder.
        site: the linear map in question.
        before: what was observed of it on the probe.
        after: what was observed with another input at the first position.
        tolerance: relative change that rounding explains.
    """
    if not inlets(hf, site.path, site.block):
        n, d_model = down_widths(site.down)
        return f"no linear map from {d_model} to {n} or {2 * n} in its layer feeds it"
    plain, changed = before.coefficients, after.coefficients
    if len(plain) != N_PROBE_TOKENS:
        return f"it saw {len(plain)} positions of {N_PROBE_TOKENS}"
    if relative_change(plain[1:], changed[1:]) > tolerance:
        return "it mixes positions, as attention and state-space layers do"
    if not relative_change(plain[:1], changed[:1]) > tolerance:
        return "the linear maps beside it do not feed it"
    return None


# Factors of a network's coefficients that are tried to tell whether a norm follows it.
FACTORS = (0.0, SCALE, 2 * SCALE)


def norm_follows(hf: PreTrainedModel, site: FFNSite, outputs: Sequence[Tensor]) -> bool:
    """Whether a norm stands between the FFN and the output of its layer.

    Without one, the layer's output is linear in the coefficients.

    Args:
        hf: a Hugging Face decoder.
        site: the network.
        outputs: output of its layer (position, d_model) for each of :data:`FACTORS`.

    Raises:
        NeuroglotError: the layer's output is not finite at any position.
    """
    once, twice = outputs[1] - outputs[0], outputs[2] - outputs[0]
    errors = (twice - 2 * once).norm(dim=-1) / (2 * once).norm(dim=-1)
    errors = errors[errors.isfinite()]
    if not len(errors):
        raise NeuroglotError(
            f"with the coefficients of {site.path} at {2 * SCALE:g} times their size, its layer "
            "gives NaN or infinity; load the model with dtype='float32' or 'bfloat16'."
        )
    # The error is 0.5 if a norm follows; in half precision, rounding alone gives a few per cent.
    return bool(errors.median() > max(0.01, torch.finfo(hf.dtype).eps ** 0.5))
