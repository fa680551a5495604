"""Check that results, models and tasks that are used together belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuroglot.errors import NeuroglotError
from neuroglot.models.model import Model
from neuroglot.store.provenance import OF_PROMPTS, checksum_of_prompts, model_provenance
from neuroglot.tasks.parallel import ParallelTask

OF_MODEL = ("model_weights", "model_config", "tokenizer_checksum")
OF_TOKENIZATION = ("special_tokens", "chat_template", "template_arguments", "truncate")
# The attributes on which the values of a model depend, given tokens and given a prompt.
AS_RECORDED = (*OF_MODEL, "dtype", "edits", "float32_matmul_precision")
RUN_AS = (*AS_RECORDED, *OF_TOKENIZATION)
# The attributes on which it depends which of these values are recorded.
OF_READING = ("site", "position", "added_tokens")
WHAT = {
    "model_weights": "weights",
    "model_config": "configuration",
    "tokenizer_checksum": "tokenizer",
    "task_checksum": "task",
    "prompts_checksum": "prompts as rendered and tokenised",
    "dtype": "number type",
}
"""The names of attributes in messages."""
UNSAID = {"edits": "", "template_arguments": "", "added_tokens": 1}
"""The values of attributes that a result lacks."""


def named(key: str) -> str:
    """The name of an attribute in a message."""
    return f"{WHAT[key]} ({key})" if key in WHAT else key


def said_of(attrs: Mapping[str, Any], key: str) -> Any:
    """The value of an attribute of a result, or the value that holds if the result lacks it."""
    return attrs.get(key, UNSAID.get(key))


def how_read(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """How a recording was read, as far as it is known, for results that are made from it."""
    known = {key: said_of(attrs, key) for key in OF_READING}
    return {key: value for key, value in known.items() if value is not None}


def refuse_old(attrs: Mapping[str, Any], what: str) -> None:
    """Refuse to continue or combine a result that does not identify its model well enough.

    Up to version 0.1.0, results identified a model by a sample of its weights only, and did not
    identify its configuration, its tokenizer and the prompts.

    Args:
        attrs: the attributes of the result.
        what: the name of the result in the message.

    Raises:
        NeuroglotError: it is a result of such a version.
    """
    if "model_weights" in attrs and "model_config" not in attrs:
        raise NeuroglotError(
            f"{what} was made by an earlier version of neuroglot, which identified models by a "
            "sample of their weights only. It can be opened and reported, but not continued or "
            "combined with other results; make it again in another folder, or with "
            "overwrite=True (--overwrite)."
        )


def require_of_model(
    attrs: Mapping[str, Any], model: Model, what: str, keys: Sequence[str] = RUN_AS
) -> None:
    """Refuse a result of another model, or of the same model in another state.

    Args:
        attrs: the attributes of the result.
        model: the model that the result must be of.
        what: the name of the result in the message.
        keys: the attributes that must be equal.

    Raises:
        NeuroglotError: they differ; the message says in what.
    """
    refuse_old(attrs, what)
    now = model_provenance(model)
    require_alike(attrs, {key: said_of(now, key) for key in keys}, what, "model")


def require_of_prompts(
    attrs: Mapping[str, Any], wanted: Mapping[str, Any], what: str, of: str
) -> None:
    """Refuse a result of another task or of other prompts.

    Args:
        attrs: the attributes of the result.
        wanted: attributes with the checksums that the result must have.
        what: the name of the result in the message.
        of: the attribute that names what was given: ``"model"`` or ``"task"``.

    Raises:
        NeuroglotError: they differ; the message says in what.
    """
    require_alike(attrs, {key: wanted[key] for key in OF_PROMPTS}, what, of)


def require_alike(attrs: Mapping[str, Any], wanted: Mapping[str, Any], what: str, of: str) -> None:
    """Refuse a result whose attributes differ from those that are wanted.

    Args:
        attrs: the attributes of the result.
        wanted: the attributes that the result must have.
        what: the name of the result in the message.
        of: the attribute that names what was given: ``"model"`` or ``"task"``.

    Raises:
        NeuroglotError: they differ; the message says in what.
    """
    for key, value in wanted.items():
        saved = said_of(attrs, key)
        if saved != value:
            raise NeuroglotError(
                f"{what} is of {of} {attrs.get(of)!r} with other {named(key)} than those of the "
                f"{of} given: {saved!r:.40}, now {value!r:.40}. Give the {of} it was made with, "
                "or make it again."
            )


def require_steady_prompts(model: Model, task: ParallelTask, attrs: Mapping[str, Any]) -> None:
    """Refuse prompts that changed while a result was made, as with a date in a chat template.

    Args:
        model: the model whose chat template renders the prompts.
        task: the task of the prompts.
        attrs: the attributes of the result.

    Raises:
        NeuroglotError: the prompts are not rendered as they were when the result was begun.
    """
    if not model.tokenization.chat_template:
        return  # without a template, rendering does not depend on the time
    if checksum_of_prompts(model, task) != attrs["prompts_checksum"]:
        raise NeuroglotError(
            "the chat template rendered other prompts at the end than at the beginning, as one "
            "that writes the date does at midnight; begin again with overwrite=True "
            "(--overwrite), or use a template that does not depend on the time."
        )
