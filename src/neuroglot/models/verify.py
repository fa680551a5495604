"""Check that what was found are the model's feed-forward neurons, and that it runs as expected.

All checks together cost one forward pass a layer and some twenty more, of a few tokens each.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError
from neuroglot.models.behaviour import check_causal, check_padding
from neuroglot.models.finite import why_not_finite
from neuroglot.models.hooks import editing, on_output, reading
from neuroglot.models.probing import N_PROBE_TOKENS, not_feed_forward, probe_logits, rounding
from neuroglot.models.sites import SITE_KINDS, FFNSite, SiteKind
from neuroglot.models.structure import one_of_each_kind

# Names under which configurations say how wide a feed-forward network is.
WIDTH_FIELDS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "dff")


def expected_widths(hf: PreTrainedModel) -> tuple[int, ...]:
    """How wide the FFN is by the configuration; some configurations count gate and up together."""
    config = hf.config.get_text_config()
    known = (getattr(config, field, None) for field in WIDTH_FIELDS)
    named = next((width for width in known if isinstance(width, int)), None)
    return (named, named // 2) if named else ()


def _check_widths(hf: PreTrainedModel, sites: tuple[FFNSite, ...]) -> None:
    """The hidden width must be the one of the configuration, where it names one."""
    expected = expected_widths(hf)
    for site in sites:
        if expected and site.n_neurons not in expected:
            raise NeuroglotError(
                f"{site.path} is {site.n_neurons} wide, but the model's configuration says that "
                f"its feed-forward networks are {expected[0]} wide: it is no down projection."
            )


def _check_firing(hf: PreTrainedModel, sites: tuple[FFNSite, ...]) -> None:
    """Each site fires once, with one value for each prompt, position and neuron."""
    shapes: dict[tuple[SiteKind, int], list[tuple[int, ...]]] = {
        (kind, site.layer): [] for kind in SITE_KINDS for site in sites
    }
    with ExitStack() as stack:
        for kind in SITE_KINDS:

            def read(layer: int, values: Tensor, kind: SiteKind = kind) -> None:
                shapes[kind, layer].append(tuple(values.shape))

            stack.enter_context(reading(sites, kind, read))
        probe_logits(hf)
    for site in sites:
        for kind in SITE_KINDS:
            found, expected = shapes[kind, site.layer], (1, N_PROBE_TOKENS, site.n_neurons)
            if len(found) != 1:
                raise NeuroglotError(
                    f"{site.path} ({kind}) fired {len(found)} times in one forward pass, expected "
                    "once: the model's code goes round this module (BLOOM does with "
                    "slow_but_exact=True). Name the right one with sites=…"
                )
            if found[0] != expected:
                raise NeuroglotError(
                    f"{site.path} ({kind}) saw shape {found[0]}, expected {expected} (prompt, "
                    "position, neuron)."
                )


def _check_gates(hf: PreTrainedModel, sites: tuple[FFNSite, ...]) -> None:
    """Where the gates are zero, so are the coefficients."""
    left: dict[int, float] = {}

    def read(layer: int, values: Tensor) -> None:
        left[layer] = float(values.abs().max())

    with ExitStack() as stack:
        for site in sites:
            if site.activation is not None:
                stack.enter_context(on_output(site.activation, torch.zeros_like))
        stack.enter_context(reading(sites, "coefficient", read))
        probe_logits(hf)
    for site in sites:
        if site.activation is not None and left[site.layer] != 0:
            raise NeuroglotError(
                f"the gate of {site.path} was read from a {type(site.activation).__name__}, but "
                f"with it at zero its coefficients reach {left[site.layer]:g}: it is not what "
                "they are multiplied by."
            )


@torch.inference_mode()
def verify_sites(hf: PreTrainedModel, sites: tuple[FFNSite, ...]) -> None:
    """Check the model and all that was found in it.

    The model is causal and does not see padding; a site fires once a layer and is as wide as
    the configuration says, works on each position by itself, and has the gate as a factor; zeroing
    it changes the logits, and removal of the hooks restores them bit for bit.

    Args:
        hf: a Hugging Face decoder.
        sites: one FFN a layer.

    Raises:
        NeuroglotError: naming the first of these that does not hold.
    """
    _check_widths(hf, sites)
    before = probe_logits(hf)
    if not bool(torch.isfinite(before).all()):
        raise NeuroglotError(f"the model's logits are NaN or infinite: {why_not_finite(hf)}")
    tolerance = rounding(hf)
    check_causal(hf, before, tolerance)
    _check_firing(hf, sites)
    _check_gates(hf, sites)
    for site in one_of_each_kind(sites):
        objection = not_feed_forward(hf, site, tolerance)
        if objection:
            raise NeuroglotError(f"{site.path} is no feed-forward network: {objection}.")
    check_padding(hf, before, tolerance)
    for site in sites:
        with editing([site], lambda _layer, values: torch.zeros_like(values)):
            if torch.equal(probe_logits(hf), before):
                raise NeuroglotError(
                    f"zeroing {site.path} leaves the logits as they are: it is not a "
                    "feed-forward network on the way to the output."
                )
    if not torch.equal(probe_logits(hf), before):
        raise NeuroglotError("the logits differ after all hooks were removed.")
