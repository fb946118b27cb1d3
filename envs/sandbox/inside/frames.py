"""Messages on a stream: four bytes of length, then the message."""

from __future__ import annotations

import struct
from collections.abc import Callable

_HEADER = struct.Struct("!I")


class FrameError(ValueError):
    """The other side ended in the middle of a message."""


class TooLong(FrameError):
    """The other side announced a message that is too long."""


def pack(message: bytes) -> bytes:
    """Return a message with its length in front."""
    return _HEADER.pack(len(message)) + message


def header(length: int) -> bytes:
    """Return what goes in front of a message of that many bytes."""
    return _HEADER.pack(length)


def read(receive: Callable[[int], bytes], max_bytes: int) -> bytes:
    """Read one message.

    Args:
        receive: Returns at most that many bytes, at least one until the stream ends, none from then on.
        max_bytes: Longest message to accept.

    Raises:
        FrameError: The stream ended before the message did, or the message is longer than that (`TooLong`).
    """
    (length,) = _HEADER.unpack(_exactly(receive, _HEADER.size))
    if length > max_bytes:
        raise TooLong(f"a message of {length} bytes was announced, {max_bytes} are allowed")
    return _exactly(receive, length)


def _exactly(receive: Callable[[int], bytes], size: int) -> bytes:
    chunks = bytearray()
    while len(chunks) < size:
        chunk = receive(min(size - len(chunks), 1 << 16))
        if not chunk:
            raise FrameError("the stream ended in the middle of a message")
        chunks += chunk
    return bytes(chunks)
