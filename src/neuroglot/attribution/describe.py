"""Describe one neuron: the tokens that it promotes, and when it is active."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from neuroglot.errors import NeuroglotError, is_whole_number, listed
from neuroglot.models.direct_path import unembedding
from neuroglot.models.finite import why_not_finite
from neuroglot.models.model import Model
from neuroglot.models.operations import operation
from neuroglot.models.tokenization import token_names
from neuroglot.recording.recording import Recording, require_recording
from neuroglot.sharing.bits import CATEGORIES
from neuroglot.sharing.categories import categories
from neuroglot.store.joining import AS_RECORDED, require_of_model


@dataclass(frozen=True)
class Activity:
    """When a neuron was active in a recording.

    Attributes:
        by_language: share of the items for which the neuron was active, by language.
        by_category: share of the items for which the neuron was in each sharing category.
        strongest: item, language and site value of the prompts with the greatest values; empty if
            values were not kept.
        either_sign: whether the coefficient of an active neuron may be negative. This is so if the
            gate of a gated network was recorded; with a negative coefficient the neuron suppresses
            what it otherwise promotes.
    """

    by_language: dict[str, float]
    by_category: dict[str, float]
    strongest: tuple[tuple[str, str, float], ...]
    either_sign: bool


@dataclass(frozen=True)
class Description:
    """What one neuron promotes, and when it is active; printing it gives a readable summary.

    Attributes:
        layer: number of the layer, from 0.
        neuron: number of the neuron within the layer, from 0.
        length: length of its value vector, ``‖v_i‖₂``.
        promoted: tokens whose logits a coefficient of one raises most, and by how much, without any
            norm. Different tokens have different names.
        suppressed: tokens whose logits it lowers most, and by how much.
        activity: its activity in a recording, if one was given.
    """

    layer: int
    neuron: int
    length: float
    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]
    activity: Activity | None

    def __str__(self) -> str:
        rows = [
            ("promotes", [f"{token!r} {logit:+.2g}" for token, logit in self.promoted]),
            ("suppresses", [f"{token!r} {logit:+.2g}" for token, logit in self.suppressed]),
        ]
        if (activity := self.activity) is not None:
            rows += [
                (name, [f"{key} {share:.0%}" for key, share in shares.items()])
                for name, shares in (
                    ("active in", activity.by_language),
                    ("category", activity.by_category),
                )
            ]
            if activity.either_sign:
                rows.append(
                    ("", ["(by its gate: with a negative coefficient it does the opposite)"])
                )
            strongest = [f"{item} {lang} {value:.3g}" for item, lang, value in activity.strongest]
            rows.append(("strongest", strongest or ["values were not kept (--keep-values)"]))
        title = f"layer {self.layer}, neuron {self.neuron}"
        lines = [f"{title} (length of its value vector {self.length:.3g})"]
        return "\n".join(lines + [f"{name:12}" + "  ".join(cells) for name, cells in rows])


@operation
def describe(
    model: Model, *, layer: int, neuron: int, recording: Recording | None = None, k: int = 10
) -> Description:
    """The tokens that a neuron's value vector promotes and suppresses, and when it is active.

    Tokens are ranked by ``e_w · v_i``: the value vector times the unembedding, without any norm.
    Source: Geva et al. (arXiv 2203.14680).

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        layer: number of the layer, from 0.
        neuron: number of the neuron within the layer, from 0.
        recording: a recording of this model, from which the neuron's activity at threshold 0 is
            described. If it was recorded with ``keep_values=True``, the description also lists the
            prompts with the greatest values.
        k: how many tokens and prompts to list.

    Raises:
        NeuroglotError: there is no such neuron, the recording is of another model or lacks the
            layer or threshold 0, or the model's unembedding cannot be read.

    Examples:
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> description = ng.describe(model, layer=2, neuron=5, k=3)
        >>> [token for token, _ in description.suppressed]
        [' Indien', ' Dinar', ' Boliviano']
    """
    for name, value, size in (
        ("layer", layer, model.n_layers),
        ("neuron", neuron, model.n_neurons),
    ):
        if not is_whole_number(value, 0, size - 1):
            raise NeuroglotError(f"{name}={value}: expected a number from 0 to {size - 1}.")
    if not is_whole_number(k, 1):
        raise NeuroglotError(f"k={k}: expected at least 1, a whole number.")
    if recording is not None:
        require_recording(recording)
    activity = None if recording is None else _activity(model, recording, layer, neuron, k)
    with torch.inference_mode():
        vector = model.units().output_directions(layer)[neuron].float()
        _, rows = unembedding(model.hf, model.sites[0])
        logits = rows.float() @ vector.to(rows.device)
        if not bool(torch.isfinite(logits).all()):
            raise NeuroglotError(
                f"the logits of neuron {neuron} of layer {layer} are NaN or infinite: "
                f"{why_not_finite(model.hf)}"
            )
        # Rows beyond the tokenizer's vocabulary only pad the matrix.
        ranked = logits[: len(model.tokenizer)].sort(descending=True, stable=True)
    first, last = ranked.indices[:k].tolist(), ranked.indices.flip(0)[:k].tolist()

    def named(tokens: list[int]) -> tuple[tuple[str, float], ...]:
        values = logits[tokens].tolist()
        return tuple(zip(token_names(model.tokenizer, tokens), values, strict=True))

    return Description(layer, neuron, float(vector.norm()), named(first), named(last), activity)


def _activity(model: Model, recording: Recording, layer: int, neuron: int, k: int) -> Activity:
    require_of_model(recording.attrs, model, "the recording", AS_RECORDED)
    if layer not in recording.layers:
        raise NeuroglotError(
            f"the recording holds the layers {listed(recording.layers)}, not {layer}."
        )
    of_layer = Recording(recording.dataset.isel(layer=[recording.layers.index(layer)]))
    active = of_layer.bits()[:, :, 0, neuron // 8] >> (7 - neuron % 8) & 1
    codes = categories(of_layer).isel(layer=0, neuron=neuron).to_numpy()
    return Activity(
        dict(zip(recording.languages, active.mean(axis=0).tolist(), strict=True)),
        {name: float((codes == code).mean()) for code, name in enumerate(CATEGORIES)},
        _strongest(of_layer, neuron, k),
        recording.attrs["site"] == "gate" and model.sites[layer].activation is not None,
    )


def _strongest(of_layer: Recording, neuron: int, k: int) -> tuple[tuple[str, str, float], ...]:
    """The prompts with the greatest site values; empty if values were not kept."""
    if "values" not in of_layer.dataset:
        return ()
    values = of_layer.values.isel(layer=0, neuron=neuron).to_numpy()
    order = np.argsort(-values, axis=None, kind="stable")[:k]
    places = zip(*np.unravel_index(order, values.shape), strict=True)
    return tuple((of_layer.items[i], of_layer.languages[j], float(values[i, j])) for i, j in places)
