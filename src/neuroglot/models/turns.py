"""Let one thread at a time run a model, because all threads share its hooks and its tokenizer.

The state kept here belongs to the underlying Hugging Face module, so all :class:`neuroglot.Model`
objects that wrap the module share it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import nn

from neuroglot.errors import NeuroglotError
from neuroglot.models.identity import Identity
from neuroglot.models.running import Running
from neuroglot.models.temporarily import temporarily

SECONDS_BETWEEN_LOOKS = 0.05


@dataclass(eq=False)
class Turn:
    """Which thread runs a module, and what it runs.

    Attributes:
        running: the prompts and edits that run.
        is_operating: whether an operation is running that does not change the model.
        identities: identities of the model that were already computed, by the ``id`` of the
            tokenizer; ``None`` unless a function runs that does not change the model.
        is_trained: whether the model, or adapters in it, are being trained.
        warned_of: checksums of prompts that the user has been warned about.
        changed: guards the attributes below, and wakes waiting threads when the turn has ended.
            Unlike a lock, a turn may be ended by another thread, for example one that closes a
            generator.
        holder: ``ident`` of the thread whose turn it is, if any.
        depth: how many nested blocks of that thread there are.
        n_hooking: how many of these blocks put hooks on the module.
        is_block: whether the outermost block runs the user's own code, which may take any time and
            wait for anything.
        is_lost: whether the process was forked while another thread ran the module.
    """

    running: Running = field(default_factory=Running)
    is_operating: bool = False
    identities: dict[int, Identity] | None = None
    is_trained: bool = False
    warned_of: set[str] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)
    holder: int | None = None
    depth: int = 0
    n_hooking: int = 0
    is_block: bool = False
    is_lost: bool = False

    @property
    def is_hooked(self) -> bool:
        """Whether blocks of this thread have put hooks on the module."""
        return self.n_hooking > 0

    def remembering(self) -> AbstractContextManager[None]:
        """Within the block, the model does not change, so its identity is computed only once."""
        return temporarily(
            [(self, "identities", {} if self.identities is None else self.identities)]
        )


_TURNS: WeakKeyDictionary[nn.Module, Turn] = WeakKeyDictionary()
_FIRST = threading.Lock()


def turn_of(hf: nn.Module) -> Turn:
    """The turn that belongs to a module."""
    with _FIRST:
        return _TURNS.setdefault(hf, Turn())


def _after_fork() -> None:
    """Reset locks in a forked process, which has no other thread than the one that forked."""
    global _FIRST  # noqa: PLW0603
    _FIRST = threading.Lock()
    for turn in _TURNS.values():
        turn.is_lost = turn.is_lost or turn.holder not in (None, threading.get_ident())
        turn.changed = threading.Condition()


os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def hooking(hf: nn.Module) -> Iterator[Turn]:
    """As :func:`taking_turn`, for a block of the user's code during which the module has hooks."""
    with taking_turn(hf, is_block=True) as turn:
        turn.n_hooking += 1
        try:
            yield turn
        finally:
            turn.n_hooking -= 1


@contextmanager
def taking_turn(hf: nn.Module, *, is_block: bool = False) -> Iterator[Turn]:
    """Within the block, no other thread runs the module through neuroglot.

    If another thread runs an operation, this one waits for it. It does not wait for a block of the
    user's code in another thread, which might itself be waiting for this thread.

    Args:
        hf: the module.
        is_block: whether the user's own code runs within the block.

    Raises:
        NeuroglotError: another thread is in such a block, or the process was forked while another
            thread ran the module.
    """
    turn = turn_of(hf)
    if turn.is_lost:
        raise NeuroglotError(
            f"this process was forked while another thread ran this {type(hf).__name__}, whose "
            "hooks are still in it; load the model once more in this process."
        )
    this_thread = threading.get_ident()
    with turn.changed:
        while turn.holder not in (None, this_thread):
            if turn.is_block:
                raise NeuroglotError(
                    f"another thread is inside a block that edits or reads this "
                    f"{type(hf).__name__} ({'; '.join(turn.running.edits) or 'reading'}). Wait "
                    "until it has left the block, use a single thread, or load the model once more."
                )
            turn.changed.wait(SECONDS_BETWEEN_LOOKS)
        turn.depth += 1
        if turn.holder is None:
            turn.holder, turn.is_block = this_thread, is_block
    try:
        yield turn
    finally:
        with turn.changed:
            turn.depth -= 1
            if turn.depth == 0:
                turn.holder, turn.is_block = None, False
                turn.changed.notify_all()
