"""Hold a model and a task against results of them: what is joined must be of the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuroglot.errors import NeuroglotError
from neuroglot.models.model import Model
from neuroglot.store.provenance import OF_PROMPTS, checksum_of_prompts, model_provenance
from neuroglot.tasks.parallel import ParallelTask

OF_MODEL = ("model_weights", "model_config", "tokenizer_checksum")
OF_TOKENIZATION = ("special_tokens", "chat_template", "template_arguments", "truncate")
# What of a model, and of the process, decides what it does with tokens, and with a prompt.
AS_RECORDED = (*OF_MODEL, "dtype", "edits", "float32_matmul_precision")
RUN_AS = (*AS_RECORDED, *OF_TOKENIZATION)
WHAT = {
    "model_weights": "weights",
    "model_config": "configuration",
    "tokenizer_checksum": "tokenizer",
    "task_checksum": "task",
    "prompts_checksum": "prompts as rendered and tokenised",
    "dtype": "number type",
}
"""What keys of provenance mean."""
UNSAID = {"edits": "", "template_arguments": "", "added_tokens": 1}
"""What holds where a result says nothing of it."""


def named(key: str) -> str:
    """A key of provenance as a message names it."""
    return f"{WHAT[key]} ({key})" if key in WHAT else key


def said_of(attrs: Mapping[str, Any], key: str) -> Any:
    """What a result says under a key, or what holds where it says nothing."""
    return attrs.get(key, UNSAID.get(key))


def refuse_old(attrs: Mapping[str, Any], what: str) -> None:
    """Refuse to go on with, or to join, a result that does not say enough of its model.

    Up to version 0.1.0, results told models apart by a sample of their weights, and said nothing
    of configuration, tokenizer and prompts.

    Args:
        attrs: of the result.
        what: what to call it.

    Raises:
        NeuroglotError: it is such a result.
    """
    if "model_weights" in attrs and "model_config" not in attrs:
        raise NeuroglotError(
            f"{what} was made by an earlier version of neuroglot, which told models apart by a "
            "sample of their weights only. It can be opened and reported, but not continued or "
            "combined with other results; make it again in another folder, or with "
            "overwrite=True (--overwrite)."
        )


def require_of_model(
    attrs: Mapping[str, Any], model: Model, what: str, keys: Sequence[str] = RUN_AS
) -> None:
    """Refuse a result that is of another model, or of the same in another state.

    Args:
        attrs: of the result.
        model: the one that it should be of.
        what: what to call the result.
        keys: in what they must be alike.

    Raises:
        NeuroglotError: it says what differs.
    """
    refuse_old(attrs, what)
    now = model_provenance(model)
    require_alike(attrs, {key: said_of(now, key) for key in keys}, what, "model")


def require_of_prompts(
    attrs: Mapping[str, Any], wanted: Mapping[str, Any], what: str, of: str
) -> None:
    """Refuse a result that is of another task, or of other prompts.

    Args:
        attrs: of the result.
        wanted: both checksums.
        what: what to call the result.
        of: what it is held against.

    Raises:
        NeuroglotError: it says what differs.
    """
    require_alike(attrs, {key: wanted[key] for key in OF_PROMPTS}, what, of)


def require_alike(attrs: Mapping[str, Any], wanted: Mapping[str, Any], what: str, of: str) -> None:
    """Refuse a result whose provenance differs from what is wanted.

    Args:
        attrs: of the result.
        wanted: what they should say, by key.
        what: what to call the result.
        of: what it is held against: the ``"model"`` or the ``"task"``.

    Raises:
        NeuroglotError: it says what differs.
    """
    for key, value in wanted.items():
        found = said_of(attrs, key)
        if found != value:
            raise NeuroglotError(
                f"{what} is of {of} {attrs.get(of)!r} with other {named(key)} than those of the "
                f"{of} given: {found!r:.40}, now {value!r:.40}. Give what it was made with, or "
                "make it again."
            )


def require_steady_prompts(model: Model, task: ParallelTask, attrs: Mapping[str, Any]) -> None:
    """Refuse prompts that have changed while a result was made, as a chat template's date does.

    Args:
        model: with its chat template.
        task: whose prompts.
        attrs: of the result.

    Raises:
        NeuroglotError: they are rendered otherwise than when the result was begun.
    """
    if not model.tokenization.chat_template:
        return  # nothing else depends on the time
    if checksum_of_prompts(model, task) != attrs["prompts_checksum"]:
        raise NeuroglotError(
            "the chat template rendered other prompts at the end than at the beginning, as one "
            "that writes the date does at midnight; begin again with overwrite=True "
            "(--overwrite), or use a template that does not depend on the time."
        )
