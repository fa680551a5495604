"""The state of model and process: anything that would change results is put right or refused."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.foreign import guarding, refuse_own_hooks, suspended
from neuroglot.models.probing import input_device, probe_logits
from neuroglot.models.sites import FFNSite
from neuroglot.models.temporarily import temporarily
from neuroglot.models.turns import Turn, taking_turn

Sites = Sequence[FFNSite]
# Settings that may ask for more outputs than logits, and the values that ask for logits only.
PLAIN_OUTPUTS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
IMPORTED_IN = os.getpid()
LOADING = threading.RLock()
"""Held while a model is loaded, because loading changes settings of the whole process."""


@contextmanager
def operating(hf: PreTrainedModel, sites: Sites = ()) -> Iterator[Turn]:
    """Within the block, the model computes what it would in a fresh process, in one thread.

    It is in evaluation mode, autocast and any default device other than the CPU are off, and no
    other thread runs it. When the block ends, everything is as before. Blocks may be nested.

    Args:
        hf: the model.
        sites: its feed-forward networks, if they are known.

    Raises:
        NeuroglotError: see :func:`ready`.
    """
    with taking_turn(hf) as turn, ExitStack() as stack:
        if not turn.is_operating:
            stack.enter_context(ordinary_process(hf))
            stack.enter_context(_plain_outputs(hf))
            stack.enter_context(ready(hf, sites))
            stack.enter_context(temporarily([(turn, "is_operating", True)]))
        yield turn


@contextmanager
def training(hf: PreTrainedModel) -> Iterator[None]:
    """Within the block, the model or its adapters are trained, and no other thread runs it.

    Each operation within the block looks at the model as it is at that moment.

    Raises:
        NeuroglotError: see :func:`ready`.
    """
    with (
        taking_turn(hf) as turn,
        ordinary_process(hf),
        ready(hf, ()),
        temporarily([(turn, "is_trained", True)]),
    ):
        yield


@contextmanager
def ready(hf: PreTrainedModel, sites: Sites) -> Iterator[None]:
    """Within the block, the model is in evaluation mode, and foreign hooks cannot change it.

    Raises:
        NeuroglotError: the model was compiled, has adapters, had modules replaced, or has a foreign
            hook that changes values; or PyTorch's default number type is not float32.
    """
    refuse_default_dtype()
    refuse_compiled(hf)
    with taking_turn(hf) as turn:
        if not turn.is_trained:
            refuse_adapters(hf)
            _refuse_replaced(hf, sites)
        if not turn.is_hooked:
            refuse_own_hooks(hf)
        in_training = ((module, "training", False) for module in hf.modules() if module.training)
        with temporarily(in_training), guarding(hf) as hooks:
            # A hook that changes values is found before anything is computed. This is skipped under
            # an edit: its neuron sets may be given by prompt, and these tokens are no prompt.
            if hooks and not turn.running.edits:
                _require_only_looking(hf, hooks)
            yield


@torch.inference_mode()
def _require_only_looking(hf: PreTrainedModel, hooks: Sequence[str]) -> None:
    """Run a few tokens, and check that foreign hooks leave the logits as they are.

    Raises:
        NeuroglotError: the hooks change the logits.
    """
    with _plain_outputs(hf):
        with suspended(hf):
            expected = probe_logits(hf)
        logits = probe_logits(hf)
    if not torch.equal(logits, expected):
        raise NeuroglotError(
            f"the hooks {listed(hooks, 3)} change what the model computes, so results would "
            "not be the model's own. Remove them (handle.remove()), or edit with neuroglot.edit."
        )


def refuse_default_dtype() -> None:
    """Refuse any default number type but float32, which is PyTorch's own.

    Raises:
        NeuroglotError: the default is another type; the message names it.
    """
    # While transformers creates a model, it sets the model's type as the default for all threads.
    with LOADING:
        dtype = torch.get_default_dtype()
    if dtype != torch.float32:
        raise NeuroglotError(
            f"PyTorch's default number type is {dtype}, in which models compute other numbers; "
            "call torch.set_default_dtype(torch.float32). To load a model in another type, use "
            "load_model(…, dtype=…)."
        )


def _modules(model: object) -> list[tuple[str, nn.Module]]:
    """The modules of a model by name; an empty list for anything that is not a module."""
    return list(model.named_modules()) if isinstance(model, nn.Module) else []


def refuse_compiled(hf: object) -> None:
    """Refuse a model that was compiled: compiled code ignores hooks.

    Raises:
        NeuroglotError: a module was compiled; the message names it.
    """
    for name, module in _modules(hf):
        is_compiled = (
            type(module).__name__ == "OptimizedModule"  # importing its class takes seconds
            or module._compiled_call_impl is not None  # noqa: SLF001
            or hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
        )
        if is_compiled:
            raise NeuroglotError(
                f"{name or 'the model'} was compiled with torch.compile, and compiled code ignores "
                "the hooks that read and edit neurons. Pass the uncompiled model: the one that was "
                "given to torch.compile (compiled._orig_mod), or load it again."
            )


def refuse_adapters(hf: object) -> None:
    """Refuse PEFT adapters that are not merged into the weights.

    Raises:
        NeuroglotError: there are such adapters; the message says how to merge them.
    """
    adapted = [
        name or type(module).__name__
        for name, module in _modules(hf)
        if type(module).__module__.partition(".")[0] == "peft"
    ]
    if adapted:
        raise NeuroglotError(
            f"the model has adapters of PEFT beside its weights ({listed(adapted, 2)}), so its "
            "neurons are computed in two places. Pass the merged model: "
            "neuroglot.wrap_model(peft_model.merge_and_unload(), tokenizer); or load the "
            "adapters' folder with neuroglot.load_model."
        )


def _refuse_replaced(hf: nn.Module, sites: Sites) -> None:
    """Refuse a model whose down projections have been replaced since they were found."""
    modules = dict(hf.named_modules())
    for site in sites:
        if modules.get(site.path) is not site.down:
            raise NeuroglotError(
                f"{site.path} has been replaced by another module since the model was loaded; "
                "call neuroglot.wrap_model again."
            )


def _plain_outputs(hf: nn.Module) -> AbstractContextManager[None]:
    """Within the block, outputs hold logits only, whatever the configuration asks for."""
    modules = (module for module in hf.modules() if hasattr(module, "config"))
    configs = {id(module.config): module.config for module in modules}
    return temporarily(
        (config, name, plain)
        for config in configs.values()
        for name, plain in PLAIN_OUTPUTS.items()
        if getattr(config, name, plain) != plain
    )


@contextmanager
def ordinary_process(hf: nn.Module | None = None) -> Iterator[None]:
    """Within the block, autocast is off, and tensors are created on the CPU by default."""
    _wake_after_fork()
    parameters = () if hf is None else hf.parameters()
    kinds = {"cpu"} | {parameter.device.type for parameter in parameters} - {"meta"}
    if isinstance(hf, PreTrainedModel):
        kinds.add(input_device(hf).type)  # where offloaded weights are brought to
    with ExitStack() as stack:
        for kind in sorted(kinds):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def _wake_after_fork() -> None:
    """Use one thread in a forked process: PyTorch's threads are not in it, and it would wait."""
    if os.getpid() != IMPORTED_IN and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        warnings.warn(
            "this process was forked from one that had imported neuroglot, and PyTorch's threads "
            "are not in it, so PyTorch now uses a single thread here. Start processes with "
            "'spawn' to use more.",
            stacklevel=2,
        )
