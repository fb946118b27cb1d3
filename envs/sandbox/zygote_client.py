"""The zygote as seen from outside: a child process, and the channels to its supervisors."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from .inside import frames, kernel

_START_SECONDS = 120.0  # until it has loaded what programs import, NumPy from a slow disk among it
_END_SECONDS = 5.0


@dataclass(frozen=True)
class Launch:
    """How to start a zygote: the command (the number of the control socket is to be added) and its settings."""

    command: list[str]
    environment: dict[str, str]
    settings: dict[str, Any]


class ZygoteFailure(RuntimeError):
    """The zygote could not be started, has died, or does not answer: no program is to blame."""


class Zygote:
    """A running zygote. Channels may be opened from any thread.

    Raises:
        ZygoteFailure: It did not start; the message has what it said about that.
    """

    def __init__(self, launch: Launch) -> None:
        self._lock = threading.Lock()
        control, inner = _socket_pair(socket.SOCK_SEQPACKET)
        self._control = control
        with inner:
            self._process = subprocess.Popen(
                [*launch.command, str(inner.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=launch.environment,
                cwd="/",
                pass_fds=[inner.fileno()],
                start_new_session=True,
            )
        parent = kernel.watch_process(os.getpid())
        try:
            socket.send_fds(control, [json.dumps(launch.settings).encode()], [parent])
            ready = select.select([control], [], [], _START_SECONDS)[0] and control.recv(16) == b"ready"
        except OSError:
            ready = False
        finally:
            os.close(parent)
        if not ready:
            self._process.kill()
            complaint = self._stderr.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            self.stop()
            raise ZygoteFailure(complaint[:500] or f"it ended with status {self._process.returncode}")
        self._stderr.close()

    @property
    def _stderr(self) -> IO[bytes]:
        assert self._process.stderr is not None
        return self._process.stderr

    @property
    def is_running(self) -> bool:
        """Whether it holds its end of the control socket; what was started to contain it may end a little later."""
        poll = select.poll()
        poll.register(self._control, 0)
        return not poll.poll(0)

    def open_channel(self) -> Channel:
        """Have a supervisor forked, and return the way to it.

        Raises:
            ZygoteFailure: The zygote is gone.
        """
        ours, theirs = _socket_pair(socket.SOCK_STREAM)
        with theirs:
            try:
                with self._lock:
                    socket.send_fds(self._control, [b"."], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise ZygoteFailure(f"the zygote is gone: {error}") from error
        return Channel(ours)

    def stop(self) -> None:
        """End the zygote, and with it whatever it started."""
        self._control.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._stderr.close()

    def leave_to_parent(self) -> None:
        """After a fork: let go of a zygote that is not this process's."""
        self._process.returncode = 0  # not our child: nothing to wait for
        self._control.close()
        self._stderr.close()


class Channel:
    """The way to a supervisor, for one program at a time. Closing it ends the supervisor and what it runs."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._ahead = b""  # received, but not yet asked for

    def send(self, *files: int) -> None:
        """Hand over the file that describes a task, or the two that describe the sides of a dialog.

        Raises:
            ZygoteFailure: The supervisor is gone.
        """
        try:
            socket.send_fds(self._stream, [b"."], files)
        except OSError as error:
            raise ZygoteFailure(f"the supervisor is gone: {error}") from error

    def stop(self) -> None:
        """End the task before all of its inputs have been run. What had been reported until then still arrives.

        Raises:
            ZygoteFailure: The supervisor is gone.
        """
        try:
            self._stream.send(b".")
        except OSError as error:
            raise ZygoteFailure(f"the supervisor is gone: {error}") from error

    def receive(self, max_bytes: int, seconds: float) -> bytes:
        """Return the next message.

        Raises:
            ZygoteFailure: There is none within that many seconds, or it is longer than `max_bytes`.
        """
        deadline = time.monotonic() + seconds

        def receive(size: int) -> bytes:
            if not self._ahead:
                self._stream.settimeout(max(0.001, deadline - time.monotonic()))
                self._ahead = self._stream.recv(1 << 16)
            chunk, self._ahead = self._ahead[:size], self._ahead[size:]
            return chunk

        try:
            return frames.read(receive, max_bytes)
        except (OSError, frames.FrameError) as error:
            raise ZygoteFailure(f"the supervisor sent no report: {error or type(error).__name__}") from error

    def close(self) -> None:
        self._stream.close()


@contextlib.contextmanager
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


def _socket_pair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    """Return a pair that stays clear of the numbers of standard input, output and error, should those be closed."""
    pair = socket.socketpair(socket.AF_UNIX, kind)
    return _moved(pair[0]), _moved(pair[1])


def _moved(end: socket.socket) -> socket.socket:
    if end.fileno() > 2:
        return end
    import fcntl

    with end:
        return socket.socket(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))
