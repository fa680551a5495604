"""What every result says of where it comes from."""

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
UNKNOWN = "unknown"  # the version of what is not installed, such as a source tree on the path


def versions() -> dict[str, str]:
    """Versions of neuroglot and of what decides its numbers."""
    return {f"{package}_version": _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    try:
        # None where the folder with the metadata is there, but empty.
        return version(package) or UNKNOWN
    except PackageNotFoundError:
        return UNKNOWN


def provenance(
    model: Model, prompts: ParallelTask | Sequence[str], whole: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a result says of the model, the task if it is one, the prompts and the versions.

    Special tokens inside the prompts are warned of, once for a model and its prompts.

    Args:
        model: which ran.
        prompts: a task, or texts.
        whole: what a recording says of the whole task, where the prompts are a part of it; the
            checksums are taken from there.
    """
    of_task = task_provenance(prompts) if isinstance(prompts, ParallelTask) else {}
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
    """Say which special tokens stand inside prompts, masked or not, or choices; and where first."""
    limit = model.context_length
    # Longer ones are refused by whoever runs them.
    texts = (
        (name, text)
        for name, text in (*_named_prompts(prompts), *_named_choices(prompts))
        if limit is None or len(text) <= limit * MOST_CHARACTERS
    )
    found = special_tokens_inside(model.tokenizer, model.tokenization, texts)
    if found is not None:
        first, tokens = found
        warnings.warn(
            f"the {first} holds special tokens, and perhaps others do ({listed(tokens)} in all): "
            "the model takes them for what they mean, not for their letters. If a chat template or "
            "the tokenizer is to write them, take them out of the text.",
            stacklevel=4,
        )


def _named_prompts(prompts: ParallelTask | Sequence[str]) -> Iterator[tuple[str, str]]:
    """Prompts, each with what a message calls it, and after them the different masked ones."""
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
    """Choices of a task, each with what a message calls it."""
    for item in prompts.items if isinstance(prompts, ParallelTask) else ():
        for language, choices in item["choices"].items():
            for choice in choices:
                yield f"choice of item {item['id']!r} in {language!r}", choice


def model_provenance(model: Model) -> dict[str, Any]:
    """Name, revision, identity, number type and place of a model, its edits and tokenisation."""
    edits = {"edits": "; ".join(model.running.edits)} if model.running.edits else {}
    lineage = {"model_lineage": " ".join(model.lineage)} if model.lineage else {}
    return {
        **edits,
        **lineage,
        "model": model.name,
        "model_revision": model.revision or "",
        **identity_of(model),
        "dtype": model.dtype,
        "device": str(model.device),
        # On a GPU the order of sums may differ from run to run.
        "deterministic": int(
            model.device.type == "cpu" or torch.are_deterministic_algorithms_enabled()
        ),
        "batch_size": model.batch_size,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        **model.described_tokenization,
    }


def identity_of(model: Model) -> dict[str, str]:
    """The checksums that tell a model from others, under the names that results give them."""
    found = model.identity
    return {
        "model_weights": found.weights,
        "model_config": found.config,
        "tokenizer_checksum": found.tokenizer,
    }


def task_provenance(task: ParallelTask) -> dict[str, Any]:
    """Name, template, split, notes and checksum of a task."""
    return {
        "task": task.name,
        "template": task.template or "",
        "split": task.split,
        "match": task.match,
        "task_notes": "; ".join(task.notes),
        "task_checksum": task.checksum,
    }


def checksum_of_prompts(model: Model, prompts: ParallelTask | Sequence[str]) -> str:
    """Checksum of prompts, masked ones too, as the model meets them: in its template, as tokens.

    Raises:
        NeuroglotError: a prompt is far too long, which is found by its beginning.
    """
    names, texts = zip(*_named_prompts(prompts), strict=True)
    check_lengths(model.tokenizer, model.tokenization, texts, names, model.context_length)
    return prompts_checksum(model.tokenizer, model.tokenization, texts)
