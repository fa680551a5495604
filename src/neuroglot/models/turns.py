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
        warned_of: checksums of prompts of which the user has been told what is odd about them.
        changed: guards what follows, and wakes those who wait when the turn has ended. Unlike a
            lock, a turn may be ended by another thread, as where that closes a generator.
        holder: number of the thread whose turn it is, if any.
        depth: how many blocks of that thread are in each other.
        n_hooking: how many of them put hooks on the module.
        is_block: whether the outermost of them is a block of the user's code, of which nobody
            knows how long it lasts and what it waits for.
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
        turn.changed = threading.Condition()


os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def hooking(hf: nn.Module) -> Iterator[Turn]:
    """As :func:`taking_turn`, for a block of the user's code in which hooks are on the module."""
    with taking_turn(hf, is_block=True) as turn:
        turn.n_hooking += 1
        try:
            yield turn
        finally:
            turn.n_hooking -= 1


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
    _begin(turn, hf, is_block=is_block)
    try:
        yield turn
    finally:
        with turn.changed:
            turn.depth -= 1
            if turn.depth == 0:
                turn.holder, turn.is_block = None, False
                turn.changed.notify_all()


def _begin(turn: Turn, hf: nn.Module, *, is_block: bool) -> None:
    """Wait for the turn, and take it.

    Raises:
        NeuroglotError: see :func:`taking_turn`.
    """
    here = threading.get_ident()
    with turn.changed:
        while turn.holder not in (None, here):
            if turn.is_block:
                raise NeuroglotError(
                    f"another thread is inside a block that edits or reads this "
                    f"{type(hf).__name__} ({'; '.join(turn.running.edits) or 'reading'}). Wait "
                    "until it has left the block, do all in one thread, or load the model once "
                    "more."
                )
            turn.changed.wait(SECONDS_BETWEEN_LOOKS)
        turn.depth += 1
        if turn.holder is None:
            turn.holder, turn.is_block = here, is_block


def _refuse_lost(turn: Turn, hf: nn.Module) -> None:
    if turn.is_lost:
        raise NeuroglotError(
            f"this process was forked while another thread ran this {type(hf).__name__}, whose "
            "hooks are still in it; load the model once more in this process."
        )
