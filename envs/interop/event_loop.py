"""The thread in which asynchronous packages run, one for each process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """Run a coroutine in the thread, and wait for its result.

    Raises:
        TimeoutError: It took longer than `timeout` seconds, and was cancelled.
    """
    future = asyncio.run_coroutine_threadsafe(work, loop())
    try:
        return future.result(timeout)
    except TimeoutError:
        future.cancel()
        raise


def loop() -> asyncio.AbstractEventLoop:
    """Return the thread's event loop; a forked process starts one of its own."""
    return _loop(os.getpid())


def detached(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine in the thread, and wait for nothing; its failure is of no interest."""

    async def quietly() -> None:
        with contextlib.suppress(Exception):
            await work

    asyncio.run_coroutine_threadsafe(quietly(), loop())


@cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    started = asyncio.new_event_loop()
    threading.Thread(target=started.run_forever, name="foreign environments", daemon=True).start()
    return started
