"""What one neuron says, and when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from neuroglot.errors import NeuroglotError, is_whole_number, listed
from neuroglot.models.direct_path import check_unembedding
from neuroglot.models.finite import why_not_finite
from neuroglot.models.model import Model
from neuroglot.models.operations import operation
from neuroglot.models.tokenization import token_names
from neuroglot.recording.recording import Recording, require_recording
from neuroglot.sharing.bits import CATEGORIES
from neuroglot.sharing.categories import categories
from neuroglot.store.joining import AS_RECORDED, require_of_model

ITEMS_AT_ONCE = 128


@dataclass(frozen=True)
class Activity:
    """When a neuron was active in a recording.

    Attributes:
        by_language: share of items for which it was active.
        by_category: share of items for which it was in each sharing category.
        strongest: item, language and site value of the prompts with the greatest values; empty
            where values were not kept.
        either_sign: whether the coefficient may be negative where the neuron is active, as where
            the gate of a gated network was recorded: it then does the opposite.
    """

    by_language: dict[str, float]
    by_category: dict[str, float]
    strongest: tuple[tuple[str, str, float], ...]
    either_sign: bool


@dataclass(frozen=True)
class Description:
    """What one neuron says, and when; ``print`` it.

    Attributes:
        layer: from 0.
        neuron: within the layer, from 0.
        length: of its value vector, ``‖v_i‖₂``.
        promoted: tokens whose logits a positive coefficient of one raises most, and by how much,
            past all norms. Different tokens have different names.
        suppressed: those that it lowers most.
        activity: in a recording, if one was given.
    """

    layer: int
    neuron: int
    length: float
    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]
    activity: Activity | None

    def __str__(self) -> str:
        lines = [f"layer {self.layer}, neuron {self.neuron} (length of its value vector "
                 f"{self.length:.3g})"]  # fmt: skip
        for name, tokens in (("promotes", self.promoted), ("suppresses", self.suppressed)):
            lines.append(f"{name:12}" + "  ".join(f"{t!r} {v:+.2g}" for t, v in tokens))
        if self.activity is not None:
            for name, shares in (
                ("active in", self.activity.by_language),
                ("category", self.activity.by_category),
            ):
                lines.append(f"{name:12}" + "  ".join(f"{k} {v:.0%}" for k, v in shares.items()))
            if self.activity.either_sign:
                lines.append(
                    f"{'':12}(by its gate: with a negative coefficient it does the opposite)"
                )
            strongest = [f"{i} {lang} {v:.3g}" for i, lang, v in self.activity.strongest]
            lines.append(
                f"{'strongest':12}"
                + ("  ".join(strongest) or "values were not kept (--keep-values)")
            )
        return "\n".join(lines)


@operation
def describe(
    model: Model, *, layer: int, neuron: int, recording: Recording | None = None, k: int = 10
) -> Description:
    """The tokens that a neuron's value vector promotes and suppresses, and when it is active.

    Tokens are ranked by ``e_w · v_i``, the value vector through the unembedding without any norm.
    Source: Geva et al. (arXiv 2203.14680).

    Args:
        model: from :func:`neuroglot.load_model` or :func:`neuroglot.wrap_model`.
        layer: from 0.
        neuron: within the layer, from 0.
        recording: of this model; it says when the neuron is active, at threshold 0. Recorded with
            ``keep_values=True`` it also says at which prompts most.
        k: how many tokens and prompts.

    Raises:
        NeuroglotError: no such neuron, a recording of another model, or of other layers or without
            threshold 0, or a model whose unembedding cannot be read.
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
        rows = check_unembedding(model.hf, model.sites[0])
        logits = rows.float() @ vector.to(rows.device)
        if not bool(torch.isfinite(logits).all()):
            raise NeuroglotError(
                f"the logits of neuron {neuron} of layer {layer} are NaN or infinite: "
                f"{why_not_finite(model.hf)}"
            )
        # What the tokenizer does not know are rows that pad the matrix.
        ranked = logits[: len(model.tokenizer)].sort(descending=True, stable=True)
    first, last = ranked.indices[:k].tolist(), ranked.indices.flip(0)[:k].tolist()

    def named(tokens: list[int]) -> tuple[tuple[str, float], ...]:
        values = logits[tokens].tolist()
        return tuple(zip(token_names(model.tokenizer, tokens), values, strict=True))

    return Description(
        layer,
        neuron,
        float(vector.norm()),
        named(first),
        named(last),
        activity,
    )


def _activity(model: Model, recording: Recording, layer: int, neuron: int, k: int) -> Activity:
    require_of_model(recording.attrs, model, "the recording", AS_RECORDED)
    if layer not in recording.layers:
        raise NeuroglotError(
            f"the recording holds the layers {listed(recording.layers)}, not {layer}."
        )
    row = recording.layers.index(layer)
    active = np.concatenate(
        [
            recording.bits(0.0, slice(start, start + ITEMS_AT_ONCE))[:, :, row, neuron // 8]
            for start in range(0, len(recording), ITEMS_AT_ONCE)
        ]
    )
    active = (active >> (7 - neuron % 8)) & 1
    alone = Recording(recording.dataset.isel(layer=[row]))
    codes = categories(alone).isel(layer=0, neuron=neuron).to_numpy()
    return Activity(
        dict(zip(recording.languages, active.mean(axis=0).tolist(), strict=True)),
        {name: float((codes == code).mean()) for code, name in enumerate(CATEGORIES)},
        _strongest(recording, row, neuron, k),
        recording.attrs["site"] == "gate" and model.sites[layer].activation is not None,
    )


def _strongest(
    recording: Recording, row: int, neuron: int, k: int
) -> tuple[tuple[str, str, float], ...]:
    """The prompts with the greatest site values; none where values were not kept."""
    if "values" not in recording.dataset:
        return ()
    values = recording.values.isel(layer=row, neuron=neuron).to_numpy()
    order = np.argsort(-values, axis=None, kind="stable")[:k]
    places = [np.unravel_index(i, values.shape) for i in order]
    return tuple(
        (recording.items[i], recording.languages[j], float(values[i, j])) for i, j in places
    )
