"""A thread in which asynchronous work runs, for callers that wait for it in threads of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own: made when it is first needed, one for each process, and anew after a fork.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """After a fork: the thread of the loop is not here."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, which is running."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True).start()
            return self._loop

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine in the thread, and wait for its result; it is cancelled if the wait ends otherwise.

        Raises:
            TimeoutError: It took longer than `timeout` seconds.
        """
        future = asyncio.run_coroutine_threadsafe(work, self.loop())
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def detached(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine in the thread, and wait for nothing; its failure is of no interest."""

        async def quietly() -> None:
            with contextlib.suppress(Exception):
                await work

        asyncio.run_coroutine_threadsafe(quietly(), self.loop())
