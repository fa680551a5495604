"""A decorator for all public functions that run a model."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar, cast

from neuroglot.errors import NeuroglotError
from neuroglot.models.model import Model
from neuroglot.tasks.parallel import ParallelTask

REMOVED = {
    "edit": "run it within `with neuroglot.edit(model, neuroglot.Zero(neurons)):`.",
    "batch_size": "name it in neuroglot.load_model, or take model.with_batch_size(…).",
    "positions": "it is called position.",
}
"""Keywords that functions had in earlier versions, and what to use instead."""
MOVED = {
    "reading": ("site", "position", "thresholds", "layers", "keep_values", "added_tokens"),
    "answering": ("choice_score", "score", "max_new_tokens", "masked"),
}
"""Keywords that have become fields of an options class, by the argument that takes the class."""

P = ParamSpec("P")
R = TypeVar("R")


def operation(run: Callable[Concatenate[Model, P], R]) -> Callable[Concatenate[Model, P], R]:
    """Turn a function whose first argument is a model into an operation on it.

    During an operation, the model is in its usual state and no other thread runs it; see
    :meth:`neuroglot.Model.operating`. The arguments are also checked for common mistakes.

    Raises:
        NeuroglotError: when the function is called: the first argument is not a model, the task is
            not a task, or a keyword was removed or moved into an options class.
    """
    parameters = inspect.signature(run).parameters

    @functools.wraps(run)
    def operated(model: Model, *args: P.args, **kwargs: P.kwargs) -> R:
        if not isinstance(model, Model):
            raise NeuroglotError(
                f"model is a {type(model).__name__}; expected what neuroglot.load_model or "
                "neuroglot.wrap_model returns."
            )
        task = args[0] if args else kwargs.get("task")
        if "task" in parameters and task is not None and not isinstance(task, ParallelTask):
            raise NeuroglotError(
                f"task is a {type(task).__name__}; expected what neuroglot.load_task or "
                "neuroglot.ParallelTask.from_records returns, after the model."
            )
        unknown = [name for name in kwargs if name not in parameters]
        for name in unknown:
            if name in REMOVED:
                raise NeuroglotError(f"{run.__name__}({name}=) is gone; {REMOVED[name]}")
        for (options, fields), name in itertools.product(MOVED.items(), unknown):
            if name in fields and options in parameters:
                field = "choice_score" if name == "score" else name
                raise NeuroglotError(
                    f"{run.__name__}({name}=) is gone; write "
                    f"{options}=neuroglot.{options.capitalize()}({field}=…)."
                )
        with model.operating() as turn, turn.remembering():
            return run(model, *args, **kwargs)

    return cast("Callable[Concatenate[Model, P], R]", operated)
