"""Load a model by the name of an embedded one, a Hub id or a folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from neuroglot.errors import NeuroglotError, in_one_line, listed
from neuroglot.models.adapters import adapted, check_adapters, merge_adapters
from neuroglot.models.checkpoint import check_weight_files, commit_of
from neuroglot.models.finding import refuse_encoder_decoder
from neuroglot.models.lineage import continued, set_lineage
from neuroglot.models.model import BatchSize, Model, check_batch_size, wrap_model
from neuroglot.models.multimodal import is_multimodal, keep_text_part, left_out, opened_by
from neuroglot.models.sites import FLOATING
from neuroglot.models.state import LOADING, ordinary_process, refuse_default_dtype
from neuroglot.models.tokenization import Tokenization
from neuroglot.quiet import quiet_transformers

LONGEST_REASON = 300  # characters of another library's error message that are shown
TEMPLATE = "chat_template.jinja"
# A folder of adapters that holds one of these files has a tokenizer of its own.
TOKENIZER_FILES = (
    "tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt",
    "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json", "added_tokens.json",
    "special_tokens_map.json",
)  # fmt: skip
EMBEDDED = ("embedded/base", "embedded/aligned")


def _embedded_folder(name: str) -> Path:
    if name not in EMBEDDED:
        raise NeuroglotError(f"unknown embedded model {name!r}; there are {listed(EMBEDDED)}.")
    folder = Path(str(resources.files("neuroglot.models"))) / name
    if not (folder / "config.json").exists():
        raise NeuroglotError(
            f"{name} is not in this checkout ({folder}); `make embedded-models` trains it."
        )
    return folder


def _dtype(
    dtype: str | torch.dtype | None, device: torch.device, *, embedded: bool
) -> torch.dtype | str:
    """The number type to compute in.

    Embedded models are stored in float16 to keep them small, but overflow if they compute in it.

    Args:
        dtype: the user's choice, if any.
        device: where the model will run.
        embedded: whether it is an embedded model.

    Raises:
        NeuroglotError: it is not a floating-point type.
    """
    if dtype is None:
        return torch.float32 if embedded or device.type == "cpu" else "auto"
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    number_type = getattr(torch, dtype, None)
    if number_type not in FLOATING:
        raise NeuroglotError(
            f"dtype={dtype!r}: expected 'auto', 'float32', 'bfloat16', 'float16' or 'float64'."
        )
    return cast("torch.dtype", number_type)


def _device(device: str | torch.device | None) -> torch.device:
    """The device that inputs and weights go to.

    Raises:
        NeuroglotError: there is no such device here.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    numbers = {"cpu": 1}  # devices of each kind
    if accelerator:
        numbers[accelerator.type] = torch.accelerator.device_count()
    if device is None or device == "auto":
        return torch.device([*numbers][-1])
    with suppress(RuntimeError):
        wanted = torch.device(device)
        index = 0 if wanted.type == "cpu" else wanted.index or 0
        if index < numbers.get(wanted.type, 0):
            return wanted
    raise NeuroglotError(
        f"device={str(device)!r}: there is no such device here; expected 'auto' or one of "
        f"{listed(numbers)}."
    )


def load_model(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    down_projection: str | None = None,
    tokenization: Tokenization | None = None,
    batch_size: BatchSize = "auto",
    token: str | None = None,
    allow_pickle: bool = False,
) -> Model:
    """Load a dense decoder with its tokenizer and find its feed-forward neurons.

    Args:
        name: ``"embedded/base"``, ``"embedded/aligned"``, a Hub id, or a folder. If the folder
            holds adapters (LoRA), its base model is loaded and the adapters are merged into its
            weights; the folder's own tokenizer and chat template are used if it has them. If the
            model also takes images or sound, only its text part is loaded.
        device: by default a GPU if there is one, otherwise the CPU. ``"auto"`` spreads the layers
            over all devices (``device_map="auto"`` of Hugging Face, which needs Accelerate).
        dtype: ``"float32"``, ``"bfloat16"``, …, or ``"auto"`` for the checkpoint's own type. The
            default is float32 on the CPU and for embedded models, and otherwise the checkpoint's
            own type.
        revision: branch, tag or commit on the Hub.
        down_projection: path of the down projections with ``{i}`` for the layer, if neuroglot does
            not find them by itself.
        tokenization: special tokens, chat template and its arguments, padding side and truncation;
            by default as the tokenizer does.
        batch_size: prompts in a batch; ``"auto"`` fills a budget of tokens.
        token: access token for gated models; by default that of ``hf auth login`` or ``HF_TOKEN``.
        allow_pickle: whether to read weights and adapters that are not safetensors. Pickled weights
            can run code.

    Code that comes with a checkpoint never runs.

    Raises:
        NeuroglotError: the model cannot be found or read, or its sites fail verification.

    Examples:
        >>> import neuroglot as ng
        >>> ng.load_model("embedded/base")
        Model('embedded/base', BloomForCausalLM, 6 layers of 768 neurons, float32 on cpu)
    """
    if not isinstance(name, str | Path):
        raise NeuroglotError(
            f"name is a {type(name).__name__}; expected a Hub id, a folder or the name of an "
            "embedded model. For a model that is already loaded, use "
            "neuroglot.wrap_model(model, tokenizer)."
        )
    check_batch_size(batch_size)
    refuse_default_dtype()
    chosen = {"revision": revision, "token": token}
    try:
        # Weights that are created in inference mode can never have gradients.
        with LOADING, ordinary_process(), quiet_transformers(), torch.inference_mode(mode=False):
            hf, tokenizer, commit = _loaded(name, device, dtype, chosen, allow_pickle=allow_pickle)
            return wrap_model(
                hf,
                tokenizer,
                name=str(name),
                revision=commit,
                down_projection=down_projection,
                tokenization=tokenization,
                batch_size=batch_size,
            )
    except NeuroglotError:
        raise
    except Exception as error:  # configurations, weights and tokenizers can fail in any way
        raise _explained(name, error) from error


def _loaded(
    name: str | Path,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    chosen: dict[str, Any],
    *,
    allow_pickle: bool,
) -> tuple[PreTrainedModel, Tokenizer, str | None]:
    """Model, tokenizer and commit; ``chosen`` holds the revision and the token for the Hub."""
    parts = adapted(name)
    for folder in parts.folders:
        check_adapters(folder, allow_pickle=allow_pickle)
    embedded = parts.base.startswith("embedded/")
    source = _embedded_folder(parts.base) if embedded else parts.base
    wanted = chosen["revision"] or parts.revision
    options = chosen | {"revision": wanted, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(source, **options)
    refuse_encoder_decoder(config)
    auto = opened_by(config)
    place = config.name_or_path or source  # where transformers has found it
    commit = commit_of(place, options) or wanted
    at_commit = options | {"revision": commit}
    check_weight_files(place, config, at_commit, allow_pickle=allow_pickle)
    tokenizer = _tokenizer(source, parts.folders, config, options)
    number_type = _dtype(dtype, _device(device), embedded=embedded)
    safe = None if allow_pickle else True
    weights = {"config": config, "dtype": number_type, "use_safetensors": safe} | options
    hf = _read(auto, source, weights, device)
    for folder in parts.folders:
        checkpoints = continued(hf)
        hf = merge_adapters(hf, folder)
        set_lineage(hf, checkpoints)
    n_embeddings = len(next(hf.get_input_embeddings().parameters()))
    if parts.folders and len(tokenizer) > n_embeddings:
        # The embeddings of the other tokens would be random numbers.
        raise NeuroglotError(
            f"the tokenizer has {len(tokenizer)} tokens and the model embeddings for "
            f"{n_embeddings}: the adapters in {str(parts.folders[-1])!r} hold none for the others. "
            "Save the embeddings with them (modules_to_save)."
        )
    return hf, tokenizer, commit


def _explained(name: str | Path, error: Exception) -> NeuroglotError:
    """The error for a model that another library could not load."""
    reason = in_one_line(error)
    if "trust_remote_code" in reason:
        return NeuroglotError(
            f"model {str(name)!r} needs code of its own, which load_model never runs. If you trust "
            "it, load model and tokenizer yourself with trust_remote_code=True and pass them to "
            "neuroglot.wrap_model(model, tokenizer)."
        )
    if len(reason) > LONGEST_REASON:
        reason = f"{reason[:LONGEST_REASON]}…"
    return NeuroglotError(
        f"cannot load model {str(name)!r}: {reason} "
        f"(expected {listed(EMBEDDED)}, a Hub id or a folder with safetensors weights; "
        "allow_pickle=True also reads pickled ones; gated models need a token)"
    )


def _tokenizer(
    source: str | Path,
    adapters: Sequence[Path],
    config: PreTrainedConfig,
    options: dict[str, Any],
) -> Tokenizer:
    """The tokenizer of the last folder of adapters that has one, otherwise the base model's.

    Args:
        source: folder or Hub id of the base model.
        adapters: folders of adapters, in the order in which they are merged into the model.
        config: configuration of the base model.
        options: revision and token for the Hub.

    Raises:
        NeuroglotError: the tokenizer cannot be read, or has no vocabulary.
    """
    own = [
        i
        for i, folder in enumerate(adapters)
        if any((folder / name).is_file() for name in TOKENIZER_FILES)
    ]
    if own:
        where: str | Path = adapters[own[-1]]
        later = adapters[own[-1] + 1 :]
        try:
            tokenizer: Tokenizer = AutoTokenizer.from_pretrained(
                where, config=config, trust_remote_code=False
            )
        except Exception as error:  # its files can be broken in any way
            reason = in_one_line(error)[:LONGEST_REASON]
            raise NeuroglotError(
                f"cannot read the tokenizer beside the adapters in {str(where)!r}: {reason} (save "
                "it there anew, or remove its files to use the base model's)"
            ) from error
    else:
        where, later = source, adapters
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    if tokenizer.vocab_size <= len(tokenizer.all_special_ids):
        raise NeuroglotError(
            f"the tokenizer in {str(where)!r} knows {tokenizer.vocab_size} words: the file of its "
            "vocabulary is missing or empty."
        )
    for folder in later:
        if (folder / TEMPLATE).is_file():
            tokenizer.chat_template = (folder / TEMPLATE).read_text(encoding="utf-8")
    return tokenizer


def _read(
    auto: Any, source: str | Path, options: dict[str, Any], device: str | torch.device | None
) -> PreTrainedModel:
    """The model on its devices; only its text part if it takes more than text.

    Args:
        auto: class of transformers that opens the model.
        source: a folder, or a Hub id.
        options: arguments of ``from_pretrained``.
        device: the user's choice.

    Raises:
        NeuroglotError: the checkpoint lacks weights.
    """
    hf, report = auto.from_pretrained(
        source,
        device_map="auto" if device == "auto" else None,
        output_loading_info=True,
        **options,
    )
    # Quantised weights are already on their device, and cannot be moved.
    if device != "auto" and not getattr(hf, "is_quantized", False):
        torch.nn.Module.to(hf, device=_device(device))  # transformers' own wrapper hides the types
    if is_multimodal(hf.config):
        keep_text_part(hf)
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    absent = [name for name in absent if not name.startswith(left_out(hf))]
    if absent:
        # These weights would be random numbers.
        raise NeuroglotError(f"the checkpoint {str(source)!r} lacks weights: {listed(absent)}.")
    return cast("PreTrainedModel", hf)
