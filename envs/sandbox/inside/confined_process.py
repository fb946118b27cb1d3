"""A worker as its supervisor sees it: forked, confined, watched and ended."""

from __future__ import annotations

import math
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from . import confine, kernel

_CLOSE_ENOUGH = 0.002  # seconds that are not worth waking up for again
_ALL_FILES = 2000  # file descriptors there are at most

FIRST_FILE = 10
"""The numbers below are left to the files of workers."""


class Wall(NamedTuple):
    """What workers are put behind, besides what the supervisor is behind already."""

    filter: confine.Filter | None
    """Of system calls."""
    tasks: int
    """Processes and threads of this user that are not the worker's."""


class NotWanted(Exception):
    """Nobody wants to know how the program ends."""


class Worker:
    """A process that runs hostile code, and what it has used since `start_input`.

    Args:
        work: What it does; the process ends with the status that this returns.
        files: Its only open files; it sees them under the numbers from 0 on. Here they have other numbers from
            `FIRST_FILE` on, or already the same.
        limits: The fields of `Limits`.
        cpu_seconds: Processor time after which the kernel ends it, should the supervisor fail to.
        end: When the time for all inputs together is over, on the monotonic clock.
        watched: File descriptors that become readable when nobody wants to know any more.
        replies: File descriptor that becomes readable when the process has something to say.
    """

    def __init__(
        self,
        work: Callable[[], int],
        files: tuple[int, ...],
        limits: dict[str, Any],
        cpu_seconds: float,
        end: float,
        wall: Wall,
        watched: list[int],
        replies: int | None = None,
    ) -> None:
        supervisor = os.getpid()
        self._kernel_seconds = math.ceil(cpu_seconds) + 1
        kernel_limits = confine.kernel_limits(limits, wall.tasks + 1 + limits["threads"], self._kernel_seconds)
        self._pid = os.fork()
        if self._pid == 0:
            _confine(files, kernel_limits, wall, supervisor)
            os._exit(work())
        self._pidfd = kernel.watch_process(self._pid)
        self._clock = (~self._pid << 3) | 2  # the kernel's number for the CPU time of a process
        self._limits, self._watched, self._replies = limits, watched, replies
        self._end = end
        self._status: tuple[int, Any] | None = None
        self._poll = select.poll()
        for file in (self._pidfd, *watched, *([] if replies is None else [replies])):
            self._poll.register(file, select.POLLIN)
        self.start_input()

    def start_input(self) -> None:
        self._start = time.monotonic()
        self._cpu_end = time.clock_gettime(self._clock) + self._limits["cpu_seconds"]

    def seconds(self) -> float:
        return time.monotonic() - self._start

    def wait(self) -> bool:
        """Wait until the worker replies or ends, and return True; False when its time is up.

        Raises:
            NotWanted: There was word from the other side.
        """
        while True:
            cpu_left = self._cpu_end - time.clock_gettime(self._clock)
            left = min(self._limits["wall_seconds"] - self.seconds(), cpu_left, self._end - time.monotonic())
            ready = [file for file, _ in self._poll.poll(max(0, math.ceil(left * 1000)))]
            if any(file in self._watched for file in ready):
                raise NotWanted
            if ready:
                return True
            if left <= _CLOSE_ENOUGH:
                return False

    def wait_for_end(self) -> bool:
        """Wait until the worker ends, and return True; False when its time is up. It is not listened to any more."""
        if self._replies is not None:
            self._poll.unregister(self._replies)
            self._replies = None
        return self.wait()

    def close(self) -> tuple[int, Any]:
        """End the worker, if it has not ended, and return its wait status and resource usage."""
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            self._status = os.wait4(self._pid, 0)[1:]
            os.close(self._pidfd)
        return self._status

    def was_stopped_by_kernel(self) -> bool:
        """Whether the kernel ended it for its processor time: threads together are faster than any watch."""
        usage = self.close()[1]
        return bool(usage.ru_utime + usage.ru_stime >= self._kernel_seconds)


def _confine(files: tuple[int, ...], limits: confine.KernelLimits, wall: Wall, supervisor: int) -> None:
    """Do what is left to be done in the new process itself, where every step is slow: pages are copied at first use."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(len(files), _ALL_FILES)
    confine.die_with(supervisor)
    for kind, values in limits:
        resource.setrlimit(kind, values)
    if wall.filter is not None:
        wall.filter.install()
