"""Functions compiled by Numba that are safe in threads and in forked processes."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numba
from numba import njit
from numba.core.compiler_lock import global_compiler_lock

Function = Callable[..., Any]

# A child forked while another thread compiles would wait for that thread forever.
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


class Compiled:
    """A function that is compiled when it is first called, for one signature only.

    Numba caches machine code in files that are numbered by signature, and does not lock them. If
    two processes compile one function for different types at the same time, one can later load the
    code of the other. With a single signature this cannot happen.
    """

    def __init__(self, function: Function, signature: Any, options: dict[str, Any]) -> None:
        self.function, self.signature, self.options = function, signature, options
        self._code: Function | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        return self.code()(*arguments)

    def code(self) -> Function:
        """The machine code, which is compiled or read from Numba's cache only once."""
        if self._code is None:
            with global_compiler_lock:
                if self._code is None:
                    self._code = self._compiled()
        return self._code

    def _compiled(self) -> Function:
        try:
            code: Function = njit(self.signature, cache=True, **self.options)(self.function)
        except Exception as error:  # noqa: BLE001  (a damaged file can raise anything)
            code = njit(self.signature, **self.options)(self.function)
            warnings.warn(
                "Numba could not keep compiled code, or read what it had kept "
                f"({type(error).__name__}), so every process compiles anew, which takes seconds. "
                "Set the environment variable NUMBA_CACHE_DIR to an empty folder that can be "
                "written to.",
                stacklevel=4,
            )
        return code


def compiled(signature: Any, **options: Any) -> Callable[[Function], Compiled]:
    """Compile a function for the types of a signature; ``options`` are those of ``numba.njit``."""
    return lambda function: Compiled(function, signature, options)


def in_threads(work: Compiled, size: int, n_threads: int, *arguments: Any) -> None:
    """Call ``work(*arguments, first, last)`` in threads, for ranges that cover ``range(size)``.

    The threads are plain ones that end with the call. Numba's own threads (``parallel=True``) abort
    the process after a fork, or if two threads of the caller use them at once, and
    ``concurrent.futures`` starts no threads once the main thread has ended.

    Args:
        work: a function that releases the interpreter's lock (``nogil=True``).
        size: the length of the range that is divided among the threads.
        n_threads: the largest number of threads, including the calling one; Numba's
            ``NUMBA_NUM_THREADS`` limits it as well.
        arguments: the arguments of ``work`` before the range.
    """
    code = work.code()
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set on import
    n = max(1, min(size, n_threads, most))
    errors: list[BaseException] = []

    def run(first: int, last: int) -> None:
        try:
            code(*arguments, first, last)
        except BaseException as error:  # noqa: BLE001  (raised below, in the calling thread)
            errors.append(error)

    own, *others = pairwise(size * i // n for i in range(n + 1))
    threads: list[threading.Thread] = []
    try:
        for piece in others:
            thread = threading.Thread(target=run, args=piece)
            try:
                thread.start()
            except RuntimeError:  # no further thread can start, so this one does the work
                run(*piece)
            else:
                threads.append(thread)
        run(*own)
    finally:
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
