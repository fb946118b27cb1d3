"""One run to a folder: its process holds a lock in it, known by its start and kept fresh by a heartbeat.

On one machine a lock whose process is gone is free at once. On another machine, or in another container, its process
cannot be seen: there it is free when its heartbeat has stopped for `STALE` seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import ConfigError
from ..monitor.status import goes_on, identity

try:
    import fcntl
except ImportError:  # Windows has none: there, two runs that start in the same instant are not told apart
    fcntl = None  # type: ignore[assignment]

LOCK = "owner.json"
BEAT = 15.0
"""Seconds from one heartbeat to the next."""
STALE = 180.0
"""Seconds without a heartbeat after which a process that cannot be seen counts as gone; caches of network file systems
hold a time for up to 60."""
PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>."""


def end_with_launcher() -> None:
    """Have the kernel send SIGTERM to this process when the launcher of a run on several processes dies."""
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def check_free(folder: Path) -> None:
    """Refuse a folder that a living run holds; nothing is written.

    Raises:
        ConfigError: with the process, its machine and its start.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), (folder / LOCK).open(encoding="utf-8") as file:
        _refuse_living(folder, file)


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a folder, which must exist, until the end of the block.

    Raises:
        ConfigError: A living run holds it.
    """
    path = folder / LOCK
    mine = json.dumps({**identity(), "since": time.time()}, indent=2) + "\n"
    with _open_alone(path) as file:
        _refuse_living(folder, file)
        file.seek(0)
        file.truncate()
        file.write(mine)
    ended = threading.Event()
    threading.Thread(target=_beat, args=(path, ended), name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            if path.read_text(encoding="utf-8") == mine:
                path.unlink()


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)


@contextlib.contextmanager
def _open_alone(path: Path) -> Iterator[IO[str]]:
    """Open a lock file while no other process of this machine, or of a file system that supports it, does the same."""
    while True:
        with path.open("a+", encoding="utf-8") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):  # a run that ended in the meantime has deleted this one
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    yield file
                    return


def _refuse_living(folder: Path, file: IO[str]) -> None:
    file.seek(0)
    try:
        holder = json.load(file)
        process, host, since = int(holder["process"]), str(holder["machine"]).split()[0], float(holder["since"])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return  # of a run that did not come to write it
    alive, quiet = goes_on(holder), _quiet(folder, file)
    if alive is False or (alive is None and quiet > STALE):
        return
    unseen = (
        f" Its last sign of life is {quiet:.0f} s old; if it has died, try again in {STALE - quiet:.0f} s."
        if alive is None
        else ""
    )
    raise ConfigError(
        f"output_dir {folder} belongs to a run that goes on: process {process} on {host}, since "
        f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(since))}. Stop it first, or choose another "
        f"--output_dir.{unseen}"
    )


def _quiet(folder: Path, file: IO[str]) -> float:
    """Seconds since the last heartbeat, both times by the clock of the file system."""
    now = time.time()
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as probe:
        now = os.fstat(probe.fileno()).st_mtime
    return max(now - os.fstat(file.fileno()).st_mtime, 0.0)
