"""One thread at a time runs a model: hooks, number types and the tokenizer belong to all threads.

What is kept of a model here belongs to the underlying Hugging Face module, so that every
:class:`neuroglot.Model` made of it shares it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import nn

from neuroglot.errors import NeuroglotError
from neuroglot.models.identity import Identity
from neuroglot.models.running import Running

SECONDS_BETWEEN_LOOKS = 0.05


@dataclass(eq=False)
class Turn:
    """Which thread runs a module, and what it runs.

    Attributes:
        running: prompts and edits.
        is_operating: whether an operation is under way that does not change the model.
        identities: of the model, once they were asked for, by the number of the tokenizer; only
            while a function runs that does not change the model.
        is_trained: whether the model, or adapters in it, are being trained.
        lock: held by the thread whose turn it is.
        holder: that thread's number.
        depth: how many blocks of that thread are in each other.
        is_block: whether the outermost of them is a block of the user's code, of which nobody
            knows how long it lasts and what it waits for.
        is_lost: whether the process was forked while another thread ran the module.
    """

    running: Running = field(default_factory=Running)
    is_operating: bool = False
    identities: dict[int, Identity] | None = None
    is_trained: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)
    holder: int | None = None
    depth: int = 0
    is_block: bool = False
    is_lost: bool = False

    @property
    def is_hooked(self) -> bool:
        """Whether this thread's own blocks may have put hooks on the module."""
        return self.depth > 2 or bool(self.running.edits)

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Within the block, the model does not change, and its identity is found only once."""
        before = self.identities
        self.identities = {} if before is None else before
        try:
            yield
        finally:
            self.identities = before


_TURNS: WeakKeyDictionary[nn.Module, Turn] = WeakKeyDictionary()
_FIRST = threading.Lock()


def turn_of(hf: nn.Module) -> Turn:
    """The turn that belongs to a module."""
    with _FIRST:
        return _TURNS.setdefault(hf, Turn())


def _after_fork() -> None:
    """Threads other than the one that forks do not live on in the new process."""
    global _FIRST  # noqa: PLW0603
    _FIRST = threading.Lock()
    for turn in _TURNS.values():
        turn.is_lost = turn.is_lost or turn.holder not in (None, threading.get_ident())


os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def taking_turn(hf: nn.Module, *, is_block: bool = False) -> Iterator[Turn]:
    """Within the block, no other thread runs the module through neuroglot.

    Another thread's operation is waited for. A block of the user's code in another thread is not:
    it might be waiting for this thread.

    Args:
        hf: the module.
        is_block: whether the user's own code runs within the block.

    Raises:
        NeuroglotError: another thread is in such a block, or the process was forked while another
            thread ran the module.
    """
    turn = turn_of(hf)
    _refuse_lost(turn, hf)
    while not turn.lock.acquire(timeout=SECONDS_BETWEEN_LOOKS):
        if turn.is_block:
            raise NeuroglotError(
                f"another thread is inside a block that edits or reads this "
                f"{type(hf).__name__} ({'; '.join(turn.running.edits) or 'reading'}). Wait until "
                "it has left the block, do all in one thread, or load the model once more."
            )
    try:
        turn.holder, turn.depth = threading.get_ident(), turn.depth + 1
        if turn.depth == 1:
            turn.is_block = is_block
        yield turn
    finally:
        turn.depth -= 1
        if turn.depth == 0:
            turn.holder, turn.is_block = None, False
        turn.lock.release()


def _refuse_lost(turn: Turn, hf: nn.Module) -> None:
    if turn.is_lost:
        raise NeuroglotError(
            f"this process was forked while another thread ran this {type(hf).__name__}, whose "
            "hooks are still in it; load the model once more in this process."
        )
