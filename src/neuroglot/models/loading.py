"""Load a model by the name of an embedded one, a Hub id or a folder."""

from __future__ import annotations

from collections.abc import Sequence
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

LONGEST_REASON = 300  # characters of what another library says
TEMPLATE = "chat_template.jinja"
# A folder with one of these has a tokenizer of its own, whole or not.
TOKENIZER_FILES = (
    "tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt",
    "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json", "added_tokens.json",
    "special_tokens_map.json",
)  # fmt: skip
EMBEDDED = ("embedded/base", "embedded/aligned")


def _embedded_folder(name: str) -> Path:
    if name not in EMBEDDED:
        raise NeuroglotError(f"unknown embedded model {name!r}; there are {listed(EMBEDDED)}.")
    # importlib.resources gives a real folder for every ordinary installation.
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

    The embedded models are kept in float16 for their size only, and overflow in it.

    Args:
        dtype: what the user asks for, if anything.
        device: where the model will run.
        embedded: whether it is an embedded one.

    Raises:
        NeuroglotError: nothing can be computed in that.
    """
    if dtype is None:
        return torch.float32 if embedded or device.type == "cpu" else "auto"
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    named = getattr(torch, dtype, None)
    if named not in FLOATING:
        raise NeuroglotError(
            f"dtype={dtype!r}: expected 'auto', 'float32', 'bfloat16', 'float16' or 'float64'."
        )
    return cast("torch.dtype", named)


def _device(device: str | torch.device | None) -> torch.device:
    """The device that inputs and weights go to.

    Raises:
        NeuroglotError: there is no such device here.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    here = ["cpu", *([accelerator.type] if accelerator else [])]
    if device is None or device == "auto":
        return torch.device(here[-1])
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    is_here = found is not None and found.type in here
    if found is not None and is_here and found.type != "cpu":
        is_here = (found.index or 0) < torch.accelerator.device_count()
    if found is None or not is_here:
        raise NeuroglotError(
            f"device={str(device)!r}: there is no such device here; expected 'auto' or one of "
            f"{listed(here)}."
        )
    return found


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
        name: ``"embedded/base"``, ``"embedded/aligned"``, a Hub id, or a folder. A folder of
            adapters (LoRA) is loaded with its base model, and added to its weights; its own
            tokenizer and chat template are used where it has them. Of a model that also takes
            pictures or sound, the text part is loaded.
        device: by default a GPU where there is one, else the CPU. ``"auto"`` spreads the layers
            over all devices (``device_map="auto"`` of Hugging Face; needs Accelerate).
        dtype: ``"float32"``, ``"bfloat16"``, …, or ``"auto"`` for the checkpoint's own type; by
            default float32 on the CPU and for embedded models, else the checkpoint's own type.
        revision: branch, tag or commit of the Hub.
        down_projection: path of the down projections with ``{i}`` for the layer, where it is not
            known.
        tokenization: special tokens, chat template and its arguments, padding side and truncation;
            by default as the tokenizer does.
        batch_size: prompts in a batch; ``"auto"`` fills a budget of tokens.
        token: for gated models; by default the one of ``hf auth login`` or ``HF_TOKEN``.
        allow_pickle: also read weights, and adapters, that are no safetensors. Pickled weights can
            run code.

    Code that comes with a checkpoint never runs.

    Raises:
        NeuroglotError: the model cannot be found or read, or has no sites that verify.
    """
    if not isinstance(name, str | Path):
        raise NeuroglotError(
            f"name is a {type(name).__name__}; expected a Hub id, a folder or the name of an "
            "embedded model. A model that is loaded already is used with "
            "neuroglot.wrap_model(model, tokenizer)."
        )
    check_batch_size(batch_size)
    refuse_default_dtype()
    chosen = {"revision": revision, "token": token}
    try:
        # Weights that are made in inference mode would have no gradients ever after.
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
    """Model, tokenizer and commit; ``chosen`` are revision and token for the Hub."""
    found = adapted(name)
    for folder in found.folders:
        check_adapters(folder, allow_pickle=allow_pickle)
    embedded = found.base.startswith("embedded/")
    source = _embedded_folder(found.base) if embedded else found.base
    wanted = chosen["revision"] or found.revision
    options = chosen | {"revision": wanted, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(source, **options)
    refuse_encoder_decoder(config)
    auto = opened_by(config)
    place = config.name_or_path or source  # where it was found
    commit = commit_of(place, options) or wanted
    at_commit = options | {"revision": commit}
    check_weight_files(place, config, at_commit, allow_pickle=allow_pickle)
    tokenizer = _tokenizer(source, found.folders, config, options)
    number_type = _dtype(dtype, _device(device), embedded=embedded)
    safe = None if allow_pickle else True
    weights = {"config": config, "dtype": number_type, "use_safetensors": safe} | options
    hf = _read(auto, source, weights, device)
    for folder in found.folders:
        line = continued(hf)
        hf = merge_adapters(hf, folder)
        set_lineage(hf, line)
    _check_vocabulary(hf, tokenizer, found.folders)
    return hf, tokenizer, commit


def _explained(name: str | Path, error: Exception) -> NeuroglotError:
    """What is said of a model that another library could not load."""
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
    """The tokenizer of the last folder of adapters that has one, else the base model's.

    Args:
        source: of the base model.
        adapters: folders, in the order in which they are added to it.
        config: of the base model.
        options: revision and token for the Hub.

    Raises:
        NeuroglotError: it cannot be read, or knows no words.
    """
    own = [i for i, folder in enumerate(adapters) if _holds(folder, TOKENIZER_FILES)]
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


def _holds(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).is_file() for name in names)


def _check_vocabulary(hf: PreTrainedModel, tokenizer: Tokenizer, adapters: Sequence[Path]) -> None:
    """The tokens of adapters must have embeddings; they would be random numbers otherwise."""
    n_embeddings = len(next(hf.get_input_embeddings().parameters()))
    if adapters and len(tokenizer) > n_embeddings:
        raise NeuroglotError(
            f"the tokenizer has {len(tokenizer)} tokens and the model embeddings for "
            f"{n_embeddings}: the adapters in {str(adapters[-1])!r} hold none for the others. Save "
            "the embeddings with them (modules_to_save)."
        )


def _read(
    auto: Any, source: str | Path, options: dict[str, Any], device: str | torch.device | None
) -> PreTrainedModel:
    """The model on its devices, or the text part of one that takes more than text.

    Args:
        auto: class of transformers that opens it.
        source: a folder, or a Hub id.
        options: of its ``from_pretrained``.
        device: as the user names it.

    Raises:
        NeuroglotError: the checkpoint lacks weights.
    """
    found: Any = auto.from_pretrained(
        source,
        device_map="auto" if device == "auto" else None,
        output_loading_info=True,
        **options,
    )
    hf: PreTrainedModel = found[0]
    loaded: dict[str, Any] = found[1]
    # Quantised weights are where they belong, and refuse to be moved.
    if device != "auto" and not getattr(hf, "is_quantized", False):
        torch.nn.Module.to(hf, device=_device(device))  # transformers' own wrapper hides the types
    if is_multimodal(hf.config):
        keep_text_part(hf)
    absent = sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"]]))
    absent = [name for name in absent if not name.startswith(left_out(hf))]
    if absent:
        # They would be filled with random numbers.
        raise NeuroglotError(f"the checkpoint {str(source)!r} lacks weights: {listed(absent)}.")
    return hf
