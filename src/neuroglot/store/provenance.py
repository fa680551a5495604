"""The attributes of every result that say where it comes from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from neuroglot.errors import listed
from neuroglot.models.model import Model
from neuroglot.models.tokenization import (
    MOST_CHARACTERS,
    check_lengths,
    prompts_checksum,
    special_tokens_inside,
)
from neuroglot.models.turns import turn_of
from neuroglot.tasks.parallel import ParallelTask

OF_PROMPTS = ("task_checksum", "prompts_checksum")
PACKAGES = ("neuroglot", "torch", "transformers")
UNKNOWN = "unknown"  # the version of a package that is not installed but on the path


def versions() -> dict[str, str]:
    """The versions of neuroglot and of the packages that determine its numbers."""
    return {f"{package}_version": _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    try:
        # It is None if the folder with the metadata is empty.
        return version(package) or UNKNOWN
    except PackageNotFoundError:
        return UNKNOWN


def provenance(
    model: Model, prompts: ParallelTask | Sequence[str], whole: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Attributes that identify the model, the task, the prompts and the versions of a result.

    Once for each model and its prompts, it warns of special tokens inside the prompts.

    Args:
        model: the model that ran.
        prompts: a task, or texts.
        whole: the attributes of a recording of the whole task, if the prompts are a part of it; its
            checksums are used.
    """
    of_task: dict[str, Any] = {}
    if isinstance(prompts, ParallelTask):
        of_task = {
            "task": prompts.name,
            "template": prompts.template or "",
            "split": prompts.split,
            "match": prompts.match,
            "task_notes": "; ".join(prompts.notes),
            "task_checksum": prompts.checksum,
        }
    if whole is None:
        checksum = checksum_of_prompts(model, prompts)
        of_task["prompts_checksum"] = checksum
        warned_of = turn_of(model.hf).warned_of
        if checksum not in warned_of:
            warned_of.add(checksum)
            _warn_of_special_tokens(model, prompts)
    else:
        of_task |= {key: whole[key] for key in OF_PROMPTS}
    return {**model_provenance(model), **of_task, **versions()}


def _warn_of_special_tokens(model: Model, prompts: ParallelTask | Sequence[str]) -> None:
    """Warn of special tokens inside prompts, masked prompts and choices; name the first place."""
    limit = model.context_length
    # Longer texts are refused when they are run.
    texts = (
        (name, text)
        for name, text in (*_named_prompts(prompts), *_named_choices(prompts))
        if limit is None or len(text) <= limit * MOST_CHARACTERS
    )
    first_and_tokens = special_tokens_inside(model.tokenizer, model.tokenization, texts)
    if first_and_tokens is not None:
        first, tokens = first_and_tokens
        warnings.warn(
            f"the {first} holds special tokens, and perhaps others do ({listed(tokens)} in all): "
            "the model reads them as special tokens, not as text. If a chat template or the "
            "tokenizer adds them, take them out of the text.",
            stacklevel=4,
        )


def _named_prompts(prompts: ParallelTask | Sequence[str]) -> Iterator[tuple[str, str]]:
    """The name in messages and the text of each prompt, and then of each distinct masked prompt."""
    if not isinstance(prompts, ParallelTask):
        yield from ((f"prompt {i}", text) for i, text in enumerate(prompts))
        return
    masked: dict[str, str] = {}
    for item in prompts.items:
        for language in prompts.languages:
            name = f"prompt of item {item['id']!r} in {language!r}"
            yield name, item["prompts"][language]
            if "masked" in item:
                masked.setdefault(item["masked"][language], f"masked {name}")
    yield from ((name, text) for text, name in masked.items())


def _named_choices(prompts: ParallelTask | Sequence[str]) -> Iterator[tuple[str, str]]:
    """The name in messages and the text of each choice of a task."""
    for item in prompts.items if isinstance(prompts, ParallelTask) else ():
        for language, choices in item["choices"].items():
            for choice in choices:
                yield f"choice of item {item['id']!r} in {language!r}", choice


def model_provenance(model: Model) -> dict[str, Any]:
    """The name, revision, checksums, number type, device, edits and tokenisation of a model."""
    edits = {"edits": "; ".join(model.running.edits)} if model.running.edits else {}
    identity = model.identity
    lineage = {"model_lineage": " ".join(model.lineage)} if model.lineage else {}
    return {
        **edits,
        **lineage,
        "model": model.name,
        "model_revision": model.revision or "",
        "model_weights": identity.weights,
        "model_config": identity.config,
        "tokenizer_checksum": identity.tokenizer,
        "dtype": model.dtype,
        "device": str(model.device),
        # On a GPU, the order of additions may differ between runs.
        "deterministic": int(
            model.device.type == "cpu" or torch.are_deterministic_algorithms_enabled()
        ),
        "batch_size": model.batch_size,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        **model.described_tokenization,
    }


def checksum_of_prompts(model: Model, prompts: ParallelTask | Sequence[str]) -> str:
    """A checksum of prompts and masked prompts, as rendered in the template and tokenised.

    Raises:
        NeuroglotError: a prompt is far longer than the context of the model.
    """
    names, texts = zip(*_named_prompts(prompts), strict=True)
    check_lengths(model.tokenizer, model.tokenization, texts, names, model.context_length)
    return prompts_checksum(model.tokenizer, model.tokenization, texts)
