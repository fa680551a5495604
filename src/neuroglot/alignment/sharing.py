"""The loss term that makes the gates of an item's translations have the same signs.

Whether a neuron is active has no gradient. The backward pass uses the gradient of a sigmoid of the
input of the activation function instead, which is the straight-through estimator (Bengio, Léonard
and Courville 2013). The gradient of the activation function itself is no substitute: that of GELU
has the wrong sign below -0.75, and that of ReLU is zero for inactive neurons.
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
    """Activity as zeros and ones, with a gradient (text, layer, neuron).

    Args:
        before: inputs of the activation functions (text, layer, neuron). They are divided by their
            root mean square in each layer before the sigmoid.
    """
    size = before.detach().square().mean(dim=(0, 2), keepdim=True).sqrt().clamp(min=1e-12)
    soft = torch.sigmoid(before / size)
    return (before > 0).to(soft.dtype) + soft - soft.detach()


def disagreement(one: Tensor, other: Tensor) -> Tensor:
    """The share of neurons that are active in only one of two texts.

    Args:
        one: activity in the first language (text, layer, neuron).
        other: activity in the second language (text, layer, neuron).
    """
    return (one * (1 - other) + other * (1 - one)).mean()


def rate_drift(active: Tensor, rate: Tensor) -> Tensor:
    """The mean squared difference between rates of activity now and before training.

    For a rate *r* over *n* texts, the squared difference is too large by the sampling variance of
    the rate, of which the unbiased estimate r(1 − r)/(n − 1) is subtracted.

    Args:
        active: activity in texts of one language (text, layer, neuron).
        rate: the share of texts for which each neuron was active before (layer, neuron).
    """
    rate_now = active.mean(dim=0)
    variance = rate_now * (1 - rate_now) / (len(active) - 1)
    return ((rate_now - rate).square() - variance).mean()


@dataclass(frozen=True)
class BeforeTraining:
    """Activity of the model before training, on the texts that are trained.

    Attributes:
        rates: for each language the share of texts for which a neuron is active (layer, neuron).
        disagreement: the share of neurons that are active in only one of two translations, as the
            mean over all pairs.
    """

    rates: dict[str, Tensor]
    disagreement: float


def before_training(
    recording: Recording, trained: np.ndarray[Any, np.dtype[np.bool_]]
) -> BeforeTraining:
    """The rates and the disagreement in a recording.

    Args:
        recording: a recording of the items that are trained.
        trained: which of its prompts are trained (item, language).

    Raises:
        NeuroglotError: the same neurons are active in all languages.
    """
    bits, n = recording.bits(), recording.n_neurons
    rates = {}
    different, pairs = 0.0, 0
    for a, language in enumerate(recording.languages):
        in_language = trained[:, a]
        if in_language.any():
            rate = unpack(bits[in_language, a], n).mean(axis=0)
            rates[language] = torch.from_numpy(rate).float()
        for b in range(a):
            both = in_language & trained[:, b]
            different += float(count(bits[both, a] ^ bits[both, b]).sum())
            pairs += int(both.sum())
    share = different / (pairs * n * len(recording.layers)) if pairs else 0.0
    if not share > 0:
        raise NeuroglotError(
            "the same neurons are active in all trained languages of every item, so nothing is "
            "left to be shared more."
        )
    return BeforeTraining(rates, share)


@dataclass(frozen=True)
class SharingTerm:
    """The loss term of the method ``"sharing"``, which is 1 on average before training.

    It falls if more neurons agree between languages, and rises if rates of activity change.

    Attributes:
        before: the activity of the model before training.
        rate_weight: the weight of the change of rates.
    """

    before: BeforeTraining
    rate_weight: float

    def parts(self, values: Tensor, languages: tuple[str, str]) -> dict[str, Tensor]:
        """``disagreement`` and ``rate_drift``, both divided by the disagreement before training.

        Args:
            values: inputs of the activation functions at the last prompt token (text, layer,
                neuron). The first half of the texts is in the first language, the second half in
                the second.
            languages: the two languages.
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
        return {"disagreement": scale * disagreement(one, other), "rate_drift": scale * drift}

    def __call__(self, parts: dict[str, Tensor]) -> Tensor:
        """The loss term from its parts."""
        return parts["disagreement"] + self.rate_weight * parts["rate_drift"]
