"""What is trained: a copy of the model, some of its neurons, or adapters beside its weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

ADAPTER = "default"  # peft's name for the only one
TRAINABLE = (torch.float32, torch.float64, torch.bfloat16)


@dataclass(frozen=True)
class Trainee:
    """What is trained, and how it is kept.

    Attributes:
        model: runs with what is trained.
        module: whose weights have gradients.
        write: puts it into an empty folder.
        changes: which weights have changed, of what was saved in a folder.
    """

    model: Model
    module: nn.Module
    write: Callable[[Path], None]
    changes: Callable[[Path], xr.Dataset]


def check_trainable(model: Model, *, lora: bool) -> None:
    """Refuse weights that cannot be trained.

    Raises:
        NeuroglotError: they are of half precision, or quantised and no adapters are trained.
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
    """A copy whose weights are trained, all or those of some neurons; the model stays as it is."""
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

    trainee = Trainee(trained, hf, write, changes)
    if mask is None:
        yield trainee
        return
    with training_only(hf, trained.sites, mask.mask):
        yield trainee


def _down_projection(model: Model) -> str | None:
    """The path that a user named for the down projections, if one was needed."""
    if model.sites[0].found_by != "path":
        return None
    return re.sub(rf"\b{model.sites[0].layer}\b", "{i}", model.sites[0].path, count=1)


@contextmanager
def adapted(model: Model, rank: int, seed: int) -> Iterator[Trainee]:
    """Adapters (LoRA) in the model itself, which is as it was when the block ends.

    Raises:
        NeuroglotError: ``peft`` is not installed.
    """
    peft: Any = require_peft()
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear"
    )
    wanted = [parameter.requires_grad for parameter in model.hf.parameters()]
    before_this, line = lineage(model.hf), continued(model.hf)
    with torch.random.fork_rng(), quiet_peft():
        torch.manual_seed(seed)
        module = peft.get_peft_model(model.hf, config)

    def write(folder: Path) -> None:
        # Of a packaged model, not the folder that it was read from: its name finds it anywhere.
        here, config = Path(model.name), module.peft_config[ADAPTER]
        config.base_model_name_or_path = str(here.absolute()) if here.is_dir() else model.name
        config.revision = model.revision
        # Embeddings are never trained; to find that out, peft would ask the Hub.
        module.save_pretrained(folder, save_embedding_layers=False)

    set_lineage(model.hf, line)
    try:
        yield Trainee(model, module, write, lambda _folder: changes_of(_adapter_weights(model)))
    finally:
        module.unload()
        set_lineage(model.hf, before_this)
        for parameter, before in zip(model.hf.parameters(), wanted, strict=True):
            parameter.requires_grad_(before)


def _adapter_weights(model: Model) -> Iterator[Weights]:
    """The weights that have adapters, without and with them."""
    for name, module in model.hf.named_modules():
        if hasattr(module, "get_delta_weight"):
            weight, delta = module.get_base_layer().weight, module.get_delta_weight(ADAPTER)
            # A packed weight has no numbers to add to.
            before = weight if weight.shape == delta.shape else torch.zeros_like(delta)
            yield f"{name}.weight", before, before + delta
