"""What Python's library needs and the walls take away, in a form that leads nowhere: programs find it in its place."""

from __future__ import annotations

import builtins
import functools
import io
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

_STANDARD_FILES = {f"/dev/{name}": number for number, name in enumerate(("stdin", "stdout", "stderr"))}
_STANDARD_FILES |= {f"{place}/{number}": number for place in ("/dev/fd", "/proc/self/fd") for number in range(3)}


def install() -> None:
    """Put them in their places."""
    open_file, open_number = io.open, os.open
    opened = _opener(open_file, lambda number, *how, **more: open_file(os.dup(number), *how, **more))
    builtins.open = io.open = opened
    os.open = _opener(open_number, lambda number, *how, **more: os.dup(number))
    socket.socketpair = _for_event_loops(socket.socketpair)


def _opener(open: Callable[..., Any], open_standard: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that opens files, standard input by its name too, although there is no /proc behind that."""

    @functools.wraps(open)
    def opened(file: Any, *arguments: Any, **settings: Any) -> Any:
        path = os.fspath(file) if isinstance(file, os.PathLike) else file
        number = _STANDARD_FILES.get(path) if type(path) is str else None
        return open(file, *arguments, **settings) if number is None else open_standard(number, *arguments, **settings)

    return opened


def _for_event_loops(socketpair: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that gives asyncio, which wakes itself through a pair of sockets, a pipe instead."""

    @functools.wraps(socketpair)
    def pair(*arguments: Any, **settings: Any) -> Any:
        if sys._getframe(1).f_globals.get("__name__") != "asyncio.selector_events":
            return socketpair(*arguments, **settings)
        return tuple(map(_PipeEnd, os.pipe()))

    return pair


class _PipeEnd:
    """One end of a pipe, with the methods of a socket that asyncio uses."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def setblocking(self, is_blocking: bool) -> None:
        os.set_blocking(self._number, is_blocking)

    def recv(self, size: int) -> bytes:
        return os.read(self._number, size)

    def send(self, data: bytes) -> int:
        return os.write(self._number, data)

    def close(self) -> None:
        os.close(self._number)
