"""What transformers says of itself while it works for neuroglot, and that nobody asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from transformers.utils import logging as transformers_logging

BARS = ("Loading weights", "Writing model shards")
"""What the progress bars say that are not drawn; those of downloads stay."""

MESSAGES: dict[str, str | tuple[str, ...]] = {
    "transformers.trainer": "mtime may not",
    "transformers.trainer_utils": "mtime may not",
    "huggingface_hub.utils._http": ("'", "Retrying in"),
}
"""Loggers, and how the messages begin that are left out.

Checkpoints that are written within a second are told apart by their numbers, as they should be.
Where there is no connection, an error says so once, and not each attempt.
"""

# Versions of transformers that have it not draw their bars.
set_tqdm_hook: Callable[[Any], Any] | None = getattr(transformers_logging, "set_tqdm_hook", None)


class _Bars:
    """Makes the progress bars of transformers, without those of weights while it is wanted."""

    def __init__(self) -> None:
        self.before: Any = None  # what the user, or another block, has set
        self.wanted = True

    def __call__(self, bar: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self.wanted and options.get("desc") in BARS:
            options = options | {"disable": True}
        if self.before is not None:
            return self.before(bar, args, options)
        return bar(*args, **options)


@contextmanager
def without_bars() -> Iterator[None]:
    """Within the block, transformers draws no bars of weights; afterwards all is as before."""
    if set_tqdm_hook is None:
        yield
        return
    bars = _Bars()
    bars.before = set_tqdm_hook(bars)
    try:
        yield
    finally:
        bars.wanted = False
        found = set_tqdm_hook(bars.before)
        if found is not bars:  # of a block in another thread, which ends later
            set_tqdm_hook(found)


@contextmanager
def without_messages() -> Iterator[None]:
    """Within the block, :data:`MESSAGES` are left out."""

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
    """Within the block, transformers draws no bars of weights and says none of these messages."""
    with without_bars(), without_messages():
        yield
