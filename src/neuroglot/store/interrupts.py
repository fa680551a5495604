"""Ctrl-C waits for what is being worked on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

NOTICE = b"\nstopping after this block; Ctrl-C again stops at once\n"


@contextmanager
def stop_when_whole() -> Iterator[Callable[[], None]]:
    """Within the block, the first Ctrl-C is noted, and raised by the function that is yielded.

    Call it where stopping loses nothing. A second Ctrl-C stops at once. Outside the main thread,
    where signals do not arrive, nothing is changed.

    Raises:
        KeyboardInterrupt: by the function, if Ctrl-C was pressed.
    """
    asked = False

    def stop_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt

    def note(_signal: int, _frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        # Past Python's buffers, in which the signal may have arrived.
        with suppress(OSError):  # nobody may be there to read it
            os.write(2, NOTICE)

    if threading.current_thread() is not threading.main_thread():
        yield stop_if_asked
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop_if_asked
    finally:
        signal.signal(signal.SIGINT, before)
