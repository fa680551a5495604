"""Check that what was found are the model's feed-forward neurons, and that it runs as expected.

All checks together cost at most ten forward passes of a few tokens each; a model whose rows disturb
each other, as where layers are quantised as they run, takes more.
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

# Names under which configurations say how wide a feed-forward network is.
WIDTH_FIELDS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "dff")
OTHER_LAST = 1  # the row of the probe that ends in another token


@dataclass(frozen=True)
class Verified:
    """What was found out about a model beside that it can be used.

    Attributes:
        norm_after_ffn: whether a norm stands between the FFN and the output of its layer.
        shares_cache: whether a prompt need run only once for all its choices.
        longest: the most tokens of a text that leaves all others of its batch alone, or ``None``.
        noise: how much other prompts of a batch change the logits of a row, relative to their size;
            0 but for layers that are quantised as they run.
    """

    norm_after_ffn: bool
    shares_cache: bool
    longest: int | None
    noise: float


def expected_widths(hf: PreTrainedModel) -> tuple[int, ...]:
    """How wide the FFN is by the configuration; some configurations count gate and up together."""
    config = hf.config.get_text_config()
    known = (getattr(config, field, None) for field in WIDTH_FIELDS)
    named = next((width for width in known if isinstance(width, int)), None)
    return (named, named // 2) if named else ()


def _check_widths(hf: PreTrainedModel, sites: Sequence[FFNSite]) -> None:
    """The hidden width must be the one of the configuration, where it names one."""
    expected = expected_widths(hf)
    for site in sites:
        if expected and site.n_neurons not in expected:
            raise NeuroglotError(
                f"{site.path} is {site.n_neurons} wide, but the model's configuration says that "
                f"its feed-forward networks are {expected[0]} wide: it is no down projection."
            )


@contextmanager
def _checking_firing(sites: Sequence[FFNSite], n_rows: int) -> Iterator[None]:
    """Within the block one pass runs, and each site fires once with values for each neuron.

    Raises:
        NeuroglotError: it does not.
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
            found, expected = shapes[kind, site.layer], (n_rows, N_PROBE_TOKENS, site.n_neurons)
            if len(found) != 1:
                raise NeuroglotError(
                    f"{site.path} ({kind}) fired {len(found)} times in one forward pass, expected "
                    "once: the model's code goes round this module (BLOOM does with "
                    "slow_but_exact=True). Name the right one with down_projection=…"
                )
            if found[0] != expected:
                raise NeuroglotError(
                    f"{site.path} ({kind}) saw shape {found[0]}, expected {expected} (prompt, "
                    "position, neuron)."
                )


def _check_gates(sites: Sequence[FFNSite], without: Seen) -> None:
    """Where the gates are zero, so are the coefficients."""
    for site in sites:
        if site.activation is not None and without.largest[site.layer] != 0:
            raise NeuroglotError(
                f"the gate of {site.path} was read from a {type(site.activation).__name__}, but "
                f"with it at zero its coefficients reach {without.largest[site.layer]:g}: it is "
                "not what they are multiplied by."
            )


def _trials(sites: Sequence[FFNSite]) -> list[Trial]:
    """All that is tried, after two rows in which nothing is."""
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
    """Check the model and all that was found in it.

    The model is causal, gives the logits of a plain call, and sees neither padding nor the rest of
    its batch; a site fires once a layer and is as wide as the configuration says, works on each
    position by itself, and has the gate as a factor; zeroing it changes the logits, and removal of
    the hooks restores them bit for bit.

    Args:
        hf: a Hugging Face decoder.
        sites: one FFN a layer.

    Raises:
        NeuroglotError: naming the first of these that does not hold.
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
    if noise:  # then what is done to one row shows in the others
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
    """What is seen without and with each trial, in passes of a single row."""
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
    """Whether a norm follows the networks, if all that was tried went as it should.

    Args:
        hf: the model.
        sites: one FFN a layer.
        trials: what was tried.
        seen: of each trial, without and with it.
        tolerance: relative change that rounding explains.

    Raises:
        NeuroglotError: it says what did not.
    """
    outputs: dict[FFNSite, list[Tensor]] = {}
    for trial, (before, after) in zip(trials, seen, strict=True):
        site = trial.site
        if trial.what == "no gates":
            _check_gates(sites, after)
        elif site is not None and trial.what == "other input":
            objection = not_feed_forward(hf, site, before, after, tolerance)
            if objection:
                raise NeuroglotError(f"{site.path} is no feed-forward network: {objection}.")
        elif site is not None:
            outputs.setdefault(site, []).append(after.output)
            if trial.factor == 0 and torch.equal(before.logits, after.logits):
                raise NeuroglotError(
                    f"zeroing {site.path} leaves the logits as they are: it is not a "
                    "feed-forward network on the way to the output."
                )
    return any(
        norm_follows(hf, site, found)
        for site, found in outputs.items()
        if len(found) == len(FACTORS)
    )
