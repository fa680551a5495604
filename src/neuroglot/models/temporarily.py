"""Set attributes for the length of a block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def temporarily(changes: Iterable[tuple[object, str, object]]) -> Iterator[None]:
    """Within the block, attributes have other values; afterwards they have their own again.

    Args:
        changes: object, name of the attribute, and its value within the block.
    """
    changes = list(changes)
    before = [(holder, name, getattr(holder, name)) for holder, name, _ in changes]
    try:
        for holder, name, value in changes:
            setattr(holder, name, value)
        yield
    finally:
        for holder, name, value in before:
            setattr(holder, name, value)
