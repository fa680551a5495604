"""Verify that the sites that were found are feed-forward networks, and that the model behaves well.

All checks together take at most ten forward passes of a few tokens each. More are needed if the
rows of a batch affect each other, because layers quantise their inputs as they run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError
from neuroglot.models.behaviour import (
    check_body,
    check_causal,
    check_padding,
    disturbance,
    rounding,
    shares_cache,
)
from neuroglot.models.finite import why_not_finite
from neuroglot.models.hooks import Reader, reading
from neuroglot.models.probing import (
    FACTORS,
    N_PROBE_TOKENS,
    Seen,
    Trial,
    norm_follows,
    not_feed_forward,
    probe_ids,
    run_trials,
)
from neuroglot.models.rotary import longest_text, noting_calls
from neuroglot.models.site_kinds import SITE_KINDS, SiteKind
from neuroglot.models.sites import FFNSite
from neuroglot.models.structure import one_of_each_kind

# Names that configurations use for the width of feed-forward networks.
WIDTH_FIELDS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "dff")
OTHER_LAST = 1  # the row in which the probe ends in another token


@dataclass(frozen=True)
class Verified:
    """Properties of a model that passed verification.

    Attributes:
        norm_after_ffn: whether a norm stands between the FFN and the output of its layer.
        shares_cache: whether a prompt has to run only once for all its choices.
        longest: the most tokens that a text may have without changing the results of other texts in
            its batch, or ``None``.
        noise: how much other prompts in a batch change the logits of a row, relative to their size;
            0 unless layers quantise their inputs as they run.
    """

    norm_after_ffn: bool
    shares_cache: bool
    longest: int | None
    noise: float


def expected_widths(hf: PreTrainedModel) -> tuple[int, ...]:
    """Possible widths of the FFN by the configuration, which may count gate and up together."""
    config = hf.config.get_text_config()
    fields = (getattr(config, field, None) for field in WIDTH_FIELDS)
    named = next((width for width in fields if isinstance(width, int)), None)
    return (named, named // 2) if named else ()


def _check_widths(hf: PreTrainedModel, sites: Sequence[FFNSite]) -> None:
    """Refuse sites whose width is not that of the configuration, if it names one."""
    expected = expected_widths(hf)
    for site in sites:
        if expected and site.n_neurons not in expected:
            raise NeuroglotError(
                f"{site.path} is {site.n_neurons} wide, but the model's configuration says that "
                f"its feed-forward networks are {expected[0]} wide: it is not a down projection."
            )


@contextmanager
def _checking_firing(sites: Sequence[FFNSite], n_rows: int) -> Iterator[None]:
    """Within the block one pass runs, in which each site must fire once with values of all neurons.

    Raises:
        NeuroglotError: a site does not.
    """
    shapes: dict[tuple[SiteKind, int], list[tuple[int, ...]]] = {
        (kind, site.layer): [] for kind in SITE_KINDS for site in sites
    }

    def reader(kind: SiteKind) -> Reader:
        return lambda layer, values: shapes[kind, layer].append(tuple(values.shape))

    with ExitStack() as stack:
        for kind in SITE_KINDS:
            stack.enter_context(reading([site.place(kind) for site in sites], reader(kind)))
        yield
    for site in sites:
        for kind in SITE_KINDS:
            seen, expected = shapes[kind, site.layer], (n_rows, N_PROBE_TOKENS, site.n_neurons)
            if len(seen) != 1:
                raise NeuroglotError(
                    f"{site.path} ({kind}) fired {len(seen)} times in one forward pass, expected "
                    "once: the model's code bypasses this module (BLOOM does with "
                    "slow_but_exact=True). Name the right one with down_projection=…"
                )
            if seen[0] != expected:
                raise NeuroglotError(
                    f"{site.path} ({kind}) saw shape {seen[0]}, expected {expected} (prompt, "
                    "position, neuron)."
                )


def _trials(sites: Sequence[FFNSite]) -> list[Trial]:
    """All trials, one per row; nothing is changed in the first two rows."""
    kinds = one_of_each_kind(sites)
    return [
        Trial(),
        Trial(),
        Trial("no gates"),
        *(Trial("other input", site) for site in kinds),
        *(Trial("scaled", site, factor) for site in kinds for factor in FACTORS),
        *(Trial("scaled", site, 0.0) for site in sites if site not in kinds),
    ]


def verify(hf: PreTrainedModel, sites: Sequence[FFNSite]) -> Verified:
    """Verify a model and its sites.

    The model must be causal, give the logits of a plain call, and be affected neither by padding
    nor by other prompts of its batch. Each site must fire once per pass, be as wide as the
    configuration says, process each position separately, and have the gate as a factor. Zeroing it
    must change the logits, and removing the hooks must restore them bit for bit.

    Args:
        hf: a Hugging Face decoder.
        sites: the FFN of each layer.

    Raises:
        NeuroglotError: a condition does not hold; the message names the first.
    """
    _check_widths(hf, sites)
    trials = _trials(sites)
    ids = probe_ids(hf).repeat(len(trials), 1)
    ids[OTHER_LAST, -1] = probe_ids(hf, shift=1)[0, -1]
    with noting_calls(hf) as calls, _checking_firing(sites, len(trials)):
        before = run_trials(hf, sites, [trial.undone for trial in trials], ids)
    logits = torch.stack([seen.logits for seen in before])
    if not bool(torch.isfinite(logits).all()):
        raise NeuroglotError(f"the model's logits are NaN or infinite: {why_not_finite(hf)}")
    last = next(seen for trial, seen in zip(trials, before, strict=True) if trial.site is sites[-1])
    after = run_trials(hf, sites, trials, ids)
    noise = disturbance(hf, ids, logits)
    if noise:  # then a trial in one row affects the others
        before, after = _one_by_one(hf, sites, trials)
    same = [row for row in range(len(trials)) if row != OTHER_LAST]
    tolerance = rounding(logits[same], noise)
    check_causal(hf, logits[0], logits[OTHER_LAST], tolerance)
    norm_after_ffn = _judged(hf, sites, trials, list(zip(before, after, strict=True)), tolerance)
    check_body(hf, sites[-1], last, tolerance)
    whole = check_padding(hf, logits[0], "left", tolerance)
    check_padding(hf, logits[0], "right", tolerance)
    return Verified(norm_after_ffn, shares_cache(hf, whole), longest_text(hf, calls), noise)


def _one_by_one(
    hf: PreTrainedModel, sites: Sequence[FFNSite], trials: Sequence[Trial]
) -> tuple[list[Seen], list[Seen]]:
    """Observations without and with each trial, in passes of a single row."""
    (plain,) = run_trials(hf, sites, [Trial()])
    before = [
        run_trials(hf, sites, [trial.undone])[0] if trial.what == "other input" else plain
        for trial in trials
    ]
    return before, [run_trials(hf, sites, [trial])[0] for trial in trials]


def _judged(
    hf: PreTrainedModel,
    sites: Sequence[FFNSite],
    trials: Sequence[Trial],
    seen: Sequence[tuple[Seen, Seen]],
    tolerance: float,
) -> bool:
    """Check the observations of all trials, and find out whether a norm follows the networks.

    Args:
        hf: the model.
        sites: the FFN of each layer.
        trials: all trials.
        seen: observations without and with each trial.
        tolerance: relative change that rounding explains.

    Raises:
        NeuroglotError: a trial did not have the expected effect.
    """
    outputs: dict[FFNSite, list[Tensor]] = {}
    for trial, (before, after) in zip(trials, seen, strict=True):
        site = trial.site
        for layer, largest in after.largest.items():  # noted if gates are zero
            if sites[layer].activation is not None and largest != 0:
                raise NeuroglotError(
                    f"the gate of {sites[layer].path} was read from a "
                    f"{type(sites[layer].activation).__name__}, but with it at zero its "
                    f"coefficients reach {largest:g}: it is not what they are multiplied by."
                )
        if site is not None and trial.what == "other input":
            objection = not_feed_forward(hf, site, before, after, tolerance)
            if objection:
                raise NeuroglotError(f"{site.path} is not a feed-forward network: {objection}.")
        elif site is not None:
            outputs.setdefault(site, []).append(after.output)
            if trial.factor == 0 and torch.equal(before.logits, after.logits):
                raise NeuroglotError(
                    f"zeroing {site.path} leaves the logits as they are: it is not a "
                    "feed-forward network on the way to the output."
                )
    return any(
        norm_follows(hf, site, by_factor)
        for site, by_factor in outputs.items()
        if len(by_factor) == len(FACTORS)
    )
