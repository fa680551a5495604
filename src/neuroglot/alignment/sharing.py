"""The term that pulls an item's translations toward the same gate signs.

Whether a neuron is active has no gradient: what goes into its activation function stands in for it
in the backward pass, through a sigmoid (Bengio, Léonard and Courville 2013, the straight-through
estimator). The activation's own gradient would not do: GELU's has the wrong sign below -0.75, and
ReLU's is zero where a neuron is off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroglot.errors import NeuroglotError
from neuroglot.recording.recording import Recording
from neuroglot.sharing.bits import count, unpack


def soft_activity(before: Tensor) -> Tensor:
    """Zeros and ones for "active?", with a gradient.

    Args:
        before: what goes into the activation functions (text, layer, neuron). Its size in each
            layer is divided out before the sigmoid.
    """
    size = before.detach().square().mean(dim=(0, 2), keepdim=True).sqrt().clamp(min=1e-12)
    soft = torch.sigmoid(before / size)
    return (before > 0).to(soft.dtype) + soft - soft.detach()


def disagreement(one: Tensor, other: Tensor) -> Tensor:
    """Share of neurons that are active in one of two texts only (both: text, layer, neuron)."""
    return (one * (1 - other) + other * (1 - one)).mean()


def rate_drift(active: Tensor, rate: Tensor) -> Tensor:
    """Mean squared distance of rates of activity from what they were.

    The squared distance of a rate among *n* texts is too large by its sampling variance, for which
    r(1 − r)/(n − 1) is an unbiased estimate.

    Args:
        active: of texts in one language (text, layer, neuron).
        rate: for what share of its texts each neuron was active before (layer, neuron).
    """
    found = active.mean(dim=0)
    noise = found * (1 - found) / (len(active) - 1)
    return ((found - rate).square() - noise).mean()


@dataclass(frozen=True)
class BeforeTraining:
    """What the model did before, on the texts that are trained.

    Attributes:
        rates: share of a language's texts for which a neuron is active (language, layer, neuron).
        disagreement: share of neurons active in one of two translations only, mean over all pairs.
    """

    rates: dict[str, Tensor]
    disagreement: float


def before_training(
    recording: Recording, trained: np.ndarray[Any, np.dtype[np.bool_]]
) -> BeforeTraining:
    """Rates and disagreement of a recording.

    Args:
        recording: of the items that are trained.
        trained: which prompts are (item, language).

    Raises:
        NeuroglotError: languages never disagree.
    """
    bits, n = recording.bits(), recording.n_neurons
    rates = {}
    different, pairs = 0.0, 0
    for a, language in enumerate(recording.languages):
        here = trained[:, a]
        if here.any():
            rates[language] = torch.from_numpy(unpack(bits[here, a], n).mean(axis=0)).float()
        for b in range(a):
            both = here & trained[:, b]
            different += float(count(bits[both, a] ^ bits[both, b]).sum())
            pairs += int(both.sum())
    share = different / (pairs * n * len(recording.layers)) if pairs else 0.0
    if not share > 0:
        raise NeuroglotError(
            "the same neurons are active in all trained languages of every item: nothing is left "
            "to be shared more."
        )
    return BeforeTraining(rates, share)


@dataclass(frozen=True)
class SharingTerm:
    """Adds up to 1 before training: less where languages agree more, more where rates move.

    Attributes:
        before: what the model did.
        rate_weight: of what keeps the rates.
    """

    before: BeforeTraining
    rate_weight: float

    def parts(self, values: Tensor, languages: tuple[str, str]) -> dict[str, Tensor]:
        """``disagreement`` and ``rate_drift``, both over the disagreement before training.

        Args:
            values: before the activation function, at the last prompt token (text, layer, neuron);
                the first half of the texts is in one language, the other half in the other.
            languages: the two.
        """
        active = soft_activity(values.float())
        one, other = active.chunk(2)
        drift = torch.stack(
            [
                rate_drift(part, self.before.rates[language].to(values.device))
                for part, language in zip((one, other), languages, strict=True)
            ]
        ).sum()
        scale = 1 / self.before.disagreement
        return {
            "disagreement": scale * disagreement(one, other),
            "rate_drift": scale * drift,
        }

    def __call__(self, parts: dict[str, Tensor]) -> Tensor:
        """The term, of its parts."""
        return parts["disagreement"] + self.rate_weight * parts["rate_drift"]
