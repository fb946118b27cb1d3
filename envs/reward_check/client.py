"""The checker's end of the subprocess: requests with a time limit, and how each of them ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import gymnasium

from .episode import Fault, Raised

START_LIMIT = 120.0
"""Seconds until a new subprocess has made the environment, which may read its rows."""
CLOSE_LIMIT = 5.0
"""Seconds until an environment that does not close is ended."""
_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {0} import serve; serve(int(sys.argv[2]))"


class Hung(Fault):
    """There was no answer within the time limit, and the subprocess has been killed."""


class Died(Fault):
    """The subprocess ended in the middle of a request."""


class NotMade(Exception):
    """The environment could not be made in a subprocess: there is nothing to check."""


class Client:
    """An environment in a subprocess, which is started when first asked and again after it was killed.

    Args:
        make: Makes the environment; it is pickled by value where it has to be.
        hash_seed: The subprocess's PYTHONHASHSEED.
    """

    def __init__(self, make: Callable[[], gymnasium.Env], *, hash_seed: int) -> None:
        self._hash_seed = hash_seed
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._make = cloudpickle.dumps(("make", make))

    def ask(self, method: str, *arguments: Any, limit: float = START_LIMIT) -> Any:
        """Return what a method of the worker returns.

        Args:
            method: Name of a method of `Worker`.
            arguments: Its arguments.
            limit: Seconds it may take.

        Raises:
            Raised: The environment's own code raised.
            Hung: It took longer than `limit`.
            Died: It ended the process.
            Fault: The environment did something wrong.
            NotMade: The environment could not be made.
        """
        if self._process is None:
            self._start()
        return self._request(cloudpickle.dumps((method, *arguments)), limit)

    def close(self) -> None:
        """Close the environment and end its subprocess."""
        if self._process is not None:
            with contextlib.suppress(Fault, NotMade):
                self._request(cloudpickle.dumps(("close",)), CLOSE_LIMIT)
            self._kill()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        package = __name__.rpartition(".")[0]
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _PROGRAM.format(f"{package}.worker"),
                json.dumps([str(path) for path in sys.path]),
                str(theirs.fileno()),
            ],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONHASHSEED": str(self._hash_seed)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # so that it can be killed together with what it starts
        )
        theirs.close()
        try:
            self._request(self._make, START_LIMIT)
        except (Fault, NotMade) as error:
            if self._process is not None:
                self._kill()
            raise NotMade(f"the environment cannot be made in another process: {error}") from error

    def _kill(self) -> int:
        """End the subprocess and all that it started, and return its status."""
        assert self._connection is not None and self._process is not None
        connection, process = self._connection, self._process
        self._connection = self._process = None
        connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()

    def _request(self, message: bytes, limit: float) -> Any:
        assert self._connection is not None
        try:
            self._connection.send_bytes(message)
            if not self._connection.poll(limit):
                self._kill()
                raise Hung(f"no answer within {limit:g} s")
            kind, result = cloudpickle.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError):
            raise Died(f"it ends the process (status {self._kill()})") from None
        if kind == "ok":
            return result
        raise {"raised": Raised, "fault": Fault}.get(kind, NotMade)(result)
