"""`Sandbox`: programs in, results out, with the zygote behind it started when needed and replaced when it dies."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from .escape_tests import escapes
from .isolation import Isolation, launch
from .task import AnySandbox
from .types import Limits, Result, SandboxUnavailable, Status
from .zygote_client import Channel, Launch, Zygote, ZygoteFailure

log = logging.getLogger("envs.sandbox")


class Sandbox(AnySandbox):
    """Runs programs that nobody has read, kept apart from the machine, from this process and from each other.

    It may be used from any thread and any process, daemonic ones and those forked after its creation included. What it
    starts ends with it, or with the process that made it.

    Args:
        isolation: "auto" takes the strongest level that works here, or the name of one; see `Isolation`. "unsafe" is
            never chosen automatically, and every line that is logged says so.
        packages: Installed packages that programs may import besides the standard library, such as ("numpy",); with
            those that they need, as nothing else is readable.
        modules: Modules of our own for the sides of dialogs, as names and texts.
        workers: Programs that run at the same time; as many as there are cores by default.

    Raises:
        ValueError: An argument is none of these.
    """

    def __init__(
        self,
        isolation: str = "auto",
        *,
        packages: Sequence[str] = (),
        modules: Mapping[str, str] | None = None,
        workers: int | None = None,
    ) -> None:
        if isolation != "auto" and isolation not in set(Isolation):
            known = ", ".join(repr(str(level)) for level in ("auto", *Isolation))
            raise ValueError(f"Sandbox: isolation={isolation!r} must be one of {known}")
        if isinstance(packages, str):
            raise ValueError(f"Sandbox: packages={packages!r} must be a list of names, such as [{packages!r}]")
        if workers is not None and workers < 1:
            raise ValueError(f"Sandbox: workers={workers!r} must be at least 1")
        self._wanted, self._packages, self._modules = isolation, tuple(packages), dict(modules or {})
        self._workers = workers or _cores()
        self._isolation: Isolation | None = None
        self._zygote: Zygote | None = None
        self._idle: list[Channel] = []
        self._closings = 0
        self._forget()
        _sandboxes.add(self)

    @property
    def isolation(self) -> Isolation:
        """The level in use; starts the sandbox if need be.

        Raises:
            SandboxUnavailable: No level that is allowed works here.
        """
        self._running_zygote()
        assert self._isolation is not None
        return self._isolation

    def _attempt(
        self, limits: Limits, count: int, exchange: Callable[[Channel], tuple[Result, ...]]
    ) -> tuple[Result, ...]:
        cause = ""
        with self._room:
            closings = self._closings
            for _ in range(2):
                try:
                    results = self._on_channel(exchange)
                except ZygoteFailure as failure:
                    cause = str(failure)
                else:
                    if all(result.status is not Status.INFRA_FAILURE for result in results):
                        return results
                    cause = next(result.cause for result in results if result.status is Status.INFRA_FAILURE)
                if self._closings != closings:
                    return (Result(Status.INFRA_FAILURE, cause="the sandbox was closed"),) * count
                log.warning("isolation=%s: the sandbox failed: %s", self._isolation, cause)
        return (Result(Status.INFRA_FAILURE, cause=f"the sandbox failed twice: {cause}"),) * count

    def _on_channel(self, exchange: Callable[[Channel], tuple[Result, ...]]) -> tuple[Result, ...]:
        """Exchange something with an idle supervisor, or a new one."""
        zygote = self._running_zygote()
        try:
            channel = self._idle.pop()
        except IndexError:
            channel = zygote.open_channel()
        is_of_use = False
        try:
            results = exchange(channel)
            with self._starting:
                is_of_use = zygote is self._zygote  # it has not been replaced or closed meanwhile
                if is_of_use:
                    self._idle.append(channel)
        finally:
            if not is_of_use:
                channel.close()
        return results

    def close(self) -> None:
        """End all processes, and what runs in them ("infra_failure"). The next `run` starts them again."""
        with self._starting:
            self._closings += 1
            self._stop()

    def _stop(self) -> None:
        while self._idle:
            self._idle.pop().close()
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.stop()

    def _running_zygote(self) -> Zygote:
        with self._starting:
            if self._zygote is not None and not self._zygote.is_running:
                self._stop()
            if self._zygote is None:
                self._zygote = self._start()
            return self._zygote

    def _start(self) -> Zygote:
        if self._isolation is not None:  # it has worked before: now it either works or fails
            return Zygote(launch(self._isolation, self._packages, self._modules))
        if sys.platform != "linux":
            raise SandboxUnavailable(
                f"programs cannot be run safely on {sys.platform}: the sandbox needs Linux; run it in a container or a "
                "virtual machine"
            )
        levels = (Isolation.BUBBLEWRAP, Isolation.LANDLOCK) if self._wanted == "auto" else (Isolation(self._wanted),)
        reasons = []
        for level in levels:
            try:
                zygote = _proven(level, launch(level, self._packages, self._modules))
            except SandboxUnavailable as reason:
                reasons.append(f"{level}: {reason}")
                continue
            self._isolation = level
            log.log(
                logging.WARNING if level is Isolation.UNSAFE else logging.INFO,
                "isolation=%s%s: ready to run programs",
                level,
                "; ".join(["", *reasons]),
            )
            return zygote
        raise SandboxUnavailable("no sandbox works here. " + " | ".join(reasons) + " | See docs/sandbox.md.")

    def _forget(self) -> None:
        self._zygote = None
        self._idle = []
        self._starting = threading.Lock()
        self._room = threading.BoundedSemaphore(self._workers)

    def _leave_to_parent(self) -> None:
        """After a fork: let go of the parent's processes and start afresh."""
        for channel in self._idle:
            channel.close()
        if self._zygote is not None:
            self._zygote.leave_to_parent()
        self._forget()


def _proven(level: Isolation, how: Launch) -> Zygote:
    """Start a zygote and try to break out of it."""
    try:
        zygote = Zygote(how)
    except ZygoteFailure as failure:
        raise SandboxUnavailable(f"it did not start: {failure}") from failure
    if level is Isolation.UNSAFE:
        return zygote

    try:
        channel = zygote.open_channel()
        held = escapes(lambda task: task.exchange(channel))
    except ZygoteFailure as failure:
        zygote.stop()
        raise SandboxUnavailable(f"it did not run its own tests: {failure}") from failure
    channel.close()
    if held:
        zygote.stop()
        raise SandboxUnavailable(f"it does not prevent: {'; '.join(held)}")
    return zygote


@cache
def shared_sandbox(
    isolation: str = "auto", packages: tuple[str, ...] = (), modules: tuple[tuple[str, str], ...] = ()
) -> Sandbox:
    """Return the one sandbox of this process with these settings, so that all its users share its workers."""
    return Sandbox(isolation, packages=packages, modules=dict(modules))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_sandboxes: weakref.WeakSet[Sandbox] = weakref.WeakSet()


def _close_all() -> None:
    for sandbox in list(_sandboxes):
        sandbox.close()


def _leave_all_to_parent() -> None:
    for sandbox in list(_sandboxes):
        sandbox._leave_to_parent()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
