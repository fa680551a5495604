"""Prepare what is trained: a copy of the model, some of its neurons, or LoRA adapters."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import nn

from neuroglot.alignment.changes import Weights, changes_of, weight_changes
from neuroglot.errors import NeuroglotError
from neuroglot.models.adapters import quiet_peft, require_peft
from neuroglot.models.lineage import continued, lineage, set_lineage
from neuroglot.models.loading import load_model
from neuroglot.models.model import Model, wrap_model
from neuroglot.models.sites import is_ordinary
from neuroglot.models.training import training_only
from neuroglot.neurons.neuron_set import NeuronSet
from neuroglot.quiet import quiet_transformers

ADAPTER = "default"  # the name that peft gives to a single adapter
TRAINABLE = (torch.float32, torch.float64, torch.bfloat16)


@dataclass(frozen=True)
class Trainee:
    """A model in training.

    Attributes:
        model: the model that runs with the trained weights.
        module: the module whose weights have gradients.
        write: saves the trained weights in an empty folder.
        changes: compares the weights that were saved in a folder with those before training; see
            :func:`neuroglot.weight_changes`.
    """

    model: Model
    module: nn.Module
    write: Callable[[Path], None]
    changes: Callable[[Path], xr.Dataset]


def check_trainable(model: Model, *, lora: bool) -> None:
    """Refuse a model whose weights cannot be trained.

    Raises:
        NeuroglotError: the weights have half precision, or are quantised or offloaded and no
            adapters are trained.
    """
    if model.hf.dtype not in TRAINABLE:
        raise NeuroglotError(
            f"{model.name!r} is loaded as {model.dtype}, in which gradients vanish; load it with "
            "dtype='bfloat16' or 'float32'."
        )
    quantised = any(not is_ordinary(site.down) for site in model.sites)
    if quantised and not lora:
        raise NeuroglotError(
            f"the weights of {model.name!r} are quantised or offloaded and cannot be trained; use "
            "lora=True (--lora), or load it unquantised."
        )


@contextmanager
def copied(model: Model, mask: NeuronSet | None) -> Iterator[Trainee]:
    """A copy of the model for training all weights, or those of the neurons of ``mask`` only."""
    hf = copy.deepcopy(model.hf).requires_grad_()
    set_lineage(hf, continued(model.hf))
    path = _down_projection(model)
    trained = wrap_model(
        hf, model.tokenizer, name=model.name, down_projection=path, tokenization=model.tokenization
    )

    def write(folder: Path) -> None:
        with quiet_transformers():
            hf.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)

    def changes(folder: Path) -> xr.Dataset:
        saved = load_model(folder, device=model.device, dtype=model.hf.dtype, down_projection=path)
        return weight_changes(model, saved)

    with nullcontext() if mask is None else training_only(hf, trained.sites, mask.mask):
        yield Trainee(trained, hf, write, changes)


def _down_projection(model: Model) -> str | None:
    """The path of the down projections, if the model was loaded with one."""
    if model.sites[0].found_by != "path":
        return None
    return re.sub(rf"\b{model.sites[0].layer}\b", "{i}", model.sites[0].path, count=1)


@contextmanager
def adapted(model: Model, rank: int, seed: int) -> Iterator[Trainee]:
    """Put LoRA adapters into the model itself, and take them out when the block ends.

    Raises:
        NeuroglotError: ``peft`` is not installed.
    """
    peft: Any = require_peft()
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear"
    )
    requires_grad = [parameter.requires_grad for parameter in model.hf.parameters()]
    lineage_before, lineage_after = lineage(model.hf), continued(model.hf)
    with torch.random.fork_rng(), quiet_peft():
        torch.manual_seed(seed)
        module = peft.get_peft_model(model.hf, config)

    def write(folder: Path) -> None:
        # A packaged model is saved by its name, which finds it on any machine.
        base, config = Path(model.name), module.peft_config[ADAPTER]
        config.base_model_name_or_path = str(base.absolute()) if base.is_dir() else model.name
        config.revision = model.revision
        # Embeddings are never trained. Without this setting, peft would ask the Hub about them.
        module.save_pretrained(folder, save_embedding_layers=False)

    set_lineage(model.hf, lineage_after)
    try:
        yield Trainee(model, module, write, lambda _folder: changes_of(_adapter_weights(model)))
    finally:
        module.unload()
        set_lineage(model.hf, lineage_before)
        for parameter, before in zip(model.hf.parameters(), requires_grad, strict=True):
            parameter.requires_grad_(before)


def _adapter_weights(model: Model) -> Iterator[Weights]:
    """The weights that have adapters, without and with them."""
    for name, module in model.hf.named_modules():
        if hasattr(module, "get_delta_weight"):
            weight, delta = module.get_base_layer().weight, module.get_delta_weight(ADAPTER)
            # A quantised weight is packed and has no numbers to add the change to.
            before = weight if weight.shape == delta.shape else torch.zeros_like(delta)
            yield f"{name}.weight", before, before + delta
