"""Two programs that exchange messages, each behind a wall of its own; what one sends is passed on to the other unread.

Like `zygote_client.py` it is sent along to farms, where it runs on Python 3.10.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from .inside import kernel
from .zygote_client import Channel, ZygoteFailure

_NONE = b"null"
_MAX_HEADER, _MAX_CAUSE = 1 << 12, 1 << 13  # bytes


class Side:
    """One of the two programs, on a channel of its own.

    Args:
        channel: The way to its supervisor.
        seconds: Longest wait for an answer.
        max_bytes: Longest answer.

    Attributes:
        header: What its supervisor reports on the last answer.
        payload: The answer.
        goes_on: Whether it waits for a message of the other side.
    """

    def __init__(self, channel: Channel, seconds: float, max_bytes: int) -> None:
        self._channel, self._seconds, self._max_bytes = channel, seconds, max(max_bytes, _MAX_CAUSE)
        self.header = self.payload = b""
        self.goes_on = False

    def send(self, text: bytes) -> None:
        """Send the task, or later a message of the other side, and wait for the answer.

        Raises:
            ZygoteFailure: The machinery failed.
        """
        with sealed_file(text) as file:
            self._channel.send(file)
        self.header = self._channel.receive(_MAX_HEADER, self._seconds)
        self.payload = self._channel.receive(self._max_bytes, self._seconds)
        self.goes_on = self.header.startswith(b"asks ")
        if not self.goes_on:
            self._receive_end()

    def close(self) -> None:
        """End the program, if it waits for the other side."""
        if self.goes_on:
            self._channel.stop()
            self._receive_end()

    def _receive_end(self) -> None:
        if self._channel.receive(0, self._seconds):
            raise ZygoteFailure("the supervisor sent more than the answer")


def converse(asker: Side, answerer: Side, tasks: tuple[bytes, bytes]) -> None:
    """Pass messages between two programs until the asker ends, then end the answerer.

    The answerer's first message answers nothing; the asker's first one only means that it is ready for that. After the
    answerer's end the asker is answered with None.
    """
    answerer.send(tasks[1])
    asker.send(tasks[0])
    while asker.goes_on:
        asker.send(answerer.payload if answerer.goes_on else _NONE)
        if asker.goes_on and answerer.goes_on:
            answerer.send(asker.payload)
    answerer.close()


@contextmanager
def sealed_file(text: bytes) -> Iterator[int]:
    """A file in memory that nobody can change."""
    file = kernel.memory_file("task")
    try:
        with open(file, "wb", closefd=False) as writer:
            writer.write(text)
        os.lseek(file, 0, os.SEEK_SET)
        kernel.seal(file)
        yield file
    finally:
        os.close(file)
