"""What every public function that runs a model begins and ends with."""

from __future__ import annotations

import functools
import inspect
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
"""What took the place of keywords that functions had before."""
OPTIONS = {
    "reading": ("site", "position", "thresholds", "layers", "keep_values", "added_tokens"),
    "answering": ("choice_score", "score", "max_new_tokens", "masked"),
}
"""Keywords that are now fields of a class of options, by the argument that takes such a class."""

P = ParamSpec("P")
R = TypeVar("R")


def operation(run: Callable[Concatenate[Model, P], R]) -> Callable[Concatenate[Model, P], R]:
    """Make a function that runs its first argument, a model, an operation on it.

    While it lasts, the model is in its usual state and nobody else runs it; see
    :meth:`neuroglot.Model.operating`.
    """
    known = inspect.signature(run).parameters

    @functools.wraps(run)
    def operated(model: Model, *args: P.args, **kwargs: P.kwargs) -> R:
        if not isinstance(model, Model):
            raise NeuroglotError(
                f"model is a {type(model).__name__}; expected what neuroglot.load_model or "
                "neuroglot.wrap_model returns."
            )
        task = args[0] if args else kwargs.get("task")
        if "task" in known and task is not None and not isinstance(task, ParallelTask):
            raise NeuroglotError(
                f"task is a {type(task).__name__}; expected what neuroglot.load_task or "
                "neuroglot.ParallelTask.from_records returns, after the model."
            )
        gone = [name for name in kwargs if name in REMOVED and name not in known]
        if gone:
            raise NeuroglotError(f"{run.__name__}({gone[0]}=) is gone; {REMOVED[gone[0]]}")
        for options, names in OPTIONS.items():
            moved = [name for name in kwargs if name in names and name not in known]
            if options in known and moved:
                name = "choice_score" if moved[0] == "score" else moved[0]
                raise NeuroglotError(
                    f"{run.__name__}({moved[0]}=) is gone; write "
                    f"{options}=neuroglot.{options.capitalize()}({name}=…)."
                )
        with model.operating() as turn, turn.remembering():
            return run(model, *args, **kwargs)

    return cast("Callable[Concatenate[Model, P], R]", operated)
