"""The state of a run in a small file of its folder: running, or how it ended.

Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from ..errors import DapoError, one_line

FILE = "status.json"
RUNNING, FINISHED, INTERRUPTED, STOPPED, FAILED = "running", "finished", "interrupted", "stopped", "failed"
"""States that a run writes itself; "stopped" is by an alarm."""
KILLED, SILENT = "killed", "silent"
"""Conclusions about a run whose last state is "running": its process is gone, or it is on another machine and without
news."""
QUIET = 600.0
"""Seconds since the last log for which a run on another machine counts as running."""
SAME_START = 60.0
"""Seconds by which two readings of a process's start may differ, because clocks are set."""


class StatusFile:
    """Keeps ``status.json`` true while the run is within its ``with`` block; an exception is written down on its way.

    Args:
        main: whether this is the main process; the others write only that they failed, if nothing else has.
    """

    def __init__(self, folder: Path, *, main: bool):
        self.path = folder / FILE
        self.main = main

    def __enter__(self) -> StatusFile:
        self.end(RUNNING)
        return self

    def end(self, state: str, why: str = "") -> None:
        """Write how the run ends."""
        if self.main:
            self._write(state, why)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None or read(self.path.parent).get("state") != RUNNING:
            return
        if isinstance(error, KeyboardInterrupt):
            self._write(INTERRUPTED, "By Ctrl-C, at once: without a checkpoint of the step in progress.")
        elif isinstance(error, Exception):
            what = one_line(error)
            self._write(FAILED, what if isinstance(error, DapoError) else f"{type(error).__name__}: {what}")

    def _write(self, state: str, why: str) -> None:
        text = json.dumps({"state": state, "why": why, **identity()}, indent=2) + "\n"
        new = self.path.with_name(f"{FILE}.new")
        with contextlib.suppress(OSError):  # neither fails a run nor hides its error
            try:
                new.write_text(text, encoding="utf-8")
                new.replace(self.path)
            except OSError:  # a full disk has room for it where the last one was
                new.unlink(missing_ok=True)
                self.path.write_text(text, encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """The file as it is; empty where there is none that can be read."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("state"), str) else {}


def seen(folder: Path, *, newest: float | None) -> tuple[str, str] | None:
    """The state of a folder's run, as far as this machine can see.

    Args:
        newest: time of the last log, in seconds since 1970.

    Returns:
        the state, and a sentence on it (may be empty); None without a status file.
    """
    content = read(folder)
    if not content:
        return None
    state, why = content["state"], content.get("why")
    if state != RUNNING:
        return state, why if isinstance(why, str) else ""
    there = goes_on(content)
    quiet = time.time() - newest if newest is not None else 0.0
    if there is False:
        return KILLED, "Its process is gone and left no word: out of memory, most often, or the machine went down."
    if there is None and quiet > QUIET:
        return SILENT, f"Nothing new for {quiet / 60:.0f} minutes. It ran on another machine: look there."
    return RUNNING, ""


def identity() -> dict[str, Any]:
    """This process, such that `goes_on` knows it again: its machine, its number and its start."""
    process = psutil.Process()
    return {"machine": _machine(), "process": process.pid, "process_started": process.create_time()}


def goes_on(content: Mapping[str, Any]) -> bool | None:
    """Whether the process of an `identity` is there; None where that cannot be seen."""
    number, started = content.get("process"), content.get("process_started")
    if content.get("machine") != _machine() or not isinstance(number, int) or not isinstance(started, int | float):
        return None
    try:
        process = psutil.Process(number)
        return abs(process.create_time() - started) < SAME_START and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return False
    except psutil.AccessDenied:
        return None


def _machine() -> str:
    """The host, and on Linux whose process numbers these are: a container has numbers of its own."""
    with contextlib.suppress(OSError):
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    return platform.node()
