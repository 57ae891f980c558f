"""Calls for which Julia compiles first, for seconds: Ctrl-C ends them too.

Nothing ends a compilation. So another thread makes the call, while the caller's waits for it and
handles signals. After Ctrl-C that thread is left to end by itself, which it does at the first
evaluation of the model; until then the next call of Julia waits.
"""

from __future__ import annotations

import ctypes
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

# A lock's wait cannot be interrupted on Windows.
_SECONDS = 0.1


class FirstUses:
    """Makes the first calls of functions of a started Julia.

    Parameters
    ----------
    module : Any
        The Julia module ``Pyjlode``.
    """

    def __init__(self, module: Any) -> None:
        self._released = module.released
        self._left = ctypes.c_int64.from_address(int(module.left_address()))
        self._pool: ThreadPoolExecutor | None = None
        self._running: Future[Any] | None = None
        self._alive: object = None

    def call(self, function: Any, *arguments: Any, alive: object) -> Any:
        """``function(*arguments)``, during which Julia calls no function of Python's.

        ``alive`` is memory that the call uses, kept until it ends.
        """
        if threading.current_thread() is not threading.main_thread():
            # Python handles signals in its main thread only.
            return function(*arguments)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="pyjlode")
        self._alive = alive
        self._running = self._pool.submit(self._released, function, *arguments)
        try:
            _wait(self._running)
        except BaseException:
            self._left.value = 1
            raise
        return self._ended().result()

    def settle(self) -> None:
        """Wait for a call that was interrupted."""
        if self._running is not None and self._left.value:
            _wait(self._running)
            self._ended()

    def _ended(self) -> Future[Any]:
        assert self._running is not None
        found, self._running = self._running, None
        self._alive, self._left.value = None, 0
        return found


def _wait(future: Future[Any]) -> None:
    while not future.done():
        wait([future], timeout=_SECONDS)
