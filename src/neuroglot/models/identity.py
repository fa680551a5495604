"""What tells one model from another: its weights, what it computes with them, and its tokenizer.

The weights count with every byte of every parameter and buffer, the configuration with everything
but what only names, trains or prints the model, and the tokenizer with all that decides how a text
becomes tokens and tokens become text.
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
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any
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

# Of a configuration or a module, what does not change what the model computes when it is used:
# names and dates, how weights were drawn and trained, and what is printed beside the logits.
NOT_COMPUTED = re.compile(
    r"_?name_or_path|_commit_hash|transformers_version|architectures|auto_map|neuroglot_\w+|"
    r"(torch_)?dtype|use_cache|output_(attentions|hidden_states|router_logits)|return_dict|"
    r"problem_type|id2label|label2id|num_labels|finetuning_task|\w*initializer_(range|factor)|"
    r"init_std|(?!token_)(\w+_)?(p?drop|dropout|layerdrop|layer_?drop_?prob)(_(prob|p|rate))?|"
    r"training|gradient_checkpointing|max_seq_len_cached|loss_type|\w*loss_coef\w*"
)
# Rotary factors that these set anew for every batch, from the configuration.
SET_BY_BATCH = ("dynamic", "longrope")
LIBRARIES = ("torch", "transformers")
# Where the code of these is, and of what transformers imports beside it.
INSTALLED = tuple(Path(str(x.__file__)).parent for x in (torch, transformers, safetensors))
PYTHON = Path(sysconfig.get_path("stdlib"))
INNER = frozenset(vars(nn.Module()))  # where PyTorch keeps what every module has
PLAIN = (bool, int, float, str, type(None))
# What a tokenizer keeps beside its vocabulary. Padding never counts, so that its token does not.
TOKENIZER_SETTINGS = (
    *("add_bos_token", "add_eos_token", "add_prefix_space", "split_special_tokens"),
    *("clean_up_tokenization_spaces", "legacy", "do_lower_case", "keep_accents"),
    *("bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token"),
)
OF_THE_LAST_BATCH = ("idx", "subB")  # what bitsandbytes notes while it runs
MULTIPLIER = 0x1E3779B97F4A7C15  # spreads neighbouring numbers over 64 bits
ELEMENTS = 2**24  # of a tensor that are looked at together where it lies on an accelerator


@dataclass(frozen=True)
class Identity:
    """Checksums that are equal for models that compute the same from the same text.

    Attributes:
        weights: every byte of parameters and buffers, under their names.
        config: everything else that the forward pass depends on, and the end tokens.
        tokenizer: how a text becomes tokens, and tokens become text.
    """

    weights: str
    config: str
    tokenizer: str

    @property
    def whole(self) -> str:
        """One checksum over all three."""
        return _digest(json.dumps(asdict(self)).encode())


def identity(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Identity:
    """The checksums of a model as it is now.

    Raises:
        NeuroglotError: a weight has no values.
    """
    return Identity(
        weights_checksum(hf), config_checksum(hf, tokenizer), tokenizer_checksum(tokenizer)
    )


def _digest(data: Any) -> str:
    """32 hexadecimal digits for any bytes."""
    return xxhash.xxh3_128(data).hexdigest()


def weights_checksum(hf: nn.Module) -> str:
    """Checksum over every byte of parameters and buffers, with their names, types and shapes.

    On the CPU the bytes are read each time, which costs less than one forward pass. What lies on
    an accelerator is copied from there once, and again when it has changed.

    Raises:
        NeuroglotError: a weight has no values.
    """
    whole = xxhash.xxh3_128()
    for name, tensor in _tensors(hf):
        kind = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
        whole.update(f"{kind} {_content(hf, name, tensor)};".encode())
    return whole.hexdigest()


def _tensors(hf: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Plain tensors of all that a model computes with, by name, and which of them are the same."""
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
    """Whether a module's class is from libraries that keep all they compute with in plain sight."""
    return type(module).__module__.partition(".")[0] in LIBRARIES


def _sets_factors(module: nn.Module) -> bool:
    """Whether a module computes its rotary factors again where texts are long."""
    kinds = getattr(module, "rope_type", None)
    found = kinds.values() if isinstance(kinds, Mapping) else (kinds,)
    return any(kind in SET_BY_BATCH for kind in found)


def _beside(
    module: nn.Module, weights: Mapping[str, Tensor | None]
) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a module that are neither parameters nor buffers, such as scales.

    Quantised layers of other libraries keep theirs in objects beside their weights. Saving a model
    would name them too, but changes some quantised models.
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
    """Tensors among the attributes of an object, and of those that it holds."""
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
    """The tensors that a quantised one is made of; others as they are."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield name, tensor.detach()
        return
    parts, how = flatten()
    yield f"{name} {how!r}", torch.empty(0)
    for part in parts:
        yield from _plain(f"{name}.{part}", getattr(tensor, part))


def _offloaded(module: nn.Module, key: str) -> Tensor:
    """A weight that Accelerate keeps on the disk or elsewhere, and loads when it is needed.

    Raises:
        NeuroglotError: it is nowhere.
    """
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):
        weights = getattr(one, "weights_map", None)
        if weights is not None:
            found: Tensor = weights[key]
            return found
    raise NeuroglotError(
        f"the weight {key!r} of a {type(module).__name__} has no values (device 'meta'); load the "
        "model with its weights."
    )


@dataclass(frozen=True)
class _Seen:
    """The checksum of a tensor on an accelerator, and what must be unchanged for it to hold."""

    state: tuple[Any, ...]
    checksum: str


_SEEN: WeakKeyDictionary[nn.Module, dict[str, _Seen]] = WeakKeyDictionary()


def _content(hf: nn.Module, name: str, tensor: Tensor) -> str:
    """Checksum of the bytes of a tensor, wherever it lies."""
    return _digest(_bytes(tensor)) if tensor.device.type == "cpu" else _kept(hf, name, tensor)


def _kept(hf: nn.Module, name: str, tensor: Tensor) -> str:
    """The same, made anew only where the tensor has changed since."""
    version = None if tensor.is_inference() else tensor._version  # noqa: SLF001
    # Writing to `.data` counts no version, so that all bits are added up as well.
    state = (tensor.data_ptr(), version, tensor.stride(), tally(tensor))
    known = _SEEN.setdefault(hf, {})
    if name not in known or known[name].state != state:
        known[name] = _Seen(state, _digest(_bytes(tensor)))
    return known[name].checksum


def _bytes(tensor: Tensor) -> Any:
    """The bytes of a tensor, in the order of its elements."""
    return tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy()


def tally(tensor: Tensor) -> int:
    """A sum over all bits of a tensor, each byte multiplied with an odd number of its own.

    It is made where the tensor lies. A change of a single byte always changes it, and one of
    several bytes all but surely.
    """
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    total = 0
    for start in range(0, len(flat), ELEMENTS):
        piece = flat[start : start + ELEMENTS].to(torch.int64)
        places = torch.arange(start, start + len(piece), device=flat.device)
        total += int((piece * (places * MULTIPLIER | 1)).sum())  # sums wrap around
    return total


def config_checksum(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Checksum over all that decides what the model computes with its weights.

    These are the configuration and, as both can be changed after loading, the classes and plain
    attributes of all modules; also the tokens at which the model ends what it writes.
    """
    end = end_tokens(tokenizer, getattr(hf, "generation_config", None))
    return _settings_checksum(hf, {"end": (end[0] if end else None) if len(end) < 2 else end})


def computing_checksum(hf: PreTrainedModel) -> str:
    """As :func:`config_checksum`, of a forward pass alone, which has no end tokens."""
    return _settings_checksum(hf, {})


def _settings_checksum(hf: PreTrainedModel, more: Mapping[str, Any]) -> str:
    settings: dict[str, Any] = {
        "config": _computing(hf.config.to_dict()),
        "attention": getattr(hf.config, "_attn_implementation", None),
        **more,
        "modules": {name: _module(module) for name, module in hf.named_modules()},
        # Mostly the same, or parts of it; but each module looks at its own.
        "configs": [_computing(config.to_dict()) for config in configs_of(hf)],
    }
    # Of what is no text or number, such as a class, nothing counts but what kind of thing it is.
    return _digest(json.dumps(settings, sort_keys=True, default=lambda x: str(type(x))).encode())


def is_plainly_coded(hf: PreTrainedModel) -> bool:
    """Whether all code that a model runs is that of installed libraries, which versions tell.

    Methods and functions count beside classes: they can be put in the place of a library's own, and
    attention can be registered under any name.
    """
    kinds = {type(module) for module in hf.modules()}
    plain = all(
        # Accelerate puts a function of its own in the place of `forward`.
        _is_usual(module) and (_is_hooked(module) or not _replaced(module))
        for module in hf.modules()
    )
    return plain and all(map(_is_installed, [*_functions(kinds), *_attention(hf)]))


def attentions(hf: PreTrainedModel) -> list[str | None]:
    """What each configuration of a model says of how its attention is computed."""
    return [getattr(config, "_attn_implementation", None) for config in configs_of(hf)]


def _functions(kinds: Iterable[type]) -> Iterator[FunctionType]:
    """Methods of classes, and the functions that stand beside these where they are defined."""
    classes = {base for kind in kinds for base in kind.__mro__}
    files = {id(x): x for x in map(sys.modules.get, {kind.__module__ for kind in kinds}) if x}
    for holder in (*classes, *files.values()):
        yield from (x for x in vars(holder).values() if isinstance(x, FunctionType))


def _attention(hf: PreTrainedModel) -> Iterator[Any]:
    """What computes attention, and its masks, under the names that configurations use."""
    for name in filter(None, attentions(hf)):
        for known in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS):
            if name in known:
                yield known[name]


def _is_installed(function: Any) -> bool:
    """Whether a function's code is in the files of PyTorch, transformers or Python itself."""
    # What a function says of itself is copied to those that wrap it, but not where its code is.
    code = getattr(function, "__code__", None)
    file = Path(code.co_filename) if code is not None else Path()
    if any(file.is_relative_to(folder) for folder in INSTALLED):
        return True
    return file.is_relative_to(PYTHON) and "site-packages" not in file.parts


def _replaced(module: nn.Module) -> list[str]:
    """Methods in whose place a module itself has something else."""
    return [name for name in vars(module) if callable(getattr(type(module), name, None))]


def configs_of(hf: PreTrainedModel) -> list[PreTrainedConfig]:
    """All configurations that modules hold, in their order."""
    found = (getattr(module, "config", None) for module in hf.modules())
    return list({id(x): x for x in found if isinstance(x, PreTrainedConfig)}.values())


def _computing(settings: Mapping[Any, Any]) -> dict[str, Any]:
    """Settings without those that compute nothing, also inside of others."""
    return {
        str(key): _computing(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if not NOT_COMPUTED.fullmatch(str(key))
    }


def _module(module: nn.Module) -> dict[str, Any]:
    """Class, code and plain attributes of a module."""
    kind = type(module)
    found: dict[str, Any] = {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        # The one of its class, unless somebody has put another in its place.
        "code": f"{kind.forward.__module__}.{kind.forward.__qualname__}",
    }
    for key, value in vars(module).items():
        hidden = key in INNER or (key.startswith("_") and _is_usual(module))
        if hidden or NOT_COMPUTED.fullmatch(key):
            continue
        if _is_plain(value):
            # Dropout does nothing in evaluation mode.
            if not isinstance(module, nn.modules.dropout._DropoutNd):  # noqa: SLF001
                found[key] = value
        # Accelerate puts a function of its own in the place of `forward`.
        elif callable(value) and not isinstance(value, nn.Module) and not _is_hooked(module):
            found[key] = _code(value)
    return found


def _is_hooked(module: nn.Module) -> bool:
    return "_hf_hook" in vars(module)


def _code(function: Any, depth: int = 3) -> Any:
    """What tells a function that was put into a module from others: its code, and what it holds."""
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
    own = [] if code is None else [_digest(code.co_code), repr(code.co_names), _constants(code)]
    return [name, *own, *(_held(value, depth) for value in held)]


def _constants(code: CodeType) -> str:
    """Constants of a function's code; of functions inside of it, their code."""
    return repr([x.co_code if isinstance(x, CodeType) else x for x in code.co_consts])


def _held(value: Any, depth: int) -> Any:
    """What of a value that a function holds can be told."""
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
        return all(_is_plain(x) for pair in value.items() for x in pair)
    return isinstance(value, PLAIN)


def tokenizer_checksum(tokenizer: PreTrainedTokenizerBase) -> str:
    """Checksum over all that decides how a text becomes tokens, and tokens become text."""
    kept = {key: str(getattr(tokenizer, key, None)) for key in TOKENIZER_SETTINGS}
    whole = xxhash.xxh3_128(json.dumps(kept).encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        text = backend.to_str()
        # Before this stand truncation and padding, which every call may set anew.
        whole.update(text[max(0, text.find('"added_tokens"')) :].encode())
    else:
        whole.update(_vocabulary(tokenizer))
    return whole.hexdigest()


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> bytes:
    """What a tokenizer without a compiled backend keeps: class, tokens and files."""
    kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    with tempfile.TemporaryDirectory() as folder:
        with suppress(NotImplementedError, ValueError):  # it has no files
            tokenizer.save_vocabulary(folder)
        files = [file.read_bytes() for file in sorted(Path(folder).rglob("*")) if file.is_file()]
    return b"\0".join([json.dumps([kind, tokens]).encode("utf-8", "surrogatepass"), *files])
