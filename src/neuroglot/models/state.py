"""The state of model and process: what would change results is put right, or refused."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from neuroglot.errors import NeuroglotError, listed
from neuroglot.models.foreign import guarding, refuse_own_hooks, suspended
from neuroglot.models.probing import input_device, probe_logits
from neuroglot.models.sites import FFNSite
from neuroglot.models.turns import Turn, taking_turn

Sites = Sequence[FFNSite]
# What a configuration may ask for beside the logits, and what is read of the outputs here.
PLAIN_OUTPUTS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
IMPORTED_IN = os.getpid()
LOADING = threading.RLock()
"""Held while a model is loaded, which changes settings of the whole process."""


@contextmanager
def operating(hf: PreTrainedModel, sites: Sites = ()) -> Iterator[Turn]:
    """Within the block, the model computes what it would in a fresh process, in one thread.

    It is in evaluation mode, autocast and another default device are off, and nobody else runs it.
    When the block ends, all is as it was. Blocks may stand within each other.

    Args:
        hf: the model.
        sites: its feed-forward networks, where they are known.

    Raises:
        NeuroglotError: see :func:`ready`.
    """
    with taking_turn(hf) as turn, ExitStack() as stack:
        if not turn.is_operating:
            stack.enter_context(ordinary_process(hf))
            stack.enter_context(_plain_outputs(hf))
            stack.enter_context(ready(hf, sites))
            turn.is_operating = True
            stack.callback(setattr, turn, "is_operating", False)  # noqa: FBT003
        yield turn


@contextmanager
def training(hf: PreTrainedModel) -> Iterator[None]:
    """Within the block, the model or adapters in it are trained, and nobody else runs it.

    Operations within the block look at the model anew, each as it is then.

    Raises:
        NeuroglotError: see :func:`ready`.
    """
    with taking_turn(hf) as turn, ordinary_process(hf), ready(hf, ()):
        turn.is_trained = True
        try:
            yield
        finally:
            turn.is_trained = False


@contextmanager
def ready(hf: PreTrainedModel, sites: Sites) -> Iterator[None]:
    """Within the block, the model is in evaluation mode, and hooks of others cannot change it.

    Raises:
        NeuroglotError: the model was compiled, has adapters, had modules replaced, or has a hook
            of somebody else that changes values; or PyTorch's default number type is not float32.
    """
    refuse_default_dtype()
    refuse_compiled(hf)
    with taking_turn(hf) as turn:
        if not turn.is_trained:
            refuse_adapters(hf)
            _refuse_replaced(hf, sites)
        if not turn.is_hooked:
            refuse_own_hooks(hf)
        with _evaluation_mode(hf), guarding(hf) as hooks:
            # So that one that changes values is found before anything is computed. Under an edit
            # that is left out: its sets may be of the prompts of a task, and these tokens are none.
            if hooks and not turn.running.edits:
                _require_only_looking(hf, hooks)
            yield


@torch.inference_mode()
def _require_only_looking(hf: PreTrainedModel, hooks: Sequence[str]) -> None:
    """Run a few tokens, and see that hooks of others leave the logits as they are.

    Raises:
        NeuroglotError: they do not.
    """
    with _plain_outputs(hf):
        with suspended(hf):
            expected = probe_logits(hf)
        found = probe_logits(hf)
    if not torch.equal(found, expected):
        raise NeuroglotError(
            f"the hooks {listed(hooks, 3)} change what the model computes, so that results would "
            "not be the model's own. Remove them (handle.remove()), or edit with neuroglot.edit."
        )


def refuse_default_dtype() -> None:
    """Refuse another default number type than PyTorch's own.

    Raises:
        NeuroglotError: it says which there is.
    """
    # Transformers sets another one for all threads while it makes a model of that type.
    with LOADING:
        found = torch.get_default_dtype()
    if found != torch.float32:
        raise NeuroglotError(
            f"PyTorch's default number type is {found}, in which models "
            "compute other numbers; call torch.set_default_dtype(torch.float32). To load a model "
            "in another type, use load_model(…, dtype=…)."
        )


def _modules(given: object) -> list[tuple[str, nn.Module]]:
    """Modules by name; none of what is no module."""
    return list(given.named_modules()) if isinstance(given, nn.Module) else []


def refuse_compiled(hf: object) -> None:
    """Refuse a model whose code was compiled, which goes past hooks.

    Raises:
        NeuroglotError: it names what was compiled.
    """
    for name, module in _modules(hf):
        is_compiled = (
            type(module).__name__ == "OptimizedModule"  # importing its class takes seconds
            or module._compiled_call_impl is not None  # noqa: SLF001
            or hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
        )
        if is_compiled:
            raise NeuroglotError(
                f"{name or 'the model'} was compiled with torch.compile, and compiled code goes "
                "past the hooks that read and edit neurons. Give the uncompiled model: the one "
                "that was given to torch.compile (compiled._orig_mod), or load it again."
            )


def refuse_adapters(hf: object) -> None:
    """Refuse adapters of PEFT that are not part of the weights.

    Raises:
        NeuroglotError: it says how to merge them.
    """
    adapted = [
        name or type(module).__name__
        for name, module in _modules(hf)
        if type(module).__module__.partition(".")[0] == "peft"
    ]
    if adapted:
        raise NeuroglotError(
            f"the model has adapters of PEFT beside its weights ({listed(adapted, 2)}), so that "
            "neurons are computed in two places. Give the merged model: "
            "neuroglot.wrap_model(peft_model.merge_and_unload(), tokenizer); or load the "
            "adapters' folder with neuroglot.load_model."
        )


def _refuse_replaced(hf: nn.Module, sites: Sites) -> None:
    """Refuse a model in which other modules stand where neurons were found."""
    modules = dict(hf.named_modules())
    for site in sites:
        if modules.get(site.path) is not site.down:
            raise NeuroglotError(
                f"{site.path} is another module than the one that was found when the model was "
                "loaded; call neuroglot.wrap_model again."
            )


@contextmanager
def _evaluation_mode(hf: nn.Module) -> Iterator[None]:
    """Modules that were left in training mode are put back into it afterwards."""
    left = [module for module in hf.modules() if module.training]
    try:
        for module in left:
            module.training = False
        yield
    finally:
        for module in left:
            module.training = True


@contextmanager
def _plain_outputs(hf: nn.Module) -> Iterator[None]:
    """Outputs are objects that hold logits and no more, whatever the configuration asks for."""
    configs = {id(x.config): x.config for x in hf.modules() if hasattr(x, "config")}
    before = [
        (config, name, getattr(config, name))
        for config in configs.values()
        for name, plain in PLAIN_OUTPUTS.items()
        if getattr(config, name, plain) != plain
    ]
    for config, name, _ in before:
        setattr(config, name, PLAIN_OUTPUTS[name])
    try:
        yield
    finally:
        for config, name, value in before:
            setattr(config, name, value)


@contextmanager
def ordinary_process(hf: nn.Module | None = None) -> Iterator[None]:
    """Within the block, autocast is off, and tensors are made on the CPU unless told otherwise."""
    _wake_after_fork()
    parameters = () if hf is None else hf.parameters()
    kinds = {"cpu"} | {parameter.device.type for parameter in parameters} - {"meta"}
    if isinstance(hf, PreTrainedModel):
        kinds.add(input_device(hf).type)  # where weights are brought to that are kept elsewhere
    with ExitStack() as stack:
        for kind in sorted(kinds):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def _wake_after_fork() -> None:
    """The threads of PyTorch do not live on in a forked process, which would wait for them."""
    if os.getpid() != IMPORTED_IN and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        warnings.warn(
            "this process was forked from one that had imported neuroglot, and PyTorch's threads "
            "are not in it, so PyTorch now uses a single thread here. Start processes with "
            "'spawn' to use more.",
            stacklevel=2,
        )
