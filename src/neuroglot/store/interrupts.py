"""Let Ctrl-C wait until the current block of work is done."""

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
    """Delay the first Ctrl-C until the yielded function is called.

    The caller calls the function wherever stopping loses no work. A second Ctrl-C stops at once.
    Outside the main thread, which does not receive signals, nothing changes.

    Raises:
        KeyboardInterrupt: from the yielded function, after Ctrl-C was pressed.
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
        # Without Python's buffers, since the signal may have interrupted a write to them.
        with suppress(OSError):  # standard error may be closed
            os.write(2, NOTICE)

    if threading.current_thread() is not threading.main_thread():
        yield stop_if_asked
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop_if_asked
    finally:
        signal.signal(signal.SIGINT, before)
