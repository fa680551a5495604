"""Suppress progress bars and messages of transformers that do not concern users of neuroglot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from transformers.utils import logging as transformers_logging

BARS = ("Loading weights", "Writing model shards")
"""The descriptions of progress bars that are not drawn; those of downloads are."""

MESSAGES: dict[str, str | tuple[str, ...]] = {
    "transformers.trainer": "mtime may not",
    "transformers.trainer_utils": "mtime may not",
    "huggingface_hub.utils._http": ("'", "Retrying in"),
}
"""Loggers, and the beginnings of their messages that are suppressed.

Checkpoints that are written within a second are correctly distinguished by their numbers. If there
is no connection, one error says so, rather than a message for each attempt.
"""

# Versions of transformers without this function draw their bars.
set_tqdm_hook: Callable[[Any], Any] | None = getattr(transformers_logging, "set_tqdm_hook", None)


class _Bars:
    """Makes the progress bars of transformers, and disables those of weights while wanted."""

    def __init__(self) -> None:
        self.before: Any = None  # the hook that the user, or another block, has set
        self.wanted = True

    def __call__(self, bar: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self.wanted and options.get("desc") in BARS:
            options = options | {"disable": True}
        if self.before is not None:
            return self.before(bar, args, options)
        return bar(*args, **options)


@contextmanager
def without_bars() -> Iterator[None]:
    """Within the block, transformers draws no progress bars of weights."""
    if set_tqdm_hook is None:
        yield
        return
    bars = _Bars()
    bars.before = set_tqdm_hook(bars)
    try:
        yield
    finally:
        bars.wanted = False
        replaced = set_tqdm_hook(bars.before)
        if replaced is not bars:  # the hook of a block in another thread, which ends later
            set_tqdm_hook(replaced)


@contextmanager
def without_messages() -> Iterator[None]:
    """Within the block, :data:`MESSAGES` are suppressed."""

    def unlike(beginning: str | tuple[str, ...]) -> Callable[[logging.LogRecord], bool]:
        return lambda record: not record.getMessage().startswith(beginning)

    with ExitStack() as stack:
        for name, beginning in MESSAGES.items():
            logger, is_wanted = logging.getLogger(name), unlike(beginning)
            logger.addFilter(is_wanted)
            stack.callback(logger.removeFilter, is_wanted)
        yield


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within the block, :data:`BARS` and :data:`MESSAGES` are suppressed."""
    with without_bars(), without_messages():
        yield
