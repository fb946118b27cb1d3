"""Ask math-verify in a separate process that can be killed, so that no answer can hang or bloat this one.

Workers are plain subprocesses that speak JSON lines, started when first needed, reused, and limited in time
and memory. They work in any thread and any process: daemonic ones too (which asynchronous vector
environments use and `multiprocessing` gives no children), after a fork, and under scripts without a
`__main__` guard (which `multiprocessing` would run again). A worker whose parent is gone ends by itself, in
the middle of a computation too. POSIX only: the time limit is an alarm of the worker's own.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WORKER = Path(__file__).with_name("symbolic_worker.py")
_START_LIMIT = 60.0  # seconds until a new worker has imported math-verify
_GRACE = 1.0  # seconds until a worker that should have ended itself is killed


class SymbolicTimeout(Exception):
    """The comparison reached its time limit."""


class SymbolicFailure(RuntimeError):
    """The worker could not be started, or failed twice on one comparison: the answer is not to blame."""


@dataclass
class TimeBudget:
    """Seconds left for the comparisons that share it; starting a worker is not counted."""

    seconds: float


def symbolically_equal(target: str, gold: str, budget: TimeBudget) -> bool:
    """Whether math-verify finds two LaTeX formulas (without delimiters) equal.

    Args:
        target: The model's formula.
        gold: The right one.
        budget: What it may take; it is charged with what it took.

    Raises:
        SymbolicTimeout: The budget is spent.
        SymbolicFailure: No worker could be started, or two in a row failed.
    """
    try:
        return _pool.ask(target, gold, budget)
    except _WorkerDied:
        try:
            return _pool.ask(target, gold, budget)
        except _WorkerDied as death:
            raise SymbolicFailure(f"the math-verify worker failed twice: {death}") from death


class _WorkerDied(Exception):
    """A worker ended without an answer."""


class _Worker:
    """One subprocess and its pipes, used by one thread at a time."""

    def __init__(self) -> None:
        # -P keeps this directory off the worker's import path, where math.py would hide the standard module
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        if self._read(_START_LIMIT) != "ready":
            self.stop()
            raise SymbolicFailure(
                f"the math-verify worker did not start (exit status {self.process.returncode}); "
                f"check it with: {sys.executable} -c 'import math_verify'"
            )

    def ask(self, target: str, gold: str, budget: TimeBudget) -> bool:
        if budget.seconds <= 0:
            raise SymbolicTimeout("no time is left to compare the rest")
        seconds, start = budget.seconds, time.monotonic()
        request = json.dumps({"target": target, "gold": gold, "seconds": seconds})
        try:
            self._stdin.write(request.encode() + b"\n")
        except BrokenPipeError:
            raise _WorkerDied(f"it had ended with status {self.process.wait()}") from None
        reply = self._read(seconds + _GRACE)
        budget.seconds -= time.monotonic() - start
        if reply is None or (reply == "" and self.process.wait() == -signal.SIGALRM):
            raise SymbolicTimeout(f"comparing took longer than {seconds:.1f} s")
        if reply == "":
            raise _WorkerDied(f"it ended with status {self.process.returncode}")
        return json.loads(reply)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self) -> None:
        self._stdin.close()
        self._stdout.close()

    @property
    def _stdin(self) -> Any:
        return self.process.stdin

    @property
    def _stdout(self) -> Any:
        return self.process.stdout

    def _read(self, seconds: float) -> str | None:
        """Return the next line, "" when the worker has ended, None when time is up."""
        poll = select.poll()
        poll.register(self._stdout, select.POLLIN)
        return self._stdout.readline().decode().strip() if poll.poll(seconds * 1000) else None


class _Pool:
    """Idle workers, and room for as many busy ones as there are cores."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._room = threading.BoundedSemaphore(os.cpu_count() or 1)

    def ask(self, target: str, gold: str, budget: TimeBudget) -> bool:
        with self._room:
            worker = self._idle_worker() or _Worker()
            try:
                reply = worker.ask(target, gold, budget)
            except BaseException:
                worker.stop()
                raise
            self._idle.append(worker)
            return reply

    def _idle_worker(self) -> _Worker | None:
        """Take an idle worker that still runs; something outside may have ended some of them."""
        while True:
            try:
                worker = self._idle.pop()
            except IndexError:
                return None
            if worker.process.poll() is None:
                return worker
            worker.close()

    def stop(self) -> None:
        while self._idle:
            self._idle.pop().stop()

    def leave_to_parent(self) -> None:
        """After a fork: let go of the workers without ending them, and start afresh."""
        for worker in self._idle:
            worker.process.returncode = 0  # not our child: nothing to wait for
            worker.close()
        self.__init__()  # type: ignore[misc]


_pool = _Pool()
atexit.register(_pool.stop)
os.register_at_fork(after_in_child=_pool.leave_to_parent)
