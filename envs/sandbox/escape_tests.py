"""What must fail inside a sandbox, tried before it is used: isolation is what holds, not what is installed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .task import Task
from .types import Limits, Program, Result, Status

_LIMITS = Limits(cpu_seconds=10, wall_seconds=30, threads=4)

# Every attempt is an expression that is true when it was stopped.
_SOURCE = """
import _thread, os, signal, socket, threading, time

def denied(attempt, *arguments):
    try:
        attempt(*arguments)
    except (OSError, ValueError):
        return True
    return False

def readable(path):
    with open(path) as file:
        return file.read()

def fork():
    if os.fork() == 0:
        os._exit(0)

def thread_denied():
    threading.stack_size(1 << 15)  # so that it is not memory that stops them
    try:
        for _ in range(3000):
            _thread.start_new_thread(time.sleep, (30,))
    except RuntimeError:
        return True
    return False
"""


def escapes(run: Callable[[Task], tuple[Result, ...]]) -> list[str]:
    """Try everything that must fail, and return what did not.

    Args:
        run: Runs a task in the sandbox on trial.
    """
    with _secret() as secret:
        attempts = _attempts(secret)
        program = Program(_SOURCE, mode="eval")
        results = run(Task(program, list(attempts.values()), _LIMITS))
    failed = [name for name, result in zip(attempts, results, strict=True) if result.value is not True]
    broken = next((result for result in results if result.status is not Status.OK), None)
    return [f"{name} ({broken.cause})" for name in failed] if broken else failed


def _attempts(secret: Path) -> dict[str, str]:
    return {
        "opening a socket": "denied(socket.socket) and denied(socket.socketpair)",
        "reading a file of this process": f"denied(readable, {str(secret)!r})",
        "reading the environment of this process": "not os.environ"
        f" and denied(readable, '/proc/{os.getpid()}/environ')",
        "starting a process": "denied(fork) and denied(os.execv, '/bin/sh', ['sh'])",
        "writing a file": " and ".join(
            f"denied(open, {os.path.join(directory, 'dapo-trl-probe')!r}, 'w')"
            for directory in ("/tmp", "/dev/shm", "/var/tmp", "/", str(Path.home()), str(secret.parent))
        ),
        "signalling another process": f"denied(os.kill, os.getppid(), 0) and denied(os.kill, {os.getpid()}, 0)"
        " and denied(os.kill, -1, 0)",
        "sharing memory": "denied(os.memfd_create, 'probe')",
        "starting threads without end": "thread_denied()",
    }


@contextmanager
def _secret() -> Iterator[Path]:
    """A file that anybody may read, were it not for the sandbox."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        path = Path(directory, "secret")
        path.write_text("secret")
        path.chmod(0o644)
        yield path
