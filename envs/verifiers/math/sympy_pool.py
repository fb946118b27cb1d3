"""Ask math-verify in a separate process that can be killed, so that no answer can hang or bloat this one.

How it works: one subprocess loads math-verify when it is first needed, and forks the workers, which compare and are
reused. A worker that reaches its limit is ended by the system and replaced by a new fork within milliseconds. It works
in any thread and any process: daemonic ones too (which asynchronous vector environments use and `multiprocessing`
gives no children), after a fork, and under scripts without a `__main__` guard (which `multiprocessing` would run
again). Nothing of this process is changed: no signal handler, no alarm, no recursion limit, no start method. Workers
end by themselves when this process ends, however it ends. POSIX only.

What is limited: the CPU time of the worker and its memory. CPU time, because on an idle machine it is the time on the
clock, and on a busy one, where a comparison of milliseconds may take seconds, a right answer stays right: a verdict
depends on the answer alone. A comparison that is still not done after `STALL_LIMIT` seconds on the clock says nothing
about the answer; it is a `SymbolicFailure`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STALL_LIMIT = 60.0
"""Seconds on the clock after which a comparison is given up, as the machine's fault; loading math-verify included."""

_WORKER = Path(__file__).with_name("sympy_worker.py")
_ATTEMPTS = 3  # at one comparison, if workers die
_LAST_BREATH = 0.5  # seconds until a server that has been killed is gone
_LEAST_CHARGE = 0.001  # seconds that a comparison takes from a budget, since asking takes time too


class SymbolicTimeout(Exception):
    """The comparison reached its limit on CPU time."""


class SymbolicFailure(RuntimeError):
    """The worker could not be started, stalled, or failed again and again: the answer is not to blame."""


@dataclass
class TimeBudget:
    """Seconds of CPU time left for the comparisons that share it; starting a worker is not counted."""

    seconds: float


def symbolically_equal(target: str, gold: str, budget: TimeBudget) -> bool:
    """Whether math-verify finds two LaTeX formulas (without delimiters) equal.

    Args:
        target: The model's formula.
        gold: The right one.
        budget: What it may take; it is charged with what it took.

    Raises:
        SymbolicTimeout: The budget is spent.
        SymbolicFailure: No worker could be started, several in a row failed, or one stalled.
    """
    if budget.seconds <= 0:
        raise SymbolicTimeout("no time is left to compare the rest")
    seconds = budget.seconds
    reply = _pool.ask({"target": target, "gold": gold, "seconds": seconds})
    if "equal" not in reply:
        budget.seconds = 0.0
        raise SymbolicTimeout(f"comparing took more than {seconds:.1f} s of CPU time")
    budget.seconds -= max(reply["seconds"], _LEAST_CHARGE)
    return reply["equal"]


class _WorkerDied(Exception):
    """A worker ended without an answer."""


class _Server:
    """The subprocess that loads math-verify and forks workers."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair()
        with theirs:
            # -P keeps this directory off the import path, where math.py would hide the standard module;
            # a process group of its own, because Ctrl-C in the terminal is not meant for it
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(_WORKER)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs, contextlib.suppress(OSError):  # if it is gone, reading from `ours` tells
            socket.send_fds(self.control, [b"+"], [theirs.fileno()])
        return ours

    def stop(self) -> None:
        self.control.close()
        self.process.kill()
        self.process.wait()


class _Pool:
    """Idle workers, and room for as many busy ones as this process has cores."""

    def __init__(self) -> None:
        self._server: _Server | None = None
        self._starting = threading.Lock()
        self._idle: list[socket.socket] = []
        self._workers: set[socket.socket] = set()  # idle and busy
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._room = threading.BoundedSemaphore(cores)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a worker's reply: "equal" and "seconds", or the "status" with which its limit on CPU time ended it."""
        with self._room:
            for attempt in range(_ATTEMPTS):  # something outside may have ended an idle worker, or the server
                worker = (self._idle_worker() if attempt == 0 else None) or self._new_worker()
                try:
                    reply = _converse(worker, request)
                except _WorkerDied as death:
                    self._drop(worker)
                    cause = self._diagnosis(death)
                except BaseException:
                    self._drop(worker)
                    raise
                else:
                    self._idle.append(worker)
                    return reply
        raise SymbolicFailure(cause)

    def stop(self) -> None:
        for worker in list(self._workers):
            self._drop(worker)
        self._idle.clear()
        if self._server is not None:
            self._server.stop()
            self._server = None

    def leave_to_parent(self) -> None:
        """After a fork: let go of the workers without ending them, and start afresh."""
        for worker in self._workers:
            worker.close()
        if self._server is not None:
            self._server.control.close()
            self._server.process.returncode = 0  # not our child: nothing to wait for
        self.__init__()  # type: ignore[misc]

    def _idle_worker(self) -> socket.socket | None:
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        return None

    def _new_worker(self) -> socket.socket:
        with self._starting:
            if self._server is not None and self._server.process.poll() is not None:
                self._server.stop()
                self._server = None
            if self._server is None:
                self._server = _Server()
            worker = self._server.connect()
            self._workers.add(worker)
            return worker

    def _drop(self, worker: socket.socket) -> None:
        self._workers.discard(worker)
        worker.close()

    def _diagnosis(self, death: _WorkerDied) -> str:
        server = self._server
        with contextlib.suppress(subprocess.TimeoutExpired):
            if server is not None and (status := server.process.wait(_LAST_BREATH)) is not None:
                return (
                    f"the math-verify worker did not start (exit status {status}); "
                    f"check it with: {sys.executable} -c 'import math_verify'"
                )
        return f"the math-verify worker failed {_ATTEMPTS} times: {death}"


def _converse(worker: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request and wait for the reply to it.

    Raises:
        _WorkerDied: The worker ended for another reason than its limit on CPU time.
        SymbolicFailure: There is no reply for too long.
    """
    deadline = time.monotonic() + STALL_LIMIT
    poll = select.poll()
    poll.register(worker, select.POLLIN)
    received = b""
    try:
        worker.sendall(json.dumps(request).encode() + b"\n")
        while not received.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise SymbolicFailure(
                    f"the math-verify worker did not answer within {STALL_LIMIT:g} s: the machine is overloaded, "
                    "or something stopped the worker"
                )
            part = worker.recv(4096)
            if not part:
                raise _WorkerDied("it ended without an answer")
            received += part
    except OSError as error:
        raise _WorkerDied(str(error)) from error
    reply = json.loads(received)
    if "status" in reply and reply["status"] != -signal.SIGPROF:
        raise _WorkerDied(f"it ended with status {reply['status']}")
    return reply


_pool = _Pool()
atexit.register(_pool.stop)
os.register_at_fork(after_in_child=_pool.leave_to_parent)
