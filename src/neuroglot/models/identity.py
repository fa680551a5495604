"""Checksums that distinguish models: of weights, of configuration and code, and of the tokenizer.

The checksum of the weights covers every byte of every parameter and buffer. That of the
configuration leaves out settings that only name, train or print the model. That of the tokenizer
covers everything that decides how a text becomes tokens and tokens become text.
"""

from __future__ import annotations

import json
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any, cast
from weakref import WeakKeyDictionary

import safetensors
import torch
import transformers
import xxhash
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from neuroglot.errors import NeuroglotError
from neuroglot.models.tokenization import end_tokens

# Settings of a configuration or a module that do not affect what the model computes in evaluation:
# names and dates, how weights were initialised and trained, and which outputs accompany the logits.
NOT_COMPUTED = re.compile(
    r"_?name_or_path|_commit_hash|transformers_version|architectures|auto_map|neuroglot_\w+|"
    r"(torch_)?dtype|use_cache|output_(attentions|hidden_states|router_logits)|return_dict|"
    r"problem_type|id2label|label2id|num_labels|finetuning_task|\w*initializer_(range|factor)|"
    r"init_std|(?!token_)(\w+_)?(p?drop|dropout|layerdrop|layer_?drop_?prob)(_(prob|p|rate))?|"
    r"training|gradient_checkpointing|max_seq_len_cached|loss_type|\w*loss_coef\w*"
)
# Kinds of rotary embeddings that compute their factors anew for every batch.
SET_BY_BATCH = ("dynamic", "longrope")
LIBRARIES = ("torch", "transformers")
# Folders with the code of these libraries, and of one that transformers imports functions from.
INSTALLED = tuple(Path(str(x.__file__)).parent for x in (torch, transformers, safetensors))
PYTHON = Path(sysconfig.get_path("stdlib"))
INNER = frozenset(vars(nn.Module()))  # attributes that every module has
PLAIN = (bool, int, float, str, type(None))
# Settings of a tokenizer beside its vocabulary. The padding token has no effect on results.
TOKENIZER_SETTINGS = (
    *("add_bos_token", "add_eos_token", "add_prefix_space", "split_special_tokens"),
    *("clean_up_tokenization_spaces", "legacy", "do_lower_case", "keep_accents"),
    *("bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token"),
)
OF_THE_LAST_BATCH = ("idx", "subB")  # attributes that bitsandbytes sets while it runs
MULTIPLIER = 0x1E3779B97F4A7C15  # spreads neighbouring numbers over 64 bits
ELEMENTS = 2**24  # of a tensor on an accelerator that are processed at once


@dataclass(frozen=True)
class Identity:
    """Checksums that are equal if two models compute the same from the same text.

    Attributes:
        weights: checksum over all parameters and buffers, with their names.
        config: checksum over everything else that a forward pass depends on, and the end tokens.
        tokenizer: checksum over how a text becomes tokens, and tokens become text.
    """

    weights: str
    config: str
    tokenizer: str

    @property
    def whole(self) -> str:
        """One checksum over all three."""
        return _digest(json.dumps(asdict(self)).encode())


def identity(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Identity:
    """The checksums of a model in its current state.

    Raises:
        NeuroglotError: a weight has no values.
    """
    return Identity(
        weights_checksum(hf), config_checksum(hf, tokenizer), tokenizer_checksum(tokenizer)
    )


def _digest(data: Any) -> str:
    """A checksum of 32 hexadecimal digits."""
    return xxhash.xxh3_128(data).hexdigest()


def weights_checksum(hf: nn.Module) -> str:
    """Checksum over every byte of parameters and buffers, with their names, types and shapes.

    Tensors on the CPU are read each time, which takes less time than a forward pass. Tensors on an
    accelerator are copied from there once, and again after they have changed.

    Raises:
        NeuroglotError: a weight has no values.
    """
    whole = xxhash.xxh3_128()
    for name, tensor in _tensors(hf):
        kind = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
        whole.update(f"{kind} {_content(hf, name, tensor)};".encode())
    return whole.hexdigest()


def _tensors(hf: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All tensors that a model computes with, by name; shared ones are noted as such."""
    first: dict[int, str] = {}
    for path, module in hf.named_modules(remove_duplicate=False):
        weights = {**module._parameters, **module._buffers}  # noqa: SLF001
        kept = (
            *((key, value) for key, value in weights.items() if value is not None),
            *_beside(module, weights),
        )
        for key, tensor in kept:
            if key.endswith("inv_freq") and _sets_factors(module):
                continue
            name = f"{path}.{key}" if path else key
            if first.setdefault(id(tensor), name) != name:
                yield f"{name} is {first[id(tensor)]}", torch.empty(0)
                continue
            yield from _plain(name, _offloaded(module, key) if tensor.is_meta else tensor)


def _is_usual(module: nn.Module) -> bool:
    """Whether a module's class is from PyTorch or transformers, which hide no tensors."""
    return type(module).__module__.partition(".")[0] in LIBRARIES


def _sets_factors(module: nn.Module) -> bool:
    """Whether a module computes its rotary factors anew if texts are long."""
    kinds = getattr(module, "rope_type", None)
    kinds = kinds.values() if isinstance(kinds, Mapping) else (kinds,)
    return any(kind in SET_BY_BATCH for kind in kinds)


def _beside(
    module: nn.Module, weights: Mapping[str, Tensor | None]
) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a module that are neither parameters nor buffers, such as scales.

    Quantised layers of other libraries keep them in objects beside their weights. ``state_dict``
    would also list them, but it changes some quantised models.
    """
    holders: dict[str, Any] = {"": module}
    if not _is_usual(module):
        holders |= {f"{key}.": value for key, value in weights.items() if value is not None}
    for begin, holder in holders.items():
        for key, value in vars(holder).items():
            if key in INNER or (key.startswith("_") and _is_usual(module)):
                continue
            if isinstance(value, Tensor):
                yield begin + key, value
            elif len(holders) > 1:
                yield from _inside(begin + key, value, 2)


def _inside(name: str, value: Any, depth: int) -> Iterator[tuple[str, Tensor]]:
    """Tensors among the attributes of an object, and of objects that it holds, to a given depth."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple) and depth:
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in pairs:
            yield from _inside(f"{name}[{key}]", inner, depth - 1)
    elif depth and not isinstance(value, nn.Module | type) and hasattr(value, "__dict__"):
        for key, inner in vars(value).items():
            if key not in OF_THE_LAST_BATCH:
                yield from _inside(f"{name}.{key}", inner, depth - 1)


def _plain(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The plain tensors that a quantised tensor consists of; any other tensor as it is."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield name, tensor.detach()
        return
    parts, context = flatten()
    yield f"{name} {context!r}", torch.empty(0)
    for part in parts:
        yield from _plain(f"{name}.{part}", getattr(tensor, part))


def _offloaded(module: nn.Module, key: str) -> Tensor:
    """A weight that Accelerate keeps elsewhere, such as on the disk, and loads when it is needed.

    Raises:
        NeuroglotError: the weight has no values anywhere.
    """
    outer = getattr(module, "_hf_hook", None)
    for hook in getattr(outer, "hooks", (outer,)):
        weights = getattr(hook, "weights_map", None)
        if weights is not None:
            return cast("Tensor", weights[key])
    raise NeuroglotError(
        f"the weight {key!r} of a {type(module).__name__} has no values (device 'meta'); load the "
        "model with its weights."
    )


# For each tensor on an accelerator: a state that changes with its values, and its checksum.
_SEEN: WeakKeyDictionary[nn.Module, dict[str, tuple[tuple[Any, ...], str]]] = WeakKeyDictionary()


def _content(hf: nn.Module, name: str, tensor: Tensor) -> str:
    """Checksum of the bytes of a tensor on any device."""
    return _digest(_bytes(tensor)) if tensor.device.type == "cpu" else _kept(hf, name, tensor)


def _kept(hf: nn.Module, name: str, tensor: Tensor) -> str:
    """The same, computed anew only if the tensor has changed since."""
    version = None if tensor.is_inference() else tensor._version  # noqa: SLF001
    # Writing to `.data` does not change the version, so the state includes a sum over all bits.
    state = (tensor.data_ptr(), version, tensor.stride(), tally(tensor))
    seen = _SEEN.setdefault(hf, {})
    if name not in seen or seen[name][0] != state:
        seen[name] = state, _digest(_bytes(tensor))
    return seen[name][1]


def _bytes(tensor: Tensor) -> Any:
    """The bytes of a tensor, in the order of its elements."""
    return tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy()


def tally(tensor: Tensor) -> int:
    """A sum over the bytes of a tensor, each multiplied by an odd number that depends on its place.

    It is computed on the tensor's device. A change of one byte always changes the sum, and a change
    of several bytes almost surely does.
    """
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    total = 0
    for start in range(0, len(flat), ELEMENTS):
        piece = flat[start : start + ELEMENTS].to(torch.int64)
        places = torch.arange(start, start + len(piece), device=flat.device)
        total += int((piece * (places * MULTIPLIER | 1)).sum())  # sums wrap around
    return total


def config_checksum(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Checksum over everything that decides what the model computes with its weights.

    It covers the configuration; the classes and plain attributes of all modules, which can be
    changed after loading; and the tokens at which the model stops writing.
    """
    end = end_tokens(tokenizer, getattr(hf, "generation_config", None))
    return _settings_checksum(hf, {"end": (end[0] if end else None) if len(end) < 2 else end})


def computing_checksum(hf: PreTrainedModel) -> str:
    """As :func:`config_checksum`, but for a forward pass only, without the end tokens."""
    return _settings_checksum(hf, {})


def _settings_checksum(hf: PreTrainedModel, more: Mapping[str, Any]) -> str:
    settings: dict[str, Any] = {
        "config": _computing(hf.config.to_dict()),
        "attention": getattr(hf.config, "_attn_implementation", None),
        **more,
        "modules": {name: _module(module) for name, module in hf.named_modules()},
        # Each module uses its own configuration, which may differ from the one above.
        "configs": [_computing(config.to_dict()) for config in configs_of(hf)],
    }
    # Values that JSON cannot hold, such as classes, count by their type only.
    text = json.dumps(settings, sort_keys=True, default=lambda value: str(type(value)))
    return _digest(text.encode())


def is_plainly_coded(hf: PreTrainedModel) -> bool:
    """Whether all code that a model runs is from installed libraries, so versions identify it.

    This checks methods and functions as well as classes, because a library's own can be replaced,
    and attention functions can be registered under any name.
    """
    kinds = {type(module) for module in hf.modules()}
    plain = all(
        # Accelerate replaces `forward` by a function of its own.
        _is_usual(module) and (_is_hooked(module) or not _has_replaced_methods(module))
        for module in hf.modules()
    )
    return plain and all(map(_is_installed, [*_functions(kinds), *_attention(hf)]))


def attentions(hf: PreTrainedModel) -> list[str | None]:
    """Names of the attention implementations in all configurations of a model."""
    return [getattr(config, "_attn_implementation", None) for config in configs_of(hf)]


def _functions(kinds: Iterable[type]) -> Iterator[FunctionType]:
    """Methods of classes, and the functions of the modules of code in which these are defined."""
    classes = {base for kind in kinds for base in kind.__mro__}
    files = filter(None, map(sys.modules.get, {kind.__module__ for kind in kinds}))
    for holder in (*classes, *files):
        yield from (value for value in vars(holder).values() if isinstance(value, FunctionType))


def _attention(hf: PreTrainedModel) -> Iterator[Any]:
    """The functions that compute attention and its masks, by the names in configurations."""
    for name in filter(None, attentions(hf)):
        for registry in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS):
            if name in registry:
                yield registry[name]


def _is_installed(function: Any) -> bool:
    """Whether a function's code is in the files of PyTorch, transformers or Python itself."""
    # Wrappers copy the name and module of the function that they wrap, but not its code.
    code = getattr(function, "__code__", None)
    file = Path(code.co_filename) if code is not None else Path()
    if any(file.is_relative_to(folder) for folder in INSTALLED):
        return True
    return file.is_relative_to(PYTHON) and "site-packages" not in file.parts


def _has_replaced_methods(module: nn.Module) -> bool:
    """Whether a module has attributes that hide methods of its class."""
    return any(callable(getattr(type(module), name, None)) for name in vars(module))


def configs_of(hf: PreTrainedModel) -> list[PreTrainedConfig]:
    """All different configurations of a model's modules, in the order of the modules."""
    configs = (getattr(module, "config", None) for module in hf.modules())
    return list({id(c): c for c in configs if isinstance(c, PreTrainedConfig)}.values())


def _computing(settings: Mapping[Any, Any]) -> dict[str, Any]:
    """Settings without those that have no effect on what is computed, also in nested settings."""
    return {
        str(key): _computing(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if not NOT_COMPUTED.fullmatch(str(key))
    }


def _module(module: nn.Module) -> dict[str, Any]:
    """Class, code and plain attributes of a module."""
    kind = type(module)
    description: dict[str, Any] = {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        # This is the method of the class, unless it has been replaced.
        "code": f"{kind.forward.__module__}.{kind.forward.__qualname__}",
    }
    for key, value in vars(module).items():
        hidden = key in INNER or (key.startswith("_") and _is_usual(module))
        if hidden or NOT_COMPUTED.fullmatch(key):
            continue
        if _is_plain(value):
            # Dropout has no effect in evaluation mode.
            if not isinstance(module, nn.modules.dropout._DropoutNd):  # noqa: SLF001
                description[key] = value
        # Accelerate replaces `forward` by a function of its own.
        elif callable(value) and not isinstance(value, nn.Module) and not _is_hooked(module):
            description[key] = _code(value)
    return description


def _is_hooked(module: nn.Module) -> bool:
    return "_hf_hook" in vars(module)


def _code(function: Any, depth: int = 3) -> Any:
    """A description of a function that was put into a module: its code, and the values it holds."""
    if isinstance(function, partial):
        held = [function.func, *function.args, *function.keywords.values()]
    elif isinstance(function, MethodType):
        held = [function.__func__]
    elif isinstance(function, FunctionType):
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        held = [*cells, *(function.__defaults__ or ())]
    else:
        return f"{type(function).__module__}.{getattr(function, '__qualname__', type(function))}"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    own = []
    if code is not None:
        constants = [c.co_code if isinstance(c, CodeType) else c for c in code.co_consts]
        own = [_digest(code.co_code), repr(code.co_names), repr(constants)]
    return [name, *own, *(_held(value, depth) for value in held)]


def _held(value: Any, depth: int) -> Any:
    """A description of a value that a function holds."""
    if _is_plain(value):
        return value
    if isinstance(value, Tensor):
        return _digest(_bytes(value))
    if callable(value) and not isinstance(value, nn.Module | type) and depth:
        return _code(value, depth - 1)
    return str(type(value))


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(map(_is_plain, chain.from_iterable(value.items())))
    return isinstance(value, PLAIN)


def tokenizer_checksum(tokenizer: PreTrainedTokenizerBase) -> str:
    """Checksum over everything that decides how a text becomes tokens, and tokens become text."""
    settings = {key: str(getattr(tokenizer, key, None)) for key in TOKENIZER_SETTINGS}
    whole = xxhash.xxh3_128(json.dumps(settings).encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        text = backend.to_str()
        # The text begins with truncation and padding, which every call may set anew.
        whole.update(text[max(0, text.find('"added_tokens"')) :].encode())
    else:
        whole.update(_vocabulary(tokenizer))
    return whole.hexdigest()


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> bytes:
    """Class, tokens and files of a tokenizer without a compiled backend."""
    kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    with tempfile.TemporaryDirectory() as folder:
        with suppress(NotImplementedError, ValueError):  # raised if it has no files
            tokenizer.save_vocabulary(folder)
        files = [file.read_bytes() for file in sorted(Path(folder).rglob("*")) if file.is_file()]
    return b"\0".join([json.dumps([kind, tokens]).encode("utf-8", "surrogatepass"), *files])
