"""`SharedCache`: what takes long is worked out once, also when several threads ask for it at the same time."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar
from weakref import WeakSet

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SharedCache(Generic[K, V]):
    """A bounded memory of results, safe to use from any thread, and in a process that is forked meanwhile.

    Args:
        size: Most results that are remembered; those not asked for the longest are forgotten first.
        keep: Whether a result is remembered; one that is not still goes to those who waited for it.
    """

    def __init__(self, size: int, *, keep: Callable[[V], bool] = lambda result: True) -> None:
        self._size, self._keep = size, keep
        self._lock = threading.Lock()
        self._results: OrderedDict[K, V] = OrderedDict()
        self._unfinished: dict[K, Future[V]] = {}
        _caches.add(self)

    def get(self, key: K, work: Callable[[], V]) -> V:
        """Return the result of that key; if it is not known and nobody is at it, `work` it out."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
            waiting = self._unfinished.get(key)
            if waiting is None:
                future = self._unfinished[key] = Future()
        if waiting is not None:
            return waiting.result()
        try:
            result = work()
        except BaseException as error:
            with self._lock:
                self._unfinished.pop(key, None)
            future.set_exception(error)
            raise
        with self._lock:
            self._unfinished.pop(key, None)
            if self._keep(result):
                self._results[key] = result
                if len(self._results) > self._size:
                    self._results.popitem(last=False)
        future.set_result(result)
        return result

    def forget_unfinished(self) -> None:
        """After a fork: forget what threads of the other process are at."""
        self._lock = threading.Lock()
        self._unfinished = {}

    def clear(self) -> None:
        """Forget all results."""
        with self._lock:
            self._results.clear()


_caches: WeakSet[SharedCache[Any, Any]] = WeakSet()


def _after_fork() -> None:
    for cache in list(_caches):
        cache.forget_unfinished()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
